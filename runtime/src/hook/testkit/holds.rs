//! What a statement takes, and which one gives it back: so that a run can be asked what is held.
//!
//! The usual locks of the engines are known; what else a hook takes is told in its script (`[[holds]]`).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::text::folded;
use crate::capability::sql::Value;

/// What a hook takes, and how it gives that back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldRule {
    /// The statement that takes it contains this, in any case and with white space folded.
    pub begin: String,
    /// A statement that gives it back contains one of these.
    pub end: Vec<String>,
    /// What it ends with if nobody gives it back.
    pub lives_in: LivesIn,
}

/// What a hold is tied to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LivesIn {
    /// The session: its end is the end of the hold.
    Session,
    /// The server: somebody has to give it back.
    Server,
}

const SESSION: LivesIn = LivesIn::Session;
const SERVER: LivesIn = LivesIn::Server;

/// The usual ones. `SET GLOBAL read_only` and the like have two spellings of each value.
const KNOWN: &[(&str, &[&str], LivesIn)] = &[
    // MariaDB, MySQL, Percona Server
    ("BACKUP STAGE START", &["BACKUP STAGE END"], SESSION),
    ("BACKUP LOCK", &["BACKUP UNLOCK"], SESSION),
    ("TABLES WITH READ LOCK", &["UNLOCK TABLES"], SESSION),
    ("LOCK TABLES", &["UNLOCK TABLES"], SESSION),
    ("LOCK INSTANCE FOR BACKUP", &["UNLOCK INSTANCE"], SESSION),
    ("LOCK BINLOG FOR BACKUP", &["UNLOCK BINLOG"], SESSION),
    ("SELECT GET_LOCK(", &["RELEASE_LOCK(", "RELEASE_ALL_LOCKS("], SESSION),
    (
        "SET GLOBAL READ_ONLY = 1",
        &["SET GLOBAL READ_ONLY = 0", "SET GLOBAL READ_ONLY = OFF"],
        SERVER,
    ),
    (
        "SET GLOBAL READ_ONLY = ON",
        &["SET GLOBAL READ_ONLY = 0", "SET GLOBAL READ_ONLY = OFF"],
        SERVER,
    ),
    ("STOP SLAVE", &["START SLAVE"], SERVER),
    ("STOP REPLICA", &["START REPLICA"], SERVER),
    ("STOP ALL SLAVES", &["START ALL SLAVES"], SERVER),
    // PostgreSQL
    ("PG_BACKUP_START(", &["PG_BACKUP_STOP("], SESSION),
    ("PG_START_BACKUP(", &["PG_STOP_BACKUP("], SESSION),
    ("PG_ADVISORY_LOCK(", &["PG_ADVISORY_UNLOCK"], SESSION),
    ("PG_WAL_REPLAY_PAUSE(", &["PG_WAL_REPLAY_RESUME("], SERVER),
    // Redis
    ("CLIENT PAUSE", &["CLIENT UNPAUSE"], SERVER),
];

/// Where it is an error of the server's to give back what the session does not have; elsewhere that is nothing.
const STRICT: &[&str] = &["PG_BACKUP_START(", "PG_START_BACKUP("];

/// Texts that begin like this only look.
const READS: &[&str] = &[
    "SELECT",
    "SHOW",
    "EXPLAIN",
    "DESCRIBE",
    "DESC ",
    "XA RECOVER",
    "SET SESSION",
    "SET @",
    "SET STATEMENT",
    "USE ",
    "INFO",
    "PING",
    "GET ",
    "MGET ",
    "CONFIG GET",
    "CLIENT ID",
    "CLIENT INFO",
    "CLIENT LIST",
    "LASTSAVE",
    "ROLE",
    "DBSIZE",
    "EVALSHA",
    "WAIT",
    "LRANGE",
    "COMMAND",
    "START TRANSACTION",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "TABLE ",
    "VALUES",
];

/// What is known of statements in one test.
#[derive(Debug)]
pub(super) struct Holds {
    rules: Vec<HoldRule>,
    /// What was worked out before, by statement: the same ones come again and again, and where a hook is
    /// timed, the test is to cost little beside it.
    known: Mutex<HashMap<String, Meaning>>,
}

/// What a statement means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It takes what this rule says.
    Takes(usize),
    /// It gives back what these rules say.
    Gives(Vec<usize>),
    /// It only looks.
    Looks,
    /// It changes something that nobody knows.
    Changes,
}

impl Holds {
    /// The usual ones, behind those that a script tells.
    pub(super) fn with(told: &[HoldRule]) -> Self {
        let known = KNOWN.iter().map(|(begin, end, lives_in)| HoldRule {
            begin: (*begin).to_owned(),
            end: end.iter().map(|text| (*text).to_owned()).collect(),
            lives_in: *lives_in,
        });
        let told = told.iter().map(|rule| HoldRule {
            begin: folded(&rule.begin),
            end: rule.end.iter().map(|text| folded(text)).collect(),
            lives_in: rule.lives_in,
        });
        Self { rules: told.chain(known).collect(), known: Mutex::default() }
    }

