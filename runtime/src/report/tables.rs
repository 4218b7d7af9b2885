//! What the pictures leave out: levels, hooks, file systems, what was left alone, every step.

use maud::{Markup, html};

use crate::manifest::{Manifest, MetadataValue, StepRecord, StepResult};
use crate::output::human::duration;
use crate::plan::Skipped;

use super::RunRecord;
use super::lanes::origin;

/// A table whose cells know the names of their columns: on a narrow screen each row becomes a card.
pub(crate) fn table(columns: &[&str], rows: Vec<Vec<Markup>>) -> Markup {
    html! {
        table {
            thead { tr { @for column in columns { th scope="col" { (column) } } } }
            tbody {
                @for row in rows {
                    tr { @for (column, cell) in columns.iter().zip(row) { td data-column=(column) { span { (cell) } } } }
                }
            }
        }
    }
}

fn text(text: impl std::fmt::Display) -> Markup {
    html! { (text.to_string()) }
}

fn code(text: impl std::fmt::Display) -> Markup {
    html! { code { (text.to_string()) } }
}

fn number(text: impl std::fmt::Display) -> Markup {
    html! { span.number { (text.to_string()) } }
}

fn yes_or_no(yes: bool) -> Markup {
    html! { @if yes { "✓ yes" } @else { strong { "✕ no" } } }
}

/// The level of each disk, and why it is not higher.
pub(super) fn levels(record: &RunRecord) -> Markup {
    let Some(manifest) = &record.manifest else { return reasons(record) };
    let rows = manifest.disks.iter().map(|disk| {
        let member = disk.member.as_ref().map_or("none", |member| member.snapshot.as_str());
        vec![code(&disk.id), text(disk.level), code(member)]
    });
    html! {
        h2 { "Level: " (manifest.level) }
        (reason_list(record))
        (table(&["disk", "level", "snapshot"], rows.collect()))
    }
}

fn reasons(record: &RunRecord) -> Markup {
    html! {
        @if !record.reasons().is_empty() {
            h2 { "What already kept it from a higher level" }
            (reason_list(record))
        }
    }
}

fn reason_list(record: &RunRecord) -> Markup {
    html! {
        @if !record.reasons().is_empty() {
            ul {
                @for reason in record.reasons() {
                    li { code { (reason.code.code()) } " allows at most " (reason.limits_to) ": " (reason.detail) }
                }
            }
        }
    }
}

/// Who was asked to hold still, and what they saved.
pub(super) fn hooks(record: &RunRecord) -> Markup {
    let Some(manifest) = &record.manifest else { return hooks_asked(record) };
    let rows = manifest.hooks.iter().map(|hook| {
        let version = hook.version.as_deref().unwrap_or_default();
        vec![
            html! { strong { (hook.name) } " " (version) },
            text(hook.level),
            yes_or_no(hook.confirmed),
            yes_or_no(hook.released),
            html! { @match &hook.signed_by { Some(signer) => (signer.name), None => (hook.allowed_unsigned.as_deref().unwrap_or("–")) } },
        ]
    });
    html! {
        @if manifest.hooks.is_empty() {
            h2 { "Hooks" }
            p { "None: no application was asked to hold still." }
        } @else {
            h2 { "Hooks" }
            (table(&["hook", "level", "proved after the thaw", "released", "signed by"], rows.collect()))
            (saved(manifest))
        }
    }
}

fn hooks_asked(record: &RunRecord) -> Markup {
    let hooks = record.attempt.as_ref().map(|attempt| attempt.hooks.as_slice()).unwrap_or_default();
    html! {
        @if !hooks.is_empty() { h2 { "Hooks" } p { "Were to be asked: " (hooks.join(", ")) "." } }
    }
}

