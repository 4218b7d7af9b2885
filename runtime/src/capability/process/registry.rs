//! Every program that hooks have running, so that the host can end them without the guest; and those
//! that it has ended and that are not dead yet, because a frozen file system holds them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::cgroup::{LimitedCgroup, Survivor};

/// The programs of one run. Clones are the same registry.
#[derive(Clone, Debug, Default)]
pub struct ProgramRegistry(Arc<Mutex<Vec<Entry>>>);

#[derive(Clone, Debug)]
struct Entry {
    hook: String,
    command: String,
    control: Arc<Control>,
    gone: watch::Receiver<bool>,
}

/// Programs that were killed and that have processes left: each in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unfinished {
    /// `perl: process 4711 (state D)`.
    pub programs: Vec<String>,
}

/// How one program is ended, from anywhere, at any moment: also before it has started.
#[derive(Debug, Default)]
pub(crate) struct Control {
    told: AtomicBool,
    cgroup: OnceLock<Weak<LimitedCgroup>>,
}

/// The program's own side of its entry: when it is dropped, nothing of the program is left.
#[derive(Debug)]
pub(crate) struct Gone(watch::Sender<bool>);

impl ProgramRegistry {
    /// How many programs of a hook have not ended to their last process.
    #[must_use]
    pub fn running(&self, hook: &str) -> usize {
        self.entries(hook).len()
    }

    /// Kills every program of a hook, and waits at most `within` for their last process to end. One
    /// that is blocked by a frozen file system ends when that is thawed.
    pub async fn end_hook(&self, hook: &str, within: Duration) -> Unfinished {
        let deadline = Instant::now() + within;
        let entries = self.entries(hook);
        for entry in &entries {
            entry.control.kill();
        }
        let mut unfinished = Unfinished::default();
        for mut entry in entries {
            // An error says that its thread has ended, which ends it, too.
            if timeout_at(deadline, entry.gone.wait_for(|gone| *gone)).await.is_err() {
                unfinished.programs.push(entry.in_words());
            }
        }
        unfinished
    }

    /// Kills every program of a hook, and does not wait.
    pub(crate) fn kill_hook(&self, hook: &str) {
        for entry in self.entries(hook) {
            entry.control.kill();
        }
    }

    pub(crate) fn register(&self, hook: &str, command: &str) -> (Arc<Control>, Gone) {
        let control = Arc::new(Control::default());
        let (sender, gone) = watch::channel(false);
        let entry = Entry {
            hook: hook.to_owned(),
            command: command.to_owned(),
            control: Arc::clone(&control),
            gone,
        };
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|entry| !entry.is_gone());
        entries.push(entry);
        (control, Gone(sender))
    }

    fn entries(&self, hook: &str) -> Vec<Entry> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.iter().filter(|entry| entry.hook == hook && !entry.is_gone()).cloned().collect()
    }
}

impl Entry {
    fn is_gone(&self) -> bool {
        *self.gone.borrow() || self.gone.has_changed().is_err()
    }

    fn in_words(&self) -> String {
        match self.control.survivors().as_slice() {
            [] => format!("{}: not ended yet", self.command),
            left => format!("{}: process {}", self.command, super::in_words(left)),
        }
    }
}

impl Control {
    /// Ends the program with all that it started. Whoever starts it looks at this after the start,
    /// so that it cannot slip through between.
    pub(crate) fn kill(&self) {
        self.told.store(true, Ordering::SeqCst);
        if let Some(cgroup) = self.cgroup() {
            cgroup.kill_once();
        }
    }

    /// True once it was told to end.
    pub(crate) fn is_told(&self) -> bool {
        self.told.load(Ordering::SeqCst)
    }

    /// Names the cgroup that it is in from now on.
    pub(crate) fn is_in(&self, cgroup: &Arc<LimitedCgroup>) {
        // Told once, by the one thread that starts it.
        let _ = self.cgroup.set(Arc::downgrade(cgroup));
    }

    /// Who is in it now.
    pub(crate) fn survivors(&self) -> Vec<Survivor> {
        self.cgroup().map(|cgroup| cgroup.survivors()).unwrap_or_default()
    }

    fn cgroup(&self) -> Option<Arc<LimitedCgroup>> {
        self.cgroup.get().and_then(Weak::upgrade)
    }
}

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}
