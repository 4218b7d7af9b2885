//! A cgroup with bounds: how many processes, how much memory and CPU those in it may use together.

use std::fs;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use super::group::{Cgroup, CgroupError, Survivor};
use super::places;

/// The period that a share of CPU time is counted in, in microseconds: the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;

/// What the members of a cgroup may use together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bounds {
    /// Processes and threads.
    pub(crate) processes: u64,
    /// Memory, in bytes; swap is not added to it.
    pub(crate) memory_bytes: u64,
    /// CPUs; 0.5 is half of one.
    pub(crate) cpus: f64,
}

/// What can be bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    Processes,
    Memory,
    Cpu,
}

impl Bound {
    pub(crate) const ALL: [Bound; 3] = [Bound::Processes, Bound::Memory, Bound::Cpu];

    /// The controller that does it, in both versions.
    pub(crate) fn controller(self) -> &'static str {
        match self {
            Bound::Processes => "pids",
            Bound::Memory => "memory",
            Bound::Cpu => "cpu",
        }
    }

    /// Files of cgroup2; the first must be there, the others are not in every kernel.
    fn unified(self, bounds: &Bounds) -> Vec<(&'static str, String)> {
        match self {
            Bound::Processes => vec![("pids.max", bounds.processes.to_string())],
            Bound::Memory => vec![
                ("memory.max", bounds.memory_bytes.to_string()),
                ("memory.swap.max", "0".to_owned()),
                // One of them is killed: what is left of the program is of no use.
                ("memory.oom.group", "1".to_owned()),
            ],
            Bound::Cpu => vec![("cpu.max", format!("{} {CPU_PERIOD_US}", quota_us(bounds)))],
        }
    }

    /// Files of version 1.
    fn legacy(self, bounds: &Bounds) -> Vec<(&'static str, String)> {
        match self {
            Bound::Processes => vec![("pids.max", bounds.processes.to_string())],
            Bound::Memory => vec![
                ("memory.limit_in_bytes", bounds.memory_bytes.to_string()),
                ("memory.memsw.limit_in_bytes", bounds.memory_bytes.to_string()),
            ],
            Bound::Cpu => vec![("cpu.cfs_quota_us", quota_us(bounds).to_string())],
        }
    }
}

fn quota_us(bounds: &Bounds) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a grant has 0.01 to 1024 CPUs"
    )]
    let quota = (bounds.cpus * CPU_PERIOD_US as f64) as u64;
    // The kernel's least.
    quota.max(1_000)
}

/// A cgroup that keeps its members together, and others beside it that bound what they use, where
/// its own hierarchy cannot. Dropping it kills what is in it.
#[derive(Debug)]
pub(crate) struct LimitedCgroup {
    whole: Cgroup,
    beside: Vec<Cgroup>,
    unbounded: Vec<Bound>,
}

impl LimitedCgroup {
    /// Makes one. A bound that no hierarchy can keep is no error: see [`LimitedCgroup::unbounded`].
    ///
    /// # Errors
    /// If no cgroup can be made at all.
    pub(crate) fn create(name: &str, bounds: &Bounds) -> Result<Self, CgroupError> {
        let whole = create_where_most_is_bounded(name)?;
        let (mut beside, mut unbounded) = (Vec::new(), Vec::new());
        for bound in Bound::ALL {
            if set(whole.directory(), &bound.unified(bounds)) {
                continue;
            }
            match create_legacy(name, bound, bounds) {
                Some(cgroup) => beside.push(cgroup),
                None => unbounded.push(bound),
            }
        }
        Ok(Self { whole, beside, unbounded })
    }

    /// What nothing on this machine bounds.
    pub(crate) fn unbounded(&self) -> &[Bound] {
        &self.unbounded
    }

    /// `cgroup.procs` of each, open for writing.
    pub(crate) fn procs(&self) -> Vec<BorrowedFd<'_>> {
        std::iter::once(&self.whole).chain(&self.beside).map(Cgroup::procs).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.whole.members().is_empty()
    }

    pub(crate) fn survivors(&self) -> Vec<Survivor> {
        self.whole.survivors()
    }

    pub(crate) fn kill_once(&self) {
        self.whole.kill_once();
    }
}

