//! Which database client serves a session, and what is the same for all of them: opening is bounded,
//! a session is a task that serves one command at a time, and after a time-out its statement is ended
//! from a second connection, and the first is closed and never used again.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::{timeout, timeout_at};

use super::registry::SessionEnd;
use super::sql::{Answer, Command, Job, Refusal, ServerInfo, SqlError};
use super::stage::{Entrance, Stage, StagedSession};
use super::{Target, mysql, postgresql, redis};
use crate::config::connections::Engine;
use crate::time::Deadline;

/// How long a clean good-bye may take before the socket is just closed.
const QUIT: Duration = Duration::from_millis(250);

/// How long opening a second connection and ending a statement from it may take.
const KILL: Duration = Duration::from_millis(500);

/// How long a session may take to show that it is alive.
const PING: Duration = Duration::from_secs(2);

/// A connection that is open and knows who answers.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The server's own id of the session.
    pub(crate) id: u64,
    pub(crate) info: ServerInfo,
    client: Client,
}

#[derive(Debug)]
pub(super) enum Client {
    Mysql(mysql::Session),
    Postgresql(Box<postgresql::Session>),
    Redis(redis::Session),
    /// In a test: what stands between, and perhaps one of the others behind it.
    Staged(StagedSession),
}

/// What an engine's client gives when it has opened a session.
pub(crate) struct Answering<S> {
    pub(crate) session: S,
    pub(crate) id: u64,
    pub(crate) info: ServerInfo,
}

/// One session with a server, as its engine's client sees it. None of these has a deadline of its own:
/// whoever calls drops the future, and with it the session.
pub(crate) trait Session: Send + 'static {
    /// Runs one statement: the operator's text, with the parameters beside it.
    fn run(&mut self, job: &Job) -> impl Future<Output = Result<Answer, Failed>> + Send;

    /// True if the server answers in this very session.
    fn ping(&mut self) -> impl Future<Output = bool> + Send;

    /// Says good-bye. Dropping the future just closes the socket, whatever is in flight.
    fn quit(self) -> impl Future<Output = ()> + Send;

    /// Ends on the server, from a second connection, what this session has in flight; closes its socket.
    ///
    /// # Errors
    /// In words, if the server could not be told.
    fn kill(self, target: &Target) -> impl Future<Output = Result<(), String>> + Send;
}

/// A statement gave no answer.
#[derive(Debug)]
pub(crate) struct Failed {
    /// For the guest.
    pub(crate) error: SqlError,
    /// The connection is of no use any more.
    pub(crate) fatal: bool,
}

/// Opens a connection by `deadline`, or by the connection's own time-out if that is earlier. The hook
/// calls it `name`; only in a test is there a `stage` that it passes.
pub(crate) async fn open(
    name: &str,
    target: &Target,
    deadline: Deadline,
    stage: Option<&Arc<dyn Stage>>,
) -> Result<Opened, Refusal> {
    let limit = target.connection.connect_timeout;
    let by = deadline.min(Deadline::after(limit));
    let opening = async {
        match stage {
            None => open_any(target).await,
            Some(stage) => open_staged(name, target, stage).await,
        }
    };
    match timeout_at(by.instant().into(), opening).await {
        Ok(opened) => opened,
        Err(_) if deadline.has_passed() => {
            Err(Refusal { error: SqlError::Timeout, hint: Some(server_hint(target)) })
        }
        Err(_) => Err(Refusal {
            error: SqlError::Unavailable(format!("the server does not answer within {limit:?}")),
            hint: Some(server_hint(target)),
        }),
    }
}

async fn open_staged(
    name: &str,
    target: &Target,
    stage: &Arc<dyn Stage>,
) -> Result<Opened, Refusal> {
    let engine = target.connection.engine;
    let Entrance { number, id, info, real } =
        stage.open(name, engine, Box::pin(open_any(target))).await?;
    let real = real.map(|opened| opened.client);
    let client = Client::Staged(StagedSession::new(Arc::clone(stage), number, real));
    Ok(Opened { id, info, client })
}

async fn open_any(target: &Target) -> Result<Opened, Refusal> {
    fn opened<S>(answering: Answering<S>, client: fn(S) -> Client) -> Opened {
        let Answering { session, id, info } = answering;
        Opened { id, info, client: client(session) }
    }
    Ok(match target.connection.engine {
        Engine::Mysql => opened(mysql::open(target).await?, Client::Mysql),
        Engine::Postgresql => {
            opened(postgresql::open(target).await?, |session| Client::Postgresql(Box::new(session)))
        }
        Engine::Redis => opened(redis::open(target).await?, Client::Redis),
    })
}

/// Where to look when nobody answers; for the operator.
pub(crate) fn server_hint(target: &Target) -> String {
    let connection = &target.connection;
    format!(
        "is the server running, and does it answer at {}? It is described at {}",
        connection.address(),
        connection.described_at
    )
}

