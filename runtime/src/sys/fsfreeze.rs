//! FIFREEZE and FITHAW: the two `ioctl`s that this program exists around.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::libc;

// `_IOWR('X', 119, int)` and `_IOWR('X', 120, int)`, from linux/fs.h.
nix::ioctl_readwrite!(fifreeze_ioctl, b'X', 119, libc::c_int);
nix::ioctl_readwrite!(fithaw_ioctl, b'X', 120, libc::c_int);

/// Freezes the file system of `fd`. Blocks in D state while a write is in flight, or for ever on
/// dead storage; a signal does not end it.
///
/// # Errors
/// EBUSY: frozen already. EOPNOTSUPP: its type cannot be frozen. EPERM: no CAP_SYS_ADMIN.
/// EIO and the like: its last flush failed; it is not frozen then.
pub(crate) fn freeze(fd: impl AsFd) -> Result<(), Errno> {
    let mut unused = 0;
    // SAFETY: the descriptor is open for as long as `fd` is borrowed. The kernel ignores the
    // argument of FIFREEZE; a pointer to an int of ours is valid in any case.
    unsafe { fifreeze_ioctl(fd.as_fd().as_raw_fd(), &raw mut unused) }.map(drop)
}

/// Thaws the file system of `fd`, whoever froze it.
///
/// # Errors
/// EINVAL: it is not frozen, **or a freeze of it is in flight** and will complete later.
pub(crate) fn thaw(fd: impl AsFd) -> Result<(), Errno> {
    let mut unused = 0;
    // SAFETY: as for FIFREEZE above.
    unsafe { fithaw_ioctl(fd.as_fd().as_raw_fd(), &raw mut unused) }.map(drop)
}
