//! A cgroup for one script: what it starts stays in it, daemons and `setsid` included, and ends
//! with it. cgroup2 where there is one; else the v1 freezer or pids hierarchy.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::Pid;

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
#[error("no cgroup for the script could be made; tried {}", tried.join("; "))]
pub(super) struct CgroupError {
    tried: Vec<String>,
}

/// A cgroup of ours. Dropping it kills what is in it.
#[derive(Debug)]
pub(super) struct Cgroup {
    directory: PathBuf,
    procs: OwnedFd,
}

/// What every cgroup of a script is called by; then come the agent's process id and start time, a
/// number, and the part.
const PREFIX: &str = "stillpoint-script-";

/// Whose script a cgroup is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Pre,
    Post,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Part::Pre => "pre",
            Part::Post => "post",
        }
    }
}

/// A name that no other agent uses, not even one that has this process id later.
pub(super) fn name_for(part: Part) -> String {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let pid = i32::try_from(std::process::id()).unwrap_or(0);
    let started = start_time(pid).unwrap_or_default();
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    format!("{PREFIX}{pid}-{started}-{serial}-{}", part.name())
}

/// Cgroups of scripts whose agent has died.
pub(super) fn remains() -> Vec<(Part, Cgroup)> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    CONTROLLERS
        .into_iter()
        .filter_map(|controller| mounts.lines().find_map(|line| hierarchy(line, controller)))
        .flat_map(|(_, mount_point)| subtree(&mount_point))
        .filter_map(|directory| {
            let part = part_of_dead(directory.file_name()?.to_str()?)?;
            Some((part, Cgroup::open(directory).ok()?))
        })
        .collect()
}

/// The part, if this is the name of a script's cgroup and its agent is not there any more.
fn part_of_dead(name: &str) -> Option<Part> {
    let mut words = name.strip_prefix(PREFIX)?.split('-');
    let (pid, started, _serial) = (words.next()?, words.next()?, words.next()?);
    let alive = start_time(pid.parse().ok()?).is_some_and(|now| now.to_string() == started);
    if alive {
        return None;
    }
    let part = words.next()?;
    [Part::Pre, Part::Post].into_iter().find(|known| known.name() == part)
}

/// When a process started, in the kernel's own clock ticks.
pub(super) fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Field 22 of all; what follows the command begins with field 3.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

impl Cgroup {
    /// Makes one of this name below this process's own, or at the top of the hierarchy.
    pub(super) fn create(name: &str) -> Result<Self, CgroupError> {
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

    pub(super) fn create_in(parent: &Path, name: &str) -> io::Result<Self> {
        let directory = parent.join(name);
        fs::create_dir(&directory)?;
        usable(&directory).and_then(|()| Self::open(directory.clone())).inspect_err(|_| {
            // The error says why; an empty directory that stays behind does no harm.
            let _ = fs::remove_dir(&directory);
        })
    }

    /// One that is there.
    fn open(directory: PathBuf) -> io::Result<Self> {
        let procs = open(
            &directory.join("cgroup.procs"),
            OFlag::O_WRONLY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )?;
        Ok(Self { directory, procs })
    }

    /// `cgroup.procs`, open for writing: whoever writes `0` to it is in.
    pub(super) fn procs(&self) -> BorrowedFd<'_> {
        self.procs.as_fd()
    }

