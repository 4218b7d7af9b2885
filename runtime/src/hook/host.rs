//! What one instance sees of the host: its clock, its run, its powers. The same for every version of
//! the contract; each version's file translates into the calls here.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::ResourceTable;

use super::cancel::CancelToken;
use super::limiter::Limiter;
use super::logs::{HookLogs, LogLevel, LogLine};
use super::{Identity, Phase};
use crate::capability::process::{Call, Output, ProcessError, ProcessHost, ProgramRegistry};
use crate::capability::registry::SessionRegistry;
use crate::capability::sql::{Refusal, SqlHost};
use crate::capability::{Denial, Powers};
use crate::time::Deadline;

/// A guest that was told `timeout` by a host call has this long to unwind by itself.
const UNWIND: Duration = Duration::from_millis(200);

/// Resources beyond the sessions that a guest may hold at once.
const SPARE_RESOURCES: usize = 16;

/// This run, as its hooks know it.
#[derive(Clone, Debug)]
pub struct RunContext {
    /// The run's id.
    pub run_id: String,
    /// Nothing is snapshotted in this run.
    pub dry_run: bool,
    /// Asks hooks to unwind.
    pub cancel: CancelToken,
    /// Every session that hooks open.
    pub sessions: SessionRegistry,
    /// Every program that hooks run.
    pub programs: ProgramRegistry,
    /// Everything that hooks log.
    pub logs: HookLogs,
}

impl RunContext {
    /// A run with a registry and a log of its own.
    #[must_use]
    pub fn new(run_id: impl Into<String>, dry_run: bool, cancel: CancelToken) -> Self {
        Self {
            run_id: run_id.into(),
            dry_run,
            cancel,
            sessions: SessionRegistry::default(),
            programs: ProgramRegistry::default(),
            logs: HookLogs::default(),
        }
    }
}

/// An import was called where none may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it called `{0}` in `describe`, where no import may be called")]
pub(crate) struct CalledInDescribe(&'static str);

/// The phase that the guest is in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PhaseClock {
    pub(crate) phase: Phase,
    /// Host calls end by then.
    pub(crate) deadline: Deadline,
    /// The guest is interrupted then.
    pub(crate) interrupt: Deadline,
}

impl PhaseClock {
    pub(crate) fn new(phase: Phase, deadline: Deadline) -> Self {
        let interrupt = Deadline::after(deadline.remaining() + UNWIND);
        Self { phase, deadline, interrupt }
    }
}

/// The data of one instance's store.
pub(crate) struct HostState {
    pub(crate) memory: Limiter,
    pub(crate) resources: ResourceTable,
    pub(crate) clock: PhaseClock,
    pub(crate) identity: Arc<Identity>,
    pub(crate) run: RunContext,
    pub(crate) sql: SqlHost,
    process: ProcessHost,
    log_bytes: usize,
    /// What only the operator is told about the last refusal in this phase.
    hint: Option<String>,
}

impl HostState {
    pub(crate) fn new(
        identity: Arc<Identity>,
        powers: Arc<Powers>,
        run: RunContext,
        clock: PhaseClock,
    ) -> Self {
        let limits = powers.limits;
        let memory = Limiter::new(limits.memory_bytes);
        let mut resources = ResourceTable::new();
        resources.set_max_capacity(limits.connections + SPARE_RESOURCES);
        let name = identity.name.clone();
        let sql = SqlHost::new(name.clone(), Arc::clone(&powers), run.sessions.clone());
        let process = ProcessHost::new(name, powers, run.programs.clone());
        Self {
            memory,
            resources,
            clock,
            identity,
            run,
            sql,
            process,
            log_bytes: limits.log_bytes,
            hint: None,
        }
    }

    /// Enters a phase.
    pub(crate) fn enter(&mut self, clock: PhaseClock) {
        self.clock = clock;
        self.hint = None;
    }

    /// Takes the operator's part of the last refusal.
    pub(crate) fn take_hint(&mut self) -> Option<String> {
        self.hint.take()
    }

    /// Keeps what is for the operator; gives what is for the guest.
    pub(crate) fn told(&mut self, refusal: Refusal) -> crate::capability::sql::SqlError {
        if refusal.hint.is_some() {
            self.hint = refusal.hint;
        }
        refusal.error
    }

    /// Keeps a hint for the operator.
    pub(crate) fn hint(&mut self, hint: &str) {
        self.hint = Some(hint.to_owned());
    }

    /// What a component says about itself must be the same for every call and every machine.
    pub(crate) fn check_import(&self, import: &'static str) -> wasmtime::Result<()> {
        match self.clock.phase {
            Phase::Describe => Err(CalledInDescribe(import).into()),
            _ => Ok(()),
        }
    }

    /// Runs a program, if hook and operator agree on it.
    pub(crate) async fn run_program(&mut self, call: Call) -> Result<Output, ProcessError> {
        let clock = (self.clock.phase, self.clock.deadline);
        let ran = match self.check_phase("no program may run") {
            Ok(()) => self.process.run(call, clock, &self.run.cancel).await,
            Err(denial) => Err(denial.into()),
        };
        ran.map_err(|refusal| {
            if refusal.hint.is_some() {
                self.hint = refusal.hint;
            }
            refusal.error
        })
    }

    /// No target may be contacted, and nothing changed, while a hook only describes itself or checks
    /// its settings.
    pub(crate) fn check_phase(&self, rule: &str) -> Result<(), Denial> {
        match self.clock.phase {
            phase @ (Phase::Describe | Phase::Validate) => Err(Denial {
                message: format!("{rule} in {phase}"),
                hint: "the hook's author must move this to `prepare`".into(),
            }),
            _ => Ok(()),
        }
    }

    pub(crate) fn log(&self, level: LogLevel, message: String, fields: &[(String, String)]) {
        let line = LogLine {
            hook: self.identity.name.clone(),
            version: self.identity.version.clone(),
            phase: self.clock.phase,
            level,
            message,
        };
        self.run.logs.push(line, fields, self.log_bytes);
    }

    /// Waits, at most to the end of the phase; ends early if the run is asked to stop.
    pub(crate) fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send + use<> {
        let duration = duration.min(self.clock.deadline.remaining());
        let cancel = self.run.cancel.clone();
        async move {
            tokio::select! {
                () = tokio::time::sleep(duration) => {}
                () = cancel.cancelled() => {}
            }
        }
    }
}
