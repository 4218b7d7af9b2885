//! `make faults`: the fault matrix. See `docs/faults.md`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it tells what it does")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use stillpoint_tests::faults::{self, Options, plan, witness};
use stillpoint_tests::stillpoint::{binary, workspace};
use stillpoint_tests::writers::now_ns;

/// Runs the fault matrix on this machine, as root: real kills, real freezes, on loop images.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    /// Only cells whose name contains this
    #[arg(long)]
    filter: Option<String>,
    /// Names the cells and their order; printed, to repeat a run (or STILLPOINT_TEST_SEED)
    #[arg(long)]
    seed: Option<u64>,
    /// Begin no cell after so many minutes
    #[arg(long, value_name = "MINUTES")]
    budget: Option<u64>,
    /// Names of the cells, and nothing else
    #[arg(long)]
    list: bool,
    /// Kinds of file systems at the same time
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Every step and every fault at least once, instead of the whole matrix
    #[arg(long)]
    bounded: bool,
    /// Leave something out on purpose (guard.sweep, guard.announce, guard.withdraw, agent.confirm)
    #[arg(long, value_name = "WHAT")]
    broken: Option<String>,
    /// Where the results go
    #[arg(long, default_value = "target/faults.json")]
    json: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// The oracle's process
    #[command(hide = true)]
    Witness { mounts: Vec<PathBuf> },
}

fn main() -> ExitCode {
    stillpoint::guard::enter();
    let arguments = Arguments::parse();
    let result = match &arguments.role {
        Some(Role::Witness { mounts }) => witness::serve(mounts).map(|()| true),
        None => run(&arguments),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("faults: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    let of_environment = || std::env::var("STILLPOINT_TEST_SEED").ok()?.parse().ok();
    let seed = arguments.seed.or_else(of_environment).unwrap_or_else(|| now_ns() % 1_000_000);
    let mut cells = if arguments.bounded { plan::bounded(seed) } else { plan::full(seed) };
    if let Some(filter) = &arguments.filter {
        cells.retain(|cell| filter.split(',').any(|part| cell.id().contains(part)));
    }
    if arguments.list {
        cells.iter().for_each(|cell| println!("{}", cell.id()));
        return Ok(true);
    }
    ensure!(nix::unistd::geteuid().is_root(), "it mounts, freezes and kills: run it as root");
    has_failpoints()?;
    eprintln!("{} cells; seed {seed} (--seed {seed} repeats them)", cells.len());
    let report = faults::run(&Options {
        cells,
        seed,
        budget: arguments.budget.map(|minutes| Duration::from_secs(60 * minutes)),
        jobs: arguments.jobs,
        program: std::env::current_exe()?,
        broken: arguments.broken.as_ref().map(|what| format!("{what}=skip")),
    })?;
    let path = workspace().join(&arguments.json);
    std::fs::write(&path, serde_json::to_vec_pretty(&report)?)
        .with_context(|| path.display().to_string())?;
    println!("\n{}\nevery cell: {}", report.table(), path.display());
    Ok(report.is_good())
}

/// A release has none, and every cell would end before its fault.
fn has_failpoints() -> Result<()> {
    let path = binary()?;
    let program = std::fs::read(&path).with_context(|| path.display().to_string())?;
    let name = stillpoint::failpoint::ALL[0].as_bytes();
    ensure!(
        program.windows(name.len()).any(|window| window == name),
        "{} has no failpoints: cargo build -p stillpoint --features failpoints",
        path.display()
    );
    Ok(())
}
