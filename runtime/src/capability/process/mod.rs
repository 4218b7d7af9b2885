//! Programs that the operator granted: a file that is held open from the time the hook is loaded,
//! exact arguments, whole texts on standard input. No shell reads any of it.
//!
//! | | |
//! |---|---|
//! | may be | an ELF file of root's that nobody else may write, with no set-user-ID bit, below directories of the same kind, reached through no link; with the granted digest, if one is granted |
//! | is asked for | by the hook's `describe` and by the operator's file: command, arguments and text, checked at each call ([`power`]) |
//! | runs as | the granted user and groups, without capabilities, with `no_new_privs`; even root has none |
//! | sees | `PATH` and the granted variables, `/` as its directory, three pipes, its own session |
//! | may write | where the grant says (landlock); and none of the system calls that change the machine (seccomp) |
//! | is bounded by | its own cgroup: processes, memory, CPU; where there is no controller, resource limits |
//! | ends | when it ends, at its deadline, when the run is stopped, with its hook, with the agent: each time with everything that it started |
//!
//! What is not defended against is in ADR 8.

mod arguments;
pub(crate) mod confine;
mod denial;
mod file;
mod power;
mod recover;
mod registry;
mod run;
mod section;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout_at;

use crate::capability::sql::clamp;
use crate::capability::stage::Stage;
use crate::capability::{Denial, Powers};
use crate::cgroup::Survivor;
use crate::config::grants::ProgramGrant;
use crate::config::read::{ConfigError, Location};
use crate::hook::{CancelToken, Phase};
use crate::time::Deadline;

pub use arguments::Arguments;
pub use registry::{ProgramRegistry, Unfinished};
pub use section::{FoundProgram, ProgramAsk, find_program, grant_section};

use confine::Confinement;
use file::ProgramFile;
pub(crate) use power::ProgramPower;
pub(crate) use recover::{end_remains, kill_remains};
use run::{End, Order};

/// Programs of one hook that were killed and are not dead: beyond this, none is started. Each is a
/// process that a frozen file system holds.
const MOST_UNFINISHED: usize = 4;

/// A program as it was granted, with its file, looked at once.
#[derive(Debug)]
pub(crate) struct GrantedProgram {
    pub(crate) grant: ProgramGrant,
    /// `None` if there is no such file.
    pub(crate) file: Option<ProgramFile>,
    pub(crate) confinement: Confinement,
}

/// What a hook asks to be run.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) command: String,
    pub(crate) arguments: Vec<String>,
    pub(crate) stdin: Vec<u8>,
    pub(crate) timeout: Option<Duration>,
}

/// What a program gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// How it ended, if it did so by itself.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The first bytes of its standard output.
    pub stdout: Vec<u8>,
    /// The first bytes of its standard error.
    pub stderr: Vec<u8>,
    /// One of the two was longer.
    pub truncated: bool,
}

/// Why a program gave no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProcessError {
    /// Not granted.
    #[error("{0}")]
    Denied(String),
    /// Granted, and not there.
    #[error("{0}")]
    NotFound(String),
    /// Killed at its deadline.
    #[error("it did not end in time")]
    Timeout(Output),
    /// It could not be started.
    #[error("{0}")]
    Failed(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// Process ids and states. No names: the kernel's is that of a descriptor, and asking a process that
/// is blocked for its command line can block as well.
fn in_words(survivors: &[Survivor]) -> String {
    let each = |survivor: &Survivor| format!("{} (state {})", survivor.pid, survivor.state);
    survivors.iter().map(each).collect::<Vec<_>>().join(", ")
}

/// A call was refused or failed: what the guest is told, and what only the operator is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) error: ProcessError,
    pub(crate) hint: Option<String>,
}

impl From<Denial> for Refusal {
    fn from(Denial { message, hint }: Denial) -> Self {
        Self { error: ProcessError::Denied(message), hint: Some(hint) }
    }
}

impl From<ProcessError> for Refusal {
    fn from(error: ProcessError) -> Self {
        Self { error, hint: None }
    }
}

impl GrantedProgram {
    /// Looks at the file, and holds it. One that is not there is told when it is called.
    ///
    /// # Errors
    /// If the file breaks a rule, or what the program may write to is not there: with the place in
    /// the grant file.
    pub(crate) fn open(grant: &ProgramGrant) -> Result<Self, ConfigError> {
        let unfit = |unfit: file::Unfit| {
            let hint = unfit.hint(&grant.path);
            invalid(&grant.path_at, with_causes(&grant.path.display().to_string(), &unfit), hint)
        };
        let file = ProgramFile::open(&grant.path).map_err(unfit)?;
        if let (Some(file), Some(digest)) = (&file, &grant.digest) {
            file.check_digest(digest).map_err(unfit)?;
        }
        let confinement = Confinement::new(&grant.writable).map_err(|error| {
            let hint = "name a file or directory that is there, by a path without links";
            invalid(&grant.writable_at, error.to_string(), hint.to_owned())
        })?;
        if confinement.landlock().is_none() {
            tracing::warn!(
                program = %grant.path.display(),
                "this kernel has no landlock: what the program may write is what its user may"
            );
        }
        Ok(Self { grant: grant.clone(), file, confinement })
    }
}

