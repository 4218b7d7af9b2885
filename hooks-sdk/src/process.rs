//! Programs that the operator granted: by a name, with exact arguments, as a user of the operator's
//! choice. There is no shell.

use std::time::Duration;

pub use crate::bindings::stillpoint::hook::process::{Error, Output};

use crate::host::{Current, Host, nanoseconds};

/// Runs a program to its end and gives what it wrote. An exit code other than 0 is no error here:
/// see [`Output::succeeded`].
///
/// Without `stdin` it reads an empty one. `timeout` is clamped to what is left of the phase, which
/// is also what counts for `None`.
///
/// # Errors
/// [`Error::Denied`], [`Error::NotFound`], [`Error::Timeout`] with what it had written when it was
/// killed with all its children, [`Error::Failed`].
pub fn run(
    command: &str,
    args: &[&str],
    stdin: Option<&[u8]>,
    timeout: Option<Duration>,
) -> Result<Output, Error> {
    let args: Vec<String> = args.iter().map(|arg| (*arg).into()).collect();
    Current::run_program(command, &args, stdin, timeout.map(nanoseconds))
}

impl Output {
    /// Whether it ended by itself with exit code 0.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.exit_code == Some(0)
    }
}
