//! One thread for each member, waiting before the window for one word, so that the window holds
//! the clone calls and nothing else.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::oneshot;

use super::error::{fail, io_error};
use crate::exit_code::ExitCode;
use crate::provider::ProviderError;
use crate::sys::loopdev::{self, LoopStatus};
use crate::sys::reflink;

/// What one thread clones.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) disk: String,
    pub(super) source: File,
    pub(super) device: File,
    pub(super) status: LoopStatus,
    pub(super) copy: Arc<File>,
    pub(super) copy_path: PathBuf,
}

type Answer = oneshot::Sender<Result<(), ProviderError>>;

/// A thread that waits for its word, clones once, and ends.
#[derive(Debug)]
pub(super) struct Worker {
    go: Option<mpsc::Sender<Answer>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts the thread. It ends by itself if the worker is dropped.
    pub(super) fn start(job: Job) -> io::Result<Self> {
        let (go, word) = mpsc::channel::<Answer>();
        let work = move || {
            if let Ok(answer) = word.recv() {
                // Nobody may be waiting any more; the call was made all the same.
                let _ = answer.send(job.run());
            }
        };
        let thread = thread::Builder::new().name("reflink".to_owned()).spawn(work)?;
        Ok(Self { go: Some(go), thread: Some(thread) })
    }

    /// Gives the word; the answer comes when the clone is there. `None` if it was given before.
    pub(super) fn go(&mut self) -> Option<oneshot::Receiver<Result<(), ProviderError>>> {
        let (answer, done) = oneshot::channel();
        self.go.take()?.send(answer).ok()?;
        Some(done)
    }

    /// Waits until the thread has ended, at most for `limit`. False: it is still in its call.
    pub(super) fn end(&mut self, limit: Duration) -> bool {
        self.go = None;
        let Some(thread) = &self.thread else { return true };
        let step = Duration::from_millis(5);
        let mut waited = Duration::ZERO;
        while !thread.is_finished() {
            if waited >= limit {
                return false;
            }
            thread::sleep(step);
            waited += step;
        }
        if let Some(thread) = self.thread.take() {
            // A panic in there has been answered by the dropped channel.
            let _ = thread.join();
        }
        true
    }
}

impl Job {
    fn run(&self) -> Result<(), ProviderError> {
        let now = loopdev::status_of(&self.device).map_err(|error| self.changed(error))?;
        if now != Some(self.status) {
            let gone = io::Error::other("its loop device shows another file, or none");
            return Err(self.changed(gone));
        }
        reflink::clone_file(&self.source, &self.copy).map_err(|error| {
            io_error(
                ExitCode::CreateFailed,
                &format!("cloning {} failed: cannot write", self.disk),
                &self.copy_path,
                error,
            )
        })
    }

    fn changed(&self, source: io::Error) -> ProviderError {
        fail(ExitCode::MemberState, format!("{} changed after it was checked", self.disk))
            .because(source)
            .hint("do not attach or detach loop devices during a snapshot")
    }
}
