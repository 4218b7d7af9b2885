//! Reads mounts and block devices into an [`Inventory`]. Opens nothing on a file system that could
//! make us wait: only `/proc`, `/sys`, and the nodes of loop devices; looks up mount points only
//! where the way there crosses local file systems alone.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::mounts::{self, Mount, MountTable};
use super::topology::{BackingFile, BlockNode, BtrfsDevices, Elsewhere, Inventory};
use super::{DevId, PlanError, kinds};
use crate::sys::loopdev;

const DELETED: &[u8] = b" (deleted)";

impl Inventory {
    /// Looks at this machine: the mounts of this process's mount namespace and the block devices.
    ///
    /// # Errors
    /// [`PlanError::Read`] and [`PlanError::MountInfo`], naming the file or the line.
    pub fn collect() -> Result<Self, PlanError> {
        let text = read(Path::new("/proc/self/mountinfo"))?;
        let mounts = mounts::parse(&text)?;
        let mut inventory = Self {
            nodes: source_nodes(&mounts),
            on_files: mounted_on_files(&mounts),
            blocks: read_blocks(Path::new("/sys"))?,
            btrfs: read_btrfs(Path::new("/sys"))?,
            elsewhere: read_elsewhere(Path::new("/proc"), &mounts),
            mounts,
        };
        inventory.ask_loop_devices();
        Ok(inventory)
    }

    /// A loop device knows the file itself; its path may lead elsewhere by now. Without the
    /// permission to ask, the path has to do.
    fn ask_loop_devices(&mut self) {
        for node in self.blocks.values_mut() {
            let Some(backing) = &mut node.backing else { continue };
            if let Ok(Some(status)) = loopdev::status(&Path::new("/dev").join(&node.name)) {
                backing.file_system = Some(status.file_system);
            }
        }
    }
}

/// The block devices under `<sys>/dev/block`.
pub(super) fn read_blocks(sys: &Path) -> Result<BTreeMap<DevId, BlockNode>, PlanError> {
    let root = sys.join("dev/block");
    let mut blocks = BTreeMap::new();
    for name in entries(&root)? {
        let Some(device) = mounts::dev_id(name.as_bytes()) else { continue };
        // A device can go away while we read: then it is not there.
        if let Some(node) = read_block(device, &root.join(&name)) {
            blocks.insert(device, node);
        }
    }
    Ok(blocks)
}

fn read_block(device: DevId, folder: &Path) -> Option<BlockNode> {
    let uevent = fs::read_to_string(folder.join("uevent")).ok()?;
    let name = uevent.lines().find_map(|line| line.strip_prefix("DEVNAME="))?.to_owned();
    let is_partition = folder.join("partition").exists();
    // The folder is a link; its target's parent is the disk. The path is resolved by the kernel.
    let partition_of = is_partition.then(|| read_dev(&folder.join("../dev"))).flatten();
    let slaves = entries(&folder.join("slaves")).unwrap_or_default();
    let slaves = slaves
        .iter()
        .filter_map(|slave| read_dev(&folder.join("slaves").join(slave).join("dev")))
        .collect();
    Some(BlockNode { device, name, partition_of, slaves, backing: read_backing(folder) })
}

fn read_backing(folder: &Path) -> Option<BackingFile> {
    let mut bytes = fs::read(folder.join("loop/backing_file")).ok()?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    let deleted = bytes.ends_with(DELETED);
    if deleted {
        bytes.truncate(bytes.len() - DELETED.len());
    }
    let path = PathBuf::from(OsString::from_vec(bytes));
    Some(BackingFile { path, file_system: None, deleted })
}

/// The btrfs file systems under `<sys>/fs/btrfs`.
pub(super) fn read_btrfs(sys: &Path) -> Result<Vec<BtrfsDevices>, PlanError> {
    let root = sys.join("fs/btrfs");
    let names = match fs::exists(&root) {
        Ok(true) => entries(&root)?,
        _ => Vec::new(),
    };
    let mut volumes = Vec::new();
    for name in names {
        let folder = root.join(&name).join("devices");
        let Ok(devices) = entries(&folder) else { continue };
        let devices =
            devices.iter().filter_map(|device| read_dev(&folder.join(device).join("dev")));
        volumes.push(BtrfsDevices {
            uuid: name.to_string_lossy().into_owned(),
            devices: devices.collect(),
        });
    }
    Ok(volumes)
}

