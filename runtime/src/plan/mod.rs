//! What would be frozen, in which order, what is skipped and why. Pure: the inventory comes in, the
//! plan comes out, and nothing is opened. `stillpoint plan` prints it and stops.

use std::fmt;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::provider::Disk;

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
    /// From a `dev_t` as `stat` gives it.
    #[must_use]
    pub fn from_raw(dev: u64) -> Self {
        let part = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        Self { major: part(nix::sys::stat::major(dev)), minor: part(nix::sys::stat::minor(dev)) }
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
}

/// Why a mount is left alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// On one of the snapshot's disks, but its type cannot be frozen; lowers the level unless accepted.
    NotFreezable {
        /// The operator listed it under `accept-unfrozen`, so that it does not lower the level.
        accepted: bool,
    },
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SkipReason::NoBlockDevice => "not on a block device",
            SkipReason::Network => "network file system, never opened",
            SkipReason::Automount => "automount point, never opened",
            SkipReason::UserSpace => "served by a user-space process, never opened",
            SkipReason::OtherDisk => "not on a disk of this snapshot",
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
