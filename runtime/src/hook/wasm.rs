//! Running one component in one run: a fresh instance from `prepare` to `finish`, stopped in three
//! ways if it does not stop by itself.
//!
//! 1. Host calls end by the phase's deadline and give the guest a typed time-out; it unwinds.
//! 2. A guest that does not unwind is interrupted a moment later, wherever it loops.
//! 3. A call that still has not come back a moment after that is dropped.
//!
//! A guest that was stopped by 2 or 3, or trapped, can never be entered again (the component model
//! forbids it), so its store is dropped, its sessions are closed from the host's side, and `finish`
//! runs on a fresh instance.

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::timeout_at;
use wasmtime::{Engine, Store, Trap, UpdateDeadline};
use wasmtime_wasi::I32Exit;

use super::cpu::CpuMeter;
use super::description::Description;
use super::engine::HookEngine;
use super::host::{HostState, LimitReached, PhaseClock, RunContext};
use super::limiter::Exceeded;
use super::since_v0_1_0::{Called, Instance, Ready};
use super::text::{LONGEST_MESSAGE, clean, is_hidden, visible};
use super::{
    Failed, Hook, HookFailure, HookFailureKind, Identity, Outcome, Phase, Prepared, Provenance,
    Quiesced,
};
use crate::capability::Powers;
use crate::capability::process::Unfinished;
use crate::config::grants::Limits;
use crate::manifest::{MetadataEntry, MetadataValue};
use crate::time::Deadline;

/// After the interrupt, how long until a call is dropped from outside.
const BACKSTOP: Duration = Duration::from_millis(200);

/// How long closing a hook's sessions may take: a good-bye and a KILL have less each. And how long
/// its programs may take to die, once they were killed.
const CLOSING: Duration = Duration::from_secs(1);

/// Bytes that a guest may hand to one host call.
const HOST_CALL_BYTES: usize = 4 << 20;

/// Bounds of what a hook may hand to the manifest and the plan.
const MOST_METADATA_ENTRIES: usize = 256;
const LONGEST_METADATA_VALUE: usize = 16 << 10;
const MOST_PATHS: usize = 1024;

/// As the kernel: a longer path leads nowhere.
const LONGEST_PATH: usize = 4096;

/// What is said of a guest that the host stopped.
const STOPPED: &str = "its instance was stopped and its sessions were closed";

