//! Why a test could not be made. Nothing has been touched.

use crate::config::read::ConfigError;
use crate::exit_code::ExitCode;
use crate::hook::{HookLoadError, StoreError};

/// Why a hook could not be tested; what the test found is no error, but its report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TestError {
    /// It is not a hook that this stillpoint can run.
    #[error(transparent)]
    Component(Box<StoreError>),
    /// The script, the grant or the connections.
    #[error(transparent)]
    Config(Box<ConfigError>),
    /// It cannot run with what it was given.
    #[error(transparent)]
    Load(Box<HookLoadError>),
    /// There is nothing to run it against.
    #[error("{what}")]
    Setup {
        /// What is missing.
        what: String,
        /// The next step.
        hint: String,
    },
    /// No place to test it in.
    #[error("no directory for the test can be made")]
    Directory(#[source] std::io::Error),
    /// The recording.
    #[error("{} cannot be written", path.display())]
    Write {
        /// Where.
        path: std::path::PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

impl From<StoreError> for TestError {
    fn from(error: StoreError) -> Self {
        Self::Component(Box::new(error))
    }
}

impl From<ConfigError> for TestError {
    fn from(error: ConfigError) -> Self {
        Self::Config(Box::new(error))
    }
}

impl From<HookLoadError> for TestError {
    fn from(error: HookLoadError) -> Self {
        Self::Load(Box::new(error))
    }
}

impl TestError {
    /// What its reader can do next.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            TestError::Component(error) => error.hint(),
            TestError::Config(error) => error.hint(),
            TestError::Load(error) => error.hint(),
            TestError::Setup { hint, .. } => Some(hint.clone()),
            TestError::Directory(_) => Some("set TMPDIR to a directory with room".into()),
            TestError::Write { .. } => None,
        }
    }

    /// How a command that cannot go on ends.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            TestError::Component(error) => error.exit_code(),
            TestError::Directory(_) | TestError::Write { .. } => ExitCode::Precondition,
            _ => ExitCode::Parameters,
        }
    }
}
