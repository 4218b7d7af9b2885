//! Is this file a component that this stillpoint can run? If not, say what its author can do.

use wasmtime::Engine;
use wasmtime::component::Component;

use super::since_v0_1_0::{EXPORT, IMPORTS, VERSION, calls, served, serves};
use super::text::{LONGEST_MESSAGE, clean, visible};
use crate::capability::wasi;

const MAGIC: &[u8] = b"\0asm";
const CORE_MODULE: &[u8] = &[1, 0, 0, 0];
const COMPONENT: &[u8] = &[0x0d, 0, 1, 0];

/// Why a file is not a hook, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NotAHook {
    pub(crate) problem: String,
    pub(crate) hint: String,
}

fn not_a_hook<T>(problem: impl Into<String>, hint: impl Into<String>) -> Result<T, NotAHook> {
    // The names in it are the component's own.
    Err(NotAHook { problem: clean(&visible(&problem.into()), LONGEST_MESSAGE), hint: hint.into() })
}

/// Checks a file's bytes and compiles them. Slow (seconds for an interpreter): never in the path of
/// a snapshot.
pub(crate) fn compile(engine: &Engine, bytes: &[u8]) -> Result<Component, NotAHook> {
    check_header(bytes)?;
    let component = Component::new(engine, bytes).or_else(|error| {
        not_a_hook(
            format!("it is a damaged component, or was cut short: {:#}", error),
            "copy it again and compare its digest with its author's",
        )
    })?;
    check_imports(engine, &component)?;
    check_exports(engine, &component)?;
    Ok(component)
}

fn check_header(bytes: &[u8]) -> Result<(), NotAHook> {
    if Engine::detect_precompiled(bytes).is_some() {
        return not_a_hook(
            "it is a compiled image (.cwasm); images are native code and are never accepted",
            "give the .wasm component that it was compiled from; stillpoint compiles it here",
        );
    }
    match (bytes.get(..4), bytes.get(4..8)) {
        (Some(MAGIC), Some(COMPONENT)) => Ok(()),
        (Some(MAGIC), Some(CORE_MODULE)) => not_a_hook(
            "it is a core WebAssembly module, not a component",
            "turn it into a component: `stillpoint hook build module.wasm`",
        ),
        (Some(MAGIC), Some(_)) => not_a_hook(
            "it is WebAssembly of a version that is not known here",
            "build it with a current tool chain",
        ),
        _ if bytes.len() < 8 => not_a_hook("it is cut short: fewer than 8 bytes", "copy it again"),
        _ => not_a_hook(
            "it is not WebAssembly",
            "give the .wasm component that the hook's author publishes",
        ),
    }
}

/// What a component imports, by name.
pub(super) fn imports(engine: &Engine, component: &Component) -> Vec<String> {
    component.component_type().imports(engine).map(|(name, _)| name.to_owned()).collect()
}

/// What a component imports of the minimal WASI.
pub(crate) fn wasi_imports(engine: &Engine, component: &Component) -> Vec<String> {
    let ty = component.component_type();
    let imports = ty.imports(engine).map(|(name, _)| name.to_owned());
    imports.filter(|name| wasi::is_minimal(name)).collect()
}

/// What is not ours is not there, and a hook that wants it can never run: say so now, by name. What
/// is in the minimal WASI can be granted.
fn check_imports(engine: &Engine, component: &Component) -> Result<(), NotAHook> {
    let ty = component.component_type();
    let foreign: Vec<&str> = ty
        .imports(engine)
        .map(|(name, _)| name)
        .filter(|name| !serves(name) && !wasi::is_minimal(name))
        .collect();
    let Some(first) = foreign.first() else {
        return Ok(());
    };
    let names = foreign.join(", ");
    if first.starts_with("stillpoint:hook/") {
        return not_a_hook(
            format!("it imports {names}, and this stillpoint serves {}", served()),
            build_against(),
        );
    }
    if foreign.iter().any(|name| name.starts_with("wasi:")) {
        return not_a_hook(
            format!(
                "it imports {names}, which no hook gets: of WASI there is only what `wasi = \"minimal\"` grants (clocks, random numbers, output, exit; no files, no sockets)"
            ),
            wasi::STUB,
        );
    }
    not_a_hook(
        format!("it imports {names}, which no hook gets"),
        format!("import only {} of version {VERSION}", IMPORTS.join(", ")),
    )
}

/// The next step of an author whose component is for another version.
fn build_against() -> String {
    format!(
        "build it against version {VERSION} of the contract (hooks-sdk/wit), or update stillpoint"
    )
}

fn check_exports(engine: &Engine, component: &Component) -> Result<(), NotAHook> {
    let ty = component.component_type();
    let names: Vec<&str> = ty.exports(engine).map(|(name, _)| name).collect();
    if names.iter().any(|name| calls(name)) {
        return Ok(());
    }
    match names.iter().find(|name| name.starts_with("stillpoint:hook/lifecycle")) {
        Some(other) => not_a_hook(
            format!("it exports {other}, and this stillpoint serves {}", served()),
            build_against(),
        ),
        None => not_a_hook(
            format!("it does not export {EXPORT}@{VERSION}, so it is no hook"),
            "build it for the world `hook` of the package stillpoint:hook",
        ),
    }
}
