//! The hooks of one run, as a set: quiesced in the declared order, released in reverse.

use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;

use crate::config::grants::OnFailure;
use crate::consistency::{Level, Reason, ReasonCode};
use crate::failpoint::{reach_step, skips};
use crate::hook::{Hook, HookFailure, HookFailureKind, Outcome, Prepared};
use crate::journal::{BegunHook, JournalError};
use crate::manifest::{HookRecord, MetadataEntry, MetadataValue, StepRecord, StepResult};
use crate::time::{Deadline, monotonic_ns};

use super::events::{Recorder, Step};
use super::order::waves;

/// The key under which a hook says for how long it had held its application when `pre-freeze`
/// returned (hooks-sdk/wit, `frozen`).
const HELD_BEFORE_FREEZE: &str = "held-before-freeze-ns";

/// From when on it is worth telling that an application was held because another hook was slow.
const WAITED_LONG: Duration = Duration::from_secs(1);

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
    /// When `pre-freeze` returned.
    answered_ns: Option<u64>,
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

    /// False if the hook says that nobody waits for it.
    fn holds(&self) -> bool {
        let said = self.record.metadata.iter().find(|entry| entry.key == HELD_BEFORE_FREEZE);
        said.is_none_or(|entry| entry.value != MetadataValue::Integer(0))
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
                Entry {
                    planned,
                    wave,
                    attempted: false,
                    quiesced: false,
                    answered_ns: None,
                    held: None,
                    record,
                }
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
            let times = (began_ns, ended_ns);
            recorder.push(record_of(Step::Prepare, &entry.record.name, times, &detail));
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
    /// the set, to be released; those that had not answered yet are given up at once, because
    /// whoever waits for them waits with its own application held.
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
            let began_ns = monotonic_ns();
            for entry in self.entries.iter_mut().filter(|entry| entry.wave == wave) {
                begun(entry.begun())?;
            }
            let members = self.entries.iter_mut().filter(|entry| entry.wave == wave);
            let mut asked: FuturesUnordered<_> =
                members.map(|entry| quiesce_one(entry, deadline, release_budget)).collect();
            let mut fatal = None;
            while fatal.is_none()
                && let Some(answer) = asked.next().await
            {
                for record in answer.records {
                    recorder.push(record);
                }
                for warning in answer.warnings {
                    recorder.warn(warning);
                }
                reasons.extend(answer.reasons);
                fatal = answer.fatal;
            }
            drop(asked);
            if let Some(failure) = fatal {
                self.record_given_up((wave, began_ns), &failure.hook, recorder);
                return Err(failure.into());
            }
            self.tell_who_waited_for_whom(wave, recorder);
        }
        Ok(())
    }

    fn record_given_up(&self, (wave, began_ns): (usize, u64), why: &str, recorder: &mut Recorder) {
        let given_up = self.entries.iter().filter(|e| e.wave == wave && e.answered_ns.is_none());
        for entry in given_up {
            let detail = Err(format!("given up, because hook {why} had failed"));
            let times = (began_ns, monotonic_ns());
            recorder.push(record_of(Step::Quiesce, &entry.record.name, times, &detail));
        }
    }

    /// An application that was held only because another hook of its wave took long need not have
    /// been: its hook could have come later.
    fn tell_who_waited_for_whom(&self, wave: usize, recorder: &mut Recorder) {
        let answered = || {
            let members = self.entries.iter().filter(|entry| entry.wave == wave);
            members.filter_map(|entry| Some((entry, entry.answered_ns?)))
        };
        let Some((slowest, end_ns)) = answered().max_by_key(|(_, answered_ns)| *answered_ns) else {
            return;
        };
        for (entry, answered_ns) in answered().filter(|(entry, _)| entry.quiesced && entry.holds())
        {
            let waited = Duration::from_nanos(end_ns.saturating_sub(answered_ns));
            if waited >= WAITED_LONG {
                let (name, slow) = (&entry.record.name, &slowest.record.name);
                recorder.warn(format!(
                    "hook {name} held its application for {:.1} s only because hook {slow} took so \
                     long to quiesce; with after = [\"{slow}\"] in hooks.d/{name}.toml it would come last",
                    waited.as_secs_f64()
                ));
            }
        }
    }

    /// Each quiesced hook proves that it still is, and is then released: nobody waits for another's
    /// proof. What cannot be proved lowers the level.
    pub(super) async fn confirm_and_release(
        &mut self,
        confirm: Duration,
        release: Duration,
        reasons: &mut Vec<Reason>,
    ) -> Ended {
        reach_step!(Step::Confirm, "before");
        if !self.entries.iter().any(|entry| entry.quiesced) {
            between_proof_and_release();
        }
        let ended = self.end(Outcome::Captured, Some(confirm), release).await;
        reasons.extend(ended.unproved.iter().map(|failure| Reason {
            limits_to: Level::FileSystem,
            code: ReasonCode::NotConfirmed,
            detail: failure.to_string(),
            disks: Vec::new(),
        }));
        ended
    }

    /// Releases every hook that was asked to quiesce; then `finish`, for every hook. What fails is
    /// told, and does not keep the others from being released.
    pub(super) async fn release(
        &mut self,
        outcome: Outcome,
        budget: Duration,
        recorder: &mut Recorder,
    ) -> Vec<String> {
        let ended = self.end(outcome, None, budget).await;
        for record in ended.releases {
            recorder.push(record);
        }
        ended.not_released
    }

    /// In reverse: a hook waits until all those are released that were quiesced after it by the
    /// declared order. For one whose quiescing failed nobody waits: nothing of it is in order.
    async fn end(
        &mut self,
        outcome: Outcome,
        confirm: Option<Duration>,
        release: Duration,
    ) -> Ended {
        let last = self.entries.iter().map(|entry| entry.wave).max().unwrap_or(0);
        let mut held = vec![0_usize; last + 1];
        for entry in self.entries.iter().filter(|entry| entry.quiesced) {
            held[entry.wave] += 1;
        }
        let held = watch::Sender::new(held);
        let members = self.entries.iter_mut().rev().filter(|entry| !entry.record.released);
        let mut done =
            join_all(members.map(|entry| end_one(entry, outcome, confirm, release, &held))).await;
        done.reverse();

        let mut ended = Ended::default();
        for one in done {
            ended.not_released.extend(one.not_released);
            ended.releases.extend(one.release);
            let Some((record, unproved)) = one.confirm else { continue };
            ended.confirms.push(record);
            ended.unproved.extend(unproved);
        }
        ended
    }
}

