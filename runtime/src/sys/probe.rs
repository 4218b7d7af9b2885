//! A write of zero bytes that never waits: the only question to a file system that tells whether it
//! is frozen, and changes nothing.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use io_uring::{IoUring, opcode, types};
use nix::libc;

/// What the kernel said to the write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It would have been done: the file system is not frozen.
    Done,
    /// It would have had to wait: the file system is frozen, or is being frozen, or the file is
    /// locked by a write at this very moment.
    WouldWait,
}

/// Submits a write of zero bytes with `RWF_NOWAIT`. `fd` must be an existing regular file, opened
/// `O_WRONLY | O_DIRECT` (ext4 answers buffered ones with EAGAIN always). Does not block: io_uring
/// tries to take the superblock's write lock; `pwritev2` with the same flag waits for it.
///
/// # Errors
/// If io_uring is not available (ENOSYS, EPERM where it is switched off), or the write itself
/// failed for another reason.
pub(crate) fn zero_length_write(fd: impl AsFd) -> io::Result<Answer> {
    let mut ring = IoUring::new(2)?;
    let nothing: [u8; 0] = [];
    let write = opcode::Write::new(types::Fd(fd.as_fd().as_raw_fd()), nothing.as_ptr(), 0)
        .rw_flags(libc::RWF_NOWAIT)
        .build();
    // SAFETY: the entry refers to a descriptor that is borrowed until the completion below, and to
    // a buffer of length zero.
    unsafe { ring.submission().push(&write) }.map_err(io::Error::other)?;
    ring.submit_and_wait(1)?;
    let completion = ring.completion().next().ok_or(io::ErrorKind::UnexpectedEof)?;
    match completion.result() {
        done if done >= 0 => Ok(Answer::Done),
        wait if wait == -libc::EAGAIN => Ok(Answer::WouldWait),
        errno => Err(io::Error::from_raw_os_error(-errno)),
    }
}
