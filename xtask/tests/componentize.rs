//! What is no hook is refused in words that say what to do.

fn refusal(bytes: &[u8]) -> String {
    match xtask::componentize(bytes) {
        Ok(component) => panic!("not refused: {component}"),
        Err(error) => format!("{error:#}"),
    }
}

/// A core module with one section: an import, and nothing of `wit-bindgen`.
const IMPORTS_WASI: &[u8] = b"\0asm\x01\0\0\0\
    \x01\x04\x01\x60\0\0\
    \x02\x18\x01\x0dwasi_unstable\x06random\0\0";

#[test]
fn a_file_that_is_no_webassembly_is_named_so() {
    assert!(refusal(b"#!/bin/sh\n").contains("this is not WebAssembly"));
    assert!(refusal(b"").contains("this is not WebAssembly"));
}

#[test]
fn a_component_is_not_wrapped_again() {
    assert!(refusal(b"\0asm\x0d\0\x01\0").contains("a component already"));
}

#[test]
fn a_module_without_the_export_macro_is_told_about_it() {
    let refusal = refusal(b"\0asm\x01\0\0\0");
    assert!(refusal.contains("stillpoint_hook::export!"), "{refusal}");
}

#[test]
fn a_module_that_imports_something_else_is_told_what() {
    let refusal = refusal(IMPORTS_WASI);
    assert!(refusal.contains("wasi_unstable"), "{refusal}");
    assert!(refusal.contains("no WASI"), "{refusal}");
}

#[test]
fn a_module_that_was_cut_short_is_refused() {
    assert!(!refusal(&IMPORTS_WASI[..20]).is_empty());
}
