//! What was measured, for people and for programs.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde::Serialize;
use stillpoint_tests::command::run;
use stillpoint_tests::stats::{Durations, Summary};

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    machine: String,
    quick: bool,
    rows: Vec<Row>,
    values: Vec<Value>,
    promises: Vec<Promise>,
    notes: Vec<String>,
}

/// One set of durations.
#[derive(Debug, Serialize)]
struct Row {
    section: String,
    case: String,
    method: String,
    what: String,
    #[serde(flatten)]
    summary: Summary,
}

/// One number that is no duration.
#[derive(Debug, Serialize)]
struct Value {
    what: String,
    value: f64,
    unit: String,
}

/// A limit of the project's own.
#[derive(Debug, Serialize)]
struct Promise {
    what: String,
    value: f64,
    limit: f64,
    unit: String,
    met: bool,
}

impl Report {
    pub fn new(quick: bool) -> Result<Self> {
        let kernel = run("uname", ["-sr"])?;
        let cpus = std::thread::available_parallelism().context("how many CPUs?")?;
        let machine = format!("{}, {cpus} CPUs", kernel.trim());
        Ok(Self {
            machine,
            quick,
            rows: Vec::new(),
            values: Vec::new(),
            promises: Vec::new(),
            notes: Vec::new(),
        })
    }

    pub fn add(&mut self, section: &str, case: &str, method: &str, what: &str, set: &Durations) {
        self.rows.push(Row {
            section: section.into(),
            case: case.into(),
            method: method.into(),
            what: what.into(),
            summary: set.summary(),
        });
    }

    pub fn value(&mut self, what: &str, value: f64, unit: &str) {
        self.values.push(Value { what: what.into(), value, unit: unit.into() });
    }

    pub fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// `value` must not be more than `limit`.
    pub fn at_most(&mut self, what: &str, value: f64, limit: f64, unit: &str) {
        let met = value <= limit;
        self.promises.push(Promise { what: what.into(), value, limit, unit: unit.into(), met });
    }

    /// `value` must not be less than `limit`.
    pub fn at_least(&mut self, what: &str, value: f64, limit: f64, unit: &str) {
        let met = value >= limit;
        self.promises.push(Promise { what: what.into(), value, limit, unit: unit.into(), met });
    }

    /// A quick run is not judged: it has too few rounds.
    pub fn met(&self) -> bool {
        self.quick || self.promises.iter().all(|promise| promise.met)
    }

    pub fn json(&self) -> Result<String> {
        serde_json::to_string_pretty(self).context("cannot be written as JSON")
    }

    pub fn markdown(&self) -> String {
        let mut text = format!("# stillpoint bench\n\n{}\n", self.machine);
        if self.quick {
            text.push_str("\nA quick run: too few rounds to quote.\n");
        }
        let mut section = "";
        for row in &self.rows {
            if row.section != section {
                section = &row.section;
                let _ = write!(
                    text,
                    "\n## {section}\n\n| case | method | what | n | median ms | p99 ms | max ms |\n|---|---|---|--:|--:|--:|--:|\n"
                );
            }
            let Summary { n, median_ms, p99_ms, max_ms } = row.summary;
            let _ = writeln!(
                text,
                "| {} | {} | {} | {n} | {median_ms:.2} | {p99_ms:.2} | {max_ms:.2} |",
                row.case, row.method, row.what
            );
        }
        text.push_str("\nOf fewer than 100 values the p99 is the greatest.\n");
        if !self.values.is_empty() {
            text.push_str("\n## The program\n\n| what | value |\n|---|--:|\n");
        }
        for Value { what, value, unit } in &self.values {
            let _ = writeln!(text, "| {what} | {value:.1} {unit} |");
        }
        text.push_str(
            "\n## What is promised\n\n| what | measured | limit | |\n|---|--:|--:|---|\n",
        );
        for Promise { what, value, limit, unit, met } in &self.promises {
            let word = if *met { "met" } else { "NOT MET" };
            let _ = writeln!(text, "| {what} | {value:.2} {unit} | {limit:.2} {unit} | {word} |");
        }
        for note in &self.notes {
            let _ = write!(text, "\n{note}\n");
        }
        text
    }
}
