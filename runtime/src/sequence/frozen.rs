//! File systems are frozen. One request to the provider, then thaw: nothing else happens here, and
//! nothing is written to disk.

use std::time::Duration;

use crate::consistency::{Level, ReasonCode};
use crate::exit_code::ExitCode;
use crate::failpoint::reach_step;
use crate::guard::{Freeze, GuardError, Thaw};
use crate::hook::Outcome;
use crate::manifest::{FileSystemRecord, StepRecord, StepResult};
use crate::plan::Plan;
use crate::provider::{CreatedGroup, ProviderError};
use crate::time::{Deadline, monotonic_ns};

use super::events::Recorder;
use super::prepared::{disarm, discard, note_frozen};
use super::{Cause, Failure, Quiesced, Step, Thawed};

/// How long the run goes on waiting after the guard has ended the freeze: an answer that is on its
/// way tells which group to remove.
const LATE_ANSWER: Duration = Duration::from_millis(50);

/// Every file system of the plan is frozen.
#[derive(Debug)]
#[must_use = "file systems are frozen"]
pub struct Frozen {
    pub(super) quiesced: Quiesced,
    /// `None` if there is nothing to freeze.
    pub(super) freeze: Option<Freeze>,
    pub(super) window: Deadline,
}

/// The provider has fixed the point in time.
#[derive(Debug)]
#[must_use = "file systems are frozen"]
pub struct Snapshotted {
    quiesced: Quiesced,
    freeze: Option<Freeze>,
    created: CreatedGroup,
    request: Request,
}

/// When the provider was asked, and when it had fixed the point in time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) sent_ns: u64,
    pub(super) fixed_ns: u64,
}

impl Request {
    fn step(self, result: StepResult, detail: String) -> StepRecord {
        let times = step(Step::Snapshot, Some(self.sent_ns), Some(self.fixed_ns));
        StepRecord { result, detail: Some(detail), ..times }
    }
}

impl Frozen {
    /// Sends the one request. Gives up when the window has passed or a guard is lost.
    ///
    /// # Errors
    /// If the provider fails or is too late. File systems are thawed, applications released and
    /// what there is of the group removed by then.
    pub async fn snapshot(mut self) -> Result<Snapshotted, Failure> {
        let sent_ns = monotonic_ns();
        reach_step!(Step::Snapshot, "before");
        let asked = self.ask().await;
        reach_step!(Step::Snapshot, "after");
        let request = Request { sent_ns, fixed_ns: monotonic_ns() };
        match asked {
            Ok(created) => {
                let Self { quiesced, freeze, .. } = self;
                Ok(Snapshotted { quiesced, freeze, created, request })
            }
            Err(cause) => Err(self.abort(cause, request).await),
        }
    }

