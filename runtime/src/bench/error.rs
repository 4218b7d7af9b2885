//! What can keep a bench from measuring, in words that can be acted on.

use std::io;
use std::path::PathBuf;

use crate::exit_code::ExitCode;
use crate::guard::GuardError;
use crate::journal::JournalError;

/// What kept a bench from measuring. What it had made is removed when this is returned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// What is asked for makes no sense.
    #[error("{0}")]
    Options(String),
    /// A program that is needed is not installed.
    #[error("{tool} is not installed")]
    NoTool {
        /// Which.
        tool: String,
        /// The package that has it, in Debian and most others.
        package: &'static str,
    },
    /// The images do not fit.
    #[error(
        "{} has {} MiB free, and the images may take {} MiB",
        directory.display(), free >> 20, needed >> 20
    )]
    NoRoom {
        /// Where they were to be.
        directory: PathBuf,
        /// Free bytes there.
        free: u64,
        /// Bytes that the images may take.
        needed: u64,
    },
    /// A program failed.
    #[error("{program} failed: {said}")]
    Program {
        /// Which, with its arguments.
        program: String,
        /// What it wrote, or how it ended.
        said: String,
    },
    /// A system call failed.
    #[error("cannot {doing}")]
    System {
        /// What was tried.
        doing: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A freeze did not go as it should have, so that its figures mean nothing.
    #[error("{0}")]
    Spoiled(String),
    /// Guard or sentinel failed.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// A run is in progress, or the journal cannot be kept.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl BenchError {
    pub(super) fn system(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::System { doing, source }
    }

    /// What the operator can do next, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoTool { tool, package } if *package == "util-linux" => {
                Some(format!("install the package {package}, which has {tool}"))
            }
            Self::NoTool { package, .. } => {
                Some(format!("install the package {package}, or choose another --kind"))
            }
            Self::NoRoom { .. } => Some(
                "choose a directory with more room (--dir), less dirty data (--dirty-mib), or fewer \
                 file systems (--file-systems)"
                    .to_owned(),
            ),
            Self::Guard(error) => error.hint(),
            Self::Journal(error) => error.hint(),
            Self::Spoiled(_) => {
                Some("see who else freezes or thaws on this machine, then run it again".to_owned())
            }
            _ => None,
        }
    }

    /// The exit code that this leads to.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Options(_) => ExitCode::Parameters,
            Self::NoTool { .. } | Self::NoRoom { .. } | Self::Spoiled(_) => ExitCode::Precondition,
            Self::Program { .. } | Self::System { .. } => ExitCode::Precondition,
            Self::Guard(error) => error.exit_code(),
            Self::Journal(error) => error.exit_code(),
        }
    }
}
