//! Somebody who writes all the time, and can be asked at any moment whether a write that was begun
//! since then has returned: a freeze, or a lock, as a user notices it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::writers::now_ns;

/// Between two writes. Far below what is promised, and long enough that the writers of several fields
/// do not keep a processor busy.
const PAUSE: Duration = Duration::from_millis(2);

/// One writer. It ends when this is dropped.
#[derive(Debug)]
pub struct Pulse {
    /// Whose it is, for messages.
    pub name: String,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// A write that was begun at or after this moment answers the question.
    since_ns: AtomicU64,
    /// When it returned; 0 while none has.
    answered_ns: AtomicU64,
    longest_ns: AtomicU64,
}

impl Shared {
    fn wrote(&self, began_ns: u64, ended_ns: u64) {
        self.longest_ns.fetch_max(ended_ns.saturating_sub(began_ns), SeqCst);
        if began_ns >= self.since_ns.load(SeqCst) {
            let _ = self.answered_ns.compare_exchange(0, ended_ns, SeqCst, SeqCst);
        }
    }
}

impl Pulse {
    /// Writes 4 KiB to the same place of a file in `directory`, again and again.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub fn of_file_system(name: &str, directory: &Path) -> Result<Self> {
        let path = directory.join("stillpoint-lab-writer");
        let file =
            File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let block = [0_u8; 4096];
        Self::start(name, move || file.write_at(&block, 0).map(drop).context("a write failed"))
    }

    /// Does `write` again and again, in a thread of its own.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(
        name: &str,
        mut write: impl FnMut() -> Result<()> + Send + 'static,
    ) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let run = move || {
            while !of_thread.stop.load(SeqCst) {
                let began_ns = now_ns();
                write()?;
                of_thread.wrote(began_ns, now_ns());
                std::thread::sleep(PAUSE);
            }
            Ok(())
        };
        let thread = std::thread::Builder::new().name(format!("pulse-{name}")).spawn(run)?;
        Ok(Self { name: name.to_owned(), shared, thread: Some(thread) })
    }

    /// Asks: when does a write return that is begun from `moment` on?
    pub fn ask_since(&self, moment_ns: u64) {
        self.shared.since_ns.store(moment_ns, SeqCst);
        self.shared.answered_ns.store(0, SeqCst);
    }

    /// How long after `moment`, which was asked about, that write returned; `None` if it has not
    /// `limit` after the moment.
    ///
    /// # Errors
    /// If the writer has failed.
    pub fn answer(&self, moment_ns: u64, limit: Duration) -> Result<Option<Duration>> {
        let until = Instant::now() + limit.saturating_sub(since(moment_ns));
        loop {
            match self.shared.answered_ns.load(SeqCst) {
                0 if self.thread.as_ref().is_none_or(JoinHandle::is_finished) => {
                    bail!("the writer of {} has failed", self.name)
                }
                0 if Instant::now() >= until => return Ok(None),
                0 => std::thread::sleep(Duration::from_micros(500)),
                ns => return Ok(Some(Duration::from_nanos(ns.saturating_sub(moment_ns)))),
            }
        }
    }

    /// How long the longest write took since this was last asked.
    #[must_use]
    pub fn take_longest(&self) -> Duration {
        Duration::from_nanos(self.shared.longest_ns.swap(0, SeqCst))
    }

    /// Stops the writer.
    ///
    /// # Errors
    /// If a write has failed.
    pub fn stop(mut self) -> Result<()> {
        self.shared.stop.store(true, SeqCst);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result.with_context(|| self.name.clone()),
            _ => bail!("the writer of {} panicked", self.name),
        }
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        // Not joined: it may hang on a frozen file system, which the watchdog thaws.
        self.shared.stop.store(true, SeqCst);
    }
}

/// How long ago a moment was.
#[must_use]
pub fn since(moment_ns: u64) -> Duration {
    Duration::from_nanos(now_ns().saturating_sub(moment_ns))
}
