//! `stillpoint hook inspect`.

use std::fmt::Write as _;

use stillpoint::exit_code::ExitCode;
use stillpoint::hook::{Inspection, Need};
use stillpoint::paths::Paths;

use super::super::args::Global;
use super::super::{Outcome, print, print_json, setup};
use super::{open_store, store_error};

pub fn run(global: &Global, paths: &Paths, hook: &str) -> Outcome {
    let store = open_store(paths)?;
    let inspection = setup::block_on(async { store.inspect(hook).await })?.map_err(store_error)?;
    if global.json {
        print_json(&serde_json::json!({
            "schema_version": 1,
            "description": inspection.description,
            "digest": inspection.digest,
            "bytes": inspection.bytes,
            "installed": inspection.installed,
            "granted_in": inspection.granted_in,
        }));
    } else {
        print(&screen(&inspection));
    }
    Ok(ExitCode::Ok)
}

/// What a hook is, asks for, and is granted, on one screen.
fn screen(inspection: &Inspection) -> String {
    let description = &inspection.description;
    let mut out = format!(
        "{} {}: {}\n  digest     {}\n  size       {} bytes\n",
        description.name,
        description.version,
        description.summary,
        inspection.digest,
        inspection.bytes
    );
    match &inspection.installed {
        Some(installed) => {
            let _ = writeln!(out, "  installed  {}", installed.installed);
            let _ = writeln!(out, "  contract   {}", installed.contract);
        }
        None => out.push_str("  installed  no\n"),
    }
    if inspection.granted_in.is_empty() {
        out.push_str("  granted    nothing: no file in hooks.d names it\n");
    }
    for file in &inspection.granted_in {
        let _ = writeln!(out, "  granted    by {}", file.display());
    }
    out.push_str("asks for\n");
    for need in &description.needs {
        out.push_str(&asked(need));
    }
    out
}

fn asked(need: &Need) -> String {
    let must = |required: &bool| if *required { "required" } else { "optional" };
    match need {
        Need::Sql { connection, statements, reason, required, .. } => {
            let mut out = format!("  connection {connection} ({}): {reason}\n", must(required));
            for statement in statements {
                let _ = writeln!(out, "    {statement}");
            }
            out
        }
        Need::Program { command, reason, required, .. } => {
            format!("  program {command} ({}): {reason}\n", must(required))
        }
        Need::Kv { bytes, reason, required } => {
            format!("  {bytes} bytes of durable state ({}): {reason}\n", must(required))
        }
        Need::Wasi { imports } => {
            format!("  wasi = \"minimal\" (required): it imports {}\n", imports.join(", "))
        }
        Need::Other { what } => format!("  {what}\n"),
    }
}
