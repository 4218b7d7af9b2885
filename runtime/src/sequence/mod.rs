//! **prepare → quiesce → freeze → snapshot → thaw → release; whatever happens, what was done is
//! undone in reverse, and the file systems run again.**
//!
//! ```text
//! Planned ─prepare─▶ Prepared ─rehearse─▶ Rehearsed ─quiesce─▶ Quiesced ─freeze─▶ Frozen
//!                                                                                   │ snapshot
//! Report ◀─settle─ Released ◀──────────release────────── Thawed ◀─thaw─ Snapshotted ◀┘
//! ```
//!
//! Each phase is a type that owns what is held in it; its exit is a move. Where an exit fails, the
//! phase has undone what it holds, and only that, before the [`Failure`] is returned.

mod events;
mod failure;
mod frozen;
mod hooks;
mod order;
mod prepared;
mod quiesced;
pub(crate) mod recover;
mod request;
mod spans;
mod thawed;

pub use events::{Event, Observer, Silent, Step};
pub use failure::{Cause, Failure, MachineState, SnapshotState};
pub use frozen::{Frozen, Snapshotted};
pub use hooks::PlannedHook;
pub use prepared::{Planned, Prepared, Rehearsed};
pub use quiesced::Quiesced;
pub use recover::{Aftermath, Recovered, recover};
pub use request::Request;
pub use thawed::{Released, Report, Thawed};

use crate::consistency::{Level, Reason, level_after};
use crate::hook::Outcome;
use crate::journal::RunLock;
use crate::manifest::FileSystemRecord;
use crate::time::Deadline;

use self::events::Recorder;
use self::hooks::HookSet;

/// The story. Takes a snapshot, or fails with everything undone.
///
/// # Errors
/// A [`Failure`] says in which step, why, what could not be undone, and the state the machine is in.
pub async fn run(request: Request) -> Result<Report, Failure> {
    Planned::new(request)
        .await?
        .prepare()
        .await?
        .rehearse()
        .await?
        .quiesce()
        .await?
        .freeze()
        .await?
        .snapshot()
        .await?
        .thaw()
        .await?
        .release()
        .await
        .settle()
        .await
}

/// What a run of `request` would freeze, in which order, what it would skip and why. Touches nothing.
///
/// # Errors
/// If what is asked for cannot be planned.
pub async fn plan_only(request: &Request) -> Result<crate::plan::Plan, Cause> {
    prepared::plan_disks(request).await
}

/// What every phase carries along.
#[derive(Debug)]
struct Run {
    request: Request,
    recorder: Recorder,
    reasons: Vec<Reason>,
    /// Held until the run is over: a second run is refused meanwhile.
    lock: RunLock,
    /// When the run began.
    started: jiff::Timestamp,
    /// Bytes of hooks' output that did not fit into memory.
    dropped_output: u64,
    /// What was frozen, and thawed again.
    file_systems: Vec<FileSystemRecord>,
}

impl Run {
    fn fail(self, during: Step, cause: impl Into<Cause>, state: MachineState) -> Failure {
        let failure = Failure {
            during,
            cause: cause.into(),
            state,
            steps: self.recorder.steps().to_vec(),
            warnings: self.recorder.warnings().to_vec(),
            reasons: self.reasons,
            file_systems: self.file_systems,
        };
        spans::failed(self.recorder.span(), &failure);
        failure
    }

    /// Fails early when what is known already excludes the level that is required.
    fn check_level(&self) -> Result<(), Cause> {
        let level = level_after(&self.reasons);
        match self.request.require {
            Some(required) if level < required => {
                Err(Cause::LevelNotReached { required, level, reasons: self.reasons.clone() })
            }
            _ => Ok(()),
        }
    }

    fn check_cancelled(&self) -> Result<(), Cause> {
        if self.request.context.cancel.is_cancelled() { Err(Cause::Cancelled) } else { Ok(()) }
    }

    fn limit(
        &mut self,
        limits_to: Level,
        code: crate::consistency::ReasonCode,
        detail: String,
        disks: Vec<String>,
    ) {
        self.reasons.push(Reason { limits_to, code, detail, disks });
    }

    /// Brings to disk what hooks kept while applications were held. Only once everything runs again:
    /// a write to a file system that is still frozen would hang until it is thawed.
    async fn keep_state(&mut self) {
        let deadline = Deadline::after(self.request.deadlines.release);
        for problem in self.request.context.kv.settle(deadline).await {
            self.recorder.warn(problem);
        }
    }

    /// Releases every hook that was asked to quiesce, finishes all, and says what came of it.
    async fn release_hooks(&mut self, hooks: &mut HookSet, outcome: Outcome) -> MachineState {
        let budget = self.request.deadlines.release;
        let not_released = hooks.release(outcome, budget, &mut self.recorder).await;
        self.note_released(hooks, not_released)
    }

    /// Strikes hooks that are done with from the journal, and sums up.
    fn note_released(&mut self, hooks: &HookSet, not_released: Vec<String>) -> MachineState {
        self.dropped_output += self.request.context.logs.forward();
        for name in hooks.finished() {
            if let Err(error) = self.lock.hook_finished(&name) {
                self.recorder.warn(error.to_string());
            }
        }
        MachineState {
            released: hooks.attempted().saturating_sub(not_released.len()),
            not_released,
            ..MachineState::default()
        }
    }
}
