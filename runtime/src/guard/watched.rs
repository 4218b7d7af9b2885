//! A process that we must notice the end of.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::journal::ProcessId;
use crate::sys::guardproc::{pidfd_open, pidfd_send_signal};

/// How long a loop pauses where it cannot wait: as often as it looks while something is frozen.
const PAUSE: Duration = Duration::from_millis(20);

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

    /// The process that the journal names; one that is gone if it is.
    pub(crate) fn of(process: ProcessId) -> io::Result<Self> {
        let found = pidfd_open(process.pid).and_then(|pidfd| Self::new(pidfd, process.pid));
        match found {
            // The number could have been given out again, before the pidfd was opened.
            Ok(watched) if process.is_alive() => Ok(watched),
            _ => Self::gone(),
        }
    }

    /// A process that is gone: its pidfd is readable for ever.
    fn gone() -> io::Result<Self> {
        let (end, _) = io::pipe()?;
        Ok(Self { pidfd: end.into(), status: File::open("/dev/null")? })
    }

    /// Every thread of it has ended: no system call of it is in flight.
    pub(crate) fn is_gone(&self) -> bool {
        self.polled(PollTimeout::ZERO)
    }

    /// The same, at most this much later: its sockets are closed a moment before its last thread ends.
    pub(crate) fn is_gone_within(&self, limit: Duration) -> bool {
        let millis = u16::try_from(limit.as_millis()).unwrap_or(u16::MAX);
        self.polled(PollTimeout::from(millis))
    }

    /// True if it has ended within `limit`. A kernel that cannot even `poll` still says in the status
    /// that was opened beforehand how the process is; then this looks once, and does not spin.
    fn polled(&self, limit: PollTimeout) -> bool {
        let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, limit) {
            Ok(count) => count > 0,
            Err(Errno::EINTR) => false,
            Err(_) => {
                if limit != PollTimeout::ZERO {
                    std::thread::sleep(PAUSE);
                }
                self.status_says_gone()
            }
        }
    }

    fn status_says_gone(&self) -> bool {
        self.status(says_gone).unwrap_or_else(|error| error.raw_os_error() == Some(libc::ESRCH))
    }

    /// What its status says, read into the stack: this is asked while file systems are frozen.
    fn status(&self, says: impl FnOnce(&str) -> bool) -> io::Result<bool> {
        let mut buffer = [0_u8; 4096];
        let length = self.status.read_at(&mut buffer, 0)?;
        Ok(says(&String::from_utf8_lossy(&buffer[..length])))
    }

    /// It was killed, though it may hang on: a thread that waits in the kernel for a frozen file
    /// system cannot end before the thaw, so its pidfd and its sockets say nothing yet.
    pub(crate) fn is_dying(&self) -> bool {
        self.status(says_dying).unwrap_or_else(|_| self.is_gone())
    }

    /// It will not act in time: it is gone, dying, or somebody has stopped it. A tracer's stops do
    /// not count: they end by themselves.
    pub(crate) fn is_lost(&self) -> bool {
        self.status(|text| says_dying(text) || state(text) == Some('T'))
            .unwrap_or_else(|_| self.is_gone())
    }

    /// Lets it run if somebody has stopped it: it has to see that its work is over. (Nobody of us
    /// ever kills it.)
    pub(crate) fn continue_if_stopped(&self) {
        if self.is_stopped() {
            let _ = pidfd_send_signal(&self.pidfd, libc::SIGCONT);
        }
    }

    fn is_stopped(&self) -> bool {
        self.status(|text| matches!(state(text), Some('T' | 't'))).unwrap_or(false)
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// `poll` for loops that look again afterwards, whatever it says. One that fails (no memory in the
/// kernel, a filter that forbids it) must not make them spin: at real-time priority nobody else would
/// run.
///
/// False if it could not look at all.
pub(super) fn poll_or_pause(fds: &mut [PollFd<'_>], limit: PollTimeout) -> bool {
    match poll(fds, limit) {
        Ok(_) | Err(Errno::EINTR) => true,
        Err(_) => {
            std::thread::sleep(PAUSE);
            false
        }
    }
}

/// Every thread has ended: it waits for its parent, or is not there at all.
fn says_gone(status: &str) -> bool {
    let last = field(status, "Threads:").is_none_or(|threads| matches!(threads, "0" | "1"));
    status.is_empty() || (matches!(state(status), Some('Z' | 'X')) && last)
}

/// The first thread has ended, or SIGKILL waits for it.
fn says_dying(status: &str) -> bool {
    const SIGKILL_BIT: u64 = 1 << 8;
    let ended = matches!(state(status), Some('Z' | 'X'));
    let killed = ["SigPnd:", "ShdPnd:"].iter().any(|name| {
        field(status, name)
            .and_then(|mask| u64::from_str_radix(mask, 16).ok())
            .is_some_and(|mask| mask & SIGKILL_BIT != 0)
    });
    ended || killed
}

fn state(status: &str) -> Option<char> {
    field(status, "State:")?.chars().next()
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_without_a_thread_is_gone() {
        assert!(says_gone("State:\tZ (zombie)\nThreads:\t1\n"));
        assert!(!says_gone("State:\tZ (zombie)\nThreads:\t2\n"));
        assert!(!says_gone("State:\tS (sleeping)\nThreads:\t1\n"));
        assert!(says_gone(""), "what was opened in place of a process that is not there");
    }

    #[test]
    fn a_leader_that_has_ended_or_was_sent_sigkill_is_dying() {
        assert!(says_dying("Name:\tx\nState:\tZ (zombie)\nSigPnd:\t0000000000000000\n"));
        assert!(says_dying("State:\tD (disk sleep)\nSigPnd:\t0000000000000100\n"));
        assert!(!says_dying("State:\tS (sleeping)\nSigPnd:\t0000000000000400\nShdPnd:\t0\n"));
    }
}
