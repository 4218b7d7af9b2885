//! What a run is asked to do. Everything in it is checked before anything is touched.

use std::path::PathBuf;
use std::sync::Arc;

use crate::config::Deadlines;
use crate::consistency::{Level, Reason};
use crate::hook::{CancelToken, RunContext};
use crate::paths::Paths;
use crate::plan::Scope;
use crate::provider::Provider;
use crate::script::ScriptSettings;

use super::Cause;
use super::events::{Observer, Silent};
use super::hooks::PlannedHook;
use super::prepared::{Begun, begin};

/// What a run is asked to do.
#[derive(Debug)]
pub struct Request {
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
    /// The legacy pair: its undo is run if a run died between the two.
    pub scripts: ScriptSettings,
    /// The installation: what hooks of a run that died are finished with.
    pub paths: Paths,
    /// Lock and journal.
    pub run_dir: PathBuf,
    /// What makes the snapshot.
    pub provider: Arc<dyn Provider>,
    /// What quiesces applications.
    pub hooks: Vec<PlannedHook>,
    /// What is known to limit the level before the run starts: no hook configured, scripts invalid.
    pub reasons: Vec<Reason>,
    /// What hooks know of the run: its id, its sessions, its log, and how it is asked to stop.
    pub context: RunContext,
    /// Is told what happens.
    pub observer: Arc<dyn Observer>,
    /// What came of [`Request::begin`], if it was called.
    pub(super) begun: Option<Result<Begun, Cause>>,
}

impl Request {
    /// A run of `provider` over all its disks, without hooks, with default deadlines.
    #[must_use]
    pub fn new(name: impl Into<String>, provider: Arc<dyn Provider>) -> Self {
        let run_id = uuid::Uuid::new_v4().to_string();
        Self {
            name: name.into(),
            description: String::new(),
            scope: Scope::default(),
            require: None,
            deadlines: Deadlines::default(),
            expedite_rcu: true,
            keep_warm: true,
            scripts: ScriptSettings::default(),
            paths: Paths::default(),
            run_dir: Paths::default().run(),
            provider,
            hooks: Vec::new(),
            reasons: Vec::new(),
            context: RunContext::new(run_id, false, CancelToken::never()),
            observer: Arc::new(Silent),
            begun: None,
        }
    }

    /// Takes the run's lock and cleans up after runs that died, which the run would do first. Called
    /// before hooks are loaded: one with a broken grant must not keep others from being finished.
    /// False if it failed; then the run fails, too, and says why.
    pub async fn begin(&mut self) -> bool {
        let begun = begin(self).await;
        let can_run = begun.is_ok();
        self.begun = Some(begun);
        can_run
    }
}
