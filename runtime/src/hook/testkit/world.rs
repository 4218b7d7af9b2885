//! The world as a hook sees it in a test: a script, or the real servers; with every call on tape, an
//! account of what is held, and at one chosen call something that goes wrong.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::watch;

use super::answers::{Answers, Strictness};
use super::holds::{Holds, LivesIn, Meaning};
use super::script::{Script, ScriptedReply, Stand};
use super::tape::{Reply, Taped, What};
use crate::capability::engine::{Failed, Opened};
use crate::capability::process::{Call, Output, ProcessError, Refusal as ProgramRefusal};
use crate::capability::sql::{Answer, Flavour, Job, Refusal, ServerInfo, SqlError};
use crate::capability::stage::{Entrance, Real, SessionNumber, Stage};
use crate::config::connections::Engine;
use crate::hook::{CancelSource, CancelToken, Phase};

/// What goes wrong at one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// The server answers with an error, and so every time in that phase. Nothing was done.
    Refused,
    /// It was done, and then the session is lost before the answer came.
    Lost,
    /// It was done, and the answer never comes.
    Silence,
    /// It was done, and the operator asks the run to stop.
    Cancelled,
    /// It was done, and whoever waited for the hook does not any more.
    Dropped,
}

/// A fault and its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Planned {
    pub(super) phase: Phase,
    /// Which call of that phase, from 0.
    pub(super) nth: usize,
    pub(super) fault: Fault,
}

/// Something that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    rule: usize,
    pub(super) lives_in: LivesIn,
    pub(super) session: Option<SessionNumber>,
    /// What took it.
    pub(super) statement: String,
    pub(super) phase: Phase,
}

/// See the module.
#[derive(Debug)]
pub(super) struct World {
    inner: Mutex<Inner>,
    holds: Holds,
    cancel: CancelSource,
    interrupted: watch::Sender<bool>,
}

#[derive(Debug)]
struct Inner {
    phase: Phase,
    nth: usize,
    tape: Vec<Taped>,
    sessions: BTreeMap<SessionNumber, Session>,
    held: Vec<Held>,
    /// What was given back in this phase, by a statement that does that.
    given: Vec<Held>,
    /// None: the real servers answer.
    answers: Option<Answers>,
    planned: Option<Planned>,
    fired: bool,
    /// What keeps failing in this phase.
    refused: Vec<What>,
}

#[derive(Clone, Debug)]
struct Session {
    connection: String,
    is_open: bool,
    /// Gone, and the hook is told at its next call.
    is_doomed: bool,
}

/// Where a call is on the tape, and what is to become of it.
struct Ticket {
    at: usize,
    began: Instant,
    fault: Option<Fault>,
}

impl World {
    pub(super) fn new(
        holds: Holds,
        script: Option<(Arc<Script>, Strictness)>,
        planned: Option<Planned>,
    ) -> Self {
        let answers = script.map(|(script, strictness)| Answers::new(script, strictness));
        let inner = Inner::new(answers, planned);
        let (cancel, interrupted) = (CancelSource::new(), watch::Sender::new(false));
        Self { inner: Mutex::new(inner), holds, cancel, interrupted }
    }

    /// As it was when it was made, for another run of a hook whose sessions have all ended.
    pub(super) fn rewind(&self) {
        let mut inner = self.inner();
        let answers = inner.answers.as_ref().map(Answers::rewound);
        *inner = Inner::new(answers, inner.planned);
    }

    /// From now on calls belong to `phase`.
    pub(super) fn enter(&self, phase: Phase) {
        let mut inner = self.inner();
        (inner.phase, inner.nth) = (phase, 0);
        inner.refused.clear();
        inner.given.clear();
    }

    /// For the run's context.
    pub(super) fn cancel_token(&self) -> CancelToken {
        self.cancel.token()
    }

    /// Resolves when the fault [`Fault::Dropped`] has come.
    pub(super) async fn interrupted(&self) {
        let mut interrupted = self.interrupted.subscribe();
        // The sender lives as long as `self`.
        let _ = interrupted.wait_for(|interrupted| *interrupted).await;
    }

    /// True once the fault [`Fault::Dropped`] has come.
    pub(super) fn was_interrupted(&self) -> bool {
        *self.interrupted.borrow()
    }

    /// The session is gone; the hook learns it when it next uses it.
    pub(super) fn lose(&self, session: SessionNumber) {
        self.inner().lose(session);
    }

    /// True once the planned fault has come.
    pub(super) fn has_fired(&self) -> bool {
        self.inner().fired
    }

    pub(super) fn held(&self) -> Vec<Held> {
        self.inner().held.clone()
    }

    /// What was given back since the phase began.
    pub(super) fn given(&self) -> Vec<Held> {
        self.inner().given.clone()
    }

