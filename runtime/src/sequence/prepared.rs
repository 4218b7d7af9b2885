//! From the request to the point where nothing is left but to lock: plan, prepare, rehearse.

use crate::config::grants::OnFailure;
use crate::consistency::{Level, Reason, ReasonCode, level_after};
use crate::failpoint::reach;
use crate::flush::{Outcome as Flush, flush};
use crate::guard::{self, Aftercare, ArmedGuard, GuardError, GuardOptions};
use crate::hook::{Outcome, Prepared as HookPrepared};
use crate::journal::RunLock;
use crate::manifest::StepResult;
use crate::plan::{self, Inventory, Plan};
use crate::provider::{GroupRequest, PreparedGroup};
use crate::time::Deadline;

use super::events::Recorder;
use super::hooks::HookSet;
use super::recover::{Aftermath, recover};
use super::{Cause, Failure, MachineState, Quiesced, Request, Run, SnapshotState, Step, spans};

/// It is known what would be frozen. Nothing is held but the run's lock.
#[derive(Debug)]
#[must_use = "a plan alone makes no snapshot"]
pub struct Planned {
    run: Run,
    plan: Plan,
    hooks: HookSet,
}

/// Hooks have looked, the provider is ready. Nothing is held.
#[derive(Debug)]
#[must_use = "a prepared run makes no snapshot"]
pub struct Prepared {
    run: Run,
    plan: Plan,
    hooks: HookSet,
    group: Box<dyn PreparedGroup>,
}

/// Every file system has been frozen and thawed once; guard and sentinel are armed.
#[derive(Debug)]
#[must_use = "guard processes are waiting"]
pub struct Rehearsed {
    pub(super) run: Run,
    pub(super) plan: Plan,
    pub(super) hooks: HookSet,
    pub(super) group: Box<dyn PreparedGroup>,
    pub(super) guard: Option<ArmedGuard>,
}

impl Planned {
    /// Takes the run's lock, cleans up after a run that died, and plans.
    ///
    /// # Errors
    /// If another run is in progress, or what is asked for cannot be planned.
    pub async fn new(mut request: Request) -> Result<Self, Failure> {
        let mut recorder = Recorder::new(&request);
        let running = recorder.begin(Step::Plan, None);
        let hooks = std::mem::take(&mut request.hooks);
        let mut reasons = std::mem::take(&mut request.reasons);
        if hooks.is_empty() && level_after(&reasons) > Level::FileSystem {
            reasons.push(no_hook());
        }
        let early = |cause: Cause, recorder: Recorder| {
            let failure = Failure {
                during: Step::Plan,
                cause,
                state: MachineState::default(),
                steps: recorder.steps().to_vec(),
                warnings: recorder.warnings().to_vec(),
                reasons: Vec::new(),
                file_systems: Vec::new(),
            };
            spans::failed(recorder.span(), &failure);
            failure
        };
        let hooks = match HookSet::new(hooks) {
            Ok(hooks) => hooks,
            Err(order) => return Err(early(Cause::HookOrder(order), recorder)),
        };
        let begun = match request.begun.take() {
            Some(begun) => begun,
            None => begin(&request).await,
        };
        let lock = match begun {
            Ok(Begun { lock, recovered }) => {
                recovered.into_iter().for_each(|line| recorder.warn(line));
                lock
            }
            Err(cause) => return Err(early(cause, recorder)),
        };
        let mut run = Run {
            request,
            recorder,
            reasons,
            lock,
            started: jiff::Timestamp::now(),
            dropped_output: 0,
            file_systems: Vec::new(),
        };
        match plan_disks(&run.request).await {
            Ok(plan) => {
                run.reasons.extend(plan.reasons.iter().cloned());
                for warning in plan.disks.iter().flat_map(|disk| &disk.warnings) {
                    run.recorder.warn(warning.clone());
                }
                run.recorder.done(running, summary(&plan));
                run.recorder.planned(&plan);
                let planned = Self { run, plan, hooks };
                match planned.run.check_level() {
                    Ok(()) => Ok(planned),
                    Err(cause) => Err(planned.run.fail(Step::Plan, cause, MachineState::default())),
                }
            }
            Err(cause) => {
                run.recorder.failed(running, cause.to_string());
                Err(run.fail(Step::Plan, cause, MachineState::default()))
            }
        }
    }

