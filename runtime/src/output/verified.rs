//! A verification, as a tree for people.

use std::fmt::Write as _;

use super::human::{duration, visible};
use crate::verify::{DatabaseCheck, FileSystemCheck, Verification};

/// What was looked at, what was found, and the verdict.
#[must_use]
pub fn verification(verification: &Verification) -> String {
    let mut out = format!("stillpoint verify {}\n", verification.group);
    for check in &verification.file_systems {
        let _ = writeln!(out, "├─ {}", file_system(check));
    }
    for check in &verification.databases {
        let (head, parts) = database(check);
        let _ = writeln!(out, "├─ {head}");
        for (i, part) in parts.iter().enumerate() {
            let branch = if i + 1 == parts.len() { "└─" } else { "├─" };
            let _ = writeln!(out, "│  {branch} {part}");
        }
    }
    for finding in &verification.findings {
        let _ = writeln!(out, "├─ {}: {finding}", finding.makes_it);
    }
    for what in &verification.not_checked {
        let _ = writeln!(out, "├─ not checked: {what}");
    }
    let took = duration(verification.took_ms.saturating_mul(1_000_000));
    let _ = writeln!(
        out,
        "└─ verdict: {} (level {}, {took})",
        verification.verdict, verification.level
    );
    let _ = writeln!(out, "state: nothing is left of the copy, the verdict is in the manifest");
    visible(&out)
}

fn file_system(check: &FileSystemCheck) -> String {
    let journal = if check.journal_clean { "nothing to replay" } else { "REPLAYED" };
    let checked = match &check.checked_by {
        Some(program) => format!("checked by {program}"),
        None => "no program to check it is installed".to_owned(),
    };
    format!("{} ({}): {journal}, {checked}", check.mount_point.display(), check.fs_type)
}

fn database(check: &DatabaseCheck) -> (String, Vec<String>) {
    let server = check.server.as_deref().unwrap_or("not started");
    let head = format!("{} in {}: {server}", check.engine, check.directory.display());
    let redo =
        check.redo_bytes.map_or("redo unknown".to_owned(), |bytes| format!("redo {bytes} bytes"));
    let mut parts = vec![
        format!(
            "started in {}: {redo}, {} rolled back, {} in doubt",
            duration(check.start_ms.saturating_mul(1_000_000)),
            check.rolled_back,
            check.in_doubt
        ),
        format!("{} tables and {} files checked", check.tables_checked, check.files_checked),
    ];
    parts.extend(check.positions.iter().map(|it| {
        let verdict = if it.agrees { "as saved" } else { "NOT as saved" };
        format!("{} {} {verdict}", it.name, it.copy)
    }));
    parts.extend(
        check
            .queries
            .iter()
            .map(|it| format!("{} → {}", it.query, it.answer.as_deref().unwrap_or("nothing"))),
    );
    (head, parts)
}
