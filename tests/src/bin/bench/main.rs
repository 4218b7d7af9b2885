//! `make bench`: stillpoint against what people use today, interleaved in one run on the same data.
//! A table in Markdown on standard output, all numbers in a JSON file.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a report")]

mod alibaba;
mod database;
mod flush;
mod holds;
mod hook;
mod languages;
mod program;
mod report;
mod windows;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use stillpoint_tests::leftovers;

use report::Report;

/// Far more than it takes; then the watchdogs end it.
const LONGEST: Duration = Duration::from_secs(3600);

/// Between two measurements: a superblock that was frozen a moment ago freezes faster.
const PAUSE: Duration = Duration::from_millis(150);

#[derive(Debug, Parser)]
#[command(about = "Windows, holds and stalls against the alternatives, in one run")]
struct Arguments {
    /// Few rounds: to see that it works, not to quote numbers
    #[arg(long)]
    quick: bool,
    /// Only these parts (repeat for more)
    #[arg(long = "only", value_name = "PART")]
    only: Vec<Part>,
    /// Where all numbers go
    #[arg(long, default_value = "target/bench.json", value_name = "FILE")]
    out: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Freeze windows of 1, 4 and 16 file systems
    Windows,
    /// Hold and stalls with MariaDB
    Database,
    /// Hold of each database under load, against a client process that holds it
    Hold,
    /// A hook's cycle against a client's
    Hook,
    /// The same hook in each language: its size, its installation, its cycle
    Languages,
    /// Start, memory and size of the program
    Program,
    /// The window around a request to an emulated ECS
    Alibaba,
    /// Commits beside a run with 500 MB dirty
    Flush,
}

/// How often things are measured.
#[derive(Clone, Copy, Debug)]
struct Rounds {
    /// Cheap ones.
    many: usize,
    /// Those with a gigabyte to write before each.
    few: usize,
}

impl Arguments {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    fn rounds(&self) -> Rounds {
        if self.quick { Rounds { many: 3, few: 1 } } else { Rounds { many: 25, few: 10 } }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == program::PEAK_MEMORY_OF) {
        return match program::print_peak_memory_of(words) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error:#}");
                ExitCode::FAILURE
            }
        };
    }
    let cgroups = leftovers::cgroups();
    let arguments = Arguments::parse();
    let done = measure(&arguments).await;
    let left: Vec<PathBuf> = leftovers::cgroups().difference(&cgroups).cloned().collect();
    match done {
        Ok(met) if left.is_empty() => {
            if met {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Ok(_) => {
            eprintln!("left behind: {left:?}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("the bench failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// True if everything that was promised was met.
async fn measure(arguments: &Arguments) -> Result<bool> {
    let rounds = arguments.rounds();
    let mut report = Report::new(arguments.quick)?;
    if arguments.wants(Part::Windows) {
        windows::measure(rounds, &mut report)?;
    }
    if arguments.wants(Part::Database) {
        database::measure(rounds, &mut report).await?;
    }
    if arguments.wants(Part::Hold) {
        holds::measure(rounds, &mut report).await?;
    }
    if arguments.wants(Part::Hook) {
        hook::measure(rounds, &mut report).await?;
    }
    if arguments.wants(Part::Languages) {
        languages::measure(rounds, &mut report).await?;
    }
    if arguments.wants(Part::Program) {
        program::measure(rounds, &mut report).await?;
    }
    if arguments.wants(Part::Alibaba) {
        alibaba::measure(rounds, &mut report)?;
    }
    if arguments.wants(Part::Flush) {
        flush::measure(rounds, &mut report)?;
    }
    print!("{}", report.markdown());
    if let Some(directory) = arguments.out.parent() {
        std::fs::create_dir_all(directory)?;
    }
    std::fs::write(&arguments.out, report.json()?)
        .with_context(|| format!("cannot write {}", arguments.out.display()))?;
    println!("\nall numbers: {}", arguments.out.display());
    Ok(report.met())
}
