//! From a run's record to lanes and bars, as pure arithmetic: what is drawn where is decided here.

use crate::manifest::{FileSystemRecord, MetadataValue, StepRecord, StepResult};
use crate::output::human::duration;
use crate::sequence::Step;

use super::RunRecord;

/// As in `sequence::hooks`: how long a hook had held when `pre-freeze` returned.
const HELD_BEFORE_FREEZE: &str = "held-before-freeze-ns";

/// From when to when, in nanoseconds of the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) from: u64,
    pub(crate) to: u64,
}

impl Span {
    pub(crate) fn length(self) -> u64 {
        self.to.saturating_sub(self.from)
    }

    fn over(spans: impl IntoIterator<Item = Span>) -> Option<Span> {
        let join = |a: Span, b: Span| Span { from: a.from.min(b.from), to: a.to.max(b.to) };
        spans.into_iter().reduce(join)
    }

    fn of(step: &StepRecord) -> Span {
        Span { from: step.began_ns, to: step.ended_ns.max(step.began_ns) }
    }
}

/// What a bar stands for; the class of the style sheet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    Work,
    Failed,
    Undo,
    Held,
    Changing,
    Frozen,
    Provider,
}

impl Mark {
    pub(super) fn class(self) -> &'static str {
        match self {
            Mark::Work => "work",
            Mark::Failed => "failed",
            Mark::Undo => "undo",
            Mark::Held => "held",
            Mark::Changing => "changing",
            Mark::Frozen => "frozen",
            Mark::Provider => "provider",
        }
    }
}

/// One stretch of a lane.
#[derive(Clone, Debug)]
pub(super) struct Bar {
    pub(super) span: Span,
    pub(super) mark: Mark,
    pub(super) says: String,
}

/// One line of a chart: a step, a hook, a file system.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    pub(super) name: String,
    /// It is a part of the lane above it.
    pub(super) is_part: bool,
    pub(super) failed: bool,
    pub(super) bars: Vec<Bar>,
    /// How long it took, or why there is no bar.
    pub(super) took: String,
}

/// Lanes over one stretch of time.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    pub(super) span: Span,
    /// The last bar goes on beyond the right end.
    pub(super) is_cut: bool,
    pub(super) lanes: Vec<Lane>,
    pub(super) window: Option<Span>,
    pub(super) hold: Option<Span>,
}

/// First FIFREEZE to last FITHAW.
pub(crate) fn window(record: &RunRecord) -> Option<Span> {
    let frozen = |fs: &FileSystemRecord| Span { from: fs.freeze_began_ns, to: fs.thawed_ns };
    Span::over(record.file_systems().iter().map(frozen))
}

/// First application held to last one released. Its length is the manifest's, if there is one.
pub(crate) fn hold(record: &RunRecord) -> Option<Span> {
    let hooks = hooks_of(record);
    let held = Span::over(hooks.iter().filter_map(|hook| held_by(record, hook)))?;
    let length = record.manifest.as_ref().and_then(|manifest| manifest.timings.hold_ns);
    Some(length.map_or(held, |ns| Span { to: held.from + ns, ..held }))
}

/// The longest that a client can have waited, in nanoseconds: nobody measured it at the client. Behind a
/// lock that was asked for and never came, others wait as behind one that did.
pub(super) fn longest_wait(record: &RunRecord) -> Option<u64> {
    let hooks = hooks_of(record);
    let waits =
        hooks.iter().filter_map(|hook| held_by(record, hook).or_else(|| asked(record, hook)));
    waits.chain(window(record)).map(Span::length).max()
}

/// From the request to the release, of a hook that failed in between.
fn asked(record: &RunRecord, hook: &str) -> Option<Span> {
    let steps = ["quiesce", "release"].map(|step| of_step(record, step, Some(hook)));
    steps[0].first()?;
    Span::over(steps.into_iter().flatten().map(Span::of))
}

/// When the run began, on the monotonic clock.
pub(super) fn origin(record: &RunRecord) -> u64 {
    real_steps(record).map(|step| step.began_ns).min().unwrap_or_default()
}

