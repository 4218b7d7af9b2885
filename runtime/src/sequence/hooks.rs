//! The hooks of one run, as a set: quiesced in the declared order, released in reverse.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;

use crate::config::grants::OnFailure;
use crate::consistency::{Level, Reason, ReasonCode};
use crate::hook::{Hook, HookFailure, HookFailureKind, Outcome, Prepared};
use crate::journal::{BegunHook, JournalError};
use crate::manifest::{HookRecord, MetadataEntry, MetadataValue, StepRecord, StepResult};
use crate::time::{Deadline, monotonic_ns};

use super::events::{Recorder, Step};

/// The key under which a hook says for how long it had held its application when `pre-freeze`
/// returned (hooks-sdk/wit, `frozen`).
const HELD_BEFORE_FREEZE: &str = "held-before-freeze-ns";

/// A hook, and its place in the run.
#[derive(Debug)]
pub struct PlannedHook {
    /// The hook.
    pub hook: Box<dyn Hook>,
    /// `component` or `script`, for the manifest.
    pub kind: &'static str,
    /// What happens when it fails.
    pub on_failure: OnFailure,
    /// Names of hooks that are quiesced before it, and released after it.
    pub after: Vec<String>,
    /// Its own limit for `pre-freeze` and for `post-thaw`, instead of the run's deadlines: legacy
    /// scripts may take half an hour each.
    pub timeout: Option<Duration>,
}

impl PlannedHook {
    /// A component: the run's deadlines are its own.
    #[must_use]
    pub fn component(hook: Box<dyn Hook>, on_failure: OnFailure, after: Vec<String>) -> Self {
        Self { hook, kind: "component", on_failure, after, timeout: None }
    }

    /// The legacy pair of scripts, each with `timeout`.
    #[must_use]
    pub fn scripts(hook: Box<dyn Hook>, timeout: Duration) -> Self {
        Self {
            hook,
            kind: "script",
            on_failure: OnFailure::Abort,
            after: Vec::new(),
            timeout: Some(timeout),
        }
    }

    fn deadline(&self, of_the_run: Deadline) -> Deadline {
        self.timeout.map_or(of_the_run, Deadline::after)
    }
}

#[derive(Debug)]
struct Entry {
    planned: PlannedHook,
    wave: usize,
    /// `pre-freeze` was called, whatever came of it: it must be released.
    attempted: bool,
    quiesced: bool,
    /// From when to when it held its application.
    held: Option<(u64, u64)>,
    record: HookRecord,
}

impl Entry {
    /// For the journal.
    fn begun(&self) -> BegunHook {
        BegunHook {
            name: self.record.name.clone(),
            module: self.record.digest.clone(),
            grant: self.planned.hook.grant_file().map(Path::to_owned),
        }
    }

    /// Such a hook may keep state from `prepare` on, and is finished at the next start if it dies.
    fn can_be_finished_later(&self) -> bool {
        self.planned.hook.grant_file().is_some()
    }
}

/// The hooks of one run, in the order in which they are quiesced.
#[derive(Debug)]
pub(super) struct HookSet {
    entries: Vec<Entry>,
    /// Names of hooks that are left out of the run, and finished.
    left_out: Vec<String>,
}

/// What came of one phase of one hook.
struct Done<T> {
    index: usize,
    began_ns: u64,
    ended_ns: u64,
    result: Result<T, HookFailure>,
}

impl<T> Done<T> {
    async fn by(index: usize, act: impl Future<Output = Result<T, HookFailure>>) -> Self {
        let began_ns = monotonic_ns();
        let result = act.await;
        Self { index, began_ns, ended_ns: monotonic_ns(), result }
    }
}

impl HookSet {
    /// Orders hooks by what they name in `after`.
    pub(super) fn new(hooks: Vec<PlannedHook>) -> Result<Self, String> {
        let waves = waves(&hooks)?;
        let mut entries: Vec<Entry> = hooks
            .into_iter()
            .zip(waves)
            .map(|(planned, wave)| {
                let provenance = planned.hook.provenance();
                let record = HookRecord {
                    name: planned.hook.name().to_owned(),
                    kind: planned.kind.to_owned(),
                    version: planned.hook.version().map(str::to_owned),
                    digest: planned.hook.digest(),
                    signed_by: provenance.signed_by,
                    allowed_unsigned: provenance.allowed_unsigned,
                    level: Level::Crash,
                    confirmed: false,
                    released: false,
                    metadata: Vec::new(),
                };
                Entry { planned, wave, attempted: false, quiesced: false, held: None, record }
            })
            .collect();
        entries.sort_by(|a, b| (a.wave, &a.record.name).cmp(&(b.wave, &b.record.name)));
        Ok(Self { entries, left_out: Vec::new() })
    }

