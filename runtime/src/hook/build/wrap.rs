//! From what a tool made to a component: checked, wrapped, and with the tool chain written into it.

use std::collections::BTreeSet;

use wasm_metadata::AddMetadata;
use wasmparser::{Parser, Payload};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use super::{BuildError, Kind, Made, stub};
use crate::hook::since_v0_1_0::{EXPORT, VERSIONS};

const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

/// The contract in each version, for modules that do not bring its types with them.
const WITS: [(&str, &str); 2] = [
    ("0.1.0", include_str!("../../../../hooks-sdk/wit/since_v0_1_0/hook.wit")),
    ("0.1.1", include_str!("../../../../hooks-sdk/wit/since_v0_1_1/hook.wit")),
];

/// The module from which core modules import WASI's first preview.
pub(super) const PREVIEW1: &str = "wasi_snapshot_preview1";

/// The functions of the lifecycle.
const FUNCTIONS: [&str; 7] =
    ["describe", "validate", "prepare", "pre-freeze", "confirm", "post-thaw", "finish"];

/// A component that was built.
#[derive(Clone, Debug)]
pub struct Built {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Calls of WASI that are answered inside it, by nobody.
    pub stubbed: Vec<String>,
}

/// Makes a component of what a tool made, and records the tool chain in it. `stub_wasi`: what a core
/// module wants of WASI is answered inside the component, as it is always in a project in Go.
///
/// A component is taken as it is; whether it is a hook says the store's check, as for every other.
///
/// # Errors
/// See [`BuildError`]; each says what to type next.
pub fn component(made: &Made, stub_wasi: bool) -> Result<Built, BuildError> {
    // Go's runtime calls WASI whatever the hook does, and no flag of its own leaves it out.
    let stub_wasi = stub_wasi || made.kind == Some(Kind::Go);
    let mut stubbed = Vec::new();
    let bytes = if made.bytes.starts_with(COMPONENT) {
        made.bytes.clone()
    } else if made.bytes.starts_with(CORE_MODULE) {
        let outside = Outside::of(made)?;
        outside.check(made, stub_wasi)?;
        let component = wrapped(made, &outside)?;
        stubbed = outside.wasi.into_iter().collect();
        component
    } else {
        return Err(BuildError::NotWebAssembly { file: made.file.clone() });
    };
    Ok(Built { bytes: recorded(made, &bytes)?, stubbed })
}

/// What a core module imports and exports.
#[derive(Debug, Default)]
struct Outside {
    /// Functions of WASI's first preview.
    wasi: BTreeSet<String>,
    /// What neither the contract nor WASI has.
    foreign: BTreeSet<String>,
    /// Versions of the contract.
    versions: BTreeSet<String>,
    exports: BTreeSet<String>,
    /// It brings the contract's types with it, as Rust's bindings leave them.
    has_types: bool,
}

impl Outside {
    fn of(made: &Made) -> Result<Self, BuildError> {
        let damaged = |error: wasmparser::BinaryReaderError| BuildError::Damaged {
            file: made.file.clone(),
            problem: error.to_string(),
        };
        let mut outside = Self::default();
        for payload in Parser::new(0).parse_all(&made.bytes) {
            match payload.map_err(damaged)? {
                Payload::ImportSection(imports) => {
                    for import in imports.into_imports() {
                        let import = import.map_err(damaged)?;
                        outside.import(import.module, import.name);
                    }
                }
                Payload::ExportSection(exports) => {
                    for export in exports {
                        outside.export(export.map_err(damaged)?.name);
                    }
                }
                Payload::CustomSection(section) => {
                    outside.has_types |= section.name().starts_with("component-type");
                }
                _ => {}
            }
        }
        Ok(outside)
    }

