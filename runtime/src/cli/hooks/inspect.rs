//! `stillpoint hook inspect`: a hook on one screen.

use std::fmt::Write as _;

use stillpoint::exit_code::ExitCode;
use stillpoint::hook::inspection::{
    Bounds, Granted, Inspection, Item, ItemKind, Power, PowerKind, Standing,
};
use stillpoint::output::inspect::InspectDocument;
use stillpoint::paths::Paths;

use super::super::args::Global;
use super::super::{Outcome, print, print_json, setup};
use super::{open_store, store_error};

pub fn run(global: &Global, paths: &Paths, hook: &str) -> Outcome {
    let store = open_store(paths)?;
    let inspection = setup::block_on(async { store.inspect(hook).await })?.map_err(store_error)?;
    if global.json {
        print_json(&InspectDocument::from(&inspection));
    } else {
        print(&screen(&inspection));
    }
    Ok(ExitCode::Ok)
}

fn screen(inspection: &Inspection) -> String {
    let mut out = what_it_is(inspection);
    if inspection.grants.is_empty() {
        line(&mut out, "granted", "nothing: no file in hooks.d names it");
        out.push_str("it asks for\n");
        inspection.asks.iter().for_each(|power| out.push_str(&told(power)));
    }
    for granted in &inspection.grants {
        out.push_str(&what_it_gets(granted));
    }
    out
}

fn line(out: &mut String, label: &str, text: impl std::fmt::Display) {
    let _ = writeln!(out, "  {label:<10} {text}");
}

fn what_it_is(inspection: &Inspection) -> String {
    let description = &inspection.description;
    let mut out =
        format!("{} {}: {}\n", description.name, description.version, description.summary);
    line(&mut out, "digest", inspection.digest);
    line(&mut out, "size", format_args!("{} bytes", inspection.bytes));
    line(&mut out, "vouched", vouched(inspection));
    if let Some(refused) = &inspection.word.refused {
        line(&mut out, "REFUSED", refused);
    }
    line(&mut out, "made with", made_with(inspection));
    line(&mut out, "imports", listed(&inspection.imports));
    match &inspection.installed {
        None => line(&mut out, "installed", "no"),
        Some(installed) => {
            line(
                &mut out,
                "installed",
                format_args!("{} from {}", installed.installed, installed.source),
            );
            line(
                &mut out,
                "image",
                format_args!("{}, {} bytes", installed.image_digest, installed.image_bytes),
            );
        }
    }
    out
}

fn vouched(inspection: &Inspection) -> String {
    let word = &inspection.word;
    match (&word.signed_by, &word.allowed_unsigned) {
        (Some(signer), _) => match &signer.expires {
            Some(day) => format!("by {signer}, trusted until {day}"),
            None => format!("by {signer}"),
        },
        (None, Some(why)) => {
            format!("by NO trusted key, and allowed so at the installation: {why}")
        }
        (None, None) => "by NO trusted key".into(),
    }
}

fn made_with(inspection: &Inspection) -> String {
    let tools = inspection.toolchain.iter();
    let tools: Vec<String> =
        tools.map(|tool| format!("{} {}", tool.name, tool.version).trim().to_owned()).collect();
    if tools.is_empty() { "(it does not say)".into() } else { tools.join(", ") }
}

/// `stillpoint:hook/sql@0.1.0, …/run`: the package is said once.
fn listed(imports: &[String]) -> String {
    let ours = |name: &String| {
        let rest = name.strip_prefix("stillpoint:hook/")?;
        Some(rest.split('@').next().unwrap_or(rest).to_owned())
    };
    let (own, foreign): (Vec<&String>, Vec<&String>) =
        imports.iter().partition(|name| ours(name).is_some());
    let mut parts = Vec::new();
    if !own.is_empty() {
        let names: Vec<String> = own.into_iter().filter_map(ours).collect();
        parts.push(format!("stillpoint:hook {}", names.join(" ")));
    }
    parts.extend(foreign.into_iter().cloned());
    if parts.is_empty() { "nothing".into() } else { parts.join(", ") }
}

fn what_it_gets(granted: &Granted) -> String {
    let mut out = format!("as {}, by {}", granted.hook, granted.file.display());
    if let Some(on_failure) = &granted.on_failure {
        let _ = write!(out, " (on failure: {on_failure}");
        if !granted.after.is_empty() {
            let _ = write!(out, "; after {}", granted.after.join(", "));
        }
        out.push(')');
    }
    out.push('\n');
    if let Some(problem) = &granted.problem {
        line(&mut out, "REFUSED", problem);
    }
    if let Some(limits) = &granted.limits {
        line(&mut out, "limits", bounds(limits));
    }
    granted.powers.iter().for_each(|power| out.push_str(&told(power)));
    let refused = granted.powers.iter().map(refusals).sum::<usize>();
    let total = granted.powers.iter().map(|power| power.items.len().max(1)).sum::<usize>();
    let _ =
        writeln!(out, "  {} of {total} are granted, {refused} would be refused", total - refused);
    out
}

fn bounds(limits: &Bounds) -> String {
    format!(
        "{} MiB memory, {} ms processor time and {} calls a phase, {} rows and {} bytes an answer, {} sessions, {} statements",
        limits.memory_bytes >> 20,
        limits.cpu_time_ms,
        limits.calls,
        limits.rows,
        limits.answer_bytes,
        limits.connections,
        limits.statements,
    )
}

fn refusals(power: &Power) -> usize {
    match power.items.is_empty() {
        true => usize::from(power.standing != Standing::Granted),
        false => power.items.iter().filter(|item| item.standing != Standing::Granted).count(),
    }
}

/// A power with what may be done with it: one line each, the refused ones with the reason in front.
fn told(power: &Power) -> String {
    let kind = match power.kind {
        PowerKind::Sql => "connection",
        PowerKind::Program => "program",
        PowerKind::Kv => "durable state",
        PowerKind::Wasi => "WASI",
        PowerKind::Other => "something that this version does not know:",
    };
    let mut out = format!("  {} {kind}", mark(power.standing));
    if !power.name.is_empty() {
        let _ = write!(out, " {}", power.name);
    }
    if let Some(target) = power.target.as_ref().filter(|target| **target != power.name) {
        let _ = write!(out, " → {target}");
    }
    if power.required {
        out.push_str(" (required)");
    }
    if !power.reason.is_empty() {
        let _ = write!(out, ": {}", power.reason);
    }
    out.push('\n');
    for item in &power.items {
        let _ = writeln!(out, "    {} {}", mark(item.standing), text(item));
    }
    out
}

/// Nine letters, so that what follows lines up.
fn mark(standing: Standing) -> &'static str {
    match standing {
        Standing::Granted => "granted  ",
        Standing::NotGranted => "DENIED   ",
        Standing::NotAsked => "not asked",
    }
}

/// Statements and scripts on one line.
fn text(item: &Item) -> String {
    let one_line = item.text.trim_end().replace('\n', "⏎ ").replace('\t', " ");
    match item.kind {
        ItemKind::Stdin => format!("reads {one_line}"),
        _ => one_line,
    }
}