    pub(super) fn rule(&self, index: usize) -> &HoldRule {
        &self.rules[index]
    }

    /// Whether a server refuses to give back what was not taken.
    pub(super) fn is_strict(&self, index: usize) -> bool {
        STRICT.contains(&self.rules[index].begin.as_str())
    }

    /// What a statement means with these parameters: a pause of no length is a try, and takes nothing.
    pub(super) fn meaning_of(&self, statement: &str, params: &[Value]) -> Meaning {
        let is_zero = matches!(params.first(), Some(Value::Int64(0) | Value::Uint64(0)));
        match self.meaning(statement) {
            Meaning::Takes(_) if is_zero && folded(statement).starts_with("CLIENT PAUSE") => {
                Meaning::Looks
            }
            meaning => meaning,
        }
    }

    /// What a statement means, whatever its parameters are.
    pub(super) fn meaning(&self, statement: &str) -> Meaning {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(meaning) = known.get(statement) {
            return meaning.clone();
        }
        let meaning = self.worked_out(statement);
        known.insert(statement.to_owned(), meaning.clone());
        meaning
    }

    /// `UNLOCK TABLES` contains `LOCK TABLES`: what gives back is looked for first.
    fn worked_out(&self, statement: &str) -> Meaning {
        let statement = folded(statement);
        let called = without_literals(&statement);
        // `has_function_privilege('pg_backup_stop(boolean)', …)` asks about it, and calls nothing.
        let has = |text: &str| match text.contains('\'') {
            true => statement.contains(text),
            false => called.contains(text),
        };
        let gives = |rule: &HoldRule| rule.end.iter().any(|end| has(end));
        let given: Vec<usize> = self
            .rules
            .iter()
            .enumerate()
            .filter(|(_, rule)| gives(rule))
            .map(|(at, _)| at)
            .collect();
        if !given.is_empty() {
            return Meaning::Gives(given);
        }
        if let Some(taken) = self.rules.iter().position(|rule| has(&rule.begin)) {
            return Meaning::Takes(taken);
        }
        match READS.iter().any(|read| statement.starts_with(read)) {
            true => Meaning::Looks,
            false => Meaning::Changes,
        }
    }
}

/// A statement without what stands in its single quotes; the quotes stay.
fn without_literals(statement: &str) -> String {
    statement.split('\'').step_by(2).collect::<Vec<_>>().join("''")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(statement: &str) -> Option<String> {
        let holds = Holds::with(&[]);
        match holds.meaning(statement) {
            Meaning::Takes(rule) => Some(holds.rule(rule).begin.clone()),
            _ => None,
        }
    }

    #[test]
    fn the_usual_locks_are_known_in_any_spelling() {
        assert_eq!(taken("flush  tables\nwith read lock").unwrap(), "TABLES WITH READ LOCK");
        assert_eq!(taken("BACKUP STAGE START").unwrap(), "BACKUP STAGE START");
        assert_eq!(
            taken("SELECT pg_backup_start('x', true)::text AS lsn").unwrap(),
            "PG_BACKUP_START("
        );
        assert_eq!(taken("CLIENT PAUSE ? WRITE").unwrap(), "CLIENT PAUSE");
    }

    #[test]
    fn what_gives_back_is_not_taken_for_what_takes() {
        let holds = Holds::with(&[]);
        for statement in ["UNLOCK TABLES", "unlock instance", "BACKUP UNLOCK", "CLIENT UNPAUSE"] {
            assert!(matches!(holds.meaning(statement), Meaning::Gives(_)), "{statement}");
        }
        assert_eq!(holds.meaning("SHOW MASTER STATUS"), Meaning::Looks);
        assert_eq!(holds.meaning("BACKUP STAGE BLOCK_COMMIT"), Meaning::Changes);
    }

    #[test]
    fn who_asks_about_a_function_does_not_call_it() {
        let asks = "SELECT has_function_privilege('pg_backup_stop(boolean)', 'EXECUTE') AS stop";
        assert_eq!(Holds::with(&[]).meaning(asks), Meaning::Looks);
        assert!(taken("SELECT pg_backup_start('it''s', true)").is_some());
    }

    #[test]
    fn a_pause_of_no_length_takes_nothing() {
        let holds = Holds::with(&[]);
        let meaning = |params: &[Value]| holds.meaning_of("CLIENT PAUSE ? WRITE", params);
        assert_eq!(meaning(&[Value::Uint64(0)]), Meaning::Looks);
        assert!(matches!(meaning(&[Value::Uint64(1)]), Meaning::Takes(_)));
    }

    #[test]
    fn a_script_tells_what_nobody_knows() {
        let told = HoldRule {
            begin: "insert into holds".into(),
            end: vec!["delete from holds".into()],
            lives_in: LivesIn::Server,
        };
        let holds = Holds::with(&[told]);
        assert_eq!(holds.meaning("INSERT INTO  holds VALUES (1)"), Meaning::Takes(0));
        assert_eq!(holds.meaning("DELETE FROM holds"), Meaning::Gives(vec![0]));
    }
}
