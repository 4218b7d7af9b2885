//! The file of a program, opened when the hook is loaded and held from then on: what was checked is
//! what runs, whatever its path names by then.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use sha2::{Digest as _, Sha256};

use crate::hook::digest::hex;
use crate::sys::exec_lease;
use crate::walk::{WalkError, file_type, kind_in_words, walk_to};

const PERMISSIONS: u32 = 0o7777;
const SET_ID: u32 = 0o6000;
const WRITABLE_BY_OTHERS: u32 = 0o022;
const EXECUTABLE: u32 = 0o111;

/// A program that keeps all rules, held open.
#[derive(Debug)]
pub(crate) struct ProgramFile {
    file: File,
    seen: Seen,
}

/// What changes when somebody writes to a file in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    size: u64,
    written: (i64, i64),
    mode: u32,
    owner: u32,
}

/// A rule that a program breaks, in words that follow its path.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfit {
    #[error("{0}")]
    Path(#[from] WalkError),
    #[error("is {0}, not a regular file")]
    NotRegular(&'static str),
    #[error("belongs to uid {0}, not to root")]
    Owner(u32),
    #[error("has mode {0:04o}: others than root may write to it")]
    Writable(u32),
    #[error("has mode {0:04o}: programs that change their user when they start are never run")]
    SetId(u32),
    #[error("cannot be executed by anybody (mode {0:04o})")]
    NotExecutable(u32),
    #[error("is on a file system that is mounted noexec")]
    NoExec,
    #[error("is open for writing in some process")]
    OpenWriter,
    #[error("is a script for an interpreter (`#!`), not a program")]
    Script,
    #[error("is not an ELF program")]
    NotElf,
    #[error("has the digest sha256:{0}, which is not the granted one")]
    Digest(String),
    #[error("cannot be looked at")]
    Unreadable(#[source] io::Error),
}

impl Unfit {
    /// What the operator can do.
    pub(crate) fn hint(&self, path: &Path) -> String {
        let shown = path.display();
        match self {
            Unfit::Path(WalkError::Symlink { .. }) => match std::fs::canonicalize(path) {
                Ok(real) => format!("write path = \"{}\"", real.display()),
                Err(_) => "write the path that the link leads to".to_owned(),
            },
            Unfit::Path(WalkError::Directory { directory, .. }) => format!(
                "install the program where only root writes; {} must belong to root, mode 0755",
                directory.display()
            ),
            Unfit::Path(_) | Unfit::Unreadable(_) => format!("look at it as root: ls -ld {shown}"),
            Unfit::NotRegular(_) | Unfit::NotElf => "name the program's own file".to_owned(),
            Unfit::Owner(_) => {
                format!("make sure of what it is, then: chown root:root {shown}")
            }
            Unfit::Writable(_) => format!("make sure of what it is, then: chmod go-w {shown}"),
            Unfit::SetId(_) => {
                "grant a program without the set-user-ID bit, and the user that it needs by `user`"
                    .to_owned()
            }
            Unfit::NotExecutable(_) => format!("chmod 0755 {shown}"),
            Unfit::NoExec => "install it where programs may be executed".to_owned(),
            Unfit::OpenWriter => format!("find who writes to it (fuser -v {shown}) and end that"),
            Unfit::Script => {
                "grant its interpreter as the program, with the script's path as an exact argument"
                    .to_owned()
            }
            Unfit::Digest(found) => {
                format!("if it was updated on purpose, write digest = \"sha256:{found}\"")
            }
        }
    }
}

impl ProgramFile {
    /// Opens a program and checks everything by its descriptor; `None` if it is not there.
    pub(crate) fn open(path: &Path) -> Result<Option<Self>, Unfit> {
        let Some(place) = walk_to(path)? else { return Ok(None) };
        check_inode(&fstat(&place).map_err(unreadable)?)?;
        // Only now is it opened for reading: a FIFO or a device never is. By the descriptor, so that
        // it is the same inode.
        let file: File = open(
            format!("/proc/self/fd/{}", place.as_raw_fd()).as_str(),
            OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
        .map_err(unreadable)?
        .into();
        // Where leases cannot be had, execve finds a writer (ETXTBSY).
        if exec_lease::has_writer(file.as_fd()).unwrap_or(false) {
            return Err(Unfit::OpenWriter);
        }
        if fstatvfs(&file).map_err(unreadable)?.flags().contains(FsFlags::ST_NOEXEC) {
            return Err(Unfit::NoExec);
        }
        check_format(&file)?;
        let seen = Seen::of(&file).map_err(Unfit::Unreadable)?;
        Ok(Some(Self { file, seen }))
    }

    /// Checks that this very inode has the granted content.
    pub(crate) fn check_digest(&self, wanted: &crate::hook::Digest) -> Result<(), Unfit> {
        let found = self.sha256().map_err(Unfit::Unreadable)?;
        if found == wanted.hex() { Ok(()) } else { Err(Unfit::Digest(found)) }
    }

    /// In hexadecimal.
    pub(crate) fn sha256(&self) -> io::Result<String> {
        let (mut hasher, mut offset) = (Sha256::new(), 0);
        let mut buffer = vec![0_u8; 64 << 10];
        loop {
            let read = self.file.read_at(&mut buffer, offset)?;
            match buffer.get(..read) {
                Some([]) | None => return Ok(hex(&hasher.finalize())),
                Some(bytes) => hasher.update(bytes),
            }
            offset += read as u64;
        }
    }

    /// False if it was written to, or given away, since it was opened.
    pub(crate) fn is_as_checked(&self) -> bool {
        Seen::of(&self.file).is_ok_and(|now| now == self.seen)
    }
}

impl AsFd for ProgramFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Seen {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            size: metadata.size(),
            written: (metadata.mtime(), metadata.mtime_nsec()),
            mode: metadata.mode(),
            owner: metadata.uid(),
        })
    }
}

fn check_inode(stat: &FileStat) -> Result<(), Unfit> {
    let kind = file_type(stat);
    if kind != SFlag::S_IFREG {
        return Err(Unfit::NotRegular(kind_in_words(kind)));
    }
    let mode = stat.st_mode & PERMISSIONS;
    if stat.st_uid != 0 {
        return Err(Unfit::Owner(stat.st_uid));
    }
    if mode & WRITABLE_BY_OTHERS != 0 {
        return Err(Unfit::Writable(mode));
    }
    if mode & SET_ID != 0 {
        return Err(Unfit::SetId(mode));
    }
    if mode & EXECUTABLE == 0 {
        return Err(Unfit::NotExecutable(mode));
    }
    Ok(())
}

fn check_format(file: &File) -> Result<(), Unfit> {
    let mut head = Vec::new();
    file.take(4).read_to_end(&mut head).map_err(Unfit::Unreadable)?;
    match head.as_slice() {
        b"\x7fELF" => Ok(()),
        [b'#', b'!', ..] => Err(Unfit::Script),
        _ => Err(Unfit::NotElf),
    }
}

fn unreadable(errno: Errno) -> Unfit {
    Unfit::Unreadable(errno.into())
}

#[cfg(test)]
#[path = "file_tests.rs"]
pub(super) mod tests;
