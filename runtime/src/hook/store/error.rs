//! What can go wrong with the store, and what the operator can do about it.

use std::io;
use std::path::PathBuf;

use crate::config::read::ConfigError;
use crate::exit_code::ExitCode;
use crate::hook::compile::CompileError;
use crate::hook::digest::Digest;
use crate::hook::engine::EngineError;
use crate::hook::vetting::VettingError;

/// What went wrong with the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The engine does not start.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A file cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("{} cannot be written", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file of the store is not trusted, or cannot be read.
    #[error(transparent)]
    File(#[from] ConfigError),
    /// The file is not a hook that this stillpoint can run.
    #[error("{what} is not a hook: {problem}")]
    NotAHook {
        /// Which.
        what: String,
        /// Why.
        problem: String,
        /// What its author, or the operator, can do.
        hint: String,
    },
    /// It could not be compiled.
    #[error("{what} cannot be compiled")]
    NotCompiled {
        /// Which.
        what: String,
        /// The cause.
        #[source]
        source: CompileError,
    },
    /// Nobody whose word counts vouches for it, or it is revoked, or it is a way back.
    #[error("{what} is not accepted")]
    NotAccepted {
        /// Which.
        what: String,
        /// Why.
        #[source]
        source: VettingError,
    },
    /// Nothing of that name is installed.
    #[error("no hook `{what}` is installed")]
    NotInstalled {
        /// What was asked for.
        what: String,
        /// The names that are there.
        there_are: Vec<String>,
    },
    /// More than one is installed under that name.
    #[error("`{what}` is installed more than once: {}", digests.iter().map(Digest::to_string).collect::<Vec<_>>().join(", "))]
    Ambiguous {
        /// What was asked for.
        what: String,
        /// The digests.
        digests: Vec<Digest>,
    },
    /// A grant file names it.
    #[error("hook {name} ({digest}) is in use: {} grants to it", file.display())]
    InUse {
        /// Which.
        name: String,
        /// Its digest.
        digest: Digest,
        /// Where.
        file: PathBuf,
    },
    /// A file is not what was installed.
    #[error("{} was changed after it was installed: its digest is {found}, not {recorded}", file.display())]
    Changed {
        /// Which.
        file: PathBuf,
        /// What was recorded.
        recorded: Digest,
        /// What it is now.
        found: Digest,
    },
    /// There is no image for this engine.
    #[error("hook {name} has no image for this stillpoint ({why})")]
    NoImage {
        /// Which.
        name: String,
        /// Missing, or compiled for another version or processor.
        why: String,
        /// The component.
        component: PathBuf,
    },
    /// A record cannot be understood.
    #[error("{} is not a record of this stillpoint: {problem}", path.display())]
    Record {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

impl StoreError {
    /// How a command that cannot go on ends: what is not trusted is a condition that is not met.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            StoreError::NotAccepted { .. } => ExitCode::Precondition,
            _ => ExitCode::Parameters,
        }
    }

    /// Why the child could not compile it: a refusal is about the component, the rest about the child.
    pub(super) fn not_compiled(what: &str, error: CompileError) -> Self {
        let what = what.to_owned();
        match error {
            CompileError::Refused { problem, hint } => StoreError::NotAHook { what, problem, hint },
            source => StoreError::NotCompiled { what, source },
        }
    }

    /// What the operator can do next.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            StoreError::File(error) => error.hint(),
            StoreError::NotAHook { hint, .. } => Some(hint.clone()),
            StoreError::NotCompiled { source, .. } => source.hint(),
            StoreError::NotAccepted { source, .. } => Some(source.hint()),
            StoreError::NotInstalled { there_are, .. } if there_are.is_empty() => {
                Some("install it with `stillpoint hook install <file.wasm>`".into())
            }
            StoreError::NotInstalled { there_are, .. } => {
                Some(format!("there are: {}", there_are.join(", ")))
            }
            StoreError::Ambiguous { .. } => Some("give the digest instead of the name".into()),
            StoreError::InUse { file, .. } => {
                Some(format!("remove {}, or set another `module` in it, first", file.display()))
            }
            StoreError::Changed { .. } => Some(
                "find out who changed it; then install the hook again with `stillpoint hook install`".into(),
            ),
            StoreError::NoImage { component, .. } => {
                Some(format!("run `stillpoint hook install {}` again", component.display()))
            }
            StoreError::Record { .. } => {
                Some("install the hook again with `stillpoint hook install`".into())
            }
            StoreError::Engine(_) | StoreError::Read { .. } | StoreError::Write { .. } => None,
        }
    }
}
