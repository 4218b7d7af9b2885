//! What is told: a line for each cell while it goes, a table at the end, and a JSON file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::Options;
use super::cell::{Cell, Fault};
use super::plan::NOT_RUNNABLE;
use super::run::Outcome;
use crate::stats::{Durations, Summary};

/// Progress, on standard error.
#[derive(Debug)]
pub struct Terminal {
    all: usize,
    ended: AtomicUsize,
    began: Instant,
    interactive: bool,
}

impl Terminal {
    /// For so many cells.
    #[must_use]
    pub fn new(all: usize) -> Self {
        let interactive = std::io::stderr().is_terminal();
        Self { all, ended: AtomicUsize::new(0), began: Instant::now(), interactive }
    }

    /// A cell ended.
    pub fn ended(&self, cell: &Cell, outcome: &Outcome) {
        let n = self.ended.fetch_add(1, Ordering::Relaxed) + 1;
        let word = if !outcome.problems.is_empty() {
            "FAILED"
        } else if outcome.reached {
            "ok"
        } else {
            "not reached"
        };
        let seconds = self.began.elapsed().as_secs();
        let line = format!(
            "[{n}/{} {:02}:{:02}] {} {word} ({} ms)",
            self.all,
            seconds / 60,
            seconds % 60,
            if outcome.cell.is_empty() { cell.id() } else { outcome.cell.clone() },
            outcome.took_ms
        );
        if self.interactive && outcome.problems.is_empty() {
            eprint!("\r\x1b[K{line}");
        } else {
            eprintln!("{}{line}", if self.interactive { "\r\x1b[K" } else { "" });
        }
        for problem in outcome.problems.iter().chain(&outcome.notes) {
            eprintln!("      {}", problem.replace('\n', "\n      "));
        }
    }
}

/// One line of the table of recoveries.
#[derive(Clone, Debug, Serialize)]
pub struct Recovery {
    /// Who was ended, and how; or at which step.
    pub what: String,
    /// From the end of its last thread to the first write that returned.
    #[serde(flatten)]
    pub times: Summary,
}

/// What came of all cells.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The seed of the cells and their order.
    pub seed: u64,
    /// How long it took, in seconds.
    pub seconds: u64,
    /// Cells that were planned.
    pub planned: usize,
    /// Cells that were run.
    pub run: usize,
    /// Of those, how many kept every promise.
    pub passed: usize,
    /// Of those, how many ended before the place of the fault was reached.
    pub not_reached: usize,
    /// What cannot be run here, and why.
    pub not_runnable: Vec<(String, String)>,
    /// File systems that were left frozen.
    pub left_frozen: usize,
    /// Clients of a database that were left locked out.
    pub left_locked: usize,
    /// Runs that said `application` when it was not so.
    pub false_application: usize,
    /// Kill → writable, by who was killed and by step.
    pub recoveries: Vec<Recovery>,
    /// By step.
    pub recoveries_by_step: Vec<Recovery>,
    /// Kill → a client commits, by who was killed.
    pub commits: Vec<Recovery>,
    /// Places of `failpoint::ALL` that no cell has reached.
    pub places_never_reached: Vec<&'static str>,
    /// Every cell.
    pub cells: Vec<Outcome>,
}

