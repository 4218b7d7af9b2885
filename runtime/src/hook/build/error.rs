//! Why no component was made, and the next command to type.

use std::io;
use std::path::PathBuf;

use super::Kind;
use crate::hook::since_v0_1_0::served;

/// Why no component was made. What was there before is untouched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// No build file that is known.
    #[error(
        "{} is not a project: it has no Cargo.toml, build.zig, go.mod, pyproject.toml, package.json or Makefile",
        directory.display()
    )]
    NoProject {
        /// Where it was looked for.
        directory: PathBuf,
    },
    /// A tool is not installed.
    #[error("{tool} is not installed{}", needed_for.map(|it| format!(", and {it} needs it")).unwrap_or_default())]
    NoTool {
        /// Which.
        tool: String,
        /// What needs it.
        needed_for: Option<&'static str>,
        /// How it is installed.
        install: String,
    },
    /// A tool cannot be started.
    #[error("{tool} cannot be started")]
    Start {
        /// Which.
        tool: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A tool failed; what it said was shown as it came.
    #[error("`{command}` ended with {status}")]
    Failed {
        /// What was run.
        command: String,
        /// How it ended.
        status: String,
        /// What is to be done next.
        hint: String,
    },
    /// The tool ended well, and what it was to make is not there.
    #[error("`{command}` made no module: {wanted}")]
    NothingMade {
        /// What was run.
        command: String,
        /// What was expected of it.
        wanted: String,
        /// How it gets there.
        hint: String,
    },
    /// A file cannot be read.
    #[error("{} cannot be read", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// No hook is so long.
    #[error("{} has {length} bytes, and no hook may have more than 256 MiB", file.display())]
    TooLong {
        /// Which.
        file: PathBuf,
        /// Its length.
        length: u64,
    },
    /// Neither a core module nor a component.
    #[error("{} is not WebAssembly", file.display())]
    NotWebAssembly {
        /// Which.
        file: PathBuf,
    },
    /// It is WebAssembly, and damaged.
    #[error("{} is damaged: {problem}", file.display())]
    Damaged {
        /// Which.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A core module that wants WASI.
    #[error("{} imports {} of WASI, which no hook needs and none gets by default", file.display(), functions.join(", "))]
    Wasi {
        /// Which.
        file: PathBuf,
        /// What it imports.
        functions: Vec<String>,
        /// The project's language.
        kind: Option<Kind>,
    },
    /// A core module that wants something else that no host of ours has.
    #[error("{} imports {}, which no hook gets", file.display(), imports.join(", "))]
    Foreign {
        /// Which.
        file: PathBuf,
        /// What it imports.
        imports: Vec<String>,
        /// The project's language.
        kind: Option<Kind>,
    },
    /// A core module without what a hook has to export.
    #[error("{} does not export {}, so it is no hook", file.display(), exports.join(", "))]
    NoExport {
        /// Which.
        file: PathBuf,
        /// What it should export.
        exports: Vec<String>,
        /// The project's language.
        kind: Option<Kind>,
    },
    /// It was built for another version of the contract.
    #[error("{} is built for stillpoint:hook@{found}, and this stillpoint serves {}", file.display(), served())]
    OtherContract {
        /// Which.
        file: PathBuf,
        /// The version.
        found: String,
        /// The project's language.
        kind: Option<Kind>,
    },
    /// It does not fit the contract in another way.
    #[error("{} does not fit the contract: {problem}", file.display())]
    DoesNotFit {
        /// Which.
        file: PathBuf,
        /// What does not fit.
        problem: String,
    },
}

impl BuildError {
    /// What to type next.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            BuildError::NoProject { .. } => {
                "begin one: stillpoint hook new my-hook --lang rust (--lang help lists the languages); or name a module: stillpoint hook build module.wasm".into()
            }
            BuildError::NoTool { install, .. } => install.clone(),
            BuildError::Start { .. } => "run it by hand, to see what is wrong with it".into(),
            BuildError::Failed { hint, .. } | BuildError::NothingMade { hint, .. } => hint.clone(),
            BuildError::Read { .. } => "ls -l it".into(),
            BuildError::TooLong { .. } => "leave out what the hook does not need, and run stillpoint hook build again".into(),
            BuildError::NotWebAssembly { .. } => {
                "name the .wasm file that the compiler made: stillpoint hook build module.wasm".into()
            }
            BuildError::Damaged { .. } => "build it again from nothing, then: stillpoint hook build".into(),
            BuildError::Wasi { kind, .. } => without_wasi(*kind),
            BuildError::Foreign { .. } => {
                "a function that is declared and not defined becomes an import: define it or link what has it, then: stillpoint hook build".into()
            }
            BuildError::NoExport { kind, .. } => with_exports(*kind),
            BuildError::OtherContract { kind, .. } => this_contract(*kind),
            BuildError::DoesNotFit { .. } => this_contract(None),
        }
    }
}

/// Which flag of which tool leaves WASI out, or has it answered by nobody.
fn without_wasi(kind: Option<Kind>) -> String {
    let stub = "stillpoint hook build --stub-wasi answers these calls inside the component (nothing is printed, no time passes, nothing is random)";
    match kind {
        Some(Kind::Rust) => "build for wasm32-unknown-unknown, not for wasm32-wasip1 or -wasip2: rustup target add wasm32-unknown-unknown && stillpoint hook build".into(),
        Some(Kind::C | Kind::Zig) => format!(
            "leave out what needs it (printf, files, clocks, getenv, exit, assert; in Zig std.debug.print and panic messages), use sp_log and stillpoint_hook_run_remaining, and run stillpoint hook build again; or {stub}"
        ),
        Some(Kind::Go) => "leave out what needs it (sockets, files beyond standard output): what Go's own runtime calls is answered inside the component, these are not; then: stillpoint hook build".into(),
        Some(Kind::JavaScript) => "componentize-qjs --stub-wasi, or jco componentize --backend qjs --backend-qjs-stub-wasi, or --disable all: change scripts.build in package.json, then: stillpoint hook build".into(),
        Some(Kind::Python) => "componentize-py componentize --stub-wasi, then: stillpoint hook build".into(),
        None => stub.into(),
    }
}

/// How a hook's functions get exported.
fn with_exports(kind: Option<Kind>) -> String {
    match kind {
        Some(Kind::Rust) => "call stillpoint_hook::export!(YourHook) once, in src/lib.rs, then: stillpoint hook build",
        Some(Kind::Zig) => "export your hook: comptime { stillpoint.exportHook(YourHook); }, then: stillpoint hook build",
        Some(Kind::C) => "compile and link sdk/hook.c, and build with -mexec-model=reactor, then: stillpoint hook build",
        Some(Kind::Go) => "import the package hook of the project in main.go and set hook.Exported, then: stillpoint hook build",
        Some(Kind::JavaScript | Kind::Python) | None => "build it for the world `hook` of the package stillpoint:hook; a project that does: stillpoint hook new sample --lang rust",
    }
    .into()
}

/// How a project gets the contract of this stillpoint.
fn this_contract(kind: Option<Kind>) -> String {
    let language = match kind {
        Some(Kind::C) => "c",
        Some(Kind::Zig) => "zig",
        Some(Kind::Go) => "go",
        Some(Kind::JavaScript) => "javascript",
        Some(Kind::Python) => "python",
        Some(Kind::Rust) | None => "rust",
    };
    format!(
        "take the contract of this stillpoint: stillpoint hook new sample --lang {language} --path /tmp/sample, copy its sdk and wit over yours, then: stillpoint hook build; or update stillpoint"
    )
}
