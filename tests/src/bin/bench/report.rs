//! What was measured, for people and for programs.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use stillpoint_tests::command::run;
use stillpoint_tests::lab::Lab;
use stillpoint_tests::stats::{Durations, Summary, millis};

use crate::machine::Machine;

/// How many file systems are frozen.
pub const COUNTS: [usize; 3] = [1, 4, 16];

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    machine: Machine,
    seed: u64,
    quick: bool,
    rows: Vec<Row>,
    values: Vec<Value>,
    ratios: Vec<Ratio>,
    promises: Vec<Promise>,
    extents: Vec<Extents>,
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

/// Ours over a peer's, in one run.
#[derive(Debug, Serialize)]
struct Ratio {
    what: String,
    peer: String,
    ours_ms: f64,
    peer_ms: f64,
    /// Of the medians.
    ratio: f64,
    /// Of each round: the least and the greatest.
    least: f64,
    greatest: f64,
    n: usize,
    limit: Option<f64>,
    met: bool,
}

/// In how many pieces the images under the file systems are: each clone takes longer for it.
#[derive(Debug, Serialize)]
struct Extents {
    part: String,
    moment: String,
    /// Of the images of one lab.
    images: usize,
    all: u64,
    most: u64,
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
    pub fn new(quick: bool, seed: u64) -> Result<Self> {
        Ok(Self {
            machine: Machine::now()?,
            seed,
            quick,
            rows: Vec::new(),
            values: Vec::new(),
            ratios: Vec::new(),
            promises: Vec::new(),
            extents: Vec::new(),
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

    /// Medians of ours over a peer's, which must not be more than `limit`. Both are in the order of
    /// the rounds.
    pub fn ratio(
        &mut self,
        what: &str,
        peer: &str,
        ours: &[Duration],
        theirs: &[Duration],
        limit: Option<f64>,
    ) {
        let over = |ours: Duration, theirs: Duration| millis(ours) / millis(theirs).max(1e-6);
        let median = |all: &[Duration]| all.iter().copied().collect::<Durations>().median();
        let rounds = ours.iter().zip(theirs).map(|(ours, theirs)| over(*ours, *theirs));
        let (mut least, mut greatest) = (f64::INFINITY, 0.0_f64);
        for ratio in rounds {
            (least, greatest) = (least.min(ratio), greatest.max(ratio));
        }
        let (ours_median, peer_median) = (median(ours), median(theirs));
        let ratio = over(ours_median, peer_median);
        self.ratios.push(Ratio {
            what: what.into(),
            peer: peer.into(),
            ours_ms: millis(ours_median),
            peer_ms: millis(peer_median),
            ratio,
            least,
            greatest,
            n: ours.len().min(theirs.len()),
            limit,
            met: limit.is_none_or(|limit| ratio <= limit),
        });
    }

    /// Looks at the images of a lab, as `filefrag` counts them.
    pub fn extents(&mut self, part: &str, moment: &str, lab: &Lab) -> Result<()> {
        // What is written and not yet allocated has no extents yet.
        run("sync", [std::path::Path::new("-f"), &lab.host()])?;
        let mut counts = Vec::new();
        for fs in lab.file_systems() {
            counts.push(count_extents(&run("filefrag", [&fs.image])?)?);
        }
        self.extents.push(Extents {
            part: part.into(),
            moment: moment.into(),
            images: counts.len(),
            all: counts.iter().sum(),
            most: counts.iter().copied().max().unwrap_or(0),
        });
        Ok(())
    }

    /// Looks at how busy the machine is; at the end, again.
    pub fn end(&mut self) -> Result<()> {
        self.machine.end()
    }

    /// A quick run is not judged: it has too few rounds.
    pub fn met(&self) -> bool {
        let promises = self.promises.iter().all(|promise| promise.met);
        self.quick || (promises && self.ratios.iter().all(|ratio| ratio.met))
    }

    pub fn json(&self) -> Result<String> {
        serde_json::to_string_pretty(self).context("cannot be written as JSON")
    }

    /// As it stands in PERFORMANCE.md.
    pub fn markdown(&self) -> String {
        let mut text = format!("{}\n\nSeed of the orders: {}.\n", self.machine, self.seed);
        if self.quick {
            text.push_str("\nA quick run: too few rounds to quote.\n");
        }
        self.write_rows(&mut text);
        text.push_str("\nOf fewer than 100 values the p99 is the greatest.\n");
        self.write_ratios(&mut text);
        self.write_promises(&mut text);
        self.write_rest(&mut text);
        text
    }

    fn write_rows(&self, text: &mut String) {
        let mut section = "";
        for row in &self.rows {
            if row.section != section {
                section = &row.section;
                let _ = write!(
                    text,
                    "\n### {section}\n\n| case | method | what | n | median ms | p99 ms | max ms |\n|---|---|---|--:|--:|--:|--:|\n"
                );
            }
            let Summary { n, median_ms, p99_ms, max_ms } = row.summary;
            let _ = writeln!(
                text,
                "| {} | {} | {} | {n} | {median_ms:.2} | {p99_ms:.2} | {max_ms:.2} |",
                row.case, row.method, row.what
            );
        }
    }

    fn write_ratios(&self, text: &mut String) {
        if self.ratios.is_empty() {
            return;
        }
        text.push_str(
            "\n### Ours over a peer's\n\nOf medians; least and greatest of single rounds.\n\n\
             | what | peer | n | ours ms | peer's ms | ratio | of single rounds | limit | |\n\
             |---|---|--:|--:|--:|--:|--:|--:|---|\n",
        );
        for ratio in &self.ratios {
            let Ratio { what, peer, ours_ms, peer_ms, least, greatest, n, limit, met, .. } = ratio;
            let ratio = ratio.ratio;
            let (limit, word) = match limit {
                Some(limit) => (format!("{limit}"), if *met { "met" } else { "**missed**" }),
                None => (String::new(), ""),
            };
            let _ = writeln!(
                text,
                "| {what} | {peer} | {n} | {ours_ms:.2} | {peer_ms:.2} | {ratio:.4} | {least:.4}–{greatest:.4} | {limit} | {word} |"
            );
        }
    }

    fn write_promises(&self, text: &mut String) {
        if self.promises.is_empty() {
            return;
        }
        text.push_str("\n### Other limits\n\n| what | measured | limit | |\n|---|--:|--:|---|\n");
        for Promise { what, value, limit, unit, met } in &self.promises {
            let word = if *met { "met" } else { "**missed**" };
            let _ = writeln!(text, "| {what} | {value:.2} {unit} | {limit:.2} {unit} | {word} |");
        }
    }

    fn write_rest(&self, text: &mut String) {
        if !self.values.is_empty() {
            text.push_str("\n### The program\n\n| what | value |\n|---|--:|\n");
        }
        for Value { what, value, unit } in &self.values {
            let _ = writeln!(text, "| {what} | {value:.1} {unit} |");
        }
        if !self.extents.is_empty() {
            text.push_str(
                "\n### Extents of the backing images\n\n\
                 | part | moment | images | extents of all | of the worst |\n|---|---|--:|--:|--:|\n",
            );
        }
        for Extents { part, moment, images, all, most } in &self.extents {
            let _ = writeln!(text, "| {part} | {moment} | {images} | {all} | {most} |");
        }
        for note in &self.notes {
            let _ = write!(text, "\n{note}\n");
        }
    }
}

/// Of `IMAGE: 12 extents found`.
fn count_extents(text: &str) -> Result<u64> {
    let count = text.rsplit(": ").next().and_then(|rest| rest.split_whitespace().next());
    count.and_then(|count| count.parse().ok()).with_context(|| format!("not filefrag's: {text}"))
}
