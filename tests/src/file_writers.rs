//! One writer per file system, so that a freeze is seen as what it is to users: a write that does
//! not return.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::writers::{Commit, History, now_ns};

/// Between two writes of one writer.
const PAUSE: Duration = Duration::from_micros(500);

/// Writers at work, one thread for each file system.
#[derive(Debug)]
pub struct FileWriters {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<Vec<Commit>>>>,
}

impl FileWriters {
    /// Starts one writer in each directory: 4 KiB to the same place of a file, again and again.
    ///
    /// # Errors
    /// If a file cannot be made.
    pub fn start<P: AsRef<Path>>(directories: impl IntoIterator<Item = P>) -> Result<Self> {
        Self::start_with(directories, |_| Ok(()))
    }

    /// The same, and each write waits for its disk, as a client's commit does.
    ///
    /// # Errors
    /// If a file cannot be made.
    pub fn start_synced<P: AsRef<Path>>(directories: impl IntoIterator<Item = P>) -> Result<Self> {
        Self::start_with(directories, File::sync_data)
    }

    fn start_with<P: AsRef<Path>>(
        directories: impl IntoIterator<Item = P>,
        after_write: fn(&File) -> std::io::Result<()>,
    ) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for directory in directories {
            let path = directory.as_ref().join("stillpoint-lab-writer");
            let file =
                File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
            let stop = Arc::clone(&stop);
            threads.push(std::thread::spawn(move || write_until(&file, after_write, &stop)));
        }
        Ok(Self { stop, threads })
    }

    /// Stops them; each write with its begin and its return.
    ///
    /// # Errors
    /// If a write failed.
    pub fn stop(mut self) -> Result<History> {
        self.stop.store(true, Ordering::Relaxed);
        let mut commits = Vec::new();
        for thread in self.threads.drain(..) {
            commits.push(thread.join().ok().context("a writer panicked")??);
        }
        Ok(History { commits })
    }
}

impl Drop for FileWriters {
    fn drop(&mut self) {
        // Not joined: a writer may hang on a frozen file system, and the watchdog thaws it.
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn write_until(
    file: &File,
    after_write: fn(&File) -> std::io::Result<()>,
    stop: &AtomicBool,
) -> Result<Vec<Commit>> {
    let block = [0_u8; 4096];
    let mut writes = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let began_ns = now_ns();
        file.write_at(&block, 0).context("a write failed")?;
        after_write(file).context("a write did not reach the disk")?;
        writes.push(Commit { began_ns, acked_ns: now_ns() });
        std::thread::sleep(PAUSE);
    }
    Ok(writes)
}
