//! Writable copies of a group as loop devices, and deleting groups.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::libc;

use super::error::{fail, io_error, plan_error};
use super::group;
use super::store::{ATTACHED, MemberRecord, Store, StoredGroup};
use crate::exit_code::ExitCode;
use crate::plan::{BlockNode, Inventory};
use crate::provider::{AttachedCopy, PassingCopies, ProviderError};
use crate::sys::{loopdev, reflink};

/// Others (udev, blkid) can hold a loop device open for a moment.
const LET_GO: Duration = Duration::from_secs(3);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Deletes a group, unless a copy of it is attached.
pub(super) fn delete(store: &Store, id: &str) -> Result<(), ProviderError> {
    let group = store.find(id)?;
    let _locks = group.lock()?;
    let inventory = Inventory::collect().map_err(plan_error)?;
    if let [first, ..] = loops_on(&group, &inventory).as_slice() {
        return Err(fail(
            ExitCode::GroupState,
            format!("{} of group {id} is attached as /dev/{}", shown(first), first.name),
        )
        .hint("detach it first"));
    }
    let directories: BTreeSet<PathBuf> =
        group.folders.iter().filter_map(|folder| folder.parent()).map(Path::to_owned).collect();
    group::remove(id, &directories)
}

/// The group, if it can be used.
fn usable(store: &Store, id: &str) -> Result<StoredGroup, ProviderError> {
    let group = store.find(id)?;
    if let Some(why) = &group.incomplete {
        return Err(fail(ExitCode::GroupState, format!("group {id} cannot be used: {why}"))
            .hint("delete it, and restore another group"));
    }
    Ok(group)
}

/// Attaches a copy of each member that has no name: nothing of it is left when nobody has it open.
pub(super) fn attach_passing(store: &Store, id: &str) -> Result<PassingCopies, ProviderError> {
    let group = usable(store, id)?;
    let _locks = group.lock()?;
    let mut passing = PassingCopies { copies: Vec::new(), held: Vec::new(), lock: None };
    for member in group.record.iter().flat_map(|record| &record.members) {
        let clone = group.clone_of(member);
        // Not in the group's own folder: a group that is looked at can be restored and deleted.
        let above = group.folder_of(member);
        let directory = above.parent().unwrap_or(&above).to_owned();
        let cannot =
            |error| io_error(ExitCode::CreateFailed, "cannot make a copy in", &directory, error);
        let file = nameless_copy_of(&clone, &directory).map_err(cannot)?;
        let attached = loopdev::attach_passing(&file, &clone, member.geometry());
        let (device, node) = attached.map_err(|error| {
            io_error(
                ExitCode::CreateFailed,
                "cannot attach a copy as a loop device:",
                &clone,
                error,
            )
        })?;
        passing.held.push(device);
        passing.copies.push(AttachedCopy { disk: member.disk.clone(), copy: directory, node });
    }
    Ok(passing)
}

fn nameless_copy_of(clone: &Path, directory: &Path) -> io::Result<File> {
    let source = File::open(clone)?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_TMPFILE)
        .open(directory)?;
    reflink::adopt_no_cow(&source, &file)?;
    reflink::clone_file(&source, &file)?;
    Ok(file)
}

/// Attaches a writable copy of each member.
pub(super) fn attach(store: &Store, id: &str) -> Result<Vec<AttachedCopy>, ProviderError> {
    let group = usable(store, id)?;
    let _locks = group.lock()?;
    let inventory = Inventory::collect().map_err(plan_error)?;
    if let [first, ..] = loops_on(&group, &inventory).as_slice() {
        return Err(fail(
            ExitCode::GroupState,
            format!("a copy of group {id} is attached already, as /dev/{}", first.name),
        )
        .hint("detach it first"));
    }
    let mut undo = Undo { loops: Vec::new(), folders: Vec::new(), done: false };
    let mut attached = Vec::new();
    for member in group.record.iter().flat_map(|record| &record.members) {
        attached.push(attach_member(&group, member, &mut undo)?);
    }
    undo.done = true;
    Ok(attached)
}