    /// Hooks look at their applications; the provider does all that can be done before the window.
    ///
    /// # Errors
    /// If a hook cannot go on and its `on-failure` says `abort`, if its data is not in the snapshot,
    /// or if the provider is not ready. Nothing was locked.
    pub async fn prepare(mut self) -> Result<Prepared, Failure> {
        let running = self.run.recorder.begin(Step::Prepare, None);
        match self.prepare_all().await {
            Ok(group) => {
                self.run.recorder.done(running, None);
                let Self { run, plan, hooks, .. } = self;
                Ok(Prepared { run, plan, hooks, group })
            }
            Err(cause) => {
                self.run.recorder.failed(running, cause.to_string());
                let state = self.run.release_hooks(&mut self.hooks, Outcome::Aborted).await;
                Err(self.run.fail(Step::Prepare, cause, state))
            }
        }
    }

    async fn prepare_all(&mut self) -> Result<Box<dyn PreparedGroup>, Cause> {
        let run = &mut self.run;
        let deadline = Deadline::after(run.request.deadlines.prepare);
        let lock = &mut run.lock;
        let prepared = self
            .hooks
            .prepare(deadline, &mut run.recorder, &mut run.reasons, |hook| lock.hook_begun(hook))
            .await?;
        check_paths(run, &self.plan, &self.hooks, &prepared)?;
        run.check_level()?;
        let request = GroupRequest {
            run_id: run.request.context.run_id.clone(),
            name: run.request.name.clone(),
            description: run.request.description.clone(),
            disks: self.plan.disks.clone(),
            frozen_mounts: self.plan.file_systems.iter().map(|fs| fs.mount_point.clone()).collect(),
            frozen_superblocks: self.plan.file_systems.iter().map(|fs| fs.superblock).collect(),
        };
        // Last: what the provider prepares is undone by the next phase, not by this one.
        run.check_cancelled()?;
        // Its own time: a hook that hangs, and is left out for that, has used up the other.
        let deadline = Deadline::after(run.request.deadlines.prepare);
        Ok(run.request.provider.prepare(request, deadline).await?)
    }
}

impl Prepared {
    /// Arms guard and sentinel, flushes, and freezes and thaws everything once: what cannot be
    /// frozen is found before anything is locked.
    ///
    /// # Errors
    /// If a file system cannot be frozen, is frozen by somebody else, or a guard cannot be started.
    pub async fn rehearse(mut self) -> Result<Rehearsed, Failure> {
        if self.plan.file_systems.is_empty() {
            let sentinel = self.arm_for_hooks().await;
            return Ok(self.rehearsed(sentinel));
        }
        if let Err(cause) = self.flush().await {
            return Err(self.rehearsed(None).abort(Step::Flush, cause).await);
        }
        match self.arm_and_rehearse().await {
            Ok(guard) => Ok(self.rehearsed(Some(guard))),
            Err((during, cause)) => Err(self.rehearsed(None).abort(during, cause).await),
        }
    }

    /// Without a file system to freeze there are still applications that somebody has to release if
    /// this process dies. A run does not fail over that: nothing is frozen, and the next start does it.
    async fn arm_for_hooks(&mut self) -> Option<ArmedGuard> {
        if self.hooks.is_empty() || !guard::spawn::has_entered() {
            return None;
        }
        let options = GuardOptions { expedite_rcu: false, ..guard_options(&self.run.request) };
        let armed = guard::arm(&[], options).await;
        armed.inspect_err(|error| self.run.recorder.warn(format!("no sentinel: {error}"))).ok()
    }

    /// What is dirty is written out in small steps, so that the `syncfs` that follows has little to
    /// do: one that has much makes applications wait. A run does not fail over that.
    async fn flush(&mut self) -> Result<(), Cause> {
        let Self { run, plan, .. } = self;
        let running = run.recorder.begin(Step::Flush, None);
        let budget = run.request.deadlines.flush;
        let cancel = run.request.context.cancel.clone();
        let came = tokio::select! {
            came = flush(&plan.file_systems, budget) => came,
            () = cancel.cancelled() => {
                run.recorder.failed(running, Cause::Cancelled.to_string());
                return Err(Cause::Cancelled);
            }
        };
        match came {
            Ok(done @ Flush::Done(_)) => run.recorder.done(running, done.to_string()),
            Ok(not_needed) => {
                run.recorder.end(running, StepResult::Skipped, Some(not_needed.to_string()));
            }
            Err(error) => {
                run.recorder.end(running, StepResult::Skipped, Some(error.to_string()));
                run.recorder.warn(error.warning());
            }
        }
        Ok(())
    }

