//! Which file systems of this machine are frozen, and which of those are ours.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;

use crate::journal::FreezeRecord;
use crate::plan::{DevId, Inventory, PlanError};

use super::probe::{Method, ProbeState, probe};

/// One file system that could be frozen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StatusLine {
    /// Its superblock.
    pub superblock: DevId,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// Type, as the kernel names it.
    pub fs_type: String,
    /// What the probe says.
    pub state: FrozenState,
    /// A run of ours has it in its journal: if it is frozen, then by us.
    pub ours: bool,
    /// Why it is not known, or how it was asked.
    pub detail: Option<String>,
}

/// What the probe says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FrozenState {
    /// Writes go through.
    Running,
    /// Writes wait.
    Frozen,
    /// Mounted read-only: nobody can write, so nobody can tell.
    ReadOnly,
    /// It could not be asked.
    Unknown,
}

/// Asks every local file system that can be frozen, once per superblock. Nothing in them is changed,
/// and nothing waits for them.
///
/// # Errors
/// If the mounts cannot be read.
pub fn status(run_dir: &Path) -> Result<Vec<StatusLine>, PlanError> {
    let inventory = Inventory::collect()?;
    let ours = ours(run_dir);
    let mut lines = BTreeMap::new();
    for mount in inventory.freezable_mounts() {
        lines.entry(mount.superblock).or_insert_with(|| {
            let (state, detail) = ask(&mount.mount_point);
            StatusLine {
                superblock: mount.superblock,
                mount_point: mount.mount_point.clone(),
                fs_type: mount.fs_type.clone(),
                state,
                ours: ours.contains(&mount.superblock),
                detail,
            }
        });
    }
    Ok(lines.into_values().collect())
}

fn ours(run_dir: &Path) -> Vec<DevId> {
    let record = FreezeRecord::load(run_dir).ok().flatten();
    record
        .map(|record| {
            record.file_systems.iter().filter(|fs| fs.ours).map(|fs| fs.superblock).collect()
        })
        .unwrap_or_default()
}

fn ask(mount_point: &Path) -> (FrozenState, Option<String>) {
    match probe(mount_point) {
        Ok(probe) => {
            let state = match probe.state {
                ProbeState::Frozen => FrozenState::Frozen,
                ProbeState::NotFrozen => FrozenState::Running,
                ProbeState::ReadOnly => FrozenState::ReadOnly,
            };
            let detail = matches!(probe.method, Method::Touch)
                .then(|| "asked by removing a name that is not there".to_owned());
            (state, detail)
        }
        Err(error) => (FrozenState::Unknown, Some(error.to_string())),
    }
}

impl super::Recovery {
    /// What was found and done, in words; nothing if nothing was left behind.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(freeze) = &self.freeze {
            let run = &freeze.run_id;
            if freeze.before_reboot {
                lines.push(format!("run {run} was cut off by a reboot; nothing is frozen by it"));
            }
            for fs in &freeze.file_systems {
                lines.push(format!("run {run}: {} {}", fs.mount_point.display(), fs.outcome));
            }
            if freeze.rcu_restored {
                lines.push(format!("run {run}: the kernel's rcu_expedited was put back"));
            }
        }
        lines
    }
}
