//! What would be frozen, in which order, what is skipped and why. Pure: the inventory comes in, the
//! plan comes out, and nothing is opened. `stillpoint plan` prints it and stops.

use std::fmt;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::provider::Disk;

mod collect;
mod error;
mod explain;
mod kinds;
mod mounts;
mod owner;
mod select;
mod topology;
mod validate;

#[cfg(test)]
mod tests;

pub use error::PlanError;
pub use explain::explain;
pub use mounts::{Mount, MountInfoError, MountTable, parse as parse_mountinfo};
pub use owner::{Owner, canonical, find_owner};
pub use select::{Scope, plan};
pub use topology::{BackingFile, BlockNode, BtrfsDevices, Elsewhere, Inventory, Layer};
pub use validate::still_valid;

/// A device number as in `/proc/self/mountinfo` and `/sys/dev/block`: of a block device, or of a
/// superblock (btrfs, overlay and the like have anonymous ones, `0:N`).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct DevId {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

impl DevId {
    /// From the number that `stat` gives.
    #[must_use]
    pub fn of(device: u64) -> Self {
        use nix::sys::stat::{major, minor};
        // The kernel has 12 bits of major and 20 of minor numbers.
        let narrow = |part: u64| u32::try_from(part).unwrap_or(u32::MAX);
        Self { major: narrow(major(device)), minor: narrow(minor(device)) }
    }

    /// For a disk that is no block device of this instance: a number that no block device has, one
    /// for each `index`.
    #[must_use]
    pub fn of_no_device(index: usize) -> Self {
        Self { major: 0, minor: u32::try_from(index).unwrap_or(u32::MAX) }
    }

    /// True if a block device can have this number: their major numbers begin at 1.
    #[must_use]
    pub fn is_a_device(self) -> bool {
        self.major != 0
    }
}

impl fmt::Display for DevId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// One superblock that is to be frozen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileSystem {
    /// The superblock's device number: what makes a file system one file system, however often mounted.
    pub superblock: DevId,
    /// The mount that is opened to freeze it.
    pub mount_point: PathBuf,
    /// The kernel's id of that mount: checked after opening, so that a mount on top is noticed.
    pub mount_id: u64,
    /// Type, as the kernel names it.
    pub fs_type: String,
    /// What was mounted, as the kernel names it.
    pub source: String,
    /// Other mounts of the same superblock (bind mounts, subvolumes): frozen with it.
    pub other_mounts: Vec<PathBuf>,
    /// Ids of the snapshot's disks that it lies on.
    pub disks: Vec<String>,
    /// Freeze wave: 0 is frozen first. What is stacked on another is in an earlier wave.
    pub wave: usize,
}

/// A mount that is left alone, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Skipped {
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// Type, as the kernel names it.
    pub fs_type: String,
    /// Why it is left alone.
    pub reason: SkipReason,
    /// Ids of the snapshot's disks that it lies on, if any: their level is lowered with it.
    #[serde(default)]
    pub disks: Vec<String>,
}

/// Why a mount is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SkipReason {
    /// Not backed by a block device: tmpfs, proc, overlay and the like.
    NoBlockDevice,
    /// A network file system: never opened.
    Network,
    /// An automount point: never opened, it would mount.
    Automount,
    /// Served by a user-space process (FUSE): never opened.
    UserSpace,
    /// On none of the snapshot's disks.
    OtherDisk,
    /// On one of the snapshot's disks, but also on one that is excluded or not in the snapshot;
    /// lowers the level.
    DiskExcluded,
    /// On one of the snapshot's disks, but every mount of it is hidden under another one, behind a
    /// file system that is never opened, a single file, or in another mount namespace; lowers the
    /// level.
    Unreachable,
    /// Of a type that cannot be frozen, but nothing can write to it.
    ReadOnly,
    /// Freezing is switched off for this run.
    FreezeDisabled,
    /// On one of the snapshot's disks, but its type cannot be frozen; lowers the level unless accepted.
    NotFreezable {
        /// The operator listed it under `accept-unfrozen`, so that it does not lower the level.
        accepted: bool,
    },
}

impl SkipReason {
    /// True if a mount left alone for this reason lowers the level of its disks.
    #[must_use]
    pub fn lowers_the_level(self) -> bool {
        match self {
            SkipReason::NotFreezable { accepted } => !accepted,
            SkipReason::DiskExcluded | SkipReason::Unreachable | SkipReason::FreezeDisabled => true,
            SkipReason::NoBlockDevice
            | SkipReason::Network
            | SkipReason::Automount
            | SkipReason::UserSpace
            | SkipReason::OtherDisk
            | SkipReason::ReadOnly => false,
        }
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SkipReason::NoBlockDevice => "not on a block device",
            SkipReason::Network => "network file system, never opened",
            SkipReason::Automount => "automount point, never opened",
            SkipReason::UserSpace => "served by a user-space process, never opened",
            SkipReason::OtherDisk => "not on a disk of this snapshot",
            SkipReason::DiskExcluded => {
                "also on a disk that is not in this snapshot; lowers the level"
            }
            SkipReason::Unreachable => "no mount of it can be opened; lowers the level",
            SkipReason::ReadOnly => "read-only, nothing to freeze",
            SkipReason::FreezeDisabled => "freezing is switched off for this run",
            SkipReason::NotFreezable { accepted: true } => {
                "its type cannot be frozen; accepted by configuration"
            }
            SkipReason::NotFreezable { accepted: false } => {
                "its type cannot be frozen; lowers the level"
            }
        })
    }
}

/// What the run will do to disks and file systems.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The disks of the snapshot.
    pub disks: Vec<Disk>,
    /// What is frozen, in freeze order (by wave, then by mount point).
    pub file_systems: Vec<FileSystem>,
    /// What is left alone.
    pub skipped: Vec<Skipped>,
    /// What already now keeps the run from the level `application`.
    pub reasons: Vec<crate::consistency::Reason>,
}