    pub(super) fn tape(&self) -> Vec<Taped> {
        self.inner().tape.clone()
    }

    pub(super) fn mismatches(&self) -> Vec<String> {
        self.inner().answers.as_ref().map(Answers::mismatches).unwrap_or_default()
    }

    /// Sessions that are open now.
    pub(super) fn open_sessions(&self) -> Vec<SessionNumber> {
        let inner = self.inner();
        let open = inner.sessions.iter().filter(|(_, session)| session.is_open);
        open.map(|(number, _)| *number).collect()
    }

    pub(super) fn meaning(&self, statement: &str) -> Meaning {
        self.holds.meaning(statement)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Onto the tape, before anybody answers.
    fn begin(&self, session: Option<SessionNumber>, what: What) -> Ticket {
        let mut inner = self.inner();
        let (phase, nth) = (inner.phase, inner.nth);
        inner.nth += 1;
        let here = inner.planned.filter(|it| !inner.fired && (it.phase, it.nth) == (phase, nth));
        let mut fault = here.map(|planned| planned.fault);
        inner.fired |= fault.is_some();
        if fault == Some(Fault::Refused) {
            inner.refused.push(what.clone());
        } else if inner.refused.contains(&what) {
            fault = Some(Fault::Refused);
        }
        let at = inner.tape.len();
        inner.tape.push(Taped { phase, nth, session, what, reply: None, took: Duration::ZERO });
        Ticket { at, began: Instant::now(), fault }
    }

    /// The answer onto the tape, and what it means for what is held.
    fn end(&self, ticket: &Ticket, reply: Reply) {
        let mut inner = self.inner();
        let good = reply.is_good();
        let taped = &mut inner.tape[ticket.at];
        (taped.reply, taped.took) = (Some(reply), ticket.began.elapsed());
        if let (true, Some(deed)) = (good, taped.deed()) {
            let params: &[_] = match &taped.what {
                What::Run { params, .. } => params,
                _ => &[],
            };
            let meaning = self.holds.meaning_of(&deed, params);
            inner.account(&self.holds, meaning, ticket.at);
        }
    }

    /// What comes after it was done.
    async fn after(&self, fault: Option<Fault>) {
        match fault {
            Some(Fault::Silence) => std::future::pending().await,
            Some(Fault::Dropped) => {
                self.interrupted.send_replace(true);
                std::future::pending().await
            }
            Some(Fault::Cancelled) => self.cancel.cancel(),
            Some(Fault::Refused | Fault::Lost) | None => {}
        }
    }

    /// The script's answer; none if there is no script.
    async fn scripted(&self, what: &What) -> Option<ScriptedReply> {
        let answered = {
            let mut inner = self.inner();
            let phase = inner.phase;
            inner.answers.as_mut()?.to(phase, what)
        };
        if let Some(delay) = answered.delay {
            tokio::time::sleep(delay).await;
        }
        if answered.reply == ScriptedReply::Silence {
            std::future::pending::<()>().await;
        }
        Some(answered.reply)
    }

    fn connection_of(&self, session: SessionNumber) -> String {
        let inner = self.inner();
        inner.sessions.get(&session).map(|it| it.connection.clone()).unwrap_or_default()
    }

    /// What a server says to a session that gives back what it does not have, where that is an error.
    fn not_held(&self, session: SessionNumber, statement: &str) -> Option<SqlError> {
        let Meaning::Gives(rules) = self.holds.meaning(statement) else { return None };
        let inner = self.inner();
        inner.answers.as_ref()?;
        let strict = rules.iter().any(|rule| self.holds.is_strict(*rule));
        let held = inner.held.iter().any(|held| held.session == Some(session));
        (strict && !held).then(|| SqlError::Database {
            sqlstate: "55000".into(),
            vendor_code: 0,
            message: "nothing to give back is in progress in this session".into(),
        })
    }

    fn is_doomed(&self, session: SessionNumber) -> bool {
        self.inner().sessions.get(&session).is_some_and(|session| session.is_doomed)
    }

    fn stand(&self, name: &str, engine: Engine) -> Stand {
        let inner = self.inner();
        let told = inner.answers.as_ref().and_then(|it| it.script().connections.get(name).cloned());
        told.unwrap_or_else(|| {
            let flavour = match engine {
                Engine::Mysql => Flavour::Mariadb,
                Engine::Postgresql => Flavour::Postgresql,
                Engine::Redis => Flavour::Redis,
            };
            Stand { flavour, version: usual_version(flavour).into() }
        })
    }

    /// A session has a number once it is open.
    fn let_in(&self, name: &str) -> SessionNumber {
        let mut inner = self.inner();
        let number = u32::try_from(inner.sessions.len() + 1).unwrap_or(u32::MAX);
        let session = Session { connection: name.to_owned(), is_open: true, is_doomed: false };
        inner.sessions.insert(number, session);
        number
    }

    async fn enter_server(
        &self,
        name: &str,
        engine: Engine,
        real: Real<'_, Result<Opened, Refusal>>,
        what: &What,
    ) -> Result<(u64, ServerInfo, Option<Opened>), Refusal> {
        let Some(scripted) = self.scripted(what).await else {
            let opened = real.await?;
            return Ok((opened.id, opened.info.clone(), Some(opened)));
        };
        match scripted {
            ScriptedReply::Error(error) => Err(error.into()),
            ScriptedReply::Lost(why) => Err(SqlError::Unavailable(why).into()),
            ScriptedReply::Opened { id: Some(id) } => Ok((id, self.info(name, engine), None)),
            _ => {
                let id = 101 + self.inner().sessions.len() as u64;
                Ok((id, self.info(name, engine), None))
            }
        }
    }

    fn info(&self, name: &str, engine: Engine) -> ServerInfo {
        let Stand { flavour, version } = self.stand(name, engine);
        ServerInfo { flavour, version }
    }
}

/// What a stand-in says if nobody says otherwise.
pub(super) fn usual_version(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Mariadb => "10.11.14-MariaDB",
        Flavour::Mysql => "8.4.6",
        Flavour::Postgresql => "16.10",
        Flavour::Redis => "7.2.11",
    }
}

