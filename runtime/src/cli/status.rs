//! `stillpoint status`, `thaw`, `recover`: what an operator needs at three in the morning.

use stillpoint::exit_code::ExitCode;
use stillpoint::freeze::{self, FileSystemOutcome, RecoverError};
use stillpoint::journal::{RecoveryRecord, RunLock, RunRecord};
use stillpoint::output::human;
use stillpoint::paths::Paths;
use stillpoint::sequence::{self, Aftermath, Recovered};

use super::args::{Global, Thaw};
use super::{CommandError, Outcome, hooks, print, print_json, setup};

/// Which file systems are frozen, and which hooks are left to finish.
pub fn status(global: &Global, paths: &Paths) -> Outcome {
    let lines = freeze::status(&paths.run())
        .map_err(|error| CommandError::new(ExitCode::Unknown, error))?;
    if global.json {
        print_json(&lines);
    } else {
        print(&human::status(&lines));
        print(&left_hooks(paths));
    }
    Ok(ExitCode::Ok)
}

/// What runs that died left with applications, and what their sentinels have undone; nothing if a run
/// is in progress, whose hooks are its own.
fn left_hooks(paths: &Paths) -> String {
    let run_dir = paths.run();
    let run = RunRecord::load(&run_dir).ok().flatten().filter(|run| !run.agent.is_alive());
    let left = run.map(|run| run.left_hooks()).unwrap_or_default();
    let mut text: String = left
        .iter()
        .map(|left| format!("NOT FINISHED hook {} of run {}\n", left.hook.name, left.run_id))
        .collect();
    if !left.is_empty() {
        text.push_str("hint: its application may still be held; stillpoint recover\n");
    }
    let undone = RecoveryRecord::load(&run_dir).ok().flatten();
    let lines = undone.iter().flat_map(RecoveryRecord::lines);
    text.extend(lines.map(|line| format!("undone    {line}\n")));
    text
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
    let config = setup::config(paths)?;
    let aftermath = Aftermath {
        paths,
        scripts: &hooks::script_settings(&config),
        finish: config.deadlines.release,
        asked: true,
    };
    let recovered = setup::block_on(async {
        let lock = RunLock::acquire_after_recovery(&paths.run(), "recover").await;
        let mut lock = lock.map_err(|error| {
            let (code, hint) = (error.exit_code(), error.hint());
            CommandError::new(code, error).hint(hint)
        })?;
        sequence::recover(&mut lock, &aftermath).await.map_err(recover_error)
    })?;
    let Recovered { done, left } = recovered?;
    let code = if left.is_empty() { ExitCode::Ok } else { ExitCode::PostThaw };
    if global.json {
        print_json(&serde_json::json!({
            "schema_version": 1, "exit_code": code as u8, "done": done, "left": left,
        }));
        return Ok(code);
    }
    if done.is_empty() && left.is_empty() {
        print("nothing was left behind\n");
    }
    print(&done.iter().map(|line| format!("{line}\n")).collect::<String>());
    print(&left.iter().map(|line| format!("not done: {line}\n")).collect::<String>());
    if !left.is_empty() {
        let journal = paths.run().join("run.json");
        print(&format!(
            "hint: this is kept in the journal; once it is undone by hand, remove {}\n",
            journal.display()
        ));
    }
    Ok(code)
}

fn recover_error(error: RecoverError) -> CommandError {
    let hint = error.hint();
    CommandError::new(ExitCode::CannotThaw, error).hint(hint)
}
