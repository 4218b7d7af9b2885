//! `stillpoint hook …`, and the hooks of a run.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use stillpoint::capability::grant_template;
use stillpoint::config::Config;
use stillpoint::config::connections::Connections;
use stillpoint::config::grants::load_grants;
use stillpoint::consistency::{Level, Reason, ReasonCode};
use stillpoint::exit_code::ExitCode;
use stillpoint::hook::{HookLoadError, HookStore, Inspection, Installed, Need, StoreError};
use stillpoint::paths::Paths;
use stillpoint::script::{ScriptPair, ScriptSettings};
use stillpoint::sequence::{PlannedHook, Request};

use super::args::{Global, HookCommand};
use super::{CommandError, Outcome, print, print_json, setup};

/// What quiesces applications in a run, and what its absence says about the level.
pub struct Loaded {
    pub hooks: Vec<PlannedHook>,
    pub reasons: Vec<Reason>,
}

/// The hooks of `hooks.d`; without any, the legacy scripts.
pub async fn load(
    paths: &Paths,
    config: &Config,
    request: &Request,
) -> Result<Loaded, CommandError> {
    let connections = Connections::load(paths).map_err(setup::config_error)?;
    let grants = load_grants(paths, &connections).map_err(setup::config_error)?;
    if grants.is_empty() {
        return Ok(scripts(config));
    }
    let store = HookStore::new(paths).map_err(store_error)?;
    let mut hooks = Vec::new();
    for grant in &grants {
        let hook = store.load(grant, &connections, &request.context).await.map_err(load_error)?;
        hooks.push(PlannedHook::component(hook, grant.on_failure, grant.after.clone()));
    }
    Ok(Loaded { hooks, reasons: Vec::new() })
}

/// The legacy pair, as the configuration has it.
pub fn script_settings(config: &Config) -> ScriptSettings {
    ScriptSettings {
        pre: config.scripts.pre.clone(),
        post: config.scripts.post.clone(),
        timeout: config.scripts.timeout,
    }
}

/// Scripts that are missing or invalid give a file-system-consistent snapshot, with the reason.
fn scripts(config: &Config) -> Loaded {
    let settings = script_settings(config);
    let limited = |code, detail| Loaded {
        hooks: Vec::new(),
        reasons: vec![Reason { limits_to: Level::FileSystem, code, detail, disks: Vec::new() }],
    };
    if !config.scripts.enabled {
        let detail = "no hook is configured, and [scripts] enabled is false".to_owned();
        return limited(ReasonCode::NoHook, detail);
    }
    match ScriptPair::check(&settings) {
        Ok(Some(pair)) => Loaded {
            hooks: vec![PlannedHook::scripts(Box::new(pair), settings.timeout)],
            reasons: Vec::new(),
        },
        Ok(None) => {
            let (pre, post) = (settings.pre.display(), settings.post.display());
            let detail = format!("no hook is configured, and neither {pre} nor {post} is there");
            limited(ReasonCode::NoHook, detail)
        }
        Err(problem) => {
            limited(ReasonCode::ScriptInvalid, format!("{problem} ({})", problem.hint()))
        }
    }
}

/// One line for `stillpoint plan`.
pub fn describe(planned: &PlannedHook) -> String {
    let mut line = planned.hook.name().to_owned();
    if let Some(version) = planned.hook.version() {
        let _ = write!(line, " {version}");
    }
    let _ = write!(line, " ({}", planned.kind);
    if !planned.after.is_empty() {
        let _ = write!(line, ", after {}", planned.after.join(", "));
    }
    line.push(')');
    line
}

/// Runs a `hook` command.
pub fn run(global: &Global, paths: &Paths, command: &HookCommand) -> Outcome {
    match command {
        HookCommand::Install { file } => install(global, paths, file),
        HookCommand::Grant { hook, accept, connections } => {
            grant(paths, hook, *accept, connections)
        }
        HookCommand::List => list(global, paths),
        HookCommand::Inspect { hook } => inspect(global, paths, hook),
        HookCommand::Remove { hook } => remove(global, paths, hook),
    }
}

