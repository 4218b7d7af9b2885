//! Files that were changed a short while ago and that nobody has open any more: directories are
//! gone through, those that were changed last first, for as long as there is time.

use std::collections::BinaryHeap;
use std::fs::{self, File};
use std::ops::ControlFlow;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};

use super::open::Seen;
use crate::plan::DevId;
use crate::time::Deadline;

/// The kernel begins to write out what has been dirty for 30 s; twice that, for a disk that is behind.
const RECENT_SECONDS: i64 = 60;

/// What a walk may use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// It ends here.
    pub(super) until: Deadline,
    /// Entries of directories that are looked at. Each needs an inode, which may have to be read.
    pub(super) entries: usize,
}

/// A directory that is still to be read. The one that was changed last is the greatest.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Directory {
    changed: (i64, i64),
    path: PathBuf,
}

/// Shows each file under `root` that was changed recently. Follows no link and crosses no mount.
pub(super) fn each_changed_file(
    root: &OwnedFd,
    superblock: DevId,
    now_seconds: i64,
    mut bounds: Bounds,
    seen: &mut Seen,
    mut visit: impl FnMut(File) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let mut ahead = BinaryHeap::from([Directory { changed: (0, 0), path: ".".into() }]);
    while let Some(directory) = ahead.pop() {
        let Some(place) = open_directory(root, &directory) else { continue };
        // Through the descriptor: what was opened is what is read.
        let entries = fs::read_dir(format!("/proc/self/fd/{}", place.as_raw_fd()));
        for entry in entries.into_iter().flatten().flatten() {
            if bounds.entries == 0 || bounds.until.has_passed() {
                return ControlFlow::Break(());
            }
            bounds.entries -= 1;
            if !entry.file_type().is_ok_and(|kind| kind.is_dir() || kind.is_file()) {
                continue;
            }
            let name = entry.file_name();
            let name = name.as_os_str();
            let Ok(found) = fstatat(&place, name, AtFlags::AT_SYMLINK_NOFOLLOW) else { continue };
            match kind(&found) {
                SFlag::S_IFDIR => ahead.push(Directory {
                    changed: (found.st_mtime, found.st_mtime_nsec),
                    path: directory.path.join(name),
                }),
                // Not the time of modification: archivers set that one to what it was elsewhere.
                SFlag::S_IFREG if found.st_ctime >= now_seconds - RECENT_SECONDS => {
                    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                    let Ok(file) = openat(&place, name, flags, Mode::empty()) else { continue };
                    if let Some(file) = seen.open_new(file, superblock) {
                        visit(file)?;
                    }
                }
                _ => {}
            }
        }
    }
    ControlFlow::Continue(())
}

fn kind(found: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT
}

/// `None` where it is gone, or where a link or another mount has taken its place.
fn open_directory(root: &OwnedFd, directory: &Directory) -> Option<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOATIME | OFlag::O_CLOEXEC)
        .resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_XDEV,
        );
    openat2(root, &directory.path, how).ok()
}

#[cfg(test)]
mod tests {
    use super::{Bounds, each_changed_file};
    use crate::flush::open::Seen;
    use crate::guard::mounts::open_directory;
    use crate::plan::DevId;
    use crate::time::Deadline;
    use std::collections::BTreeSet;
    use std::fs;
    use std::ops::ControlFlow;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::path::Path;
    use std::time::Duration;

    fn found(root: &Path, now: i64, entries: usize) -> BTreeSet<u64> {
        let mut found = BTreeSet::new();
        let bounds = Bounds { until: Deadline::after(Duration::from_secs(60)), entries };
        let root = open_directory(root).unwrap();
        let nowhere = DevId { major: 0, minor: 0 };
        let _ = each_changed_file(&root, nowhere, now, bounds, &mut Seen::default(), |file| {
            found.insert(file.metadata().unwrap().ino());
            ControlFlow::Continue(())
        });
        found
    }

    fn now() -> i64 {
        jiff::Timestamp::now().as_second()
    }

    #[test]
    fn changed_files_are_found_however_deep_and_nothing_else_is_opened() {
        let (tree, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let deep = tree.path().join("a/b/c");
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("deep"), "x").unwrap();
        fs::write(tree.path().join("high"), "x").unwrap();
        fs::hard_link(tree.path().join("high"), deep.join("again")).unwrap();
        fs::write(outside.path().join("other"), "x").unwrap();
        symlink(outside.path(), tree.path().join("link")).unwrap();
        symlink(outside.path().join("other"), tree.path().join("file-link")).unwrap();
        nix::unistd::mkfifo(&tree.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let inode = |path: &Path| fs::metadata(path).unwrap().ino();
        let expected =
            BTreeSet::from([inode(&deep.join("deep")), inode(&tree.path().join("high"))]);
        assert_eq!(found(tree.path(), now(), 100), expected);
    }

    #[test]
    fn what_was_changed_long_ago_is_left_alone() {
        let tree = tempfile::tempdir().unwrap();
        fs::write(tree.path().join("file"), "x").unwrap();
        assert_eq!(found(tree.path(), now() + 3600, 100), BTreeSet::new());
    }

    #[test]
    fn it_ends_with_its_entries() {
        let tree = tempfile::tempdir().unwrap();
        for index in 0..20 {
            fs::write(tree.path().join(index.to_string()), "x").unwrap();
        }
        assert_eq!(found(tree.path(), now(), 7).len(), 7);
    }
}
