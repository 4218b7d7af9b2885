//! The plug-in's log file: all lines, whole, and the details behind them. It is never on a file
//! system that the run freezes, and nothing is written to it while one is frozen; until it is known
//! which those are, and during the window, lines wait in memory.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::libc;

/// A file that is longer than this, in bytes, when a run begins, becomes the first of the old ones.
const ROTATE_AT: u64 = 1024 * 1024;

/// How many old ones are kept.
const OLD_FILES: u32 = 4;

/// What waits in memory at most, in bytes.
const WAITING: usize = 1024 * 1024;

/// Why a file cannot be the log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogFileError {
    /// It would be written to while it is frozen.
    #[error("{} is on a file system that this run freezes", path.display())]
    Frozen {
        /// Which file.
        path: PathBuf,
    },
    /// Others than root could put something else in its place, or read it.
    #[error("{}: {why}", path.display())]
    Unsafe {
        /// Which file or directory.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A system call failed.
    #[error("{} cannot be opened", path.display())]
    Open {
        /// Which file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

#[derive(Debug, Default)]
struct Inner {
    file: Option<File>,
    held: bool,
    waiting: Vec<u8>,
    dropped: u64,
}

/// The log of one run; clones write to the same file.
#[derive(Clone, Debug, Default)]
pub struct LogFile(Arc<Mutex<Inner>>);

impl LogFile {
    /// Opens the first of `candidates` that is fit, and writes what has waited. Says which one it
    /// is, and why those before it were not.
    ///
    /// `is_frozen` tells whether a path is on a file system that the run freezes.
    #[must_use]
    pub fn open(
        &self,
        candidates: &[PathBuf],
        is_frozen: impl Fn(&Path) -> bool,
    ) -> (Option<PathBuf>, Vec<LogFileError>) {
        let mut refused = Vec::new();
        for path in candidates {
            let opened = if is_frozen(path) {
                Err(LogFileError::Frozen { path: path.clone() })
            } else {
                open(path)
            };
            match opened {
                Ok(file) => {
                    let mut inner = self.inner();
                    inner.file = Some(file);
                    inner.write_out();
                    return (Some(path.clone()), refused);
                }
                Err(error) => refused.push(error),
            }
        }
        (None, refused)
    }

    /// From now on everything waits in memory.
    pub fn hold(&self) {
        self.inner().held = true;
    }

    /// Nothing is frozen any more: writes what has waited.
    pub fn resume(&self) {
        let mut inner = self.inner();
        inner.held = false;
        inner.write_out();
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn add(&mut self, bytes: &[u8]) {
        if self.waiting.len() + bytes.len() > WAITING {
            self.dropped += bytes.len() as u64;
            return;
        }
        self.waiting.extend_from_slice(bytes);
        self.write_out();
    }

    /// A log that cannot be written to must not keep anybody from a snapshot.
    fn write_out(&mut self) {
        if self.held {
            return;
        }
        let Some(file) = &mut self.file else { return };
        let _ = file.write_all(&self.waiting);
        self.waiting.clear();
        if self.dropped > 0 {
            let _ = writeln!(file, "… {} bytes did not fit into memory", self.dropped);
            self.dropped = 0;
        }
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner().add(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens, or makes, a log that is root's alone, in a directory that only root can change.
fn open(path: &Path) -> Result<File, LogFileError> {
    let error = |path: &Path| {
        let path = path.to_owned();
        move |source| LogFileError::Open { path, source }
    };
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(error(directory))?;
    check_directory(directory)?;
    rotate(path).map_err(error(path))?;
    let file = fs::OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)
        .map_err(error(path))?;
    let metadata = file.metadata().map_err(error(path))?;
    let why = if !metadata.is_file() {
        "it is not a regular file"
    } else if metadata.uid() != nix::unistd::geteuid().as_raw() || metadata.mode() & 0o022 != 0 {
        "others than root can write to it"
    } else if metadata.nlink() != 1 {
        "it has another name"
    } else {
        return Ok(file);
    };
    Err(LogFileError::Unsafe { path: path.to_owned(), why })
}

fn check_directory(directory: &Path) -> Result<(), LogFileError> {
    let metadata = fs::metadata(directory)
        .map_err(|source| LogFileError::Open { path: directory.to_owned(), source })?;
    let own = metadata.uid() == nix::unistd::geteuid().as_raw() && metadata.mode() & 0o022 == 0;
    if own {
        return Ok(());
    }
    let why = "others than root can write to this directory";
    Err(LogFileError::Unsafe { path: directory.to_owned(), why })
}

/// `log` becomes `log.1`, `log.1` becomes `log.2`, and the oldest is forgotten.
fn rotate(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() && metadata.len() > ROTATE_AT => {}
        _ => return Ok(()),
    }
    let old = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    for number in (1..OLD_FILES).rev() {
        match fs::rename(old(number), old(number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::rename(path, old(1))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn own_directory() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
        directory
    }

    #[test]
    fn what_was_said_before_it_was_opened_and_while_it_was_held_is_in_it() {
        let directory = own_directory();
        let path = directory.path().join("log/plugin.log");
        let mut log = LogFile::default();
        writeln!(log, "before").unwrap();
        let (opened, refused) = log.open(std::slice::from_ref(&path), |_| false);
        assert_eq!((opened.as_deref(), refused.len()), (Some(path.as_path()), 0));
        assert_eq!(fs::read_to_string(&path).unwrap(), "before\n");
        log.hold();
        writeln!(log, "held").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "before\n");
        log.resume();
        assert_eq!(fs::read_to_string(&path).unwrap(), "before\nheld\n");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_path_that_is_frozen_is_passed_over_and_named() {
        let directory = own_directory();
        let (frozen, other) = (directory.path().join("frozen"), directory.path().join("other"));
        let candidates = [frozen.clone(), other.clone()];
        let (opened, refused) = LogFile::default().open(&candidates, |path| path == frozen);
        assert_eq!(opened, Some(other));
        assert!(matches!(&refused[..], [LogFileError::Frozen { path }] if *path == frozen));
        assert!(!frozen.exists());
    }

    #[test]
    fn links_files_of_others_and_directories_of_others_are_refused() {
        let directory = own_directory();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("victim"), "").unwrap();
        std::os::unix::fs::symlink(at("victim"), at("link")).unwrap();
        fs::hard_link(at("victim"), at("second-name")).unwrap();
        fs::write(at("open"), "").unwrap();
        fs::set_permissions(at("open"), fs::Permissions::from_mode(0o666)).unwrap();
        fs::create_dir(at("shared")).unwrap();
        fs::set_permissions(at("shared"), fs::Permissions::from_mode(0o1777)).unwrap();
        for name in ["link", "second-name", "open", "shared/log"] {
            let mut log = LogFile::default();
            let (opened, refused) = log.open(&[at(name)], |_| false);
            assert_eq!((opened, refused.len()), (None, 1), "{name}");
            writeln!(log, "lost").unwrap();
        }
        assert_eq!(fs::read_to_string(at("victim")).unwrap(), "");
    }

    #[test]
    fn a_long_log_is_put_aside_and_the_oldest_is_forgotten() {
        let directory = own_directory();
        let path = directory.path().join("log");
        let long = usize::try_from(ROTATE_AT).unwrap() + 1;
        for round in 0..7_u8 {
            fs::write(&path, vec![b'0' + round; long]).unwrap();
            let (opened, _) = LogFile::default().open(std::slice::from_ref(&path), |_| false);
            assert!(opened.is_some());
        }
        let first = |name: &str| fs::read(directory.path().join(name)).unwrap().first().copied();
        assert_eq!(first("log"), None);
        assert_eq!((first("log.1"), first("log.4")), (Some(b'6'), Some(b'3')));
        assert!(!directory.path().join("log.5").exists());
    }

    #[test]
    fn what_waits_is_bounded_and_what_is_lost_is_counted() {
        let directory = own_directory();
        let path = directory.path().join("log");
        let mut log = LogFile::default();
        log.write_all(&vec![b'x'; WAITING]).unwrap();
        log.write_all(b"too much").unwrap();
        assert!(log.open(std::slice::from_ref(&path), |_| false).0.is_some());
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.ends_with("x… 8 bytes did not fit into memory\n"), "{text:.20}");
    }
}