/// Those that have times: a step may have been skipped before it had any.
fn real_steps(record: &RunRecord) -> impl Iterator<Item = &StepRecord> {
    record.steps().iter().filter(|step| step.began_ns > 0)
}

fn of_step<'a>(record: &'a RunRecord, step: &str, subject: Option<&str>) -> Vec<&'a StepRecord> {
    let is = |found: &&StepRecord| found.step == step && found.subject.as_deref() == subject;
    real_steps(record).filter(is).collect()
}

fn subjects<'a>(steps: impl Iterator<Item = &'a StepRecord>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in steps.filter_map(|step| step.subject.as_ref()) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// Hooks that did anything, in the order in which they did.
fn hooks_of(record: &RunRecord) -> Vec<String> {
    subjects(real_steps(record).filter(|step| step.step != Step::Prepare.to_string()))
}

/// From the lock to the release, of one hook.
fn held_by(record: &RunRecord, hook: &str) -> Option<Span> {
    let quiesced = of_step(record, "quiesce", Some(hook));
    let quiesced = quiesced.into_iter().find(|step| step.result == StepResult::Done)?;
    let released = of_step(record, "release", Some(hook)).into_iter().map(|s| s.ended_ns).max();
    let from = match said_by(record, hook) {
        Some(held_ns) => quiesced.ended_ns.saturating_sub(held_ns).max(quiesced.began_ns),
        None => quiesced.began_ns,
    };
    Some(Span { from, to: released.unwrap_or(quiesced.ended_ns).max(from) })
}

/// For how long the hook had held when `pre-freeze` returned, by its own account.
fn said_by(record: &RunRecord, hook: &str) -> Option<u64> {
    let hooks = &record.manifest.as_ref()?.hooks;
    let saved = &hooks.iter().find(|found| found.name == hook)?.metadata;
    match saved.iter().find(|entry| entry.key == HELD_BEFORE_FREEZE)?.value {
        MetadataValue::Integer(ns) => u64::try_from(ns).ok(),
        _ => None,
    }
}

/// The whole run: a lane for each step and each of its hooks.
pub(super) fn whole_run(record: &RunRecord) -> Option<Chart> {
    let span = Span::over(real_steps(record).map(Span::of))?;
    let failed = record.manifest.is_none();
    let mut lanes = Vec::new();
    for step in Step::ALL {
        let name = step.to_string();
        let whole: Vec<&StepRecord> =
            record.steps().iter().filter(|s| s.step == name && s.subject.is_none()).collect();
        let parts = subjects(real_steps(record).filter(|s| s.step == name));
        if whole.is_empty() && parts.is_empty() && !failed {
            continue;
        }
        lanes.push(step_lane(&name, &whole, !parts.is_empty()));
        for part in parts {
            lanes.push(Lane {
                is_part: true,
                ..step_lane(&part, &of_step(record, &name, Some(&part)), true)
            });
        }
    }
    let (span, is_cut) = without_the_tail(record, span);
    Some(Chart { span, is_cut, lanes, window: window(record), hold: hold(record) })
}

/// Where settling takes most of the time, the axis ends soon after it began: all else would be dots.
fn without_the_tail(record: &RunRecord, span: Span) -> (Span, bool) {
    let settle = of_step(record, "settle", None);
    let Some(settle) = settle.first() else { return (span, false) };
    let before = settle.began_ns.saturating_sub(span.from);
    if Span::of(settle).length() <= before {
        return (span, false);
    }
    (Span { to: settle.began_ns + (before / 8).max(1), ..span }, true)
}

fn step_lane(name: &str, records: &[&StepRecord], has_parts: bool) -> Lane {
    let bars: Vec<Bar> =
        records.iter().filter(|step| step.began_ns > 0).map(|step| bar_of(step)).collect();
    let failed = bars.iter().any(|bar| bar.mark == Mark::Failed);
    let took = match records {
        [] if has_parts => String::new(),
        [] => "not reached".to_owned(),
        [step] if step.result == StepResult::Skipped => {
            step.detail.clone().unwrap_or_else(|| "skipped".to_owned())
        }
        _ => {
            let took = duration(bars.iter().map(|bar| bar.span.length()).sum());
            if failed { format!("failed, {took}") } else { took }
        }
    };
    let bars = if took == "no hook" { Vec::new() } else { bars };
    Lane { name: name.to_owned(), is_part: false, failed, bars, took }
}

