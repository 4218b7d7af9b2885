//! Text for people. Plain characters without colour: it is pasted into tickets.

use std::fmt::Write as _;

use crate::consistency::Level;
use crate::freeze::{FrozenState, StatusLine};
use crate::manifest::{HookRecord, Manifest, MetadataValue, StepRecord, StepResult};
use crate::plan::{Plan, explain};
use crate::sequence::{Failure, Report};

/// `text` with each character written out that a terminal would act on or not show (`\u{1b}`), but line
/// ends: what everything that is printed goes through, whoever wrote parts of it.
#[must_use]
pub fn visible(text: &str) -> String {
    crate::hook::text::visible(text)
}

/// A duration with three significant digits: `1.82 ms`, `640 µs`, `12.4 s`.
#[must_use]
pub fn duration(ns: u64) -> String {
    let (value, unit) = match ns {
        0..1_000_000 => (to_f64(ns) / 1e3, "µs"),
        1_000_000..1_000_000_000 => (to_f64(ns) / 1e6, "ms"),
        _ => (to_f64(ns) / 1e9, "s"),
    };
    let decimals = match value {
        v if v < 10.0 => 2,
        v if v < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {unit}")
}

#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn to_f64(ns: u64) -> f64 {
    ns as f64
}

/// One step and its parts, as lines of the tree.
#[must_use]
pub fn step_lines(step: &StepRecord, parts: &[StepRecord]) -> Vec<String> {
    let mut lines = vec![line("├─ ", 0, &step.step, step)];
    for (i, part) in parts.iter().enumerate() {
        let branch = if i + 1 == parts.len() { "│  └─ " } else { "│  ├─ " };
        let subject = part.subject.as_deref().unwrap_or(&part.step);
        lines.push(line(branch, 3, subject, part));
    }
    lines
}

fn line(branch: &str, indent: usize, label: &str, step: &StepRecord) -> String {
    let mark = match step.result {
        StepResult::Done | StepResult::Undone => "",
        StepResult::Failed => "FAILED ",
        StepResult::UndoFailed => "RELEASE FAILED ",
        StepResult::Skipped => "skipped ",
    };
    let took = duration(step.ended_ns.saturating_sub(step.began_ns));
    let detail = step.detail.as_deref().unwrap_or_default();
    let width = 12_usize.saturating_sub(indent);
    visible(format!("{branch}{label:<width$} {took:>9}  {mark}{detail}").trim_end())
}

/// The end of a run that made a snapshot.
#[must_use]
pub fn report(report: &Report) -> String {
    let manifest = &report.manifest;
    let timings = &manifest.timings;
    let mut out = format!("└─ level: {}\n", manifest.level);
    for reason in &manifest.reasons {
        let _ = writeln!(out, "   why not higher: {reason}");
    }
    let _ = write!(
        out,
        "\nsnapshot {}\n  window {} (of which provider {})",
        manifest.group,
        duration(timings.window_ns),
        duration(timings.provider_ns),
    );
    if let Some(hold) = timings.hold_ns {
        let _ = write!(out, ", hold {}", duration(hold));
    }
    let _ = writeln!(out, ", whole run {}", duration(timings.total_ns));
    for hook in manifest.hooks.iter().filter(|hook| !hook.metadata.is_empty()) {
        let _ = writeln!(
            out,
            "  {} saved {} for whoever restores: `stillpoint show {}`",
            hook.name,
            position(hook).unwrap_or_else(|| format!("{} entries", hook.metadata.len())),
            manifest.group
        );
    }
    for warning in &manifest.warnings {
        let _ = writeln!(out, "warning: {warning}");
    }
    for problem in &report.problems {
        let _ = writeln!(out, "problem: {problem}");
    }
    let _ = writeln!(out, "state: {}", report.state);
    out
}

/// Where in its log a database was, if the hook says so: what people look for first.
fn position(hook: &HookRecord) -> Option<String> {
    let find = |key: &str| hook.metadata.iter().find(|entry| entry.key == key);
    let (file, at) = (find("binlog-file")?, find("binlog-position")?);
    Some(format!("its position {}:{}", value(&file.value), value(&at.value)))
}

