//! File leases: the one way to learn that nobody has a file open for writing.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;

/// From `linux/fcntl.h`; the libc crate has it for some C libraries only.
const F_SETSIG: libc::c_int = 10;

/// True if somebody has this regular file open, or mapped, for writing. `file` is open for reading.
///
/// # Errors
/// If its file system has no leases, or the caller neither owns the file nor has `CAP_LEASE`.
pub(crate) fn has_writer(file: BorrowedFd<'_>) -> io::Result<bool> {
    let fd = file.as_raw_fd();
    // Whoever opens the file for writing while the lease is held makes the kernel signal the
    // holder. The default, SIGIO, would kill this process; SIGURG is ignored unless asked for.
    // SAFETY: fcntl on a descriptor that is borrowed, with integer arguments only.
    let leased = unsafe {
        libc::fcntl(fd, F_SETSIG, libc::SIGURG) != -1
            && libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK) != -1
    };
    if !leased {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::EAGAIN) => Ok(true),
            _ => Err(error),
        };
    }
    // SAFETY: as above.
    let released = unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK) };
    if released == -1 { Err(io::Error::last_os_error()) } else { Ok(false) }
}
