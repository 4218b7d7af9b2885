//! A write that does not end: a freeze of its file system waits for it in D state, and nobody can end it.

use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;

use anyhow::{Context, Result};

use crate::standing::wait_until;

/// A write that is in flight until this is dropped: it splices from a pipe that nobody fills, and holds
/// the superblock's write lock meanwhile.
#[derive(Debug)]
pub struct WriteInFlight {
    pipe: Option<std::io::PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl WriteInFlight {
    /// Starts one in this directory, and waits until it is in the kernel.
    ///
    /// # Errors
    /// If it does not get there.
    pub fn on(directory: &Path) -> Result<Self> {
        let (reader, mut writer) = std::io::pipe()?;
        let path = directory.join("in-flight");
        let mut file = fs::File::create(&path)?;
        let mut reader = fs::File::from(OwnedFd::from(reader));
        let (tell, told) = channel();
        let thread = std::thread::spawn(move || {
            let _ = tell.send(nix::unistd::gettid().as_raw());
            let _ = std::io::copy(&mut reader, &mut file);
        });
        writer.write_all(b"the first bytes show that it has begun")?;
        let id = told.recv().context("the writer has ended")?;
        let own = Self { pipe: Some(writer), thread: Some(thread) };
        let splice = nix::libc::SYS_splice.to_string();
        wait_until("it waits inside the write", || {
            let call = fs::read_to_string(format!("/proc/self/task/{id}/syscall"))?;
            Ok(fs::metadata(&path)?.len() > 0 && call.starts_with(&splice))
        })?;
        Ok(own)
    }
}

impl Drop for WriteInFlight {
    fn drop(&mut self) {
        drop(self.pipe.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
