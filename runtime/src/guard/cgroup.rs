//! A cgroup of the sentinel's own, so that killing the agent's cgroup does not kill all of us; and
//! one for the recovery that it starts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::protocol::{RECOVERY_NAME, SENTINEL_NAME};
use crate::journal::ProcessId;

/// How often a cgroup that is still busy is tried, and the pause in between: 50 ms in all.
const REMOVE_ATTEMPTS: u32 = 25;
const A_MOMENT: Duration = Duration::from_millis(2);

/// Kinds of hierarchies to try, best first: cgroup2 has `cgroup.kill`; of the old ones, those by
/// which managers end or stop what they manage.
const V1_CONTROLLERS: [&str; 3] = ["name=systemd", "pids", "freezer"];

/// Of the old hierarchies, those by which processes are slowed down or stopped.
const V1_LIMITS: [&str; 2] = ["cpu", "freezer"];

/// A cgroup of this process's own. Dropping it moves the process out of it and removes it; a manager
/// that keeps processes out of the root leaves that to whoever outlives us: the agent, or the next
/// run's recovery.
#[derive(Debug)]
pub(crate) struct OwnCgroup(PathBuf);

impl OwnCgroup {
    /// Its directory.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for OwnCgroup {
    fn drop(&mut self) {
        if let Some(hierarchy) = self.0.parent() {
            let _ = fs::write(hierarchy.join("cgroup.procs"), std::process::id().to_string());
            remove(&self.0);
        }
    }
}

/// Removes a cgroup that nobody is in any more. A process that has just ended is taken out of it a
/// moment after its pidfd says so (Linux 6.18), and until then the kernel says "busy".
pub(crate) fn remove(cgroup: &Path) {
    for _ in 0..REMOVE_ATTEMPTS {
        match fs::remove_dir(cgroup) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => thread::sleep(A_MOMENT),
            _ => return,
        }
    }
}

/// What the cgroups of ours are called: then comes the process id.
const NAMES: [&str; 2] = [SENTINEL_NAME, RECOVERY_NAME];

/// Moves this process to a new cgroup, `NAME-PID`.
///
/// # Errors
/// The last refusal, if no mounted hierarchy lets us.
pub(crate) fn enter_own(name: &str) -> io::Result<OwnCgroup> {
    let table = fs::read_to_string("/proc/self/mounts")?;
    let mut refusal = io::Error::other("no cgroup hierarchy is mounted");
    for hierarchy in hierarchies(&table) {
        match enter_below(&hierarchy, name) {
            Ok(cgroup) => return Ok(cgroup),
            Err(error) => refusal = error,
        }
    }
    Err(refusal)
}

/// Leaves, where hierarchies are many, those cgroups of the agent's in which it could be starved or
/// stopped: one who watches over a deadline must run when the others do not. (In cgroup2 the cgroup of
/// its own does that.) Best effort: a manager may not allow it, and then the guard is left.
pub(crate) fn leave_limits() {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for top in with_controllers(&writable(&table), &V1_LIMITS) {
        let _ = fs::write(top.join("cgroup.procs"), std::process::id().to_string());
    }
}

/// True if this process is in the same cgroup as `pid` in every hierarchy, and that cgroup can be
/// killed: the top of a hierarchy cannot.
pub(crate) fn is_shared_with(pid: u32) -> bool {
    let of = |pid: &str| fs::read_to_string(format!("/proc/{pid}/cgroup")).ok();
    match (of("self"), of(&pid.to_string())) {
        (Some(mine), Some(other)) => mine == other && !is_at_the_top(&mine),
        // Without cgroups in the kernel nobody can kill one.
        _ => false,
    }
}

fn is_at_the_top(table: &str) -> bool {
    table.lines().all(|line| line.splitn(3, ':').nth(2) == Some("/"))
}

