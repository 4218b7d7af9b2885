//! WASI's first preview, answered inside the component by nobody: for tool chains whose runtime calls it
//! and whose hooks do not need it.

use wasmparser::{Parser, Payload};

/// `stub.wat`, assembled: an assembler among the build's dependencies costs more than these bytes. A test
/// compares the two.
static STUB: &[u8] = include_bytes!("stub.wasm");

/// The functions that there is an answer for.
pub(super) fn functions() -> Vec<String> {
    let sections = Parser::new(0).parse_all(STUB).filter_map(Result::ok);
    let exports = sections.filter_map(|section| match section {
        Payload::ExportSection(exports) => Some(exports),
        _ => None,
    });
    exports.flatten().flatten().map(|export| export.name.to_owned()).collect()
}

/// The module, as `wit-component` takes it for an adapter.
pub(super) fn adapter() -> &'static [u8] {
    STUB
}
