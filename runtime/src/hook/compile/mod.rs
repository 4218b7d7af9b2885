//! Compiling a component, in a child process without privileges. A compiler is a large program that is
//! fed with what strangers wrote: nothing of it runs as root, or in the process that will freeze file
//! systems. The child is this binary executed again, as with the guard; it is told the bounds in its
//! arguments, reads the component on standard input, and writes an [`answer`] on standard output.
//!
//! ```text
//! parent (root)                         child (a user of its own, no files, no network, bounded)
//!   spawn ─────────────────────────────▶  confine: user, limits, landlock, seccomp
//!   length and component ──────────────▶  check, compile, ask `describe`
//!   answer: what it is, and the image ◀─  answer
//! ```

mod answer;
mod confine;
mod talk;
mod worker;

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::guard::spawn;
pub(super) use answer::Facts;
pub(crate) use worker::run as run_worker;

/// The name under which the compiler is started.
pub(crate) const COMPILER_NAME: &str = "stillpoint-compiler";

/// Which program compiles, and how much it may use.
#[derive(Clone, Debug, Default)]
pub struct Compiler {
    program: Option<PathBuf>,
    limits: CompileLimits,
}

/// Bounds of one compilation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompileLimits {
    /// How long it may take; default 2 minutes. Interpreters take 5 s on two cores.
    pub time: Duration,
    /// How much processor time it may use, on all cores together; default 4 minutes.
    pub processor_time: Duration,
    /// How much memory it may use, in bytes; default 2 GiB. Interpreters take 370 MiB.
    pub memory_bytes: u64,
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(120),
            processor_time: Duration::from_secs(240),
            memory_bytes: 2 << 30,
        }
    }
}

/// A component that was compiled by a child.
#[derive(Debug)]
pub(super) struct Compiled {
    /// What the component is.
    pub(super) facts: Facts,
    /// The image.
    pub(super) image: Vec<u8>,
}

/// Why a component could not be compiled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// It would have to be compiled in this process.
    #[error(
        "the compiler is a process of its own, and this program's main does not call guard::enter()"
    )]
    NoCompiler,
    /// The child does not start.
    #[error("the compiler {} cannot be started", program.display())]
    Start {
        /// What was started.
        program: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The child could not give up its privileges, so it did nothing.
    #[error("the compiler could not give up its privileges: {0}")]
    NotConfined(String),
    /// It is not a hook that this stillpoint can run.
    #[error("{problem}")]
    Refused {
        /// Why.
        problem: String,
        /// What its author, or the operator, can do.
        hint: String,
    },
    /// It took too long.
    #[error("compiling it took longer than {} s, and was ended", limit.as_secs_f32())]
    TooSlow {
        /// What it may take.
        limit: Duration,
    },
    /// It took too much memory.
    #[error("compiling it needs more than the {} MiB of memory that the compiler gets", limit_bytes >> 20)]
    TooBig {
        /// What it may take.
        limit_bytes: u64,
    },
    /// The child died.
    #[error("the compiler ended with {how}{}", if said.is_empty() { String::new() } else { format!(": {said}") })]
    Died {
        /// Its exit status or signal.
        how: String,
        /// The last that it said.
        said: String,
    },
    /// What the child said makes no sense.
    #[error("the compiler's answer is not one: {0}")]
    Answer(String),
    /// The program that compiles is another version of stillpoint.
    #[error("the compiler {} is of another version than this program", program.display())]
    OtherVersion {
        /// Which.
        program: PathBuf,
    },
}

impl CompileError {
    /// What the operator can do next.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            CompileError::Refused { hint, .. } => hint.clone(),
            CompileError::NoCompiler => "call stillpoint::guard::enter() first in main, or name the `stillpoint` binary with HookStore::compiled_by".into(),
            CompileError::TooSlow { .. } | CompileError::TooBig { .. } => {
                "nothing was kept; report it to the hook's author".into()
            }
            CompileError::NotConfined(_) => "run it as root, outside of containers that take setuid away".into(),
            CompileError::Died { .. } | CompileError::Answer(_) => {
                "nothing was kept; report this with the component".into()
            }
            CompileError::OtherVersion { .. } => "install both from the same release".into(),
            CompileError::Start { .. } => return None,
        })
    }
}

impl Compiler {
    /// This program, executed again. Its `main` must begin with [`guard::enter`](crate::guard::enter).
    #[must_use]
    pub fn this_program() -> Self {
        Self::default()
    }

    /// Another program whose `main` begins with [`guard::enter`](crate::guard::enter): the `stillpoint`
    /// binary of the same version.
    #[must_use]
    pub fn at(program: &Path) -> Self {
        Self { program: Some(program.to_owned()), ..Self::default() }
    }

    /// With these bounds.
    #[must_use]
    pub fn limited(self, limits: CompileLimits) -> Self {
        Self { limits, ..self }
    }

    /// Compiles a component for the engine `engine`, and asks it what it is.
    pub(super) async fn compile(
        &self,
        component: &[u8],
        engine: &str,
    ) -> Result<Compiled, CompileError> {
        let compiled = talk::with_child(self.command()?, component, self.limits).await?;
        if compiled.facts.engine != engine {
            return Err(CompileError::OtherVersion { program: self.program() });
        }
        Ok(compiled)
    }

    /// The child with nothing but its three streams and its bounds.
    fn command(&self) -> Result<Command, CompileError> {
        let mut command = match &self.program {
            Some(program) => spawn::command_of(program, COMPILER_NAME),
            None if spawn::has_entered() => spawn::command(COMPILER_NAME),
            None => return Err(CompileError::NoCompiler),
        };
        command.args(confine::Bounds::from(self.limits).as_arguments());
        Ok(command)
    }

    fn program(&self) -> PathBuf {
        self.program.clone().unwrap_or_else(|| "/proc/self/exe".into())
    }
}
