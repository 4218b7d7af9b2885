//! Where cgroups can be made: version 2, version 1, or both side by side.

use std::fs;
use std::path::{Path, PathBuf};

/// cgroup2 has no controller in `/proc/self/cgroup`.
pub(super) const UNIFIED: &str = "";

/// Hierarchies in which processes can be kept together, best first.
const CONTROLLERS: [&str; 3] = [UNIFIED, "freezer", "pids"];

/// All hierarchies in which cgroups of ours can be: those above, and those that bound what a
/// program uses.
const ALL_CONTROLLERS: [&str; 5] = [UNIFIED, "freezer", "pids", "memory", "cpu"];

/// Where a cgroup could be made, best first.
pub(super) fn candidates() -> Vec<PathBuf> {
    CONTROLLERS.into_iter().flat_map(of_controller).collect()
}

/// Where a cgroup could be made in the hierarchy of this controller, best first.
pub(super) fn of_controller(controller: &str) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    places(&mounts, &own, controller)
}

/// Mount points of all hierarchies in which cgroups of ours can be; those first in which a whole
/// cgroup can be killed at once.
pub(super) fn mount_points() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let found = |controller| mounts.lines().find_map(|line| hierarchy(line, controller));
    let mut points = Vec::new();
    for (_, point) in ALL_CONTROLLERS.into_iter().filter_map(found) {
        if !points.contains(&point) {
            points.push(point);
        }
    }
    points
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

    use super::places;

    const HYBRID: &str = "\
30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
32 30 0:28 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

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
