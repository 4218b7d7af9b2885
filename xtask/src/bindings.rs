//! The C side of the hook contract, generated from its WIT.

use std::path::PathBuf;

use anyhow::{Context, Result};
use wit_bindgen_core::Files;
use wit_parser::Resolve;

/// The contract's WIT.
#[must_use]
pub fn contract() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../hooks-sdk/wit/since_v0_1_1")
}

/// `hook.h` and `hook.c`: sources only. The component type, which other tool chains link as an object
/// file, is put into the module by `stillpoint hook build`.
///
/// # Errors
/// If the WIT cannot be read, or has what C cannot say.
pub fn c() -> Result<Vec<(String, Vec<u8>)>> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(contract()).context("the contract cannot be read")?;
    let world = resolve.select_world(&[package], Some("hook"))?;
    let options = wit_bindgen_c::Opts { no_object_file: true, ..Default::default() };
    let mut files = Files::default();
    options.build().generate(&mut resolve, world, &mut files)?;
    Ok(files.iter().map(|(name, text)| (name.to_owned(), without_object(text))).collect())
}

/// The generator asks the linker for the object file also where it makes none.
fn without_object(text: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(text);
    let end = text.find("// Ensure that the *_component_type.o object").unwrap_or(text.len());
    format!("{}\n", text[..end].trim_end()).into_bytes()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_bindings_that_are_checked_in_are_those_of_the_contract() {
        let directory = super::contract().join("../../c");
        for (name, text) in super::c().unwrap() {
            let checked_in = std::fs::read(directory.join(&name)).unwrap();
            assert!(checked_in == text, "{name}: cargo run -p xtask -- c-bindings hooks-sdk/c");
        }
    }
}
