//! The page: one file, no scripts, nothing fetched from anywhere.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::manifest::StepResult;
use crate::output::human::{duration, visible};
use crate::sequence::Step;

use super::lanes::{held, hold, longest_wait, whole_run, window};
use super::verdict::{Verdict, doing, verdict};
use super::{RunRecord, tables, timeline};

const STYLE: &str = include_str!("style.css");

/// Whatever a hook or a server wrote into the record, a browser loads and runs nothing of it.
const NOTHING_FROM_ANYWHERE: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// The page of one run: HTML with its style and pictures in it, readable in light and dark, on paper,
/// and without a network. Characters that a reader does not see are written out.
#[must_use]
pub fn page(record: &RunRecord) -> String {
    let verdict = verdict(record);
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            (head(&format!("{} – {}", verdict.headline, record.name), ""))
            body {
                (timeline::patterns())
                main {
                    (banner(record, &verdict))
                    (figures(record))
                    (story(record))
                    (charts(record))
                    (tables::levels(record))
                    (tables::warnings(record))
                    (tables::file_systems(record))
                    (tables::hooks(record))
                    (tables::skipped(record))
                    (tables::steps(record))
                    (words())
                }
                footer {
                    "Drawn by stillpoint " (env!("CARGO_PKG_VERSION")) " from the record of run " code { (record.run_id) }
                    ", which stillpoint " (record.stillpoint) " made."
                }
            }
        }
    };
    visible(&markup.into_string())
}

/// The head of every page of ours. `style` comes after the style that they have in common.
pub(crate) fn head(title: &str, style: &str) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta http-equiv="Content-Security-Policy" content=(NOTHING_FROM_ANYWHERE);
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            title { (title) " – stillpoint" }
            style { (PreEscaped(STYLE)) (PreEscaped(style)) }
        }
    }
}

fn banner(record: &RunRecord, verdict: &Verdict) -> Markup {
    let host = if record.host.is_empty() { String::new() } else { format!(" on {}", record.host) };
    html! {
        header class=(format!("banner {}", verdict.tone.class())) {
            p.run { "Run " code { (record.short_id()) } " · " (record.name) (host) " · " (clock(&record.started)) }
            h1 { span.sign aria-hidden="true" { (verdict.tone.sign()) } " " (verdict.headline) }
            div.answers {
                (answer("What happened", "what", &verdict.what))
                (answer(if verdict.runs_again { "Does everything run? Yes" } else { "Does everything run? NO" },
                    if verdict.runs_again { "machine" } else { "machine alarm" }, &verdict.machine))
                (answer("What to do now", "next", &verdict.next))
            }
        }
    }
}

fn answer(title: &str, class: &str, lines: &[String]) -> Markup {
    html! {
        section class=(class) {
            h2 { (title) }
            @for line in lines { p { (with_commands(line)) } }
        }
    }
}

/// What stands between backticks is something to type.
fn with_commands(line: &str) -> Markup {
    html! {
        @for (index, piece) in line.split('`').enumerate() {
            @if index % 2 == 1 { code { (piece) } } @else { (piece) }
        }
    }
}

/// `2026-11-20T11:03:22.123456Z`, for people.
fn clock(started: &str) -> String {
    let seconds = started.get(..19).unwrap_or(started);
    format!("{} UTC", seconds.replace('T', " "))
}

fn figures(record: &RunRecord) -> Markup {
    let timings = record.manifest.as_ref().map(|manifest| manifest.timings);
    let (window, hold) = (window(record), hold(record));
    let whole = timings.map(|timings| timings.total_ns).or_else(|| {
        let first = record.steps().iter().map(|s| s.began_ns).filter(|ns| *ns > 0).min()?;
        Some(record.steps().iter().map(|s| s.ended_ns).max()?.saturating_sub(first))
    });
    let figure = |what: &str, value: Option<u64>, means: &str| {
        html! {
            div.figure {
                dt { (what) }
                dd.value { (value.map_or_else(|| "–".to_owned(), duration)) }
                dd.means { (means) }
            }
        }
    };
    html! {
        dl.figures {
            (figure("window", window.map(|w| w.length()), "file systems frozen"))
            (figure("hold", hold.map(|h| h.length()), "applications held"))
            (figure("stall", longest_wait(record), "the longest that a client can have waited; not measured at the client"))
            (figure("provider", timings.map(|t| t.provider_ns), "its call, inside the window"))
            (figure("whole run", whole, "most of it holds nobody"))
            div.figure {
                dt { "exit code" }
                dd.value { (record.exit_code) }
                dd.means { (if record.exit_code == 0 { "done" } else { "see README, exit codes" }) }
            }
        }
    }
}

