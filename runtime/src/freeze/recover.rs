//! What a run does first: undo what an earlier one that died with its guard and its sentinel has
//! left.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::thaw::{FileSystemOutcome, ThawOutcome, thaw_recorded};
use crate::guard::{cgroup, rcu};
use crate::journal::{FreezeRecord, JournalError, RunRecord, boot_id, prepare_directory};

/// How long a guard that has lost its agent is given to finish. It needs a few milliseconds.
const GUARD_LIMIT: Duration = Duration::from_secs(2);

/// What recovery found, and did about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recovery {
    /// What a lost guard had left, if anything.
    pub freeze: Option<RecoveredJournal>,
    /// The record of a run that did not finish all its hooks, or those of runs before it:
    /// [`RunRecord::left_hooks`] are to be finished. It stays in the journal until
    /// [`RunLock::take_over`](crate::journal::RunLock::take_over).
    pub run: Option<RunRecord>,
}

/// What a lost guard had left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecoveredJournal {
    /// The run whose guard was lost.
    pub run_id: String,
    /// That was before the last reboot: nothing can be frozen any more.
    pub before_reboot: bool,
    /// What became of the file systems that it may have frozen.
    pub file_systems: Vec<FileSystemOutcome>,
    /// `rcu_expedited` was put back.
    pub rcu_restored: bool,
}

/// Why recovery was refused, or did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoverError {
    /// The guard of another run is still there: it does not need us.
    #[error("the guard (pid {pid}) of run {run_id} is still at work")]
    GuardAlive {
        /// Its run.
        run_id: String,
        /// Its process.
        pid: u32,
    },
    /// What was ours could not all be thawed. The journal stays.
    #[error("what run {run_id} had frozen could not all be thawed")]
    NotThawed {
        /// The run.
        run_id: String,
        /// What became of each.
        file_systems: Vec<FileSystemOutcome>,
    },
    /// The journal cannot be read or removed.
    #[error("the journal of an earlier run cannot be used")]
    Journal(#[from] JournalError),
}

impl RecoverError {
    /// What the operator can do next, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::GuardAlive { pid, .. } => Some(format!(
                "it thaws what it can and then ends; do not kill it (`cat /proc/{pid}/stack` \
                 shows what it waits for)"
            )),
            Self::NotThawed { file_systems, .. } => {
                let left = file_systems.iter().filter(|fs| !fs.outcome.is_running());
                let paths: Vec<_> = left.map(|fs| fs.mount_point.display().to_string()).collect();
                Some(format!("stillpoint thaw {}", paths.join(" ")))
            }
            Self::Journal(error) => error.hint(),
        }
    }
}

/// Undoes what an earlier run has left in `run_dir`. Called at the start of every run, with the
/// [`crate::journal::RunLock`] held.
///
/// # Errors
/// [`RecoverError::GuardAlive`] if its guard is still there after 2 s; then nothing was done.
pub fn recover(run_dir: &Path) -> Result<Recovery, RecoverError> {
    prepare_directory(run_dir)?;
    let freeze = match wait_for_guard(run_dir)? {
        Some(record) => Some(undo(run_dir, &record)?),
        None => None,
    };
    // An agent and a sentinel that were killed before their guard knew of each other left one in no
    // journal.
    cgroup::remove_stale();
    let run = RunRecord::load(run_dir)?.filter(|run| !run.left_hooks().is_empty());
    Ok(Recovery { freeze, run })
}

/// The journal that a guard has left; none if there is none, or its guard finishes now.
fn wait_for_guard(run_dir: &Path) -> Result<Option<FreezeRecord>, RecoverError> {
    let began = Instant::now();
    let boot = boot_id()?;
    loop {
        let Some(record) = FreezeRecord::load(run_dir)? else { return Ok(None) };
        let at_work = [record.guard, record.sentinel].into_iter().find(|peer| peer.is_alive());
        match at_work {
            Some(peer) if record.boot_id == boot => {
                if began.elapsed() > GUARD_LIMIT {
                    let (run_id, pid) = (record.run_id, peer.pid);
                    return Err(RecoverError::GuardAlive { run_id, pid });
                }
            }
            _ => return Ok(Some(record)),
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn undo(run_dir: &Path, record: &FreezeRecord) -> Result<RecoveredJournal, RecoverError> {
    let before_reboot = record.boot_id != boot_id()?;
    let mut recovered = RecoveredJournal {
        run_id: record.run_id.clone(),
        before_reboot,
        file_systems: Vec::new(),
        rcu_restored: false,
    };
    if !before_reboot {
        recovered.file_systems = thaw_recorded(record);
        let restored = record.rcu_expedited_before.map(rcu::restore);
        recovered.rcu_restored = matches!(restored, Some(Ok(())));
        if let Some(cgroup) = &record.sentinel_cgroup {
            let _ = fs::remove_dir(cgroup);
        }
        // One that is not mounted must not keep every later run from starting; it is in the list.
        let thawed = |fs: &FileSystemOutcome| {
            fs.outcome.is_running() || fs.outcome == ThawOutcome::NotMounted
        };
        if !recovered.file_systems.iter().all(thawed) {
            let (run_id, file_systems) = (recovered.run_id, recovered.file_systems);
            return Err(RecoverError::NotThawed { run_id, file_systems });
        }
    }
    FreezeRecord::remove(run_dir)?;
    Ok(recovered)
}