fn bar_of(step: &StepRecord) -> Bar {
    let mark = match step.result {
        StepResult::Failed | StepResult::UndoFailed => Mark::Failed,
        StepResult::Undone => Mark::Undo,
        _ => match step.step.as_str() {
            "freeze" | "thaw" => Mark::Changing,
            "snapshot" => Mark::Provider,
            "release" => Mark::Undo,
            _ => Mark::Work,
        },
    };
    let span = Span::of(step);
    let what = step.subject.as_deref().map_or_else(String::new, |subject| format!(" {subject}"));
    let ended = if mark == Mark::Failed { "failed after" } else { "took" };
    Bar { span, mark, says: format!("{}{what} {ended} {}", step.step, duration(span.length())) }
}

/// The part in which something was held: a lane for each hook, each file system and the provider.
pub(super) fn held(record: &RunRecord) -> Option<Chart> {
    let (window, hold) = (window(record), hold(record));
    let provider = of_step(record, "snapshot", None);
    let mut lanes: Vec<Lane> =
        hooks_of(record).iter().map(|hook| hook_lane(record, hook)).collect();
    lanes.retain(|lane| !lane.bars.is_empty());
    lanes.extend(record.file_systems().iter().map(file_system_lane));
    lanes.extend((!provider.is_empty()).then(|| {
        let lane = step_lane("provider", &provider, false);
        Lane { name: format!("provider {}", record.provider), ..lane }
    }));
    let bars = lanes.iter().flat_map(|lane| &lane.bars).map(|bar| bar.span);
    let span = Span::over(bars.chain(window).chain(hold))?;
    let room = (span.length() / 40).max(1);
    let span = Span { from: span.from.saturating_sub(room), to: span.to + room };
    Some(Chart { span, is_cut: false, lanes, window, hold })
}

fn hook_lane(record: &RunRecord, hook: &str) -> Lane {
    let mut bars = Vec::new();
    let held = held_by(record, hook);
    bars.extend(held.map(|span| Bar {
        span,
        mark: Mark::Held,
        says: format!("{hook} held its application for {}", duration(span.length())),
    }));
    for step in ["quiesce", "confirm", "release"] {
        bars.extend(of_step(record, step, Some(hook)).into_iter().map(bar_of));
    }
    let failed = bars.iter().any(|bar| bar.mark == Mark::Failed);
    let took = match (held, failed) {
        (Some(held), false) => format!("held {}", duration(held.length())),
        (Some(held), true) => format!("failed; held {}", duration(held.length())),
        (None, true) => "failed".to_owned(),
        (None, false) => "not held".to_owned(),
    };
    Lane { name: hook.to_owned(), is_part: false, failed, bars, took }
}

fn file_system_lane(fs: &FileSystemRecord) -> Lane {
    let name = fs.mount_point.display().to_string();
    let stretch = |from, to, mark, what: &str| {
        let span = Span { from, to };
        Bar { span, mark, says: format!("{name} {what} {}", duration(span.length())) }
    };
    let bars = vec![
        stretch(fs.freeze_began_ns, fs.frozen_ns, Mark::Changing, "was frozen in"),
        stretch(fs.frozen_ns, fs.thaw_began_ns, Mark::Frozen, "stood still for"),
        stretch(fs.thaw_began_ns, fs.thawed_ns, Mark::Changing, "was thawed in"),
    ];
    let took = format!("frozen {}", duration(fs.thawed_ns.saturating_sub(fs.freeze_began_ns)));
    let failed = !fs.writable_after || !fs.thawed_by_us;
    Lane { name, is_part: false, failed, bars, took }
}
