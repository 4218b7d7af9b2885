//! What the suites need of the kernel and has no safe wrapper for. The only file of this crate with
//! `unsafe`.
#![expect(unsafe_code, reason = "the one place for it; each block says why it is sound")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::libc;

/// A process descriptor: readable once every thread of the process has ended.
///
/// # Errors
/// If there is no such process.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and touches no memory of ours.
    descriptor(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

/// Sends a signal to exactly the process behind `pidfd`.
///
/// # Errors
/// If it has ended.
pub fn pidfd_send_signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    let fd = pidfd.as_fd().as_raw_fd();
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed and means "as kill(2) would"; the rest are integers.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, no_info, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `FIFREEZE` of `_IOWR('X', 119, int)`, and `FITHAW`, the next one (linux/fs.h).
const FIFREEZE: libc::c_ulong = 0xc004_5877;
const FITHAW: libc::c_ulong = 0xc004_5878;

/// Freezes the file system that this is on; it stays frozen until somebody thaws it.
///
/// # Errors
/// The kernel's: `EBUSY` if it is frozen.
pub fn freeze(directory: impl AsFd) -> io::Result<()> {
    ioctl(directory, FIFREEZE)
}

/// Thaws the file system that this is on.
///
/// # Errors
/// The kernel's: `EINVAL` if it is not frozen.
pub fn thaw(directory: impl AsFd) -> io::Result<()> {
    ioctl(directory, FITHAW)
}

fn ioctl(directory: impl AsFd, request: libc::c_ulong) -> io::Result<()> {
    let fd = directory.as_fd().as_raw_fd();
    // SAFETY: both requests take an int that the kernel does not look at, and touch no memory of ours.
    let result = unsafe { libc::ioctl(fd, request as _, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A file's pages in memory, shared with the file: a write waits while its file system is frozen.
#[derive(Debug)]
pub struct Mapped {
    pages: std::ptr::NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping belongs to this value alone, and is written through `&mut self` only.
unsafe impl Send for Mapped {}

impl Mapped {
    /// Maps the first `length` bytes, which the file must have.
    ///
    /// # Errors
    /// If they cannot be mapped.
    pub fn new(file: impl AsFd, length: usize) -> io::Result<Self> {
        let (protection, fd) = (libc::PROT_READ | libc::PROT_WRITE, file.as_fd().as_raw_fd());
        // SAFETY: a new mapping, where the kernel chooses; no memory of ours is touched.
        let pages = unsafe {
            libc::mmap(std::ptr::null_mut(), length, protection, libc::MAP_SHARED, fd, 0)
        };
        if pages == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let pages = std::ptr::NonNull::new(pages.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { pages, length })
    }

    /// Writes one byte.
    ///
    /// # Panics
    /// If `at` is beyond the end.
    pub fn write(&mut self, at: usize, byte: u8) {
        assert!(at < self.length, "{at} is beyond {}", self.length);
        // SAFETY: `at` is within the mapping, which lives as long as `self`.
        unsafe { self.pages.as_ptr().add(at).write_volatile(byte) };
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping of `new`; nobody has a pointer into it any more.
        unsafe { libc::munmap(self.pages.as_ptr().cast(), self.length) };
    }
}

fn descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = RawFd::try_from(result).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Bytes of a file that are changed in memory and not yet on their way to the disk; `None` where the
/// kernel does not tell (before Linux 6.5).
///
/// # Errors
/// If the file cannot be asked.
pub fn dirty_bytes(file: &std::fs::File) -> io::Result<Option<u64>> {
    /// `cachestat(2)`, on every architecture.
    const CACHESTAT: libc::c_long = 451;
    // Offset and length (zero: to the end); then five counters of pages, the second of dirty ones.
    let whole = [0_u64; 2];
    let mut pages = [0_u64; 5];
    // SAFETY: both arrays have the layout of the structs that the call reads and writes, and are
    // alive until it returns.
    let result = unsafe {
        libc::syscall(CACHESTAT, file.as_fd().as_raw_fd(), whole.as_ptr(), pages.as_mut_ptr(), 0)
    };
    match io::Error::last_os_error() {
        _ if result == 0 => Ok(Some(pages[1] * 4096)),
        error if error.raw_os_error() == Some(libc::ENOSYS) => Ok(None),
        error => Err(error),
    }
}
