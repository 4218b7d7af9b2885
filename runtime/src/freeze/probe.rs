//! Whether a file system is frozen. The kernel does not say so anywhere, so it has to be asked by a
//! write that would have to wait, and does not.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{UnlinkatFlags, unlinkat};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::guard::mounts::open_directory;
use crate::guard::spawn;
use crate::sys::probe::{Answer, zero_length_write};

/// Directories that are looked into for a file to ask by.
const MAX_DIRECTORIES: usize = 64;
/// Entries that are looked at, in all of them.
const MAX_ENTRIES: usize = 1000;
/// Files that are asked by: one may be locked by a write of its own.
const MAX_FILES: usize = 3;
/// Times that each is asked.
const ATTEMPTS: usize = 5;
/// Pause in between: a write that holds the file's lock takes microseconds.
const PAUSE: Duration = Duration::from_millis(2);
/// How long the child that asks has. Asking takes microseconds, but the child has to be started, and
/// may have to read a directory from a disk.
const CHILD_LIMIT: Duration = Duration::from_millis(1000);

/// What the probe found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// The answer.
    pub state: ProbeState,
    /// How it was found.
    pub method: Method,
}

/// Whether a file system is frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProbeState {
    /// Frozen, or being frozen: writers wait.
    Frozen,
    /// Not frozen.
    NotFrozen,
    /// It cannot be written to anyway (mounted read-only), so it cannot be told.
    ReadOnly,
}

/// How the probe asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// A write of zero bytes by io_uring, with `RWF_NOWAIT`, to a file that is there. It changes
    /// nothing, no time either; a watcher (inotify) sees that the file was opened and closed.
    ZeroLengthWrite,
    /// A child process removed a name that does not exist. If the file system is frozen, the child
    /// hangs until the thaw, and then ends. So it does if the disk below does not answer.
    Touch,
}

/// Why the probe has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// The path cannot be opened.
    #[error("{} cannot be opened", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The child could not be started, or failed.
    #[error("{} could not be asked by a child process", path.display())]
    Child {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Whether the file system at `path` (a directory, best its mount point) is frozen. Nothing in it is
/// changed, and nothing waits for it: a child asks, for looking for a file to ask by has to read, and
/// a disk that hangs below a file system keeps for ever who reads from it.
///
/// # Errors
/// If `path` cannot be opened, or there is no way to ask.
pub fn probe(path: &Path) -> Result<Probe, ProbeError> {
    let directory = open_directory(path)
        .map_err(|source| ProbeError::Open { path: path.to_owned(), source })?;
    let asked = if spawn::has_entered() {
        ask_by_a_child(directory)
    } else {
        // A program that cannot be its own child looks by itself.
        ask_by_writing(path)
            .map(Probe::by_writing)
            .ok_or_else(|| io::Error::other("this program's main does not call guard::enter()"))
    };
    asked.map_err(|source| ProbeError::Child { path: path.to_owned(), source })
}

impl Probe {
    fn by_writing(answer: Answer) -> Self {
        let state = match answer {
            Answer::Done => ProbeState::NotFrozen,
            Answer::WouldWait => ProbeState::Frozen,
        };
        Self { state, method: Method::ZeroLengthWrite }
    }

    fn by_touching(state: ProbeState) -> Self {
        Self { state, method: Method::Touch }
    }
}

/// "Would wait" may also mean that somebody else writes to that very file, so it is believed only if
/// all files say so, each several times; one "done" is enough for the opposite.
fn ask_by_writing(path: &Path) -> Option<Answer> {
    let mut last = None;
    for file in files_to_ask_by(path).take(MAX_FILES) {
        for _ in 0..ATTEMPTS {
            match zero_length_write(&file) {
                Ok(Answer::Done) => return Some(Answer::Done),
                Ok(Answer::WouldWait) => last = Some(Answer::WouldWait),
                // This file cannot be asked; io_uring may be switched off altogether.
                Err(_) => break,
            }
            thread::sleep(PAUSE);
        }
    }
    last
}

/// Regular files on the file system of `path`, opened for direct writing, found by a bounded walk.
/// Not executable ones: they could not be started in the moment that they are open for writing.
fn files_to_ask_by(path: &Path) -> impl Iterator<Item = File> {
    let device = fs::metadata(path).map(|metadata| metadata.dev()).unwrap_or(0);
    let mut directories = VecDeque::from([path.to_owned()]);
    let mut entries_left = MAX_ENTRIES;
    let mut directories_left = MAX_DIRECTORIES;
    let mut files = Vec::new().into_iter();
    std::iter::from_fn(move || {
        loop {
            if let Some(file) = files.by_ref().find_map(|file: PathBuf| open_to_ask(&file, device))
            {
                return Some(file);
            }
            let directory = directories.pop_front().filter(|_| directories_left > 0)?;
            directories_left -= 1;
            let mut found = Vec::new();
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                entries_left = entries_left.checked_sub(1)?;
                let Ok(metadata) = entry.metadata() else { continue };
                if metadata.dev() != device {
                    continue;
                } else if metadata.is_dir() {
                    directories.push_back(entry.path());
                } else if metadata.is_file() && metadata.permissions().mode() & 0o111 == 0 {
                    found.push(entry.path());
                }
            }
            files = found.into_iter();
        }
    })
}

