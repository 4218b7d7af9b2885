//! One cgroup: what is started in it stays in it, daemons and `setsid` included, and ends with it.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use super::places::candidates;
use crate::time::Deadline;

/// How long a drop may wait for killed processes to go, so that the directory can be removed.
const DROP_BUDGET: Duration = Duration::from_millis(100);

/// A process that a SIGKILL has not ended: it sits in a system call that cannot be interrupted,
/// most often a write to a frozen file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survivor {
    /// Its process id.
    pub pid: i32,
    /// Its command's name, as the kernel has it.
    pub command: String,
    /// Its state, as in `/proc/PID/stat`; `D` is the uninterruptible one.
    pub state: char,
}

/// No cgroup could be made.
#[derive(Debug, thiserror::Error)]
#[error("no cgroup could be made; tried {}", tried.join("; "))]
pub(crate) struct CgroupError {
    pub(super) tried: Vec<String>,
}

/// A cgroup of ours. Dropping it kills what is in it.
#[derive(Debug)]
pub(crate) struct Cgroup {
    directory: PathBuf,
    procs: OwnedFd,
}

impl Cgroup {
    /// Makes one of this name below this process's own, or at the top of the hierarchy.
    pub(crate) fn create(name: &str) -> Result<Self, CgroupError> {
        let mut tried = Vec::new();
        for parent in candidates() {
            match Self::create_in(&parent, name) {
                Ok(cgroup) => return Ok(cgroup),
                Err(error) => tried.push(format!("{}: {error}", parent.display())),
            }
        }
        if tried.is_empty() {
            tried.push("no cgroup hierarchy is mounted".to_owned());
        }
        Err(CgroupError { tried })
    }

    pub(crate) fn create_in(parent: &Path, name: &str) -> io::Result<Self> {
        let directory = parent.join(name);
        fs::create_dir(&directory)?;
        usable(&directory).and_then(|()| Self::open(directory.clone())).inspect_err(|_| {
            // The error says why; an empty directory that stays behind does no harm.
            let _ = fs::remove_dir(&directory);
        })
    }

    /// One that is there.
    pub(super) fn open(directory: PathBuf) -> io::Result<Self> {
        let procs = open(
            &directory.join("cgroup.procs"),
            OFlag::O_WRONLY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )?;
        Ok(Self { directory, procs })
    }

    /// `cgroup.procs`, open for writing: whoever writes `0` to it is in.
    pub(crate) fn procs(&self) -> BorrowedFd<'_> {
        self.procs.as_fd()
    }

    /// Its directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Everything in it, and in what its members may have made below it.
    pub(crate) fn members(&self) -> Vec<i32> {
        subtree(&self.directory)
            .iter()
            .filter_map(|directory| fs::read_to_string(directory.join("cgroup.procs")).ok())
            .flat_map(|pids| pids.lines().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
            .collect()
    }

    /// Asks every member to end.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Kills every member, and returns who is left when the deadline has passed.
    pub(crate) async fn kill(&self, deadline: Deadline) -> Vec<Survivor> {
        let mut pause = Duration::from_millis(1);
        loop {
            self.kill_once();
            let left = self.members();
            if left.is_empty() {
                return Vec::new();
            }
            if deadline.has_passed() {
                return self.survivors();
            }
            tokio::time::sleep(pause.min(deadline.remaining())).await;
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// The members, as they are now.
    pub(crate) fn survivors(&self) -> Vec<Survivor> {
        self.members().into_iter().filter_map(survivor).collect()
    }

    /// Lets the members live on, in the cgroup above; returns how many.
    pub(crate) fn release_members(&self) -> usize {
        let Some(parent) = self.directory.parent() else { return 0 };
        let members = self.members();
        for pid in &members {
            // A process that has ended meanwhile needs no other place.
            let _ = fs::write(parent.join("cgroup.procs"), pid.to_string());
        }
        members.len()
    }

    /// Kills every member there is now. One that sits in an uninterruptible system call dies when
    /// that returns.
    pub(crate) fn kill_once(&self) {
        // Linux 5.14: atomic, forks included.
        if fs::write(self.directory.join("cgroup.kill"), "1").is_ok() {
            return;
        }
        // Older, or v1: stop everything, so that no fork slips between two reads of the list. A
        // frozen task of cgroup v1 dies when it is thawed.
        self.set_stopped(true);
        self.signal(Signal::SIGKILL);
        self.set_stopped(false);
    }

    fn set_stopped(&self, stopped: bool) {
        let (v1, v2, forks) = if stopped { ("FROZEN", "1", "0") } else { ("THAWED", "0", "max") };
        // Each hierarchy has one of these; the others are not there.
        let _ = fs::write(self.directory.join("freezer.state"), v1);
        let _ = fs::write(self.directory.join("cgroup.freeze"), v2);
        let _ = fs::write(self.directory.join("pids.max"), forks);
    }

    fn signal(&self, signal: Signal) {
        for pid in self.members() {
            // It may have ended meanwhile.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    fn remove(&self) {
        for directory in subtree(&self.directory).iter().rev() {
            // Refused while somebody is in it; then it stays, and is empty some day.
            let _ = fs::remove_dir(directory);
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let deadline = Deadline::after(DROP_BUDGET);
        while !self.members().is_empty() && !deadline.has_passed() {
            self.kill_once();
            std::thread::sleep(Duration::from_millis(1));
        }
        self.remove();
    }
}

/// A new cgroup can be joined: in a threaded subtree of cgroup2 it cannot.
fn usable(directory: &Path) -> io::Result<()> {
    match fs::read_to_string(directory.join("cgroup.type")) {
        Ok(kind) if kind.trim() != "domain" => Err(Errno::EOPNOTSUPP.into()),
        // v1 has no types.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// `top` and every directory below it, parents first.
pub(super) fn subtree(top: &Path) -> Vec<PathBuf> {
    let mut found = vec![top.to_owned()];
    let mut next = 0;
    while let Some(directory) = found.get(next).cloned() {
        next += 1;
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        found.extend(
            entries
                .filter_map(Result::ok)
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
    }
    found
}

pub(super) fn survivor(pid: i32) -> Option<Survivor> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // `pid (command) state …`; the command may contain anything, parentheses too.
    let (head, tail) = stat.rsplit_once(')')?;
    let (_, command) = head.split_once('(')?;
    Some(Survivor { pid, command: command.to_owned(), state: tail.trim_start().chars().next()? })
}
