//! What is counted from run to run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::consistency::Level;
use crate::exit_code::ExitCode;
use crate::report::RunRecord;

/// What is counted from run to run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Runs that ended with 0.
    pub(super) succeeded: u64,
    /// Runs that did not, by [`ExitCode::name`].
    pub(super) failures: BTreeMap<String, u64>,
    /// Snapshots that were kept from a higher level, by [`crate::consistency::ReasonCode::code`].
    pub(super) lowered: BTreeMap<String, u64>,
    /// When the last run that ended with 0 was over, Unix time in seconds.
    pub(super) last_success: f64,
    /// When the last snapshot of each level was made, by the level's name.
    pub(super) last_of_level: BTreeMap<String, f64>,
    pub(super) last_run: LastRun,
    pub(super) last_snapshot: Option<LastSnapshot>,
}

/// The last run, whatever came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct LastRun {
    pub(super) ended: f64,
    pub(super) exit_code: u8,
    pub(super) maybe_frozen: usize,
    pub(super) not_released: usize,
}

/// The last run that made a snapshot. Durations in nanoseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct LastSnapshot {
    pub(super) level: Level,
    pub(super) window_ns: u64,
    pub(super) hold_ns: u64,
    pub(super) stall_ns: u64,
    pub(super) provider_ns: u64,
    pub(super) total_ns: u64,
}

impl State {
    /// Counts a run.
    pub fn count(&mut self, record: &RunRecord) {
        let ended = unix_seconds(&record.ended);
        self.last_run = LastRun {
            ended,
            exit_code: record.exit_code,
            maybe_frozen: record.maybe_frozen.len(),
            not_released: record.not_released.len(),
        };
        match ExitCode::from_status(record.exit_code) {
            ExitCode::Ok => {
                self.succeeded += 1;
                self.last_success = ended;
            }
            failure => *self.failures.entry(failure.name().to_owned()).or_default() += 1,
        }
        let Some(manifest) = &record.manifest else { return };
        self.last_of_level.insert(manifest.level.to_string(), ended);
        let mut codes: Vec<&str> = manifest.reasons.iter().map(|r| r.code.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        for code in codes {
            *self.lowered.entry(code.to_owned()).or_default() += 1;
        }
        self.last_snapshot = Some(LastSnapshot {
            level: manifest.level,
            window_ns: manifest.timings.window_ns,
            hold_ns: manifest.timings.hold_ns.unwrap_or_default(),
            stall_ns: record.longest_wait_ns().unwrap_or_default(),
            provider_ns: manifest.timings.provider_ns,
            total_ns: manifest.timings.total_ns,
        });
    }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of this century fit")]
fn unix_seconds(time: &str) -> f64 {
    let time: Option<jiff::Timestamp> = time.parse().ok();
    time.map_or(0.0, |time| time.as_millisecond() as f64 / 1e3)
}
