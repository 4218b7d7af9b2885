//! Whether a file system's journal would be replayed at its next mount: the sign that it was not
//! frozen when it was copied. Read from the device, before anything mounts it.

use std::path::Path;

use anyhow::{Result, bail};

use crate::command::run;
use crate::lab::FsType;

/// What would be replayed, in words; `None` if nothing of any file would be.
///
/// # Errors
/// If the device cannot be read.
pub fn replay_needed(device: &Path, fs_type: FsType) -> Result<Option<String>> {
    match fs_type {
        FsType::Ext4 => ext4(&run("dumpe2fs", [Path::new("-h"), device])?),
        FsType::Xfs => Ok(xfs(&run("xfs_logprint", [Path::new("-t"), device])?)),
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

/// The kernel leaves the log of a frozen XFS dirty on purpose, by logging the superblock and nothing
/// else (`xfs_fs_freeze`: so that orphaned inodes are looked for after a crash). What counts is
/// whether anything else is in it.
fn xfs(log: &str) -> Option<String> {
    let is_item = |line: &&str| line.contains(": cnt:");
    let is_buffer = |line: &&str| line.contains("start blkno:");
    let other_item =
        log.lines().map(str::trim).filter(is_item).find(|line| !line.starts_with("BUF:"));
    let other_buffer = log.lines().map(str::trim).filter(is_buffer).find(|line| {
        let mut words = line.split_whitespace();
        !(words.any(|word| word == "blkno:0x0") && words.any(|word| word == "len:1"))
    });
    other_item
        .or(other_buffer)
        .map(|line| format!("XFS: the log holds more than the superblock: {line}"))
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
    use super::{btrfs, ext4, xfs};

    const SUPERBLOCK_ONLY: &str = "\
    log tail: 848 head: 852 state: <DIRTY>
TRANS: tid:0x3dca1406  #items:2  trans:0x3dca1406  q:0x555eb253b990
BUF: cnt:2 total:2 a:0x555eb2529ba0 len:24 a:0x555eb253ba10 len:384
\tBUF:  #regs:2   start blkno:0x0   len:1   bmap size:1   flags:0x9000
\tSUPER Block Buffer:
";

    #[test]
    fn a_frozen_xfs_has_its_superblock_in_the_log_and_nothing_else() {
        assert_eq!(xfs(SUPERBLOCK_ONLY), None);
        assert_eq!(xfs("    log tail: 2 head: 2 state: <CLEAN>\n"), None);
        let inode = format!("{SUPERBLOCK_ONLY}INO: cnt:2 total:2 a:0x1 len:56 a:0x2 len:176\n");
        assert!(xfs(&inode).is_some());
        let other = SUPERBLOCK_ONLY.replace("blkno:0x0", "blkno:0x18");
        assert!(xfs(&other).is_some());
    }

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
