//! What lies on what: file systems on block devices, partitions on disks, loop devices on files,
//! dm and md on their members. [`Inventory::collect`] reads it all into one value; everything after
//! that is pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::mounts::{Mount, MountTable};
use super::{DevId, PlanError, kinds};

/// What is mounted, and the block devices underneath: one look at the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The mounts, in the kernel's order.
    pub mounts: Vec<Mount>,
    /// The block devices.
    pub blocks: BTreeMap<DevId, BlockNode>,
    /// The btrfs file systems: they can lie on several devices.
    pub btrfs: Vec<BtrfsDevices>,
    /// The device nodes that mountinfo names (as sources, or in `logdev=` and `rtdev=`).
    pub nodes: BTreeMap<PathBuf, DevId>,
    /// Ids of mounts whose mount point is a file.
    pub on_files: BTreeSet<u64>,
    /// File systems on disks that are mounted in other mount namespaces only (a container's, a
    /// service's): one mount of each.
    pub elsewhere: Vec<Elsewhere>,
}

/// A mount in another mount namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// A process that sees it.
    pub process: u32,
    /// The name of that process.
    pub command: String,
    /// The mount, as that process sees it.
    pub mount: Mount,
}

/// One block device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockNode {
    /// Its number.
    pub device: DevId,
    /// The kernel's name, as under `/dev`: `vda1`, `dm-0`, `mapper/x` never.
    pub name: String,
    /// The disk that it is a partition of.
    pub partition_of: Option<DevId>,
    /// The devices that it is made of (dm, md, bcache).
    pub slaves: Vec<DevId>,
    /// The file behind a loop device.
    pub backing: Option<BackingFile>,
}

/// The file behind a loop device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackingFile {
    /// Its path when the device was set up.
    pub path: PathBuf,
    /// The device number that `stat` gives for the file itself, even if its path now leads
    /// elsewhere (deleted, renamed, mounted over). `None` if the loop device did not say.
    pub file_system: Option<DevId>,
    /// The file has no name any more.
    pub deleted: bool,
}

/// The devices of one btrfs file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BtrfsDevices {
    /// Its UUID.
    pub uuid: String,
    /// Its devices.
    pub devices: Vec<DevId>,
}

/// One thing that lies on another: a superblock or a block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer {
    /// A mounted file system.
    FileSystem(DevId),
    /// A block device.
    Block(DevId),
}

impl Inventory {
    /// Mounts of local file systems that can be frozen, in the order of the mount table.
    pub fn freezable_mounts(&self) -> impl Iterator<Item = &Mount> {
        self.mounts.iter().filter(|mount| kinds::kind(mount) == kinds::Kind::Freezable)
    }

    /// The mount that `path` (canonical) is on.
    #[must_use]
    pub fn mount_of(&self, path: &Path) -> Option<&Mount> {
        MountTable::new(&self.mounts).resolve(path)
    }

    /// A mount of the file system that the file behind a loop device is on.
    pub(crate) fn host_of(&self, backing: &BackingFile) -> Option<&Mount> {
        let topology = Topology::new(self);
        let host = topology.host(backing)?;
        topology.mounts_of(host).next()
    }

    /// True if looking up `path` crosses local file systems alone: nobody can make us wait.
    pub(crate) fn is_local(&self, path: &Path) -> bool {
        let table = MountTable::new(&self.mounts);
        table.walk(path).iter().all(|mount| kinds::is_local(mount))
    }

    /// The first of `superblocks` that the file system of `path` is, or lies on: if that one is
    /// frozen, a write to `path` waits.
    pub(crate) fn lies_on(
        &self,
        path: &Path,
        superblocks: &[DevId],
    ) -> Result<Option<DevId>, PlanError> {
        let Some(mount) = self.mount_of(path) else { return Ok(None) };
        let layers = Topology::new(self).closure(Layer::FileSystem(mount.superblock))?;
        let below = |&&it: &&DevId| layers.contains(&Layer::FileSystem(it));
        Ok(superblocks.iter().find(below).copied())
    }

    /// The mounts of file systems that lie on the block device, at whatever depth.
    pub(crate) fn mounts_over(&self, device: DevId) -> Vec<&Mount> {
        let topology = Topology::new(self);
        let over = |mount: &&Mount| {
            let layers = topology.closure(Layer::FileSystem(mount.superblock)).unwrap_or_default();
            layers.contains(&Layer::Block(device))
        };
        self.mounts.iter().filter(over).collect()
    }
}

/// The questions that a plan asks about an [`Inventory`].
#[derive(Debug)]
pub(super) struct Topology<'a> {
    pub(super) inventory: &'a Inventory,
    pub(super) table: MountTable<'a>,
}

impl<'a> Topology<'a> {
    pub(super) fn new(inventory: &'a Inventory) -> Self {
        Self { inventory, table: MountTable::new(&inventory.mounts) }
    }