/// What came of the end of all hooks.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// Who could not prove that it had been quiesced all the time.
    pub(super) unproved: Vec<HookFailure>,
    /// What could not be released, and why.
    pub(super) not_released: Vec<String>,
    /// The proofs, to be recorded.
    pub(super) confirms: Vec<StepRecord>,
    /// The releases, to be recorded.
    pub(super) releases: Vec<StepRecord>,
}

/// What one hook came to when it was asked to quiesce.
#[derive(Default)]
struct Answer {
    records: Vec<StepRecord>,
    warnings: Vec<String>,
    reasons: Vec<Reason>,
    fatal: Option<HookFailure>,
}

/// One that fails, and that the run can do without, is released here, while the others go on.
async fn quiesce_one(entry: &mut Entry, deadline: Deadline, release_budget: Duration) -> Answer {
    entry.attempted = true;
    let deadline = entry.planned.deadline(deadline);
    let began_ns = monotonic_ns();
    let result = entry.planned.hook.pre_freeze(deadline).await;
    let ended_ns = monotonic_ns();
    entry.answered_ns = Some(ended_ns);
    let detail = result.as_ref().map(|_| String::new()).map_err(ToString::to_string);
    let name = entry.record.name.clone();
    let mut answer = Answer::default();
    answer.records.push(record_of(Step::Quiesce, &name, (began_ns, ended_ns), &detail));
    match result {
        Ok(quiesced) => {
            entry.quiesced = true;
            let since_ns = held_since((began_ns, ended_ns), &quiesced.metadata);
            entry.held = Some((since_ns, since_ns));
            entry.record.level = quiesced.level;
            entry.record.metadata = quiesced.metadata;
            answer.reasons.extend(hook_lowered(&entry.record));
        }
        Err(failure) => match reason_to_go_on(entry.planned.on_failure, &failure) {
            Some(reason) => {
                answer.reasons.extend(reason);
                let began_ns = monotonic_ns();
                let released = release(entry, Outcome::Aborted, release_budget).await;
                let detail = released.clone().map(|()| String::new());
                let times = (began_ns, monotonic_ns());
                answer.records.push(record_of(Step::Release, &name, times, &detail));
                answer.warnings.extend(released.err());
            }
            None => answer.fatal = Some(failure),
        },
    }
    answer
}

