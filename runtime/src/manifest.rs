//! What a run did, in one JSON document that is kept next to the snapshot.
//!
//! The schema is checked in as `docs/manifest.schema.json`; a test compares the two.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::consistency::{Level, Reason};
use crate::hook::Signer;
use crate::plan::{DevId, Skipped};
use crate::provider::Member;
use crate::verify::Verification;

/// The version of this document's form. Grows when a reader must change.
pub const SCHEMA_VERSION: u32 = 1;

/// What a run did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// See [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The version of stillpoint that wrote it.
    pub stillpoint: String,
    /// This run.
    pub run_id: String,
    /// The operator's name for the snapshot.
    pub name: String,
    /// Free text.
    pub description: String,
    /// When the run began, RFC 3339, UTC.
    pub started: String,
    /// The provider and its id of the group.
    pub provider: String,
    /// The provider's id of the group.
    pub group: String,
    /// The level of the group: the lowest that any reason leaves.
    pub level: Level,
    /// Why the level is not higher. Empty if it is `application`.
    pub reasons: Vec<Reason>,
    /// Per disk.
    pub disks: Vec<DiskRecord>,
    /// What was frozen, in freeze order.
    pub file_systems: Vec<FileSystemRecord>,
    /// What was left alone.
    pub skipped: Vec<Skipped>,
    /// What quiesced applications.
    pub hooks: Vec<HookRecord>,
    /// Every step with its times.
    pub steps: Vec<StepRecord>,
    /// Durations that people ask for.
    pub timings: Timings,
    /// What an output ring dropped: nothing is written to disk in the window.
    pub output_dropped_bytes: u64,
    /// What happened that the operator should know, although the run ended well.
    pub warnings: Vec<String>,
    /// What the latest verification of a copy found; absent if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<Verification>,
}

/// One disk of the snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskRecord {
    /// The provider's id of it.
    pub id: String,
    /// The block device.
    pub node: PathBuf,
    /// The level of what is on this disk.
    pub level: Level,
    /// Its snapshot, once the members are there.
    pub member: Option<Member>,
}

/// One file system that was frozen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileSystemRecord {
    /// Its superblock.
    pub superblock: DevId,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// Type, as the kernel names it.
    pub fs_type: String,
    /// The disks it lies on.
    pub disks: Vec<String>,
    /// Freeze wave.
    pub wave: usize,
    /// FIFREEZE called, `CLOCK_MONOTONIC` ns.
    pub freeze_began_ns: u64,
    /// FIFREEZE returned.
    pub frozen_ns: u64,
    /// FITHAW called.
    pub thaw_began_ns: u64,
    /// FITHAW returned.
    pub thawed_ns: u64,
    /// Our FITHAW returned success: nobody had thawed it before.
    pub thawed_by_us: bool,
    /// The superblock was not read-only after the thaw, or was so before already.
    pub writable_after: bool,
}

/// One hook, or one pair of scripts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HookRecord {
    /// The operator's name for it.
    pub name: String,
    /// `component` or `script`.
    pub kind: String,
    /// Its version.
    pub version: Option<String>,
    /// The digest of what ran.
    pub digest: Option<String>,
    /// The trusted key that signed it; absent for scripts, and where the operator did without.
    #[serde(default)]
    pub signed_by: Option<Signer>,
    /// Why no trusted key vouches for it. The operator allowed that when it was installed.
    #[serde(default)]
    pub allowed_unsigned: Option<String>,
    /// The level it reached.
    pub level: Level,
    /// It proved after the thaw that it was quiesced all the time.
    pub confirmed: bool,
    /// It was released without an error.
    pub released: bool,
    /// What it saved for whoever restores.
    pub metadata: Vec<MetadataEntry>,
}

/// One thing that a hook saved: a binlog position, a GTID set, an LSN.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MetadataEntry {
    /// Its name, the hook's own.
    pub key: String,
    /// Its value.
    pub value: MetadataValue,
}

/// The value of a [`MetadataEntry`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MetadataValue {
    /// Text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// Yes or no.
    Boolean(bool),
    /// Bytes, in hexadecimal.
    Bytes(String),
}

/// One step of the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StepRecord {
    /// Its name: `rehearse`, `quiesce`, `freeze`…
    pub step: String,
    /// What it acted on, if on one thing: a hook, a mount point.
    pub subject: Option<String>,
    /// Begin, `CLOCK_MONOTONIC` ns.
    pub began_ns: u64,
    /// End.
    pub ended_ns: u64,
    /// How it ended.
    pub result: StepResult,
    /// What to say about it, if anything.
    pub detail: Option<String>,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StepResult {
    /// As it should.
    Done,
    /// Not, and what it had done was undone.
    Failed,
    /// It was an undo, and it was done.
    Undone,
    /// It was an undo, and it failed.
    UndoFailed,
    /// It was left out.
    Skipped,
}

/// Durations that people ask for, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Timings {
    /// First FIFREEZE called to last FITHAW returned.
    pub window_ns: u64,
    /// The provider's call inside the window.
    pub provider_ns: u64,
    /// First application locked to last application released; absent without hooks.
    pub hold_ns: Option<u64>,
    /// The whole run.
    pub total_ns: u64,
}
