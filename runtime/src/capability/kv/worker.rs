//! The thread that asks disks. One that hangs holds this thread, and costs whoever waits his
//! deadline; the agent goes on.

use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, PoisonError};
use std::{io, thread};

use tokio::sync::oneshot;
use tokio::time::timeout_at;

use crate::time::Deadline;

type Job = Box<dyn FnOnce() + Send>;

/// Started when it is first needed; ends, after what it was given, when this is dropped.
#[derive(Debug, Default)]
pub(super) struct Worker(Mutex<Option<Sender<Job>>>);

/// Why a job has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoResult {
    #[error("the disk did not answer in time; whether it was written is not known")]
    Late,
    #[error("no thread could be started to ask the disk")]
    NoThread(#[source] io::Error),
}

impl Worker {
    /// Does `job` on the thread, behind those that it was given before. After the deadline the job
    /// is still done, but nobody waits for it.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        deadline: Deadline,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NoResult> {
        let (reply, result) = oneshot::channel();
        self.send(Box::new(move || drop(reply.send(job()))))?;
        match timeout_at(deadline.instant().into(), result).await {
            Ok(Ok(result)) => Ok(result),
            // A job that panicked gives no more of an answer than a disk that hangs.
            Ok(Err(_)) | Err(_) => Err(NoResult::Late),
        }
    }

    fn send(&self, job: Job) -> Result<(), NoResult> {
        let mut sender = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let job = match sender.as_ref() {
            None => job,
            Some(open) => match open.send(job) {
                Ok(()) => return Ok(()),
                // A job that panicked ended the thread.
                Err(mpsc::SendError(job)) => job,
            },
        };
        let (fresh, jobs) = mpsc::channel::<Job>();
        thread::Builder::new()
            .name("hook-state".into())
            .spawn(move || jobs.into_iter().for_each(|job| job()))
            .map_err(NoResult::NoThread)?;
        // It has just begun to listen.
        let _ = fresh.send(job);
        *sender = Some(fresh);
        Ok(())
    }
}
