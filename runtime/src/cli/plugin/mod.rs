//! `stillpoint plugin`, or a binary that is called `app-snapshot-plugin`: the run of every other
//! command, with the parameters, the lines and the exit codes of Alibaba Cloud's plug-in.

mod call;
mod end;
mod voice;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use stillpoint::config::{Config, ProviderKind};
use stillpoint::consistency::ReasonCode;
use stillpoint::exit_code::ExitCode;
use stillpoint::paths::Paths;
use stillpoint::plugin::params::usage;
use stillpoint::plugin::{self, HookChoice, Params};
use stillpoint::sequence::Request;

use super::{CommandError, args, hooks, kept, print, setup, snapshot};
use end::End;
use voice::Voice;

pub use call::Call;

/// Reads the parameters, runs, and says how it went: lines as the original's on standard output,
/// everything else in the log.
pub fn main(call: &Call) -> ExitCode {
    if call.asks_for_help() {
        print(&usage());
        return ExitCode::Ok;
    }
    let voice = Voice::new();
    setup::log_to(voice.log());
    voice.info(format!("stillpoint {} as {}", env!("CARGO_PKG_VERSION"), plugin::NAME));
    // 255 is what a caller reads as "unknown"; without this it would be Rust's 101.
    let end = catch_unwind(AssertUnwindSafe(|| run(call, &voice))).unwrap_or_else(|_| End::bug());
    voice.finish(end)
}

/// Options of `stillpoint` stand before the word `plugin`, and the only one that has a meaning for it
/// is `--root`.
pub fn misplaced() -> CommandError {
    let error = anyhow::anyhow!("of stillpoint's options only --root goes with `plugin`");
    let hint = "write: stillpoint [--root DIR] plugin -RamRoleName=… -Name=…";
    CommandError::new(ExitCode::Parameters, error).hint(hint.to_owned())
}

fn run(call: &Call, voice: &Voice) -> End {
    let taken = call.params().and_then(|params| {
        let paths = call.paths(&params);
        let taken = take_snapshot(&params, &paths, voice);
        taken.inspect_err(|error| kept::before_the_run(&paths, &params.name, error))
    });
    taken.unwrap_or_else(|error| End::before_the_run(&error))
}

/// The story.
fn take_snapshot(params: &Params, paths: &Paths, voice: &Voice) -> Result<End, CommandError> {
    voice.log_at(params.log_file.as_deref(), &paths.run());
    setup::require_root()?;
    let config = configured(setup::config(paths)?, params);
    announce(voice, params, &config);
    setup::block_on(async {
        let args = arguments(params);
        let mut request = snapshot::request(paths, &config, &args, params.hooks).await?;
        request.observer = Arc::new(voice.clone());
        announce_applications(voice, params, &request);
        let (result, _record) = kept::run(paths, &config, request).await;
        Ok(End::from(result))
    })?
}

/// The configuration of this machine, with what the parameters say instead.
fn configured(mut config: Config, params: &Params) -> Config {
    config.provider.kind = ProviderKind::Alibaba;
    config.provider.alibaba.role = Some(params.role.clone());
    config.deadlines.freeze = params.window();
    config.snapshot.require = params.require.or(config.snapshot.require);
    let scripts = &mut config.scripts;
    scripts.timeout = params.script_timeout;
    if let Some(path) = &params.pre_script {
        scripts.pre.clone_from(path);
        scripts.enabled = true;
    }
    if let Some(path) = &params.post_script {
        scripts.post.clone_from(path);
        scripts.enabled = true;
    }
    config
}

/// The arguments of `stillpoint snapshot` that ask for the same.
fn arguments(params: &Params) -> args::Snapshot {
    args::Snapshot {
        name: params.name.clone(),
        description: params.description.clone(),
        require: None,
        scope: args::Scope {
            mounts: Vec::new(),
            disks: Vec::new(),
            exclude_disks: params.exclude_disks.clone(),
            no_freeze: !params.freeze,
        },
    }
}

/// What is going to be done, as far as the parameters tell.
fn announce(voice: &Voice, params: &Params, config: &Config) {
    voice.info(format!(
        "Name: {}, RamRoleName: {}, EnableFsFreeze: {}, TimeoutInSeconds: {}, ScriptTimeoutInSeconds: {}",
        params.name,
        params.role,
        params.freeze,
        params.window().as_secs(),
        params.script_timeout.as_secs(),
    ));
    if params.timeout_seconds > params.window().as_secs() {
        voice.warn(format!(
            "TimeoutInSeconds={} is more than {}: file systems are thawed after {} seconds at the latest",
            params.timeout_seconds,
            params.window().as_secs(),
            params.window().as_secs(),
        ));
    }
    if params.freeze && !config.snapshot.freeze {
        voice.warn("stillpoint.toml says [snapshot] freeze = false: nothing is frozen".to_owned());
    }
    for disk in &params.exclude_disks {
        voice.info(format!("Excluded DiskId={disk}"));
    }
}

/// What will be asked to hold still, or why nothing is.
fn announce_applications(voice: &Voice, params: &Params, request: &Request) {
    for reason in &request.reasons {
        let not_run = match reason.code {
            ReasonCode::ScriptInvalid => "the scripts are not run",
            _ => "no application is asked to hold still",
        };
        voice.warn(format!(
            "{not_run}, so the snapshots will be file-system-consistent (FsConsistent:True): {}",
            reason.detail
        ));
    }
    for planned in &request.hooks {
        voice.info(format!("Quiesced before the freeze: {}", hooks::describe(planned)));
    }
    let scripts_named = params.pre_script.is_some() || params.post_script.is_some();
    let uses_hooks = request.hooks.iter().any(|planned| planned.kind != "script");
    if params.hooks == HookChoice::Auto && scripts_named && uses_hooks {
        voice.warn(
            "hooks.d has hooks, so the scripts are not run; -Hooks=both runs both, -Hooks=scripts the scripts alone"
                .to_owned(),
        );
    }
}
