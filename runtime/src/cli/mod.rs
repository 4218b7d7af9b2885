//! The command line: a thin user of the library's public API.

mod args;
mod bench;
mod generate;
mod groups;
mod hooks;
mod kept;
mod plan;
mod plugin;
mod progress;
mod report;
mod sentinel;
mod setup;
mod snapshot;
mod status;
mod verify;

use std::io::Write as _;

use clap::Parser;
use stillpoint::exit_code::ExitCode;
use stillpoint::output::human;
use stillpoint::output::json::{self, FailureDocument};
use stillpoint::paths::Paths;
use stillpoint::provider::ProviderError;

use args::{Cli, Command, Global};

/// An error that ends a command before it did anything, with its exit code and the next step.
#[derive(Debug)]
pub struct CommandError {
    exit_code: ExitCode,
    error: anyhow::Error,
    hint: Option<String>,
}

type Outcome = Result<ExitCode, CommandError>;

impl CommandError {
    fn new(exit_code: ExitCode, error: impl Into<anyhow::Error>) -> Self {
        Self { exit_code, error: error.into(), hint: None }
    }

    fn hint(mut self, hint: impl Into<Option<String>>) -> Self {
        self.hint = hint.into();
        self
    }
}

/// Parses, runs the command, prints what went wrong, and says how the process ends.
pub fn main() -> ExitCode {
    setup::no_core();
    let line: Vec<_> = std::env::args_os().collect();
    if let Some(call) = plugin::Call::of(&line) {
        return plugin::main(&call);
    }
    let cli = match Cli::try_parse_from(line) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::Parameters } else { ExitCode::Ok };
        }
    };
    // It blocks signals in its one thread: the log has a thread of its own.
    let is_service = matches!(cli.command, Command::Sentinel);
    let log = (!is_service).then(|| setup::log(cli.global.verbose)).transpose();
    match log.and_then(|_log| run(&cli)) {
        Ok(code) => code,
        Err(error) => tell(&cli.global, &error),
    }
}

fn run(cli: &Cli) -> Outcome {
    let global = &cli.global;
    match &cli.command {
        Command::Completions { shell } => return generate::completions(*shell),
        Command::Man => return generate::man(),
        // Signing is done where hooks are built, not where they run.
        Command::Hook(command) if command.is_for_anybody() => {}
        Command::Plugin { .. } => return Err(plugin::misplaced()),
        _ => setup::require_root()?,
    }
    let paths = Paths::under(&global.root);
    match &cli.command {
        Command::Snapshot(args) => snapshot::run(global, &paths, args),
        Command::Plan(scope) => plan::run(global, &paths, scope),
        Command::Status => status::status(global, &paths),
        Command::Thaw(args) => status::thaw(global, &paths, args),
        Command::Recover => status::recover(global, &paths),
        Command::Sentinel => sentinel::run(&paths),
        Command::List => groups::list(global, &paths),
        Command::Show(group) => groups::show(global, &paths, &group.id),
        Command::Report(args) => report::run(global, &paths, args),
        Command::Verify(args) => verify::run(global, &paths, args),
        Command::Bench(command) => bench::run(global, &paths, command),
        Command::Restore(group) => groups::restore(global, &paths, &group.id),
        Command::Detach(group) => groups::detach(global, &paths, &group.id),
        Command::Delete(group) => groups::delete(global, &paths, &group.id),
        Command::Hook(command) => hooks::run(global, &paths, command),
        Command::Completions { .. } | Command::Man | Command::Plugin { .. } => Ok(ExitCode::Ok),
    }
}

fn tell(global: &Global, error: &CommandError) -> ExitCode {
    if global.json {
        let document =
            FailureDocument::new(error.exit_code, error.error.as_ref(), error.hint.clone());
        print_json(&document);
    } else {
        let mut text = format!("error: {}\n", error.error);
        text.push_str(&human::causes(anyhow::Chain::new(error.error.as_ref()).nth(1)));
        text.push_str("state: file systems running, nothing was touched\n");
        if let Some(hint) = &error.hint {
            text.push_str(&format!("hint: {hint}\n"));
        }
        print_error(&text);
    }
    error.exit_code
}

fn provider_error(error: ProviderError) -> CommandError {
    let hint = error.hint.clone();
    CommandError::new(error.exit_code, error).hint(hint)
}

/// One document on standard output.
fn print_json(document: &impl serde::Serialize) {
    let text = json::text(document).unwrap_or_default();
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Text on standard error.
fn print_error(text: &str) {
    let _ = std::io::stderr().write_all(human::visible(text).as_bytes());
}

/// Text on standard output; a closed pipe is not an error.
fn print(text: &str) {
    let _ = std::io::stdout().lock().write_all(human::visible(text).as_bytes());
}
