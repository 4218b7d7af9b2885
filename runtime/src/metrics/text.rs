//! Prometheus' text format, version 0.0.4.

use std::fmt::{Display, Write as _};

use crate::consistency::{Level, ReasonCode};
use crate::exit_code::ExitCode;

use super::State;

/// The levels, best first.
const LEVELS: [Level; 3] = [Level::Application, Level::FileSystem, Level::Crash];

impl State {
    /// The whole file. Every series is there from the first run on, with 0: a counter that appears with
    /// 1 has not increased, and no alert sees it.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = Text::default();
        self.runs(&mut out);
        self.last_run(&mut out);
        self.last_snapshot(&mut out);
        out.0
    }

    fn runs(&self, out: &mut Text) {
        out.head("stillpoint_build_info", "gauge", "The version that ran last; always 1.");
        out.line("stillpoint_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
        let failed: u64 = self.failures.values().sum();
        out.head(
            "stillpoint_runs_total",
            "counter",
            "Runs, by how they ended: success is exit code 0.",
        );
        out.line("stillpoint_runs_total", &[("result", "success")], self.succeeded);
        out.line("stillpoint_runs_total", &[("result", "failure")], failed);
        out.head(
            "stillpoint_run_failures_total",
            "counter",
            "Runs that did not end with 0, by the exit code's name.",
        );
        for code in ExitCode::ALL.into_iter().filter(|code| *code != ExitCode::Ok) {
            let count = self.failures.get(code.name()).copied().unwrap_or_default();
            out.line("stillpoint_run_failures_total", &[("reason", code.name())], count);
        }
        out.head(
            "stillpoint_level_reductions_total",
            "counter",
            "Snapshots that were kept from a higher level, by reason code.",
        );
        for code in ReasonCode::ALL {
            let count = self.lowered.get(code.code()).copied().unwrap_or_default();
            out.line("stillpoint_level_reductions_total", &[("reason", code.code())], count);
        }
    }

    fn last_run(&self, out: &mut Text) {
        let last = &self.last_run;
        let mut gauge = |name: &str, help: &str, value: &dyn Display| {
            out.head(name, "gauge", help);
            out.line(name, &[], value);
        };
        gauge(
            "stillpoint_last_run_timestamp_seconds",
            "When the last run was over, Unix time.",
            &last.ended,
        );
        gauge(
            "stillpoint_last_run_exit_code",
            "Exit code of the last run; 0 is success.",
            &last.exit_code,
        );
        gauge(
            "stillpoint_last_success_timestamp_seconds",
            "When the last run with exit code 0 was over, Unix time; 0 if there was none.",
            &self.last_success,
        );
        gauge(
            "stillpoint_maybe_frozen_file_systems",
            "File systems that were not known to be thawed after the last run.",
            &last.maybe_frozen,
        );
        gauge(
            "stillpoint_hooks_not_released",
            "Hooks whose release failed in the last run.",
            &last.not_released,
        );
    }

    fn last_snapshot(&self, out: &mut Text) {
        let name = "stillpoint_last_snapshot_timestamp_seconds";
        let help = "When the last snapshot of a level was made, Unix time; 0 if there was none.";
        out.head(name, "gauge", help);
        for level in LEVELS {
            let level = level.to_string();
            let ended = self.last_of_level.get(&level).copied().unwrap_or_default();
            out.line(name, &[("level", &level)], ended);
        }
        let Some(last) = &self.last_snapshot else { return };
        let name = "stillpoint_last_snapshot_level";
        out.head(name, "gauge", "1 for the level of the last snapshot, 0 for the others.");
        for level in LEVELS {
            out.line(name, &[("level", &level.to_string())], u8::from(level == last.level));
        }
        for (name, help, ns) in [
            ("window", "From the first file system frozen to the last thawed.", last.window_ns),
            ("hold", "From the first application held to the last released.", last.hold_ns),
            (
                "stall",
                "The longest that a client can have waited; not measured at the client.",
                last.stall_ns,
            ),
            ("provider", "The provider's call, inside the window.", last.provider_ns),
            ("run", "The whole run.", last.total_ns),
        ] {
            let name = format!("stillpoint_last_snapshot_{name}_seconds");
            out.head(&name, "gauge", &format!("{help} Of the last run that made a snapshot."));
            out.line(&name, &[], seconds(ns));
        }
    }
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// Values of labels are names of ours: nothing in them has to be escaped.
    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let labels =
            if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of months fit")]
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_there_before_anything_happened() {
        let text = State::default().text();
        for line in [
            "stillpoint_runs_total{result=\"failure\"} 0",
            "stillpoint_run_failures_total{reason=\"cannot-thaw\"} 0",
            "stillpoint_level_reductions_total{reason=\"no-hook\"} 0",
            "stillpoint_last_success_timestamp_seconds 0",
            "stillpoint_last_snapshot_timestamp_seconds{level=\"application\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