    async fn arm_and_rehearse(&mut self) -> Result<ArmedGuard, (Step, Cause)> {
        let Self { run, plan, .. } = self;
        let options = guard_options(&run.request);
        let fresh = Inventory::collect().and_then(|now| plan::still_valid(plan, &now));
        fresh.map_err(|error| (Step::Arm, error.into()))?;

        let running = run.recorder.begin(Step::Arm, None);
        let mut guard = match guard::arm(&plan.file_systems, options).await {
            Ok(guard) => guard,
            Err(error) => {
                run.recorder.failed(running, error.to_string());
                return Err((Step::Arm, error.into()));
            }
        };
        for warning in guard.warnings() {
            run.recorder.warn(warning.clone());
        }
        run.recorder.done(running, None);

        let running = run.recorder.begin(Step::Sync, None);
        let synced = guard.sync(run.request.deadlines.sync).await;
        end_guard_step(&mut run.recorder, running, &synced);
        let ready = synced.map_err(|error| (Step::Sync, Cause::from(error)));
        let ready = match ready {
            Ok(_) => {
                let running = run.recorder.begin(Step::Rehearse, None);
                let rehearsed = guard.rehearse().await;
                end_guard_step(&mut run.recorder, running, &rehearsed);
                rehearsed.map_err(|error| (Step::Rehearse, error.into()))
            }
            Err(failed) => Err(failed),
        };
        let ready = ready.and_then(|_| run.check_cancelled().map_err(|c| (Step::Rehearse, c)));
        match ready {
            Ok(()) => Ok(guard),
            Err(failed) => {
                disarm(guard, &mut run.recorder).await;
                Err(failed)
            }
        }
    }

    fn rehearsed(self, guard: Option<ArmedGuard>) -> Rehearsed {
        let Self { run, plan, hooks, group } = self;
        Rehearsed { run, plan, hooks, group, guard }
    }
}

impl Rehearsed {
    /// Quiesces the applications. From here until release production may wait for us.
    ///
    /// # Errors
    /// If a hook fails and its `on-failure` says `abort`. Every hook that was asked is released.
    pub async fn quiesce(mut self) -> Result<Quiesced, Failure> {
        if let Err(cause) = self.run.check_cancelled() {
            return Err(self.abort(Step::Quiesce, cause).await);
        }
        let run = &mut self.run;
        let running = run.recorder.begin(Step::Quiesce, None);
        run.request.context.kv.hold();
        let lock = &mut run.lock;
        let quiesced = self
            .hooks
            .quiesce(
                Deadline::after(run.request.deadlines.quiesce),
                run.request.deadlines.release,
                &mut run.recorder,
                &mut run.reasons,
                |hook| lock.hook_begun(hook),
            )
            .await
            .and_then(|()| run.check_level())
            .and_then(|()| run.check_cancelled());
        match quiesced {
            Ok(()) => {
                run.recorder.hooks_done(running, self.hooks.is_empty(), StepResult::Done);
                Ok(Quiesced { held: self })
            }
            Err(cause) => {
                run.recorder.failed(running, cause.to_string());
                Err(self.abort(Step::Quiesce, cause).await)
            }
        }
    }

    /// Undoes what is held here, in reverse: applications, guard, the provider's preparations.
    pub(super) async fn abort(self, during: Step, cause: impl Into<Cause>) -> Failure {
        let Self { mut run, mut hooks, mut group, guard, .. } = self;
        let cause = cause.into();
        let mut state = run.release_hooks(&mut hooks, Outcome::Aborted).await;
        if let Some(guard) = guard {
            disarm(guard, &mut run.recorder).await;
        }
        note_frozen(&mut state, &cause);
        if state.maybe_frozen.is_empty() {
            run.keep_state().await;
        }
        state.snapshot = discard(&mut *group, false).await;
        run.fail(during, cause, state)
    }
}

/// Reads what there is and plans. Also what `stillpoint plan` does.
pub(crate) async fn plan_disks(request: &Request) -> Result<Plan, Cause> {
    let disks = request.provider.disks().await?;
    let inventory = Inventory::collect()?;
    let mut scope = request.scope.clone();
    for path in scope.mounts.iter_mut().chain(&mut scope.accept_unfrozen) {
        *path = plan::canonical(&inventory, path)?;
    }
    scope.protected.push((
        plan::canonical(&inventory, &request.run_dir)?,
        "the journal is written there while file systems are frozen; let /run be a tmpfs".into(),
    ));
    Ok(plan::plan(&inventory, &disks, &scope)?)
}

