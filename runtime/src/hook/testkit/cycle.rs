//! One run of a hook, phase by phase in the order of a real run, with what the test wants to go wrong.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bench::{Bench, Place};
use super::error::TestError;
use super::tape::Taped;
use super::world::{Held, World};
use crate::capability::kv;
use crate::capability::stage::SessionNumber;
use crate::hook::wasm::was_stopped;
use crate::hook::{DrainedLog, Hook, HookFailure, Outcome, Phase, Prepared, Quiesced, RunContext};
use crate::manifest::MetadataEntry;
use crate::time::Deadline;

/// How long closing a session may take, to be told from one that stays open.
const CLOSING: Duration = Duration::from_secs(1);

/// How long state may take to get to disk.
const SETTLE: Duration = Duration::from_secs(5);

/// How a run goes.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// What `post-thaw` is told.
    pub(super) outcome: Outcome,
    pub(super) dry_run: bool,
    /// The last phase before the end: `prepare` or `pre-freeze` for a run that is given up there.
    pub(super) gives_up_after: Option<Phase>,
    /// Sessions that are lost while file systems are frozen.
    pub(super) loses_while_frozen: Option<SessionNumber>,
    /// Who drops a phase half-way: the agent that dies, or one that goes on without this hook.
    pub(super) dies: bool,
    /// One phase's deadline, if it is not the usual one.
    pub(super) deadline: Option<(Phase, Duration)>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            outcome: Outcome::Captured,
            dry_run: false,
            gives_up_after: None,
            loses_while_frozen: None,
            dies: false,
            deadline: None,
        }
    }
}

/// What a run came to.
#[derive(Debug)]
pub(super) struct Played {
    pub(super) steps: Vec<Step>,
    pub(super) tape: Vec<Taped>,
    pub(super) logs: DrainedLog,
    /// The planned fault has come.
    pub(super) fired: bool,
}

/// What a phase came to.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) phase: Phase,
    pub(super) result: Result<Gave, HookFailure>,
    /// The host stopped the guest.
    pub(super) stopped: bool,
    /// Nobody waited for the result.
    pub(super) dropped: bool,
    /// On an instance that knows nothing of the run, as after the agent's death.
    pub(super) fresh: bool,
    pub(super) took: Duration,
    /// What is held after it.
    pub(super) held: Vec<Held>,
    /// What was given back in it.
    pub(super) given: Vec<Held>,
    /// Sessions that are open after it.
    pub(super) open: Vec<SessionNumber>,
}

/// What a phase gives.
#[derive(Clone, Debug)]
pub(super) enum Gave {
    Nothing,
    Prepared(Prepared),
    Quiesced(Quiesced),
    Released(Vec<MetadataEntry>),
}

impl Played {
    pub(super) fn step(&self, phase: Phase) -> Option<&Step> {
        self.steps.iter().find(|step| step.phase == phase)
    }

    /// What `pre-freeze` said, if it and `confirm` succeeded: then the run says so, too.
    pub(super) fn claimed(&self) -> Option<&Quiesced> {
        let quiesced = match &self.step(Phase::PreFreeze)?.result {
            Ok(Gave::Quiesced(quiesced)) => quiesced,
            _ => return None,
        };
        let confirmed = self.step(Phase::Confirm).filter(|step| !step.dropped)?;
        confirmed.result.as_ref().ok().map(|_| quiesced)
    }
}

/// Plays one run in `place`.
///
/// # Errors
/// If the hook does not load.
pub(super) async fn play(
    bench: &Bench,
    place: &Place,
    world: &Arc<World>,
    plan: &Plan,
) -> Result<Played, TestError> {
    let (hook, run) = bench.load(place, world, plan.dry_run).await?;
    let mut player = Player { bench, world, plan, run, hook: Some(hook), steps: Vec::new() };
    player.phases().await;
    let Player { mut steps, run, hook, .. } = player;
    let died = hook.is_none();
    let logs = run.logs.drain();
    let failed = steps.last().is_none_or(|step| step.result.is_err());
    if died || failed {
        steps.push(next_start(bench, place, world).await?);
    }
    Ok(Played { steps, tape: world.tape(), logs, fired: world.has_fired() })
}

/// What the next start does for a hook that has not finished: a fresh instance, and what it kept.
pub(super) async fn next_start(
    bench: &Bench,
    place: &Place,
    world: &Arc<World>,
) -> Result<Step, TestError> {
    kv::merge(&place.paths, Deadline::after(SETTLE)).await;
    let (hook, run) = bench.load(place, world, false).await?;
    let plan = Plan::default();
    let mut player = Player { bench, world, plan: &plan, run, hook: Some(hook), steps: Vec::new() };
    player.finish().await;
    let mut step = match player.steps.pop() {
        Some(step) => step,
        None => unreachable_step(),
    };
    step.fresh = true;
    Ok(step)
}

/// `finish` always leaves a step; this is what there is if it ever did not.
fn unreachable_step() -> Step {
    Step {
        phase: Phase::Finish,
        result: Ok(Gave::Nothing),
        stopped: false,
        dropped: true,
        fresh: true,
        took: Duration::ZERO,
        held: Vec::new(),
        given: Vec::new(),
        open: Vec::new(),
    }
}

