//! The hooks of a run.

use std::fmt::Write as _;

use stillpoint::config::Config;
use stillpoint::config::connections::Connections;
use stillpoint::config::grants::load_grants;
use stillpoint::consistency::{Level, Reason, ReasonCode};
use stillpoint::exit_code::ExitCode;
use stillpoint::hook::HookLoadError;
use stillpoint::paths::Paths;
use stillpoint::script::{ScriptPair, ScriptSettings};
use stillpoint::sequence::{PlannedHook, Request};

use super::super::{CommandError, setup};
use super::open_store;

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
    let store = open_store(paths)?;
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

fn load_error(error: HookLoadError) -> CommandError {
    let hint = error.hint();
    CommandError::new(ExitCode::Parameters, error).hint(hint)
}