fn store(paths: &Paths) -> Result<HookStore, CommandError> {
    HookStore::new(paths).map_err(store_error)
}

fn store_error(error: StoreError) -> CommandError {
    let hint = error.hint();
    CommandError::new(ExitCode::Parameters, error).hint(hint)
}

fn load_error(error: HookLoadError) -> CommandError {
    let hint = error.hint();
    CommandError::new(ExitCode::Parameters, error).hint(hint)
}

fn install(global: &Global, paths: &Paths, file: &Path) -> Outcome {
    let store = store(paths)?;
    let installed = setup::block_on(async { store.install(file).await })?.map_err(store_error)?;
    if global.json {
        print_json(&installed);
        return Ok(ExitCode::Ok);
    }
    let name = &installed.description.name;
    print(&format!(
        "{} {} is installed as {}\n\
         nothing is granted yet: `stillpoint hook grant {name}` prints what it asks for and why,\n\
         `stillpoint hook grant {name} --accept` grants all of it\n",
        name, installed.description.version, installed.digest
    ));
    Ok(ExitCode::Ok)
}

fn grant(paths: &Paths, hook: &str, accept: bool, connections: &[String]) -> Outcome {
    let store = store(paths)?;
    let inspection = setup::block_on(async { store.inspect(hook).await })?.map_err(store_error)?;
    let mut targets = Vec::new();
    for pair in connections {
        let Some((asked, target)) = pair.split_once('=') else {
            let error = anyhow::anyhow!("--connection {pair}: write it as NAME=CONNECTION");
            return Err(CommandError::new(ExitCode::Parameters, error));
        };
        targets.push((asked.to_owned(), target.to_owned()));
    }
    let text = grant_template(&inspection.description, &inspection.digest, &targets);
    if !accept {
        print(&text);
        return Ok(ExitCode::Ok);
    }
    let file = paths.grants().join(format!("{}.toml", inspection.description.name));
    write_grant(&file, &text)?;
    let connections = Connections::load(paths).map_err(setup::config_error)?;
    if let Err(error) = stillpoint::config::grants::HookGrant::load(&file, &connections) {
        let _ = std::fs::remove_file(&file);
        return Err(setup::config_error(error));
    }
    print(&format!("{} grants what {hook} asks for; read it\n", file.display()));
    Ok(ExitCode::Ok)
}

/// A grant file that is there is the operator's: it is never overwritten.
fn write_grant(file: &Path, text: &str) -> Result<(), CommandError> {
    let written = file.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| {
        std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(file)
            .and_then(|mut open| open.write_all(text.as_bytes()))
    });
    written.map_err(|error| {
        let there = error.kind() == std::io::ErrorKind::AlreadyExists;
        let error = anyhow::Error::new(error).context(format!("{} cannot be written", file.display()));
        let hint = there.then(|| {
            "it is there already: compare it with what `stillpoint hook grant` prints, or remove it".to_owned()
        });
        CommandError::new(ExitCode::Precondition, error).hint(hint)
    })
}

fn list(global: &Global, paths: &Paths) -> Outcome {
    let installed = store(paths)?.list().map_err(store_error)?;
    if global.json {
        print_json(&installed);
    } else if installed.is_empty() {
        print("no hooks are installed\n");
    }
    if !global.json {
        for hook in &installed {
            print(&format!("{}\n", line(hook)));
        }
    }
    Ok(ExitCode::Ok)
}

fn line(hook: &Installed) -> String {
    let description = &hook.description;
    format!(
        "{} {}  {}  {}",
        description.name, description.version, hook.digest, description.summary
    )
}

fn inspect(global: &Global, paths: &Paths, hook: &str) -> Outcome {
    let store = store(paths)?;
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

fn remove(global: &Global, paths: &Paths, hook: &str) -> Outcome {
    let removed = store(paths)?.remove(hook).map_err(store_error)?;
    if global.json {
        print_json(&removed);
    } else {
        print(&format!("{} is removed\n", line(&removed)));
    }
    Ok(ExitCode::Ok)
}
