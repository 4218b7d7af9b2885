//! What a file system's type says about it: whether it may be opened at all, and whether the
//! kernel can freeze it.

use super::mounts::Mount;

/// What kind of file system a type is, as far as freezing goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The kernel's driver implements freezing.
    Freezable,
    /// On a block device, but its driver cannot be frozen: FIFREEZE says EOPNOTSUPP.
    NotFreezable,
    /// Cannot be written to at all: there is nothing to freeze.
    ReadOnlyByNature,
    /// Never opened: a dead server would hold us for good.
    Network,
    /// Never opened: it would mount something.
    Automount,
    /// Never opened: a user-space process would have to answer.
    UserSpace,
}

/// Drivers with a `freeze_fs` or `freeze_super` operation (fs/*/super.c).
const FREEZABLE: &[&str] =
    &["btrfs", "ext2", "ext3", "ext4", "f2fs", "gfs2", "jfs", "nilfs2", "reiserfs", "xfs"];

const READ_ONLY_BY_NATURE: &[&str] = &["cramfs", "erofs", "iso9660", "romfs", "squashfs"];

const NETWORK: &[&str] = &[
    "9p", "afs", "beegfs", "ceph", "cifs", "coda", "gpfs", "lustre", "ncpfs", "nfs", "nfs3",
    "nfs4", "orangefs", "panfs", "prl_fs", "pvfs2", "smb3", "smbfs", "vboxsf", "virtiofs",
    "vmhgfs",
];

/// On disks, although their superblock has an anonymous device number.
const ANONYMOUS_ON_DISK: &[&str] = &["bcachefs", "btrfs", "zfs"];

pub(super) fn kind(mount: &Mount) -> Kind {
    let fs_type = mount.fs_type.as_str();
    if fs_type == "autofs" {
        Kind::Automount
    } else if NETWORK.contains(&fs_type) {
        Kind::Network
    } else if fs_type == "fuse" || fs_type.starts_with("fuse.") {
        Kind::UserSpace
    } else if FREEZABLE.contains(&fs_type) {
        Kind::Freezable
    } else if READ_ONLY_BY_NATURE.contains(&fs_type) {
        Kind::ReadOnlyByNature
    } else {
        // `fuseblk` too: it lies on a block device, which can be one of the snapshot's.
        Kind::NotFreezable
    }
}

/// True if the file system keeps its data on disks, whether or not we can tell on which.
pub(super) fn is_on_disk(mount: &Mount) -> bool {
    mount.superblock.major != 0 || ANONYMOUS_ON_DISK.contains(&mount.fs_type.as_str())
}

/// True if looking up a path on this mount never waits for a server or a user-space process.
/// (`overlay` is local as far as its layers are; they are mounts of their own.)
pub(super) fn is_local(mount: &Mount) -> bool {
    !matches!(kind(mount), Kind::Network | Kind::Automount | Kind::UserSpace)
        && mount.fs_type != "fuseblk"
}
