//! Into backup mode, and out of it: never of somebody else's.

use std::time::Duration;

use stillpoint_hook::{HookError, info, run, warn};

use crate::errors::explain;
use crate::intent::{Intent, Owner};
use crate::scripts::{BEGIN, END, STATE};
use crate::sqlplus::{self, Failure, Report};
use crate::state::{State, Surroundings};

/// Of the time for beginning, so much is kept for ending it again: a third, in these bounds.
const RESERVE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));

/// A database in backup mode, as it was when that was verified.
#[derive(Clone, Debug)]
pub struct Held {
    /// What was verified.
    pub state: State,
    /// Thread and sequence of the redo log in which it began.
    pub log: (i64, i64),
    intent: Intent,
}

/// What came of an attempt to end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was ours, and is ended.
    Now,
    /// Nothing was in backup mode.
    Before,
    /// Somebody else has begun his own: it goes on.
    Anothers,
}

/// How the files are now.
///
/// # Errors
/// If `sqlplus` fails.
pub fn look(doing: &str, timeout: Duration) -> Result<State, HookError> {
    let report = sqlplus::run_script(STATE, timeout).and_then(|report| State::of(&report));
    report.map_err(|failure| explain(failure, doing))
}

/// Puts all files into backup mode and verifies it. On an error none of it is left, or the error says
/// so.
///
/// # Errors
/// With the class that says whether to try again.
pub fn begin(before: &State, surroundings: &Surroundings) -> Result<Held, HookError> {
    let time = run::remaining_but(reserve());
    let intent = Intent::beginning(before, time);
    intent.keep()?;
    match sqlplus::run_script(BEGIN, time) {
        Ok(report) => {
            verified(&report, before, surroundings).map_err(|error| undone(&intent, error))
        }
        Err(failure) if was_refused(&failure) => {
            // Not ours: what is in backup mode now is what stood in the way.
            Intent::forget()?;
            Err(explain(failure, "BEGIN BACKUP"))
        }
        Err(failure) => Err(undone(&intent, explain(failure, "BEGIN BACKUP"))),
    }
}

/// These say that nothing was begun. After any other failure files may be in backup mode.
fn was_refused(failure: &Failure) -> bool {
    matches!(
        failure,
        Failure::Process(
            stillpoint_hook::process::Error::Denied(_)
                | stillpoint_hook::process::Error::NotFound(_)
        )
    ) || matches!(failure.code(), Some("ORA-00258" | "ORA-01123" | "ORA-01146" | "ORA-01034"))
}

fn verified(report: &Report, before: &State, around: &Surroundings) -> Result<Held, HookError> {
    let read = |failure| explain(failure, "after BEGIN BACKUP");
    let state = State::of(report).map_err(read)?;
    let log = crate::state::log(report).map_err(read)?;
    if !state.is_same_run_of(before) {
        return Err(HookError::application(
            "restarted",
            "the instance was started anew while it was put into backup mode: run again",
            true,
        ));
    }
    let missing = state.files.iter().filter(|file| around.needs_backup_mode(file) && !file.active);
    let missing: Vec<&str> = missing.map(|file| file.path.as_str()).take(5).collect();
    if !missing.is_empty() {
        return Err(HookError::application(
            "not-active",
            format!(
                "BEGIN BACKUP said that it was done, but V$BACKUP does not show ACTIVE for {}",
                missing.join(", ")
            ),
            true,
        ));
    }
    let intent = Intent::active(&state);
    intent.keep()?;
    Ok(Held { state, log, intent })
}

/// The same error, once backup mode is ended; with more said if it is not.
fn undone(intent: &Intent, error: HookError) -> HookError {
    match settle(intent) {
        Ok(_) => error,
        Err(unproven) => error.also(&format!(
            "and it is not certain that backup mode is ended: {}",
            unproven.message()
        )),
    }
}

/// Ends what is ours, proves that it is ended, and forgets the intent. A second time there is nothing
/// to do.
///
/// # Errors
/// If it is not certain that nothing of ours is in backup mode any more; the intent is still kept.
pub fn settle(intent: &Intent) -> Result<Ended, HookError> {
    let state = look("looking for files in backup mode", run::remaining())?;
    let ended = match intent.owner(&state) {
        Owner::Nobody => Ended::Before,
        Owner::Another => {
            warn!(
                "files are in backup mode, but not since this hook began it: somebody else's backup, which goes on"
            );
            Ended::Anothers
        }
        Owner::Us => {
            end(intent)?;
            Ended::Now
        }
    };
    Intent::forget()?;
    Ok(ended)
}

fn end(intent: &Intent) -> Result<(), HookError> {
    let after = match sqlplus::run_script(END, run::remaining()) {
        Ok(report) => State::of(&report).map_err(|failure| explain(failure, "after END BACKUP"))?,
        // Between our look and our act somebody has ended it: that is what was wanted.
        Err(failure) if matches!(failure.code(), Some("ORA-01142" | "ORA-01123")) => {
            info!("END BACKUP had nothing left to end");
            look("after END BACKUP", run::remaining())?
        }
        Err(failure) => {
            return Err(explain(failure, "END BACKUP").also(
                "the database is still in backup mode: `stillpoint recover` ends it, or, by hand, ALTER DATABASE END BACKUP",
            ));
        }
    };
    if intent.owner(&after) == Owner::Us {
        return Err(HookError::application(
            "still-active",
            "END BACKUP said that it was done, but V$BACKUP still shows ACTIVE: look at it by hand",
            true,
        ));
    }
    Ok(())
}

fn reserve() -> Duration {
    (run::remaining() / 3).clamp(RESERVE.0, RESERVE.1)
}

impl Held {
    /// The same files by the same change numbers, in the same start of the instance: nobody has ended
    /// it, not even to begin it again.
    ///
    /// # Errors
    /// If not.
    pub fn confirm(&self) -> Result<(), HookError> {
        let now = look("confirming that backup mode lasted", run::remaining())?;
        let lost = |why: String| Err(HookError::application("backup-mode-lost", why, true));
        if !now.is_same_run_of(&self.state) {
            return lost("the instance was started anew while the snapshot was taken".into());
        }
        let numbers = |state: &State| -> Vec<(u32, u64)> {
            state.active().map(|file| (file.number, file.change)).collect()
        };
        if numbers(&now) != numbers(&self.state) {
            return lost(
                "backup mode was ended, by somebody else, while the snapshot was taken".into(),
            );
        }
        if now.files.len() != self.state.files.len() {
            return lost("data files came or went while the snapshot was taken".into());
        }
        Ok(())
    }

    /// Ends it.
    ///
    /// # Errors
    /// As [`settle`].
    pub fn release(&self) -> Result<Ended, HookError> {
        settle(&self.intent)
    }
}
