//! Whether a file system's journal holds what is not at its place on the disk yet: the sign that it
//! was not frozen when it was copied. Asked of the copy before anything else mounts it.

use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hasher};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::command::run;
use crate::lab::{FsType, Lab};

/// What its journal would bring back, in words; `None` if nothing.
///
/// # Errors
/// If the device cannot be read.
pub fn replay_needed(lab: &Lab, device: &Path, fs_type: FsType) -> Result<Option<String>> {
    match fs_type {
        FsType::Ext4 => ext4(&run("dumpe2fs", [Path::new("-h"), device])?),
        FsType::Xfs => xfs(lab, device),
        FsType::Btrfs => btrfs(&run(
            "btrfs",
            ["inspect-internal", "dump-super"].map(Path::new).into_iter().chain([device]),
        )?),
    }
}

/// A freeze takes the flag away, a thaw sets it again.
fn ext4(superblock: &str) -> Result<Option<String>> {
    let Some(features) = superblock.lines().find(|line| line.starts_with("Filesystem features:"))
    else {
        bail!("dumpe2fs names no features:\n{superblock}");
    };
    Ok(features.contains("needs_recovery").then(|| "ext4: needs_recovery is set".to_owned()))
}

/// The kernel leaves the log of a frozen XFS dirty on purpose, with the superblock in it
/// (`xfs_fs_freeze`: so that orphaned inodes are looked for after a crash), and sometimes with what
/// it has written to its place already, too. So the log is always replayed; what counts is whether
/// that brings anything back: whether anybody can tell the file system from the same one mounted
/// without its log.
fn xfs(lab: &Lab, device: &Path) -> Result<Option<String>> {
    let without = contents(lab, device, "ro,norecovery,nouuid")?;
    let with = contents(lab, device, "nouuid")?;
    if without == with {
        return Ok(None);
    }
    let changed = with.iter().find(|(path, entry)| without.get(*path) != Some(entry));
    let lost = without.keys().find(|path| !with.contains_key(*path));
    let path = changed.map(|(path, _)| path).or(lost);
    Ok(path.map(|path| format!("XFS: the log's replay changes {}", path.display())))
}

/// What anybody can see of one file.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    mode: u32,
    links: u64,
    size: u64,
    modified: (i64, i64),
    content: u64,
}

fn contents(lab: &Lab, device: &Path, options: &str) -> Result<BTreeMap<PathBuf, Entry>> {
    let mount = lab.scratch("journal")?;
    run(
        "mount",
        [Path::new("-t"), Path::new("xfs"), Path::new("-o"), Path::new(options), device, &mount],
    )?;
    let entries = walk(&mount);
    run("umount", [&mount])?;
    entries
}

fn walk(top: &Path) -> Result<BTreeMap<PathBuf, Entry>> {
    let mut entries = BTreeMap::new();
    let mut paths = vec![top.to_owned()];
    while let Some(path) = paths.pop() {
        let metadata = std::fs::symlink_metadata(&path)?;
        if metadata.is_dir() {
            for entry in std::fs::read_dir(&path)? {
                paths.push(entry?.path());
            }
        }
        let content = if metadata.is_file() { hash_of(&path)? } else { 0 };
        let entry = Entry {
            mode: metadata.mode(),
            links: metadata.nlink(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            content,
        };
        entries.insert(path, entry);
    }
    Ok(entries)
}

fn hash_of(path: &Path) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    let mut file = File::open(path)?;
    let mut chunk = vec![0_u8; 1 << 16];
    loop {
        let read = file.read(&mut chunk)?;
        match chunk.get(..read) {
            Some([]) | None => return Ok(hasher.finish()),
            Some(bytes) => hasher.write(bytes),
        }
    }
}

/// The log tree is what fsync wrote since the last commit; a freeze commits.
fn btrfs(superblock: &str) -> Result<Option<String>> {
    let Some(root) = superblock.lines().find(|line| line.starts_with("log_root\t")) else {
        bail!("the superblock has no log_root:\n{superblock}");
    };
    let empty = root.split_whitespace().nth(1) == Some("0");
    Ok((!empty).then(|| format!("btrfs: the log tree is not empty: {root}")))
}

#[cfg(test)]
mod tests {
    use super::{btrfs, ext4};

    #[test]
    fn an_ext4_that_was_not_frozen_wants_its_journal() {
        let frozen = "Filesystem features:      has_journal ext_attr extent\n";
        let running = "Filesystem features:      has_journal needs_recovery extent\n";
        assert_eq!(ext4(frozen).unwrap(), None);
        assert!(ext4(running).unwrap().is_some());
        assert!(ext4("").is_err());
    }

    #[test]
    fn a_btrfs_with_a_log_tree_wants_it_replayed() {
        assert_eq!(btrfs("log_root\t\t0\n").unwrap(), None);
        assert!(btrfs("log_root\t\t30474240\n").unwrap().is_some());
        assert!(btrfs("").is_err());
    }
}
