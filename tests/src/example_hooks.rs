//! The example hooks in languages with an interpreter, built by those languages' own tools.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::stillpoint::workspace;

/// The languages, as their directories in `examples/hooks` are called.
pub const SCRIPTING: [&str; 3] = ["javascript", "typescript", "python"];

/// What the hook is called in each of them.
pub const NAME: &str = "mariadb-lock";

/// Builds an example, and gives its component. Nothing if its tools cannot be had, and
/// `STILLPOINT_OFFLINE=1` says that this is to be expected: then that is said on standard error.
///
/// # Errors
/// If it cannot be built.
pub fn built(language: &str) -> Result<Option<PathBuf>> {
    if ran("scripts/example-hooks", &[language])?.is_none() {
        return Ok(None);
    }
    Ok(Some(workspace().join("target/example-hooks").join(language).with_extension("wasm")))
}

/// Runs a script of the workspace that needs packages from elsewhere, and gives what it printed. Nothing
/// if it failed, and `STILLPOINT_OFFLINE=1` says that this is to be expected.
///
/// # Errors
/// If it failed otherwise.
pub fn ran(script: &str, arguments: &[&str]) -> Result<Option<String>> {
    let script = workspace().join(script);
    let output = Command::new(&script).args(arguments).output();
    let output = output.with_context(|| format!("cannot run {}", script.display()))?;
    if output.status.success() {
        return Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()));
    }
    let why = String::from_utf8_lossy(&output.stderr);
    ensure!(
        std::env::var_os("STILLPOINT_OFFLINE").is_some_and(|value| value == "1"),
        "{} {arguments:?} failed (STILLPOINT_OFFLINE=1 leaves this out):\n{why}",
        script.display()
    );
    let text = format!("LEFT OUT, because of STILLPOINT_OFFLINE=1: {arguments:?}\n{why}\n");
    // Not `eprintln`: what a test prints with that is not shown when it passes.
    std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes())?;
    Ok(None)
}

/// Where an example was built: a project as a user has it, with its tools installed.
#[must_use]
pub fn project(language: &str) -> PathBuf {
    workspace().join("target/example-hooks").join(language)
}