/// True if the phase failed because the host stopped the guest, and not by the guest's own word.
pub(super) fn was_stopped(failure: &HookFailure) -> bool {
    failure.kind == HookFailureKind::Trapped || failure.message.ends_with(STOPPED)
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A component as one run uses it.
pub(super) struct WasmHook {
    identity: Arc<Identity>,
    engine: HookEngine,
    ready: Ready,
    powers: Arc<Powers>,
    settings: String,
    run: RunContext,
    live: Option<Live>,
}

/// An instance in its store. Dropping it closes every session that it opened.
struct Live {
    store: Store<HostState>,
    instance: Instance,
}

/// The guest was stopped, or stopped itself in a way that leaves nothing to call.
struct Stopped {
    kind: HookFailureKind,
    message: String,
    hint: Option<String>,
}

impl WasmHook {
    pub(super) fn new(
        identity: Identity,
        engine: HookEngine,
        ready: Ready,
        powers: Powers,
        settings: String,
        run: RunContext,
    ) -> Self {
        Self {
            identity: Arc::new(identity),
            engine,
            ready,
            powers: Arc::new(powers),
            settings,
            run,
            live: None,
        }
    }

    /// Lets a throw-away instance check the settings. No target is contacted.
    pub(super) async fn validate(&mut self, deadline: Deadline) -> Result<(), HookFailure> {
        self.start(Phase::Validate, deadline).await?;
        let settings = self.settings.clone();
        let result = self
            .call(Phase::Validate, deadline, |instance, store| {
                Box::pin(async move { instance.validate(store, &settings).await })
            })
            .await;
        self.live = None;
        result
    }

    /// A fresh instance in a fresh store.
    async fn start(&mut self, phase: Phase, deadline: Deadline) -> Result<(), HookFailure> {
        let clock = PhaseClock::new(phase, deadline);
        let state = HostState::new(
            Arc::clone(&self.identity),
            Arc::clone(&self.powers),
            self.run.clone(),
            clock,
        );
        let cpu = state.cpu.clone();
        let mut store = new_store(self.engine.engine(), state);
        match bounded(clock, cpu, self.ready.instantiate(&mut store)).await {
            Ok(instance) => {
                self.live = Some(Live { store, instance });
                Ok(())
            }
            Err(stopped) => Err(self.failure(phase, stopped)),
        }
    }

    /// One call into the instance. If this is dropped half-way, the instance goes with it.
    async fn call<T, F>(
        &mut self,
        phase: Phase,
        deadline: Deadline,
        call: F,
    ) -> Result<T, HookFailure>
    where
        F: for<'a> FnOnce(&'a Instance, &'a mut Store<HostState>) -> Boxed<'a, Called<T>>,
    {
        let Some(mut live) = self.live.take() else {
            return Err(self.failure(phase, instance_gone()));
        };
        let clock = PhaseClock::new(phase, deadline);
        live.store.data_mut().enter(clock);
        let cpu = live.store.data().cpu.clone();
        match bounded(clock, cpu, call(&live.instance, &mut live.store)).await {
            Ok(Ok(value)) => {
                self.live = Some(live);
                Ok(value)
            }
            Ok(Err(failed)) => {
                let hint = live.store.data_mut().take_hint();
                self.live = Some(live);
                let message = self.located(&failed);
                let kind = failed.kind;
                Err(self.failure(phase, Stopped { kind, message, hint }))
            }
            Err(stopped) => {
                drop(live);
                // Who is not dead yet is looked at again, and told, by `finish`.
                let _ = self.close_all().await;
                Err(self.failure(phase, stopped))
            }
        }
    }

    fn close_all(&self) -> impl Future<Output = Unfinished> + Send + use<> {
        let (run, identity) = (self.run.clone(), Arc::clone(&self.identity));
        async move {
            let (closed, unfinished) = tokio::join!(
                run.sessions.close_hook(&identity.name, CLOSING),
                run.programs.end_hook(&identity.name, CLOSING),
            );
            if closed.unfinished > 0 {
                tracing::warn!(
                    hook = identity.name,
                    sessions = closed.unfinished,
                    "sessions were told to close and have not said that they did"
                );
            }
            unfinished
        }
    }

    fn failure(&self, phase: Phase, stopped: Stopped) -> HookFailure {
        HookFailure {
            hook: self.identity.name.clone(),
            version: Some(self.identity.version.clone()),
            phase,
            kind: stopped.kind,
            message: clean(&stopped.message, LONGEST_MESSAGE),
            hint: stopped.hint.or_else(|| self.hint_for(stopped.kind)),
        }
    }

    /// What the guest said, behind the place of the setting that it is about.
    fn located(&self, failed: &Failed) -> String {
        let Failed { message, setting: Some(pointer), .. } = failed else {
            return failed.message.clone();
        };
        match self.identity.settings_at.nearest(pointer) {
            Some(location) => format!("{location}: setting {pointer}: {message}"),
            None => format!("settings{pointer}: {message}"),
        }
    }

    fn hint_for(&self, kind: HookFailureKind) -> Option<String> {
        let file = self.identity.grant_file.display();
        match kind {
            HookFailureKind::InvalidSettings => Some(format!("correct [settings] in {file}")),
            HookFailureKind::Denied => Some(format!("see what {file} grants")),
            HookFailureKind::Trapped => {
                Some("this is a fault of the hook: report it to its author".into())
            }
            _ => None,
        }
    }
}

#[async_trait]
impl Hook for WasmHook {
    fn name(&self) -> &str {
        &self.identity.name
    }

    fn version(&self) -> Option<&str> {
        Some(&self.identity.version)
    }

    fn digest(&self) -> Option<String> {
        Some(self.identity.digest.to_string())
    }

    fn provenance(&self) -> Provenance {
        self.identity.provenance.clone()
    }

    fn grant_file(&self) -> Option<&Path> {
        Some(&self.identity.grant_file)
    }

    async fn prepare(&mut self, deadline: Deadline) -> Result<Prepared, HookFailure> {
        self.start(Phase::Prepare, deadline).await?;
        let settings = self.settings.clone();
        let prepared = self
            .call(Phase::Prepare, deadline, |instance, store| {
                Box::pin(async move { instance.prepare(store, &settings).await })
            })
            .await?;
        checked_plan(prepared).map_err(|why| self.failure(Phase::Prepare, why))
    }

    async fn pre_freeze(&mut self, deadline: Deadline) -> Result<Quiesced, HookFailure> {
        let quiesced = self
            .call(Phase::PreFreeze, deadline, |instance, store| {
                Box::pin(instance.pre_freeze(store))
            })
            .await?;
        let metadata = checked_metadata(quiesced.metadata)
            .map_err(|why| self.failure(Phase::PreFreeze, why))?;
        Ok(Quiesced { metadata, ..quiesced })
    }

    async fn confirm(&mut self, deadline: Deadline) -> Result<(), HookFailure> {
        self.call(Phase::Confirm, deadline, |instance, store| Box::pin(instance.confirm(store)))
            .await
    }

    async fn post_thaw(
        &mut self,
        outcome: Outcome,
        deadline: Deadline,
    ) -> Result<Vec<MetadataEntry>, HookFailure> {
        let metadata = self
            .call(Phase::PostThaw, deadline, move |instance, store| {
                Box::pin(instance.post_thaw(store, outcome))
            })
            .await?;
        checked_metadata(metadata).map_err(|why| self.failure(Phase::PostThaw, why))
    }

    async fn finish(&mut self, deadline: Deadline) -> Result<(), HookFailure> {
        let started = match self.live {
            Some(_) => Ok(()),
            None => self.start(Phase::Finish, deadline).await,
        };
        let result = match started {
            Ok(()) => {
                self.call(Phase::Finish, deadline, |instance, store| {
                    Box::pin(instance.finish(store))
                })
                .await
            }
            Err(failure) => Err(failure),
        };
        self.live = None;
        for program in self.close_all().await.programs {
            tracing::warn!(
                hook = self.identity.name,
                program,
                "was killed, and is not dead yet: it dies when what it waits for goes on, such as a frozen file system"
            );
        }
        result
    }
}

impl Drop for WasmHook {
    /// The instance's own sessions and programs end with it; this is for those that it lost track of.
    fn drop(&mut self) {
        self.run.sessions.tell_hook(&self.identity.name);
        self.run.programs.kill_hook(&self.identity.name);
    }
}

impl fmt::Debug for WasmHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WasmHook")
            .field("identity", &self.identity)
            .field("instance", &self.live.is_some())
            .finish_non_exhaustive()
    }
}

