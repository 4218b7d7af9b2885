//! From a core module to a component, and from a binary to a package, as functions: tests and the
//! command use the same.

pub mod bindings;
pub mod coverage;
pub mod plugin;

use std::fmt;

use anyhow::{Context, Result, bail};
use wit_component::{ComponentEncoder, WitPrinter};

/// The first eight bytes of a core module: magic and version 1.
const CORE_MODULE: &[u8; 8] = b"\0asm\x01\0\0\0";
/// The first eight bytes of a component: magic, version 13, layer 1.
const COMPONENT: &[u8; 8] = b"\0asm\x0d\0\x01\0";
/// The first bytes of every WebAssembly file.
const MAGIC: &[u8; 4] = b"\0asm";

/// A component, and what came of it.
#[derive(Debug)]
pub struct Component {
    /// The binary.
    pub bytes: Vec<u8>,
    /// Its world, in WIT.
    pub world: String,
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes.len())
    }
}

/// Wraps a core module, in which `wit-bindgen` left the component's type, as a component, and
/// validates it.
///
/// # Errors
/// Not WebAssembly; a component already; a module without the type section, because `export!` was
/// not called or the crate is not a `cdylib`; imports that the type does not know; anything that does
/// not validate.
pub fn componentize(core: &[u8]) -> Result<Component> {
    refuse_what_is_no_core_module(core)?;
    let bytes = ComponentEncoder::default()
        .validate(true)
        .module(core)
        .context("the module's component type (left by wit-bindgen) cannot be read")?
        .encode()
        .context(
            "the module does not fit its component type: does it call `stillpoint_hook::export!`, \
             and does it import nothing but the hook contract (no WASI)?",
        )?;
    let world = world(&bytes)?;
    Ok(Component { bytes, world })
}

fn refuse_what_is_no_core_module(bytes: &[u8]) -> Result<()> {
    if bytes.starts_with(COMPONENT) {
        bail!("this is a component already: use it as it is");
    }
    if !bytes.starts_with(MAGIC) {
        bail!("this is not WebAssembly: its first bytes are not `\\0asm`");
    }
    if !bytes.starts_with(CORE_MODULE) {
        bail!("this is WebAssembly of an unknown version: {:02x?}", bytes.get(4..8));
    }
    Ok(())
}

/// The world of a component, in WIT; refuses one that does not export the hook contract.
fn world(component: &[u8]) -> Result<String> {
    let decoded = wit_component::decode(component).context("the component cannot be read back")?;
    let mut printer = WitPrinter::default();
    printer
        .print(decoded.resolve(), decoded.package(), &[])
        .context("the component's world cannot be printed")?;
    let world = printer.output.to_string();
    if !world.contains("export stillpoint:hook/lifecycle@") {
        bail!(
            "the component does not export `stillpoint:hook/lifecycle`: call \
             `stillpoint_hook::export!(YourHook)` in a crate of type `cdylib`"
        );
    }
    Ok(world)
}
