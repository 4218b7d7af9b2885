//! Two threads for each file system, all started beforehand: one freezes, the other thaws. A freeze
//! that hangs in the kernel then holds up nothing but itself: every other file system, and the one
//! underneath that it may be waiting for, is thawed by a thread of its own.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd::syncfs;

use super::board::{Board, State};
use super::harden::{STACK_BYTES, favour_this_thread, prefer_this_thread};
use crate::failpoint::{reach, skips};
use crate::sys::fsfreeze;
use crate::time::monotonic_ns;

/// Pauses of a sweep: short at first, because most freezes end within milliseconds; bounded,
/// because the last one decides how long a late freeze is left alone.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(1);
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// What a freezing thread is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Job {
    /// `syncfs`.
    Sync = 1,
    /// Freeze, and thaw at once.
    Cycle = 2,
    /// Freeze.
    Freeze = 3,
}

/// All threads and what they share with the thread that commands them.
#[derive(Debug)]
pub(crate) struct Workers {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    board: Arc<Board>,
    mounts: Vec<OwnedFd>,
    posts: Vec<Post>,
    /// Whoever finishes a freeze while this is set undoes it at once.
    cancelled: AtomicBool,
    /// Nobody commands any more: threads end once they have nothing to thaw.
    ended: AtomicBool,
    /// The process that froze is gone with all its threads: what it has left is all there now.
    freezer_gone: AtomicBool,
    /// Counts finished jobs, to wake the commanding thread.
    progress: EventFd,
}

/// What one file system's two threads wait for and report.
#[derive(Debug, Default)]
struct Post {
    freezer: Mailbox<Job>,
    thawer: Mailbox<()>,
    /// The job that the freezing thread is at, 0 if none.
    busy_with: AtomicU8,
    sync_errno: AtomicI32,
}

/// One message at a time; putting and taking uses no heap.
#[derive(Debug)]
struct Mailbox<M> {
    message: Mutex<Option<M>>,
    arrived: Condvar,
}

impl<M> Default for Mailbox<M> {
    fn default() -> Self {
        Self { message: Mutex::new(None), arrived: Condvar::new() }
    }
}

impl<M> Mailbox<M> {
    fn put(&self, message: M) {
        *self.message.lock().unwrap_or_else(PoisonError::into_inner) = Some(message);
        self.arrived.notify_one();
    }

    fn take(&self) -> M {
        let mut slot = self.message.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(message) = slot.take() {
                return message;
            }
            slot = self.arrived.wait(slot).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Workers {
    /// Starts a freezing and a thawing thread for each file system.
    pub(crate) fn start(board: Arc<Board>, mounts: Vec<OwnedFd>) -> io::Result<Self> {
        let workers = Self::start_thawing(board, mounts)?;
        for index in 0..workers.len() {
            let shared = Arc::clone(&workers.shared);
            spawn(format!("freeze-{index}"), move || shared.run_freezer(index))?;
        }
        Ok(workers)
    }

    /// Starts a thawing thread for each file system: for those who undo what another process has
    /// frozen.
    pub(crate) fn start_thawing(board: Arc<Board>, mounts: Vec<OwnedFd>) -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let posts = mounts.iter().map(|_| Post::default()).collect();
        let progress = EventFd::from_flags(flags)?;
        let shared = Arc::new(Shared {
            board,
            mounts,
            posts,
            cancelled: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            freezer_gone: AtomicBool::new(false),
            progress,
        });
        for index in 0..shared.mounts.len() {
            let shared = Arc::clone(&shared);
            spawn(format!("thaw-{index}"), move || shared.run_thawer(index))?;
        }
        Ok(Self { shared })
    }

    /// Readable when a job may have ended.
    pub(crate) fn progress(&self) -> &EventFd {
        &self.shared.progress
    }

    pub(crate) fn len(&self) -> usize {
        self.shared.posts.len()
    }

    /// Gives a job to a freezing thread that has none.
    pub(crate) fn begin(&self, index: usize, job: Job) {
        let post = &self.shared.posts[index];
        post.sync_errno.store(0, SeqCst);
        post.busy_with.store(job as u8, SeqCst);
        post.freezer.put(job);
    }

    /// The freezing thread is at a job.
    pub(crate) fn is_busy(&self, index: usize) -> bool {
        self.shared.posts[index].busy_with.load(SeqCst) != 0
    }

    /// The file system is frozen by us, or may become so.
    pub(crate) fn may_be_frozen(&self, index: usize) -> bool {
        self.shared.may_be_frozen(index)
    }

    /// How the last `syncfs` failed, if it did.
    pub(crate) fn sync_error(&self, index: usize) -> Option<Errno> {
        match self.shared.posts[index].sync_errno.load(SeqCst) {
            0 => None,
            errno => Some(Errno::from_raw(errno)),
        }
    }

    /// From here on, a freeze that completes stays.
    pub(crate) fn allow_freezing(&self) {
        self.shared.cancelled.store(false, SeqCst);
    }

    /// The process that froze is gone: one more thaw of each file system settles it.
    pub(crate) fn no_freeze_is_in_flight(&self) {
        self.shared.freezer_gone.store(true, SeqCst);
    }

    /// Has every file system that may be frozen thawed, until it is and no freeze is in flight.
    pub(crate) fn thaw_all(&self) {
        self.shared.cancelled.store(true, SeqCst);
        for index in 0..self.len() {
            if self.may_be_frozen(index) {
                self.shared.posts[index].thawer.put(());
            }
        }
    }
}

impl Drop for Workers {
    /// Lets the thawing threads go, and the mounts with them: a service outlives many runs. One that
    /// still has something to thaw does that first. Freezing threads belong to guards, which end.
    fn drop(&mut self) {
        self.shared.ended.store(true, SeqCst);
        self.shared.posts.iter().for_each(|post| post.thawer.put(()));
    }
}

impl Shared {
    fn run_freezer(&self, index: usize) {
        favour_this_thread();
        let post = &self.posts[index];
        loop {
            match post.freezer.take() {
                Job::Sync => {
                    let result = reach!("sync.before").and_then(|()| syncfs(&self.mounts[index]));
                    let _ = reach!("sync.after");
                    post.sync_errno.store(result.err().map_or(0, |errno| errno as i32), SeqCst);
                }
                Job::Cycle => self.freeze(index, true),
                Job::Freeze => self.freeze(index, false),
            }
            post.busy_with.store(0, SeqCst);
            let _ = self.progress.write(1);
        }
    }

