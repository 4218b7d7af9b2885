//! A run that failed: why, what could not be undone, and the state the machine is in.

use std::fmt;
use std::path::PathBuf;

use crate::consistency::{Level, Reason};
use crate::exit_code::ExitCode;
use crate::freeze::RecoverError;
use crate::guard::{Break, GuardError};
use crate::hook::{HookFailure, HookFailureKind, Phase};
use crate::journal::JournalError;
use crate::manifest::{FileSystemRecord, StepRecord};
use crate::plan::PlanError;
use crate::provider::ProviderError;

use super::events::Step;

/// A run failed, and everything that it had done is undone, or named in its state.
#[derive(Debug, thiserror::Error)]
#[error("{during}")]
pub struct Failure {
    /// In which step.
    pub during: Step,
    /// Why.
    #[source]
    pub cause: Cause,
    /// The state the machine is in now.
    pub state: MachineState,
    /// Every step with its times.
    pub steps: Vec<StepRecord>,
    /// What happened that the operator should know.
    pub warnings: Vec<String>,
    /// What kept the run from a higher level until then.
    pub reasons: Vec<Reason>,
    /// What was frozen, and thawed again.
    pub file_systems: Vec<FileSystemRecord>,
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// Another run is in progress, or the journal cannot be kept.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// What an earlier run left behind could not be cleaned up.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// What is asked for cannot be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The provider failed.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// A hook failed.
    #[error(transparent)]
    Hook(#[from] HookFailure),
    /// A file system could not be frozen or thawed, or guard or sentinel failed.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// The freeze ended without being asked, before the point in time was fixed.
    #[error("{}", broken_text(*broken, *window))]
    Broken {
        /// Why it ended.
        broken: Break,
        /// How long it could have lasted.
        window: std::time::Duration,
    },
    /// A hook's data is not in the snapshot.
    #[error("hook {hook} needs {} in the snapshot: {why}", path.display())]
    DataNotInSnapshot {
        /// Which hook.
        hook: String,
        /// Which path.
        path: PathBuf,
        /// Where it is instead.
        why: String,
    },
    /// Hooks name each other in a circle, or one that is not there.
    #[error("{0}")]
    HookOrder(String),
    /// The level that was asked for is not reached.
    #[error("level {required} is required, but this run reaches only {level}: {}", join(reasons))]
    LevelNotReached {
        /// What was asked for.
        required: Level,
        /// What is reached.
        level: Level,
        /// Why not more.
        reasons: Vec<Reason>,
    },
    /// The operator, or a signal, asked to stop.
    #[error("stopped by request")]
    Cancelled,
}

fn join(reasons: &[Reason]) -> String {
    reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn broken_text(broken: Break, window: std::time::Duration) -> String {
    match broken {
        Break::DeadlinePassed => format!(
            "the window of {window:?} passed before the provider had fixed the point in time; the guard has thawed"
        ),
        Break::GuardLost => "the guard process was lost while file systems were frozen".into(),
        Break::SentinelLost => {
            "the sentinel process was lost while file systems were frozen".into()
        }
    }
}

impl Cause {
    /// The exit code that this leads to, if it happens in `during`.
    #[must_use]
    pub fn exit_code(&self, during: Step) -> ExitCode {
        match self {
            Cause::Journal(error) => error.exit_code(),
            Cause::Recover(_) => ExitCode::CannotThaw,
            Cause::Plan(error) => error.exit_code(),
            Cause::Provider(error) => error.exit_code,
            Cause::Hook(failure) if failure.phase >= Phase::Confirm => ExitCode::PostThaw,
            Cause::Hook(_) => ExitCode::PreFreeze,
            Cause::Guard(_) if during == Step::Thaw => ExitCode::CannotThaw,
            Cause::Guard(error) => error.exit_code(),
            Cause::Broken { broken: Break::DeadlinePassed, .. } => ExitCode::GroupTimedOut,
            Cause::Broken { .. } => ExitCode::CannotFreeze,
            Cause::DataNotInSnapshot { .. } | Cause::LevelNotReached { .. } => {
                ExitCode::Precondition
            }
            Cause::HookOrder(_) => ExitCode::Parameters,
            Cause::Cancelled => ExitCode::Unknown,
        }
    }

    /// What the operator can do next.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Cause::Journal(error) => error.hint(),
            Cause::Plan(error) => error.hint(),
            Cause::Provider(error) => error.hint.clone(),
            Cause::Hook(failure) => failure.hint.clone().or_else(|| hook_hint(failure)),
            Cause::Guard(error) => error.hint(),
            Cause::Recover(error) => error.hint(),
            Cause::Broken { broken: Break::DeadlinePassed, .. } => Some(
                "the provider was slower than [deadlines] freeze in stillpoint.toml (at most 30s)".into(),
            ),
            Cause::Broken { .. } => Some(
                "who killed it? `dmesg` shows the out-of-memory killer; a new run starts new guards".into(),
            ),
            Cause::DataNotInSnapshot { .. } => Some(
                "add its mount point to [snapshot] mounts in stillpoint.toml, or to --mount; `stillpoint plan` shows what is covered"
                    .into(),
            ),
            Cause::LevelNotReached { .. } => Some(
                "`stillpoint plan` says what keeps a run from a level; without --require the snapshot is made at the level reached"
                    .into(),
            ),
            Cause::HookOrder(_) | Cause::Cancelled => None,
        }
    }
}

