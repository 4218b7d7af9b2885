//! Programs. The contract names them; this version grants none.

/// The answer to every request to run a program.
pub(crate) fn denied(command: &str) -> String {
    format!("program `{command}` is not granted: this version of stillpoint serves no programs")
}