/// Removes cgroups of ours whose process is gone. One that a process is in stays: the kernel refuses.
pub(crate) fn remove_stale() {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let children = hierarchies(&table).into_iter().filter_map(|top| fs::read_dir(top).ok());
    for entry in children.flatten().filter_map(Result::ok) {
        if entry.file_name().to_str().and_then(pid_of).is_some_and(is_gone) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// One that nobody has waited for is gone, too: where the first process of a container does not, it is
/// never more than that.
fn is_gone(pid: u32) -> bool {
    ProcessId::of(pid).is_none_or(|process| !process.is_alive())
}

fn pid_of(cgroup: &str) -> Option<u32> {
    NAMES.iter().find_map(|name| cgroup.strip_prefix(name)?.strip_prefix('-')?.parse().ok())
}

fn enter_below(hierarchy: &Path, name: &str) -> io::Result<OwnCgroup> {
    let pid = std::process::id();
    let cgroup = hierarchy.join(format!("{name}-{pid}"));
    fs::create_dir(&cgroup)?;
    fs::write(cgroup.join("cgroup.procs"), pid.to_string())
        .inspect_err(|_| drop(fs::remove_dir(&cgroup)))?;
    Ok(OwnCgroup(cgroup))
}

/// Mount points of writable hierarchies, in the order to try.
fn hierarchies(table: &str) -> Vec<PathBuf> {
    let mounts = writable(table);
    let unified = mounts.iter().filter(|f| f[2] == "cgroup2").map(|f| PathBuf::from(f[1]));
    unified.chain(with_controllers(&mounts, &V1_CONTROLLERS)).collect()
}

/// The fields of each mount that can be written to.
fn writable(table: &str) -> Vec<Vec<&str>> {
    let fields = table.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields.filter(|f| f.len() > 3 && f[3].split(',').any(|o| o == "rw")).collect()
}

/// Mount points of old hierarchies, in the order of the controllers.
fn with_controllers(mounts: &[Vec<&str>], controllers: &[&str]) -> Vec<PathBuf> {
    let of = |controller: &str| -> Vec<PathBuf> {
        let has = |f: &&Vec<&str>| f[2] == "cgroup" && f[3].split(',').any(|o| o == controller);
        mounts.iter().filter(has).map(|f| PathBuf::from(f[1])).collect()
    };
    controllers.iter().flat_map(|controller| of(controller)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_cgroups_of_ours_name_a_process() {
        assert_eq!(pid_of("stillpoint-sentinel-17"), Some(17));
        assert_eq!(pid_of("stillpoint-recovery-4"), Some(4));
        assert_eq!(pid_of("stillpoint-watchdog-17"), None);
        assert_eq!(pid_of("stillpoint-sentinel.service"), None);
    }

    #[test]
    fn a_process_that_nobody_waited_for_is_gone() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let status = format!("/proc/{}/status", child.id());
        while !fs::read_to_string(&status).unwrap().contains("State:\tZ") {
            thread::sleep(A_MOMENT);
        }
        assert!(is_gone(child.id()));
        assert!(!is_gone(std::process::id()));
        child.wait().unwrap();
    }

    #[test]
    fn the_top_of_every_hierarchy_is_what_nobody_can_kill() {
        assert!(is_at_the_top("3:pids:/\n0::/\n"));
        assert!(!is_at_the_top("3:pids:/\n0::/system.slice/a:b\n"));
    }

    #[test]
    fn the_unified_hierarchy_comes_first_and_read_only_ones_never() {
        let table = "cgroup /c/pids cgroup rw,pids 0 0\ncgroup2 /c/unified cgroup2 rw,relatime 0 0\n\
                     cgroup /c/freezer cgroup ro,freezer 0 0\ncgroup /c/sd cgroup rw,name=systemd 0 0\n";
        let found = hierarchies(table);
        assert_eq!(found, ["/c/unified", "/c/sd", "/c/pids"].map(PathBuf::from));
        let table = "cgroup /c/cpu,cpuacct cgroup rw,nosuid,cpu,cpuacct 0 0\n";
        let limits = with_controllers(&writable(table), &V1_LIMITS);
        assert_eq!(limits, ["/c/cpu,cpuacct"].map(PathBuf::from));
    }
}
