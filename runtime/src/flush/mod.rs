//! Writing out what is dirty in small steps, before `syncfs` has to do it all at once: a `syncfs` of
//! 500 MB makes every commit on that disk wait until it is through.
//!
//! Nothing depends on it. It is done by a child that can be killed at any moment, for a disk that is
//! gone keeps whoever writes to it, and a process is not over before its last thread is. The child is
//! this binary executed again; it is told a [`Task`] on standard input, and writes [`Flushed`] on
//! standard output as it goes.
//!
//! ```text
//! memory   how much is dirty on this machine: little, and nobody is started
//! open     files that somebody has open for writing
//! tree     files changed a short while ago, if much is still dirty after those
//! pace     how much at once, how long a pause: pure
//! worker   one step after the other, until little is left or the time is over
//! ```

mod memory;
mod open;
mod pace;
mod tree;
mod worker;

use std::fmt::{self, Write as _};
use std::io;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdout};
use tokio::time::timeout;

use crate::guard::spawn;
use crate::plan::FileSystem;
pub(crate) use worker::run as run_worker;

/// The name under which the child is started.
pub(crate) const FLUSHER_NAME: &str = "stillpoint-flusher";

/// Less than this is left to `syncfs`, in bytes: it takes that a few milliseconds.
const ENOUGH: u64 = 16 << 20;

/// What the child may take beyond its budget until it is killed: it asks the clock between steps.
const GRACE: Duration = Duration::from_millis(500);

/// What the child is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Task {
    file_systems: Vec<FileSystem>,
    budget: Duration,
    /// With less than this left, in bytes, it is done.
    enough: u64,
}

/// How far a flush came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Flushed {
    /// Written out in small steps. Without cachestat(2): bytes of files that were gone through.
    bytes: u64,
    files: u64,
    /// On this machine, all file systems together.
    dirty_before: u64,
    dirty_after: u64,
    ended: Ended,
}

/// Why it went no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Ended {
    /// It goes on.
    NotYet,
    LittleLeft,
    /// What is still dirty lies elsewhere, or was not found.
    NothingMoreFound,
    /// It becomes dirty as fast as it is written.
    Outrun,
    OutOfTime,
}

/// What came of a flush that nothing kept from its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// So little was dirty that nobody was started.
    NotNeeded {
        /// Bytes, on this machine.
        dirty: u64,
    },
    Done(Flushed),
}

/// Why there was no flush. The run goes on: `syncfs` does it all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FlushError {
    #[error("it is a process of its own, and this program's main does not call guard::enter()")]
    NoFlusher,
    #[error("its process cannot be started")]
    Start(#[source] io::Error),
    #[error("its process ended without a word ({0})")]
    Died(String),
    #[error("its process did not answer for {} s and was killed", .0.as_secs_f32())]
    Stuck(Duration),
}

impl FlushError {
    /// The whole of it, for the record of the run.
    pub(crate) fn warning(&self) -> String {
        let mut text = format!("dirty data was not written out in small steps: {self}");
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let _ = write!(text, ": {error}");
            cause = error.source();
        }
        text
    }
}

/// Writes out what is dirty on `file_systems`, for `budget` at most and a grace of half a second.
///
/// # Errors
/// If there was no flush, or nothing is known of it. Whoever drops this has it killed.
pub(crate) async fn flush(
    file_systems: &[FileSystem],
    budget: Duration,
) -> Result<Outcome, FlushError> {
    let dirty = memory::now().dirty;
    if dirty < ENOUGH {
        return Ok(Outcome::NotNeeded { dirty });
    }
    if !spawn::has_entered() {
        return Err(FlushError::NoFlusher);
    }
    let task = Task { file_systems: file_systems.to_vec(), budget, enough: ENOUGH };
    by(spawn::command(FLUSHER_NAME), &task).await.map(Outcome::Done)
}

/// Has this child do the task. Whatever it does, this returns by the task's budget and the grace.
async fn by(mut command: Command, task: &Task) -> Result<Flushed, FlushError> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = tokio::process::Command::from(command)
        .kill_on_drop(true)
        .spawn()
        .map_err(FlushError::Start)?;
    let mut flushed = None;
    let in_time = timeout(task.budget + GRACE, talk(&mut child, task, &mut flushed)).await;
    // One that waits for a dead disk dies when the disk answers, or never: it is not waited for.
    let _ = child.start_kill();
    match (flushed, in_time) {
        (Some(flushed), Ok(_)) => Ok(flushed),
        (Some(flushed), Err(_)) => Ok(Flushed { ended: Ended::OutOfTime, ..flushed }),
        (None, Ok(how)) => Err(FlushError::Died(how)),
        (None, Err(_)) => Err(FlushError::Stuck(task.budget)),
    }
}

