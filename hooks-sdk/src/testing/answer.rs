//! What a fake server answers.

use std::time::Duration;

use crate::sql::{Column, DbError, Error, RowSet, Value};

/// A statement as the fake server gets it.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    /// The session's number, from 1 in the order of opening.
    pub session: u32,
    /// Its text, white space folded.
    pub text: String,
    /// Its parameters.
    pub params: Vec<Value>,
    /// The time-out that the hook gave, if it gave one.
    pub timeout: Option<Duration>,
}

/// A program as the fake host is asked to run it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramRun {
    /// Its arguments.
    pub args: Vec<String>,
    /// What it reads.
    pub stdin: Option<Vec<u8>>,
    /// The time-out that the hook gave, if it gave one.
    pub timeout: Option<Duration>,
}

/// The answer to a statement: rows, a count, an error; at once or after a while.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub(super) outcome: Result<Rows, Error>,
    pub(super) delay: Duration,
}

/// Rows or a count: `query` and `execute` each take of it what they need.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rows {
    pub(super) set: RowSet,
    pub(super) affected: u64,
}

impl Answer {
    /// Rows under these column names.
    #[must_use]
    pub fn rows<const N: usize>(
        columns: &[&str; N],
        rows: impl IntoIterator<Item = [Value; N]>,
    ) -> Self {
        let column = |name: &&str| Column { name: (*name).into(), db_type: String::new() };
        Self::from_outcome(Ok(Rows {
            set: RowSet {
                columns: columns.iter().map(column).collect(),
                rows: rows.into_iter().map(Vec::from).collect(),
                truncated: false,
            },
            affected: 0,
        }))
    }

    /// A statement without rows that did this to so many rows.
    #[must_use]
    pub fn affected(rows: u64) -> Self {
        let set = RowSet { columns: vec![], rows: vec![], truncated: false };
        let affected = rows;
        Self::from_outcome(Ok(Rows { set, affected }))
    }

    /// An error of the server. The session stays open.
    #[must_use]
    pub fn error(vendor_code: i32, sqlstate: &str, message: &str) -> Self {
        Self::from_outcome(Err(Error::Database(DbError {
            sqlstate: sqlstate.into(),
            vendor_code,
            message: message.into(),
            extras: vec![],
        })))
    }

    /// The connection is lost; the session is gone.
    #[must_use]
    pub fn lost() -> Self {
        Self::from_outcome(Err(Error::ConnectionLost("the server closed the connection".into())))
    }

    /// The statement is not granted.
    #[must_use]
    pub fn denied() -> Self {
        Self::from_outcome(Err(Error::Denied("the statement is not granted".into())))
    }

    /// An answer that never comes: the statement runs into its time-out, and the host closes the
    /// session.
    #[must_use]
    pub fn never() -> Self {
        Self::affected(0).after(Duration::MAX)
    }

    /// The rows were cut at the host's limit.
    #[must_use]
    pub fn truncated(mut self) -> Self {
        if let Ok(rows) = &mut self.outcome {
            rows.set.truncated = true;
        }
        self
    }

    /// The answer comes after this time. If the time-out is shorter, it runs out: the session is
    /// closed.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    fn from_outcome(outcome: Result<Rows, Error>) -> Self {
        Answer { outcome, delay: Duration::ZERO }
    }
}
