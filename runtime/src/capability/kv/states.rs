//! The states of all hooks of one run, and when they may be written to a disk.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::paths::Paths;
use crate::time::Deadline;

use super::file;
use super::state::{HookState, Places, Trouble};
use super::worker::Worker;

/// What the hooks of one run keep from run to run. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct KvStates(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    hooks: Mutex<BTreeMap<String, Arc<HookState>>>,
    worker: Arc<Worker>,
    held: AtomicBool,
}

impl KvStates {
    /// From now on nothing is written to a disk: applications are being locked, and file systems
    /// frozen.
    pub fn hold(&self) {
        self.0.held.store(true, Ordering::SeqCst);
    }

    /// True between [`KvStates::hold`] and [`KvStates::settle`].
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.0.held.load(Ordering::SeqCst)
    }

    /// Everything runs again: what changed meanwhile goes to disk. Says in words what did not, which
    /// stays on tmpfs and is merged at the next start.
    pub async fn settle(&self, deadline: Deadline) -> Vec<String> {
        self.0.held.store(false, Ordering::SeqCst);
        let hooks: Vec<_> = self.hooks().values().cloned().collect();
        let mut problems = Vec::new();
        for state in hooks {
            if let Err(trouble) = state.settle(deadline).await {
                problems.push(format!(
                    "the state of hook {} is not on disk yet ({}); it is kept in memory and written when the next run starts",
                    state.hook(),
                    words(&trouble)
                ));
            }
        }
        problems
    }

    /// The state of a hook of this installation.
    pub(super) fn of(&self, hook: &str, paths: &Paths) -> Arc<HookState> {
        let mut hooks = self.hooks();
        let made = || {
            let places = places(hook, &paths.state(), &paths.state_in_memory());
            Arc::new(HookState::new(hook.to_owned(), places, Arc::clone(&self.0.worker)))
        };
        Arc::clone(hooks.entry(hook.to_owned()).or_insert_with(made))
    }

    fn hooks(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<HookState>>> {
        self.0.hooks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn places(hook: &str, disk: &Path, memory: &Path) -> Places {
    Places { disk: file::path_of(disk, hook), memory: file::path_of(memory, hook) }
}

/// What went wrong, for people.
pub(super) fn words(trouble: &Trouble) -> String {
    match trouble {
        Trouble::State(error) => error.words(),
        Trouble::NoResult(error) => error.to_string(),
    }
}