/// Gives the child its task and keeps the last that it says; returns how it ended.
async fn talk(child: &mut Child, task: &Task, flushed: &mut Option<Flushed>) -> String {
    if let Some(mut stdin) = child.stdin.take() {
        // A child that has died reads nothing more; how it ended says why.
        let text = serde_json::to_vec(task).unwrap_or_default();
        let _ = stdin.write_all(&text).await;
    }
    if let Some(stdout) = child.stdout.take() {
        listen(stdout, flushed).await;
    }
    child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string())
}

async fn listen(stdout: ChildStdout, flushed: &mut Option<Flushed>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Ok(said) = serde_json::from_str(&line) {
            *flushed = Some(said);
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::NotNeeded { dirty } => write!(f, "{} dirty on this machine", Mib(*dirty)),
            Outcome::Done(flushed) => flushed.fmt(f),
        }
    }
}

impl fmt::Display for Flushed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, files, dirty_before, dirty_after, ended } = *self;
        let plural = if files == 1 { "" } else { "s" };
        write!(f, "{} of {files} file{plural} written out in small steps; ", Mib(bytes))?;
        match ended {
            Ended::LittleLeft | Ended::NothingMoreFound => {
                write!(
                    f,
                    "dirty on this machine: {} before, {} after",
                    Mib(dirty_before),
                    Mib(dirty_after)
                )
            }
            Ended::Outrun => write!(f, "others write faster: {} dirty after it", Mib(dirty_after)),
            Ended::NotYet | Ended::OutOfTime => {
                f.write_str("then its time was over, the rest is left to sync")
            }
        }
    }
}

/// Bytes for people: `0.4 MiB`, `412 MiB`.
struct Mib(u64);

impl fmt::Display for Mib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = self.0.saturating_mul(10) >> 20;
        match tenths {
            0..100 => write!(f, "{}.{} MiB", tenths / 10, tenths % 10),
            _ => write!(f, "{} MiB", tenths / 10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Ended, FlushError, Flushed, Outcome, Task, by, flush};
    use std::process::Command;
    use std::time::Duration;

    fn flushed(ended: Ended) -> String {
        let flushed = Flushed {
            bytes: 300 << 20,
            files: 1,
            dirty_before: 302 << 20,
            dirty_after: (1 << 20) + (1 << 19),
            ended,
        };
        Outcome::Done(flushed).to_string()
    }

    #[test]
    fn it_is_told_in_words_that_people_know() {
        let told = [Ended::LittleLeft, Ended::Outrun, Ended::OutOfTime].map(flushed);
        assert_eq!(
            told,
            [
                "300 MiB of 1 file written out in small steps; dirty on this machine: 302 MiB before, 1.5 MiB after",
                "300 MiB of 1 file written out in small steps; others write faster: 1.5 MiB dirty after it",
                "300 MiB of 1 file written out in small steps; then its time was over, the rest is left to sync",
            ]
        );
        assert_eq!(Outcome::NotNeeded { dirty: 0 }.to_string(), "0.0 MiB dirty on this machine");
    }

    /// What comes of a child that does this.
    async fn child(script: &str) -> Result<Flushed, FlushError> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let task = Task { file_systems: Vec::new(), budget: Duration::from_millis(500), enough: 0 };
        by(command, &task).await
    }

    const SAID: &str =
        r#"{"bytes":7,"files":1,"dirty_before":9,"dirty_after":9,"ended":"not-yet"}"#;

    #[tokio::test]
    async fn a_child_that_is_stuck_is_not_waited_for() {
        let stuck = child("exec sleep 1000").await;
        assert!(matches!(stuck, Err(FlushError::Stuck(_))), "{stuck:?}");
    }

    #[tokio::test]
    async fn what_a_child_did_until_it_was_stuck_counts() {
        let stuck = child(&format!("echo '{SAID}'; exec sleep 1000")).await.unwrap();
        assert_eq!((stuck.bytes, stuck.ended), (7, Ended::OutOfTime));
    }

    #[tokio::test]
    async fn a_child_that_dies_without_a_word_is_told_of() {
        let died = child("kill -9 $$").await.unwrap_err();
        assert!(died.warning().contains("signal: 9"), "{}", died.warning());
        let ended = child("echo nonsense").await;
        assert!(matches!(ended, Err(FlushError::Died(_))), "{ended:?}");
    }

    /// Unit tests have a `main` that does not enter: starting it again would run all tests again.
    #[tokio::test]
    async fn a_program_whose_main_does_not_enter_is_not_started_again() {
        let came = flush(&[], Duration::from_secs(1)).await;
        assert!(matches!(came, Ok(Outcome::NotNeeded { .. }) | Err(FlushError::NoFlusher)));
    }
}