    fn import(&mut self, module: &str, name: &str) {
        if module == PREVIEW1 {
            self.wasi.insert(name.to_owned());
        } else if let Some(version) = version_of(module) {
            self.versions.insert(version.to_owned());
        } else if module.starts_with("wasi:") {
            self.wasi.insert(format!("{module} {name}"));
        } else if !module.starts_with("[export]") && module != "$root" {
            self.foreign.insert(format!("{module} {name}"));
        }
    }

    fn export(&mut self, name: &str) {
        if let Some((interface, _)) = name.split_once('#')
            && let Some(version) = version_of(interface)
        {
            self.versions.insert(version.to_owned());
        }
        self.exports.insert(name.to_owned());
    }

    fn check(&self, made: &Made, stub_wasi: bool) -> Result<(), BuildError> {
        let (file, kind) = (made.file.clone(), made.kind);
        let is_served = |version: &&String| VERSIONS.contains(&version.as_str());
        if let Some(found) = self.versions.iter().find(|version| !is_served(version)) {
            return Err(BuildError::OtherContract { file, found: found.clone(), kind });
        }
        let stubs = if stub_wasi { stub::functions() } else { Vec::new() };
        let wasi: Vec<String> =
            self.wasi.iter().filter(|it| !stubs.contains(it)).cloned().collect();
        if !wasi.is_empty() {
            return Err(BuildError::Wasi { file, functions: wasi, kind });
        }
        if !self.foreign.is_empty() {
            let imports = self.foreign.iter().cloned().collect();
            return Err(BuildError::Foreign { file, imports, kind });
        }
        let contract = self.contract();
        let wanted = FUNCTIONS.iter().map(|function| format!("{EXPORT}@{contract}#{function}"));
        let exports: Vec<String> = wanted.filter(|name| !self.exports.contains(name)).collect();
        match exports.is_empty() {
            true => Ok(()),
            false => Err(BuildError::NoExport { file, exports, kind }),
        }
    }
}

impl Outside {
    /// The version of the contract that it was built for: the newest that it names.
    fn contract(&self) -> &str {
        self.versions.last().map_or(VERSIONS[0], String::as_str)
    }
}

/// The version in `stillpoint:hook/sql@0.1.0`.
fn version_of(interface: &str) -> Option<&str> {
    let (_, version) = interface.strip_prefix("stillpoint:hook/")?.split_once('@')?;
    Some(version)
}

fn wrapped(made: &Made, outside: &Outside) -> Result<Vec<u8>, BuildError> {
    let does_not_fit =
        |problem: String| BuildError::DoesNotFit { file: made.file.clone(), problem };
    let mut module = made.bytes.clone();
    let encoded = (|| -> anyhow::Result<Vec<u8>> {
        if !outside.has_types {
            let mut resolve = Resolve::default();
            let wit = WITS.iter().find(|(version, _)| *version == outside.contract());
            let (_, wit) = wit.unwrap_or(&WITS[0]);
            let package = resolve.push_str("hook.wit", wit)?;
            let world = resolve.select_world(&[package], Some("hook"))?;
            embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
        }
        let mut encoder = ComponentEncoder::default();
        encoder.validate(true).module(&module)?;
        if !outside.wasi.is_empty() {
            encoder.adapter(PREVIEW1, stub::adapter())?;
        }
        encoder.encode()
    })();
    encoded.map_err(|error| does_not_fit(format!("{error:#}")))
}

/// The component with a section `producers` of its own: the language, the tools that were asked for their
/// version, and this program. Compilers have written into the module what they are.
fn recorded(made: &Made, component: &[u8]) -> Result<Vec<u8>, BuildError> {
    let mut metadata = AddMetadata::default();
    metadata.language =
        made.kind.iter().map(|kind| (kind.language().into(), String::new())).collect();
    metadata.processed_by = made.tools.clone();
    metadata.processed_by.push((env!("CARGO_PKG_NAME").into(), env!("CARGO_PKG_VERSION").into()));
    metadata.to_wasm(component).map_err(|error| BuildError::Damaged {
        file: made.file.clone(),
        problem: format!("{error:#}"),
    })
}
