//! `finish` for a hook whose agent died: on a fresh instance, with its grant as it is now and the
//! state that it kept.

use std::error::Error;

use crate::config::connections::Connections;
use crate::config::grants::{HookGrant, is_hook_name};
use crate::hook::{CancelToken, HookLoadError, HookStore, RunContext, StoreError};
use crate::journal::LeftHook;
use crate::time::Deadline;

use super::Aftermath;

/// Finishes hooks; starts the engine when the first is there.
pub(super) struct Finisher<'a> {
    aftermath: &'a Aftermath<'a>,
    store: Option<HookStore>,
}

impl<'a> Finisher<'a> {
    pub(super) fn new(aftermath: &'a Aftermath<'a>) -> Self {
        Self { aftermath, store: None }
    }

    /// Runs `finish` of one hook. Says how, if there is something to say; or why not, and what to do.
    pub(super) async fn finish(&mut self, left: &LeftHook) -> Result<String, String> {
        let grant = self.grant(left)?;
        let connections = Connections::load(self.aftermath.paths)
            .map_err(|error| in_words(&error, error.hint()))?;
        // The run that died, so that the hook can tell it from others.
        let run = RunContext::new(left.run_id.clone(), false, CancelToken::never());
        let store = self.store().map_err(|error| in_words(&error, error.hint()))?;
        let loaded = store.load(&grant, &connections, &run).await;
        let mut hook = loaded.map_err(|error| not_loaded(&error, &grant))?;
        let finished = hook.finish(Deadline::after(self.aftermath.finish)).await;
        run.logs.forward();
        finished.map_err(|failure| in_words(&failure, failure.hint.clone()))?;
        Ok(match &left.hook.module {
            Some(module) if *module != grant.module.to_string() => {
                format!(" by {}, which its grant names now; what ran was {module}", grant.module)
            }
            _ => String::new(),
        })
    }

    fn grant(&self, left: &LeftHook) -> Result<HookGrant, String> {
        let name = &left.hook.name;
        if !is_hook_name(name) {
            return Err("the journal's name for it is none of ours".into());
        }
        let file = self.aftermath.paths.grants().join(format!("{name}.toml"));
        let connections = Connections::load(self.aftermath.paths)
            .map_err(|error| in_words(&error, error.hint()))?;
        HookGrant::load(&file, &connections).map_err(|error| {
            if !error.is_not_found() {
                return in_words(&error, error.hint());
            }
            let module = left.hook.module.as_deref().unwrap_or("its component");
            format!(
                "its grant file {} is gone, and without it nobody may undo what it began ({}); put the file back, and run `stillpoint recover`; or look yourself whether its application is still held",
                file.display(),
                module
            )
        })
    }

    fn store(&mut self) -> Result<&HookStore, StoreError> {
        let store = match self.store.take() {
            Some(store) => store,
            None => HookStore::new(self.aftermath.paths)?,
        };
        Ok(self.store.insert(store))
    }
}

fn not_loaded(error: &HookLoadError, grant: &HookGrant) -> String {
    let words = in_words(error, error.hint());
    match error {
        HookLoadError::Store { source: StoreError::NotInstalled { .. }, .. } => format!(
            "its component is gone ({}): install it again, and run `stillpoint recover`; or look yourself whether its application is still held",
            grant.module
        ),
        _ => words,
    }
}

/// An error with its causes, and the next step.
fn in_words(error: &dyn Error, hint: Option<String>) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Some errors say their cause in their own words.
        if !words.contains(&text) {
            words.push_str(&format!(": {text}"));
        }
        cause = error.source();
    }
    if let Some(hint) = hint {
        words.push_str(&format!(" ({hint})"));
    }
    words
}
