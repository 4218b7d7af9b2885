//! Why a snapshot could not be verified: nothing is said about the snapshot then.

use std::io;
use std::time::Duration;

use crate::exit_code::ExitCode;
use crate::plan::PlanError;
use crate::provider::ProviderError;

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The provider cannot list, attach or keep.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// There is no such group.
    #[error("there is no snapshot {0}")]
    Unknown(String),
    /// The run that made it did not end well.
    #[error("snapshot {group} cannot be verified: {why}")]
    Unusable {
        /// Which.
        group: String,
        /// Why.
        why: String,
    },
    /// This machine's mounts cannot be read.
    #[error("cannot tell what is mounted here")]
    Inventory(#[from] PlanError),
    /// This program's main does not call `guard::enter()`.
    #[error(
        "the sandbox is a process of its own, and this program's main does not call guard::enter()"
    )]
    NotEntered,
    /// The sandbox's process does not start.
    #[error("the sandbox cannot be started")]
    Start(#[source] io::Error),
    /// The sandbox could not be made, or something in it failed that says nothing about the snapshot.
    #[error("{what}")]
    Sandbox {
        /// What failed.
        what: String,
        /// What to do.
        hint: Option<String>,
    },
    /// It took too long.
    #[error("the verification took longer than {} s, and was ended while it was busy with {during}", limit.as_secs())]
    TooLate {
        /// What it may take.
        limit: Duration,
        /// What it did at the end.
        during: String,
    },
    /// Somebody wanted it to stop.
    #[error("the verification was stopped by a signal")]
    Stopped,
    /// There is no verdict, and what was attached for one could not be given back.
    #[error("{left}; they were attached for a verification that failed")]
    LeftBehind {
        /// What is left, and why.
        left: ProviderError,
        /// Why there is no verdict.
        #[source]
        source: Box<VerifyError>,
    },
    /// The sandbox's process died.
    #[error("the sandbox ended without an answer while it was busy with {during}")]
    Died {
        /// What it did last.
        during: String,
    },
    /// A hook quiesced a database, and none is in the copy.
    #[error("hook {hook} quiesced a database, and none that can be started is in the copy")]
    NoDatabase {
        /// Which hook.
        hook: String,
    },
}

impl VerifyError {
    /// What the command ends with.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            VerifyError::Provider(error) => error.exit_code,
            VerifyError::Unknown(_) => ExitCode::Parameters,
            VerifyError::Unusable { .. } => ExitCode::SnapshotState,
            VerifyError::TooLate { .. } => ExitCode::GroupTimedOut,
            VerifyError::Inventory(error) => error.exit_code(),
            VerifyError::NotEntered
            | VerifyError::Start(_)
            | VerifyError::Sandbox { .. }
            | VerifyError::NoDatabase { .. } => ExitCode::Precondition,
            VerifyError::LeftBehind { source, .. } => source.exit_code(),
            VerifyError::Died { .. } | VerifyError::Stopped => ExitCode::Unknown,
        }
    }

    /// What the operator can do next.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            VerifyError::Provider(error) | VerifyError::LeftBehind { left: error, .. } => {
                error.hint.clone()
            }
            VerifyError::Unknown(_) => Some("`stillpoint list` shows those there are".into()),
            VerifyError::Unusable { group, .. } => {
                Some(format!("do not use it; `stillpoint delete {group}` removes it"))
            }
            VerifyError::TooLate { .. } => Some("give it more time: --deadline 30m".into()),
            VerifyError::Sandbox { hint, .. } => hint.clone(),
            VerifyError::Inventory(error) => error.hint(),
            VerifyError::NotEntered => Some("call stillpoint::guard::enter() first in main".into()),
            VerifyError::Start(_) | VerifyError::Stopped => None,
            VerifyError::Died { .. } => Some(
                "was it killed for want of memory? `dmesg` says so; --memory gives it more".into(),
            ),
            VerifyError::NoDatabase { .. } => Some(
                "name it in stillpoint.toml: [[verify.database]] with engine and directory, as in \
                 docs/verify.md"
                    .into(),
            ),
        }
    }
}