impl Inner {
    fn new(answers: Option<Answers>, planned: Option<Planned>) -> Self {
        Self {
            phase: Phase::Prepare,
            nth: 0,
            tape: Vec::new(),
            sessions: BTreeMap::new(),
            held: Vec::new(),
            given: Vec::new(),
            answers,
            planned,
            fired: false,
            refused: Vec::new(),
        }
    }

    fn lose(&mut self, session: SessionNumber) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.is_doomed = true;
        }
        self.drop_holds_of(session);
    }

    fn drop_holds_of(&mut self, session: SessionNumber) {
        self.held.retain(|held| held.lives_in == LivesIn::Server || held.session != Some(session));
    }

    fn account(&mut self, holds: &Holds, meaning: Meaning, at: usize) {
        let taped = &self.tape[at];
        match meaning {
            Meaning::Takes(rule) => self.held.push(Held {
                rule,
                lives_in: holds.rule(rule).lives_in,
                session: taped.session,
                statement: taped.told(&holds.rule(rule).begin),
                phase: taped.phase,
            }),
            Meaning::Gives(rules) => {
                let session = taped.session;
                let gives = |held: &mut Held| {
                    let same = held.lives_in == LivesIn::Server || held.session == session;
                    same && rules.contains(&held.rule)
                };
                self.given.extend(self.held.extract_if(.., gives));
            }
            Meaning::Looks | Meaning::Changes => {}
        }
    }
}

/// What a server says that a test has made refuse.
fn refusal() -> SqlError {
    SqlError::Database {
        sqlstate: "HY000".into(),
        vendor_code: 1105,
        message: "this test makes the server refuse it".into(),
    }
}

const LOST: &str = "this test has ended the session";

#[async_trait]
impl Stage for World {
    async fn open(
        &self,
        name: &str,
        engine: Engine,
        real: Real<'_, Result<Opened, Refusal>>,
    ) -> Result<Entrance, Refusal> {
        let what = What::Open { connection: name.to_owned() };
        let ticket = self.begin(None, what.clone());
        let refused = SqlError::Unavailable("this test makes the server refuse it".into());
        let opened = match ticket.fault {
            Some(Fault::Refused | Fault::Lost) => Err(refused.into()),
            _ => self.enter_server(name, engine, real, &what).await,
        };
        match opened {
            Err(refusal) => {
                self.end(&ticket, Reply::Refused(refusal.error.clone()));
                Err(refusal)
            }
            Ok((id, info, real)) => {
                self.end(&ticket, Reply::Opened { id, info: info.clone() });
                self.after(ticket.fault).await;
                let number = self.let_in(name);
                self.inner().tape[ticket.at].session = Some(number);
                Ok(Entrance { number, id, info, real })
            }
        }
    }

