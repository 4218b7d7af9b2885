//! What a run tells while it goes: for a terminal, a log, a test.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::failpoint::reach_step;
use crate::manifest::{StepRecord, StepResult};
use crate::plan::Plan;
use crate::time::monotonic_ns;

use super::{Request, spans};

/// The steps of a run, in order.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Which disks, which file systems, in which order.
    Plan,
    /// Hooks look at their applications, the provider opens its connection; nothing is held.
    Prepare,
    /// Dirty data is written out in small steps, so that `sync` has little to do.
    Flush,
    /// Guard and sentinel are started.
    Arm,
    /// What is still dirty is flushed, before anything is locked.
    Sync,
    /// Every file system is frozen and thawed once, before anything is locked.
    Rehearse,
    /// Applications are quiesced.
    Quiesce,
    /// File systems are frozen.
    Freeze,
    /// The one request to the provider.
    Snapshot,
    /// File systems are thawed.
    Thaw,
    /// Hooks prove that they were quiesced all the time.
    Confirm,
    /// Applications are released.
    Release,
    /// The members of the group are waited for, the manifest is written.
    Settle,
}

impl Step {
    /// All of them, in order: fault tests are generated from this list.
    pub const ALL: [Step; 13] = [
        Step::Plan,
        Step::Prepare,
        Step::Flush,
        Step::Arm,
        Step::Sync,
        Step::Rehearse,
        Step::Quiesce,
        Step::Freeze,
        Step::Snapshot,
        Step::Thaw,
        Step::Confirm,
        Step::Release,
        Step::Settle,
    ];
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Plan => "plan",
            Step::Prepare => "prepare",
            Step::Flush => "flush",
            Step::Arm => "arm",
            Step::Sync => "sync",
            Step::Rehearse => "rehearse",
            Step::Quiesce => "quiesce",
            Step::Freeze => "freeze",
            Step::Snapshot => "snapshot",
            Step::Thaw => "thaw",
            Step::Confirm => "confirm",
            Step::Release => "release",
            Step::Settle => "settle",
        })
    }
}

/// Something happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A step, or its part for one subject, began.
    Began {
        /// Which step.
        step: Step,
        /// One hook, one mount point; `None` is the step as a whole.
        subject: Option<String>,
    },
    /// It is known what will be frozen, in which order, and what is left alone. Nothing is held yet.
    Planned(std::sync::Arc<Plan>),
    /// It ended.
    Ended(StepRecord),
    /// Something that the operator should know.
    Warning(String),
}

/// Whoever wants to be told. `event` runs while applications are locked and file systems frozen: it
/// must not block, so it hands the event to another thread and returns.
pub trait Observer: Send + Sync + fmt::Debug {
    /// Something happened.
    fn event(&self, event: Event);
}

/// Nobody wants to be told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn event(&self, _event: Event) {}
}

/// A step that has begun and not ended.
#[derive(Debug)]
#[must_use = "what began ends"]
pub(super) struct Running {
    step: Step,
    subject: Option<String>,
    began_ns: u64,
    span: tracing::Span,
}

impl Running {
    /// Ends its span with it.
    fn ended(self, ended_ns: u64, result: StepResult, detail: Option<String>) -> StepRecord {
        let Self { step, subject, began_ns, span } = self;
        let record =
            StepRecord { step: step.to_string(), subject, began_ns, ended_ns, result, detail };
        spans::ended(&span, &record);
        record
    }
}

fn of_hooks(none: bool, result: StepResult) -> (StepResult, Option<String>) {
    if none { (StepResult::Skipped, Some("no hook".to_owned())) } else { (result, None) }
}

/// Keeps every step with its times, and tells the observer.
#[derive(Debug)]
pub(super) struct Recorder {
    observer: std::sync::Arc<dyn Observer>,
    steps: Vec<StepRecord>,
    warnings: Vec<String>,
    began_ns: u64,
    span: tracing::Span,
}

impl Recorder {
    pub(super) fn new(request: &Request) -> Self {
        Self {
            observer: request.observer.clone(),
            span: spans::of_run(request),
            steps: Vec::with_capacity(64),
            warnings: Vec::new(),
            began_ns: monotonic_ns(),
        }
    }

    pub(super) fn begin(&self, step: Step, subject: Option<&str>) -> Running {
        let subject = subject.map(str::to_owned);
        self.observer.event(Event::Began { step, subject: subject.clone() });
        if subject.is_none() {
            reach_step!(step, "before");
        }
        let span = spans::of_step(&self.span, step, subject.as_deref());
        Running { step, subject, began_ns: monotonic_ns(), span }
    }

    /// As [`Recorder::begin`], for a step whose end is told by [`Recorder::hooks_did`].
    pub(super) fn announce(&self, step: Step) {
        self.observer.event(Event::Began { step, subject: None });
    }

    pub(super) fn planned(&self, plan: &Plan) {
        self.observer.event(Event::Planned(std::sync::Arc::new(plan.clone())));
    }

    pub(super) fn done(&mut self, running: Running, detail: impl Into<Option<String>>) {
        self.end(running, StepResult::Done, detail.into());
    }

    /// A step of hooks ended; without hooks there was nothing to do.
    pub(super) fn hooks_done(&mut self, running: Running, none: bool, result: StepResult) {
        let (result, detail) = of_hooks(none, result);
        self.end(running, result, detail);
    }

    /// The same for one that is told later than it happened: it began with the first of these and
    /// ended with the last.
    pub(super) fn hooks_did(
        &mut self,
        step: Step,
        none: bool,
        result: StepResult,
        parts: &[StepRecord],
    ) {
        let began_ns = parts.iter().map(|part| part.began_ns).min();
        let ended_ns = parts.iter().map(|part| part.ended_ns).max();
        let (result, detail) = of_hooks(none, result);
        for part in parts {
            self.push(part.clone());
        }
        let now = monotonic_ns();
        self.push(StepRecord {
            step: step.to_string(),
            subject: None,
            began_ns: began_ns.unwrap_or(now),
            ended_ns: ended_ns.unwrap_or(now),
            result,
            detail,
        });
    }

    pub(super) fn failed(&mut self, running: Running, detail: impl Into<Option<String>>) {
        self.end(running, StepResult::Failed, detail.into());
    }

    pub(super) fn end(&mut self, running: Running, result: StepResult, detail: Option<String>) {
        if running.subject.is_none() {
            reach_step!(running.step, "after");
        }
        let record = running.ended(monotonic_ns(), result, detail);
        self.keep(record);
    }

    /// A step whose times were taken elsewhere (in the guard, inside a hook's task).
    pub(super) fn push(&mut self, record: StepRecord) {
        spans::tell(&self.span, &record);
        self.keep(record);
    }

    fn keep(&mut self, record: StepRecord) {
        self.observer.event(Event::Ended(record.clone()));
        self.steps.push(record);
    }

    pub(super) fn warn(&mut self, warning: impl Into<String>) {
        let warning = warning.into();
        self.observer.event(Event::Warning(warning.clone()));
        self.warnings.push(warning);
    }

    /// The span of the run.
    pub(super) fn span(&self) -> &tracing::Span {
        &self.span
    }

    pub(super) fn steps(&self) -> &[StepRecord] {
        &self.steps
    }

    pub(super) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    pub(super) fn elapsed_ns(&self) -> u64 {
        monotonic_ns().saturating_sub(self.began_ns)
    }
}