struct Player<'a> {
    bench: &'a Bench,
    world: &'a Arc<World>,
    plan: &'a Plan,
    run: RunContext,
    /// None once the agent is dead.
    hook: Option<Box<dyn Hook>>,
    steps: Vec<Step>,
}

impl Player<'_> {
    /// As `sequence` does it: `post-thaw` once `pre-freeze` was called, and `finish` always.
    async fn phases(&mut self) {
        let prepared = self.prepare().await;
        if prepared && !self.gives_up(Phase::Prepare) {
            self.run.kv.hold();
            let quiesced = self.pre_freeze().await;
            if quiesced && !self.gives_up(Phase::PreFreeze) {
                if let Some(session) = self.plan.loses_while_frozen {
                    self.world.lose(session);
                }
                self.confirm().await;
            }
            self.post_thaw(quiesced).await;
        }
        self.finish().await;
        if self.hook.is_some() {
            self.run.kv.settle(Deadline::after(SETTLE)).await;
        }
    }

    /// By plan, or because the operator asked the run to stop before the freeze.
    fn gives_up(&self, after: Phase) -> bool {
        let confirmed = self.steps.iter().any(|step| step.phase == Phase::Confirm);
        self.plan.gives_up_after == Some(after) || (!confirmed && self.run.cancel.is_cancelled())
    }

    async fn prepare(&mut self) -> bool {
        let deadline = self.enter(Phase::Prepare);
        let Some(mut hook) = self.hook.take() else { return false };
        let began = Instant::now();
        let result = tokio::select! {
            biased;
            () = self.world.interrupted() => None,
            result = hook.prepare(deadline) => Some(result.map(Gave::Prepared)),
        };
        self.ended(Phase::Prepare, hook, result, began).await
    }

    async fn pre_freeze(&mut self) -> bool {
        let deadline = self.enter(Phase::PreFreeze);
        let Some(mut hook) = self.hook.take() else { return false };
        let began = Instant::now();
        let result = tokio::select! {
            biased;
            () = self.world.interrupted() => None,
            result = hook.pre_freeze(deadline) => Some(result.map(Gave::Quiesced)),
        };
        self.ended(Phase::PreFreeze, hook, result, began).await
    }

    async fn confirm(&mut self) -> bool {
        let deadline = self.enter(Phase::Confirm);
        let Some(mut hook) = self.hook.take() else { return false };
        let began = Instant::now();
        let result = tokio::select! {
            biased;
            () = self.world.interrupted() => None,
            result = hook.confirm(deadline) => Some(result.map(|()| Gave::Nothing)),
        };
        self.ended(Phase::Confirm, hook, result, began).await
    }

    async fn post_thaw(&mut self, quiesced: bool) -> bool {
        let deadline = self.enter(Phase::PostThaw);
        let Some(mut hook) = self.hook.take() else { return false };
        let given_up = !quiesced || self.gives_up(Phase::PreFreeze);
        let outcome = if given_up { Outcome::Aborted } else { self.plan.outcome };
        let began = Instant::now();
        let result = tokio::select! {
            biased;
            () = self.world.interrupted(), if !self.was_dropped() => None,
            result = hook.post_thaw(outcome, deadline) => Some(result.map(Gave::Released)),
        };
        self.ended(Phase::PostThaw, hook, result, began).await
    }

    async fn finish(&mut self) -> bool {
        let deadline = self.enter(Phase::Finish);
        let Some(mut hook) = self.hook.take() else { return false };
        let began = Instant::now();
        let result = tokio::select! {
            biased;
            () = self.world.interrupted(), if !self.was_dropped() => None,
            result = hook.finish(deadline) => Some(result.map(|()| Gave::Nothing)),
        };
        self.ended(Phase::Finish, hook, result, began).await
    }

    fn was_dropped(&self) -> bool {
        self.steps.iter().any(|step| step.dropped) || self.world.was_interrupted()
    }

    fn enter(&self, phase: Phase) -> Deadline {
        self.world.enter(phase);
        let own = self.plan.deadline.filter(|(of, _)| *of == phase);
        Deadline::after(own.map_or_else(|| self.bench.deadline(phase), |(_, time)| time))
    }

    /// Keeps what came of a phase. True if it succeeded.
    async fn ended(
        &mut self,
        phase: Phase,
        hook: Box<dyn Hook>,
        result: Option<Result<Gave, HookFailure>>,
        began: Instant,
    ) -> bool {
        let took = began.elapsed();
        let name = hook.name().to_owned();
        let dropped = result.is_none();
        if dropped && self.plan.dies {
            drop(hook);
            self.run.sessions.close_all(CLOSING).await;
        } else {
            self.hook = Some(hook);
        }
        self.run.sessions.settled(&name, CLOSING).await;
        let result = result.unwrap_or(Ok(Gave::Nothing));
        let stopped = result.as_ref().is_err_and(was_stopped);
        let succeeded = result.is_ok() && !dropped;
        self.steps.push(Step {
            phase,
            result,
            stopped,
            dropped,
            fresh: false,
            took,
            held: self.world.held(),
            given: self.world.given(),
            open: self.world.open_sessions(),
        });
        succeeded
    }
}