/// The steps in a row: how far it came.
fn story(record: &RunRecord) -> Markup {
    if record.steps().is_empty() {
        return html! {};
    }
    let failed_in = record.error.as_ref().and_then(|error| error.during.clone());
    html! {
        ol.story {
            @for step in Step::ALL {
                @let name = step.to_string();
                @let (class, sign, says) = how_it_went(record, &name, failed_in.as_deref());
                li class=(class) title=(doing(&name).unwrap_or_default()) {
                    span.sign { (sign) } " " (name)
                    span.says { (says) }
                }
            }
        }
    }
}

fn how_it_went(
    record: &RunRecord,
    step: &str,
    failed_in: Option<&str>,
) -> (&'static str, &'static str, &'static str) {
    let of_step = || record.steps().iter().filter(|found| found.step == step);
    let is = |result: StepResult| of_step().any(|found| found.result == result);
    if failed_in == Some(step) || is(StepResult::UndoFailed) {
        return ("failed", "✕", "failed");
    }
    let whole_failed =
        of_step().any(|found| found.result == StepResult::Failed && found.subject.is_none());
    match () {
        () if whole_failed => ("failed", "✕", "failed"),
        () if of_step().next().is_none() => ("missing", "·", "not reached"),
        () if is(StepResult::Skipped) => ("missing", "–", "nothing to do"),
        () if record.manifest.is_none() && step == "release" => ("undone", "↺", "let go"),
        () if record.manifest.is_none() && step == "thaw" => ("undone", "↺", "undone"),
        () => ("done", "✓", "done"),
    }
}

fn charts(record: &RunRecord) -> Markup {
    let (whole, held) = (whole_run(record), held(record));
    html! {
        @if let Some(held) = &held {
            h2 { "While something was held" }
            p { (hold_line(record)) }
            (timeline::chart(held))
            (timeline::legend(&[
                ("bar work", "a hook at work"), ("bar held", "application held"),
                ("bar undo", "released"), ("bar changing", "freezing, thawing"),
                ("bar frozen", "frozen"), ("bar provider", "provider's call"),
                ("bar failed", "failed"), ("hold-band", "hold"), ("window-band", "window"),
            ]))
        }
        @if let Some(whole) = &whole {
            h2 { "The whole run" }
            @if whole.is_cut {
                p { "The picture ends soon after settling began: nothing is held then, and it takes longer than all the rest." }
            }
            (timeline::chart(whole))
        }
    }
}

fn hold_line(record: &RunRecord) -> String {
    let length = |span: Option<super::lanes::Span>| span.map(|span| duration(span.length()));
    match (length(hold(record)), length(window(record))) {
        (Some(hold), Some(window)) => format!(
            "Hold {hold}, from the first application held to the last one released; window {window}, from the first freeze to the last thaw."
        ),
        (Some(hold), None) => format!(
            "Hold {hold}, from the first application held to the last one released. There was no window: nothing was frozen for the snapshot."
        ),
        (None, Some(window)) => format!(
            "Window {window}, from the first freeze to the last thaw. No application was held."
        ),
        (None, None) => {
            "Nothing was held for the snapshot in the end: no hold, no window.".to_owned()
        }
    }
}

/// The words of the page, for whoever reads one for the first time.
fn words() -> Markup {
    html! {
        h2 { "Words" }
        dl.words {
            dt { "hook" } dd { "makes one application, such as a database, hold still, and lets it go" }
            dt { "quiesce, release" } dd { "make an application hold still; let it go on" }
            dt { "freeze, thaw" } dd { "stop writes to a file system; let them through again" }
            dt { "hold" } dd { "from the first application that holds still to the last that is let go" }
            dt { "window" } dd { "from the first file system frozen to the last thawed" }
            dt { "level" } dd { "application: applications held still, nothing to recover after a restore; file-system: only file systems were frozen; crash: as after a power cut" }
        }
    }
}
