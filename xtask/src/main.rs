//! Build steps that cargo alone does not have.
//!
//! `cargo run -p xtask -- componentize <core.wasm> <out.wasm>`

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

const USAGE: &str = "usage: cargo run -p xtask -- componentize <core.wasm> <out.wasm>";

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
        _ => bail!("{USAGE}"),
    }
}

/// Reads, wraps, validates, and replaces the output in one step, so that a run that was interrupted
/// leaves no half of it.
fn componentize(from: &Path, to: &Path) -> Result<()> {
    let core = std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    let component = xtask::componentize(&core).with_context(|| from.display().to_string())?;

    let partial = to.with_extension("wasm.partial");
    std::fs::write(&partial, &component.bytes)
        .with_context(|| format!("cannot write {}", partial.display()))?;
    std::fs::rename(&partial, to).with_context(|| format!("cannot rename to {}", to.display()))?;
    writeln!(std::io::stdout(), "{}: {component}", to.display())?;
    Ok(())
}