/// Serves one session until it is told to close, its handle is gone, or it breaks. Dropping `end`
/// tells the registry that the session has ended.
pub(crate) async fn serve(
    opened: Opened,
    target: Target,
    commands: mpsc::Receiver<Command>,
    end: SessionEnd,
) {
    match opened.client {
        Client::Mysql(session) => serve_one(session, target, commands, end).await,
        Client::Postgresql(session) => serve_one(*session, target, commands, end).await,
        Client::Redis(session) => serve_one(session, target, commands, end).await,
        Client::Staged(session) => serve_one(session, target, commands, end).await,
    }
}

/// Whichever it is: what a staged session has behind it. Boxed, because that may be one of these again.
impl Client {
    pub(super) fn run<'a>(&'a mut self, job: &'a Job) -> BoxFuture<'a, Result<Answer, Failed>> {
        match self {
            Client::Mysql(session) => Box::pin(session.run(job)),
            Client::Postgresql(session) => Box::pin(session.run(job)),
            Client::Redis(session) => Box::pin(session.run(job)),
            Client::Staged(session) => Box::pin(session.run(job)),
        }
    }

    pub(super) fn ping(&mut self) -> BoxFuture<'_, bool> {
        match self {
            Client::Mysql(session) => Box::pin(session.ping()),
            Client::Postgresql(session) => Box::pin(session.ping()),
            Client::Redis(session) => Box::pin(session.ping()),
            Client::Staged(session) => Box::pin(session.ping()),
        }
    }

    pub(super) fn quit(self) -> BoxFuture<'static, ()> {
        match self {
            Client::Mysql(session) => Box::pin(session.quit()),
            Client::Postgresql(session) => Box::pin(session.quit()),
            Client::Redis(session) => Box::pin(session.quit()),
            Client::Staged(session) => Box::pin(session.quit()),
        }
    }

    pub(super) fn kill(self, target: &Target) -> BoxFuture<'_, Result<(), String>> {
        match self {
            Client::Mysql(session) => Box::pin(session.kill(target)),
            Client::Postgresql(session) => Box::pin(session.kill(target)),
            Client::Redis(session) => Box::pin(session.kill(target)),
            Client::Staged(session) => Box::pin(session.kill(target)),
        }
    }
}

/// How a session's task ends.
enum End {
    /// Nothing is in flight: say good-bye.
    Idle,
    /// A statement is in flight on the server: kill it.
    Busy,
    /// The connection is of no use any more.
    Broken,
}

async fn serve_one<S: Session>(
    mut session: S,
    target: Target,
    mut commands: mpsc::Receiver<Command>,
    mut end: SessionEnd,
) {
    let how = loop {
        let command = tokio::select! {
            biased;
            () = end.told() => break End::Idle,
            command = commands.recv() => command,
        };
        let step = match command {
            None => break End::Idle,
            Some(Command::Run(job)) => run_job(&mut session, job, &mut end).await,
            Some(Command::Ping { deadline, reply }) => {
                let deadline = deadline.min(Deadline::after(PING));
                let answered = timeout_at(deadline.instant().into(), session.ping()).await;
                let answered = answered.unwrap_or(false);
                let _ = reply.send(answered);
                if answered { None } else { Some(End::Broken) }
            }
        };
        if let Some(how) = step {
            break how;
        }
    };
    drop(commands);
    match how {
        End::Idle => drop(timeout(QUIT, session.quit()).await),
        End::Broken => drop(timeout(Duration::ZERO, session.quit()).await),
        End::Busy => kill(session, &target).await,
    }
    drop(end);
}

/// Runs one statement by its deadline. `Some` if the session has to end.
async fn run_job<S: Session>(session: &mut S, job: Job, end: &mut SessionEnd) -> Option<End> {
    let outcome = tokio::select! {
        biased;
        () = end.told() => return Some(End::Busy),
        outcome = timeout_at(job.deadline.instant().into(), session.run(&job)) => outcome,
    };
    match outcome {
        Ok(Ok(answer)) => {
            let _ = job.reply.send(Ok(answer));
            None
        }
        Ok(Err(Failed { error, fatal })) => {
            let _ = job.reply.send(Err(error));
            fatal.then_some(End::Broken)
        }
        Err(_) => {
            let _ = job.reply.send(Err(SqlError::Timeout));
            Some(End::Busy)
        }
    }
}

/// Best effort, and bounded: the session is closed in any case.
async fn kill<S: Session>(session: S, target: &Target) {
    let failed = match timeout(KILL, session.kill(target)).await {
        Ok(Ok(())) => return,
        Ok(Err(why)) => why,
        Err(_) => "the server does not answer".to_owned(),
    };
    tracing::warn!(
        connection = target.connection.name,
        "a statement timed out and could not be ended on the server: {failed}"
    );
}
