//! The fake host's state, and what each call does to it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::LogLine;
use super::answer::{Answer, ProgramRun, Rows, Statement};
use crate::hook::Phase;
use crate::process;
use crate::sql::{Engine, Error, ServerInfo};

/// A server that answers by itself.
pub(super) type Server = Box<dyn FnMut(&Statement, &[u32]) -> Option<Answer>>;
/// A program that the host grants.
pub(super) type Program = Box<dyn FnMut(&ProgramRun) -> Result<process::Output, process::Error>>;

pub(super) struct State {
    connections: BTreeMap<String, Granted>,
    /// Every session that was ever opened; its number is its index + 1.
    sessions: Vec<Session>,
    pub(super) answers: BTreeMap<String, Vec<Answer>>,
    pub(super) server: Option<Server>,
    pub(super) programs: BTreeMap<String, Program>,
    pub(super) kv: BTreeMap<String, Vec<u8>>,
    pub(super) kv_limit: usize,
    pub(super) clock: Duration,
    pub(super) phase: Phase,
    deadline: Duration,
    pub(super) cancel_at: Option<Duration>,
    pub(super) order: Vec<String>,
    pub(super) statements: Vec<Statement>,
    pub(super) log: Vec<LogLine>,
}

#[derive(Clone)]
struct Granted {
    info: ServerInfo,
    refused: Option<String>,
}

struct Session {
    info: ServerInfo,
    open: bool,
}

impl State {
    pub(super) fn new() -> Self {
        let mut state = State {
            connections: BTreeMap::new(),
            sessions: Vec::new(),
            answers: BTreeMap::new(),
            server: None,
            programs: BTreeMap::new(),
            kv: BTreeMap::new(),
            kv_limit: 64 * 1024,
            clock: Duration::ZERO,
            phase: Phase::PreFreeze,
            deadline: Duration::from_secs(60),
            cancel_at: None,
            order: Vec::new(),
            statements: Vec::new(),
            log: Vec::new(),
        };
        state.set_connection("main", Engine::Mariadb, "10.11.19-MariaDB");
        state
    }

    pub(super) fn set_connection(&mut self, name: &str, engine: Engine, version: &str) {
        let info = ServerInfo { engine, version: version.into() };
        let refused = None;
        self.connections.insert(name.into(), Granted { info, refused });
    }

    pub(super) fn refuse(&mut self, name: &str, why: &str) {
        if let Some(connection) = self.connections.get_mut(name) {
            connection.refused = Some(why.into());
        }
    }

    pub(super) fn begin(&mut self, phase: Phase, budget: Duration) {
        self.phase = phase;
        self.deadline = self.clock.saturating_add(budget);
    }

    pub(super) fn remaining(&self) -> Duration {
        self.deadline.saturating_sub(self.clock)
    }

    pub(super) fn cancelled(&self) -> bool {
        self.cancel_at.is_some_and(|at| self.clock >= at)
    }

    /// As the host: to the end of the phase at most, and to the cancellation.
    pub(super) fn sleep(&mut self, duration: Duration) {
        self.order.push(format!("sleep {duration:?}"));
        let mut end = self.clock + duration.min(self.remaining());
        if let Some(cancelled) = self.cancel_at {
            end = end.min(cancelled.max(self.clock));
        }
        self.clock = end;
    }

    pub(super) fn granted(&self) -> Vec<String> {
        self.connections.keys().cloned().collect()
    }

    pub(super) fn open(&mut self, name: &str) -> Result<u32, Error> {
        if matches!(self.phase, Phase::Describe | Phase::Validate) {
            return Err(Error::Denied("no connection may be opened in this phase".into()));
        }
        let Some(connection) = self.connections.get(name).cloned() else {
            return Err(Error::Denied(format!("connection {name} is not granted")));
        };
        if let Some(why) = connection.refused {
            return Err(Error::Unavailable(why));
        }
        self.sessions.push(Session { info: connection.info, open: true });
        let number = u32::try_from(self.sessions.len()).unwrap_or(u32::MAX);
        self.order.push(format!("open {number} {name}"));
        Ok(number)
    }

    pub(super) fn session_info(&self, number: u32) -> ServerInfo {
        let unknown = || ServerInfo { engine: Engine::Other, version: String::new() };
        self.session(number).map_or_else(unknown, |session| session.info.clone())
    }

    pub(super) fn is_open(&self, number: u32) -> bool {
        self.session(number).is_some_and(|session| session.open)
    }

    pub(super) fn open_sessions(&self) -> Vec<u32> {
        let numbered = (1..).zip(&self.sessions);
        numbered.filter(|(_, session)| session.open).map(|(number, _)| number).collect()
    }

    /// The hook dropped it.
    pub(super) fn close(&mut self, number: u32) {
        self.order.push(format!("close {number}"));
        self.end(number);
    }

    /// The server or the host ended it.
    pub(super) fn kill(&mut self, number: u32) {
        self.order.push(format!("killed {number}"));
        self.end(number);
    }

    /// Records a statement that is about to run.
    pub(super) fn begin_statement(&mut self, statement: &Statement) -> Result<(), Error> {
        if !self.is_open(statement.session) {
            return Err(lost());
        }
        self.order.push(format!("{} {}", statement.session, statement.text));
        self.statements.push(statement.clone());
        Ok(())
    }

    /// What the script has for it: the first answer that was not used yet; the last one stays.
    pub(super) fn scripted(&mut self, text: &str) -> Option<Answer> {
        let answers = self.answers.get_mut(text)?;
        if answers.len() > 1 { Some(answers.remove(0)) } else { answers.first().cloned() }
    }

    /// Lets the answer's time pass, and does to the session what the outcome does.
    pub(super) fn end_statement(
        &mut self,
        statement: &Statement,
        answer: Option<Answer>,
    ) -> Result<Rows, Error> {
        let Some(answer) = answer else {
            let text = &statement.text;
            return Err(Error::Denied(format!("no answer is scripted for: {text}")));
        };
        let limit = statement.timeout.unwrap_or(Duration::MAX);
        let limit = limit.min(self.remaining());
        if answer.delay > limit {
            self.clock += limit;
            self.kill(statement.session);
            return Err(Error::Timeout);
        }
        self.clock += answer.delay;
        if !self.is_open(statement.session) {
            return Err(lost());
        }
        if matches!(answer.outcome, Err(Error::ConnectionLost(_))) {
            self.kill(statement.session);
        }
        answer.outcome
    }

    pub(super) fn kv_bytes_with(&self, key: &str, value: &[u8]) -> usize {
        let others = self.kv.iter().filter(|(other, _)| other.as_str() != key);
        let others: usize = others.map(|(key, value)| key.len() + value.len()).sum();
        others + key.len() + value.len()
    }

    fn session(&self, number: u32) -> Option<&Session> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        self.sessions.get(index)
    }

    fn end(&mut self, number: u32) {
        let index = usize::try_from(number).unwrap_or_default().wrapping_sub(1);
        if let Some(session) = self.sessions.get_mut(index) {
            session.open = false;
        }
    }
}

fn lost() -> Error {
    Error::ConnectionLost("the session is closed".into())
}

/// White space folded, as the host compares statements.
pub(super) fn fold(statement: &str) -> String {
    statement.split_whitespace().collect::<Vec<_>>().join(" ")
}