    #[cfg(test)]
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Everything in it, and in what the script may have made below it.
    pub(super) fn members(&self) -> Vec<i32> {
        subtree(&self.directory)
            .iter()
            .filter_map(|directory| fs::read_to_string(directory.join("cgroup.procs")).ok())
            .flat_map(|pids| pids.lines().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
            .collect()
    }

    /// Asks every member to end.
    pub(super) fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Kills every member, and returns who is left when the deadline has passed.
    pub(super) async fn kill(&self, deadline: Deadline) -> Vec<Survivor> {
        let mut pause = Duration::from_millis(1);
        loop {
            self.kill_once();
            let left = self.members();
            if left.is_empty() {
                return Vec::new();
            }
            if deadline.has_passed() {
                return left.into_iter().filter_map(survivor).collect();
            }
            tokio::time::sleep(pause.min(deadline.remaining())).await;
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// Lets the members live on, in the cgroup above; returns how many.
    pub(super) fn release_members(&self) -> usize {
        let Some(parent) = self.directory.parent() else { return 0 };
        let members = self.members();
        for pid in &members {
            // A process that has ended meanwhile needs no other place.
            let _ = fs::write(parent.join("cgroup.procs"), pid.to_string());
        }
        members.len()
    }

    fn kill_once(&self) {
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
fn subtree(top: &Path) -> Vec<PathBuf> {
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

fn survivor(pid: i32) -> Option<Survivor> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // `pid (command) state …`; the command may contain anything, parentheses too.
    let (head, tail) = stat.rsplit_once(')')?;
    let (_, command) = head.split_once('(')?;
    Some(Survivor { pid, command: command.to_owned(), state: tail.trim_start().chars().next()? })
}

/// Hierarchies that serve, best first; cgroup2 has no controller in `/proc/self/cgroup`.
const CONTROLLERS: [&str; 3] = ["", "freezer", "pids"];

/// Where a cgroup could be made, best first.
fn candidates() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    CONTROLLERS.into_iter().flat_map(|controller| places(&mounts, &own, controller)).collect()
}

/// This process's own cgroup in one hierarchy, and that hierarchy's top.
fn places(mounts: &str, own: &str, controller: &str) -> Vec<PathBuf> {
    let Some((root, mount_point)) = mounts.lines().find_map(|line| hierarchy(line, controller))
    else {
        return Vec::new();
    };
    let own = own.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|name| name == controller).then_some(path)
    });
    let below = own
        .and_then(|path| Path::new(path).strip_prefix(root).ok())
        .map(|relative| mount_point.join(relative));
    let mut places: Vec<PathBuf> = below.into_iter().collect();
    if !places.contains(&mount_point) {
        places.push(mount_point);
    }
    places
}

/// Root and mount point of a line of mountinfo, if it is the hierarchy of this controller.
fn hierarchy<'a>(line: &'a str, controller: &str) -> Option<(&'a str, PathBuf)> {
    let (mount, kind) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(3);
    let (root, mount_point) = (mount.next()?, mount.next()?);
    let mut kind = kind.split(' ');
    let (fs_type, options) = (kind.next()?, kind.nth(1)?);
    let wanted = match controller {
        "" => fs_type == "cgroup2",
        name => fs_type == "cgroup" && options.split(',').any(|option| option == name),
    };
    wanted.then(|| (root, PathBuf::from(mount_point)))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{Part, name_for, part_of_dead, places};

    const HYBRID: &str = "\
30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
32 30 0:28 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn only_the_cgroup_of_an_agent_that_is_gone_is_a_remain() {
        let ours = name_for(Part::Pre);
        assert_eq!(part_of_dead(&ours), None);
        // The same process id, but another start: its process id was given out again.
        let pid = std::process::id();
        assert_eq!(part_of_dead(&format!("stillpoint-script-{pid}-1-0-pre")), Some(Part::Pre));
        assert_eq!(part_of_dead("stillpoint-script-0-1-0-post"), Some(Part::Post));
        assert_eq!(part_of_dead("stillpoint-sentinel-0"), None);
        assert_eq!(part_of_dead("stillpoint-script-x"), None);
    }

    #[test]
    fn our_own_cgroup_comes_before_the_top() {
        let own = "6:freezer:/\n0::/system.slice/agent.service\n";
        assert_eq!(
            places(HYBRID, own, ""),
            [
                PathBuf::from("/sys/fs/cgroup/unified/system.slice/agent.service"),
                PathBuf::from("/sys/fs/cgroup/unified"),
            ]
        );
        assert_eq!(places(HYBRID, own, "freezer"), [PathBuf::from("/sys/fs/cgroup/freezer/")]);
    }

    #[test]
    fn a_hierarchy_that_is_not_mounted_offers_no_place() {
        assert_eq!(places(HYBRID, "8:pids:/x\n", "pids"), Vec::<PathBuf>::new());
    }
}