/// Asks a component what it is, on an instance with no powers at all.
pub(super) async fn describe(
    engine: &HookEngine,
    ready: &Ready,
    deadline: Deadline,
) -> Result<Description, (String, Option<String>)> {
    let identity = Arc::new(Identity::unknown());
    let powers = Arc::new(Powers::none(Limits::default()));
    let run = RunContext::new("", true, super::cancel::CancelToken::never());
    let clock = PhaseClock::new(Phase::Describe, deadline);
    let state = HostState::new(identity, powers, run, clock);
    let cpu = state.cpu.clone();
    let mut store = new_store(engine.engine(), state);
    let described = async {
        let instance = ready.instantiate(&mut store).await?;
        instance.describe(&mut store).await
    };
    let description = bounded(clock, cpu, described)
        .await
        .map_err(|stopped| (clean(&stopped.message, LONGEST_MESSAGE), stopped.hint))?;
    description.checked().map_err(|why| (clean(&visible(&why), LONGEST_MESSAGE), None))
}

fn new_store(engine: &Engine, state: HostState) -> Store<HostState> {
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.memory);
    store.set_hostcall_fuel(HOST_CALL_BYTES);
    store.set_epoch_deadline(1);
    // Every tick: the guest goes on, after others had the thread, or it is past one of its times.
    store.epoch_deadline_callback(|store| {
        store.data().check_cpu_time()?;
        Ok(match store.data().clock.interrupt.has_passed() {
            true => UpdateDeadline::Interrupt,
            false => UpdateDeadline::Yield(1),
        })
    });
    store
}

/// A call that comes back, whatever the guest does.
async fn bounded<T>(
    clock: PhaseClock,
    cpu: CpuMeter,
    call: impl Future<Output = wasmtime::Result<T>>,
) -> Result<T, Stopped> {
    let backstop = Deadline::after(clock.interrupt.remaining() + BACKSTOP);
    match timeout_at(backstop.instant().into(), cpu.metered(call)).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(stopped_by(&error)),
        Err(_) => Err(out_of_time("it did not come back by its deadline")),
    }
}

