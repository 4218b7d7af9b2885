//! The hooks of a run.

use std::fmt::Write as _;
use std::path::Path;

use stillpoint::config::Config;
use stillpoint::config::connections::Connections;
use stillpoint::config::grants::{HookGrant, OnFailure, load_grants};
use stillpoint::consistency::{Level, Reason, ReasonCode};
use stillpoint::hook::{HookFailureKind, HookLoadError};
use stillpoint::paths::Paths;
use stillpoint::plugin::HookChoice;
use stillpoint::script::{self, ScriptPair, ScriptSettings};
use stillpoint::sequence::{PlannedHook, Request};

use super::super::{CommandError, setup};
use super::open_store;

/// What quiesces applications in a run, and what its absence says about the level.
pub struct Loaded {
    pub hooks: Vec<PlannedHook>,
    pub reasons: Vec<Reason>,
}

impl Loaded {
    /// There is nothing in `hooks.d`.
    fn is_empty(&self) -> bool {
        self.hooks.is_empty() && self.reasons.is_empty()
    }
}

/// What `choice` says: of itself the hooks of `hooks.d`, and without any, the legacy scripts.
pub async fn load(
    paths: &Paths,
    config: &Config,
    request: &Request,
    choice: HookChoice,
) -> Result<Loaded, CommandError> {
    match choice {
        HookChoice::Auto => match components(paths, request).await? {
            none if none.is_empty() => Ok(scripts(config)),
            loaded => Ok(loaded),
        },
        HookChoice::Scripts => Ok(scripts(config)),
        HookChoice::Both => Ok(both(scripts(config), components(paths, request).await?)),
        HookChoice::None => Ok(limited(ReasonCode::NoHook, "no hook was asked for".to_owned())),
    }
}

/// The scripts first, because they may take long; then the hooks, which hold what others wait for.
fn both(mut loaded: Loaded, mut components: Loaded) -> Loaded {
    let hooks = &mut components.hooks;
    if !loaded.hooks.is_empty() {
        hooks.iter_mut().for_each(|planned| planned.after.push(script::NAME.to_owned()));
    }
    loaded.hooks.append(hooks);
    loaded.reasons.append(&mut components.reasons);
    loaded
}

async fn components(paths: &Paths, request: &Request) -> Result<Loaded, CommandError> {
    let connections = Connections::load(paths).map_err(setup::config_error)?;
    let grants = load_grants(paths, &connections).map_err(setup::config_error)?;
    let mut loaded = Loaded { hooks: Vec::new(), reasons: Vec::new() };
    if grants.is_empty() {
        return Ok(loaded);
    }
    let store = open_store(paths)?;
    for grant in &grants {
        match store.load(grant, &connections, &request.context).await {
            Ok(hook) => loaded.hooks.push(PlannedHook::component(
                hook,
                grant.on_failure,
                grant.after.clone(),
            )),
            Err(error) => loaded.reasons.push(left_out(grant, error)?),
        }
    }
    // What is left out keeps nobody waiting.
    let names: Vec<String> = loaded.hooks.iter().map(|it| it.hook.name().to_owned()).collect();
    for planned in &mut loaded.hooks {
        planned.after.retain(|name| names.contains(name));
    }
    Ok(loaded)
}

/// Why the level is lower: a hook that may fail has failed while it checked its settings. What is wrong
/// with the configuration, or with what is installed, is for the operator to put right first.
fn left_out(grant: &HookGrant, error: HookLoadError) -> Result<Reason, CommandError> {
    match &error {
        HookLoadError::Invalid(failure)
            if grant.on_failure == OnFailure::Lower
                && !matches!(
                    failure.kind,
                    HookFailureKind::InvalidSettings | HookFailureKind::Denied
                ) =>
        {
            Ok(Reason {
                limits_to: Level::FileSystem,
                code: ReasonCode::HookFailed,
                detail: failure.to_string(),
                disks: Vec::new(),
            })
        }
        _ => Err(load_error(error)),
    }
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
    let (pre, post) = (settings.pre.display(), settings.post.display());
    let unset = |path: &Path| path.as_os_str().is_empty();
    match (unset(&settings.pre), unset(&settings.post)) {
        (false, false) if config.scripts.enabled => {}
        (true, false) | (false, true) if config.scripts.enabled => {
            let detail = format!("{pre}{post} has no counterpart: scripts come in pairs");
            return limited(ReasonCode::ScriptInvalid, detail);
        }
        _ => {
            let detail = "no hook is configured, and scripts are switched off".to_owned();
            return limited(ReasonCode::NoHook, detail);
        }
    }
    match ScriptPair::check(&settings) {
        Ok(Some(pair)) => Loaded {
            hooks: vec![PlannedHook::scripts(Box::new(pair), settings.timeout)],
            reasons: Vec::new(),
        },
        Ok(None) => {
            let detail = format!("no hook is configured, and neither {pre} nor {post} is there");
            limited(ReasonCode::NoHook, detail)
        }
        Err(problem) => {
            limited(ReasonCode::ScriptInvalid, format!("{problem} ({})", problem.hint()))
        }
    }
}

/// No hook, and the reason why the file systems are all that is consistent.
fn limited(code: ReasonCode, detail: String) -> Loaded {
    let reason = Reason { limits_to: Level::FileSystem, code, detail, disks: Vec::new() };
    Loaded { hooks: Vec::new(), reasons: vec![reason] }
}

/// One line for `stillpoint plan`.
pub fn describe(planned: &PlannedHook) -> String {
    let mut line = planned.hook.name().to_owned();
    if let Some(version) = planned.hook.version() {
        let _ = write!(line, " {version}");
    }
    let _ = write!(line, " ({}", planned.kind);
    let provenance = planned.hook.provenance();
    if let Some(signer) = provenance.signed_by {
        let _ = write!(line, ", signed by {}", signer.name);
    }
    if provenance.allowed_unsigned.is_some() {
        line.push_str(", not signed by a trusted key");
    }
    if !planned.after.is_empty() {
        let _ = write!(line, ", after {}", planned.after.join(", "));
    }
    line.push(')');
    line
}

fn load_error(error: HookLoadError) -> CommandError {
    let hint = error.hint();
    CommandError::new(error.exit_code(), error).hint(hint)
}
