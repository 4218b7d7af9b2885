//! Cleaning up after a run that died: at the start of every run, and by `stillpoint recover`.

use std::path::Path;
use std::time::Duration;

use crate::capability::process;
use crate::freeze::{self, RecoverError};
use crate::journal::{RunLock, RunRecord};
use crate::script::{self, ScriptSettings};
use crate::time::Deadline;

/// How long the undo of scripts may take beyond their own time-out.
const GRACE: Duration = Duration::from_secs(10);

/// How long what is left of hooks' programs may take to die.
const PROGRAMS: Duration = Duration::from_secs(5);

/// Thaws what a dead run of ours left frozen, puts settings back, ends what programs of its hooks have
/// left, and runs the undo of its legacy scripts; says in words what was found and done. Hooks need nothing: their sessions ended with
/// their agent, and so did their locks.
///
/// # Errors
/// If something may still be frozen, a guard is still at work, or the journal cannot be used.
pub async fn recover(
    _lock: &RunLock,
    run_dir: &Path,
    scripts: &ScriptSettings,
) -> Result<Vec<String>, RecoverError> {
    let recovery = freeze::recover(run_dir)?;
    let mut lines = recovery.lines();
    lines.extend(process::end_remains(Deadline::after(PROGRAMS)).await);
    let Some(run) = &recovery.run else { return Ok(lines) };
    if run.unfinished_hooks().any(|hook| hook == script::NAME) {
        // Its own: those that are configured today may be others.
        let scripts = run.scripts.as_ref().unwrap_or(scripts);
        let recovered = script::recover(scripts, Deadline::after(scripts.timeout + GRACE)).await;
        lines.extend(recovered.lines);
        if !recovered.undone {
            // The record stays, so that the next run, or an operator, tries again.
            return Ok(lines);
        }
    }
    RunRecord::remove(run_dir)?;
    Ok(lines)
}
