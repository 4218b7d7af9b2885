//! One run of one of the operator's programs, and what its end means.

use std::time::Duration;

use stillpoint_hook::process::{self, Error, Output};
use stillpoint_hook::{HookError, info, run, warn};

use crate::settings::Call;

/// Exit codes with a meaning of their own, as sysexits.h names them.
pub mod exit {
    /// EX_UNAVAILABLE: the application is not here (in `prepare`).
    pub const NOT_HERE: i32 = 69;
    /// EX_TEMPFAIL: it cannot be quiesced now; later it may.
    pub const BUSY: i32 = 75;
}

/// Lines of its output that go to the log, of each stream.
const MOST_LINES: usize = 40;

/// Letters of a line that go to the log.
const MOST_LETTERS: usize = 300;

/// What is left of a phase when a program is given up: enough to say so, and for the host to keep this
/// instance.
const MARGIN: Duration = Duration::from_millis(250);

/// Runs it, and takes everything but exit code 0 for an error.
///
/// # Errors
/// By its exit code: see [`exit`] and the README.
pub fn call(command: &str, call: &Call, most: Duration) -> Result<(), HookError> {
    let words: Vec<&str> = call.arguments.iter().map(String::as_str).collect();
    let time = call.time.min(most).min(run::remaining_but(MARGIN));
    let ended = process::run(command, &words, None, Some(time));
    match ended {
        Ok(output) => {
            log(command, &output);
            judge(command, output)
        }
        Err(Error::Timeout(output)) => {
            log(command, &output);
            Err(HookError::Timeout(format!(
                "`{command}` did not end in time, and was killed with all that it had started"
            )))
        }
        Err(error) => Err(HookError::from(error).context(command)),
    }
}

/// Whether it was not run at all, so that there is nothing to be undone.
#[must_use]
pub fn was_not_run(error: &HookError) -> bool {
    match error {
        HookError::Denied(_) => true,
        HookError::Application(error) => error.code == "not-found",
        _ => false,
    }
}

fn judge(command: &str, output: Output) -> Result<(), HookError> {
    match output.exit_code {
        Some(0) => Ok(()),
        Some(exit::BUSY) => Err(HookError::Busy(said(command, output, "says that it is busy"))),
        Some(exit::NOT_HERE) if command == "prepare" => Err(HookError::NotApplicable(said(
            command,
            output,
            "says that the application is not here",
        ))),
        _ => output.success().map(drop).map_err(|error| error.context(command)),
    }
}

fn said(command: &str, output: Output, what: &str) -> String {
    match output.success() {
        Ok(_) => format!("`{command}` {what}"),
        Err(error) => {
            let last = error.message().trim_start_matches("the program failed: ").to_owned();
            format!("`{command}` {what} ({last})")
        }
    }
}

/// Standard output at `info`, standard error at `warn`; the first lines of each.
fn log(command: &str, output: &Output) {
    let lines = |bytes: &[u8]| -> Vec<String> {
        let text = String::from_utf8_lossy(bytes);
        let lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
        lines.take(MOST_LINES).map(|line| line.chars().take(MOST_LETTERS).collect()).collect()
    };
    for line in lines(&output.stdout) {
        info!("{command}: {line}"; stream = "stdout");
    }
    for line in lines(&output.stderr) {
        warn!("{command}: {line}"; stream = "stderr");
    }
}
