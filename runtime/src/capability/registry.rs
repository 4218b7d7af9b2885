//! Every database session that hooks have open, so that the host can close them without the guest.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// The sessions of one run. Clones are the same registry.
#[derive(Clone, Debug, Default)]
pub struct SessionRegistry(Arc<Mutex<Vec<Entry>>>);

#[derive(Clone, Debug)]
struct Entry {
    hook: String,
    control: SessionControl,
}

/// How a session is closed and how its end is seen.
#[derive(Clone, Debug)]
pub(crate) struct SessionControl {
    close: Arc<watch::Sender<bool>>,
    ended: watch::Receiver<bool>,
}

/// The session's own side of a [`SessionControl`].
#[derive(Debug)]
pub(crate) struct SessionEnd {
    pub(crate) close: watch::Receiver<bool>,
    ended: watch::Sender<bool>,
}

/// What became of sessions that were told to close.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Closed {
    /// Ended: their sockets are closed.
    pub ended: usize,
    /// Told to end, but not known to have ended in time.
    pub unfinished: usize,
}

impl SessionRegistry {
    /// How many sessions of a hook have not ended.
    #[must_use]
    pub fn open_sessions(&self, hook: &str) -> usize {
        self.entries(|entry| entry.hook == hook).len()
    }

    /// Closes every session of a hook, and waits at most `within` for their end. A statement in
    /// flight is killed on the server.
    pub async fn close_hook(&self, hook: &str, within: Duration) -> Closed {
        self.close(|entry| entry.hook == hook, within).await
    }

    /// Closes every session of every hook, and waits at most `within` for their end.
    pub async fn close_all(&self, within: Duration) -> Closed {
        self.close(|_| true, within).await
    }

    /// Waits at most `within` for the end of those sessions of a hook that were told to close.
    pub(crate) async fn settled(&self, hook: &str, within: Duration) {
        let deadline = Instant::now() + within;
        for mut entry in self.entries(|entry| entry.hook == hook && entry.control.is_told()) {
            let _ = timeout_at(deadline, entry.control.ended.wait_for(|ended| *ended)).await;
        }
    }

    /// Tells every session of a hook to close, and does not wait.
    pub(crate) fn tell_hook(&self, hook: &str) {
        for entry in self.entries(|entry| entry.hook == hook) {
            entry.control.close();
        }
    }

    async fn close(&self, which: impl Fn(&Entry) -> bool, within: Duration) -> Closed {
        let deadline = Instant::now() + within;
        let entries = self.entries(which);
        for entry in &entries {
            entry.control.close();
        }
        let mut closed = Closed::default();
        for mut entry in entries {
            // An error says that the session's task is gone, which ends it, too.
            match timeout_at(deadline, entry.control.ended.wait_for(|ended| *ended)).await {
                Ok(_) => closed.ended += 1,
                Err(_) => closed.unfinished += 1,
            }
        }
        closed
    }

    pub(crate) fn register(&self, hook: &str) -> (SessionControl, SessionEnd) {
        let (close, told) = watch::channel(false);
        let (ended, end) = watch::channel(false);
        let control = SessionControl { close: Arc::new(close), ended: end };
        let entry = Entry { hook: hook.to_owned(), control: control.clone() };
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|entry| !entry.control.has_ended());
        entries.push(entry);
        (control, SessionEnd { close: told, ended })
    }

    fn entries(&self, which: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let open = entries.iter().filter(|entry| !entry.control.has_ended());
        open.filter(|entry| which(entry)).cloned().collect()
    }
}

impl SessionControl {
    pub(crate) fn close(&self) {
        self.close.send_replace(true);
    }

    fn is_told(&self) -> bool {
        *self.close.borrow()
    }

    fn has_ended(&self) -> bool {
        *self.ended.borrow() || self.ended.has_changed().is_err()
    }
}

impl SessionEnd {
    /// Resolves when the session is told to close.
    pub(crate) async fn told(&mut self) {
        // An error says that nobody is left who could tell: close, too.
        let _ = self.close.wait_for(|told| *told).await;
    }
}

impl Drop for SessionEnd {
    fn drop(&mut self) {
        self.ended.send_replace(true);
    }
}