/// The numbers of the device nodes that mountinfo names. `stat` on `/dev` waits for nobody.
fn source_nodes(mounts: &[Mount]) -> BTreeMap<PathBuf, DevId> {
    let options = ["logdev", "rtdev"];
    let named = mounts.iter().flat_map(|mount| {
        let extra = options.iter().filter_map(|name| mount.super_option(name).map(PathBuf::from));
        std::iter::once(mount.source.clone()).chain(extra)
    });
    named
        .filter(|node| node.starts_with("/dev"))
        .filter_map(|node| block_number(&node).map(|device| (node, device)))
        .collect()
}

fn block_number(node: &Path) -> Option<DevId> {
    let meta = fs::metadata(node).ok()?;
    meta.file_type().is_block_device().then(|| DevId::of(meta.rdev()))
}

/// Mounts on files (a container's `/etc/hosts`): they cannot be opened as directories.
fn mounted_on_files(mounts: &[Mount]) -> BTreeSet<u64> {
    let table = MountTable::new(mounts);
    let interesting = mounts.iter().filter(|mount| {
        kinds::is_on_disk(mount)
            && table.is_reachable(mount)
            && table.walk(&mount.mount_point).iter().all(|crossed| kinds::is_local(crossed))
    });
    interesting
        .filter(|mount| {
            fs::symlink_metadata(&mount.mount_point).is_ok_and(|meta| !meta.file_type().is_dir())
        })
        .map(|mount| mount.id)
        .collect()
}

/// What is mounted in other mount namespaces only. Processes come and go while we read: what
/// cannot be read any more is left out.
pub(super) fn read_elsewhere(proc: &Path, ours: &[Mount]) -> Vec<Elsewhere> {
    let namespace = |process: &str| fs::read_link(proc.join(process).join("ns/mnt")).ok();
    let mut namespaces: BTreeSet<PathBuf> = namespace("self").into_iter().collect();
    let mut known: BTreeSet<DevId> = ours.iter().map(|mount| mount.superblock).collect();
    let mut elsewhere = Vec::new();
    for name in entries(proc).unwrap_or_default() {
        let Some(process) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Some(namespace) = namespace(&process.to_string()) else { continue };
        if namespaces.contains(&namespace) {
            continue;
        }
        let folder = proc.join(process.to_string());
        let Ok(text) = fs::read(folder.join("mountinfo")) else { continue };
        let Ok(mounts) = mounts::parse(&text) else { continue };
        // Only now: a process that went away meanwhile has not shown us its mounts.
        namespaces.insert(namespace);
        let command = fs::read_to_string(folder.join("comm")).unwrap_or_default();
        for mount in mounts {
            if kinds::is_on_disk(&mount) && known.insert(mount.superblock) {
                elsewhere.push(Elsewhere {
                    process,
                    command: command.trim_end().to_owned(),
                    mount,
                });
            }
        }
    }
    elsewhere
}

fn read_dev(file: &Path) -> Option<DevId> {
    mounts::dev_id(&fs::read(file).ok()?)
}

fn entries(folder: &Path) -> Result<Vec<OsString>, PlanError> {
    let list = || -> io::Result<Vec<OsString>> {
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.file_name())).collect()
    };
    let mut names = list().map_err(|source| PlanError::Read { path: folder.into(), source })?;
    names.sort_by(|a: &OsString, b| OsStr::cmp(a, b));
    Ok(names)
}

