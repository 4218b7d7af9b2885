//! Which file system a path is on, and whether that is in the snapshot. Hooks name their data
//! directories; what they name must be frozen.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Component, Path, PathBuf};

use super::mounts::{Mount, MountTable};
use super::select::{Coverage, Selection};
use super::topology::{Inventory, Layer, Topology};
use super::{DevId, Plan, PlanError, kinds};

/// As the kernel: more links than this are a ring.
const MAX_LINKS: usize = 40;

/// Where a path lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The path that was asked for.
    pub asked: PathBuf,
    /// Its nearest existing part, without symbolic links.
    pub path: PathBuf,
    /// False: it does not exist, and this is about the nearest directory above it that does.
    pub exists: bool,
    /// The mount that it is on.
    pub mount_point: PathBuf,
    /// The superblock of that mount.
    pub superblock: DevId,
    /// Its type.
    pub fs_type: String,
    /// It is among the file systems that are frozen.
    pub frozen: bool,
    /// All of it lies on disks of the snapshot.
    pub in_snapshot: bool,
    /// Ids of the snapshot's disks that it lies on.
    pub disks: Vec<String>,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Owner { asked, path, mount_point, fs_type, .. } = self;
        write!(f, "{}", asked.display())?;
        if !self.exists {
            write!(f, " (does not exist; {} does)", path.display())?;
        } else if asked != path {
            write!(f, " (which is {})", path.display())?;
        }
        write!(f, " is on {} ({fs_type}), ", mount_point.display())?;
        f.write_str(match (self.in_snapshot, self.frozen) {
            (true, true) => "in the snapshot and frozen",
            (true, false) => "in the snapshot but not frozen",
            (false, _) => "not in the snapshot",
        })
    }
}

/// Says which mount `path` is on, and whether that is in the plan. Symbolic links are followed;
/// network file systems, automount points and FUSE are never looked into.
///
/// # Errors
/// [`PlanError::NoOwner`]: the path is not absolute, or its links form a ring.
/// [`PlanError::Cycle`]: what it is on lies on itself.
pub fn find_owner(inventory: &Inventory, plan: &Plan, path: &Path) -> Result<Owner, PlanError> {
    let topology = Topology::new(inventory);
    let place = Place::find(&topology.table, path)?;
    let top = Layer::FileSystem(place.mount.superblock);
    let layers = topology.closure(top)?;
    let selection = Selection::of_plan(plan);
    Ok(Owner {
        asked: path.to_owned(),
        path: place.path,
        exists: place.exists,
        mount_point: place.mount.mount_point.clone(),
        superblock: place.mount.superblock,
        fs_type: place.mount.fs_type.clone(),
        frozen: plan.file_systems.iter().any(|it| it.superblock == place.mount.superblock),
        in_snapshot: selection.coverage(&topology, top) == Coverage::Full,
        disks: selection.ids(&layers),
    })
}

/// `path` without symbolic links, as far as it exists; what does not exist is kept as it is. Never
/// looks into network file systems, automount points and FUSE.
///
/// # Errors
/// [`PlanError::NoOwner`]: the path is not absolute, or its links form a ring.
pub fn canonical(inventory: &Inventory, path: &Path) -> Result<PathBuf, PlanError> {
    let place = Place::find(&MountTable::new(&inventory.mounts), path)?;
    let nothing_left = place.rest.as_os_str().is_empty();
    Ok(if nothing_left { place.path } else { place.path.join(place.rest) })
}

/// Where a path leads.
struct Place<'a> {
    path: PathBuf,
    rest: PathBuf,
    exists: bool,
    mount: &'a Mount,
}

impl<'a> Place<'a> {
    /// Follows `path` link by link, and stops before it would look into a file system that could
    /// make us wait.
    fn find(table: &MountTable<'a>, path: &Path) -> Result<Self, PlanError> {
        let error = |why| PlanError::NoOwner { path: path.to_owned(), why };
        if !path.is_absolute() {
            return Err(error("it is not an absolute path"));
        }
        let mut todo = components(path);
        let mut done = PathBuf::from("/");
        let mut links = 0;
        let mut stopped = false;
        while let Some(name) = todo.pop_front() {
            if name == ".." {
                done.pop();
                continue;
            }
            let next = done.join(&name);
            if table.walk(&next).iter().any(|mount| !kinds::is_local(mount)) {
                // The mount itself is known without looking; what is inside is its own affair.
                stopped = true;
                done = next;
                break;
            }
            let Ok(meta) = fs::symlink_metadata(&next) else {
                todo.push_front(name);
                break;
            };
            if !meta.file_type().is_symlink() {
                done = next;
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(error("its symbolic links form a ring"));
            }
            let target = fs::read_link(&next).map_err(|_| error("a link cannot be read"))?;
            if target.is_absolute() {
                done = PathBuf::from("/");
            }
            for part in components(&target).into_iter().rev() {
                todo.push_front(part);
            }
        }
        let mount = table.resolve(&done).ok_or_else(|| error("no mount leads there"))?;
        let exists = stopped || todo.is_empty();
        Ok(Self { path: done, rest: todo.into_iter().collect(), exists, mount })
    }
}

fn components(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
        .collect()
}