/// A manifest for people: what was saved for whoever restores.
#[must_use]
pub fn manifest(manifest: &Manifest) -> String {
    let mut out = format!(
        "{} ({})\n  level     {}\n  started   {}\n  provider  {}\n",
        manifest.group, manifest.name, manifest.level, manifest.started, manifest.provider
    );
    for reason in &manifest.reasons {
        let _ = writeln!(out, "  why not higher: {reason}");
    }
    for disk in &manifest.disks {
        let _ = writeln!(out, "  disk      {} ({})", disk.id, disk.level);
    }
    for fs in &manifest.file_systems {
        let _ = writeln!(out, "  frozen    {} ({})", fs.mount_point.display(), fs.fs_type);
    }
    for hook in &manifest.hooks {
        let version = hook.version.as_deref().unwrap_or_default();
        let _ = writeln!(out, "  hook      {} {version}", hook.name);
        for entry in &hook.metadata {
            let _ = writeln!(out, "    {} = {}", entry.key, value(&entry.value));
        }
    }
    if let Some(verified) = &manifest.verified {
        let _ = writeln!(out, "  {} ({})", verified.tag(), verified.time);
        for finding in &verified.findings {
            let _ = writeln!(out, "    {finding}");
        }
    }
    out
}

fn value(value: &MetadataValue) -> String {
    match value {
        // On one line: what a hook says can not look like what we say.
        MetadataValue::Text(text) | MetadataValue::Bytes(text) => {
            text.replace("\r\n", " ").replace(['\n', '\r', '\t'], " ")
        }
        MetadataValue::Integer(number) => number.to_string(),
        MetadataValue::Boolean(yes) => yes.to_string(),
    }
}

/// A run that failed: what, why, the state the machine is in, the next step.
#[must_use]
pub fn failure(failure: &Failure) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "error: {}: {}", failure.during, failure.cause);
    out.push_str(&causes(std::error::Error::source(&failure.cause)));
    for warning in &failure.warnings {
        let _ = writeln!(out, "warning: {warning}");
    }
    let _ = writeln!(out, "state: {}", failure.state);
    if let Some(hint) = failure.hint() {
        let _ = writeln!(out, "hint: {hint}");
    }
    out
}

/// A chain of causes, one line each.
#[must_use]
pub fn causes(mut cause: Option<&(dyn std::error::Error + 'static)>) -> String {
    let mut out = String::new();
    while let Some(error) = cause {
        let _ = writeln!(out, "  because: {error}");
        cause = error.source();
    }
    out
}

/// What would be quiesced and frozen, in which order, what is left alone and why, and what level
/// that can reach.
#[must_use]
pub fn plan(plan: &Plan, hooks: &[String], level: Level) -> String {
    let mut out = String::from("quiesced first, released last\n");
    if hooks.is_empty() {
        out.push_str("  nothing: no hook is configured, and no scripts that could run\n");
    }
    for hook in hooks {
        let _ = writeln!(out, "  {hook}");
    }
    out.push_str(&explain(plan));
    let _ = writeln!(out, "this run can reach the level {level}");
    out
}

/// Which file systems are frozen.
#[must_use]
pub fn status(lines: &[StatusLine]) -> String {
    let mut out = String::new();
    for line in lines {
        let state = match &line.state {
            FrozenState::Running => "running",
            FrozenState::Frozen => "FROZEN",
            FrozenState::ReadOnly => "read-only",
            FrozenState::Unknown => "unknown",
        };
        let ours = if line.ours { " (by us)" } else { "" };
        let _ = write!(out, "{state:<9} {} ({}){ours}", line.mount_point.display(), line.fs_type);
        let unusual = line.state != FrozenState::Running;
        if let Some(detail) = line.detail.as_ref().filter(|_| unusual) {
            let _ = write!(out, ": {detail}");
        }
        out.push('\n');
    }
    out
}

/// One group, as a line of a list.
#[must_use]
pub fn group_line(id: &str, manifest: Option<&Manifest>, members: usize) -> String {
    match manifest {
        Some(manifest) => format!(
            "{id}  {:<11}  {}  {members} disks  {}{}",
            manifest.level.to_string(),
            manifest.started,
            manifest.name,
            manifest.verified.as_ref().map(|it| format!("  {}", it.tag())).unwrap_or_default()
        ),
        None => format!("{id}  incomplete: it has no manifest, the run did not end well"),
    }
}
