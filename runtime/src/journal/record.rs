//! The records of the journal.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{JournalError, ProcessId};
use crate::plan::DevId;
use crate::script::ScriptSettings;

/// `run.json`: what a run has begun with applications, for the run after a crash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunRecord {
    /// Which run.
    pub run_id: String,
    /// Its agent.
    pub agent: ProcessId,
    /// When it began, RFC 3339, UTC.
    pub started: String,
    /// In which boot.
    pub boot_id: String,
    /// Hooks that were begun, in that order.
    pub hooks: Vec<HookEntry>,
    /// Hooks of runs before this one that died and are not finished yet, last first.
    #[serde(default)]
    pub earlier: Vec<LeftHook>,
    /// The legacy scripts of this run: whoever cleans up may be configured with others.
    #[serde(default)]
    pub scripts: Option<ScriptSettings>,
}

/// One hook in [`RunRecord`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HookEntry {
    /// What was begun.
    pub hook: BegunHook,
    /// Its `finish` has ended.
    pub finished: bool,
}

/// A hook that is about to act: what is needed to finish it, should its agent die.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BegunHook {
    /// The operator's name for it.
    pub name: String,
    /// The digest of its component; none for scripts.
    #[serde(default)]
    pub module: Option<String>,
    /// Its grant file; none for scripts.
    #[serde(default)]
    pub grant: Option<PathBuf>,
}

/// A hook that an agent left behind when it died.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LeftHook {
    /// The run that began it.
    pub run_id: String,
    /// The hook.
    pub hook: BegunHook,
    /// How often finishing it was tried.
    pub tries: u32,
    /// If it is the legacy scripts: which.
    #[serde(default)]
    pub scripts: Option<ScriptSettings>,
}

impl RunRecord {
    /// Hooks that were begun and not finished, last first: the order to finish them in.
    pub fn unfinished_hooks(&self) -> impl Iterator<Item = &str> {
        self.hooks.iter().rev().filter(|hook| !hook.finished).map(|hook| hook.hook.name.as_str())
    }

    /// Everything that is not finished, the last begun first: this run's, and those before it.
    #[must_use]
    pub fn left_hooks(&self) -> Vec<LeftHook> {
        let own = self.hooks.iter().rev().filter(|hook| !hook.finished);
        let own = own.map(|hook| LeftHook {
            run_id: self.run_id.clone(),
            hook: hook.hook.clone(),
            tries: 0,
            scripts: self.scripts.clone().filter(|_| hook.hook.name == crate::script::NAME),
        });
        own.chain(self.earlier.iter().cloned()).collect()
    }

    pub(crate) fn path(run_dir: &Path) -> PathBuf {
        run_dir.join("run.json")
    }

    /// What the last run left, if it left anything.
    ///
    /// # Errors
    /// If the file is there and cannot be read.
    pub fn load(run_dir: &Path) -> Result<Option<Self>, JournalError> {
        super::read(&Self::path(run_dir))
    }

    pub(crate) fn save(&self, run_dir: &Path) -> Result<(), JournalError> {
        super::write(&Self::path(run_dir), self)
    }

    /// Removes it: nothing is left to undo.
    ///
    /// # Errors
    /// If the file is there and cannot be removed.
    pub fn remove(run_dir: &Path) -> Result<(), JournalError> {
        super::remove(&Self::path(run_dir))
    }
}

/// `recovered.json`: what was undone, right after an agent's death, by a process that nobody watched.
/// It stays until the next start, or an operator, has been told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecoveryRecord {
    /// What, one thing in each; the last death is the last.
    pub entries: Vec<RecoveryEntry>,
}

/// One thing in a [`RecoveryRecord`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecoveryEntry {
    /// The run whose agent died.
    pub run_id: String,
    /// When this was done, RFC 3339, UTC.
    pub at: String,
    /// What was done, in words.
    pub done: String,
}

impl RecoveryRecord {
    /// How many things are remembered; older ones are forgotten.
    const MOST: usize = 64;

    fn path(run_dir: &Path) -> PathBuf {
        run_dir.join("recovered.json")
    }

    /// What nobody has been told yet.
    ///
    /// # Errors
    /// If the file is there and cannot be read.
    pub fn load(run_dir: &Path) -> Result<Option<Self>, JournalError> {
        super::read(&Self::path(run_dir))
    }

    pub(crate) fn add(run_dir: &Path, run_id: &str, done: Vec<String>) -> Result<(), JournalError> {
        if done.is_empty() {
            return Ok(());
        }
        let at = jiff::Timestamp::now().to_string();
        let entry = |done| RecoveryEntry { run_id: run_id.to_owned(), at: at.clone(), done };
        let before = Self::load(run_dir)?.map(|record| record.entries).unwrap_or_default();
        let mut entries: Vec<_> = before.into_iter().chain(done.into_iter().map(entry)).collect();
        entries.drain(..entries.len().saturating_sub(Self::MOST));
        super::write(&Self::path(run_dir), &Self { entries })
    }

    pub(crate) fn remove(run_dir: &Path) -> Result<(), JournalError> {
        super::remove(&Self::path(run_dir))
    }

    /// In words.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let line =
            |entry: &RecoveryEntry| format!("{} (by its sentinel, {})", entry.done, entry.at);
        self.entries.iter().map(line).collect()
    }
}

/// `freeze.json`: what a guard may have frozen and changed. It is there while a guard is armed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FreezeRecord {
    /// Which run.
    pub run_id: String,
    /// In which boot.
    pub boot_id: String,
    /// Its agent.
    pub agent: ProcessId,
    /// The guard that wrote this.
    pub guard: ProcessId,
    /// The guard's sentinel.
    pub sentinel: ProcessId,
    /// The sentinel's own cgroup, to be removed.
    pub sentinel_cgroup: Option<PathBuf>,
    /// Longest time from before a first FIFREEZE to the thaw, in milliseconds.
    pub window_ms: u64,
    /// `rcu_expedited` before we raised it; absent if we did not.
    pub rcu_expedited_before: Option<u32>,
    /// The file systems of the plan.
    pub file_systems: Vec<FrozenEntry>,
}

/// One file system in [`FreezeRecord`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FrozenEntry {
    /// Its superblock.
    pub superblock: DevId,
    /// The mount that it is frozen by.
    pub mount_point: PathBuf,
    /// The kernel's id of that mount.
    pub mount_id: u64,
    /// Type, as the kernel names it.
    pub fs_type: String,
    /// It may be frozen, and if it is, then by us.
    pub ours: bool,
}

impl FreezeRecord {
    /// Where it is in a run directory.
    #[must_use]
    pub fn path(run_dir: &Path) -> PathBuf {
        run_dir.join("freeze.json")
    }

    /// What a guard wrote, if it is there.
    ///
    /// # Errors
    /// If the file is there and cannot be read.
    pub fn load(run_dir: &Path) -> Result<Option<Self>, JournalError> {
        super::read(&Self::path(run_dir))
    }

    pub(crate) fn save(&self, run_dir: &Path) -> Result<(), JournalError> {
        super::write(&Self::path(run_dir), self)
    }

    pub(crate) fn remove(run_dir: &Path) -> Result<(), JournalError> {
        super::remove(&Self::path(run_dir))
    }
}
