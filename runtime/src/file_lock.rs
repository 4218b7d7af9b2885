//! Locks on files (`flock`) that end with the value that holds them.

use std::fs::{File, TryLockError};
use std::io;
use std::ops::{Deref, DerefMut};

/// A file that is locked as long as this lives, or its process.
///
/// It is unlocked, not only closed: a child that is just being started has the file, too, until it
/// executes its program.
#[derive(Debug)]
#[must_use = "the file is locked only as long as this lives"]
pub(crate) struct FileLock(File);

impl FileLock {
    /// Locks without waiting.
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`] if somebody else has the lock.
    pub(crate) fn try_new(file: File) -> Result<Self, (File, TryLockError)> {
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(error) => Err((file, error)),
        }
    }

    /// Waits for the lock.
    pub(crate) fn wait(file: File) -> io::Result<Self> {
        loop {
            match file.lock() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map(|()| Self(file)),
            }
        }
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // If it fails, closing the file unlocks it.
        let _ = self.0.unlock();
    }
}

impl Deref for FileLock {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl DerefMut for FileLock {
    fn deref_mut(&mut self) -> &mut File {
        &mut self.0
    }
}
