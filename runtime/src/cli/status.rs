//! `stillpoint status`, `thaw`, `recover`: what an operator needs at three in the morning.

use stillpoint::exit_code::ExitCode;
use stillpoint::freeze::{self, FileSystemOutcome, RecoverError};
use stillpoint::journal::RunLock;
use stillpoint::output::human;
use stillpoint::paths::Paths;
use stillpoint::sequence;

use super::args::{Global, Thaw};
use super::{CommandError, Outcome, hooks, print, print_json, setup};

/// Which file systems are frozen.
pub fn status(global: &Global, paths: &Paths) -> Outcome {
    let lines = freeze::status(&paths.run())
        .map_err(|error| CommandError::new(ExitCode::Unknown, error))?;
    if global.json {
        print_json(&lines);
    } else {
        print(&human::status(&lines));
    }
    Ok(ExitCode::Ok)
}

/// Thaws what is ours, by the journal; or what is named, whoever froze it.
pub fn thaw(global: &Global, paths: &Paths, args: &Thaw) -> Outcome {
    let outcomes = if args.mounts.is_empty() {
        freeze::thaw_ours(&paths.run()).map_err(|error| {
            let hint = error.hint();
            CommandError::new(ExitCode::CannotThaw, error).hint(hint)
        })?
    } else {
        freeze::thaw_paths(&args.mounts)
    };
    if global.json {
        print_json(&outcomes);
    } else if outcomes.is_empty() {
        print("nothing of ours is frozen: there is no journal\n");
    } else {
        print(&lines(&outcomes));
    }
    let all = outcomes.iter().all(|fs| fs.outcome.is_running());
    Ok(if all { ExitCode::Ok } else { ExitCode::CannotThaw })
}

fn lines(outcomes: &[FileSystemOutcome]) -> String {
    outcomes.iter().map(|fs| format!("{}: {}\n", fs.mount_point.display(), fs.outcome)).collect()
}

/// Cleans up after a run that died. Refused while a run is in progress.
pub fn recover(global: &Global, paths: &Paths) -> Outcome {
    let lock = RunLock::acquire(&paths.run(), "recover").map_err(|error| {
        let (code, hint) = (error.exit_code(), error.hint());
        CommandError::new(code, error).hint(hint)
    })?;
    let scripts = hooks::script_settings(&setup::config(paths)?);
    let run_dir = paths.run();
    let lines = setup::block_on(async { sequence::recover(&lock, &run_dir, &scripts).await })?;
    let lines = lines.map_err(recover_error)?;
    if global.json {
        print_json(&serde_json::json!({ "schema_version": 1, "exit_code": 0, "done": lines }));
    } else if lines.is_empty() {
        print("nothing was left behind\n");
    }
    if !global.json {
        print(&lines.iter().map(|line| format!("{line}\n")).collect::<String>());
    }
    Ok(ExitCode::Ok)
}

fn recover_error(error: RecoverError) -> CommandError {
    let hint = error.hint();
    CommandError::new(ExitCode::CannotThaw, error).hint(hint)
}
