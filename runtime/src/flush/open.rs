//! Files that some process has open for writing, found without asking a file system anything that
//! could wait: what `/proc` knows by itself comes first, and only a regular file on a file system of
//! the plan is ever opened.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat};

use crate::plan::{DevId, parse_mountinfo};

/// The write bit of the owner: how `/proc/PID/fd` shows a descriptor that can write.
const CAN_WRITE: u32 = 0o200;

/// Which files were looked at already, and which must not be opened.
#[derive(Debug, Default)]
pub(super) struct Seen {
    files: BTreeSet<(u64, u64)>,
    leased: BTreeSet<(DevId, u64)>,
}

impl Seen {
    /// Nothing yet. Files with a lease (Samba's oplocks, NFS delegations) are left out from the
    /// beginning: opening one would break it.
    pub(super) fn nothing() -> Self {
        let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
        Self { files: BTreeSet::new(), leased: leases(&locks) }
    }

    /// Opens a file to read, if it is a regular one that was not seen before. What is opened first is
    /// a mere place (`O_PATH`): opening a FIFO or a device would do something to it.
    pub(super) fn open_new(&mut self, place: OwnedFd, superblock: DevId) -> Option<File> {
        let found = fstat(&place).ok()?;
        let is_file = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG;
        let is_new = is_file
            && !self.leased.contains(&(superblock, found.st_ino))
            && self.files.insert((found.st_dev, found.st_ino));
        if !is_new {
            return None;
        }
        let flags = OFlag::O_RDONLY
            | OFlag::O_NONBLOCK
            | OFlag::O_NOCTTY
            | OFlag::O_NOATIME
            | OFlag::O_CLOEXEC;
        let path = format!("/proc/self/fd/{}", place.as_fd().as_raw_fd());
        Some(File::from(open(path.as_str(), flags, Mode::empty()).ok()?))
    }
}

/// Mount ids of one mount namespace that lead to a file system of the plan.
type Mounts = BTreeMap<u64, DevId>;

/// Shows each file on a file system of `planned` that is open for writing.
pub(super) fn each_open_file(
    planned: &BTreeSet<DevId>,
    seen: &mut Seen,
    mut visit: impl FnMut(File) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let mut namespaces = BTreeMap::new();
    let Ok(processes) = fs::read_dir("/proc") else { return ControlFlow::Continue(()) };
    for process in processes.flatten() {
        let is_process =
            process.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok());
        if !is_process {
            continue;
        }
        let process = process.path();
        let mounts = mounts_of(&process, planned, &mut namespaces);
        let Ok(descriptors) = fs::read_dir(process.join("fd")) else { continue };
        if mounts.is_empty() {
            continue;
        }
        for descriptor in descriptors.flatten() {
            let path = descriptor.path();
            let Some(superblock) = planned_writer(&process, &path, mounts) else { continue };
            let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
            let Ok(place) = open(&path, flags, Mode::empty()) else { continue };
            if let Some(file) = seen.open_new(place, superblock) {
                visit(file)?;
            }
        }
    }
    ControlFlow::Continue(())
}

/// The file system of a descriptor that can write, if it is of the plan. Both answers are the
/// kernel's own: a `stat` of what is behind it could wait for a server that is gone.
fn planned_writer(process: &Path, descriptor: &Path, mounts: &Mounts) -> Option<DevId> {
    if fs::symlink_metadata(descriptor).ok()?.mode() & CAN_WRITE == 0 {
        return None;
    }
    let info = process.join("fdinfo").join(descriptor.file_name()?);
    let info = fs::read_to_string(info).ok()?;
    let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()?;
    mounts.get(&id).copied()
}

/// A container has mount ids of its own for the same file systems.
fn mounts_of<'a>(
    process: &Path,
    planned: &BTreeSet<DevId>,
    namespaces: &'a mut BTreeMap<PathBuf, Mounts>,
) -> &'a Mounts {
    // Unreadable: of a kernel thread, or of a process that is gone, which then has no descriptors.
    let namespace = fs::read_link(process.join("ns/mnt")).unwrap_or_default();
    namespaces.entry(namespace).or_insert_with(|| {
        let table = fs::read(process.join("mountinfo")).unwrap_or_default();
        let mounts = parse_mountinfo(&table).unwrap_or_default();
        let mounts = mounts.into_iter().filter(|mount| planned.contains(&mount.superblock));
        mounts.map(|mount| (mount.id, mount.superblock)).collect()
    })
}

/// Files with a lease, from `/proc/locks`: `1: LEASE  ACTIVE    WRITE 4711 08:01:131 0 EOF`.
fn leases(locks: &str) -> BTreeSet<(DevId, u64)> {
    let lease = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let kind = words.next()?;
        let file = matches!(kind, "LEASE" | "DELEG").then(|| words.nth(3)).flatten()?;
        let [major, minor, inode] = file.split(':').collect::<Vec<_>>()[..] else { return None };
        let hex = |text| u32::from_str_radix(text, 16).ok();
        Some((DevId { major: hex(major)?, minor: hex(minor)? }, inode.parse().ok()?))
    };
    locks.lines().filter_map(lease).collect()
}

#[cfg(test)]
mod tests {
    use super::{Seen, each_open_file, leases};
    use crate::plan::{DevId, parse_mountinfo};
    use std::collections::BTreeSet;
    use std::fs::File;
    use std::ops::ControlFlow;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn leases_are_told_from_locks() {
        let locks = "1: POSIX  ADVISORY  WRITE 812 00:1a:911 0 EOF\n\
                     2: LEASE  ACTIVE    WRITE 4711 fd:1b:131 0 EOF\n\
                     3: LEASE  BREAKING  READ  4712 08:01:132 0 EOF\n\
                     3: -> FLOCK  ADVISORY  WRITE 5 08:01:133 0 EOF\n\
                     garbage\n4: LEASE\n5: LEASE ACTIVE READ 1 zz:1:1 0 EOF\n";
        let expected =
            [(DevId { major: 0xfd, minor: 0x1b }, 131), (DevId { major: 8, minor: 1 }, 132)];
        assert_eq!(leases(locks), BTreeSet::from(expected));
    }

    #[test]
    fn a_file_that_this_process_writes_is_found_and_one_that_it_reads_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let written = File::create(directory.path().join("written")).unwrap();
        File::create(directory.path().join("read")).unwrap();
        let read = File::open(directory.path().join("read")).unwrap();
        let mounts = parse_mountinfo(&std::fs::read("/proc/self/mountinfo").unwrap()).unwrap();
        let all = mounts.iter().map(|mount| mount.superblock).collect();

        let mut found = BTreeSet::new();
        let end = each_open_file(&all, &mut Seen::nothing(), |file| {
            assert!(found.insert(file.metadata().unwrap().ino()), "shown twice");
            ControlFlow::Continue(())
        });
        assert_eq!(end, ControlFlow::Continue(()));
        assert!(found.contains(&written.metadata().unwrap().ino()));
        assert!(!found.contains(&read.metadata().unwrap().ino()));
    }

    #[test]
    fn nothing_is_found_outside_of_the_plan() {
        let _written = tempfile::tempfile().unwrap();
        let end =
            each_open_file(&BTreeSet::new(), &mut Seen::nothing(), |_| ControlFlow::Break(()));
        assert_eq!(end, ControlFlow::Continue(()));
    }
}
