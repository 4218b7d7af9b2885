//! One run, whatever came of it, as one JSON document.
//!
//! The schema is checked in as `docs/run.schema.json`; a test compares the two.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::consistency::{Level, Reason};
use crate::exit_code::ExitCode;
use crate::manifest::{FileSystemRecord, Manifest, StepRecord};
use crate::output::json::ErrorDocument;
use crate::plan::{FileSystem, Skipped};
use crate::sequence::{Failure, MachineState, Report};

use super::lanes::longest_wait;

/// The version of this document's form. Grows when a reader must change.
pub const SCHEMA_VERSION: u32 = 1;

/// One run, whatever came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunRecord {
    /// See [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The version of stillpoint that ran.
    pub stillpoint: String,
    /// The name of the machine.
    pub host: String,
    /// This run. Its first eight characters are enough to name it.
    pub run_id: String,
    /// The operator's name for the snapshot.
    pub name: String,
    /// The provider.
    pub provider: String,
    /// When the run began, RFC 3339, UTC.
    pub started: String,
    /// When it was over.
    pub ended: String,
    /// The exit status of the process.
    pub exit_code: u8,
    /// The state the machine was in afterwards, in words.
    pub state: String,
    /// File systems of ours that were not known to be thawed. Empty: all ran.
    pub maybe_frozen: Vec<PathBuf>,
    /// Hooks whose release failed, in words.
    pub not_released: Vec<String>,
    /// Why there is no snapshot; absent if there is one.
    pub error: Option<ErrorDocument>,
    /// What went wrong beside that.
    pub problems: Vec<String>,
    /// What was done; absent if no snapshot was made.
    pub manifest: Option<Manifest>,
    /// What was known of the run; absent if there is a manifest, which says all of it.
    pub attempt: Option<Attempt>,
}

/// What is known of a run that made no snapshot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// Every step with its times.
    pub steps: Vec<StepRecord>,
    /// Hooks that were to be asked.
    pub hooks: Vec<String>,
    /// What was to be frozen, in freeze order.
    pub planned: Vec<FileSystem>,
    /// What was left alone.
    pub skipped: Vec<Skipped>,
    /// What was frozen and thawed again.
    pub file_systems: Vec<FileSystemRecord>,
    /// What kept the run from a higher level until it failed.
    pub reasons: Vec<Reason>,
    /// What happened that the operator should know.
    pub warnings: Vec<String>,
}

impl RunRecord {
    /// It succeeded and thawed all that it froze: files can be written without asking whether they lie on
    /// something frozen.
    pub(crate) fn left_everything_running(&self) -> bool {
        self.error.is_none() && self.maybe_frozen.is_empty()
    }

    /// Of a run that failed before it began: a configuration that is wrong, a hook that cannot be
    /// loaded. Nothing was touched.
    #[must_use]
    pub fn before_the_run(name: &str, exit_code: ExitCode, error: ErrorDocument) -> Self {
        let now = jiff::Timestamp::now().to_string();
        Self {
            schema_version: SCHEMA_VERSION,
            stillpoint: env!("CARGO_PKG_VERSION").to_owned(),
            host: host(),
            run_id: uuid::Uuid::new_v4().to_string(),
            name: name.to_owned(),
            provider: String::new(),
            started: now.clone(),
            ended: now,
            exit_code: exit_code as u8,
            state: "file systems running, nothing was touched".to_owned(),
            maybe_frozen: Vec::new(),
            not_released: Vec::new(),
            error: Some(error),
            problems: Vec::new(),
            manifest: None,
            attempt: None,
        }
    }

    pub(super) fn of_report(&mut self, report: &Report) {
        self.exit_code = report.exit_code as u8;
        self.problems.clone_from(&report.problems);
        self.manifest = Some(report.manifest.clone());
        self.of_state(&report.state);
    }

    pub(super) fn of_failure(&mut self, failure: &Failure, mut attempt: Attempt) {
        self.exit_code = failure.exit_code() as u8;
        self.error = Some(ErrorDocument::of_failure(failure));
        attempt.steps.clone_from(&failure.steps);
        attempt.warnings.clone_from(&failure.warnings);
        attempt.reasons.clone_from(&failure.reasons);
        attempt.file_systems.clone_from(&failure.file_systems);
        self.attempt = Some(attempt);
        self.of_state(&failure.state);
    }

    fn of_state(&mut self, state: &MachineState) {
        self.state = state.to_string();
        self.maybe_frozen.clone_from(&state.maybe_frozen);
        self.not_released.clone_from(&state.not_released);
    }

    /// What of a manifest alone can be said: of a snapshot whose run has no record any more.
    #[must_use]
    pub fn of_manifest(manifest: Manifest) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            stillpoint: manifest.stillpoint.clone(),
            host: String::new(),
            run_id: manifest.run_id.clone(),
            name: manifest.name.clone(),
            provider: manifest.provider.clone(),
            started: manifest.started.clone(),
            ended: String::new(),
            exit_code: ExitCode::Ok as u8,
            state: format!("snapshot {} kept", manifest.group),
            maybe_frozen: Vec::new(),
            not_released: Vec::new(),
            error: None,
            problems: Vec::new(),
            manifest: Some(manifest),
            attempt: None,
        }
    }

    /// The short name of this run, as commands take it.
    #[must_use]
    pub fn short_id(&self) -> &str {
        self.run_id.get(..8).unwrap_or(&self.run_id)
    }

    /// The level that was reached; `None` without a snapshot.
    #[must_use]
    pub fn level(&self) -> Option<Level> {
        self.manifest.as_ref().map(|manifest| manifest.level)
    }

    /// The longest that a client can have waited for this run, in nanoseconds: an upper bound, nobody
    /// measured it at the client. `None` if nothing was held.
    #[must_use]
    pub fn longest_wait_ns(&self) -> Option<u64> {
        longest_wait(self)
    }

    /// Every step with its times.
    #[must_use]
    pub fn steps(&self) -> &[StepRecord] {
        match (&self.manifest, &self.attempt) {
            (Some(manifest), _) => &manifest.steps,
            (None, Some(attempt)) => &attempt.steps,
            (None, None) => &[],
        }
    }

    /// What was frozen and thawed again.
    #[must_use]
    pub fn file_systems(&self) -> &[FileSystemRecord] {
        match (&self.manifest, &self.attempt) {
            (Some(manifest), _) => &manifest.file_systems,
            (None, Some(attempt)) => &attempt.file_systems,
            (None, None) => &[],
        }
    }

    /// What was left alone.
    #[must_use]
    pub fn skipped(&self) -> &[Skipped] {
        match (&self.manifest, &self.attempt) {
            (Some(manifest), _) => &manifest.skipped,
            (None, Some(attempt)) => &attempt.skipped,
            (None, None) => &[],
        }
    }

    /// What kept the run from a higher level.
    #[must_use]
    pub fn reasons(&self) -> &[Reason] {
        match (&self.manifest, &self.attempt) {
            (Some(manifest), _) => &manifest.reasons,
            (None, Some(attempt)) => &attempt.reasons,
            (None, None) => &[],
        }
    }

    /// What happened that the operator should know.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        match (&self.manifest, &self.attempt) {
            (Some(manifest), _) => &manifest.warnings,
            (None, Some(attempt)) => &attempt.warnings,
            (None, None) => &[],
        }
    }
}

/// The name of this machine; empty if it has none that can be read.
pub(super) fn host() -> String {
    nix::sys::utsname::uname()
        .map(|name| name.nodename().to_string_lossy().into_owned())
        .unwrap_or_default()
}
