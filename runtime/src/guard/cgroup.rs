//! A cgroup of the sentinel's own, so that killing the agent's cgroup does not kill all of us.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Kinds of hierarchies to try, best first: cgroup2 has `cgroup.kill`; of the old ones, those by
/// which managers end or stop what they manage.
const V1_CONTROLLERS: [&str; 3] = ["name=systemd", "pids", "freezer"];

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
            let _ = fs::remove_dir(&self.0);
        }
    }
}

/// Moves this process to a new cgroup.
///
/// # Errors
/// The last refusal, if no mounted hierarchy lets us.
pub(crate) fn enter_own() -> io::Result<OwnCgroup> {
    let table = fs::read_to_string("/proc/self/mounts")?;
    let mut refusal = io::Error::other("no cgroup hierarchy is mounted");
    for hierarchy in hierarchies(&table) {
        match enter_below(&hierarchy) {
            Ok(cgroup) => return Ok(cgroup),
            Err(error) => refusal = error,
        }
    }
    Err(refusal)
}

fn enter_below(hierarchy: &Path) -> io::Result<OwnCgroup> {
    let pid = std::process::id();
    let cgroup = hierarchy.join(format!("stillpoint-sentinel-{pid}"));
    fs::create_dir(&cgroup)?;
    fs::write(cgroup.join("cgroup.procs"), pid.to_string())
        .inspect_err(|_| drop(fs::remove_dir(&cgroup)))?;
    Ok(OwnCgroup(cgroup))
}

/// Mount points of writable hierarchies, in the order to try.
fn hierarchies(table: &str) -> Vec<PathBuf> {
    let fields = table.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mounts: Vec<_> =
        fields.filter(|f| f.len() > 3 && f[3].split(',').any(|o| o == "rw")).collect();
    let unified = mounts.iter().filter(|f| f[2] == "cgroup2");
    let old = V1_CONTROLLERS.iter().flat_map(|controller| {
        let with =
            move |f: &&Vec<&str>| f[2] == "cgroup" && f[3].split(',').any(|o| o == *controller);
        mounts.iter().filter(with)
    });
    unified.chain(old).map(|f| PathBuf::from(f[1])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unified_hierarchy_comes_first_and_read_only_ones_never() {
        let table = "cgroup /c/pids cgroup rw,pids 0 0\ncgroup2 /c/unified cgroup2 rw,relatime 0 0\n\
                     cgroup /c/freezer cgroup ro,freezer 0 0\ncgroup /c/sd cgroup rw,name=systemd 0 0\n";
        let found = hierarchies(table);
        assert_eq!(found, ["/c/unified", "/c/sd", "/c/pids"].map(PathBuf::from));
    }
}
