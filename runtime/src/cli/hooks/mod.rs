//! `stillpoint hook …`, and the hooks of a run.

pub mod args;
mod build;
mod bundle;
mod grant;
mod inspect;
mod install;
mod list;
mod new;
mod of_run;
mod registry;
mod secret;
mod sign;
mod test;

use stillpoint::hook::{HookStore, StoreError};
use stillpoint::paths::Paths;

use super::args::Global;
use super::{CommandError, Outcome};
use args::HookCommand;

pub use of_run::{describe, load, script_settings};

/// Runs a `hook` command.
pub fn run(global: &Global, paths: &Paths, command: &HookCommand) -> Outcome {
    match command {
        HookCommand::New(args) => new::run(global, args),
        HookCommand::Build(args) => build::run(global, paths, args),
        HookCommand::Install(args) => install::run(global, paths, args),
        HookCommand::Push(args) => registry::push(global, paths, args),
        HookCommand::Bundle(args) => bundle::run(global, paths, args),
        HookCommand::Grant(args) => grant::run(paths, args),
        HookCommand::Keygen(args) => sign::keygen(args),
        HookCommand::Sign(args) => sign::sign(args),
        HookCommand::Verify(args) => sign::verify(global, paths, args),
        HookCommand::Test(args) => test::run(global, paths, args),
        HookCommand::List => list::run(global, paths),
        HookCommand::Inspect { hook } => inspect::run(global, paths, hook),
        HookCommand::Remove { hook } => list::remove(global, paths, hook),
    }
}

fn open_store(paths: &Paths) -> Result<HookStore, CommandError> {
    HookStore::new(paths).map_err(store_error)
}

fn store_error(error: StoreError) -> CommandError {
    let hint = error.hint();
    CommandError::new(error.exit_code(), error).hint(hint)
}