fn attach_member(
    group: &StoredGroup,
    member: &MemberRecord,
    undo: &mut Undo,
) -> Result<AttachedCopy, ProviderError> {
    let folder = group.folder_of(member).join(ATTACHED);
    if !undo.folders.contains(&folder) {
        make_folder(&folder, &group.id)?;
        undo.folders.push(folder.clone());
    }
    let (clone, copy) = (group.clone_of(member), folder.join(&member.file));
    let cannot = |error| io_error(ExitCode::CreateFailed, "cannot make the copy", &copy, error);
    let file = copy_of(&clone, &copy).map_err(cannot)?;
    let node = loopdev::attach(&file, &copy, member.geometry()).map_err(|error| {
        io_error(ExitCode::CreateFailed, "cannot attach as a loop device:", &copy, error)
    })?;
    undo.loops.push(node.clone());
    Ok(AttachedCopy { disk: member.disk.clone(), copy, node })
}

fn make_folder(folder: &Path, id: &str) -> Result<(), ProviderError> {
    match DirBuilder::new().mode(0o700).create(folder) {
        // Not attached, but still there: a reboot came between. It may hold somebody's work.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(fail(
            ExitCode::GroupState,
            format!("{} is left from a copy of group {id} that was attached", folder.display()),
        )
        .hint("detach the copy: that deletes what is left of it")),
        other => {
            other.map_err(|error| io_error(ExitCode::CreateFailed, "cannot make", folder, error))
        }
    }
}

fn copy_of(clone: &Path, copy: &Path) -> io::Result<File> {
    let source = File::open(clone)?;
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(copy)?;
    reflink::adopt_no_cow(&source, &file)?;
    reflink::clone_file(&source, &file)?;
    Ok(file)
}

/// Takes back a copy that is attached only in part.
struct Undo {
    loops: Vec<PathBuf>,
    folders: Vec<PathBuf>,
    done: bool,
}

impl Drop for Undo {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        for node in &self.loops {
            if let Err(error) = let_go(node) {
                tracing::warn!("{} is left attached: {error}", node.display());
            }
        }
        for folder in &self.folders {
            if let Err(error) = fs::remove_dir_all(folder) {
                tracing::warn!("{} is left: {error}", folder.display());
            }
        }
    }
}

/// Detaches the copies of a group and deletes them. With none attached there is nothing to do.
pub(super) fn detach(store: &Store, id: &str) -> Result<(), ProviderError> {
    let group = store.find(id)?;
    let _locks = group.lock()?;
    let inventory = Inventory::collect().map_err(plan_error)?;
    let loops = loops_on(&group, &inventory);
    for node in &loops {
        refuse_if_mounted(node, &inventory)?;
    }
    for node in &loops {
        let path = Path::new("/dev").join(&node.name);
        let_go(&path).map_err(|error| {
            io_error(ExitCode::GroupState, "cannot detach", &path, error)
                .hint(format!("who uses it? `lsof {}`, `lsblk {0}`", path.display()))
        })?;
    }
    for folder in &group.folders {
        let folder = folder.join(ATTACHED);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error(ExitCode::GroupState, "cannot remove", &folder, error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn refuse_if_mounted(node: &BlockNode, inventory: &Inventory) -> Result<(), ProviderError> {
    let mounts = inventory.mounts_over(node.device);
    let Some(mount) = mounts.first() else { return Ok(()) };
    let place = mount.mount_point.display();
    Err(fail(ExitCode::GroupState, format!("/dev/{} is mounted at {place}", node.name))
        .hint(format!("`umount {place}` first")))
}

/// Detaches a loop device and waits until the kernel has let go of its file.
fn let_go(node: &Path) -> io::Result<()> {
    let device = loopdev::open(node)?;
    let Some(before) = loopdev::status_of(&device)? else { return Ok(()) };
    loopdev::detach(&device)?;
    // As long as we hold it open, it stays.
    drop(device);
    let mut waited = Duration::ZERO;
    while loopdev::status(node)? == Some(before) {
        if waited >= LET_GO {
            return Err(io::Error::other("it is still in use"));
        }
        thread::sleep(LOOK_AGAIN);
        waited += LOOK_AGAIN;
    }
    Ok(())
}

/// The loop devices whose files lie in the group's folders.
fn loops_on<'a>(group: &StoredGroup, inventory: &'a Inventory) -> Vec<&'a BlockNode> {
    let in_group = |path: &Path| group.folders.iter().any(|folder| path.starts_with(folder));
    inventory
        .blocks
        .values()
        .filter(|node| node.backing.as_ref().is_some_and(|backing| in_group(&backing.path)))
        .collect()
}

fn shown(node: &BlockNode) -> String {
    node.backing.as_ref().map(|backing| backing.path.display().to_string()).unwrap_or_default()
}
