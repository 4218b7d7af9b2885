//! What is kept across instances, and what it proves: is the backup mode that is found ours?
//!
//! Backup mode belongs to no session. So before it is begun it is kept, in `kv`, that it is about to be;
//! and afterwards, with the change number that each file got. `V$BACKUP` does not say who began it, but
//! change numbers only rise, and no two beginnings have the same.
//!
//! | kept | ours is what is in backup mode |
//! |---|---|
//! | `prepared` (on a disk, before anything) | begun since then, within a run's longest time, and the instance was started anew since: had the machine not gone down, more would be kept |
//! | `beginning` (just before BEGIN BACKUP) | begun since then, within the time that BEGIN BACKUP was given |
//! | `active` (once all is verified) | by the very change numbers |
//!
//! All of it, or none: where a single file in backup mode is not ours, nothing is ended.

use std::time::Duration;

use serde_json::{Value, json};
use stillpoint_hook::{HookError, kv, run};

use crate::state::State;

/// The one key.
const KEY: &str = "backup-mode";

/// From `prepare` to BEGIN BACKUP at most.
const LONGEST_WAIT: Duration = Duration::from_secs(1800);

/// A server clock that stepped a little is not somebody else's backup.
const SLACK_SECONDS: i64 = 5;

/// What a run is about to do, or has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    run: String,
    dbid: String,
    resetlogs: u64,
    started: i64,
    scn: u64,
    now: i64,
    /// Seconds from `now` within which BEGIN BACKUP can begin.
    within: i64,
    stage: Stage,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    Prepared,
    Beginning,
    /// Number and change number of each file.
    Active(Vec<(u32, u64)>),
}

/// Whose the backup mode is that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Nothing is in backup mode.
    Nobody,
    /// This hook's run.
    Us,
    /// Somebody else.
    Another,
}

impl Intent {
    /// Before anything is done.
    #[must_use]
    pub fn prepared(state: &State) -> Self {
        Self::new(state, LONGEST_WAIT, Stage::Prepared)
    }

    /// Just before BEGIN BACKUP, which is given so much time.
    #[must_use]
    pub fn beginning(state: &State, time: Duration) -> Self {
        Self::new(state, time, Stage::Beginning)
    }

    /// All files are in backup mode.
    #[must_use]
    pub fn active(state: &State) -> Self {
        let files = state.active().map(|file| (file.number, file.change)).collect();
        Self::new(state, Duration::ZERO, Stage::Active(files))
    }

    fn new(state: &State, time: Duration, stage: Stage) -> Self {
        Intent {
            run: run::info().run_id,
            dbid: state.database.dbid.clone(),
            resetlogs: state.database.resetlogs,
            started: state.instance.started,
            scn: state.database.scn,
            now: state.database.now,
            within: i64::try_from(time.as_secs()).unwrap_or(i64::MAX / 4) + 1,
            stage,
        }
    }

    /// Nothing was begun yet.
    #[must_use]
    pub fn is_only_prepared(&self) -> bool {
        self.stage == Stage::Prepared
    }

    /// The run that kept it.
    #[must_use]
    pub fn run(&self) -> &str {
        &self.run
    }

    /// Whose it is that is in backup mode now.
    #[must_use]
    pub fn owner(&self, state: &State) -> Owner {
        if state.active().next().is_none() {
            return Owner::Nobody;
        }
        let database = &state.database;
        if database.dbid != self.dbid || database.resetlogs != self.resetlogs {
            return Owner::Another;
        }
        let ours = match &self.stage {
            Stage::Active(files) => {
                state.active().all(|file| files.contains(&(file.number, file.change)))
            }
            Stage::Beginning => self.could_have_begun(state),
            Stage::Prepared => {
                state.instance.started != self.started && self.could_have_begun(state)
            }
        };
        if ours { Owner::Us } else { Owner::Another }
    }

    fn could_have_begun(&self, state: &State) -> bool {
        let (first, last) = (self.now - SLACK_SECONDS, self.now + self.within + SLACK_SECONDS);
        state.active().all(|file| file.change >= self.scn && (first..=last).contains(&file.begun))
    }

    /// Keeps it, in place of what was kept before.
    ///
    /// # Errors
    /// If it cannot be kept: then nothing may be begun.
    pub fn keep(&self) -> Result<(), HookError> {
        let (stage, files) = match &self.stage {
            Stage::Prepared => ("prepared", None),
            Stage::Beginning => ("beginning", None),
            Stage::Active(files) => ("active", Some(files)),
        };
        let document = json!({
            "run": self.run, "dbid": self.dbid, "resetlogs": self.resetlogs,
            "started": self.started, "scn": self.scn, "now": self.now, "within": self.within,
            "stage": stage, "files": files,
        });
        let kept = kv::set(KEY, document.to_string().as_bytes());
        kept.map_err(|error| {
            HookError::from(error).context("what is about to be done cannot be kept (`kv`)")
        })
    }

    /// What was kept.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn kept() -> Result<Option<Self>, HookError> {
        let Some(bytes) = kv::get(KEY)? else { return Ok(None) };
        let document: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let read = Self::read(&document).ok_or_else(|| {
            HookError::Internal(
                "what was kept of an earlier run cannot be read: look at V$BACKUP yourself whether it left the database in backup mode, then remove this hook's file below /var/lib/stillpoint/state".into(),
            )
        })?;
        Ok(Some(read))
    }

    fn read(document: &Value) -> Option<Self> {
        let text = |key: &str| Some(document.get(key)?.as_str()?.to_owned());
        let signed = |key: &str| document.get(key)?.as_i64();
        let unsigned = |key: &str| document.get(key)?.as_u64();
        let stage = match text("stage")?.as_str() {
            "prepared" => Stage::Prepared,
            "beginning" => Stage::Beginning,
            "active" => Stage::Active(pairs(document.get("files")?)?),
            _ => return None,
        };
        Some(Intent {
            run: text("run")?,
            dbid: text("dbid")?,
            resetlogs: unsigned("resetlogs")?,
            started: signed("started")?,
            scn: unsigned("scn")?,
            now: signed("now")?,
            within: signed("within")?,
            stage,
        })
    }

    /// Nothing of ours is left.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn forget() -> Result<(), HookError> {
        Ok(kv::delete(KEY)?)
    }
}

fn pairs(list: &Value) -> Option<Vec<(u32, u64)>> {
    let pair = |pair: &Value| {
        let number = u32::try_from(pair.get(0)?.as_u64()?).ok()?;
        Some((number, pair.get(1)?.as_u64()?))
    };
    list.as_array()?.iter().map(pair).collect()
}