fn stopped_by(error: &wasmtime::Error) -> Stopped {
    if let Some(limit) = error.downcast_ref::<LimitReached>() {
        return at_its_limit(limit.to_string(), limit.hint());
    }
    if let Some(trap) = error.downcast_ref::<Trap>() {
        return match trap {
            Trap::Interrupt => out_of_time("it was still computing at its deadline"),
            trap => trapped(format!("it trapped: {trap}")),
        };
    }
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        return trapped(format!("it ended itself by exit({})", exit.0));
    }
    if let Some(exceeded) = error.downcast_ref::<Exceeded>() {
        return at_its_limit(
            exceeded.to_string(),
            "raise `memory-bytes` under [limits] in its grant file, or report it to the hook's author"
                .into(),
        );
    }
    trapped(format!("it was stopped: {}", error.root_cause()))
}

fn trapped(message: String) -> Stopped {
    Stopped { kind: HookFailureKind::Trapped, message, hint: None }
}

fn at_its_limit(what: String, hint: String) -> Stopped {
    Stopped {
        kind: HookFailureKind::Limit,
        message: format!("{what}; {STOPPED}"),
        hint: Some(hint),
    }
}

fn out_of_time(what: &str) -> Stopped {
    Stopped {
        kind: HookFailureKind::Timeout,
        message: format!("{what}; {STOPPED}"),
        hint: Some(
            "give this phase more time in stillpoint.toml, or report it to the hook's author"
                .into(),
        ),
    }
}

fn instance_gone() -> Stopped {
    Stopped {
        kind: HookFailureKind::InstanceGone,
        message: "its instance is gone since an earlier phase, and its sessions are closed".into(),
        hint: None,
    }
}

fn wrong(message: String) -> Stopped {
    Stopped { kind: HookFailureKind::Internal, message, hint: None }
}

fn checked_plan(plan: Prepared) -> Result<Prepared, Stopped> {
    if plan.paths.len() > MOST_PATHS {
        return Err(wrong(format!(
            "it named {} paths; {MOST_PATHS} are the most",
            plan.paths.len()
        )));
    }
    for path in &plan.paths {
        let text = path.to_string_lossy();
        let problem = if text.len() > LONGEST_PATH {
            "which is too long for a path"
        } else if text.chars().any(is_hidden) {
            "which has hidden characters"
        } else if !path.is_absolute() {
            "which is not an absolute path"
        } else {
            continue;
        };
        let shown = clean(&visible(&text), 200);
        return Err(wrong(format!("it named `{shown}`, {problem}")));
    }
    Ok(Prepared { summary: clean(&plan.summary, 200), ..plan })
}

fn checked_metadata(entries: Vec<MetadataEntry>) -> Result<Vec<MetadataEntry>, Stopped> {
    if entries.len() > MOST_METADATA_ENTRIES {
        return Err(wrong(format!(
            "it saved {} metadata entries; {MOST_METADATA_ENTRIES} are the most",
            entries.len()
        )));
    }
    entries.into_iter().map(checked_entry).collect()
}

/// Values are for machines that restore: kept whole or refused, never cut. They are also shown, so what
/// could steer a terminal is refused; lines and tabs (of GTID sets) are not.
fn checked_entry(entry: MetadataEntry) -> Result<MetadataEntry, Stopped> {
    let key = clean(&entry.key, 100);
    let text = match &entry.value {
        MetadataValue::Text(text) | MetadataValue::Bytes(text) => text.as_str(),
        MetadataValue::Integer(_) | MetadataValue::Boolean(_) => "",
    };
    if key != entry.key || key.is_empty() || text.len() > LONGEST_METADATA_VALUE {
        return Err(wrong(format!(
            "metadata `{key}`: a key has 1 to 100 visible characters, a value at most {LONGEST_METADATA_VALUE} bytes"
        )));
    }
    if text.chars().any(|c| is_hidden(c) && !"\n\r\t".contains(c)) {
        return Err(wrong(format!(
            "metadata `{key}` has hidden characters; a value that is not text is saved as bytes"
        )));
    }
    Ok(entry)
}
