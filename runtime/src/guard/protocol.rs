//! What agent, guard and sentinel say to each other: one JSON document in one packet.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Aftercare;
use crate::journal::ProcessId;
use crate::plan::FileSystem;
use crate::sys::guardproc::{MAX_FDS_IN_MESSAGE, receive_message, send_message};

/// Longest packet of a conversation. Only [`Arm`] is longer.
pub(crate) const MAX_MESSAGE: usize = 4096;

/// Name (argv 0) of a guard process.
pub(crate) const GUARD_NAME: &str = "stillpoint-guard";
/// Name (argv 0) of a sentinel process.
pub(crate) const SENTINEL_NAME: &str = "stillpoint-sentinel";
/// Name (argv 0) of the process that a sentinel starts to undo what a dead agent left with
/// applications.
pub(crate) const RECOVERY_NAME: &str = "stillpoint-recovery";
/// Name (argv 0) of the child that touches a file system that may be frozen, to see if it comes back.
pub(crate) const TOUCH_NAME: &str = "stillpoint-touch";

/// The first message to guard and sentinel. With it come descriptors, in this order: the board, the
/// pidfd of the agent, the pidfd of the other one of the two, one directory per file system; the
/// first packet carries the text, and as many descriptors as fit; the rest follow in packets of one
/// byte.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Arm {
    pub(crate) run_id: String,
    pub(crate) run_dir: PathBuf,
    pub(crate) window_ms: u64,
    pub(crate) expedite_rcu: bool,
    pub(crate) keep_warm: bool,
    pub(crate) agent: ProcessId,
    pub(crate) guard: ProcessId,
    pub(crate) sentinel: ProcessId,
    /// Of the sentinel, once it is known.
    pub(crate) sentinel_cgroup: Option<PathBuf>,
    pub(crate) file_systems: Vec<FileSystem>,
    /// What the sentinel does for applications if the agent dies.
    pub(crate) aftercare: Option<Aftercare>,
}

/// What agent and service say first. They must be of one version: what follows is no interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) version: String,
}

impl Hello {
    pub(crate) fn ours() -> Self {
        Self { version: env!("CARGO_PKG_VERSION").to_owned() }
    }
}

/// From the agent to the guard.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Request {
    Sync { budget_ms: u64 },
    Rehearse,
    Freeze,
    Thaw,
    Disarm,
}

/// From the guard or the sentinel to the agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reply {
    /// It watches.
    Armed { cgroup: Option<PathBuf>, warnings: Vec<String> },
    /// What was asked for is done; the details are on the board.
    Done,
    /// Thawed; which ones are read-only now and were not before.
    Thawed { turned_read_only: Vec<usize> },
    /// It is not done, and nothing that was begun is left.
    Failed(Failure),
    /// Not an answer: the run is given up, and everything was thawed. The reason is on the board.
    Broken,
}

/// Why something was not done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    /// Which file systems, by index.
    pub(crate) file_systems: Vec<usize>,
    pub(crate) errno: i32,
    pub(crate) detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FailureKind {
    /// FIFREEZE failed.
    Freeze,
    /// `syncfs` failed.
    Sync,
    /// `syncfs` has not returned within its budget.
    SyncTimedOut,
    /// A call of ours is still running there.
    Busy,
    /// The run is given up; the board says why.
    Broken,
    /// FITHAW failed or has not returned.
    NotThawed,
    /// The journal cannot be written.
    Journal,
    /// The sentinel shares the agent's cgroup: one kill could end both.
    SharedCgroup,
    /// What the other side said makes no sense.
    Protocol,
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, file_systems: Vec<usize>) -> Self {
        Self { kind, file_systems, errno: 0, detail: String::new() }
    }

    pub(crate) fn errno(mut self, errno: Errno) -> Self {
        self.errno = errno as i32;
        self
    }

    /// With words, cut to what surely fits into one packet.
    pub(crate) fn detail(mut self, detail: impl ToString) -> Self {
        self.detail = detail.to_string().chars().take(500).collect();
        self
    }
}

/// Sends one message. Uses no heap if it is short, as all are that are sent while frozen: an
/// allocation could wait for memory that only a write to a frozen file system would free.
pub(crate) fn send_to(socket: impl AsFd, message: &impl Serialize) -> io::Result<()> {
    let mut buffer = [0_u8; 512];
    let mut rest = &mut buffer[..];
    let flags = MsgFlags::MSG_NOSIGNAL;
    let raw = socket.as_fd().as_raw_fd();
    if serde_json::to_writer(&mut rest, message).is_ok() {
        let length = 512 - rest.len();
        send_whole(raw, &buffer[..length], flags)
    } else {
        send_whole(raw, &serde_json::to_vec(message)?, flags)
    }
}

/// One packet is sent whole or not at all.
fn send_whole(socket: RawFd, packet: &[u8], flags: MsgFlags) -> io::Result<()> {
    loop {
        match send(socket, packet, flags) {
            Err(Errno::EINTR) => {}
            result => return result.map(drop).map_err(io::Error::from),
        }
    }
}

/// Receives one message; `None` at the end of the conversation.
pub(crate) fn receive_from<M: DeserializeOwned>(
    socket: impl AsFd,
    flags: MsgFlags,
) -> io::Result<Option<M>> {
    let mut buffer = [0_u8; MAX_MESSAGE];
    let length = recv(socket.as_fd().as_raw_fd(), &mut buffer, flags)?;
    if length == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&buffer[..length])?))
}

/// Sends [`Arm`] with its descriptors.
pub(crate) fn send_arm(socket: impl AsFd, arm: &Arm, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut text = serde_json::to_vec(arm)?;
    for chunk in fds.chunks(MAX_FDS_IN_MESSAGE) {
        send_message(&socket, &text, chunk)?;
        text = vec![b'+'];
    }
    Ok(())
}

/// Receives what [`send_arm`] sent. Waits for it; the sender's end is the end of the wait.
pub(crate) fn receive_arm(socket: impl AsFd) -> io::Result<(Arm, Vec<OwnedFd>)> {
    let mut buffer = vec![0; 1 << 20];
    let (length, mut fds) = receive_message(&socket, &mut buffer, MsgFlags::empty())?;
    let arm: Arm = serde_json::from_slice(&buffer[..length])?;
    while fds.len() < 3 + arm.file_systems.len() {
        let (length, more) = receive_message(&socket, &mut buffer, MsgFlags::empty())?;
        if length == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        fds.extend(more);
    }
    Ok((arm, fds))
}
