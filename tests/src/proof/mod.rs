//! The long proof: many snapshots of a busy database, each restored and examined, and counted.

mod controls;

use std::fmt;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::oracle::Violation;
use crate::servers::machine::Proof;
use crate::servers::{Kind, Machine};
use crate::stats::{Durations, millis};

pub use controls::{Control, Left, mariadb_control, postgresql_control};

/// After so many snapshots the images lie in more pieces than a disk's snapshots would leave it in.
const ROUNDS_OF_A_LAB: usize = 25;

/// A lab's life; then its watchdog ends it.
const LONGEST: Duration = Duration::from_secs(900);

/// What came of one snapshot.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    /// Which database, and how its hook quiesces it.
    pub database: String,
    /// Counts from 1.
    pub number: usize,
    /// What the manifest says, or why there is none.
    pub level: String,
    /// The codes of the reasons, if the level is lower.
    pub reasons: Vec<String>,
    /// What the copy has that must not be so.
    pub violations: Vec<String>,
    /// It is what the run says, and took more of a start than is promised: no false claim.
    pub beyond: Vec<String>,
    /// Rows in the copy.
    pub rows: u64,
    /// Commits that were acknowledged before, and so had to be there.
    pub had_to_be_there: u64,
    /// Commits that were begun after, and so could not be there.
    pub could_not_be_there: u64,
    /// Bytes that were redone when the server started on the copy.
    pub redone: Option<u64>,
    /// The longest commit of a client that the run overlaps, in milliseconds.
    pub worst_commit_ms: f64,
}

impl Round {
    /// Called `application`, and it is.
    #[must_use]
    pub fn is_proved(&self) -> bool {
        self.level == "application"
            && self.violations.is_empty()
            && self.beyond.is_empty()
            && self.had_to_be_there > 0
            && self.could_not_be_there > 0
    }

    /// Called `application`, and it is not: the one thing that must not be.
    #[must_use]
    pub fn is_false_claim(&self) -> bool {
        self.level == "application" && !self.violations.is_empty()
    }

    fn of(kind: Kind, number: usize, proof: Proof) -> Result<Self> {
        let mut round = Self::nothing(kind, number, proof.manifest.level()?.to_owned());
        round.reasons = proof.manifest.reason_codes()?;
        for (verdict, history) in proof.databases {
            for violation in &verdict.violations {
                match violation {
                    Violation::Redo { .. } => round.beyond.push(violation.to_string()),
                    untrue => round.violations.push(untrue.to_string()),
                }
            }
            round.rows += verdict.rows;
            round.had_to_be_there += verdict.had_to_be_there;
            round.could_not_be_there += verdict.could_not_be_there;
            round.redone = verdict.redone;
            round.worst_commit_ms = millis(history.durations_in(proof.whole).max());
        }
        Ok(round)
    }

    fn nothing(kind: Kind, number: usize, level: String) -> Self {
        Self {
            database: kind.to_string(),
            number,
            level,
            reasons: Vec::new(),
            violations: Vec::new(),
            beyond: Vec::new(),
            rows: 0,
            had_to_be_there: 0,
            could_not_be_there: 0,
            redone: None,
            worst_commit_ms: 0.0,
        }
    }
}

/// As many snapshots of one database as are asked for; each goes to `told` as it is proved.
///
/// # Errors
/// If a lab cannot be made or removed. What went wrong with a snapshot is in its round.
pub async fn prove(kind: Kind, rounds: usize, mut told: impl FnMut(&Round)) -> Result<Vec<Round>> {
    let mut done = Vec::with_capacity(rounds);
    let mut machine = None;
    for number in 1..=rounds {
        let here = match machine.take() {
            Some(machine) => machine,
            None => Machine::new(&[kind], LONGEST)?,
        };
        let round = match here.prove(&format!("proof-{number}")).await {
            Ok(proof) => Round::of(kind, number, proof)?,
            Err(error) => Round::nothing(kind, number, format!("none: {error:#}")),
        };
        told(&round);
        let goes_on = round.is_proved() && number % ROUNDS_OF_A_LAB != 0;
        let failed = round.level.starts_with("none");
        done.push(round);
        if goes_on {
            machine = Some(here);
        } else if !failed {
            here.finish()?;
        }
    }
    if let Some(machine) = machine {
        machine.finish()?;
    }
    Ok(done)
}

