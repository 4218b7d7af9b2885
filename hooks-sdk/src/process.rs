//! Programs that the operator granted: by a name, with exact arguments, as a user of the operator's
//! choice. There is no shell: an argument is what it is.
//!
//! `describe` asks for each argument list and each text that may be given on standard input, word for
//! word; what varies is a `{uint}` (a whole number) or a `{name}` (letters, digits, `_`, `-`).
//!
//! ```
//! use stillpoint_hook::{CapabilityNeed, HookError, ProgramNeed, process};
//! use stillpoint_hook::testing::{FakeHost, exited};
//!
//! const BEGIN: &str = "ALTER DATABASE BEGIN BACKUP;\nEXIT\n";
//!
//! fn needs() -> Vec<CapabilityNeed> {
//!     vec![CapabilityNeed::Program(ProgramNeed {
//!         command: "sqlplus".into(),
//!         arguments: vec![vec!["-S".into(), "/ as sysdba".into()]],
//!         stdin_scripts: vec![BEGIN.into()],
//!         reason: "to put the database into backup mode".into(),
//!         required: true,
//!     })]
//! }
//!
//! fn begin_backup() -> Result<String, HookError> {
//!     let output = process::run("sqlplus", &["-S", "/ as sysdba"], Some(BEGIN.as_bytes()), None)?;
//!     Ok(output.success()?.stdout_text().into_owned())
//! }
//!
//! let host = FakeHost::new();
//! host.program("sqlplus", |run| {
//!     assert_eq!(run.stdin.as_deref(), Some(BEGIN.as_bytes()));
//!     Ok(exited(0, "Database altered.\n"))
//! });
//! assert_eq!(begin_backup()?, "Database altered.\n");
//! assert_eq!(host.order(), ["run sqlplus -S / as sysdba"]);
//! # Ok::<(), HookError>(())
//! ```
//!
//! It runs with `PATH` and the variables that the operator granted, in `/`, may write only where the
//! operator said, and ends with everything that it started when the call returns: nothing of it can
//! go on in the background.

use std::borrow::Cow;
use std::time::Duration;

pub use crate::bindings::stillpoint::hook::process::{Error, Output};

use crate::hook::HookError;
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

    /// Itself, if it succeeded.
    ///
    /// # Errors
    /// [`HookError::Application`] with its exit code (or `signal N`) and the last line that it wrote.
    ///
    /// ```
    /// use stillpoint_hook::testing::exited;
    /// assert!(exited(0, "done").success().is_ok());
    /// let refused = exited(2, "first line\nORA-01123: cannot start\n").success().unwrap_err();
    /// assert_eq!(refused.message(), "the program failed: ORA-01123: cannot start");
    /// ```
    pub fn success(self) -> Result<Self, HookError> {
        if self.succeeded() {
            return Ok(self);
        }
        let code = match (self.exit_code, self.signal) {
            (Some(code), _) => code.to_string(),
            (None, Some(signal)) => ["signal ", &signal.to_string()].concat(),
            (None, None) => String::new(),
        };
        let line = last_line(&self.stderr).or_else(|| last_line(&self.stdout));
        let line = line.unwrap_or_else(|| "it wrote nothing".into());
        Err(HookError::application(code, ["the program failed: ", &line].concat(), false))
    }

    /// What it wrote to standard output, as text. See `truncated`.
    #[must_use]
    pub fn stdout_text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.stdout)
    }
}

/// The last line that says anything.
fn last_line(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    text.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(Into::into)
}