fn read(path: &Path) -> Result<Vec<u8>, PlanError> {
    fs::read(path).map_err(|source| PlanError::Read { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A `/sys` like the kernel's: a disk with a partition, a loop device, a dm device over both,
    /// and a btrfs over two.
    fn fake_sys() -> tempfile::TempDir {
        let sys = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let file = sys.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        let disk = "devices/pci0/block/vdb";
        put(&format!("{disk}/dev"), "254:16\n");
        put(&format!("{disk}/uevent"), "MAJOR=254\nMINOR=16\nDEVNAME=vdb\nDEVTYPE=disk\n");
        put(&format!("{disk}/vdb1/dev"), "254:17\n");
        put(&format!("{disk}/vdb1/uevent"), "DEVNAME=vdb1\nDEVTYPE=partition\n");
        put(&format!("{disk}/vdb1/partition"), "1\n");
        let ring = "devices/virtual/block/loop4";
        put(&format!("{ring}/dev"), "7:4\n");
        put(&format!("{ring}/uevent"), "DEVNAME=loop4\n");
        put(&format!("{ring}/loop/backing_file"), "/srv/a b.img (deleted)\n");
        let mapper = "devices/virtual/block/dm-0";
        put(&format!("{mapper}/dev"), "252:0\n");
        put(&format!("{mapper}/uevent"), "DEVNAME=dm-0\n");
        fs::create_dir_all(sys.path().join(mapper).join("slaves")).unwrap();
        let link = |from: &str, to: &str| {
            let from = sys.path().join(from);
            fs::create_dir_all(from.parent().unwrap()).unwrap();
            symlink(sys.path().join(to), from).unwrap();
        };
        link(&format!("{mapper}/slaves/vdb1"), &format!("{disk}/vdb1"));
        link(&format!("{mapper}/slaves/loop4"), ring);
        link("dev/block/254:16", disk);
        link("dev/block/254:17", &format!("{disk}/vdb1"));
        link("dev/block/7:4", ring);
        link("dev/block/252:0", mapper);
        link("fs/btrfs/6bd0/devices/vdb1", &format!("{disk}/vdb1"));
        link("fs/btrfs/6bd0/devices/loop4", ring);
        put("fs/btrfs/features/skinny", "1\n");
        sys
    }

    fn dev(major: u32, minor: u32) -> DevId {
        DevId { major, minor }
    }

    #[test]
    fn partitions_members_and_backing_files_are_read_from_sys() {
        let sys = fake_sys();
        let blocks = read_blocks(sys.path()).unwrap();
        assert_eq!(blocks.len(), 4);
        assert_eq!(blocks[&dev(254, 17)].partition_of, Some(dev(254, 16)));
        assert_eq!(blocks[&dev(254, 16)].partition_of, None);
        let mut members = blocks[&dev(252, 0)].slaves.clone();
        members.sort();
        assert_eq!(members, [dev(7, 4), dev(254, 17)]);
        let backing = blocks[&dev(7, 4)].backing.clone().unwrap();
        assert_eq!(backing.path, Path::new("/srv/a b.img"));
        assert!(backing.deleted);
    }

    #[test]
    fn a_btrfs_lists_all_its_devices() {
        let volumes = read_btrfs(fake_sys().path()).unwrap();
        assert_eq!(volumes.len(), 1);
        assert_eq!(volumes[0].uuid, "6bd0");
        assert_eq!(volumes[0].devices.len(), 2);
    }

    #[test]
    fn a_sys_without_btrfs_has_none() {
        assert!(read_btrfs(tempfile::tempdir().unwrap().path()).unwrap().is_empty());
    }

    #[test]
    fn a_sys_that_cannot_be_read_is_named() {
        let error = read_blocks(Path::new("/nonexistent")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/dev/block"), "{error}");
    }

    #[test]
    fn what_other_mount_namespaces_alone_have_mounted_is_found_once() {
        let proc = tempfile::tempdir().unwrap();
        let process = |name: &str, namespace: &str, mounts: &str| {
            let folder = proc.path().join(name);
            fs::create_dir_all(folder.join("ns")).unwrap();
            symlink(format!("mnt:[{namespace}]"), folder.join("ns/mnt")).unwrap();
            fs::write(folder.join("mountinfo"), mounts).unwrap();
            fs::write(folder.join("comm"), "containerd-shim\n").unwrap();
        };
        let ours = "1 0 254:1 / / rw - ext4 /dev/vda1 rw\n";
        let theirs = "7 0 254:1 / / rw - ext4 /dev/vda1 rw\n8 7 0:9 / /t rw - tmpfs t rw\n\
                      9 7 254:16 / /data rw - xfs /dev/vdb rw\n";
        process("self", "1", ours);
        process("10", "1", "not read: it is in our namespace");
        process("20", "2", theirs);
        process("21", "2", "not read: the namespace is known");
        process("30", "3", "garbled");
        let found = read_elsewhere(proc.path(), &mounts::parse(ours.as_bytes()).unwrap());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].process, 20);
        assert_eq!(found[0].command, "containerd-shim");
        assert_eq!(found[0].mount.mount_point, Path::new("/data"));
    }

    #[test]
    fn this_machine_can_be_looked_at() {
        let inventory = Inventory::collect().unwrap();
        assert!(!inventory.mounts.is_empty());
        assert!(!inventory.blocks.is_empty());
    }
}
