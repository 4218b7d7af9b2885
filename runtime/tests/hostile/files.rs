//! What is no hook at all, or wants what no hook gets: refused before any of its code runs.

use super::module::Module;
use super::{Table, whole_life};

const FAMILY: &str = "files that are no hook of ours";

/// Bytes that are not even a component.
fn files() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let good = Module::new().component();
    let version = |bytes: [u8; 4]| [b"\0asm".as_slice(), &bytes, &good[8..]].concat();
    vec![
        ("nothing", Vec::new(), "fewer than 8 bytes"),
        ("magic only", b"\0asm".to_vec(), "fewer than 8 bytes"),
        ("text", b"#!/bin/sh\nrm -rf /\n".to_vec(), "not WebAssembly"),
        ("ELF", [b"\x7fELF\x02\x01\x01".as_slice(), &[0; 64]].concat(), "not WebAssembly"),
        ("zeros", vec![0; 4096], "not WebAssembly"),
        ("a core module", wat::parse_str(Module::new().text()).unwrap(), "core WebAssembly module"),
        ("an unknown version", version([0x0e, 0, 1, 0]), "not known here"),
        ("an unknown layer", version([0x0d, 0, 2, 0]), "not known here"),
        ("an image", image(), "never accepted"),
    ]
}

/// A compiled image: native code, which nobody may bring.
fn image() -> Vec<u8> {
    let engine = wasmtime::Engine::default();
    engine.precompile_component(&Module::new().component()).unwrap()
}

/// Imports and exports as text.
const IMPORTS: &[(&str, &str, &str)] = &[
    (
        "WASI's files",
        "(import \"wasi:filesystem/preopens@0.2.0\" (instance))",
        "wasi:filesystem/preopens@0.2.0",
    ),
    ("WASI's sockets", "(import \"wasi:sockets/tcp@0.2.6\" (instance))", "wasi:sockets/tcp@0.2.6"),
    ("WASI's environment", "(import \"wasi:cli/environment@0.2.0\" (instance))", "does not export"),
    ("HTTP", "(import \"wasi:http/outgoing-handler@0.2.0\" (instance))", "wasi:http"),
    ("a function", "(import \"system\" (func (param \"command\" string)))", "which no hook gets"),
    (
        "a later contract",
        "(import \"stillpoint:hook/sql@0.2.0\" (instance))",
        "this stillpoint serves 0.1.0",
    ),
    (
        "an interface of ours that is none",
        "(import \"stillpoint:hook/files@0.1.0\" (instance))",
        "stillpoint:hook/files@0.1.0",
    ),
    (
        "a core module from outside",
        "(import \"m\" (core module (export \"f\" (func))))",
        "which no hook gets",
    ),
    (
        "a component from outside",
        "(import \"c\" (component (export \"f\" (func))))",
        "component imports",
    ),
    (
        "a name with an escape",
        "(import \"url=<x\\1b[2Jy>\" (core module))",
        "it",
    ),
    ("no export", "", "does not export"),
    (
        "an earlier contract's export",
        "(instance $i) (export \"stillpoint:hook/lifecycle@0.0.9\" (instance $i))",
        "this stillpoint serves 0.1.0",
    ),
    (
        "an export of the right name that is empty",
        "(instance $i) (export \"stillpoint:hook/lifecycle@0.1.0\" (instance $i))",
        "do not fit the contract",
    ),
    (
        "an export of the right name that is a module",
        "(core module $m) (export \"stillpoint:hook/lifecycle@0.1.0\" (core module $m))",
        "",
    ),
    (
        "our import with another function in it",
        "(import \"stillpoint:hook/run@0.1.0\" (instance (export \"exec\" (func (param \"c\" string)))))
         (instance $i) (export \"stillpoint:hook/lifecycle@0.1.0\" (instance $i))",
        "do not fit the contract",
    ),
    (
        "our import with another type",
        "(import \"stillpoint:hook/run@0.1.0\" (instance (export \"sleep\" (func (param \"d\" string)))))
         (instance $i) (export \"stillpoint:hook/lifecycle@0.1.0\" (instance $i))",
        "do not fit the contract",
    ),
];

pub async fn attack(table: &mut Table) {
    for (name, bytes, expected) in files() {
        table.attack(FAMILY, name, expected, whole_life(&bytes)).await;
    }
    for (name, text, expected) in IMPORTS {
        match wat::parse_str(format!("(component {text})")) {
            Ok(bytes) => table.attack(FAMILY, name, expected, whole_life(&bytes)).await,
            Err(error) => panic!("{name}: {error}"),
        }
    }
    let crowd: String = (0..20_000).map(|n| format!("(import \"x{n}\" (func))")).collect();
    let bytes = wat::parse_str(format!("(component {crowd})")).unwrap();
    table.attack(FAMILY, "twenty thousand imports", "it imports", whole_life(&bytes)).await;
}
