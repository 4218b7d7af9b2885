//! `stillpoint report`.

use std::io::IsTerminal as _;
use std::path::Path;

use stillpoint::exit_code::ExitCode;
use stillpoint::paths::Paths;
use stillpoint::report::{History, HistoryError, RunRecord, Summary, page};

use super::args::{Global, ReportArgs};
use super::{CommandError, Outcome, print, print_json, setup};

/// Draws one run, or lists those there are.
pub fn run(global: &Global, paths: &Paths, args: &ReportArgs) -> Outcome {
    let history = History::of(paths);
    if args.list {
        return list(global, &history);
    }
    let record = find(paths, &history, args.run.as_deref())?;
    if global.json {
        print_json(&record);
        return setup::ok();
    }
    match &args.output {
        Some(file) => write(file, &page(&record))?,
        None if std::io::stdout().is_terminal() => return Err(nobody_reads_that(&record)),
        None => print(&page(&record)),
    }
    setup::ok()
}

/// The record, or what the snapshot's own manifest says: a run is forgotten before its snapshot is.
fn find(paths: &Paths, history: &History, which: Option<&str>) -> Result<RunRecord, CommandError> {
    let Some(which) = which else { return history.latest().map_err(history_error) };
    match history.find(which) {
        Err(unknown @ HistoryError::Unknown { .. }) => {
            manifest(paths, which).ok_or_else(|| history_error(unknown))
        }
        other => other.map_err(history_error),
    }
}

fn manifest(paths: &Paths, id: &str) -> Option<RunRecord> {
    let provider = setup::provider(&setup::config(paths).ok()?, paths).ok()?;
    let groups = setup::block_on(async { provider.list().await }).ok()?.ok()?;
    let manifest = groups.into_iter().find(|group| group.id == id)?.manifest?;
    Some(RunRecord::of_manifest(*manifest))
}

fn list(global: &Global, history: &History) -> Outcome {
    let runs: Vec<Summary> = history.summaries().map_err(history_error)?;
    if global.json {
        print_json(&runs);
    } else if runs.is_empty() {
        print("no runs\n");
    } else {
        runs.iter().for_each(|run| print(&format!("{run}\n")));
    }
    setup::ok()
}

fn write(file: &Path, page: &str) -> Result<(), CommandError> {
    std::fs::write(file, page).map_err(|error| {
        let error = anyhow::Error::new(error).context(format!("cannot write {}", file.display()));
        CommandError::new(ExitCode::Parameters, error)
    })
}

fn nobody_reads_that(record: &RunRecord) -> CommandError {
    let error = anyhow::anyhow!("the report is a page for a browser, and this is a terminal");
    let id = record.short_id();
    CommandError::new(ExitCode::Parameters, error)
        .hint(format!("write it to a file: stillpoint report {id} --output {id}.html"))
}

fn history_error(error: HistoryError) -> CommandError {
    let hint = error.hint();
    CommandError::new(ExitCode::Parameters, error).hint(hint)
}
