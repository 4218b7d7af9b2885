//! Shared extents: cloning a file (`ioctl_ficlone(2)`), counting its extents (`FIEMAP`), and
//! whether an XFS file system can share them at all.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use nix::libc;

/// `struct fiemap` without extents after it.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct Fiemap {
    start: u64,
    length: u64,
    flags: u32,
    mapped_extents: u32,
    extent_count: u32,
    reserved: u32,
}

/// `struct file_clone_range`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct CloneRange {
    source: i64,
    source_offset: u64,
    length: u64,
    offset: u64,
}

/// `struct xfs_fsop_geom_v4`.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct XfsGeometry {
    sizes: [u32; 8],
    blocks: [u64; 4],
    uuid: [u8; 16],
    stripe: [u32; 2],
    version: i32,
    flags: u32,
    sectors: [u32; 4],
}

/// `XFS_FSOP_GEOM_FLAGS_REFLINK`.
const XFS_REFLINK: u32 = 1 << 20;
/// `FS_NOCOW_FL`.
const NO_COW: libc::c_long = 0x0080_0000;

nix::ioctl_write_int!(ficlone, 0x94, 9);
nix::ioctl_write_ptr!(ficlonerange, 0x94, 13, CloneRange);
nix::ioctl_readwrite!(fiemap, b'f', 11, Fiemap);
nix::ioctl_read!(xfs_geometry, b'X', 124, XfsGeometry);
nix::ioctl_read!(get_flags, b'f', 1, libc::c_long);
nix::ioctl_write_ptr!(set_flags, b'f', 2, libc::c_long);

/// Makes `copy` share all of `source`'s extents: one call, one point in time.
pub(crate) fn clone_file(source: &File, copy: &File) -> io::Result<()> {
    let number = libc::c_ulong::try_from(source.as_raw_fd())
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: both descriptors are open for the whole call; the argument is a number, not a pointer.
    unsafe { ficlone(copy.as_raw_fd(), number) }?;
    Ok(())
}

/// Clones the first `length` bytes (a multiple of the block size).
pub(crate) fn clone_start(source: &File, copy: &File, length: u64) -> io::Result<()> {
    let range =
        CloneRange { source: source.as_raw_fd().into(), source_offset: 0, length, offset: 0 };
    // SAFETY: both descriptors are open for the whole call; the kernel reads one file_clone_range,
    // which CloneRange mirrors field by field.
    unsafe { ficlonerange(copy.as_raw_fd(), &raw const range) }?;
    Ok(())
}

/// How many extents the file has: the time that a clone takes grows with them.
pub(crate) fn extent_count(file: &File) -> io::Result<u32> {
    let mut request = Fiemap { length: u64::MAX, ..Fiemap::default() };
    // SAFETY: the descriptor is open for the whole call; with an extent_count of 0 the kernel
    // writes back the header only, which Fiemap mirrors field by field.
    unsafe { fiemap(file.as_raw_fd(), &raw mut request) }?;
    Ok(request.mapped_extents)
}

/// True if the XFS file system that `file` is on was made with `reflink=1`.
pub(crate) fn xfs_can_share(file: &File) -> io::Result<bool> {
    let mut geometry = XfsGeometry::default();
    // SAFETY: the descriptor is open for the whole call; the kernel writes one xfs_fsop_geom_v4,
    // which XfsGeometry mirrors in size, with its flags in place.
    unsafe { xfs_geometry(file.as_raw_fd(), &raw mut geometry) }?;
    Ok(geometry.flags & XFS_REFLINK != 0)
}

/// Gives `copy`, which must be empty, the no-copy-on-write attribute of `source`: btrfs shares
/// extents only between files that agree on it.
pub(crate) fn adopt_no_cow(source: &File, copy: &File) -> io::Result<()> {
    let mut flags: libc::c_long = 0;
    // SAFETY: the descriptor is open for the whole call. The kernel writes an int, whatever the
    // request's number says, and a long has room for it.
    unsafe { get_flags(source.as_raw_fd(), &raw mut flags) }?;
    if flags & NO_COW == 0 {
        return Ok(());
    }
    let wanted = NO_COW;
    // SAFETY: as above; the kernel reads an int. On a little-endian machine that is the low half,
    // on a big-endian one it reads zero and refuses nothing: the trial clone then tells.
    unsafe { set_flags(copy.as_raw_fd(), &raw const wanted) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_have_the_kernels_sizes() {
        assert_eq!(size_of::<Fiemap>(), 32);
        assert_eq!(size_of::<CloneRange>(), 32);
        assert_eq!(size_of::<XfsGeometry>(), 112);
        assert_eq!(std::mem::offset_of!(XfsGeometry, flags), 92);
    }
}