/// The rounds of one database in figures.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Which.
    pub database: String,
    /// Snapshots tried.
    pub snapshots: usize,
    /// Called `application`, restored, and found to be that.
    pub proved: usize,
    /// Called `application`, and found not to be.
    pub false_claims: usize,
    /// Commits that had to be there, of all.
    pub had_to_be_there: u64,
    /// Commits that could not be there, of all.
    pub could_not_be_there: u64,
    /// Bytes redone at the start on the copy: median and greatest, of those that tell.
    pub redone: Option<(u64, u64)>,
    /// Clients' longest commit during a run: median and greatest, in milliseconds.
    pub worst_commit_ms: (f64, f64),
}

impl Summary {
    /// Of the rounds of one database.
    #[must_use]
    pub fn of(kind: Kind, rounds: &[Round]) -> Self {
        let mut redone: Vec<u64> = rounds.iter().filter_map(|round| round.redone).collect();
        redone.sort_unstable();
        let middle = redone.get(redone.len().saturating_sub(1) / 2).copied();
        let worst: Durations = rounds
            .iter()
            .map(|round| Duration::from_secs_f64(round.worst_commit_ms / 1e3))
            .collect();
        Self {
            database: kind.to_string(),
            snapshots: rounds.len(),
            proved: rounds.iter().filter(|round| round.is_proved()).count(),
            false_claims: rounds.iter().filter(|round| round.is_false_claim()).count(),
            had_to_be_there: rounds.iter().map(|round| round.had_to_be_there).sum(),
            could_not_be_there: rounds.iter().map(|round| round.could_not_be_there).sum(),
            redone: middle.zip(redone.last().copied()),
            worst_commit_ms: (millis(worst.median()), millis(worst.max())),
        }
    }

    /// Every one of them was proved.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.proved == self.snapshots && self.snapshots > 0
    }

    /// The header of the table that [`Summary`]'s lines make.
    pub const HEADER: &str = "| database | proved | false claims | commits that had to be there, and \
        could not | redone at the start, median (max), bytes | clients' worst commit, median (max), ms |\n\
        |---|--:|--:|--:|--:|--:|";
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let redone = self
            .redone
            .map_or_else(|| "not told".to_owned(), |(middle, most)| format!("{middle} ({most})"));
        write!(
            f,
            "| {} | {} of {} | {} | {}, {} | {redone} | {:.1} ({:.1}) |",
            self.database,
            self.proved,
            self.snapshots,
            self.false_claims,
            self.had_to_be_there,
            self.could_not_be_there,
            self.worst_commit_ms.0,
            self.worst_commit_ms.1,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, Round, Summary};

    fn round(level: &str, violations: &[&str], redone: u64) -> Round {
        Round {
            violations: violations.iter().map(ToString::to_string).collect(),
            had_to_be_there: 10,
            could_not_be_there: 5,
            redone: Some(redone),
            ..Round::nothing(Kind::MariaDb, 1, level.to_owned())
        }
    }

    #[test]
    fn a_lower_level_is_not_proved_and_no_false_claim() {
        let rounds = [
            round("application", &[], 7),
            round("file-system", &["lost"], 9),
            round("application", &["lost"], 8),
        ];
        let summary = Summary::of(Kind::MariaDb, &rounds);
        assert_eq!((summary.snapshots, summary.proved, summary.false_claims), (3, 1, 1));
        assert_eq!(summary.redone, Some((8, 9)));
        assert!(!summary.is_all());
    }

    #[test]
    fn what_could_prove_nothing_is_not_proved() {
        let nothing = Round { could_not_be_there: 0, ..round("application", &[], 0) };
        assert!(!nothing.is_proved() && !nothing.is_false_claim());
        assert!(!Summary::of(Kind::MariaDb, &[]).is_all());
    }
}
