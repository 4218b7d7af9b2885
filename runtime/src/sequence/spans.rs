//! Spans of `tracing` with the field names that `tracing-opentelemetry` turns into OpenTelemetry's:
//! one for the run, one for each step, one for each hook's part of it. `docs/metrics.md` has the list.
//!
//! None is opened or closed between the first freeze and the last thaw: what happens there is told
//! after it. A subscriber must not block, as an observer must not: hooks' parts are told while
//! applications are held.

use tracing::Span;
use tracing::field::Empty;

use crate::manifest::{Manifest, StepRecord, StepResult};

use super::events::Step;
use super::{Failure, Request};

/// The span of a run. What came of it is told by [`succeeded`] or [`failed`].
pub(super) fn of_run(request: &Request) -> Span {
    tracing::info_span!(
        "stillpoint.run",
        otel.name = "stillpoint snapshot",
        otel.kind = "internal",
        otel.status_code = Empty,
        otel.status_description = Empty,
        "error.type" = Empty,
        stillpoint.run.id = request.context.run_id,
        stillpoint.run.name = request.name,
        stillpoint.provider = request.provider.name(),
        stillpoint.snapshot.id = Empty,
        stillpoint.level = Empty,
    )
}

/// The run made a snapshot.
pub(super) fn succeeded(run: &Span, manifest: &Manifest) {
    run.record("otel.status_code", "OK");
    run.record("stillpoint.snapshot.id", manifest.group.as_str());
    run.record("stillpoint.level", tracing::field::display(manifest.level));
}

/// The run made none.
pub(super) fn failed(run: &Span, failure: &Failure) {
    run.record("otel.status_code", "ERROR");
    run.record("otel.status_description", tracing::field::display(&failure.cause));
    run.record("error.type", failure.exit_code().name());
}

/// The span of a step that begins now.
pub(super) fn of_step(run: &Span, step: Step, subject: Option<&str>) -> Span {
    open(run, &step.to_string(), subject)
}

/// A step that began earlier and is told when it is over, as what could not be told meanwhile.
pub(super) fn tell(run: &Span, record: &StepRecord) {
    ended(&open(run, &record.step, record.subject.as_deref()), record);
}

fn open(run: &Span, step: &str, subject: Option<&str>) -> Span {
    let name = subject.map_or_else(|| step.to_owned(), |subject| format!("{step} {subject}"));
    let span = tracing::info_span!(
        parent: run,
        "stillpoint.step",
        otel.name = name,
        otel.kind = "internal",
        otel.status_code = Empty,
        otel.status_description = Empty,
        "error.type" = Empty,
        stillpoint.step = step,
        stillpoint.subject = Empty,
        stillpoint.result = Empty,
        stillpoint.duration_ns = Empty,
    );
    if let Some(subject) = subject {
        span.record("stillpoint.subject", subject);
    }
    span
}

/// What came of a step.
pub(super) fn ended(span: &Span, record: &StepRecord) {
    let result = match record.result {
        StepResult::Done => "done",
        StepResult::Failed => "failed",
        StepResult::Undone => "undone",
        StepResult::UndoFailed => "undo-failed",
        StepResult::Skipped => "skipped",
    };
    span.record("stillpoint.result", result);
    span.record("stillpoint.duration_ns", record.ended_ns.saturating_sub(record.began_ns));
    if matches!(record.result, StepResult::Failed | StepResult::UndoFailed) {
        span.record("otel.status_code", "ERROR");
        span.record("error.type", result);
        span.record("otel.status_description", record.detail.as_deref().unwrap_or_default());
    }
}
