//! Thaw by hand: ours by the journal, or any by path.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::guard::mounts::{Mount, mount_id, mounts, open_directory};
use crate::journal::{FreezeRecord, FrozenEntry, JournalError, boot_id};
use crate::plan::DevId;
use crate::sys::fsfreeze;

/// How long all thaws together are waited for. One that takes longer goes on by itself.
const LIMIT: Duration = Duration::from_secs(5);

/// What became of one file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileSystemOutcome {
    /// Where it is, or was, mounted.
    pub mount_point: PathBuf,
    /// Its superblock, as far as it is known.
    pub superblock: Option<DevId>,
    /// What became of it.
    pub outcome: ThawOutcome,
}

/// What became of one file system that was to be thawed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ThawOutcome {
    /// It was frozen and is not any more.
    Thawed,
    /// It was not frozen.
    WasNotFrozen,
    /// It is not mounted any more. A superblock stays frozen over an unmount: mounted again, it can
    /// be thawed.
    NotMounted,
    /// It could not be thawed.
    Failed {
        /// Why.
        error: String,
    },
    /// The thaw has not returned in time; it goes on in the kernel.
    TimedOut,
}

impl ThawOutcome {
    /// True if the file system is known not to be frozen now.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self, Self::Thawed | Self::WasNotFrozen)
    }
}

impl fmt::Display for ThawOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Thawed => f.write_str("thawed"),
            Self::WasNotFrozen => f.write_str("was not frozen"),
            Self::NotMounted => {
                f.write_str("is not mounted; if it is still frozen, mount it again and thaw it")
            }
            Self::Failed { error } => write!(f, "could not be thawed: {error}"),
            Self::TimedOut => f.write_str("has not answered; the thaw goes on in the kernel"),
        }
    }
}

/// Thaws what the journal in `run_dir` says is ours, in this boot, and nothing else; it may be in
/// the window of a run, which is then not consistent, and says so. The journal stays: removing it
/// is for the guard, or for [`super::recover`].
///
/// # Errors
/// If the journal is there and cannot be read.
pub fn thaw_ours(run_dir: &Path) -> Result<Vec<FileSystemOutcome>, JournalError> {
    match FreezeRecord::load(run_dir)? {
        Some(record) if record.boot_id == boot_id()? => Ok(thaw_recorded(&record)),
        _ => Ok(Vec::new()),
    }
}

/// Thaws the file systems of these paths, whoever froze them.
#[must_use]
pub fn thaw_paths(paths: &[PathBuf]) -> Vec<FileSystemOutcome> {
    let table = mounts().unwrap_or_default();
    let targets = paths.iter().map(|path| Target {
        mount_point: path.clone(),
        superblock: open_directory(path)
            .and_then(mount_id)
            .ok()
            .and_then(|id| table.iter().find(|mount| mount.id == id))
            .map(|mount| mount.superblock),
        opens: vec![path.clone()],
    });
    thaw_all(targets.collect())
}

/// Thaws what a journal of this boot says is ours.
pub(super) fn thaw_recorded(record: &FreezeRecord) -> Vec<FileSystemOutcome> {
    let table = mounts().unwrap_or_default();
    let ours = record.file_systems.iter().filter(|entry| entry.ours);
    thaw_all(ours.map(|entry| Target::recorded(entry, &table)).collect())
}

/// A file system to thaw.
struct Target {
    mount_point: PathBuf,
    superblock: Option<DevId>,
    /// Mount points to try. None: it is not mounted.
    opens: Vec<PathBuf>,
}

impl Target {
    /// Every mount of that superblock will do, its planned mount may be gone.
    fn recorded(entry: &FrozenEntry, table: &[Mount]) -> Self {
        let mounted = table.iter().filter(|mount| mount.superblock == entry.superblock);
        Self {
            mount_point: entry.mount_point.clone(),
            superblock: Some(entry.superblock),
            opens: mounted.map(|mount| mount.mount_point.clone()).collect(),
        }
    }
}

/// Thaws all at once, each in a thread of its own that nobody has to wait for: one that hangs must
/// not keep the others frozen.
fn thaw_all(targets: Vec<Target>) -> Vec<FileSystemOutcome> {
    let (tell, told) = mpsc::channel();
    let mut results: Vec<_> = targets
        .iter()
        .map(|target| FileSystemOutcome {
            mount_point: target.mount_point.clone(),
            superblock: target.superblock,
            outcome: ThawOutcome::TimedOut,
        })
        .collect();
    for (index, target) in targets.into_iter().enumerate() {
        let tell = tell.clone();
        let run = move || drop(tell.send((index, thaw_one(&target))));
        if let Err(error) = thread::Builder::new().name("thaw".into()).spawn(run) {
            results[index].outcome = ThawOutcome::Failed { error: error.to_string() };
        }
    }
    drop(tell);
    let until = Instant::now() + LIMIT;
    while let Ok((index, outcome)) =
        told.recv_timeout(until.saturating_duration_since(Instant::now()))
    {
        results[index].outcome = outcome;
    }
    results
}

fn thaw_one(target: &Target) -> ThawOutcome {
    let mut last = ThawOutcome::NotMounted;
    for path in &target.opens {
        last = match open_and_thaw(path) {
            Ok(outcome) => return outcome,
            Err(error) => ThawOutcome::Failed { error: error.to_string() },
        };
    }
    last
}

fn open_and_thaw(path: &Path) -> io::Result<ThawOutcome> {
    match fsfreeze::thaw(open_directory(path)?) {
        Ok(()) => Ok(ThawOutcome::Thawed),
        Err(Errno::EINVAL) => Ok(ThawOutcome::WasNotFrozen),
        Err(errno) => Err(errno.into()),
    }
}
