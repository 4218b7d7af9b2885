//! Which loop devices can be snapshotted: those whose image lies where extents can be shared.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use nix::libc;

use super::error::{fail, plan_error};
use super::store::Store;
use crate::exit_code::ExitCode;
use crate::plan::{BlockNode, DevId, Inventory};
use crate::provider::{Disk, ProviderError};
use crate::sys::loopdev::{self, LoopStatus};
use crate::sys::reflink;
use crate::time::Deadline;

/// From this number of extents on, a clone takes so long that applications notice: 17 000 extents
/// took 300–1000 ms, inside the window.
const MANY_EXTENTS: u32 = 2_000;

/// How long the devices have to answer, all together. They need less than a millisecond.
const ONE_LOOK: Duration = Duration::from_secs(5);

/// An image that can be cloned, opened.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) path: PathBuf,
    pub(super) file: File,
    /// Keeps the file attached as long as we hold it.
    pub(super) device: File,
    pub(super) status: LoopStatus,
    pub(super) disk: Disk,
}

/// The disks that this provider serves. A device that does not answer, because what it lies on is
/// frozen by somebody or dead, is left out, and keeps nobody else from being served.
pub(super) fn disks(store: &Store) -> Result<Vec<Disk>, ProviderError> {
    let inventory = Arc::new(Inventory::collect().map_err(plan_error)?);
    let mut disks: Vec<Disk> = Vec::new();
    let mut refused: Vec<String> = Vec::new();
    let mut ids = BTreeSet::new();
    let looks: Vec<_> = inventory
        .blocks
        .values()
        .filter(|node| node.backing.as_ref().is_some_and(|it| !store.is_copy(&it.path)))
        .map(|node| (node.name.clone(), look(&inventory, node)))
        .collect();
    let deadline = Deadline::after(ONE_LOOK);
    for (name, answer) in looks {
        let answer = answer.recv_timeout(deadline.remaining()).unwrap_or_else(|_| {
            Err(format!("it does not answer within {ONE_LOOK:?}: is what it lies on frozen?"))
        });
        match answer {
            Ok(mut disk) => {
                if !ids.insert(disk.id.clone()) {
                    disk.id = second_id(&disk.id, &name);
                }
                disks.push(disk);
            }
            Err(why) => {
                tracing::debug!("/dev/{name} cannot be snapshotted: {why}");
                refused.push(format!("/dev/{name}: {why}"));
            }
        }
    }
    if disks.is_empty() {
        return Err(none(&refused));
    }
    Ok(disks)
}

/// Looks at one device, in a thread that may hang.
fn look(inventory: &Arc<Inventory>, node: &BlockNode) -> Receiver<Result<Disk, String>> {
    let (answer, receiver) = channel();
    let (inventory, node) = (Arc::clone(inventory), node.clone());
    let failed = answer.clone();
    let thread = std::thread::Builder::new().name("look-at-device".into()).spawn(move || {
        // Nobody waits any more: the answer is not needed.
        let _ = answer.send(open(&inventory, &node).map(|image| image.disk));
    });
    if let Err(error) = thread {
        let _ = failed.send(Err(format!("no thread to look at it: {error}")));
    }
    receiver
}

fn none(refused: &[String]) -> ProviderError {
    let what = match refused {
        [] => "no loop device with an image file is attached".to_owned(),
        several => format!("no attached loop device can be snapshotted: {}", several.join("; ")),
    };
    fail(ExitCode::NoUsableDisk, what).hint(
        "this provider serves loop devices whose image files lie on XFS (made with reflink=1) or \
         btrfs; for anything else configure another provider",
    )
}

