//! `stillpoint snapshot`.

use std::sync::Arc;

use stillpoint::config::Config;
use stillpoint::exit_code::ExitCode;
use stillpoint::hook::{CancelSource, CancelToken, RunContext};
use stillpoint::output::human;
use stillpoint::output::json::RunDocument;
use stillpoint::paths::Paths;
use stillpoint::plugin::HookChoice;
use stillpoint::report::RunRecord;
use stillpoint::sequence::{Failure, Report, Request};
use stillpoint::verify::{self as verification, Verification};

use super::args::{Global, Snapshot};
use super::progress::Printer;
use super::{CommandError, Outcome, hooks, kept, print, print_error, print_json, setup, verify};

/// Takes a snapshot.
pub fn run(global: &Global, paths: &Paths, args: &Snapshot) -> Outcome {
    let outcome = take(global, paths, args);
    if let Err(error) = &outcome {
        kept::before_the_run(paths, &args.name, error);
    }
    outcome
}

fn take(global: &Global, paths: &Paths, args: &Snapshot) -> Outcome {
    let config = setup::config(paths)?;
    setup::block_on(async {
        let mut request = request(paths, &config, args, HookChoice::Auto).await?;
        let printer = (!global.json && !global.quiet).then(|| {
            let (tree, printer) = Printer::start(format!("stillpoint snapshot {}", args.name));
            request.observer = Arc::new(tree);
            printer
        });
        let (mut result, record) = kept::run(paths, &config, request).await;
        if let Some(printer) = printer {
            printer.finish();
        }
        let Ok(report) = &mut result else { return Ok(tell(global, &result, &record)) };
        if !config.verify.after_snapshot {
            return Ok(tell(global, &result, &record));
        }
        let verified = verify_now(&config, paths, report).await;
        let code = tell(global, &result, &record);
        Ok(if code == ExitCode::Ok { tell_verified(global, verified) } else { code })
    })?
}

/// Verifies what was just made. In the documents for programs, the verdict is in the manifest, and a
/// verification that failed among the problems.
async fn verify_now(
    config: &Config,
    paths: &Paths,
    report: &mut Report,
) -> Result<Verification, CommandError> {
    let mut request = verify::request(config, paths, &report.manifest.group)?;
    request.stop = stop_on_signals()?;
    let verified = verification::verify(&request).await.map_err(verify::verify_error);
    match &verified {
        Ok(verification) => report.manifest.verified = Some(verification.clone()),
        Err(error) => report.problems.push(format!("not verified: {:#}", error.error)),
    }
    verified
}

fn tell_verified(global: &Global, verified: Result<Verification, CommandError>) -> ExitCode {
    match verified {
        Ok(verification) => {
            if !global.json {
                verify::tell(&verification);
            }
            verification.verdict.exit_code()
        }
        Err(error) => error.exit_code,
    }
}

/// What the sequence is asked for, from configuration and arguments. SIGINT, SIGTERM and SIGHUP stop
/// the run from now on.
pub async fn request(
    paths: &Paths,
    config: &Config,
    args: &Snapshot,
    choice: HookChoice,
) -> Result<Request, CommandError> {
    let mut request = Request::new(&args.name, setup::provider(config, paths)?);
    request.description.clone_from(&args.description);
    request.scope = setup::scope(config, &args.scope);
    request.require = args.require.map(Into::into).or(config.snapshot.require);
    request.deadlines = config.deadlines;
    request.expedite_rcu = config.snapshot.expedite_rcu;
    request.keep_warm = config.snapshot.keep_warm;
    request.paths = paths.clone();
    request.run_dir = paths.run();
    request.scripts = hooks::script_settings(config);
    request.context = RunContext::new(request.context.run_id, false, stop_on_signals()?);
    if !request.begin().await {
        return Ok(request);
    }
    let loaded = hooks::load(paths, config, &request, choice).await?;
    request.hooks = loaded.hooks;
    request.reasons = loaded.reasons;
    Ok(request)
}

/// SIGINT, SIGTERM and SIGHUP ask a run, or a verification, to stop; it undoes what it did and ends by
/// itself.
pub(super) fn stop_on_signals() -> Result<CancelToken, CommandError> {
    use tokio::signal::unix::{SignalKind, signal};
    let canceller = Arc::new(CancelSource::new());
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let mut signals =
            signal(kind).map_err(|error| CommandError::new(ExitCode::Unknown, error))?;
        let canceller = canceller.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                canceller.cancel();
            }
        });
    }
    Ok(canceller.token())
}

fn tell(global: &Global, result: &Result<Report, Failure>, record: &RunRecord) -> ExitCode {
    match result {
        Ok(report) => {
            if global.json {
                print_json(&RunDocument::from(report));
            } else {
                print(&human::report(report));
            }
            report.exit_code
        }
        Err(failure) => {
            if global.json {
                print_json(&RunDocument::from(failure));
            } else {
                print_error(&human::failure(failure));
                print_error(&format!(
                    "report: stillpoint report {} --output FILE.html\n",
                    record.short_id()
                ));
            }
            failure.exit_code()
        }
    }
}
