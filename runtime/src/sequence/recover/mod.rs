//! Cleaning up after a run that died: by its sentinel at once, at the start of every run, and by
//! `stillpoint recover`.

mod finish;
mod process;

use std::time::Duration;

use crate::capability::{kv, process as programs};
use crate::freeze::{self, RecoverError};
use crate::journal::{LeftHook, RecoveryRecord, RunLock};
use crate::paths::Paths;
use crate::script::{self, ScriptSettings};
use crate::time::Deadline;

use finish::Finisher;
pub(crate) use process::run_as_a_process;

/// How long the undo of scripts may take beyond their own time-out.
const GRACE: Duration = Duration::from_secs(10);

/// How long what is left of hooks' programs may take to die.
const PROGRAMS: Duration = Duration::from_secs(5);

/// How often starts of runs try to finish a hook. Then only `stillpoint recover` does.
const MOST_TRIES: u32 = 5;

/// What is known of the installation in which a run died.
#[derive(Clone, Copy, Debug)]
pub struct Aftermath<'a> {
    /// Where grants, components and hooks' state are.
    pub paths: &'a Paths,
    /// The legacy pair.
    pub scripts: &'a ScriptSettings,
    /// How long each hook's `finish` may take.
    pub finish: Duration,
    /// An operator asks: what was tried too often is tried once more.
    pub asked: bool,
}

/// What was found, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// What is done.
    pub done: Vec<String>,
    /// What could not be done, and what to do about it. It stays in the journal.
    pub left: Vec<String>,
}

/// Thaws what a dead run of ours left frozen, puts settings back, ends what programs of its hooks
/// have left, brings hooks' state to disk, runs the undo of its legacy scripts, and calls `finish`, on
/// a fresh instance, of every hook that it had begun. What fails is told, and does not keep the rest
/// from being done. What the sentinel of a run has done already is told once.
///
/// # Errors
/// If something may still be frozen, a guard is still at work, or the journal cannot be used.
pub async fn recover(
    lock: &mut RunLock,
    aftermath: &Aftermath<'_>,
) -> Result<Recovered, RecoverError> {
    let by_sentinel = RecoveryRecord::load(lock.run_dir())?;
    let mut recovered = undo(lock, aftermath).await?;
    if let Some(record) = by_sentinel {
        recovered.done.splice(0..0, record.lines());
        RecoveryRecord::remove(lock.run_dir())?;
    }
    Ok(recovered)
}

/// As [`recover`], without telling what a sentinel has done already.
async fn undo(lock: &mut RunLock, aftermath: &Aftermath<'_>) -> Result<Recovered, RecoverError> {
    let recovery = freeze::recover(lock.run_dir())?;
    let mut recovered = Recovered { done: recovery.lines(), left: Vec::new() };
    recovered.done.extend(programs::end_remains(Deadline::after(PROGRAMS)).await);
    let deadline = Deadline::after(aftermath.finish);
    let state = kv::merge(aftermath.paths, deadline).await;
    recovered.done.extend(state.done);
    recovered.left.extend(state.left);

    let mut left = recovery.run.map(|run| run.left_hooks()).unwrap_or_default();
    // Before the first try, so that one that takes the agent with it counts, too.
    left.iter_mut().filter(|hook| aftermath.tries(hook)).for_each(|hook| hook.tries += 1);
    lock.take_over(left.clone())?;
    let mut finisher = Finisher::new(aftermath);
    let mut stays = Vec::new();
    for hook in left {
        let run = &hook.run_id;
        match attempt(&mut finisher, aftermath, &hook).await {
            Ok(lines) => {
                recovered.done.extend(lines.into_iter().map(|line| format!("run {run}: {line}")));
            }
            Err(lines) => {
                recovered.left.extend(lines.into_iter().map(|line| format!("run {run}: {line}")));
                stays.push(hook);
            }
        }
    }
    lock.take_over(stays)?;
    Ok(recovered)
}

/// Finishes one hook; says what was done, or what stands in the way.
async fn attempt(
    finisher: &mut Finisher<'_>,
    aftermath: &Aftermath<'_>,
    left: &LeftHook,
) -> Result<Vec<String>, Vec<String>> {
    let LeftHook { hook, tries, scripts, .. } = left;
    let name = &hook.name;
    if !aftermath.asked && *tries > MOST_TRIES {
        return Err(vec![format!(
            "hook {name} is not finished, and is not tried again by itself after {MOST_TRIES} tries; `stillpoint recover` tries, and says why it fails"
        )]);
    }
    if name == script::NAME {
        // Its own: those that are configured today may be others.
        let scripts = scripts.as_ref().unwrap_or(aftermath.scripts);
        let recovered = script::recover(scripts, Deadline::after(scripts.timeout + GRACE)).await;
        return if recovered.undone { Ok(recovered.lines) } else { Err(recovered.lines) };
    }
    match finisher.finish(left).await {
        Ok(how) => Ok(vec![format!(
            "hook {name} was cut off; its sessions ended with its agent, and `finish` has run now{how}"
        )]),
        Err(why) => Err(vec![format!(
            "hook {name} was cut off, and cannot be finished (try {tries}): {why}"
        )]),
    }
}

impl Aftermath<'_> {
    /// One more than the most says that it is over: it is not counted any further.
    fn tries(&self, hook: &LeftHook) -> bool {
        self.asked || hook.tries <= MOST_TRIES
    }
}
