//! What came of many failed system calls, as a table for people.

use std::collections::BTreeMap;
use std::fmt;

use super::nth::{Mode, Outcome, Role};

/// All outcomes so far.
#[derive(Clone, Debug, Default)]
pub struct Outcomes(Vec<Outcome>);

impl Outcomes {
    /// One more.
    pub fn add(&mut self, outcome: Outcome) {
        self.0.push(outcome);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// How many of them are as they must not be.
    #[must_use]
    pub fn violated(&self) -> usize {
        self.0.iter().filter(|outcome| !outcome.violations.is_empty()).count()
    }
}

impl fmt::Display for Outcomes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut by_kind: BTreeMap<&str, BTreeMap<(Role, Mode, &str), usize>> = BTreeMap::new();
        let mut ends: BTreeMap<(Role, Mode), BTreeMap<&str, usize>> = BTreeMap::new();
        for outcome in &self.0 {
            let (role, mode) = (outcome.fault.role, outcome.fault.mode);
            *ends.entry((role, mode)).or_default().entry(&outcome.end).or_default() += 1;
            let name = outcome.failed.map_or("(none: the run was shorter)", |(kind, _)| kind.name);
            *by_kind.entry(name).or_default().entry((role, mode, &outcome.end)).or_default() += 1;
        }
        for (kind, ends) in by_kind {
            let runs: usize = ends.values().sum();
            let mut by_end: BTreeMap<&str, usize> = BTreeMap::new();
            for ((_, _, end), count) in &ends {
                *by_end.entry(end).or_default() += count;
            }
            let by_end: Vec<_> = by_end.iter().map(|(end, n)| format!("{end} {n}")).collect();
            writeln!(f, "{kind:<28} {runs:>5} runs: {}", by_end.join(", "))?;
        }
        for ((role, mode), ends) in ends {
            let ends: Vec<_> = ends.iter().map(|(end, n)| format!("{end} {n}")).collect();
            writeln!(f, "{role:?}, {mode:?}: {}", ends.join(", "))?;
        }
        let failed: usize = self.0.iter().map(|outcome| outcome.count).sum();
        for outcome in self.0.iter().filter(|outcome| !outcome.violations.is_empty()) {
            writeln!(f, "wrong: {outcome}")?;
        }
        writeln!(
            f,
            "calls failed: {failed}; runs with anything wrong: {} of {}",
            self.violated(),
            self.count()
        )
    }
}
