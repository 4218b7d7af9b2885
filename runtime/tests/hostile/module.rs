//! Components as text: a hook of which each part can be replaced by what no compiler would make.
//!
//! The module has one page of memory. From 0 to 1023: the description and its texts. From 1024: zeros,
//! which are `ok` for every result of the contract. From 4096 on, the heap.

use std::path::{Path, PathBuf};

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// Where the description is.
const DESCRIPTION: u32 = 16;

/// Where its one need is, if it has one, and behind it the name of the connection that it asks for.
const NEED: u32 = 140;

/// The connection that a module can ask for, and where its name is.
pub const CONNECTION: &str = "main";
pub const CONNECTION_AT: u32 = NEED + 40;

/// A hook in the making. Bodies are instructions in the text format.
pub struct Module {
    /// Types and imports.
    pub imports: String,
    /// Functions, globals, tables, data, start.
    pub items: String,
    /// `cabi_realloc`: four parameters, one result.
    pub realloc: String,
    memory: String,
    name: &'static str,
    bodies: Vec<(&'static str, String)>,
    after: Vec<(&'static str, String)>,
    encoding: StringEncoding,
    asks: bool,
    contract: (PathBuf, String),
}

/// The exports: name, parameters, and the body that says `ok`.
const EXPORTS: [(&str, &str); 7] = [
    ("describe", ""),
    ("validate", "(param i32 i32)"),
    ("prepare", "(param i32 i32)"),
    ("pre-freeze", ""),
    ("confirm", ""),
    ("post-thaw", "(param i32)"),
    ("finish", ""),
];

/// Grows a heap from 4096; never gives anything back.
const BUMP: &str = "
    (local $at i32)
    global.get $heap local.get 2 i32.add i32.const 1 i32.sub
    i32.const 0 local.get 2 i32.sub i32.and local.set $at
    local.get $at local.get 3 i32.add global.set $heap
    block $fits
        local.get $at local.get 3 i32.add memory.size i32.const 16 i32.shl i32.le_u br_if $fits
        local.get 3 i32.const 16 i32.shr_u i32.const 1 i32.add memory.grow drop
    end
    local.get $at";

impl Module {
    /// A hook that does nothing, well.
    pub fn new() -> Self {
        Self {
            imports: String::new(),
            items: String::new(),
            realloc: BUMP.into(),
            memory: "(memory (export \"memory\") 1)".into(),
            name: "hostile-text",
            bodies: Vec::new(),
            after: Vec::new(),
            encoding: StringEncoding::UTF8,
            asks: false,
            contract: ("since_v0_1_0".into(), "0.1.0".into()),
        }
    }

    /// Built against another version of the contract: the folder of its text, and its number.
    pub fn contract(mut self, folder: impl Into<PathBuf>, version: impl Into<String>) -> Self {
        self.contract = (folder.into(), version.into());
        self
    }

    /// The body of one export.
    pub fn body(mut self, export: &'static str, body: impl Into<String>) -> Self {
        self.bodies.push((export, body.into()));
        self
    }

    /// What runs after one export's result was read.
    pub fn after(mut self, export: &'static str, body: impl Into<String>) -> Self {
        self.after.push((export, body.into()));
        self
    }

    pub fn imports(mut self, text: impl AsRef<str>) -> Self {
        self.imports.push_str(text.as_ref());
        self
    }

    pub fn items(mut self, text: impl AsRef<str>) -> Self {
        self.items.push_str(text.as_ref());
        self
    }

    pub fn realloc(mut self, body: impl Into<String>) -> Self {
        self.realloc = body.into();
        self
    }

    /// The memory's definition; it must be exported as `memory`.
    pub fn memory(mut self, text: impl Into<String>) -> Self {
        self.memory = text.into();
        self
    }

    pub fn encoding(mut self, encoding: StringEncoding) -> Self {
        self.encoding = encoding;
        self
    }

    /// It asks for the connection `main`, without statements.
    pub fn asking(mut self) -> Self {
        self.asks = true;
        self
    }

    /// The core module's text.
    pub fn text(&self) -> String {
        let Self { imports, items, realloc, memory, .. } = self;
        let mut text = format!(
            "(module {imports} {memory}
             (global $heap (mut i32) (i32.const 4096))
             (func $realloc (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) {realloc})
             (data (i32.const {DESCRIPTION}) \"{}\")\n",
            self.description()
        );
        for (export, parameters) in EXPORTS {
            let ok = if export == "describe" { DESCRIPTION } else { 1024 };
            let said = self.bodies.iter().find(|(name, _)| *name == export);
            let body = said.map_or(format!("i32.const {ok}"), |(_, body)| body.clone());
            let full = format!("stillpoint:hook/lifecycle@{}#{export}", self.contract.1);
            text.push_str(&format!(
                "(func (export \"{full}\") {parameters} (result i32) {body})\n"
            ));
            if let Some((_, body)) = self.after.iter().find(|(name, _)| *name == export) {
                text.push_str(&format!(
                    "(func (export \"cabi_post_{full}\") (param i32) {body})\n"
                ));
            }
        }
        text.push_str(items);
        text.push(')');
        text
    }

    /// The component.
    pub fn component(&self) -> Vec<u8> {
        let text = self.text();
        let mut core = wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}"));
        let mut resolve = Resolve::default();
        let texts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hooks-sdk/wit");
        let (package, _) = resolve.push_path(texts.join(&self.contract.0)).unwrap();
        let world = resolve.select_world(&[package], Some("hook")).unwrap();
        embed_component_metadata(&mut core, &resolve, world, self.encoding).unwrap();
        ComponentEncoder::default().validate(false).module(&core).unwrap().encode().unwrap()
    }

    /// Name, version, summary, schema, needs, budget: the name and the version behind the record.
    fn description(&self) -> String {
        let (name, version) = (self.name, "1.0.0");
        let (name_at, version_at) = (DESCRIPTION + 44, DESCRIPTION + 44 + 64);
        let needs = u32::from(self.asks);
        let words = [
            name_at,
            length(name),
            version_at,
            length(version),
            name_at,
            0,
            name_at,
            0,
            NEED,
            needs,
            0,
        ];
        let need = [0, CONNECTION_AT, length(CONNECTION), NEED, 0, NEED, 0, NEED, 0, 0];
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.extend(name.bytes());
        bytes.resize((version_at - DESCRIPTION) as usize, 0);
        bytes.extend(version.bytes());
        bytes.resize((NEED - DESCRIPTION) as usize, 0);
        bytes.extend(need.iter().flat_map(|word| word.to_le_bytes()));
        bytes.extend(CONNECTION.bytes());
        bytes.into_iter().map(|byte| format!("\\{byte:02x}")).collect()
    }
}

fn length(text: &str) -> u32 {
    u32::try_from(text.len()).unwrap()
}

/// The component with `count` more core modules, each of `text`, and an instance of each.
pub fn with_more_modules(component: &[u8], text: &str, count: u32) -> Vec<u8> {
    let module = wat::parse_str(text).unwrap();
    let first = sections(component).filter(|(id, _)| *id == 1).count();
    let mut bytes = component.to_vec();
    section(&mut bytes, 1, &module);
    for _ in 0..count {
        let mut instance = vec![1, 0];
        leb(&mut instance, u32::try_from(first).unwrap());
        instance.push(0);
        section(&mut bytes, 2, &instance);
    }
    bytes
}

/// Where each section of a component begins, and its id.
pub fn sections(bytes: &[u8]) -> impl Iterator<Item = (u8, usize)> {
    let mut at = 8;
    std::iter::from_fn(move || {
        let (begin, id) = (at, *bytes.get(at)?);
        at += 1;
        let (mut length, mut shift) = (0_usize, 0);
        loop {
            let byte = *bytes.get(at)?;
            at += 1;
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        at += length;
        Some((id, begin))
    })
}

fn section(bytes: &mut Vec<u8>, id: u8, content: &[u8]) {
    bytes.push(id);
    leb(bytes, u32::try_from(content.len()).unwrap());
    bytes.extend_from_slice(content);
}

fn leb(bytes: &mut Vec<u8>, mut value: u32) {
    loop {
        let byte = u8::try_from(value & 0x7f).unwrap();
        value >>= 7;
        if value == 0 {
            return bytes.push(byte);
        }
        bytes.push(byte | 0x80);
    }
}
