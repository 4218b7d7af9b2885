//! One verifier for each engine: it starts the server on the copy, reads what that logs, asks it for
//! damage, and compares positions.

mod mariadb;
mod mariadb_log;
mod postgresql;
mod postgresql_log;
mod redis;
mod server;

use std::path::{Path, PathBuf};

use super::job::{DatabaseJob, Engine, Event, HookJob};
use super::keeper::tell;
use super::verdict::{Code, DatabaseCheck, Finding, PositionCheck, QueryCheck};
use crate::manifest::{MetadataEntry, MetadataValue};

pub(super) use postgresql::system_identifier;

/// Why a verification cannot go on; that says nothing about the snapshot.
#[derive(Debug)]
pub(super) enum Stop {
    Sandbox { what: String, hint: Option<String> },
    NoDatabase { hook: String },
}

impl Stop {
    fn new(what: impl Into<String>) -> Self {
        Stop::Sandbox { what: what.into(), hint: None }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        match self {
            Stop::Sandbox { what, .. } => Stop::Sandbox { what, hint: Some(hint.into()) },
            other => other,
        }
    }
}

/// What all verifiers work with.
#[derive(Debug)]
pub(super) struct Bench<'a> {
    /// Where copies are mounted: what servers may write to.
    pub(super) places: &'a [PathBuf],
    pub(super) runtime: &'a tokio::runtime::Runtime,
    pub(super) memory_bytes: u64,
}

/// A database of the copy.
#[derive(Debug)]
pub(super) struct Database {
    pub(super) found: DatabaseJob,
    /// User and group that its files belong to: what its server runs as.
    pub(super) owner: (u32, u32),
    /// The hook that quiesced it.
    pub(super) hook: Option<HookJob>,
}

/// Starts it, looks at it, stops it.
pub(super) fn verify(bench: &Bench<'_>, database: &Database) -> Result<(), Stop> {
    let (engine, directory) = (database.found.engine, &database.found.directory);
    tell(&Event::Doing(format!("{} in {}", engine.name(), directory.display())));
    let mut look = Look::new(database);
    match engine {
        Engine::Mariadb => mariadb::verify(bench, database, &mut look)?,
        Engine::Postgresql => postgresql::verify(bench, database, &mut look)?,
        Engine::Redis => redis::verify(bench, database, &mut look)?,
    }
    tell(&Event::Database(Box::new(look.check)));
    Ok(())
}

/// What is known of a database so far.
#[derive(Debug)]
struct Look {
    check: DatabaseCheck,
    subject: String,
    saved: Vec<MetadataEntry>,
    /// A hook proved that it held: redo is what it promises.
    is_answered_for: bool,
}

impl Look {
    fn new(database: &Database) -> Self {
        let directory = database.found.directory.clone();
        let hook = database.hook.as_ref();
        Self {
            subject: directory.display().to_string(),
            check: DatabaseCheck {
                engine: database.found.engine.name().to_owned(),
                directory,
                hook: hook.map(|hook| hook.name.clone()),
                ..DatabaseCheck::default()
            },
            saved: hook.map(|hook| hook.saved.clone()).unwrap_or_default(),
            is_answered_for: hook.is_some_and(|hook| hook.confirmed),
        }
    }

    fn found(&self, code: Code, detail: impl Into<String>) {
        tell(&Event::Found(Finding::new(code, self.subject.as_str(), detail)));
    }

    /// Compares what the hook saved under this name, if it did.
    fn position(&mut self, name: &str, copy: &str) {
        let Some(saved) = saved_text(&self.saved, name) else { return };
        let agrees = saved == copy;
        if !agrees {
            self.found(Code::Position, format!("{name} is {copy}, the manifest says {saved}"));
        }
        self.push_position(name, saved, copy, agrees);
    }

    fn push_position(&mut self, name: &str, saved: String, copy: &str, agrees: bool) {
        let (name, copy) = (name.to_owned(), copy.to_owned());
        self.check.positions.push(PositionCheck { name, saved, copy, agrees });
    }

    fn redo(&mut self, bytes: Option<u64>) {
        self.check.redo_bytes = bytes;
        if let Some(bytes) = bytes.filter(|bytes| *bytes > 0 && !self.is_answered_for) {
            self.found(Code::Redo, format!("{bytes} bytes of the log were applied"));
        }
    }

    fn rolled_back(&mut self, count: u64, detail: &str) {
        self.check.rolled_back += count;
        if count > 0 {
            self.found(Code::RolledBack, format!("{count} transactions were rolled back{detail}"));
        }
    }

    fn in_doubt(&mut self, count: u64, detail: &str) {
        self.check.in_doubt += count;
        if count > 0 {
            self.found(Code::InDoubt, format!("{count} transactions were found prepared{detail}"));
        }
    }

    /// The answer to a query of the operator's.
    fn query(&mut self, query: &super::job::Query, answer: Result<Option<String>, String>) {
        let text = &query.text;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                self.found(Code::Query, format!("{text}: {error}"));
                None
            }
        };
        if let Some(expected) =
            query.expected.as_deref().filter(|it| Some(*it) != answer.as_deref())
        {
            let got = answer.as_deref().unwrap_or("nothing");
            self.found(Code::Query, format!("{text}: the answer is {got}, expected {expected}"));
        }
        self.check.queries.push(QueryCheck {
            query: text.clone(),
            answer,
            expected: query.expected.clone(),
        });
    }
}

/// What was saved under this name, as text.
pub(super) fn saved_text(saved: &[MetadataEntry], key: &str) -> Option<String> {
    let entry = saved.iter().find(|entry| entry.key == key)?;
    Some(match &entry.value {
        MetadataValue::Text(text) | MetadataValue::Bytes(text) => text.clone(),
        MetadataValue::Integer(number) => number.to_string(),
        MetadataValue::Boolean(yes) => yes.to_string(),
    })
}

/// The server's program: the operator's, or the first of those that is there.
fn program(database: &Database, candidates: &[String]) -> Result<PathBuf, Stop> {
    let named = database.found.server.clone().into_iter();
    let mut all = named.chain(candidates.iter().map(PathBuf::from));
    all.find(|path| Path::new(path).is_file()).ok_or_else(|| {
        let engine = database.found.engine.name();
        let looked = candidates.join(", ");
        Stop::new(format!("no server for {engine} is installed here (looked for {looked})")).hint(
            "install the server's package, or name its program: `server` in [[verify.database]]",
        )
    })
}
