//! Cgroups of ours: what a script or a program starts stays in one, and ends with it. cgroup2 where
//! there is one; else the v1 freezer or pids hierarchy. What bounds a program's processes, memory and
//! CPU may be in a hierarchy of either version.
//!
//! A cgroup's name has the purpose, the agent's process id and its start time: so what an agent that
//! died has left can be told from what a living one uses.

mod group;
mod limits;
mod places;

use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) use group::Cgroup;
pub use group::Survivor;
pub(crate) use limits::{Bound, Bounds, LimitedCgroup};

use crate::journal::ProcessId;

/// A name that no other agent uses, not even one that has this process id later:
/// `stillpoint-PURPOSE-PID-START-NUMBER`.
pub(crate) fn name_for(purpose: &str) -> String {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let ProcessId { pid, started } = ProcessId::myself();
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    format!("stillpoint-{purpose}-{pid}-{started}-{serial}")
}

/// Cgroups for this purpose whose agent has died, each with what its name has after the number.
pub(crate) fn remains(purpose: &str) -> Vec<(String, Cgroup)> {
    places::mount_points()
        .iter()
        .flat_map(|mount_point| group::subtree(mount_point))
        .filter_map(|directory| {
            let rest = of_dead(directory.file_name()?.to_str()?, purpose)?;
            Some((rest, Cgroup::open(directory).ok()?))
        })
        .collect()
}

/// What follows the number, if this is the name of a cgroup for this purpose and its agent is not
/// there any more.
pub(crate) fn of_dead(name: &str, purpose: &str) -> Option<String> {
    let mut words = name.strip_prefix(&format!("stillpoint-{purpose}-"))?.splitn(4, '-');
    let (pid, started, _serial) = (words.next()?, words.next()?, words.next()?);
    let agent = ProcessId { pid: pid.parse().ok()?, started: started.parse().ok()? };
    if agent.is_alive() {
        return None;
    }
    Some(words.next().unwrap_or_default().to_owned())
}