    pub(super) fn records(&self) -> Vec<HookRecord> {
        self.entries.iter().map(|entry| entry.record.clone()).collect()
    }

    /// Names of hooks that are released and finished: there is nothing to be undone after a death.
    pub(super) fn finished(&self) -> Vec<String> {
        let released = self.entries.iter().filter(|entry| entry.record.released);
        let released = released.map(|entry| entry.record.name.clone());
        released.chain(self.left_out.iter().cloned()).collect()
    }

    pub(super) fn on_failure(&self, name: &str) -> OnFailure {
        let entry = self.entries.iter().find(|entry| entry.record.name == name);
        entry.map(|entry| entry.planned.on_failure).unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// From the first application locked to the last one released.
    pub(super) fn hold_ns(&self) -> Option<u64> {
        let held = || self.entries.iter().filter_map(|entry| entry.held);
        let (since, until) = (held().map(|h| h.0).min()?, held().map(|h| h.1).max()?);
        Some(until.saturating_sub(since))
    }

    pub(super) fn attempted(&self) -> usize {
        self.entries.iter().filter(|entry| entry.attempted).count()
    }

    /// Each hook looks at its application. Hooks that may be left out are; the others' failure is
    /// the run's.
    pub(super) async fn prepare(
        &mut self,
        deadline: Deadline,
        recorder: &mut Recorder,
        reasons: &mut Vec<Reason>,
        mut begun: impl FnMut(BegunHook) -> Result<(), JournalError>,
    ) -> Result<Vec<(String, Prepared)>, super::Cause> {
        for entry in self.entries.iter().filter(|entry| entry.can_be_finished_later()) {
            begun(entry.begun())?;
        }
        let done = join_all(self.entries.iter_mut().enumerate().map(async |(index, entry)| {
            Done::by(index, entry.planned.hook.prepare(deadline)).await
        }))
        .await;
        let mut prepared = Vec::new();
        let mut fatal = None;
        let mut left_out = Vec::new();
        for Done { index, began_ns, ended_ns, result } in done {
            let entry = &self.entries[index];
            let detail = result.as_ref().map(|p| p.summary.clone()).map_err(ToString::to_string);
            record_hook(recorder, Step::Prepare, &entry.record.name, (began_ns, ended_ns), &detail);
            match result {
                Ok(found) => prepared.push((entry.record.name.clone(), found)),
                Err(failure) => match reason_to_go_on(entry.planned.on_failure, &failure) {
                    Some(reason) => {
                        reasons.extend(reason);
                        left_out.push(index);
                    }
                    None => fatal = fatal.or(Some(failure)),
                },
            }
        }
        if let Some(failure) = fatal {
            return Err(failure.into());
        }
        for index in left_out.into_iter().rev() {
            let mut entry = self.entries.remove(index);
            recorder.warn(format!("hook {} is left out of this run", entry.record.name));
            match entry.planned.hook.finish(deadline).await {
                Ok(()) => self.left_out.push(entry.record.name),
                Err(failure) => recorder.warn(failure.to_string()),
            }
        }
        Ok(prepared)
    }

    /// Quiesces wave by wave, in parallel within a wave. On an error, hooks that were asked stay in
    /// the set, to be released.
    pub(super) async fn quiesce(
        &mut self,
        deadline: Deadline,
        release_budget: Duration,
        recorder: &mut Recorder,
        reasons: &mut Vec<Reason>,
        mut begun: impl FnMut(BegunHook) -> Result<(), JournalError>,
    ) -> Result<(), super::Cause> {
        let last = self.entries.iter().map(|entry| entry.wave).max().unwrap_or(0);
        for wave in 0..=last {
            for entry in self.entries.iter_mut().filter(|entry| entry.wave == wave) {
                begun(entry.begun())?;
                entry.attempted = true;
            }
            let members = self.entries.iter_mut().enumerate().filter(|(_, e)| e.wave == wave);
            let done = join_all(members.map(async |(index, entry)| {
                let deadline = entry.planned.deadline(deadline);
                Done::by(index, entry.planned.hook.pre_freeze(deadline)).await
            }))
            .await;
            let mut fatal = None;
            for Done { index, began_ns, ended_ns, result } in done {
                let entry = &mut self.entries[index];
                let detail = result.as_ref().map(|_| String::new()).map_err(ToString::to_string);
                record_hook(
                    recorder,
                    Step::Quiesce,
                    &entry.record.name,
                    (began_ns, ended_ns),
                    &detail,
                );
                match result {
                    Ok(quiesced) => {
                        entry.quiesced = true;
                        let since_ns = held_since((began_ns, ended_ns), &quiesced.metadata);
                        entry.held = Some((since_ns, since_ns));
                        entry.record.level = quiesced.level;
                        entry.record.metadata = quiesced.metadata;
                        reasons.extend(hook_lowered(&entry.record));
                    }
                    Err(failure) => match reason_to_go_on(entry.planned.on_failure, &failure) {
                        Some(reason) => {
                            reasons.extend(reason);
                            release_one(entry, Outcome::Aborted, release_budget, recorder).await;
                        }
                        None => fatal = fatal.or(Some(failure)),
                    },
                }
            }
            if let Some(failure) = fatal {
                return Err(failure.into());
            }
        }
        Ok(())
    }

    /// Each quiesced hook proves that it still is. What cannot be proved lowers the level.
    pub(super) async fn confirm(
        &mut self,
        deadline: Deadline,
        recorder: &mut Recorder,
        reasons: &mut Vec<Reason>,
    ) -> Vec<HookFailure> {
        let members = self.entries.iter_mut().enumerate().filter(|(_, entry)| entry.quiesced);
        let done = join_all(members.map(async |(index, entry)| {
            Done::by(index, entry.planned.hook.confirm(deadline)).await
        }))
        .await;
        let mut failures = Vec::new();
        for Done { index, began_ns, ended_ns, result } in done {
            let entry = &mut self.entries[index];
            let detail = result.as_ref().map(|()| String::new()).map_err(ToString::to_string);
            record_hook(recorder, Step::Confirm, &entry.record.name, (began_ns, ended_ns), &detail);
            entry.record.confirmed = result.is_ok();
            if let Err(failure) = result {
                reasons.push(Reason {
                    limits_to: Level::FileSystem,
                    code: ReasonCode::NotConfirmed,
                    detail: failure.to_string(),
                    disks: Vec::new(),
                });
                failures.push(failure);
            }
        }
        failures
    }

    /// Releases, in reverse, every hook that was asked to quiesce; then `finish`, for every hook.
    /// What fails is told, and does not keep the others from being released.
    pub(super) async fn release(
        &mut self,
        outcome: Outcome,
        budget: Duration,
        recorder: &mut Recorder,
    ) -> Vec<String> {
        let last = self.entries.iter().map(|entry| entry.wave).max().unwrap_or(0);
        let mut failures = Vec::new();
        for wave in (0..=last).rev() {
            let members = self.entries.iter_mut().filter(|e| e.wave == wave && !e.record.released);
            let ended = join_all(members.map(async |entry| {
                let began_ns = monotonic_ns();
                let name = entry.record.name.clone();
                let attempted = entry.attempted;
                (name, began_ns, attempted, release(entry, outcome, budget).await)
            }))
            .await;
            for (name, began_ns, attempted, result) in ended {
                if attempted || result.is_err() {
                    let detail = result.as_ref().map(|()| String::new()).map_err(Clone::clone);
                    record_hook(
                        recorder,
                        Step::Release,
                        &name,
                        (began_ns, monotonic_ns()),
                        &detail,
                    );
                }
                failures.extend(result.err());
            }
        }
        failures
    }
}

async fn release_one(
    entry: &mut Entry,
    outcome: Outcome,
    budget: Duration,
    recorder: &mut Recorder,
) {
    let began_ns = monotonic_ns();
    let result = release(entry, outcome, budget).await;
    let detail = result.as_ref().map(|()| String::new()).map_err(Clone::clone);
    record_hook(recorder, Step::Release, &entry.record.name, (began_ns, monotonic_ns()), &detail);
    if let Err(failure) = result {
        recorder.warn(failure);
    }
}

/// `post-thaw` if it was asked to quiesce, then `finish`, always.
async fn release(entry: &mut Entry, outcome: Outcome, budget: Duration) -> Result<(), String> {
    let post_thaw = entry.planned.deadline(Deadline::after(budget));
    let hook = &mut entry.planned.hook;
    let mut failures = Vec::new();
    if entry.attempted {
        let released = hook.post_thaw(outcome, post_thaw).await;
        if let Some((_, until_ns)) = &mut entry.held {
            *until_ns = monotonic_ns();
        }
        match released {
            Ok(more) => merge(&mut entry.record.metadata, more),
            // Its sessions were closed with its instance: the application is released, and the
            // failure that cost the instance has been told.
            Err(failure) if failure.kind == HookFailureKind::InstanceGone => {}
            Err(failure) => failures.push(failure.to_string()),
        }
    }
    if let Err(failure) = hook.finish(Deadline::after(budget)).await {
        failures.push(failure.to_string());
    }
    entry.record.released = failures.is_empty();
    if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
}

/// When a hook began to hold: by its own account, which can only be later than when it was called;
/// without one, when it was called.
fn held_since((called_ns, returned_ns): (u64, u64), metadata: &[MetadataEntry]) -> u64 {
    let said = metadata.iter().find(|entry| entry.key == HELD_BEFORE_FREEZE);
    match said.map(|entry| &entry.value) {
        Some(MetadataValue::Integer(ns)) => {
            let held_ns = u64::try_from(*ns).unwrap_or(u64::MAX);
            returned_ns.saturating_sub(held_ns).max(called_ns)
        }
        _ => called_ns,
    }
}

fn merge(metadata: &mut Vec<MetadataEntry>, more: Vec<MetadataEntry>) {
    for entry in more {
        metadata.retain(|known| known.key != entry.key);
        metadata.push(entry);
    }
}

/// `Some` if the run goes on without the hook, with the reason that lowers its level, if one does.
fn reason_to_go_on(on_failure: OnFailure, failure: &HookFailure) -> Option<Option<Reason>> {
    let absent = failure.kind == HookFailureKind::NotApplicable;
    let code = if absent { ReasonCode::HookNotApplicable } else { ReasonCode::HookFailed };
    match on_failure {
        OnFailure::Skip if absent => Some(None),
        OnFailure::Abort | OnFailure::Skip => None,
        OnFailure::Lower => Some(Some(Reason {
            limits_to: Level::FileSystem,
            code,
            detail: failure.to_string(),
            disks: Vec::new(),
        })),
    }
}

fn hook_lowered(record: &HookRecord) -> Option<Reason> {
    (record.level < Level::Application).then(|| Reason {
        limits_to: record.level,
        code: ReasonCode::HookLowered,
        detail: format!("hook {} says that it reached only {}", record.name, record.level),
        disks: Vec::new(),
    })
}

fn record_hook(
    recorder: &mut Recorder,
    step: Step,
    name: &str,
    (began_ns, ended_ns): (u64, u64),
    detail: &Result<String, String>,
) {
    let (result, detail) = match detail {
        Ok(text) => (StepResult::Done, text),
        Err(text) => (StepResult::Failed, text),
    };
    recorder.push(StepRecord {
        step: step.to_string(),
        subject: Some(name.to_owned()),
        began_ns,
        ended_ns,
        result,
        detail: (!detail.is_empty()).then(|| detail.clone()),
    });
}

/// The wave of each hook: one after the last of those it names.
fn waves(hooks: &[PlannedHook]) -> Result<Vec<usize>, String> {
    let index: BTreeMap<&str, usize> =
        hooks.iter().enumerate().map(|(i, planned)| (planned.hook.name(), i)).collect();
    let mut waves: Vec<Option<usize>> = vec![None; hooks.len()];
    loop {
        let mut progress = false;
        for (i, planned) in
            hooks.iter().enumerate().filter(|(i, _)| waves[*i].is_none()).collect::<Vec<_>>()
        {
            let mut wave = Some(0);
            for name in &planned.after {
                let Some(&before) = index.get(name.as_str()) else {
                    return Err(format!(
                        "hook {} is to run after {name}, but no hook of that name is configured",
                        planned.hook.name()
                    ));
                };
                wave = match (wave, waves[before]) {
                    (Some(wave), Some(other)) => Some(wave.max(other + 1)),
                    _ => None,
                };
            }
            if wave.is_some() {
                waves[i] = wave;
                progress = true;
            }
        }
        if waves.iter().all(Option::is_some) {
            return Ok(waves.into_iter().flatten().collect());
        }
        if !progress {
            let circle: Vec<_> = hooks
                .iter()
                .zip(&waves)
                .filter(|(_, wave)| wave.is_none())
                .map(|(planned, _)| planned.hook.name())
                .collect();
            return Err(format!("hooks wait for each other: {}", circle.join(", ")));
        }
    }
}
