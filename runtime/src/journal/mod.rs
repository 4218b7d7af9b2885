//! What is ours, on tmpfs, for whoever must clean up: `run_dir` (0700, root) holds
//!
//! | file | whose | what it says |
//! |---|---|---|
//! | `lock` | the agent's, `flock`ed for the life of a run | which run it is |
//! | `run.json` | the agent's | hooks begun and not yet finished, with those of earlier runs that died |
//! | `kv/` | the agent's | what hooks changed in their state and is not on a disk yet |
//! | `recovered.json` | the recovery's | what a sentinel had undone after an agent's death, until somebody is told |
//! | `freeze.json` | the guard's | file systems that may be frozen by us, `rcu_expedited` before us |
//!
//! Every file is written (to a new name, then renamed) *before* the act that it announces, and none
//! is written between the first freeze and the last thaw.

mod lock;
mod process;
mod record;

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::exit_code::ExitCode;
use crate::failpoint::reach;

pub use lock::RunLock;
pub(crate) use lock::recovery_of;
pub use process::ProcessId;
pub use record::{
    BegunHook, FreezeRecord, FrozenEntry, HookEntry, LeftHook, RecoveryRecord, RunRecord,
};

/// What went wrong with the journal or the lock.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// Another run holds the lock.
    #[error("run {run_id} (pid {pid}, since {since}) is in progress")]
    RunInProgress {
        /// Its id.
        run_id: String,
        /// Its process.
        pid: u32,
        /// When it began, RFC 3339, UTC.
        since: String,
    },
    /// The directory is not root's alone: whoever can write there could make us thaw, or lose, what
    /// we should not.
    #[error("{} belongs to uid {uid} with mode {mode:04o}; it must be root's, mode 0700", path.display())]
    DirectoryNotOurs {
        /// Which.
        path: PathBuf,
        /// Its owner.
        uid: u32,
        /// Its mode, permission bits.
        mode: u32,
    },
    /// A file could not be read, written or removed.
    #[error("{}: cannot {doing}", path.display())]
    File {
        /// What was tried: `read`, `write`, `remove`…
        doing: &'static str,
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file is there but is not what we write.
    #[error("{} is not a journal of this program", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
}

impl JournalError {
    /// What the operator can do next, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::RunInProgress { pid, .. } => {
                Some(format!("wait until it has ended; `ps -p {pid}` shows it"))
            }
            Self::DirectoryNotOurs { path, .. } => Some(format!(
                "check who made it, then: chown root:root {0} && chmod 0700 {0}",
                path.display()
            )),
            Self::Malformed { path, .. } => Some(format!(
                "`stillpoint status` shows what is frozen; then remove {}",
                path.display()
            )),
            Self::File { .. } => None,
        }
    }

    /// The exit code that this leads to.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::RunInProgress { .. } => ExitCode::InProgress,
            _ => ExitCode::Precondition,
        }
    }

    fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { doing, path, source }
    }
}

/// Makes `run_dir` if it is missing, and checks that it is root's alone.
///
/// # Errors
/// [`JournalError::DirectoryNotOurs`], or [`JournalError::File`] if it cannot be made.
pub fn prepare_directory(run_dir: &Path) -> Result<(), JournalError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(run_dir)
        .map_err(JournalError::file("create", run_dir))?;
    let metadata = fs::symlink_metadata(run_dir).map_err(JournalError::file("stat", run_dir))?;
    let mode = metadata.mode() & 0o7777;
    if metadata.uid() != nix::unistd::geteuid().as_raw() || mode & 0o022 != 0 {
        let (path, uid) = (run_dir.to_owned(), metadata.uid());
        return Err(JournalError::DirectoryNotOurs { path, uid, mode });
    }
    if mode != 0o700 {
        fs::set_permissions(run_dir, fs::Permissions::from_mode(0o700))
            .map_err(JournalError::file("set the mode of", run_dir))?;
    }
    Ok(())
}

/// Writes a record under a new name and renames it over the old one, so that a reader sees the one
/// or the other. No fsync: after a power cut nothing is frozen, and the boot id says so.
fn write(path: &Path, record: &impl Serialize) -> Result<(), JournalError> {
    let new = path.with_extension("new");
    let put = || -> io::Result<()> {
        reach!("journal.before")?;
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(&serde_json::to_vec(record)?)?;
        fs::rename(&new, path)
    };
    put().map_err(JournalError::file("write", path))?;
    let _ = reach!("journal.after");
    Ok(())
}

/// Reads a record; `None` if there is none.
fn read<R: DeserializeOwned>(path: &Path) -> Result<Option<R>, JournalError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(JournalError::file("read", path)(error)),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|source| JournalError::Malformed { path: path.to_owned(), source })
}

fn remove(path: &Path) -> Result<(), JournalError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(JournalError::file("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// The id of this boot. A journal with another one is history: a reboot thaws everything.
///
/// # Errors
/// If `/proc` is not mounted.
pub fn boot_id() -> Result<String, JournalError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let id = fs::read_to_string(path).map_err(JournalError::file("read", path))?;
    Ok(id.trim().to_owned())
}