    /// Freezes one file system. What was given up in the meantime is undone here and now, by the
    /// thread that knows first: nobody else can tell when a freeze in flight completes.
    fn freeze(&self, index: usize, thaw_at_once: bool) {
        let slot = self.board.slot(index);
        if self.given_up() {
            slot.freeze_ended(0, Err(Errno::ECANCELED));
            return;
        }
        slot.freeze_begins(monotonic_ns());
        let place = |edge| match (thaw_at_once, edge) {
            (true, "before") => reach!("rehearse.before"),
            (true, _) => reach!("rehearse.after"),
            (false, "before") => reach!("freeze.before"),
            (false, _) => reach!("freeze.after"),
        };
        let result = place("before").and_then(|()| fsfreeze::freeze(&self.mounts[index]));
        let _ = place("after");
        slot.freeze_ended(monotonic_ns(), result);
        if result.is_ok() && (thaw_at_once || (self.given_up() && !skips!("sweep"))) {
            self.thaw(index);
        }
    }

    fn run_thawer(&self, index: usize) {
        prefer_this_thread();
        loop {
            self.posts[index].thawer.take();
            self.sweep(index);
            let _ = self.progress.write(1);
            if self.ended.load(SeqCst) {
                return;
            }
        }
    }

    /// Thaws until nothing is frozen and no freeze is in flight: before that, EINVAL does not mean
    /// that the file system is safe.
    fn sweep(&self, index: usize) {
        let mut pause = FIRST_PAUSE;
        loop {
            let last_time = self.freezer_gone.load(SeqCst);
            self.thaw(index);
            let slot = self.board.slot(index);
            if last_time && slot.thaw_error().is_none() {
                slot.settle();
            }
            if !self.may_be_frozen(index) || skips!("sweep") {
                return;
            }
            thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn thaw(&self, index: usize) {
        let slot = self.board.slot(index);
        if slot.state() == State::Idle {
            return;
        }
        slot.thaw_begins(monotonic_ns());
        let result = reach!("thaw.before").and_then(|()| fsfreeze::thaw(&self.mounts[index]));
        slot.thaw_ended(monotonic_ns(), result);
        let _ = reach!("thaw.after");
    }

    fn may_be_frozen(&self, index: usize) -> bool {
        let job = self.posts[index].busy_with.load(SeqCst);
        job == Job::Cycle as u8
            || job == Job::Freeze as u8
            || self.board.slot(index).state() != State::Idle
    }

    fn given_up(&self) -> bool {
        self.cancelled.load(SeqCst) || self.board.aborted().is_some()
    }
}

fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name).stack_size(STACK_BYTES).spawn(run).map(drop)
}
