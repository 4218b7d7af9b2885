//! One hook's state: what is in memory is what was acknowledged.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::time::Deadline;

use super::file::{self, Content, StateError};
use super::worker::{NoResult, Worker};

/// Where a hook's state is kept.
#[derive(Clone, Debug)]
pub(super) struct Places {
    /// Its file on a disk.
    pub(super) disk: PathBuf,
    /// Its file on tmpfs: there only if it is newer than the one on disk.
    pub(super) memory: PathBuf,
}

/// One hook's state in one run.
#[derive(Debug)]
pub(super) struct HookState {
    hook: String,
    places: Places,
    worker: Arc<Worker>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// What was acknowledged; `None` until it was read.
    content: Option<Content>,
    /// The number of the last change that was tried. One that was given up may still reach the disk,
    /// and must not be taken for a later one.
    last: u64,
    /// What is acknowledged is on tmpfs only.
    ahead_of_disk: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    NoResult(#[from] NoResult),
}

impl HookState {
    pub(super) fn new(hook: String, places: Places, worker: Arc<Worker>) -> Self {
        Self { hook, places, worker, known: Mutex::default() }
    }

    pub(super) fn hook(&self) -> &str {
        &self.hook
    }

    /// Everything that is kept. Read once; a file that cannot be read is an error each time.
    pub(super) async fn content(&self, deadline: Deadline) -> Result<Content, Trouble> {
        if let Some(content) = &self.known().content {
            return Ok(content.clone());
        }
        let (hook, places) = (self.hook.clone(), self.places.clone());
        let (content, ahead_of_disk) =
            self.worker.run(deadline, move || newest(&places, &hook)).await??;
        let mut known = self.known();
        known.last = known.last.max(content.generation);
        known.ahead_of_disk = ahead_of_disk;
        Ok(known.content.get_or_insert(content).clone())
    }

    /// Keeps `content` instead: on tmpfs while applications are `held`, else on disk. It is durable
    /// there when this returns; after an error, what was kept before counts.
    pub(super) async fn replace(
        &self,
        mut content: Content,
        held: bool,
        deadline: Deadline,
    ) -> Result<(), Trouble> {
        content.generation = {
            let mut known = self.known();
            known.last += 1;
            known.last
        };
        if held {
            // tmpfs: there is no disk to wait for.
            file::write(&self.places.memory, &self.hook, &content)?;
        } else {
            self.write_to_disk(content.clone(), deadline).await?;
        }
        let mut known = self.known();
        known.content = Some(content);
        known.ahead_of_disk = held;
        Ok(())
    }

    /// Brings to disk what is on tmpfs only. Until that is done it stays there.
    pub(super) async fn settle(&self, deadline: Deadline) -> Result<(), Trouble> {
        let ahead = {
            let known = self.known();
            known.content.clone().filter(|_| known.ahead_of_disk)
        };
        let Some(content) = ahead else { return Ok(()) };
        self.write_to_disk(content, deadline).await?;
        file::remove(&self.places.memory)?;
        self.known().ahead_of_disk = false;
        Ok(())
    }

    /// What is on tmpfs is left alone: a write that was given up may end at any time, and must not
    /// take away what was acknowledged since.
    async fn write_to_disk(&self, content: Content, deadline: Deadline) -> Result<(), Trouble> {
        let (hook, disk) = (self.hook.clone(), self.places.disk.clone());
        let write = move || file::write(&disk, &hook, &content);
        Ok(self.worker.run(deadline, write).await??)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The newer of the two files, and whether that is the one on tmpfs. If one cannot be read, nobody
/// knows which is newer.
pub(super) fn newest(places: &Places, hook: &str) -> Result<(Content, bool), StateError> {
    let disk = file::read(&places.disk, hook)?;
    let memory = file::read(&places.memory, hook)?;
    Ok(match (disk, memory) {
        (Some(disk), Some(memory)) if memory.generation > disk.generation => (memory, true),
        (None, Some(memory)) => (memory, true),
        (disk, _) => (disk.unwrap_or_default(), false),
    })
}
