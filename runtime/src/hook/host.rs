//! What one instance sees of the host: its clock, its run, its powers. The same for every version of
//! the contract; each version's file translates into the calls here.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::ResourceTable;

use super::cancel::CancelToken;
use super::cpu::CpuMeter;
use super::limiter::Limiter;
use super::logs::{HookLogs, LogLevel, LogLine};
use super::wasi::WasiState;
use super::{Identity, Phase};
use crate::capability::kv::{KvHost, KvStates};
use crate::capability::process::{Call, Output, ProcessError, ProcessHost, ProgramRegistry};
use crate::capability::registry::SessionRegistry;
use crate::capability::sql::{Refusal, SqlHost};
use crate::capability::stage::Stage;
use crate::capability::{Denial, Powers};
use crate::config::grants::Limits;
use crate::time::Deadline;

/// A guest that was told `timeout` by a host call has this long to unwind by itself.
const UNWIND: Duration = Duration::from_millis(200);

/// Resources beyond the sessions that a guest may hold at once.
const SPARE_RESOURCES: usize = 16;

/// Streams and pollables of a guest with WASI, beyond those.
const WASI_RESOURCES: usize = 256;

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
    /// What hooks keep from run to run.
    pub kv: KvStates,
    /// Only in a test of a hook: what stands between it and its servers.
    pub(crate) stage: Option<Arc<dyn Stage>>,
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
            kv: KvStates::default(),
            stage: None,
        }
    }
}

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

/// A bound of the grant that stops the guest: no answer could tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LimitReached {
    /// See [`Limits::cpu_time`].
    #[error("it used more than {0:?} of processor time in one phase")]
    CpuTime(Duration),
    /// It called the host in `describe`.
    #[error("it called the host in `describe`, where no import may be called")]
    Describing,
    /// See [`Limits::calls`].
    #[error("it made more than {0} calls of the host in one phase")]
    Calls(usize),
}

impl LimitReached {
    /// What the operator can do next.
    pub(crate) fn hint(self) -> String {
        let key = match self {
            LimitReached::Describing => return "report it to the hook's author".into(),
            LimitReached::CpuTime(_) => "cpu-time",
            LimitReached::Calls(_) => "calls",
        };
        format!("raise `{key}` under [limits] in its grant file, or report it to the hook's author")
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
    pub(crate) kv: KvHost,
    pub(super) wasi: WasiState,
    pub(crate) cpu: CpuMeter,
    limits: Limits,
    calls_left: usize,
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
        let spare = SPARE_RESOURCES + if powers.wasi() { WASI_RESOURCES } else { 0 };
        resources.set_max_capacity(limits.connections + spare);
        let name = identity.name.clone();
        let (sessions, stage) = (run.sessions.clone(), run.stage.clone());
        let kv = KvHost::new(name.clone(), Arc::clone(&powers), run.kv.clone(), stage.clone());
        let sql = SqlHost::new(name.clone(), Arc::clone(&powers), sessions, stage.clone());
        let process = ProcessHost::new(name, powers, run.programs.clone(), stage);
        Self {
            memory,
            resources,
            clock,
            identity,
            run,
            sql,
            process,
            kv,
            wasi: WasiState::default(),
            cpu: CpuMeter::default(),
            limits,
            calls_left: limits.calls,
            hint: None,
        }
    }

    /// Enters a phase.
    pub(crate) fn enter(&mut self, clock: PhaseClock) {
        // Making the instance belongs to the phase that it was made for.
        if clock.phase != self.clock.phase {
            self.cpu.restart();
            self.calls_left = self.limits.calls;
        }
        self.wasi.enter(clock.phase);
        self.clock = clock;
        self.hint = None;
    }

    /// Counts a call of the host: every function of the contract begins with this. None may be called
    /// in `describe`: what a component says about itself is the same for every call and every machine.
    pub(crate) fn count_call(&mut self) -> Result<(), LimitReached> {
        if self.clock.phase == Phase::Describe {
            return Err(LimitReached::Describing);
        }
        let left = self.calls_left.checked_sub(1);
        self.calls_left = left.ok_or(LimitReached::Calls(self.limits.calls))?;
        Ok(())
    }

    /// True while the guest has processor time left in this phase.
    pub(crate) fn check_cpu_time(&self) -> Result<(), LimitReached> {
        let most = self.limits.cpu_time;
        if self.cpu.spent() <= most { Ok(()) } else { Err(LimitReached::CpuTime(most)) }
    }

    /// Bytes of log that are kept of this hook.
    pub(super) fn log_bytes(&self) -> usize {
        self.limits.log_bytes
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
    pub(crate) fn hint(&mut self, hint: String) {
        self.hint = Some(hint);
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
        self.run.logs.push(line, fields, self.limits.log_bytes);
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
