//! What a run is asked to do. Everything in it is checked before anything is touched.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use crate::config::Deadlines;
use crate::consistency::{Level, Reason};
use crate::paths::Paths;
use crate::plan::Scope;
use crate::provider::Provider;

use super::events::{Observer, Silent};
use super::hooks::PlannedHook;

/// What a run is asked to do.
#[derive(Debug)]
pub struct Request {
    /// This run; unique.
    pub run_id: String,
    /// The operator's name for the snapshot.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Which disks and file systems.
    pub scope: Scope,
    /// Fail rather than reach less.
    pub require: Option<Level>,
    /// How long each step may take.
    pub deadlines: Deadlines,
    /// Raise `rcu_expedited` for the run.
    pub expedite_rcu: bool,
    /// Repeat the rehearsal until the freeze.
    pub keep_warm: bool,
    /// Lock and journal.
    pub run_dir: PathBuf,
    /// What makes the snapshot.
    pub provider: Arc<dyn Provider>,
    /// What quiesces applications.
    pub hooks: Vec<PlannedHook>,
    /// What is known to limit the level before the run starts: no hook configured, scripts invalid.
    pub reasons: Vec<Reason>,
    /// Asks the run to stop and undo.
    pub cancel: Cancel,
    /// Is told what happens.
    pub observer: Arc<dyn Observer>,
}

impl Request {
    /// A run of `provider` over all its disks, without hooks, with default deadlines.
    #[must_use]
    pub fn new(name: impl Into<String>, provider: Arc<dyn Provider>) -> Self {
        Self {
            run_id: uuid::Uuid::new_v4().to_string(),
            name: name.into(),
            description: String::new(),
            scope: Scope::default(),
            require: None,
            deadlines: Deadlines::default(),
            expedite_rcu: true,
            keep_warm: true,
            run_dir: Paths::default().run(),
            provider,
            hooks: Vec::new(),
            reasons: Vec::new(),
            cancel: Cancel::never(),
            observer: Arc::new(Silent),
        }
    }
}

/// Asks a run to stop and undo what it did. Cloneable; asking twice is asking once.
#[derive(Clone, Debug)]
pub struct Canceller(Arc<watch::Sender<bool>>);

/// The run's side of a [`Canceller`].
#[derive(Clone, Debug)]
pub struct Cancel(watch::Receiver<bool>);

impl Canceller {
    /// A canceller, and what the run gets of it.
    #[must_use]
    pub fn new() -> (Self, Cancel) {
        let (sender, receiver) = watch::channel(false);
        (Self(Arc::new(sender)), Cancel(receiver))
    }

    /// Asks to stop.
    pub fn cancel(&self) {
        self.0.send_replace(true);
    }
}

impl Cancel {
    /// Never asked.
    #[must_use]
    pub fn never() -> Self {
        Canceller::new().1
    }

    /// True once asked.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        *self.0.borrow()
    }

    /// Resolves once asked; never, if nobody can ask any more.
    pub async fn cancelled(&mut self) {
        if self.0.wait_for(|asked| *asked).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The channel itself, for hooks.
    #[must_use]
    pub fn receiver(&self) -> watch::Receiver<bool> {
        self.0.clone()
    }
}