fn hook_hint(failure: &HookFailure) -> Option<String> {
    match failure.kind {
        HookFailureKind::Busy => Some("try again when the application is less busy".into()),
        HookFailureKind::Timeout if failure.phase == Phase::PreFreeze => Some(
            "raise [deadlines] quiesce in stillpoint.toml, or find what holds the application"
                .into(),
        ),
        HookFailureKind::NotApplicable => Some(format!(
            "if the application need not run, set on-failure = \"skip\" in hooks.d/{}.toml",
            failure.hook
        )),
        HookFailureKind::InvalidSettings => {
            Some(format!("correct [settings] in hooks.d/{}.toml", failure.hook))
        }
        _ => None,
    }
}

impl Failure {
    /// The exit code that this leads to. What is not thawed weighs more than anything else.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        if self.state.maybe_frozen.is_empty() {
            self.cause.exit_code(self.during)
        } else {
            ExitCode::CannotThaw
        }
    }

    /// What the operator can do next.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        if !self.state.maybe_frozen.is_empty() {
            return Some("run `stillpoint thaw` now, then `stillpoint status`".into());
        }
        if self.state.not_released.is_empty() {
            return self.cause.hint();
        }
        let recover = "`stillpoint recover`, or the next run, undoes what a hook could not";
        Some(self.cause.hint().map_or_else(|| recover.into(), |hint| format!("{hint}; {recover}")))
    }
}

/// The state the machine is in after a run, said in every outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineState {
    /// File systems of ours that are not known to be thawed. Empty: all run.
    pub maybe_frozen: Vec<PathBuf>,
    /// How many hooks were asked to quiesce and are released.
    pub released: usize,
    /// Hooks whose release failed, in words.
    pub not_released: Vec<String>,
    /// What became of the snapshot.
    pub snapshot: SnapshotState,
}

/// What became of the snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SnapshotState {
    /// None was made.
    #[default]
    None,
    /// It is there.
    Kept(String),
    /// It was made, and removed again.
    Discarded,
    /// It was made, must not be used, and could not be removed.
    NotDiscarded(String),
}

impl fmt::Display for MachineState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.maybe_frozen.is_empty() {
            f.write_str("file systems running")?;
        } else {
            let mounts: Vec<_> =
                self.maybe_frozen.iter().map(|m| m.display().to_string()).collect();
            write!(f, "MAY STILL BE FROZEN: {}", mounts.join(", "))?;
        }
        match self.released {
            0 if self.not_released.is_empty() => f.write_str(", no application was locked")?,
            1 => f.write_str(", 1 hook released")?,
            n => write!(f, ", {n} hooks released")?,
        }
        if !self.not_released.is_empty() {
            write!(f, ", release reported trouble: {}", self.not_released.join("; "))?;
        }
        match &self.snapshot {
            SnapshotState::None => f.write_str(", no snapshot made"),
            SnapshotState::Kept(id) => write!(f, ", snapshot {id} kept"),
            SnapshotState::Discarded => f.write_str(", the unusable snapshot was removed"),
            SnapshotState::NotDiscarded(why) => {
                write!(f, ", AN UNUSABLE SNAPSHOT IS LEFT: {why}")
            }
        }
    }
}
