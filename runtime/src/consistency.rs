//! How consistent a snapshot is, and why it is not better.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How consistent the captured state is, weakest first, so that `min` gives the level of a group.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// As after a power cut: whatever had reached the disk.
    Crash,
    /// File systems were frozen: no journal replay, but applications were not asked.
    FileSystem,
    /// Every application was quiesced, proved so after the thaw, and every file system was frozen.
    Application,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Crash => "crash",
            Level::FileSystem => "file-system",
            Level::Application => "application",
        })
    }
}

/// Why a level is lower than `application`. The codes are stable; the text beside them is not.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ReasonCode {
    /// No hook is configured and no legacy scripts are there.
    NoHook,
    /// Legacy scripts are there but break a rule (owner, mode, link, pair incomplete…).
    ScriptInvalid,
    /// A hook failed and its `on-failure` says to go on at a lower level.
    HookFailed,
    /// A hook found its application absent.
    HookNotApplicable,
    /// A hook said itself that it reached less than `application`.
    HookLowered,
    /// A hook's data lies outside the snapshot.
    DataNotInSnapshot,
    /// A hook could not prove after the thaw that it was still quiesced.
    NotConfirmed,
    /// A file system on a disk of the snapshot is of a type that cannot be frozen.
    NotFreezable,
    /// A file system also lies on a disk that is not in the snapshot.
    DiskExcluded,
    /// A disk of the snapshot is no block device of this instance, as far as can be known.
    DeviceNotFound,
    /// Freezing was switched off for this run.
    FreezeDisabled,
    /// A file system was thawed before the point in time was fixed, by the deadline.
    DeadlinePassed,
    /// A file system was thawed by somebody else inside the window.
    ThawedByOther,
    /// A file system turned read-only at the thaw.
    TurnedReadOnly,
    /// The guard process was lost inside the window.
    GuardLost,
    /// The provider fixed the point in time after the first thaw, or cannot say when.
    PointInTimeUnknown,
}

impl ReasonCode {
    /// All of them.
    pub const ALL: [ReasonCode; 16] = [
        ReasonCode::NoHook,
        ReasonCode::ScriptInvalid,
        ReasonCode::HookFailed,
        ReasonCode::HookNotApplicable,
        ReasonCode::HookLowered,
        ReasonCode::DataNotInSnapshot,
        ReasonCode::NotConfirmed,
        ReasonCode::NotFreezable,
        ReasonCode::DiskExcluded,
        ReasonCode::DeviceNotFound,
        ReasonCode::FreezeDisabled,
        ReasonCode::DeadlinePassed,
        ReasonCode::ThawedByOther,
        ReasonCode::TurnedReadOnly,
        ReasonCode::GuardLost,
        ReasonCode::PointInTimeUnknown,
    ];

    /// The stable code, as in the manifest.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            ReasonCode::NoHook => "no-hook",
            ReasonCode::ScriptInvalid => "script-invalid",
            ReasonCode::HookFailed => "hook-failed",
            ReasonCode::HookNotApplicable => "hook-not-applicable",
            ReasonCode::HookLowered => "hook-lowered",
            ReasonCode::DataNotInSnapshot => "data-not-in-snapshot",
            ReasonCode::NotConfirmed => "not-confirmed",
            ReasonCode::NotFreezable => "not-freezable",
            ReasonCode::DiskExcluded => "disk-excluded",
            ReasonCode::DeviceNotFound => "device-not-found",
            ReasonCode::FreezeDisabled => "freeze-disabled",
            ReasonCode::DeadlinePassed => "deadline-passed",
            ReasonCode::ThawedByOther => "thawed-by-other",
            ReasonCode::TurnedReadOnly => "turned-read-only",
            ReasonCode::GuardLost => "guard-lost",
            ReasonCode::PointInTimeUnknown => "point-in-time-unknown",
        }
    }
}

/// One reason why a level is lower, with words for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// The level that this reason allows at most.
    pub limits_to: Level,
    /// Stable code.
    pub code: ReasonCode,
    /// What happened, for people: names the hook, path or file system.
    pub detail: String,
    /// The provider's ids of the disks that it concerns; empty: all of them.
    #[serde(default)]
    pub disks: Vec<String>,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.code(), self.detail)
    }
}

/// The level that is left after all reasons: the lowest limit, or `application` without any.
#[must_use]
pub fn level_after(reasons: &[Reason]) -> Level {
    reasons.iter().map(|reason| reason.limits_to).min().unwrap_or(Level::Application)
}

/// The level of one disk: the lowest limit of the reasons that concern it.
#[must_use]
pub fn level_of_disk(reasons: &[Reason], disk: &str) -> Level {
    let concerns = |reason: &&Reason| {
        reason.disks.is_empty() || reason.disks.iter().any(|other| other == disk)
    };
    reasons.iter().filter(concerns).map(|r| r.limits_to).min().unwrap_or(Level::Application)
}
