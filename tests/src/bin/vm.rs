//! `make test-vm`: what needs a machine of its own. In the machine, as `vm agent`, it is what runs the
//! commands.
#![expect(clippy::print_stdout, reason = "its lines are its result")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use stillpoint_tests::vm::agent;
use stillpoint_tests::vm::cases::{ALL, Case};
use stillpoint_tests::vm::image::Store;
use stillpoint_tests::vm::machine::Machine;

/// Tests of stillpoint in a virtual machine.
#[derive(Debug, Parser)]
struct Arguments {
    /// Print the names of the tests, and what each is to show
    #[arg(long)]
    list: bool,
    /// Only tests with one of these words in their name; `agent`, in the machine: be its agent
    words: Vec<String>,
}

/// How one test ended.
struct Outcome {
    case: &'static Case,
    took: Duration,
    result: Result<String>,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if arguments.words == ["agent"] {
        return agent::serve().map(|()| ExitCode::SUCCESS);
    }
    if arguments.list {
        ALL.iter().for_each(|case| println!("{:<22} {}", case.name, case.law));
        return Ok(ExitCode::SUCCESS);
    }
    let chosen = |case: &&Case| {
        arguments.words.is_empty()
            || arguments.words.iter().any(|word| case.name.contains(word.as_str()))
    };
    let store = Store::find()?;
    store.make_root_image()?;
    let outcomes = run_all(&store, ALL.iter().filter(chosen));
    table(&outcomes);
    let failed = outcomes.iter().filter(|outcome| outcome.result.is_err()).count();
    println!("\n{} of {} passed", outcomes.len() - failed, outcomes.len());
    Ok(if failed == 0 && !outcomes.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One machine for all, as long as all goes well: booting is what takes the time.
fn run_all(store: &Store, cases: impl Iterator<Item = &'static Case>) -> Vec<Outcome> {
    let mut machine = None;
    let run = |case: &'static Case| {
        let began = Instant::now();
        let result = run_one(store, &mut machine, case);
        let took = began.elapsed();
        match &result {
            Ok(seen) => println!("ok    {:<22} {:>4} s  {seen}", case.name, took.as_secs()),
            Err(error) => println!("FAIL  {:<22} {:>4} s  {error:#}", case.name, took.as_secs()),
        }
        Outcome { case, took, result }
    };
    cases.map(run).collect()
}

fn run_one(store: &Store, machine: &mut Option<Machine>, case: &Case) -> Result<String> {
    let mut running = match machine.take() {
        Some(running) => running,
        None => Machine::new(store, "tests")?,
    };
    let result = (case.run)(&mut running);
    match result {
        Ok(seen) => {
            *machine = Some(running);
            Ok(seen)
        }
        // Whatever state it is in now is no place for the next test.
        Err(error) => {
            println!("{}", running.console());
            Err(error)
        }
    }
}

fn table(outcomes: &[Outcome]) {
    println!("\n| test | must be true | result | s |\n|---|---|---|---|");
    for Outcome { case, took, result } in outcomes {
        let result = match result {
            Ok(seen) => seen.clone(),
            Err(error) => format!("**failed**: {}", error.root_cause()),
        };
        println!("| {} | {} | {result} | {} |", case.name, case.law, took.as_secs());
    }
}