fn open_to_ask(path: &Path, device: u64) -> Option<File> {
    // O_NONBLOCK: a lease on the file is not waited for. No O_TRUNC and no O_CREAT: they would wait.
    let flags = OFlag::O_DIRECT | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = fs::OpenOptions::new().write(true).custom_flags(flags.bits()).open(path).ok()?;
    let metadata = file.metadata().ok()?;
    (metadata.is_file() && metadata.dev() == device).then_some(file)
}

/// Has a child ask. If it does not come back in time, the file system is frozen, or its disk does not
/// answer; the child is then left to itself, for nothing else can end it.
fn ask_by_a_child(directory: OwnedFd) -> io::Result<Probe> {
    let mut child =
        spawn::command(crate::guard::TOUCH_NAME).stdin(Stdio::from(directory)).spawn()?;
    let began = Instant::now();
    while began.elapsed() < CHILD_LIMIT {
        if let Some(status) = child.try_wait()? {
            return match status.code() {
                Some(WRITTEN) => Ok(Probe::by_writing(Answer::Done)),
                Some(WOULD_WAIT) => Ok(Probe::by_writing(Answer::WouldWait)),
                Some(TOUCHED) => Ok(Probe::by_touching(ProbeState::NotFrozen)),
                Some(READ_ONLY) => Ok(Probe::by_touching(ProbeState::ReadOnly)),
                _ => Err(io::Error::other(format!("the child ended with {status}"))),
            };
        }
        thread::sleep(PAUSE);
    }
    spawn::reap(child)?;
    Ok(Probe::by_touching(ProbeState::Frozen))
}

/// Exit codes of the child, unlike any that a program gives by chance.
const TOUCHED: i32 = 81;
const READ_ONLY: i32 = 82;
const WRITTEN: i32 = 83;
const WOULD_WAIT: i32 = 84;

/// The child's part: standard input is the directory. Gives its exit code.
pub(crate) fn ask_of_stdin() -> i32 {
    match ask_by_writing(Path::new("/proc/self/fd/0/")) {
        Some(Answer::Done) => return WRITTEN,
        Some(Answer::WouldWait) => return WOULD_WAIT,
        None => {}
    }
    let name = format!(".stillpoint-{}", uuid::Uuid::new_v4());
    match unlinkat(io::stdin().as_fd(), name.as_str(), UnlinkatFlags::NoRemoveDir) {
        Err(Errno::ENOENT) => TOUCHED,
        Err(Errno::EROFS) => READ_ONLY,
        Ok(()) | Err(_) => 1,
    }
}