/// This process's own cgroup may have no controllers to give (a service's never has, unless it was
/// delegated), and the top of the hierarchy all of them.
fn create_where_most_is_bounded(name: &str) -> Result<Cgroup, CgroupError> {
    let mut candidates = places::candidates();
    candidates.sort_by_cached_key(|place| {
        enable_controllers(place);
        let given = fs::read_to_string(place.join("cgroup.subtree_control")).unwrap_or_default();
        let is_given = |bound: &Bound| given.split_whitespace().any(|it| it == bound.controller());
        Bound::ALL.iter().filter(|bound| !is_given(bound)).count()
    });
    let mut tried = Vec::new();
    for place in candidates {
        match Cgroup::create_in(&place, name) {
            Ok(cgroup) => return Ok(cgroup),
            Err(error) => tried.push(format!("{}: {error}", place.display())),
        }
    }
    if tried.is_empty() {
        tried.push("no cgroup hierarchy is mounted".to_owned());
    }
    Err(CgroupError { tried })
}

/// Lets the cgroups below a place have what the place has. Refused where processes are in the place
/// itself, but for the top; in a hierarchy of version 1 there is no such file.
fn enable_controllers(place: &Path) {
    let file = place.join("cgroup.subtree_control");
    let Ok(given) = fs::read_to_string(&file) else { return };
    let has = fs::read_to_string(place.join("cgroup.controllers")).unwrap_or_default();
    for bound in Bound::ALL {
        let controller = bound.controller();
        let is_in = |list: &str| list.split_whitespace().any(|it| it == controller);
        if is_in(&has) && !is_in(&given) {
            // What cannot be had is found missing below.
            let _ = fs::write(&file, format!("+{controller}"));
        }
    }
}

/// One in the hierarchy of version 1 that has the bound's controller.
fn create_legacy(name: &str, bound: Bound, bounds: &Bounds) -> Option<Cgroup> {
    let places: Vec<PathBuf> = places::of_controller(bound.controller());
    places.iter().find_map(|place| {
        let cgroup = Cgroup::create_in(place, name).ok()?;
        set(cgroup.directory(), &bound.legacy(bounds)).then_some(cgroup)
    })
}

/// True if the first of the files took its value. The others make a bound tighter where they are.
fn set(directory: &Path, files: &[(&str, String)]) -> bool {
    let write = |(file, value): &(&str, String)| {
        let path = directory.join(file);
        path.exists() && fs::write(path, value).is_ok()
    };
    let taken: Vec<bool> = files.iter().map(write).collect();
    taken.first().copied().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { processes: 7, memory_bytes: 32 << 20, cpus: 0.5 };

    fn read(cgroup: &Cgroup, file: &str) -> Option<String> {
        Some(fs::read_to_string(cgroup.directory().join(file)).ok()?.trim().to_owned())
    }

    #[test]
    fn every_bound_that_some_hierarchy_can_keep_is_set() {
        let name = crate::cgroup::name_for("test");
        let limited = LimitedCgroup::create(&name, &BOUNDS).unwrap();
        let all: Vec<&Cgroup> = std::iter::once(&limited.whole).chain(&limited.beside).collect();
        let found = |files: [&str; 2]| {
            files.iter().find_map(|file| all.iter().find_map(|cgroup| read(cgroup, file)))
        };
        for (bound, files, value) in [
            (Bound::Processes, ["pids.max", ""], "7"),
            (Bound::Memory, ["memory.max", "memory.limit_in_bytes"], "33554432"),
            (Bound::Cpu, ["cpu.max", "cpu.cfs_quota_us"], "50000"),
        ] {
            if limited.unbounded().contains(&bound) {
                eprintln!("not tested here: no {} controller", bound.controller());
                continue;
            }
            assert!(found(files).unwrap().starts_with(value), "{bound:?}");
        }
        let directories: Vec<PathBuf> = all.iter().map(|it| it.directory().to_owned()).collect();
        drop(limited);
        assert!(directories.iter().all(|directory| !directory.exists()), "{directories:?}");
    }

    #[test]
    fn a_share_of_cpu_is_never_less_than_the_kernel_takes() {
        assert_eq!(quota_us(&Bounds { cpus: 2.0, ..BOUNDS }), 200_000);
        assert_eq!(quota_us(&Bounds { cpus: 0.000_01, ..BOUNDS }), 1_000);
    }
}