    async fn ask(&mut self) -> Result<CreatedGroup, Cause> {
        let window = self.window;
        let run = &mut self.quiesced.held.run;
        let (name, length) = (run.request.provider.name().to_owned(), run.request.deadlines.freeze);
        let cancel = run.request.context.cancel.clone();
        let create = self.quiesced.held.group.create(window);
        let broken = async {
            match &mut self.freeze {
                Some(freeze) => freeze.broken().await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(create);
        tokio::select! {
            biased;
            created = &mut create => Ok(created?),
            broken = broken => {
                // Whatever the answer is, it comes too late to be consistent; knowing it helps to
                // remove the group.
                let _late = tokio::time::timeout(LATE_ANSWER, create).await;
                Err(Cause::Broken { broken, window: length })
            }
            () = cancel.cancelled() => Err(Cause::Cancelled),
            () = tokio::time::sleep(window.remaining()) => Err(ProviderError::new(
                name,
                ExitCode::GroupTimedOut,
                format!("no answer within the window of {length:?}"),
            ).into()),
        }
    }

    /// Thaw first, then release, then remove the group: in this order, whatever fails.
    async fn abort(self, cause: Cause, request: Request) -> Failure {
        let Self { quiesced, freeze, .. } = self;
        let mut held = quiesced.held;
        let thawed = thaw(freeze).await;
        let snapshot = request.step(StepResult::Failed, cause.to_string());
        push_window(&mut held.run.recorder, &thawed, snapshot);
        let mut state = held.run.release_hooks(&mut held.hooks, Outcome::Failed).await;
        match thawed {
            Thawing::Done(guard, thaw) => {
                held.run.file_systems = records(&held.plan, &thaw);
                disarm(*guard, &mut held.run.recorder).await;
                held.run.keep_state().await;
            }
            Thawing::Nothing => {
                if let Some(guard) = held.guard.take() {
                    disarm(guard, &mut held.run.recorder).await;
                }
                held.run.keep_state().await;
            }
            Thawing::Failed(error) => {
                held.run.recorder.warn(format!("thaw: {error}"));
                note_frozen(&mut state, &Cause::Guard(error));
            }
        }
        state.snapshot = discard(&mut *held.group, false).await;
        held.run.fail(Step::Snapshot, cause, state)
    }
}

impl Snapshotted {
    /// Thaws all, in parallel, and looks at what the thaw says about the window.
    ///
    /// # Errors
    /// If a file system cannot be thawed. Applications are released and the group removed by then.
    pub async fn thaw(self) -> Result<Thawed, Failure> {
        let Self { quiesced, freeze, created, request } = self;
        let Quiesced { mut held } = quiesced;
        let thawed = thaw(freeze).await;
        let snapshot = request.step(StepResult::Done, created.id.clone());
        push_window(&mut held.run.recorder, &thawed, snapshot);
        let (guard, thaw) = match thawed {
            Thawing::Nothing => (held.guard.take(), None),
            Thawing::Done(guard, thaw) => {
                held.run.file_systems = records(&held.plan, &thaw);
                (Some(*guard), Some(thaw))
            }
            Thawing::Failed(error) => {
                let mut state = held.run.release_hooks(&mut held.hooks, Outcome::Failed).await;
                let cause = Cause::Guard(error);
                note_frozen(&mut state, &cause);
                state.snapshot = discard(&mut *held.group, true).await;
                return Err(held.run.fail(Step::Thaw, cause, state));
            }
        };
        held.guard = guard;
        let mut thawed = Thawed { held, created, request, thaw };
        thawed.judge();
        Ok(thawed)
    }
}

impl Thawed {
    /// The truth rule: what the thaw says about the time in which the snapshot was taken.
    fn judge(&mut self) {
        let Self { held, created, request, thaw, .. } = self;
        if !created.point_in_time_fixed {
            let detail = "the provider cannot say when the point in time was fixed".to_owned();
            held.run.limit(Level::Crash, ReasonCode::PointInTimeUnknown, detail, Vec::new());
        }
        let Some(thaw) = thaw else { return };
        if matches!(thaw.broken, Some(crate::guard::Break::GuardLost)) {
            let detail = "the guard process was lost while file systems were frozen".to_owned();
            held.run.limit(Level::Crash, ReasonCode::GuardLost, detail, Vec::new());
        }
        for (fs, thawed) in held.plan.file_systems.iter().zip(&thaw.file_systems) {
            let mount = fs.mount_point.display();
            let problems = [
                (
                    thawed.times.thaw_began_ns < request.fixed_ns,
                    ReasonCode::DeadlinePassed,
                    format!("{mount} was thawed before the point in time was fixed"),
                ),
                (
                    !thawed.thawed_by_us,
                    ReasonCode::ThawedByOther,
                    format!("{mount} was thawed by somebody else"),
                ),
                (
                    thawed.turned_read_only,
                    ReasonCode::TurnedReadOnly,
                    format!("{mount} turned read-only"),
                ),
            ];
            for (_, code, detail) in problems.into_iter().filter(|(is, _, _)| *is) {
                held.run.limit(Level::Crash, code, detail, fs.disks.clone());
            }
        }
    }
}

/// What came of a thaw.
enum Thawing {
    Nothing,
    Done(Box<crate::guard::ArmedGuard>, Thaw),
    Failed(GuardError),
}

async fn thaw(freeze: Option<Freeze>) -> Thawing {
    match freeze {
        None => Thawing::Nothing,
        Some(freeze) => {
            reach_step!(Step::Thaw, "before");
            let thawed = freeze.thaw().await;
            reach_step!(Step::Thaw, "after");
            match thawed {
                Ok((guard, thaw)) => Thawing::Done(Box::new(guard), thaw),
                Err(error) => Thawing::Failed(error),
            }
        }
    }
}

/// The window, as guard and provider saw it: recorded after the thaw, nothing is written in between.
fn push_window(recorder: &mut Recorder, thawed: &Thawing, snapshot: StepRecord) {
    let Thawing::Done(_, thaw) = thawed else { return recorder.push(snapshot) };
    let times = || thaw.file_systems.iter().map(|fs| &fs.times);
    recorder.push(step(
        Step::Freeze,
        times().map(|t| t.freeze_began_ns).min(),
        times().map(|t| t.frozen_ns).max(),
    ));
    recorder.push(snapshot);
    recorder.push(step(
        Step::Thaw,
        times().map(|t| t.thaw_began_ns).min(),
        times().map(|t| t.thawed_ns).max(),
    ));
}

/// What was frozen, and thawed again.
fn records(plan: &Plan, thaw: &Thaw) -> Vec<FileSystemRecord> {
    let thawed = plan.file_systems.iter().zip(&thaw.file_systems);
    thawed
        .map(|(fs, thawed)| FileSystemRecord {
            superblock: fs.superblock,
            mount_point: fs.mount_point.clone(),
            fs_type: fs.fs_type.clone(),
            disks: fs.disks.clone(),
            wave: fs.wave,
            freeze_began_ns: thawed.times.freeze_began_ns,
            frozen_ns: thawed.times.frozen_ns,
            thaw_began_ns: thawed.times.thaw_began_ns,
            thawed_ns: thawed.times.thawed_ns,
            thawed_by_us: thawed.thawed_by_us,
            writable_after: !thawed.turned_read_only,
        })
        .collect()
}

fn step(step: Step, began_ns: Option<u64>, ended_ns: Option<u64>) -> StepRecord {
    StepRecord {
        step: step.to_string(),
        subject: None,
        began_ns: began_ns.unwrap_or_default(),
        ended_ns: ended_ns.unwrap_or_default(),
        result: StepResult::Done,
        detail: None,
    }
}
