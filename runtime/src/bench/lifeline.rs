//! Whoever freezes without a guard, as `fsfreeze` and bare calls do, has this process behind it: it
//! thaws the lab when everybody who could freeze is gone, or is silent for too long.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Stdio;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::MsgFlags;

use super::{BenchError, end};
use crate::guard::harden::harden;
use crate::guard::spawn::{Started, start};
use crate::sys::fsfreeze;
use crate::sys::guardproc::{receive_message, send_message};

/// `argv[0]` of the process.
pub(crate) const LIFELINE_NAME: &str = "stillpoint-bench-lifeline";

/// What carries the last of the descriptors.
const LAST: u8 = b'.';
/// How long nobody may say anything before everything is thawed.
const SILENCE_MS: u16 = 30_000;
/// How long the process may take to say that it is there.
const PATIENCE_MS: u16 = 5_000;

/// As long as this, or a copy of it in a child, is open, the lab is somebody's.
#[derive(Debug)]
pub(super) struct Lifeline(Started);

impl Lifeline {
    /// Starts the process that thaws these, and waits until it is ready to. They are file systems of
    /// the lab, which nobody else has a right to freeze.
    pub(super) fn start(mounts: &[OwnedFd]) -> Result<Self, BenchError> {
        let begin = || -> io::Result<Self> {
            let lifeline = Self(start(LIFELINE_NAME)?);
            let mounts: Vec<BorrowedFd<'_>> = mounts.iter().map(AsFd::as_fd).collect();
            send_message(&lifeline.0.socket, &[LAST], &mounts)?;
            let mut readable = [PollFd::new(lifeline.0.socket.as_fd(), PollFlags::POLLIN)];
            if poll(&mut readable, PollTimeout::from(PATIENCE_MS))? == 0 {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match receive_message(&lifeline.0.socket, &mut [0; 8], MsgFlags::empty())? {
                (0, _) => Err(io::ErrorKind::UnexpectedEof.into()),
                _ => Ok(lifeline),
            }
        };
        begin().map_err(BenchError::system("start the process that thaws the lab"))
    }

    /// Somebody is alive.
    pub(super) fn beat(&self) -> Result<(), BenchError> {
        send_message(&self.0.socket, &[LAST], &[])
            .map_err(io::Error::from)
            .map_err(BenchError::system("reach the process that thaws the lab"))
    }

    /// For a child that freezes: the lab is not thawed for the last time before that is gone, too.
    pub(super) fn for_a_child(&self) -> Result<Stdio, BenchError> {
        let copy = self.0.socket.try_clone();
        copy.map(Stdio::from).map_err(BenchError::system("copy a descriptor"))
    }
}

impl Drop for Lifeline {
    fn drop(&mut self) {
        end(&self.0);
    }
}

/// The process. It ends when it has thawed what nobody can freeze any more.
pub(crate) fn run(socket: OwnedFd) -> io::Result<()> {
    let _ = harden(c"sp-bench-life");
    let (length, mounts) = receive_message(&socket, &mut [0; 8], MsgFlags::empty())?;
    if length == 0 {
        return Ok(());
    }
    send_message(&socket, &[LAST], &[])?;
    loop {
        let mut readable = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut readable, PollTimeout::from(SILENCE_MS)) {
            Err(Errno::EINTR) => {}
            Ok(0) => thaw(&mounts),
            // Whatever is wrong with it, nobody can be heard any more.
            _ => match receive_message(&socket, &mut [0; 8], MsgFlags::empty()) {
                Ok((1.., _)) | Err(Errno::EINTR) => {}
                _ => break,
            },
        }
    }
    thaw(&mounts);
    Ok(())
}

/// Most are not frozen, and the kernel says so.
fn thaw(mounts: &[OwnedFd]) {
    for mount in mounts {
        let _ = fsfreeze::thaw(mount);
    }
}
