//! Opening exactly the planned mount, and asking the kernel about mounts afterwards.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use crate::plan::{DevId, FileSystem};

/// Why a planned mount could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("cannot be opened")]
    Open(#[source] io::Error),
    #[error("the mount there has id {found}, the planned one {planned}")]
    Changed { planned: u64, found: u64 },
}

/// Opens a directory to freeze or thaw through: reading is enough, and does not block on a frozen
/// file system.
pub(crate) fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(open(path, flags, Mode::empty())?)
}

/// Opens the mount point of a planned file system. What is compared is the mount id: `st_dev` is a
/// number of its own for every btrfs subvolume, and a mount on top would go unnoticed.
pub(crate) fn open_planned(planned: &FileSystem) -> Result<OwnedFd, OpenError> {
    let fd = open_directory(&planned.mount_point).map_err(OpenError::Open)?;
    let found = mount_id(&fd).map_err(OpenError::Open)?;
    if found != planned.mount_id {
        return Err(OpenError::Changed { planned: planned.mount_id, found });
    }
    Ok(fd)
}

/// The kernel's id of the mount that a descriptor was opened through.
pub(crate) fn mount_id(fd: impl AsFd) -> io::Result<u64> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd()))?;
    info.lines()
        .find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// What we need of one line of `/proc/self/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) id: u64,
    pub(crate) superblock: DevId,
    pub(crate) mount_point: PathBuf,
    /// Of the superblock, not of the mount: a file system that was forced read-only says so here
    /// only.
    pub(crate) read_only: bool,
}

/// All mounts that this process sees, in mount order.
pub(crate) fn mounts() -> io::Result<Vec<Mount>> {
    let table = fs::read("/proc/self/mountinfo")?;
    Ok(String::from_utf8_lossy(&table).lines().filter_map(parse_line).collect())
}

fn parse_line(line: &str) -> Option<Mount> {
    let (mount, superblock) = line.split_once(" - ")?;
    let mut fields = mount.split(' ');
    let id = fields.next()?.parse().ok()?;
    let (major, minor) = fields.nth(1)?.split_once(':')?;
    let options = superblock.split(' ').nth(2)?;
    Some(Mount {
        id,
        superblock: DevId { major: major.parse().ok()?, minor: minor.parse().ok()? },
        mount_point: unescape(fields.nth(1)?),
        read_only: options.split(',').any(|option| option == "ro"),
    })
}

/// Space, tab, newline and backslash are written as `\` and three octal digits.
fn unescape(field: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail
            .get(..3)
            .filter(|_| first == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(octal.unwrap_or(first));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// Which of the planned superblocks are read-only now; `None` for one that is not mounted here.
#[derive(Debug)]
pub(crate) struct ReadOnly(Vec<Option<bool>>);

impl ReadOnly {
    pub(crate) fn now(planned: &[FileSystem]) -> io::Result<Self> {
        let table = mounts()?;
        let of = |fs: &FileSystem| {
            let mount = table.iter().find(|mount| mount.superblock == fs.superblock)?;
            Some(mount.read_only)
        };
        Ok(Self(planned.iter().map(of).collect()))
    }

    /// Those that are read-only now and were not before, by index.
    pub(crate) fn turned_since(&self, before: &Self) -> Vec<usize> {
        let pairs = self.0.iter().zip(&before.0).enumerate();
        let turned = pairs.filter(|(_, pair)| *pair == (&Some(true), &Some(false)));
        turned.map(|(index, _)| index).collect()
    }
}

/// The superblock that a path lies on, told by its mount.
pub(crate) fn superblock_of(path: &Path) -> io::Result<DevId> {
    let id = mount_id(open_directory(path)?)?;
    let found = mounts()?.into_iter().find(|mount| mount.id == id);
    found.map(|mount| mount.superblock).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_only_is_read_from_the_super_options_not_from_the_mount_options() {
        let line =
            "40 28 7:3 / /mnt/a\\040b rw,relatime shared:2 - btrfs /dev/loop3 ro,space_cache=v2";
        let mount = parse_line(line).unwrap();
        assert!(mount.read_only);
        assert_eq!(mount.id, 40);
        assert_eq!(mount.superblock, DevId { major: 7, minor: 3 });
        assert_eq!(mount.mount_point, Path::new("/mnt/a b"));
        let ro_mount =
            parse_line("41 28 7:3 / /m ro,relatime - ext4 /dev/loop3 rw,errors=ro").unwrap();
        assert!(!ro_mount.read_only);
    }

    #[test]
    fn only_what_was_writable_before_can_turn_read_only() {
        let before = ReadOnly(vec![Some(false), Some(true), None, Some(false)]);
        let now = ReadOnly(vec![Some(true), Some(true), Some(true), None]);
        assert_eq!(now.turned_since(&before), [0]);
    }

    #[test]
    fn the_mount_of_a_path_is_found_in_the_table() {
        assert!(superblock_of(Path::new("/proc")).unwrap().major == 0);
    }
}
