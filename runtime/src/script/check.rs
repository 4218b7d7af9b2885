//! The rules for a script that will run as root. Everything is asked of an open descriptor, never
//! of a path twice, so that what was checked is what runs; the descriptor stays open until then.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use sha2::{Digest, Sha256};

use super::problem::Violation;
use crate::sys::exec_lease;
use crate::walk::{WalkError, file_type, kind_in_words, walk_to};

/// The longest script, in bytes. Both scripts are hashed before anything is held.
pub const SIZE_LIMIT: u64 = 1024 * 1024;

/// The kernel reads this much of a file to find its interpreter (`BINPRM_BUF_SIZE`).
const INTERPRETER_LINE_LIMIT: usize = 256;

const PERMISSIONS: u32 = 0o7777;

/// A script that keeps all rules, held open.
#[derive(Debug)]
pub(super) struct CheckedScript {
    /// Its path when it was checked; nothing is opened by it any more.
    pub(super) path: PathBuf,
    /// The validated inode.
    pub(super) file: File,
    /// In hexadecimal.
    pub(super) sha256: String,
}

impl CheckedScript {
    /// The digest of what the inode holds now.
    pub(super) fn current_digest(&self) -> io::Result<String> {
        digest(&self.file)
    }
}

/// Checks one script; `None` if there is no file of that name.
pub(super) fn check(path: &Path) -> Result<Option<CheckedScript>, Violation> {
    let Some(inode) = walk_to(path)? else { return Ok(None) };
    let stat = fstat(&inode).map_err(unreadable("fstat"))?;
    check_inode(&stat)?;

    // Only now is it opened for reading: a FIFO or a device never is. By the descriptor, so that it
    // is the same inode.
    let file: File = open(
        &super::fd_path(inode.as_fd()),
        OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .map_err(unreadable("open"))?
    .into();
    if exec_lease::has_writer(file.as_fd())
        .map_err(|source| Violation::Unreadable { action: "looking for writers", source })?
    {
        return Err(Violation::OpenWriter);
    }
    let mount = fstatvfs(&file).map_err(unreadable("fstatvfs"))?;
    if mount.flags().contains(FsFlags::ST_NOEXEC) {
        return Err(Violation::NoExec);
    }
    check_interpreter(&file)?;
    let sha256 =
        digest(&file).map_err(|source| Violation::Unreadable { action: "read", source })?;
    Ok(Some(CheckedScript { path: path.to_owned(), file, sha256 }))
}

fn check_inode(stat: &FileStat) -> Result<(), Violation> {
    let kind = file_type(stat);
    if kind != SFlag::S_IFREG {
        return Err(Violation::NotRegular { found: kind_in_words(kind) });
    }
    if stat.st_uid != 0 {
        return Err(Violation::Owner { uid: stat.st_uid });
    }
    let mode = stat.st_mode & PERMISSIONS;
    if mode != 0o700 {
        return Err(Violation::Mode { mode });
    }
    if stat.st_nlink != 1 {
        return Err(Violation::HardLinks { links: stat.st_nlink });
    }
    let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
    if size > SIZE_LIMIT {
        return Err(Violation::TooLarge { size, limit: SIZE_LIMIT });
    }
    Ok(())
}

/// The interpreter is there, can be executed, and nobody but root can change it.
fn check_interpreter(script: &File) -> Result<(), Violation> {
    let interpreter = interpreter_of(script)?;
    let wrong = |found: String| Violation::Interpreter { interpreter: interpreter.clone(), found };
    // Links are followed here: /bin/sh is one on most systems. What counts is where they end.
    let real = std::fs::canonicalize(&interpreter)
        .map_err(|error| wrong(format!("cannot be found: {error}")))?;
    let file = open(&real, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|errno| wrong(format!("cannot be opened: {}", errno.desc())))?;
    let stat = fstat(&file).map_err(|errno| wrong(errno.desc().to_owned()))?;
    let mode = stat.st_mode & PERMISSIONS;
    if file_type(&stat) != SFlag::S_IFREG || mode & 0o111 == 0 {
        return Err(wrong("is not an executable file".to_owned()));
    }
    if stat.st_uid != 0 || mode & 0o002 != 0 || (mode & 0o020 != 0 && stat.st_gid != 0) {
        return Err(wrong("can be changed by others than root".to_owned()));
    }
    let mount = fstatvfs(&file).map_err(|errno| wrong(errno.desc().to_owned()))?;
    if mount.flags().contains(FsFlags::ST_NOEXEC) {
        return Err(wrong("is on a file system that is mounted noexec".to_owned()));
    }
    Ok(())
}

/// What the `#!` line names, as the kernel reads it.
fn interpreter_of(script: &File) -> Result<PathBuf, Violation> {
    let mut head = [0_u8; INTERPRETER_LINE_LIMIT];
    let length = script
        .read_at(&mut head, 0)
        .map_err(|source| Violation::Unreadable { action: "read", source })?;
    let line = head
        .get(..length)
        .and_then(|head| head.split(|&byte| byte == b'\n').next())
        .filter(|line| line.len() < INTERPRETER_LINE_LIMIT)
        .and_then(|line| line.strip_prefix(b"#!"))
        .ok_or(Violation::NoInterpreterLine)?;
    if line.ends_with(b"\r") {
        return Err(Violation::CarriageReturn);
    }
    let line = String::from_utf8_lossy(line);
    let interpreter = line
        .split([' ', '\t'])
        .find(|word| !word.is_empty())
        .ok_or(Violation::NoInterpreterLine)?;
    if !interpreter.starts_with('/') {
        return Err(Violation::InterpreterNotAbsolute { interpreter: interpreter.to_owned() });
    }
    Ok(PathBuf::from(interpreter))
}

/// Reads by position: the descriptor's own offset is the script's, once it runs.
fn digest(file: &File) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut reader = FromStart { file, offset: 0 }.take(SIZE_LIMIT);
    let mut buffer = [0_u8; 16 * 1024];
    loop {
        let read = reader.read(&mut buffer)?;
        match buffer.get(..read) {
            Some([]) | None => break,
            Some(bytes) => hasher.update(bytes),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

struct FromStart<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

fn unreadable(action: &'static str) -> impl Fn(Errno) -> Violation {
    move |errno| Violation::Unreadable { action, source: errno.into() }
}

impl From<WalkError> for Violation {
    fn from(error: WalkError) -> Self {
        match error {
            WalkError::NotAbsolute => Violation::NotAbsolute,
            WalkError::Symlink { component } => Violation::Symlink { component },
            WalkError::Directory { directory, found } => Violation::Directory { directory, found },
            WalkError::Refused { action, source } => {
                Violation::Unreadable { action, source: source.into() }
            }
        }
    }
}
