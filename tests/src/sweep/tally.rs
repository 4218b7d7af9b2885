//! What came of many rounds, as a table for people.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::kills::{Round, Shot};
use crate::stats::{Durations, millis};

/// All rounds so far.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    rounds: Vec<Round>,
}

impl Tally {
    /// One more.
    pub fn add(&mut self, round: Round) {
        self.rounds.push(round);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.rounds.len()
    }

    /// Rounds in which something was as it must not be.
    #[must_use]
    pub fn violated(&self) -> Vec<&Round> {
        self.rounds.iter().filter(|round| !round.violations.is_empty()).collect()
    }
}

/// The slowest file system of each round, for those rounds in which a process ended.
fn slowest<'a>(rounds: impl Iterator<Item = &'a Round>) -> Durations {
    rounds.filter_map(|r| r.recovery_us.iter().max()).map(|us| Duration::from_micros(*us)).collect()
}

/// With nothing seen in `n` tries, the share is below this with a confidence of 95 %.
fn rule_of_three(n: usize) -> f64 {
    // Exact enough far beyond any number of rounds.
    #[expect(clippy::cast_precision_loss, reason = "a count of rounds")]
    let n = n.max(1) as f64;
    300.0 / n
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut by_shot: BTreeMap<Shot, Vec<&Round>> = BTreeMap::new();
        for round in &self.rounds {
            by_shot.entry(round.shot).or_default().push(round);
        }
        writeln!(
            f,
            "{:<28} {:>6} {:>7} {:>9} {:>9} {:>9}  wrong",
            "signal, to whom", "rounds", "frozen", "median ms", "p99 ms", "max ms"
        )?;
        let all = (String::from("all"), self.rounds.iter().collect());
        let rows = by_shot.into_iter().map(|(shot, rounds)| (shot.to_string(), rounds));
        for (name, rounds) in rows.chain([all]) {
            let times = slowest(rounds.iter().copied());
            writeln!(
                f,
                "{name:<28} {:>6} {:>7} {:>9.2} {:>9.2} {:>9.2}  {}",
                rounds.len(),
                rounds.iter().filter(|round| round.frozen).count(),
                millis(times.median()),
                millis(times.p99()),
                millis(times.max()),
                rounds.iter().filter(|round| !round.violations.is_empty()).count(),
            )?;
        }
        let clients: Durations =
            self.rounds.iter().filter_map(|r| r.client_us).map(Duration::from_micros).collect();
        if clients.count() > 0 {
            writeln!(f, "database, agent's end to the next commit: {clients}")?;
        }
        let thaws = self.rounds.iter().filter(|r| r.shot.may_hit_a_thaw()).count();
        let turned = self.rounds.iter().filter(|r| !r.read_only.is_empty()).count();
        writeln!(
            f,
            "btrfs forced read-only by the kernel: {turned}; SIGKILL to guard or sentinel: {thaws}"
        )?;
        let violated = self.violated();
        for round in &violated {
            writeln!(
                f,
                "round {}, {} {}: {}",
                round.number,
                round.shot,
                round.moment,
                round.violations.join("; ")
            )?;
        }
        let n = self.count();
        write!(f, "rounds with anything wrong: {} of {n}", violated.len())?;
        if violated.is_empty() {
            write!(f, " (with 95 % confidence below {:.3} % of runs)", rule_of_three(n))?;
        }
        writeln!(f)
    }
}
