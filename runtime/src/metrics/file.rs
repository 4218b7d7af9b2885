//! The two files: what is counted, for root alone; and what the collector reads.

use std::fs::{DirBuilder, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::MetricsConfig;
use crate::config::read::{OPEN_TO_OTHERS, read_trusted};
use crate::durable;
use crate::file_lock::FileLock;
use crate::freeze::is_running;
use crate::paths::Paths;
use crate::report::RunRecord;
use crate::time::Deadline;

use super::State;

/// How long a run waits for another one that writes its metrics.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest file of counters that is read, in bytes.
const LONGEST: u64 = 1 << 20;

/// Why metrics cannot be written. The run itself is as good as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// Another run writes its metrics, and does not end.
    #[error("{} is held by another run", path.display())]
    Busy {
        /// The lock.
        path: PathBuf,
    },
    /// A file system is frozen, by us or somebody else, or cannot be asked: a write might never end.
    #[error("{} may be on a frozen file system", path.display())]
    Frozen {
        /// What was to be written.
        path: PathBuf,
    },
    /// A file cannot be written.
    #[error("{} cannot be written", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Counts a run, and writes what `[metrics]` asks for. Without it, it is counted all the same: whoever
/// asks for metrics later gets the whole story.
///
/// # Errors
/// If a file cannot be written; what could be is.
pub fn publish(
    paths: &Paths,
    config: &MetricsConfig,
    record: &RunRecord,
) -> Result<(), MetricsError> {
    let _alone = lock(&paths.run().join("metrics.lock"))?;
    let store = paths.counters();
    let mut state = read(&store);
    state.count(record);
    let good = record.left_everything_running();
    let kept = when_running(good, &store, || keep(&store, &state));
    let shown = config.textfile.as_ref().map_or(Ok(()), |path| {
        when_running(good, path, || {
            let partial = path.with_extension("prom.partial");
            durable::write_whole_for_all(&partial, path, state.text().as_bytes())
        })
    });
    kept.and(shown)
}

/// After a run that failed the disk is asked first: see `report::History::keep`.
fn when_running(
    good: bool,
    path: &Path,
    write: impl FnOnce() -> io::Result<()>,
) -> Result<(), MetricsError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    if !good && !is_running(directory) {
        return Err(MetricsError::Frozen { path: path.to_owned() });
    }
    write().map_err(|source| MetricsError::Write { path: path.to_owned(), source })
}

/// Counters that cannot be read begin again at 0, as after a new installation: Prometheus knows that.
fn read(store: &Path) -> State {
    let bytes = read_trusted(store, OPEN_TO_OTHERS, LONGEST).ok();
    bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

fn keep(store: &Path, state: &State) -> io::Result<()> {
    make_directory_of(store)?;
    durable::write_whole(&store.with_extension("partial"), store, &serde_json::to_vec(state)?)
}

/// For root alone, whatever the umask is, if it is not there.
fn make_directory_of(path: &Path) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// A run that fails because another one is in progress ends while that one may: one writes at a time.
fn lock(path: &Path) -> Result<FileLock, MetricsError> {
    let failed = |source| MetricsError::Write { path: path.to_owned(), source };
    make_directory_of(path).map_err(failed)?;
    let open =
        || OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
    let deadline = Deadline::after(PATIENCE);
    let mut file = open().map_err(failed)?;
    loop {
        match FileLock::try_new(file) {
            Ok(locked) => return Ok(locked),
            Err((_, TryLockError::WouldBlock)) if deadline.has_passed() => {
                return Err(MetricsError::Busy { path: path.to_owned() });
            }
            Err((back, TryLockError::WouldBlock)) => file = back,
            Err((_, TryLockError::Error(error))) => return Err(failed(error)),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
