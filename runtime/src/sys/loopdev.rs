//! Loop devices: which file is behind one, attaching, detaching (`linux/loop.h`).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;

use crate::plan::DevId;

const BLKSSZGET: libc::Ioctl = 0x1268;
const LOOP_CLR_FD: libc::Ioctl = 0x4C01;
const LOOP_GET_STATUS64: libc::Ioctl = 0x4C05;
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;

const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;
const LO_FLAGS_PARTSCAN: u32 = 8;

/// How often a free device is looked for again when somebody else was quicker.
const ATTEMPTS: usize = 64;

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

const NO_INFO: LoopInfo = LoopInfo {
    device: 0,
    inode: 0,
    rdevice: 0,
    offset: 0,
    size_limit: 0,
    number: 0,
    encrypt_type: 0,
    encrypt_key_size: 0,
    flags: 0,
    file_name: [0; 64],
    crypt_name: [0; 64],
    encrypt_key: [0; 32],
    init: [0; 2],
};

/// What a loop device says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LoopStatus {
    /// The device number of the file behind it, as `stat` gives it.
    pub(crate) file_system: DevId,
    /// The file's inode number.
    pub(crate) inode: u64,
    /// What it shows of the file.
    pub(crate) geometry: Geometry,
}

/// Asks the loop device at `node`; `None` if no file is attached.
pub(crate) fn status(node: &Path) -> io::Result<Option<LoopStatus>> {
    status_of(&open(node)?)
}

/// Opens a loop device to ask it. While it is open, its file stays attached.
pub(crate) fn open(node: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(node)
}

/// Asks an opened loop device; `None` if no file is attached.
pub(crate) fn status_of(device: &File) -> io::Result<Option<LoopStatus>> {
    let mut info = NO_INFO;
    // SAFETY: the descriptor is open for the whole call, and the kernel writes one loop_info64,
    // which LoopInfo mirrors field by field, into memory that we own.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64, &raw mut info) };
    match Errno::result(result) {
        Ok(_) => Ok(Some(LoopStatus {
            file_system: DevId::of(info.device),
            inode: info.inode,
            geometry: Geometry {
                offset: info.offset,
                size_limit: info.size_limit,
                block_size: block_size(device)?,
            },
        })),
        Err(Errno::ENXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn block_size(device: &File) -> io::Result<u32> {
    let mut size: libc::c_int = 0;
    // SAFETY: the descriptor is open for the whole call, and the kernel writes one int into memory
    // that we own.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), BLKSSZGET, &raw mut size) };
    Errno::result(result)?;
    u32::try_from(size).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// What a loop device shows of its file, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Where it begins, in bytes.
    pub(crate) offset: u64,
    /// How long it is at most, in bytes; 0: to the end of the file.
    pub(crate) size_limit: u64,
    /// Logical block size, in bytes. A file system made for smaller blocks cannot be mounted.
    pub(crate) block_size: u32,
}

/// Attaches `image` to a free loop device and gives its node. Direct I/O is used where the file
/// system can do it in such blocks, so that the image's pages are not cached twice.
pub(crate) fn attach(image: &File, name: &Path, geometry: Geometry) -> io::Result<PathBuf> {
    let (_device, node) = attach_with(image, name, geometry, LO_FLAGS_PARTSCAN)?;
    Ok(node)
}

/// As [`attach`]; the kernel detaches it when nobody uses it any more: neither a mount nor, as long
/// as it is open, the device that is given back.
pub(crate) fn attach_while_used(
    image: &File,
    name: &Path,
    geometry: Geometry,
) -> io::Result<(File, PathBuf)> {
    attach_with(image, name, geometry, LO_FLAGS_AUTOCLEAR)
}

fn attach_with(
    image: &File,
    name: &Path,
    geometry: Geometry,
    flags: u32,
) -> io::Result<(File, PathBuf)> {
    match configure_free(image, name, geometry, flags | LO_FLAGS_DIRECT_IO) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            configure_free(image, name, geometry, flags)
        }
        other => other,
    }
}

fn configure_free(
    image: &File,
    name: &Path,
    geometry: Geometry,
    flags: u32,
) -> io::Result<(File, PathBuf)> {
    let control = File::options().read(true).write(true).open("/dev/loop-control")?;
    let config = config(image, name, geometry, flags)?;
    let mut attempts = 0;
    loop {
        let number = free_number(&control)?;
        let node = PathBuf::from(format!("/dev/loop{number}"));
        match configure(&config, &node) {
            // Somebody else took it between the two calls.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && attempts < ATTEMPTS => {
                attempts += 1;
            }
            Err(error) => return Err(error),
            Ok(device) => return Ok((device, node)),
        }
    }
}

fn config(image: &File, name: &Path, geometry: Geometry, flags: u32) -> io::Result<LoopConfig> {
    let Geometry { offset, size_limit, block_size } = geometry;
    let fd = u32::try_from(image.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut info = LoopInfo { offset, size_limit, flags, ..NO_INFO };
    // For old tools that show the name kept here; the last byte stays zero.
    let bytes = name.as_os_str().as_encoded_bytes();
    let shown = bytes.len().min(info.file_name.len() - 1);
    info.file_name[..shown].copy_from_slice(&bytes[..shown]);
    Ok(LoopConfig { fd, block_size, info, reserved: [0; 8] })
}

fn free_number(control: &File) -> io::Result<i32> {
    // SAFETY: the descriptor is open for the whole call; the request takes no argument.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
    Ok(Errno::result(number)?)
}

/// The image that `config` names must be open.
fn configure(config: &LoopConfig, node: &Path) -> io::Result<File> {
    let device = File::options().read(true).write(true).open(node)?;
    // SAFETY: the device's descriptor is open for the whole call, and the kernel reads one
    // loop_config, which LoopConfig mirrors field by field, from memory that we own. The number of
    // the image's descriptor in it is checked by the kernel.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const *config) };
    Errno::result(result)?;
    Ok(device)
}

/// Detaches the file from an opened loop device. A device that is mounted or opened elsewhere is
/// detached by the kernel when its last user goes; one without a file is no error.
pub(crate) fn detach(device: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open for the whole call; the request's argument is not used.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CLR_FD, 0) };
    match Errno::result(result) {
        Ok(_) | Err(Errno::ENXIO) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_have_the_kernels_sizes() {
        assert_eq!(size_of::<LoopInfo>(), 232);
        assert_eq!(size_of::<LoopConfig>(), 304);
    }
}