/// What one hook came to at its end.
struct EndOfOne {
    confirm: Option<(StepRecord, Option<HookFailure>)>,
    release: Option<StepRecord>,
    not_released: Option<String>,
}

async fn end_one(
    entry: &mut Entry,
    outcome: Outcome,
    confirm: Option<Duration>,
    budget: Duration,
    held: &watch::Sender<Vec<usize>>,
) -> EndOfOne {
    let name = entry.record.name.clone();
    let (quiesced, wave) = (entry.quiesced, entry.wave);
    let confirm = match confirm.filter(|_| quiesced) {
        Some(confirm) => Some(confirm_one(entry, Deadline::after(confirm)).await),
        None => None,
    };
    if confirm.is_some() {
        between_proof_and_release();
    }
    if quiesced {
        let later_are_released = |held: &Vec<usize>| held.iter().skip(wave + 1).all(|n| *n == 0);
        // The sender lives as long as all of these: it cannot fail.
        let _ = held.subscribe().wait_for(later_are_released).await;
    }
    let began_ns = monotonic_ns();
    let attempted = entry.attempted;
    let result = release(entry, outcome, budget).await;
    if quiesced {
        held.send_modify(|held| {
            if let Some(count) = held.get_mut(wave) {
                *count -= 1;
            }
        });
    }
    let detail = result.clone().map(|()| String::new());
    let times = (began_ns, monotonic_ns());
    let record = || record_of(Step::Release, &name, times, &detail);
    EndOfOne {
        confirm,
        release: (attempted || result.is_err()).then(record),
        not_released: result.err(),
    }
}

/// Where a test stops a run whose applications are still held, with all said.
fn between_proof_and_release() {
    reach_step!(Step::Confirm, "after");
    reach_step!(Step::Release, "before");
}

async fn confirm_one(entry: &mut Entry, deadline: Deadline) -> (StepRecord, Option<HookFailure>) {
    let began_ns = monotonic_ns();
    let result = match skips!("confirm") {
        true => Ok(()),
        false => entry.planned.hook.confirm(deadline).await,
    };
    let times = (began_ns, monotonic_ns());
    entry.record.confirmed = result.is_ok();
    let detail = result.as_ref().map(|()| String::new()).map_err(ToString::to_string);
    (record_of(Step::Confirm, &entry.record.name, times, &detail), result.err())
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

fn record_of(
    step: Step,
    name: &str,
    (began_ns, ended_ns): (u64, u64),
    detail: &Result<String, String>,
) -> StepRecord {
    let (result, detail) = match detail {
        Ok(text) => (StepResult::Done, text),
        Err(text) => (StepResult::Failed, text),
    };
    StepRecord {
        step: step.to_string(),
        subject: Some(name.to_owned()),
        began_ns,
        ended_ns,
        result,
        detail: (!detail.is_empty()).then(|| detail.clone()),
    }
}
