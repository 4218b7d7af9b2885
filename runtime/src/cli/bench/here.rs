//! `stillpoint bench here`: it really quiesces and freezes, and asks first.

use std::io::{BufRead as _, IsTerminal as _};

use stillpoint::bench::{BenchDocument, Here, HereError, PAUSE, Progress as _};
use stillpoint::config::Config;
use stillpoint::exit_code::ExitCode;
use stillpoint::output::human;
use stillpoint::output::json::RunDocument;
use stillpoint::paths::Paths;
use stillpoint::plugin::HookChoice;
use stillpoint::sequence;

use super::super::args::{Global, Snapshot};
use super::super::{CommandError, Outcome, print_error, print_json, setup, snapshot};
use super::args::HereArgs;
use super::{Bar, Page, bench_error, tell};

/// Measures on this machine.
pub fn run(global: &Global, paths: &Paths, args: &HereArgs) -> Outcome {
    let config = setup::config(paths)?;
    if args.rounds == 0 {
        let error = anyhow::anyhow!("no rounds are asked for");
        return Err(CommandError::new(ExitCode::Parameters, error));
    }
    let page = Page::open(args.html.as_deref())?;
    let bar = Bar::shown(!global.quiet);
    let measured = setup::block_on(measure(paths, &config, args, &bar))??;
    bar.0.finish_and_clear();
    match measured {
        Ok(document) => tell(global, page, &document),
        Err(HereError::Bench(error)) => Err(bench_error(error)),
        Err(HereError::Run(failure)) => {
            if global.json {
                print_json(&RunDocument::from(&*failure));
            } else {
                print_error(&human::failure(&failure));
            }
            Ok(failure.exit_code())
        }
    }
}

type Measured = Result<BenchDocument, HereError>;

async fn measure(
    paths: &Paths,
    config: &Config,
    args: &HereArgs,
    bar: &Bar,
) -> Result<Measured, CommandError> {
    let wanted = Snapshot {
        name: "bench".to_owned(),
        description: String::new(),
        require: None,
        scope: args.scope.clone(),
    };
    ask_first(paths, config, args, &wanted).await?;
    let mut here = Here::begin(args.probes.clone()).map_err(bench_error)?;
    for round in 0..args.rounds {
        bar.step(round, args.rounds, "quiesce, freeze, thaw, release; no snapshot");
        let request = snapshot::request(paths, config, &wanted, HookChoice::Auto).await?;
        let cancel = request.context.cancel.clone();
        if let Err(error) = here.round(request).await {
            return Ok(Err(error));
        }
        tokio::select! {
            () = cancel.cancelled() => break,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
    Ok(Ok(here.document()))
}

/// Says what will be held, and goes on only if somebody wants that.
async fn ask_first(
    paths: &Paths,
    config: &Config,
    args: &HereArgs,
    wanted: &Snapshot,
) -> Result<(), CommandError> {
    let mut request = sequence::Request::new("bench", setup::provider(config, paths)?);
    request.scope = setup::scope(config, &wanted.scope);
    request.run_dir = paths.run();
    let loaded = super::super::hooks::load(paths, config, &request, HookChoice::Auto).await?;
    let plan = sequence::plan_only(&request).await.map_err(|cause| {
        let hint = cause.hint();
        CommandError::new(cause.exit_code(sequence::Step::Plan), cause).hint(hint)
    })?;
    let mounts: Vec<String> =
        plan.file_systems.iter().map(|fs| fs.mount_point.display().to_string()).collect();
    let hooks: Vec<String> =
        loaded.hooks.iter().map(|planned| planned.hook.name().to_owned()).collect();
    let or_none = |names: &[String]| match names {
        [] => "nothing".to_owned(),
        names => names.join(", "),
    };
    print_error(&format!(
        "{} times, on this machine as it is: quiesce {}; freeze and thaw {}; release. No snapshot is \
         taken, and hooks are told so. Clients wait for some milliseconds each time, and for at most \
         {:?} if something hangs.\n",
        args.rounds,
        or_none(&hooks),
        or_none(&mounts),
        config.deadlines.freeze + config.deadlines.quiesce,
    ));
    if args.yes || is_wanted() {
        return Ok(());
    }
    let error =
        anyhow::anyhow!("this holds production for moments, and nobody has said that it may");
    Err(CommandError::new(ExitCode::Parameters, error)
        .hint("say so with --yes, or measure beside production: stillpoint bench lab".to_owned()))
}

/// Somebody is there, and types `yes`.
fn is_wanted() -> bool {
    if !std::io::stdin().is_terminal() {
        return false;
    }
    print_error("Type yes to go on: ");
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).is_ok() && line.trim() == "yes"
}