/// Opens the image of a disk that was listed before, and checks that it is still the same.
pub(super) fn reopen(inventory: &Inventory, disk: &Disk) -> Result<Image, ProviderError> {
    let refuse = |why: String| {
        fail(
            ExitCode::NoUsableDisk,
            format!("{} ({}) cannot be snapshotted: {why}", disk.node.display(), disk.id),
        )
        .hint(
            "this provider serves loop devices whose image files lie on XFS (made with reflink=1) \
             or btrfs, and are still in place",
        )
    };
    let node = inventory.blocks.get(&disk.device).ok_or_else(|| refuse("it is gone".into()))?;
    let image = open(inventory, node).map_err(refuse)?;
    if disk.id != image.disk.id && disk.id != second_id(&image.disk.id, &node.name) {
        return Err(refuse(format!("its image is {} now", image.disk.id)));
    }
    Ok(image)
}

/// Two loop devices can show parts of one image.
fn second_id(id: &str, name: &str) -> String {
    format!("{id}#{name}")
}

/// Opens the image behind a loop device, or says why it cannot be cloned.
fn open(inventory: &Inventory, node: &BlockNode) -> Result<Image, String> {
    let backing = node.backing.as_ref().ok_or("no image file is attached")?;
    let path = &backing.path;
    let shown = path.display();
    if backing.deleted {
        return Err(format!("its image {shown} was deleted"));
    }
    let host = inventory
        .host_of(backing)
        .ok_or_else(|| format!("its image {shown} is on a file system that is not mounted here"))?;
    // Nothing is opened before it is known to be on a local file system.
    if !["xfs", "btrfs"].contains(&host.fs_type.as_str()) || !inventory.is_local(path) {
        return Err(format!(
            "its image {shown} is on {} ({}), where extents cannot be shared",
            host.mount_point.display(),
            host.fs_type
        ));
    }
    let id = path.to_str().ok_or_else(|| format!("the name of its image {shown} is not UTF-8"))?;
    let cannot = |what: &str, error: io::Error| format!("{what} failed: {error}");

    let node_path = Path::new("/dev").join(&node.name);
    let device = loopdev::open(&node_path).map_err(|error| cannot("opening it", error))?;
    let status = loopdev::status_of(&device)
        .map_err(|error| cannot("asking for its image", error))?
        .ok_or("its image was detached")?;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .map_err(|error| cannot(&format!("opening its image {shown}"), error))?;
    if !is_behind(&file, &status).map_err(|error| cannot("asking its image", error))? {
        return Err(format!("another file is at the place of its image {shown} now"));
    }
    if host.fs_type == "xfs"
        && !reflink::xfs_can_share(&file).map_err(|error| cannot("asking XFS", error))?
    {
        return Err(format!(
            "its image {shown} is on {}, an XFS made without reflink=1",
            host.mount_point.display()
        ));
    }
    let disk = Disk {
        id: id.to_owned(),
        device: node.device,
        node: node_path,
        warnings: warnings(&file, path),
    };
    Ok(Image { path: path.clone(), file, device, status, disk })
}

/// True if `file` is the one behind the loop device, whatever the path said.
fn is_behind(file: &File, status: &LoopStatus) -> io::Result<bool> {
    let meta = file.metadata()?;
    Ok(meta.is_file() && meta.ino() == status.inode && DevId::of(meta.dev()) == status.file_system)
}

fn warnings(file: &File, path: &Path) -> Vec<String> {
    match reflink::extent_count(file) {
        Ok(extents) if extents > MANY_EXTENTS => vec![fragmented(extents, path)],
        Ok(_) => Vec::new(),
        Err(error) => {
            vec![format!("cannot tell how fragmented {} is: {error}", path.display())]
        }
    }
}

fn fragmented(extents: u32, path: &Path) -> String {
    let path = path.display();
    format!(
        "its image is in {extents} extents, which makes the snapshot slow while everything is \
         frozen; with the loop device detached, repack it: `cp --reflink=never --sparse=always \
         {path} {path}.new && mv {path}.new {path}`, and on XFS then `xfs_io -c 'cowextsize 1m' \
         {path}`"
    )
}
