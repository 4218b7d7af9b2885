//! Going down to a file that must be what root put there: one component at a time, following no
//! link, through no directory in which somebody else could put another file in its place.

use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};

const PERMISSIONS: u32 = 0o7777;

/// Why a path is not gone down.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WalkError {
    /// It is relative, or has `.` or `..` in it.
    #[error("is not an absolute path without `.` and `..`")]
    NotAbsolute,
    /// A part of it is a symbolic link.
    #[error("{} is a symbolic link", component.display())]
    Symlink { component: PathBuf },
    /// A directory in which others than root could put another file in its place.
    #[error("directory {} {found}", directory.display())]
    Directory { directory: PathBuf, found: String },
    /// The kernel refused.
    #[error("cannot {action}: {}", source.desc())]
    Refused { action: &'static str, source: Errno },
}

/// Goes down to a file or directory, which is opened as a mere place (`O_PATH`); `None` if it is not
/// there. What it is, is for the caller to check.
pub(crate) fn walk_to(path: &Path) -> Result<Option<OwnedFd>, WalkError> {
    let mut components = path.components();
    if components.next() != Some(Component::RootDir) {
        return Err(WalkError::NotAbsolute);
    }
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut walked = PathBuf::from("/");
    let mut here = open(&walked, flags, Mode::empty()).map_err(refused("open /"))?;
    for component in components {
        let Component::Normal(name) = component else { return Err(WalkError::NotAbsolute) };
        check_directory(&walked, &fstat(&here).map_err(refused("fstat"))?)?;
        walked.push(name);
        here = match openat(&here, name, flags, Mode::empty()) {
            Ok(next) => next,
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(refused("open")(errno)),
        };
        if file_type(&fstat(&here).map_err(refused("fstat"))?) == SFlag::S_IFLNK {
            return Err(WalkError::Symlink { component: walked });
        }
    }
    Ok(Some(here))
}

fn check_directory(directory: &Path, stat: &FileStat) -> Result<(), WalkError> {
    let wrong =
        |found: String| Err(WalkError::Directory { directory: directory.to_owned(), found });
    if file_type(stat) != SFlag::S_IFDIR {
        return wrong("is not a directory".to_owned());
    }
    if stat.st_uid != 0 {
        return wrong(format!("belongs to uid {}, not to root", stat.st_uid));
    }
    let others_write = stat.st_mode & 0o002 != 0 || (stat.st_mode & 0o020 != 0 && stat.st_gid != 0);
    if others_write && stat.st_mode & 0o1000 == 0 {
        return wrong(format!(
            "has mode {:04o}: others than root may write to it, and it is not sticky",
            stat.st_mode & PERMISSIONS
        ));
    }
    Ok(())
}

/// What sort of file it is.
pub(crate) fn file_type(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// In words, what a file is that is not a regular one.
pub(crate) fn kind_in_words(kind: SFlag) -> &'static str {
    match kind {
        SFlag::S_IFDIR => "a directory",
        SFlag::S_IFIFO => "a FIFO",
        SFlag::S_IFSOCK => "a socket",
        SFlag::S_IFBLK => "a block device",
        SFlag::S_IFCHR => "a character device",
        _ => "something else",
    }
}

fn refused(action: &'static str) -> impl Fn(Errno) -> WalkError {
    move |source| WalkError::Refused { action, source }
}
