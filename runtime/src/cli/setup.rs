//! From arguments and configuration to what the library wants.

use std::sync::Arc;

use stillpoint::config::{Config, ConfigError, ProviderKind};
use stillpoint::exit_code::ExitCode;
use stillpoint::paths::Paths;
use stillpoint::plan::Scope;
use stillpoint::plugin::log_file::LogFile;
use stillpoint::provider::Provider;
use stillpoint::provider::alibaba::AlibabaProvider;
use stillpoint::provider::reflink::{ReflinkConfig, ReflinkProvider};

use super::args;
use super::{CommandError, Outcome, provider_error};

/// Freezing, and everything around it, needs root; saying so at once is better than failing late.
pub fn require_root() -> Result<(), CommandError> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(CommandError::new(
        ExitCode::Precondition,
        anyhow::anyhow!("stillpoint must run as root: it freezes file systems"),
    )
    .hint("run it with sudo".to_owned()))
}

/// If this process dies, no core is written: credentials are in its memory. Children that are other
/// programs are as they would be without it.
pub fn no_core() {
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        tracing::warn!("a core of this process would be written: {error}");
    }
}

/// The log on standard error, written by a thread of its own: a full pipe, or a terminal on a
/// frozen file system, must not hold the run. Lines that do not fit are dropped.
///
/// # Errors
/// If no thread can be started.
pub fn log(verbose: u8) -> Result<impl Drop, CommandError> {
    let level = match verbose {
        0 => "warn",
        1 => "stillpoint=debug,warn",
        _ => "stillpoint=trace,info",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("STILLPOINT_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    let appender = || {
        tracing_appender::non_blocking::NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(4096)
            .finish(std::io::stderr())
    };
    let (writer, worker) = without_panic(appender)
        .ok_or_else(|| no_resources(anyhow::anyhow!("the log's thread could not be started")))?;
    // Colours for people only: what reads a pipe gets no escapes, neither ours nor anybody else's.
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(writer).init();
    Ok(worker)
}

/// The log of the plug-in: in its log file, whatever standard error is.
pub fn log_to(file: LogFile) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("STILLPOINT_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("stillpoint=debug,warn"));
    let writer = move || file.clone();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(writer).init();
}

/// `stillpoint.toml`, or its defaults.
pub fn config(paths: &Paths) -> Result<Config, CommandError> {
    Config::load(paths).map_err(config_error)
}

pub fn config_error(error: ConfigError) -> CommandError {
    let hint = error.hint();
    CommandError::new(ExitCode::Parameters, error).hint(hint)
}

/// The provider that the configuration names. It asks nobody yet.
pub fn provider(config: &Config, paths: &Paths) -> Result<Arc<dyn Provider>, CommandError> {
    Ok(match config.provider.kind {
        ProviderKind::Reflink => Arc::new(ReflinkProvider::new(ReflinkConfig {
            directory: config.provider.reflink.directory.clone(),
        })),
        ProviderKind::Alibaba => {
            let settings = config.provider.alibaba.settings(paths);
            Arc::new(AlibabaProvider::new(settings).map_err(provider_error)?)
        }
    })
}

/// What the arguments say, else what the configuration says.
pub fn scope(config: &Config, args: &args::Scope) -> Scope {
    let snapshot = &config.snapshot;
    let narrowed = !args.mounts.is_empty() || !args.disks.is_empty();
    let (mounts, disks) = if narrowed {
        (args.mounts.clone(), args.disks.clone())
    } else {
        (snapshot.mounts.clone(), snapshot.disks.clone())
    };
    let mut exclude_disks = snapshot.exclude_disks.clone();
    exclude_disks.extend(args.exclude_disks.iter().cloned());
    Scope {
        mounts,
        disks,
        exclude_disks,
        accept_unfrozen: snapshot.accept_unfrozen.clone(),
        freeze: snapshot.freeze && !args.no_freeze,
        protected: Vec::new(),
    }
}

/// The async runtime that commands run in. One thread: a statement on its way to a database and back
/// does not change threads, which is a third of its time while applications are locked. What can block
/// is on threads of its own, and the deadline of a freeze is the guard's.
pub fn block_on<T>(future: impl Future<Output = T>) -> Result<T, CommandError> {
    let runtime = runtime()?;
    let output = runtime.block_on(future);
    // A thread that hangs in the kernel must not keep the command from ending.
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    Ok(output)
}

pub fn ok() -> Outcome {
    Ok(ExitCode::Ok)
}

/// The runtime itself. Where there is no descriptor left for signals, tokio panics.
fn runtime() -> Result<tokio::runtime::Runtime, CommandError> {
    let build = || tokio::runtime::Builder::new_current_thread().enable_all().build();
    let built =
        without_panic(build).unwrap_or_else(|| Err(std::io::Error::other("no descriptor left")));
    built.map_err(|error| {
        no_resources(anyhow::Error::new(error).context("the async runtime could not be started"))
    })
}

/// For libraries that panic where the machine has nothing left; to the operator that is an error like
/// any other. Only before there is a second thread: the panic's message is nobody else's then.
fn without_panic<T>(call: impl FnOnce() -> T + std::panic::UnwindSafe) -> Option<T> {
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = std::panic::catch_unwind(call);
    std::panic::set_hook(loud);
    result.ok()
}

fn no_resources(error: anyhow::Error) -> CommandError {
    CommandError::new(ExitCode::Precondition, error).hint(
        "look for what is used up: open files (`ulimit -n`), processes (`ulimit -u`, `pids.max` of \
         the cgroup) or memory"
            .to_owned(),
    )
}
