//! The fault matrix: steps × faults × processes × file systems, generated from lists, each cell a fresh
//! run of the program with a real fault, judged by a process that no fault reaches.
//! How to run it and read it: `docs/faults.md`.
//!
//! | module | job |
//! |---|---|
//! | [`plan`] | the cells, from lists and a seed |
//! | [`cell`] | one of them |
//! | [`bed`] | the lab that cells of a kind share, and how a run is held at a place |
//! | [`run`] | one cell, from its start to its end |
//! | `verdict` | what came of it |
//! | [`witness`] | the oracle: its process, and what is asked of it |
//! | [`clients`] | a database, and whether its clients go on |
//! | [`world`] | what others do meanwhile |
//! | [`processes`] | agent, guard, sentinel from outside |
//! | [`secret`] | where a secret must not be |
//! | [`report`] | the table, the JSON file, the line per cell |

pub mod bed;
pub mod cell;
pub mod clients;
pub mod plan;
pub mod processes;
pub mod report;
pub mod run;
pub mod secret;
mod verdict;
pub mod witness;
pub mod world;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use bed::Bed;
use cell::{Cell, Kind};
use report::{Report, Terminal};
use run::Outcome;

/// A lab that outlives this is cleaned up by its watchdog, and the runner with it.
const LAB_TIME: Duration = Duration::from_secs(3600);

/// What to run, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The cells.
    pub cells: Vec<Cell>,
    /// How they were chosen.
    pub seed: u64,
    /// No cell begins later than this.
    pub budget: Option<Duration>,
    /// Kinds of file systems at the same time.
    pub jobs: usize,
    /// The program whose `main` serves as oracle.
    pub program: PathBuf,
    /// Added to `STILLPOINT_FAILPOINTS` of every run: something that is left out on purpose.
    pub broken: Option<String>,
}

/// Runs all cells.
///
/// # Errors
/// If a lab cannot be made. What the program did wrong is in the report.
pub fn run(options: &Options) -> Result<Report> {
    let began = Instant::now();
    let terminal = Terminal::new(options.cells.len());
    let batches: Mutex<VecDeque<Vec<(usize, Cell)>>> = Mutex::new(batches(&options.cells));
    let outcomes = Mutex::new(Vec::new());
    let work = || -> Result<()> {
        loop {
            let next = lock(&batches).pop_front();
            let Some(batch) = next else { return Ok(()) };
            run_batch(options, &batch, began, &terminal, &outcomes)?;
        }
    };
    let results: Vec<Result<()>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..options.jobs.max(1)).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|w| w.join().unwrap_or_else(|_| anyhow::bail!("a panic"))).collect()
    });
    let outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
    let report = Report::new(options, outcomes, began.elapsed());
    for result in results {
        result?;
    }
    Ok(report)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The cells of one kind are run one after the other, on the same lab.
fn batches(cells: &[Cell]) -> VecDeque<Vec<(usize, Cell)>> {
    let mut batches: VecDeque<Vec<(usize, Cell)>> = VecDeque::new();
    for (number, cell) in cells.iter().cloned().enumerate() {
        match batches.back_mut() {
            Some(batch) if batch[0].1.kind == cell.kind => batch.push((number, cell)),
            _ => batches.push_back(vec![(number, cell)]),
        }
    }
    batches
}

fn run_batch(
    options: &Options,
    batch: &[(usize, Cell)],
    began: Instant,
    terminal: &Terminal,
    outcomes: &Mutex<Vec<(Cell, Outcome)>>,
) -> Result<()> {
    let kind = batch[0].1.kind;
    let mut bed = None;
    for (number, cell) in batch {
        if options.budget.is_some_and(|budget| began.elapsed() > budget) {
            break;
        }
        let mut at = match bed.take() {
            Some(bed) => bed,
            None => new_bed(kind, options)?,
        };
        let outcome = run::run(&mut at, cell, *number).with_context(|| cell.id())?;
        terminal.ended(cell, &outcome);
        // What is damaged, or left in a state that nobody knows, is not used again.
        let usable = outcome.problems.is_empty() && outcome.notes.is_empty();
        lock(outcomes).push((cell.clone(), outcome));
        if usable {
            bed = Some(at);
        } else {
            drop(at);
        }
    }
    if let Some(bed) = bed
        && let Err(error) = bed.finish()
    {
        let cell = batch[batch.len() - 1].1.clone();
        let problems = vec![format!("at the end of the lab: {error:#}")];
        let outcome =
            Outcome { cell: format!("{kind}/end"), reached: true, problems, ..Outcome::default() };
        terminal.ended(&cell, &outcome);
        lock(outcomes).push((cell, outcome));
    }
    Ok(())
}

fn new_bed(kind: Kind, options: &Options) -> Result<Bed> {
    let mut bed = Bed::new(kind, &options.program, LAB_TIME)
        .with_context(|| format!("the lab for {kind} cannot be made"))?;
    bed.broken.clone_from(&options.broken);
    Ok(bed)
}
