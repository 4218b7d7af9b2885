//! A plan in plain words.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use super::{FileSystem, Plan, SkipReason, Skipped};
use crate::consistency::{Level, level_after};

/// The plan in plain words, several lines: the disks, what is frozen in which order, what is left
/// alone and why, and which level disks and file systems allow (hooks are not looked at here).
#[must_use]
pub fn explain(plan: &Plan) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = disks(&mut text, plan);
    let _ = frozen(&mut text, plan);
    let _ = left_alone(&mut text, plan);
    let _ = level(&mut text, plan);
    text
}

fn disks(text: &mut String, plan: &Plan) -> std::fmt::Result {
    writeln!(text, "snapshot of {}", count(plan.disks.len(), "disk"))?;
    for disk in &plan.disks {
        if disk.node == Path::new(&disk.id) {
            writeln!(text, "  {}", disk.id)?;
        } else {
            writeln!(text, "  {}  {}", disk.node.display(), disk.id)?;
        }
        let in_use = plan.file_systems.iter().map(|it| &it.disks);
        let mut in_use = in_use.chain(plan.skipped.iter().map(|it| &it.disks));
        if !in_use.any(|disks| disks.contains(&disk.id)) {
            writeln!(text, "    no file system on it is mounted")?;
        }
        for warning in &disk.warnings {
            writeln!(text, "    warning: {warning}")?;
        }
    }
    Ok(())
}

fn frozen(text: &mut String, plan: &Plan) -> std::fmt::Result {
    let waves: BTreeSet<usize> = plan.file_systems.iter().map(|it| it.wave).collect();
    match (plan.file_systems.len(), waves.len()) {
        (0, _) => return writeln!(text, "nothing is frozen"),
        (many, 1) => writeln!(text, "frozen: {}, in parallel", count(many, "file system"))?,
        (many, waves) => writeln!(
            text,
            "frozen: {}, in {waves} waves, what is stacked on another first",
            count(many, "file system")
        )?,
    }
    for wave in &waves {
        if waves.len() > 1 {
            writeln!(text, "  wave {}", wave + 1)?;
        }
        let indent = if waves.len() > 1 { "    " } else { "  " };
        for file_system in plan.file_systems.iter().filter(|it| it.wave == *wave) {
            writeln!(text, "{indent}{}", one_frozen(file_system))?;
        }
    }
    Ok(())
}

fn one_frozen(file_system: &FileSystem) -> String {
    let FileSystem { mount_point, fs_type, source, other_mounts, .. } = file_system;
    let mut line = format!("{} ({fs_type}, {source})", mount_point.display());
    if !other_mounts.is_empty() {
        let others: Vec<String> =
            other_mounts.iter().map(|path| path.display().to_string()).collect();
        line.push_str(&format!(", and with it {}", others.join(", ")));
    }
    line
}

fn left_alone(text: &mut String, plan: &Plan) -> std::fmt::Result {
    if plan.skipped.is_empty() {
        return Ok(());
    }
    writeln!(text, "left alone")?;
    let mut pseudo: Vec<&Skipped> = Vec::new();
    for skipped in &plan.skipped {
        if skipped.reason == SkipReason::NoBlockDevice {
            pseudo.push(skipped);
            continue;
        }
        let Skipped { mount_point, fs_type, reason, .. } = skipped;
        writeln!(text, "  {} ({fs_type}): {reason}", mount_point.display())?;
    }
    if !pseudo.is_empty() {
        let mut types: BTreeMap<&str, usize> = BTreeMap::new();
        for skipped in &pseudo {
            *types.entry(&skipped.fs_type).or_default() += 1;
        }
        let types: Vec<&str> = types.into_keys().collect();
        let number = count(pseudo.len(), "mount");
        writeln!(text, "  {number} {} ({})", SkipReason::NoBlockDevice, types.join(", "))?;
    }
    Ok(())
}

fn level(text: &mut String, plan: &Plan) -> std::fmt::Result {
    let level = level_after(&plan.reasons);
    if level == Level::Application {
        return writeln!(text, "disks and file systems allow the level {level}");
    }
    writeln!(text, "the level can be {level} at best, because")?;
    for reason in &plan.reasons {
        writeln!(text, "  {} ({})", reason.detail, reason.code.code())?;
    }
    Ok(())
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
