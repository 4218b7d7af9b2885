//! What of a file is dirty (`cachestat(2)`, Linux 6.5), and starting to write it out
//! (`sync_file_range(2)`).

use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc;

/// The number of `cachestat(2)`: the same on every architecture that Linux has added system calls
/// for since 5.1 in one table.
const SYS_CACHESTAT: libc::c_long = 451;

/// `struct cachestat_range`.
#[repr(C)]
#[derive(Debug)]
struct CachestatRange {
    offset: u64,
    length: u64,
}

/// `struct cachestat`, in pages.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pages {
    cached: u64,
    /// Changed, and not yet on their way to the disk.
    pub(crate) dirty: u64,
    /// On their way.
    pub(crate) in_flight: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// Counts the pages of `range` (bytes). Touches memory only; takes microseconds for a megabyte.
///
/// # Errors
/// ENOSYS before Linux 6.5, EOPNOTSUPP for hugetlbfs.
pub(crate) fn pages_of(file: &File, range: &Range<u64>) -> Result<Pages, Errno> {
    let asked =
        CachestatRange { offset: range.start, length: range.end.saturating_sub(range.start) };
    let mut pages = Pages::default();
    // SAFETY: the descriptor is borrowed for the call; the kernel reads one struct and writes the
    // other, both of its own layout and alive until it returns.
    let result = unsafe {
        libc::syscall(
            SYS_CACHESTAT,
            file.as_raw_fd(),
            std::ptr::from_ref(&asked),
            std::ptr::from_mut(&mut pages),
            0,
        )
    };
    Errno::result(result).map(|_| pages)
}

/// Sends the dirty pages of `range` (bytes) on their way and does not wait for them.
///
/// Deliberately without the flags that wait: those report an error of writeback to *us*, and a
/// process that opens the file later to `fsync` it would then never hear of it.
///
/// # Errors
/// What writing to the file system answers: ENOSPC, EIO.
pub(crate) fn begin_writing(file: &File, range: &Range<u64>) -> Result<(), Errno> {
    let signed = |value: u64| i64::try_from(value).map_err(|_| Errno::EOVERFLOW);
    let (offset, length) = (signed(range.start)?, signed(range.end.saturating_sub(range.start))?);
    // SAFETY: no memory is handed over, and the descriptor is borrowed for the call.
    let result = unsafe {
        libc::sync_file_range(file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE)
    };
    Errno::result(result).map(drop)
}