impl Report {
    /// Of these outcomes.
    #[must_use]
    pub fn new(options: &Options, outcomes: Vec<(Cell, Outcome)>, took: Duration) -> Self {
        let count = |is: &dyn Fn(&Outcome) -> bool| outcomes.iter().filter(|(_, o)| is(o)).count();
        let by_victim = |cell: &Cell| match &cell.fault {
            Fault::Own(_) => format!("{} ({})", step_of(cell).0, cell.fault),
            _ => cell.fault.to_string(),
        };
        let reached = |place: &&&str| {
            !outcomes.iter().any(|(cell, outcome)| cell.place == **place && outcome.reached)
        };
        Self {
            seed: options.seed,
            seconds: took.as_secs(),
            planned: options.cells.len(),
            run: outcomes.len(),
            passed: count(&|o| o.problems.is_empty()),
            not_reached: count(&|o| !o.reached),
            not_runnable: NOT_RUNNABLE
                .iter()
                .map(|(name, why)| ((*name).to_owned(), (*why).to_owned()))
                .collect(),
            left_frozen: outcomes.iter().map(|(_, o)| o.left_frozen).sum(),
            left_locked: outcomes.iter().map(|(_, o)| o.left_locked).sum(),
            false_application: count(&|o| o.false_application),
            recoveries: recoveries(&outcomes, |o| &o.recoveries_ns, by_victim),
            recoveries_by_step: recoveries(&outcomes, |o| &o.recoveries_ns, |cell| step_of(cell).1),
            commits: recoveries(&outcomes, |o| &o.commits_ns, by_victim),
            places_never_reached: stillpoint::failpoint::ALL
                .iter()
                .filter(reached)
                .copied()
                .collect(),
            cells: outcomes.into_iter().map(|(_, outcome)| outcome).collect(),
        }
    }

    /// Every cell that was run kept every promise.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.passed == self.run && self.left_frozen + self.left_locked + self.false_application == 0
    }

    /// The table, as Markdown.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        let mut line = |what: &str, value: String| {
            let _ = writeln!(text, "| {what} | {value} |");
        };
        line("fault matrix", format!("seed {}, {} s", self.seed, self.seconds));
        line("---", "---".to_owned());
        line("cells planned", self.planned.to_string());
        line("cells run", self.run.to_string());
        line("passed", self.passed.to_string());
        line("of these ended before the fault's place", self.not_reached.to_string());
        line("not runnable here", self.not_runnable.len().to_string());
        line("left frozen", self.left_frozen.to_string());
        line("left locked", self.left_locked.to_string());
        line("false `application`", self.false_application.to_string());
        let bound = 300.0 / f64::from(u32::try_from(self.run.max(1)).unwrap_or(u32::MAX));
        line("0 of n is, at 95 %, less than", format!("{bound:.2} %"));
        line("places never reached", self.places_never_reached.join(", "));
        for (title, recoveries) in [
            ("kill → writable, by fault", &self.recoveries),
            ("kill → writable, by step", &self.recoveries_by_step),
            ("kill → a client commits", &self.commits),
        ] {
            let _ = writeln!(
                text,
                "\n| {title} | n | median ms | p99 ms | max ms |\n|---|---|---|---|---|"
            );
            for Recovery { what, times } in recoveries {
                let Summary { n, median_ms, p99_ms, max_ms } = times;
                let _ =
                    writeln!(text, "| {what} | {n} | {median_ms:.1} | {p99_ms:.1} | {max_ms:.1} |");
            }
        }
        let _ = writeln!(text, "\n| not runnable here | why |\n|---|---|");
        for (name, why) in &self.not_runnable {
            let _ = writeln!(text, "| {name} | {why} |");
        }
        text
    }
}

/// Process and step of a cell's place.
fn step_of(cell: &Cell) -> (String, String) {
    let mut parts = cell.place.split('.');
    let process = parts.next().unwrap_or_default().to_owned();
    (process, parts.next().unwrap_or("run").to_owned())
}

fn recoveries(
    outcomes: &[(Cell, Outcome)],
    times: impl Fn(&Outcome) -> &Vec<u64>,
    key: impl Fn(&Cell) -> String,
) -> Vec<Recovery> {
    let mut all: BTreeMap<String, Vec<Duration>> = BTreeMap::new();
    for (cell, outcome) in outcomes {
        let times = times(outcome).iter().map(|ns| Duration::from_nanos(*ns));
        for name in [key(cell), "all".to_owned()] {
            all.entry(name).or_default().extend(times.clone());
        }
    }
    all.into_iter()
        .filter(|(_, times)| !times.is_empty())
        .map(|(what, times)| Recovery {
            what,
            times: times.into_iter().collect::<Durations>().summary(),
        })
        .collect()
}