    /// All mounts of a superblock, in the kernel's order.
    pub(super) fn mounts_of(&self, superblock: DevId) -> impl Iterator<Item = &'a Mount> {
        self.inventory.mounts.iter().filter(move |mount| mount.superblock == superblock)
    }

    /// Any mount of a superblock, in other mount namespaces too.
    fn any_mount_of(&self, superblock: DevId) -> Option<&'a Mount> {
        let elsewhere = || self.inventory.elsewhere.iter().map(|it| &it.mount);
        let there = || elsewhere().find(|mount| mount.superblock == superblock);
        self.mounts_of(superblock).next().or_else(there)
    }

    /// What `layer` lies on directly. Empty: it is at the bottom, or what is below is not known.
    pub(super) fn below(&self, layer: Layer) -> Vec<Layer> {
        match layer {
            Layer::FileSystem(superblock) => self.below_file_system(superblock),
            Layer::Block(device) => self.below_block(device),
        }
    }

    fn below_file_system(&self, superblock: DevId) -> Vec<Layer> {
        let Some(mount) = self.any_mount_of(superblock) else { return Vec::new() };
        if mount.fs_type == "overlay" {
            return self.upper_layer(mount).into_iter().collect();
        }
        let mut devices = self.data_devices(mount);
        // XFS can keep its log and its real-time data on devices of their own.
        for option in ["logdev", "rtdev"] {
            let device = mount.super_option(option).map(Path::new).and_then(|node| self.node(node));
            devices.extend(device);
        }
        devices.into_iter().map(Layer::Block).collect()
    }

    fn data_devices(&self, mount: &Mount) -> Vec<DevId> {
        if mount.superblock.major != 0 {
            return vec![mount.superblock];
        }
        if !kinds::is_on_disk(mount) {
            return Vec::new();
        }
        let Some(device) = self.node(&mount.source) else { return Vec::new() };
        let volume = self.inventory.btrfs.iter().find(|volume| volume.devices.contains(&device));
        match volume {
            Some(volume) if mount.fs_type == "btrfs" => volume.devices.clone(),
            _ => vec![device],
        }
    }

    /// The file system that takes an overlay's writes.
    fn upper_layer(&self, mount: &Mount) -> Option<Layer> {
        let upper = Path::new(mount.super_option("upperdir")?);
        let below = self.table.resolve(upper)?;
        (below.superblock != mount.superblock).then_some(Layer::FileSystem(below.superblock))
    }

    fn below_block(&self, device: DevId) -> Vec<Layer> {
        let Some(node) = self.inventory.blocks.get(&device) else { return Vec::new() };
        let disk = node.partition_of.iter().copied().map(Layer::Block);
        let slaves = node.slaves.iter().copied().map(Layer::Block);
        let host = node.backing.iter().filter_map(|backing| self.host(backing));
        disk.chain(slaves).chain(host.map(Layer::FileSystem)).collect()
    }

    /// The superblock that a loop device's file lies on. The file's own device number is believed
    /// before its path, which can lead elsewhere by now.
    pub(super) fn host(&self, backing: &BackingFile) -> Option<DevId> {
        let by_number = backing.file_system.and_then(|number| self.any_mount_of(number));
        let by_path = || {
            let mount = self.table.resolve(&backing.path)?;
            // Files on these have a device number of their own, which mountinfo does not show.
            let own_numbers = ["btrfs", "overlay"].contains(&mount.fs_type.as_str());
            (backing.file_system.is_none() || own_numbers).then_some(mount)
        };
        by_number.or_else(by_path).map(|mount| mount.superblock)
    }

    /// Everything that `top` lies on, `top` included.
    pub(super) fn closure(&self, top: Layer) -> Result<BTreeSet<Layer>, PlanError> {
        let mut seen = BTreeSet::new();
        self.descend(top, &mut Vec::new(), &mut seen)?;
        Ok(seen)
    }

    fn descend(
        &self,
        layer: Layer,
        above: &mut Vec<Layer>,
        seen: &mut BTreeSet<Layer>,
    ) -> Result<(), PlanError> {
        if let Some(start) = above.iter().position(|&earlier| earlier == layer) {
            let round = above[start..].iter().chain([&layer]);
            return Err(PlanError::Cycle { chain: round.map(|&it| self.name(it)).collect() });
        }
        if !seen.insert(layer) {
            return Ok(());
        }
        above.push(layer);
        for lower in self.below(layer) {
            self.descend(lower, above, seen)?;
        }
        above.pop();
        Ok(())
    }

    /// A layer as people know it: a mount point or a device node.
    pub(super) fn name(&self, layer: Layer) -> String {
        match layer {
            Layer::FileSystem(superblock) => match self.any_mount_of(superblock) {
                Some(mount) => format!("file system {}", mount.mount_point.display()),
                None => format!("file system {superblock}"),
            },
            Layer::Block(device) => match self.inventory.blocks.get(&device) {
                Some(BlockNode { name, backing: Some(backing), .. }) => {
                    format!("/dev/{name} (image {})", backing.path.display())
                }
                Some(node) => format!("/dev/{}", node.name),
                None => format!("device {device}"),
            },
        }
    }

    /// The device behind a node named in mountinfo.
    fn node(&self, node: &Path) -> Option<DevId> {
        let by_name = || {
            let name = node.strip_prefix("/dev").ok()?.to_str()?;
            self.inventory.blocks.values().find(|block| block.name == name)
        };
        self.inventory.nodes.get(node).copied().or_else(|| by_name().map(|block| block.device))
    }
}
