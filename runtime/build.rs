//! Puts the project templates and the SDKs into the binary: `stillpoint hook new` needs no network and
//! no files beside it.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// What is in a working tree and is none of a template's files.
const LEFT_OUT: [&str; 6] = ["target", "node_modules", "build", "dist", "__pycache__", "zig-out"];

fn main() -> Result<(), Box<dyn Error>> {
    let repository = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("..").canonicalize()?;
    let mut source = String::new();
    for (list, directory) in [("TEMPLATES", "templates"), ("SDKS", "hooks-sdk")] {
        let root = repository.join(directory);
        let mut files = Vec::new();
        collect(&root, &mut files)?;
        files.sort();
        writeln!(source, "pub(super) static {list}: &[(&str, &[u8])] = &[")?;
        for file in files {
            let name = file.strip_prefix(&root)?.display().to_string();
            writeln!(source, "    ({name:?}, include_bytes!({:?})),", file.display().to_string())?;
        }
        source.push_str("];\n");
    }
    let output = PathBuf::from(env::var("OUT_DIR")?).join("scaffold.rs");
    Ok(fs::write(output, source)?)
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={}", directory.display());
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') || LEFT_OUT.contains(&&*name) {
            continue;
        }
        match path.is_dir() {
            true => collect(&path, files)?,
            false => files.push(path),
        }
    }
    Ok(())
}
