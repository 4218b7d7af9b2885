//! Build steps that cargo alone does not have.
//!
//! `cargo run -p xtask -- componentize <core.wasm> <out.wasm>`
//! `cargo run -p xtask -- c-bindings <directory>`
//! `cargo run -p xtask -- plugin-package <binary> <out.zip>`
//! `cargo run -p xtask -- coverage <export.json> <file.rs>...`

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

const USAGE: &str = "usage: cargo run -p xtask -- componentize <core.wasm> <out.wasm>
       cargo run -p xtask -- c-bindings <directory>
       cargo run -p xtask -- plugin-package <binary> <out.zip>
       cargo run -p xtask -- coverage <export.json> <file.rs>...";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to do when stderr is gone.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    match args.as_slice() {
        [verb, from, to] if verb == "componentize" => componentize(from.as_ref(), to.as_ref()),
        [verb, to] if verb == "c-bindings" => c_bindings(to.as_ref()),
        [verb, from, to] if verb == "plugin-package" => plugin_package(from.as_ref(), to.as_ref()),
        [verb, export, files @ ..] if verb == "coverage" => coverage(export.as_ref(), files),
        _ => bail!("{USAGE}"),
    }
}

/// Reads, wraps, validates, and replaces the output in one step, so that a run that was interrupted
/// leaves no half of it.
fn componentize(from: &Path, to: &Path) -> Result<()> {
    let core = std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    let component = xtask::componentize(&core).with_context(|| from.display().to_string())?;

    replace(to, &component.bytes)?;
    writeln!(std::io::stdout(), "{}: {component}", to.display())?;
    Ok(())
}

/// Writes the C side of the hook contract.
fn c_bindings(to: &Path) -> Result<()> {
    for (name, text) in xtask::bindings::c()? {
        replace(&to.join(name), &text)?;
    }
    Ok(())
}

/// The package for Cloud Assistant's plug-in manager, around a binary of stillpoint.
fn plugin_package(binary: &Path, to: &Path) -> Result<()> {
    let program =
        std::fs::read(binary).with_context(|| format!("cannot read {}", binary.display()))?;
    let package = xtask::plugin::package(&program, env!("CARGO_PKG_VERSION"))
        .with_context(|| binary.display().to_string())?;
    replace(to, &package)?;
    writeln!(std::io::stdout(), "{}: {} bytes", to.display(), package.len())?;
    Ok(())
}

/// Prints what is covered of some files; fails if something is not.
fn coverage(export: &Path, files: &[OsString]) -> Result<()> {
    let files: Vec<String> = files.iter().map(|it| it.to_string_lossy().into_owned()).collect();
    let text = std::fs::read_to_string(export)
        .with_context(|| format!("cannot read {}", export.display()))?;
    let source = |file: &str| Ok(std::fs::read_to_string(file)?);
    let (table, enough) = xtask::coverage::judge(&text, &files, source)?;
    write!(std::io::stdout(), "{table}")?;
    if enough { Ok(()) } else { bail!("not all of it is covered") }
}

fn replace(to: &Path, bytes: &[u8]) -> Result<()> {
    let mut partial = to.as_os_str().to_owned();
    partial.push(".partial");
    let partial = Path::new(&partial);
    std::fs::write(partial, bytes)
        .with_context(|| format!("cannot write {}", partial.display()))?;
    std::fs::rename(partial, to).with_context(|| format!("cannot rename to {}", to.display()))
}
