//! `make bench`: stillpoint against what people use today, interleaved in one run on the same data.
//! A table in Markdown on standard output, all numbers in a JSON file.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a report")]

mod alibaba;
mod database;
mod deaths;
mod flush;
mod guarded;
mod holds;
mod hook;
mod languages;
mod machine;
mod order;
mod program;
mod rcu;
mod report;
mod ways;
mod windows;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use stillpoint_tests::leftovers;
use stillpoint_tests::random::seed;

use order::Order;
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
    /// Gives the same orders again; `STILLPOINT_TEST_SEED` does, too
    #[arg(long)]
    seed: Option<u64>,
    /// Where all numbers go
    #[arg(long, default_value = "target/bench.json", value_name = "FILE")]
    out: PathBuf,
    /// Also put the tables between the marks `<!-- bench: begin -->` and `<!-- bench: end -->` of this
    #[arg(long, value_name = "FILE")]
    into: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Freeze windows of 1, 4 and 16 file systems
    Windows,
    /// What rcu_expedited and the rehearsal are worth, on ext4, XFS and btrfs
    Rcu,
    /// Hold and stalls with MariaDB, idle and with dirty data
    Database,
    /// Hold of each database under load, against a client process that holds it
    Hold,
    /// From the agent's death in the window to the next write
    Deaths,
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
    /// Those of many ways, cases and labs.
    each: usize,
    /// Those with a gigabyte to write before each.
    few: usize,
    /// Dirty file data before a window, over all of its file systems, in MiB.
    dirty_mib: u64,
    /// Dirty file data beside a database, in MiB.
    dirty_beside_mib: u64,
}

impl Arguments {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    fn rounds(&self) -> Rounds {
        if self.quick {
            Rounds { many: 2, each: 1, few: 1, dirty_mib: 64, dirty_beside_mib: 64 }
        } else {
            Rounds { many: 25, each: 25, few: 10, dirty_mib: 1024, dirty_beside_mib: 500 }
        }
    }
}

fn main() -> ExitCode {
    stillpoint::guard::enter();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(run()),
        Err(error) => {
            eprintln!("no runtime: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> ExitCode {
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
    let seed = arguments.seed.map_or_else(seed, Ok)?;
    eprintln!("seed {seed}");
    let mut order = Order::new(seed);
    let mut report = Report::new(arguments.quick, seed)?;
    for part in Part::value_variants() {
        if !arguments.wants(*part) {
            continue;
        }
        let (order, report) = (&mut order, &mut report);
        match part {
            Part::Windows => windows::measure(rounds, order, report).await,
            Part::Rcu => rcu::measure(rounds, order, report).await,
            Part::Database => database::measure(rounds, order, report).await,
            Part::Hold => holds::measure(rounds, report).await,
            Part::Deaths => deaths::measure(rounds, report),
            Part::Hook => hook::measure(rounds, report).await,
            Part::Languages => languages::measure(rounds, report).await,
            Part::Program => program::measure(rounds, report).await,
            Part::Alibaba => alibaba::measure(rounds, report),
            Part::Flush => flush::measure(rounds, report),
        }
        .with_context(|| format!("{part:?}"))?;
    }
    report.end()?;
    print!("{}", report.markdown());
    if let Some(document) = &arguments.into {
        put_into(document, &report.markdown())?;
    }
    if let Some(directory) = arguments.out.parent() {
        std::fs::create_dir_all(directory)?;
    }
    std::fs::write(&arguments.out, report.json()?)
        .with_context(|| format!("cannot write {}", arguments.out.display()))?;
    println!("\nall numbers: {}", arguments.out.display());
    Ok(report.met())
}

const BEGIN: &str = "<!-- bench: begin -->";
const END: &str = "<!-- bench: end -->";

/// Replaces what is between the marks of a document.
fn put_into(document: &Path, tables: &str) -> Result<()> {
    let name = document.display();
    let text = std::fs::read_to_string(document).with_context(|| format!("cannot read {name}"))?;
    let (before, rest) = text.split_once(BEGIN).with_context(|| format!("{name}: no {BEGIN}"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("{name}: no {END}"))?;
    std::fs::write(document, format!("{before}{BEGIN}\n{tables}{END}{after}"))
        .with_context(|| format!("cannot write {name}"))
}