fn invalid(location: &Location, message: String, hint: String) -> ConfigError {
    ConfigError::Invalid { location: location.clone(), message, hint: Some(hint) }
}

fn with_causes(subject: &str, error: &dyn std::error::Error) -> String {
    let mut text = format!("{subject} {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// One hook's way to programs, in one instance.
#[derive(Debug)]
pub(crate) struct ProcessHost {
    hook: String,
    powers: Arc<Powers>,
    registry: ProgramRegistry,
    /// What stands between this hook and its programs in a test.
    stage: Option<Arc<dyn Stage>>,
}

impl ProcessHost {
    pub(crate) fn new(
        hook: String,
        powers: Arc<Powers>,
        registry: ProgramRegistry,
        stage: Option<Arc<dyn Stage>>,
    ) -> Self {
        Self { hook, powers, registry, stage }
    }

    /// Runs a program that both sides agree on, to its end or to the deadline, whichever is first.
    pub(crate) async fn run(
        &self,
        call: Call,
        (phase, deadline): (Phase, Deadline),
        cancel: &CancelToken,
    ) -> Result<Output, Refusal> {
        let program = self.powers.program(&call.command, &call.arguments, &call.stdin)?;
        let program = Arc::clone(program);
        let Some(stage) = &self.stage else {
            return self.run_granted(program, call, (phase, deadline), cancel).await;
        };
        let seen = call.clone();
        let real = Box::pin(self.run_granted(program, call, (phase, deadline), cancel));
        match timeout_at(deadline.instant().into(), stage.program(&seen, real)).await {
            Ok(ran) => ran,
            Err(_) => Err(ProcessError::Timeout(Output::default()).into()),
        }
    }

    async fn run_granted(
        &self,
        program: Arc<GrantedProgram>,
        call: Call,
        (phase, deadline): (Phase, Deadline),
        cancel: &CancelToken,
    ) -> Result<Output, Refusal> {
        self.check_startable(&program)?;
        let longest = Duration::from_secs(program.grant.limits.seconds);
        let until = clamp(call.timeout, deadline).min(Deadline::after(longest));
        if until.has_passed() {
            return Err(ProcessError::Timeout(Output::default()).into());
        }
        let path = program.grant.path.clone();
        let order = Order { program, arguments: call.arguments, stdin: call.stdin };
        let registered = self.registry.register(&self.hook, &call.command);
        let stop = stopped(phase, cancel.clone());
        let ended = run::run(order, registered, until, deadline, stop).await.map_err(|error| {
            ProcessError::Failed(format!("{} could not be started: {error}", path.display()))
        })?;
        let output = |(exit_code, signal)| Output {
            exit_code,
            signal,
            stdout: ended.stdout,
            stderr: ended.stderr,
            truncated: ended.truncated,
        };
        match ended.end {
            End::ByItself(status) => Ok(output(run::code_and_signal(status))),
            End::TimedOut => Err(ProcessError::Timeout(output((None, None))).into()),
            End::Stopped => Err(ProcessError::Other(format!(
                "the run was asked to stop, and {} was killed with all that it had started",
                path.display()
            ))
            .into()),
        }
    }

    fn check_startable(&self, program: &GrantedProgram) -> Result<(), Refusal> {
        let path = program.grant.path.display();
        let Some(file) = &program.file else {
            return Err(Refusal {
                error: ProcessError::NotFound(format!("there is no {path}")),
                hint: Some(format!("install it, or correct `path` at {}", program.grant.path_at)),
            });
        };
        if !file.is_as_checked() {
            return Err(Refusal {
                error: ProcessError::Failed(format!("{path} was changed after it was checked")),
                hint: Some("run again: it is checked anew".to_owned()),
            });
        }
        if self.registry.running(&self.hook) >= MOST_UNFINISHED {
            return Err(Refusal {
                error: ProcessError::Failed(format!(
                    "{MOST_UNFINISHED} programs of this hook were killed and are not dead yet"
                )),
                hint: Some(
                    "see what they wait for (ps -eo pid,stat,wchan:32,args): most often a frozen file system"
                        .to_owned(),
                ),
            });
        }
        Ok(())
    }
}

/// Before the freeze, a run that is asked to stop waits for no program. One that was started after
/// that undoes something, and runs to its end; so does everything after the freeze.
async fn stopped(phase: Phase, cancel: CancelToken) {
    let is_undoing = cancel.is_cancelled();
    if is_undoing || !matches!(phase, Phase::Prepare | Phase::PreFreeze) {
        return std::future::pending().await;
    }
    cancel.cancelled().await;
}

#[cfg(test)]
mod tests;
