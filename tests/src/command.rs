//! Programs, run to their end, with errors that say what was run and what it wrote.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// Marks a process as one of the lab's: the watchdog ends whoever carries it.
pub const LAB_VARIABLE: &str = "STILLPOINT_LAB";

/// Runs a program and returns its standard output.
///
/// # Errors
/// If it cannot be started or does not exit with 0; the text has its standard error.
pub fn run<S: AsRef<OsStr>>(
    program: &str,
    arguments: impl IntoIterator<Item = S>,
) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments);
    output_of(&mut command)
}

/// As [`run`], for a command that is put together by the caller.
///
/// # Errors
/// As [`run`].
pub fn output_of(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    if !output.status.success() {
        bail!("{}", describe(command, &output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What was run, how it ended, what it wrote.
#[must_use]
pub fn describe(command: &Command, output: &Output) -> String {
    format!(
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A command that belongs to the lab in `lab`.
#[must_use]
pub fn of_lab(program: impl AsRef<OsStr>, lab: &Path) -> Command {
    let mut command = Command::new(program);
    command.env(LAB_VARIABLE, lab);
    command
}
