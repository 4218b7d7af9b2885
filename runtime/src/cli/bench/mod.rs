//! `stillpoint bench`.

pub mod args;
mod here;

use std::fs::File;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use stillpoint::bench::{self, BenchDocument, BenchError, LabOptions, Load, Progress};
use stillpoint::exit_code::ExitCode;
use stillpoint::paths::Paths;

use super::args::Global;
use super::{CommandError, Outcome, print, print_error, print_json, setup};
use args::{BenchCommand, LabArgs};

/// Measures, and says what came of it.
pub fn run(global: &Global, paths: &Paths, command: &BenchCommand) -> Outcome {
    match command {
        BenchCommand::Lab(args) => lab(global, paths, args),
        BenchCommand::Here(args) => here::run(global, paths, args),
    }
}

fn lab(global: &Global, paths: &Paths, args: &LabArgs) -> Outcome {
    let options = options(paths, args);
    let page = Page::open(args.html.as_deref())?;
    if !global.quiet {
        print_error(&format!(
            "a lab in {}: up to {} MiB there; no snapshot is taken on this machine until it is \
             over, and the disk is busy; seed {}\n",
            options.directory.display(),
            options.bytes() >> 20,
            options.seed
        ));
    }
    let bar = Bar::shown(!global.quiet);
    let measured = setup::block_on(bench::lab(&options, &bar))?;
    bar.0.finish_and_clear();
    tell(global, page, &measured.map_err(bench_error)?)
}

fn options(paths: &Paths, args: &LabArgs) -> LabOptions {
    let mut counts = args.file_systems.clone();
    counts.sort_unstable();
    counts.dedup();
    let mut loads: Vec<Load> = args.loads.iter().map(|load| (*load).into()).collect();
    loads.sort_unstable();
    loads.dedup();
    LabOptions {
        directory: args.dir.clone(),
        run_dir: paths.run(),
        kind: args.kind.into(),
        counts,
        loads,
        rounds: args.rounds,
        dirty_bytes: args.dirty_mib << 20,
        seed: args.seed.unwrap_or_else(any_seed),
    }
}

/// One that can be typed again.
fn any_seed() -> u64 {
    std::time::UNIX_EPOCH.elapsed().map_or(1, |now| u64::from(now.subsec_nanos()))
}

fn tell(global: &Global, page: Page, document: &BenchDocument) -> Outcome {
    if global.json {
        print_json(document);
    } else {
        print(&bench::table(document));
    }
    page.write(document)?;
    setup::ok()
}

fn bench_error(error: BenchError) -> CommandError {
    let (exit_code, hint) = (error.exit_code(), error.hint());
    CommandError::new(exit_code, error).hint(hint)
}

/// The page that is wanted, if one is: opened before anything is measured, so that nobody finds out
/// after half an hour that it cannot be written.
struct Page(Option<(File, String)>);

impl Page {
    fn open(path: Option<&Path>) -> Result<Self, CommandError> {
        let Some(path) = path else { return Ok(Self(None)) };
        let file = File::options().write(true).create(true).truncate(false).open(path);
        let file = file.map_err(|error| cannot_write(&path.display().to_string(), error))?;
        Ok(Self(Some((file, path.display().to_string()))))
    }

    fn write(self, document: &BenchDocument) -> Result<(), CommandError> {
        let Some((mut file, path)) = self.0 else { return Ok(()) };
        let text = bench::page(document);
        file.set_len(0)
            .and_then(|()| file.write_all(text.as_bytes()))
            .map_err(|error| cannot_write(&path, error))
    }
}

fn cannot_write(path: &str, error: std::io::Error) -> CommandError {
    let error = anyhow::Error::new(error).context(format!("cannot write {path}"));
    CommandError::new(ExitCode::Parameters, error)
}

/// How far it is, on one line of a terminal that goes away.
struct Bar(ProgressBar);

impl Bar {
    fn shown(wanted: bool) -> Self {
        let target = match wanted && std::io::stderr().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{bar:20} {pos}/{len} {msg}") {
            bar.set_style(style);
        }
        Self(bar)
    }
}

impl Progress for Bar {
    fn stage(&self, what: &str) {
        self.0.set_message(what.to_owned());
    }

    fn step(&self, done: usize, of: usize, what: &str) {
        self.0.set_length(u64::try_from(of).unwrap_or(u64::MAX));
        self.0.set_message(what.to_owned());
        self.0.set_position(u64::try_from(done).unwrap_or(u64::MAX));
    }
}
