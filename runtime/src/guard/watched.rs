//! A process that we must notice the end of.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::sys::guardproc::pidfd_send_signal;

/// A process, by its pidfd and its `/proc/PID/status`, both opened beforehand.
#[derive(Debug)]
pub(crate) struct Watched {
    pidfd: OwnedFd,
    status: File,
}

impl Watched {
    /// Watches `pid`, which must be the process of `pidfd`.
    pub(crate) fn new(pidfd: OwnedFd, pid: u32) -> io::Result<Self> {
        let status = File::open(format!("/proc/{pid}/status"))?;
        let watched = Self { pidfd, status };
        // If it has ended by now, the number may be another's already.
        if watched.is_gone() { Err(io::Error::from(io::ErrorKind::NotFound)) } else { Ok(watched) }
    }

    /// Every thread of it has ended: no system call of it is in flight.
    pub(crate) fn is_gone(&self) -> bool {
        let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1..))
    }

    /// The same, at most this much later: its sockets are closed a moment before its last thread ends.
    pub(crate) fn is_gone_within(&self, limit: Duration) -> bool {
        let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        let millis = u16::try_from(limit.as_millis()).unwrap_or(u16::MAX);
        matches!(poll(&mut fds, PollTimeout::from(millis)), Ok(1..))
    }

    /// It was killed, though it may hang on: a thread that waits in the kernel for a frozen file
    /// system cannot end before the thaw, so its pidfd and its sockets say nothing yet.
    pub(crate) fn is_dying(&self) -> bool {
        let mut buffer = [0_u8; 4096];
        match self.status.read_at(&mut buffer, 0) {
            Ok(length) => says_dying(&String::from_utf8_lossy(&buffer[..length])),
            Err(_) => self.is_gone(),
        }
    }

    /// Lets it run if somebody has stopped it: it has to see that its work is over. (Nobody of us
    /// ever kills it.)
    pub(crate) fn continue_if_stopped(&self) {
        if self.is_stopped() {
            let _ = pidfd_send_signal(&self.pidfd, libc::SIGCONT);
        }
    }

    fn is_stopped(&self) -> bool {
        let mut buffer = [0_u8; 4096];
        self.status.read_at(&mut buffer, 0).is_ok_and(|length| {
            let text = String::from_utf8_lossy(&buffer[..length]);
            matches!(field(&text, "State:").and_then(|state| state.chars().next()), Some('T' | 't'))
        })
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// The first thread has ended, or SIGKILL waits for it.
fn says_dying(status: &str) -> bool {
    const SIGKILL_BIT: u64 = 1 << 8;
    let ended = matches!(field(status, "State:").and_then(|s| s.chars().next()), Some('Z' | 'X'));
    let killed = ["SigPnd:", "ShdPnd:"].iter().any(|name| {
        field(status, name)
            .and_then(|mask| u64::from_str_radix(mask, 16).ok())
            .is_some_and(|mask| mask & SIGKILL_BIT != 0)
    });
    ended || killed
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_that_has_ended_or_was_sent_sigkill_is_dying() {
        assert!(says_dying("Name:\tx\nState:\tZ (zombie)\nSigPnd:\t0000000000000000\n"));
        assert!(says_dying("State:\tD (disk sleep)\nSigPnd:\t0000000000000100\n"));
        assert!(!says_dying("State:\tS (sleeping)\nSigPnd:\t0000000000000400\nShdPnd:\t0\n"));
    }
}