/// A run that has the lock, on a machine that nobody has left unclean.
#[derive(Debug)]
pub(super) struct Begun {
    lock: RunLock,
    /// What was undone, or could not be.
    recovered: Vec<String>,
}

pub(super) async fn begin(request: &Request) -> Result<Begun, Cause> {
    let mut lock =
        RunLock::acquire_after_recovery(&request.run_dir, &request.context.run_id).await?;
    let aftermath = Aftermath {
        paths: &request.paths,
        scripts: &request.scripts,
        finish: request.deadlines.release,
        asked: false,
    };
    let recovered = recover(&mut lock, &aftermath).await?;
    let lines = recovered.done.into_iter().chain(recovered.left);
    let recovered = lines.map(|line| format!("an earlier run died: {line}")).collect();
    lock.scripts_are(&request.scripts);
    Ok(Begun { lock, recovered })
}

fn guard_options(request: &Request) -> GuardOptions {
    GuardOptions {
        run_id: request.context.run_id.clone(),
        run_dir: request.run_dir.clone(),
        window: request.deadlines.freeze,
        expedite_rcu: request.expedite_rcu,
        keep_warm: request.keep_warm,
        aftercare: Some(aftercare(request)),
    }
}

/// What the sentinel has to know to have the applications released if this process dies.
fn aftercare(request: &Request) -> Aftercare {
    Aftercare {
        root: request.paths.root().to_owned(),
        scripts: request.scripts.clone(),
        finish: request.deadlines.release,
        credentials: std::env::var_os("CREDENTIALS_DIRECTORY").map(Into::into),
    }
}

/// Nobody was asked, so nobody can have been quiesced.
fn no_hook() -> Reason {
    Reason {
        limits_to: Level::FileSystem,
        code: ReasonCode::NoHook,
        detail: "no application was asked to hold still".into(),
        disks: Vec::new(),
    }
}

fn summary(plan: &Plan) -> Option<String> {
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    Some(format!(
        "{} on {}",
        count(plan.file_systems.len(), "file system"),
        count(plan.disks.len(), "disk")
    ))
}

/// Every path that a hook named must be on a file system that is frozen and snapshotted.
fn check_paths(
    run: &mut Run,
    plan: &Plan,
    hooks: &HookSet,
    prepared: &[(String, HookPrepared)],
) -> Result<(), Cause> {
    let inventory = Inventory::collect()?;
    for (hook, found) in prepared {
        for path in &found.paths {
            let owner = plan::find_owner(&inventory, plan, path)?;
            // Without a freeze the level says already that nothing is frozen.
            let covered = owner.in_snapshot && (owner.frozen || !run.request.scope.freeze);
            // What is not here is somewhere else: on another machine, or behind mounts of its own.
            if covered && owner.exists {
                continue;
            }
            let why = match owner.exists {
                true => owner.to_string(),
                false => format!("{owner}: the application sees other files than this machine has"),
            };
            if hooks.on_failure(hook) == OnFailure::Abort {
                return Err(Cause::DataNotInSnapshot {
                    hook: hook.clone(),
                    path: path.clone(),
                    why,
                });
            }
            let detail = format!("hook {hook}: {}: {why}", path.display());
            run.limit(Level::FileSystem, ReasonCode::DataNotInSnapshot, detail, Vec::new());
        }
    }
    Ok(())
}

fn end_guard_step(
    recorder: &mut Recorder,
    running: super::events::Running,
    result: &Result<guard::StepTimes, GuardError>,
) {
    match result {
        Ok(_) => recorder.done(running, None),
        Err(error) => recorder.failed(running, error.to_string()),
    }
}

pub(super) async fn disarm(guard: ArmedGuard, recorder: &mut Recorder) {
    let _ = reach!("disarm.before");
    if let Err(error) = guard.disarm().await {
        recorder.warn(format!("guard: {error}"));
    }
    let _ = reach!("disarm.after");
}

pub(super) fn note_frozen(state: &mut MachineState, cause: &Cause) {
    if let Cause::Guard(GuardError::NotThawed { mount_points }) = cause {
        state.maybe_frozen.clone_from(mount_points);
    }
}

/// Removes what there is of a group that must not be used.
pub(super) async fn discard(group: &mut dyn PreparedGroup, created: bool) -> SnapshotState {
    match group.discard().await {
        Ok(()) if created => SnapshotState::Discarded,
        Ok(()) => SnapshotState::None,
        Err(error) => SnapshotState::NotDiscarded(error.to_string()),
    }
}
