//! Memory that agent, guard and sentinel share, as an array of atomic words.

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::unistd::ftruncate;

/// Words in shared memory. Each is read and written atomically by any of the processes.
pub(crate) struct SharedWords {
    fd: OwnedFd,
    start: NonNull<AtomicU64>,
    len: usize,
}

// SAFETY: the mapping belongs to the value, lives until it is dropped, and is reached only through
// `&AtomicU64`, which may be shared between threads.
unsafe impl Send for SharedWords {}
// SAFETY: as above.
unsafe impl Sync for SharedWords {}

impl fmt::Debug for SharedWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedWords").field("len", &self.len).finish_non_exhaustive()
    }
}

impl SharedWords {
    /// `len` words, all zero. Nobody can resize them afterwards.
    pub(crate) fn create(len: usize) -> io::Result<Self> {
        let fd =
            memfd_create(c"stillpoint-board", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        let bytes = i64::try_from(len * size_of::<AtomicU64>())
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        ftruncate(&fd, bytes)?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&fd, FcntlArg::F_ADD_SEALS(seals))?;
        Self::map(fd)
    }

    /// The words behind a descriptor that another process sent.
    ///
    /// # Errors
    /// If it could still be shrunk (a read behind its end would kill us), or cannot be mapped.
    pub(crate) fn map(fd: OwnedFd) -> io::Result<Self> {
        let seals = SealFlag::from_bits_truncate(fcntl(&fd, FcntlArg::F_GET_SEALS)?);
        if !seals.contains(SealFlag::F_SEAL_SHRINK) {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        let bytes = usize::try_from(nix::sys::stat::fstat(&fd)?.st_size).unwrap_or(0);
        let length =
            NonZeroUsize::new(bytes).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing of ours; it
        // cannot be cut behind our back, because the file is sealed against shrinking.
        let start = unsafe {
            mmap(
                None,
                length,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                &fd,
                0,
            )
        }?;
        Ok(Self { fd, start: start.cast(), len: bytes / size_of::<AtomicU64>() })
    }

    /// How many words there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// All words.
    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is page-aligned, `len` words long, initialised (zero-filled by the
        // kernel), lives as long as `self`, and is only ever accessed atomically.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl AsFd for SharedWords {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        let bytes = self.len * size_of::<AtomicU64>();
        // SAFETY: start and length are those of our mapping, and `words` can no longer be borrowed.
        let _ = unsafe { munmap(self.start.cast(), bytes) };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn what_one_mapping_writes_the_other_reads() {
        let one = SharedWords::create(16).unwrap();
        let other = SharedWords::map(one.as_fd().try_clone_to_owned().unwrap()).unwrap();
        one.words()[7].store(42, Ordering::SeqCst);
        assert_eq!(other.words()[7].load(Ordering::SeqCst), 42);
        assert_eq!(other.len(), 16);
    }

    #[test]
    fn memory_that_could_be_shrunk_is_refused() {
        let fd = memfd_create(c"t", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).unwrap();
        ftruncate(&fd, 4096).unwrap();
        assert!(SharedWords::map(fd).is_err());
    }
}