fn saved(manifest: &Manifest) -> Markup {
    let entries = manifest.hooks.iter().flat_map(|hook| {
        hook.metadata.iter().map(|entry| {
            let value = match &entry.value {
                MetadataValue::Text(text) | MetadataValue::Bytes(text) => text.clone(),
                MetadataValue::Integer(number) => number.to_string(),
                MetadataValue::Boolean(yes) => yes.to_string(),
            };
            vec![text(&hook.name), code(&entry.key), code(value)]
        })
    });
    let rows: Vec<Vec<Markup>> = entries.collect();
    html! {
        @if !rows.is_empty() {
            h3 { "Saved for whoever restores" }
            (table(&["hook", "key", "value"], rows))
        }
    }
}

/// What was frozen, or was to be.
pub(super) fn file_systems(record: &RunRecord) -> Markup {
    let frozen = record.file_systems();
    let rows = frozen.iter().map(|fs| {
        vec![
            code(fs.mount_point.display()),
            text(&fs.fs_type),
            text(fs.wave),
            number(duration(fs.thawed_ns.saturating_sub(fs.freeze_began_ns))),
            yes_or_no(fs.thawed_by_us),
            yes_or_no(fs.writable_after),
        ]
    });
    let planned = record.attempt.as_ref().map(|a| a.planned.as_slice()).unwrap_or_default();
    let were_to_be = planned
        .iter()
        .map(|fs| vec![code(fs.mount_point.display()), text(&fs.fs_type), text(fs.wave)]);
    html! {
        @if !frozen.is_empty() {
            h2 { "File systems" }
            (table(&["frozen", "type", "wave", "for", "thawed by us", "writable after"], rows.collect()))
        } @else if !planned.is_empty() {
            h2 { "File systems" }
            (table(&["was to be frozen", "type", "wave"], were_to_be.collect()))
        }
    }
}

/// What was left alone, by reason: what lowers the level first.
pub(super) fn skipped(record: &RunRecord) -> Markup {
    let mut groups: Vec<(&Skipped, Vec<String>)> = Vec::new();
    for skipped in record.skipped() {
        let mount = skipped.mount_point.display().to_string();
        match groups.iter_mut().find(|(first, _)| first.reason == skipped.reason) {
            Some((_, mounts)) => mounts.push(mount),
            None => groups.push((skipped, vec![mount])),
        }
    }
    groups.sort_by_key(|(first, _)| !first.reason.lowers_the_level());
    let rows = groups.iter().map(|(first, mounts)| {
        vec![
            html! { @if first.reason.lowers_the_level() { strong { "! " (first.reason) } } @else { (first.reason) } },
            code(mounts.join("  ")),
        ]
    });
    html! {
        h2 { "What was skipped" }
        @if groups.is_empty() {
            p { "Nothing." }
        } @else {
            (table(&["why", "left alone"], rows.collect()))
        }
    }
}

/// Every step and hook with its times.
pub(super) fn steps(record: &RunRecord) -> Markup {
    let began = origin(record);
    let rows = record.steps().iter().map(|step| {
        let offset = step.began_ns.saturating_sub(began);
        let took = step.ended_ns.saturating_sub(step.began_ns);
        vec![
            html! { (step.step) @if let Some(subject) = &step.subject { " · " (subject) } },
            number(format!("+{}", duration(offset))),
            number(duration(took)),
            result(step),
            text(step.detail.as_deref().unwrap_or_default()),
        ]
    });
    html! {
        @if !record.steps().is_empty() {
            h2 { "Every step" }
            (table(&["step", "began", "took", "result", "detail"], rows.collect()))
        }
    }
}

fn result(step: &StepRecord) -> Markup {
    html! {
        span.number {
            @match step.result {
                StepResult::Done => "✓ done",
                StepResult::Undone => "↺ undone",
                StepResult::Skipped => "– skipped",
                StepResult::Failed => strong { "✕ failed" },
                StepResult::UndoFailed => strong { "✕ undo failed" },
            }
        }
    }
}

/// What the operator should know beside.
pub(super) fn warnings(record: &RunRecord) -> Markup {
    html! {
        @if !record.warnings().is_empty() {
            h2 { "Warnings" }
            ul { @for warning in record.warnings() { li { (warning) } } }
        }
    }
}