    async fn run(
        &self,
        session: SessionNumber,
        job: &Job,
        real: Option<Real<'_, Result<Answer, Failed>>>,
    ) -> Result<Answer, Failed> {
        let connection = self.connection_of(session);
        let (statement, params) = (job.statement.text.clone(), job.params.clone());
        let what = What::Run { connection, statement, params };
        let ticket = self.begin(Some(session), what.clone());
        let lost = || Failed { error: SqlError::ConnectionLost(LOST.into()), fatal: true };
        let result = if self.is_doomed(session) {
            Err(lost())
        } else if ticket.fault == Some(Fault::Refused) {
            Err(Failed { error: refusal(), fatal: false })
        } else if let Some(error) = self.not_held(session, &job.statement.text) {
            Err(Failed { error, fatal: false })
        } else {
            match (self.scripted(&what).await, real) {
                (Some(ScriptedReply::Error(error)), _) => Err(Failed { error, fatal: false }),
                (Some(ScriptedReply::Lost(why)), _) => {
                    Err(Failed { error: SqlError::ConnectionLost(why), fatal: true })
                }
                (Some(ScriptedReply::Answer(answer)), _) => Ok(limited(answer, job)),
                (None, Some(real)) => real.await,
                _ => Ok(Answer::default()),
            }
        };
        let reply = match &result {
            Ok(answer) => Reply::Answer(answer.clone()),
            Err(failed) => Reply::Refused(failed.error.clone()),
        };
        self.end(&ticket, reply);
        if result.as_ref().is_err_and(|failed| failed.fatal) {
            self.inner().lose(session);
        }
        if ticket.fault == Some(Fault::Lost) {
            self.inner().lose(session);
            self.inner().tape[ticket.at].reply = Some(Reply::Refused(lost().error));
            return Err(lost());
        }
        if ticket.fault == Some(Fault::Silence) {
            // At the deadline the host ends the session, which the hook need not wait for.
            self.inner().tape[ticket.at].reply = None;
            self.inner().lose(session);
        }
        self.after(ticket.fault).await;
        result
    }

    async fn ping(&self, session: SessionNumber, real: Option<Real<'_, bool>>) -> bool {
        let what = What::Ping { connection: self.connection_of(session) };
        let ticket = self.begin(Some(session), what.clone());
        let alive = if self.is_doomed(session)
            || matches!(ticket.fault, Some(Fault::Refused | Fault::Lost))
        {
            false
        } else {
            match (self.scripted(&what).await, real) {
                (Some(ScriptedReply::Alive(alive)), _) => alive,
                (Some(ScriptedReply::Lost(_) | ScriptedReply::Error(_)), _) => false,
                (None, Some(real)) => real.await,
                _ => true,
            }
        };
        self.end(&ticket, Reply::Alive(alive));
        if !alive {
            self.inner().lose(session);
        }
        self.after(ticket.fault).await;
        alive
    }

    fn ended(&self, session: SessionNumber) {
        let mut inner = self.inner();
        if let Some(session) = inner.sessions.get_mut(&session) {
            session.is_open = false;
        }
        inner.drop_holds_of(session);
    }

    async fn program(
        &self,
        call: &Call,
        real: Real<'_, Result<Output, ProgramRefusal>>,
    ) -> Result<Output, ProgramRefusal> {
        let Call { command, arguments, stdin, .. } = call.clone();
        let what = What::Program { command, arguments, stdin };
        let ticket = self.begin(None, what.clone());
        let ran = match ticket.fault {
            Some(Fault::Refused | Fault::Lost) => Ok(Output {
                exit_code: Some(1),
                stderr: b"this test makes the program fail\n".to_vec(),
                ..Output::default()
            }),
            _ => match self.scripted(&what).await {
                Some(ScriptedReply::Output(output)) => Ok(output),
                Some(ScriptedReply::ProgramError(error)) => Err(error.into()),
                Some(_) => Err(ProcessError::Failed("the script ends it".into()).into()),
                None => real.await,
            },
        };
        let reply = match &ran {
            Ok(output) => Reply::Output(output.clone()),
            Err(refusal) => Reply::NoOutput(refusal.error.clone()),
        };
        self.end(&ticket, reply);
        self.after(ticket.fault).await;
        ran
    }

    /// No script has a word for it: the state is a real one, in the test's own directory.
    async fn state(&self, call: &str, real: Real<'_, bool>) -> Option<String> {
        let ticket = self.begin(None, What::State { call: call.to_owned() });
        if matches!(ticket.fault, Some(Fault::Refused | Fault::Lost)) {
            let words = "this test makes the disk fail".to_owned();
            self.end(&ticket, Reply::NotKept(words.clone()));
            return Some(words);
        }
        let reply = match real.await {
            true => Reply::Kept,
            false => Reply::NotKept("refused".into()),
        };
        self.end(&ticket, reply);
        self.after(ticket.fault).await;
        None
    }
}

/// As a real client would: no more rows than the grant allows.
fn limited(mut answer: Answer, job: &Job) -> Answer {
    answer.truncated |= answer.rows.len() > job.most_rows;
    answer.rows.truncate(job.most_rows);
    answer
}
