//! SQL on connections that the operator named. Checks come first, here, for every version of the
//! contract; then the session's own task talks to the server, so that giving up on an answer never
//! leaves half a query behind.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout_at;

use super::params::check_params;
use super::registry::{SessionControl, SessionRegistry};
use super::stage::Stage;
use super::statement::GrantedStatement;
use super::{Denial, Powers, Target, engine};
use crate::time::Deadline;

/// One value of a row, or of a parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// True or false.
    Boolean(bool),
    /// A signed whole number.
    Int64(i64),
    /// An unsigned whole number.
    Uint64(u64),
    /// A floating-point number.
    Float64(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Binary(Vec<u8>),
    /// A decimal number, in the server's own text.
    Decimal(String),
    /// A date or time, in the server's own text.
    Temporal(String),
    /// Anything else, in the server's own text.
    Other(String),
}

impl Value {
    /// How much of an answer's limit it takes, in bytes.
    pub(crate) fn size(&self) -> usize {
        match self {
            Value::Null | Value::Boolean(_) => 1,
            Value::Int64(_) | Value::Uint64(_) | Value::Float64(_) => 8,
            Value::Binary(bytes) => bytes.len(),
            Value::Text(text)
            | Value::Decimal(text)
            | Value::Temporal(text)
            | Value::Other(text) => text.len(),
        }
    }
}

/// A column of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type, as the server's protocol names it: `LONGLONG`, `VAR_STRING`.
    pub db_type: String,
}

/// What a statement gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// Columns; none if the statement has no rows.
    pub columns: Vec<Column>,
    /// Rows, up to the limits.
    pub rows: Vec<Vec<Value>>,
    /// There were more rows or bytes than the limits allow.
    pub truncated: bool,
    /// Rows that the statement changed.
    pub affected: u64,
}

/// What answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerInfo {
    /// What kind of server it is.
    pub flavour: Flavour,
    /// The version, as the server says it.
    pub version: String,
}

/// The kinds of servers that hosts know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// MySQL, Percona Server.
    Mysql,
    /// MariaDB.
    Mariadb,
    /// PostgreSQL.
    Postgresql,
    /// Redis, which the contract has no word for.
    Redis,
}

/// Why a host call gave nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SqlError {
    /// Not granted.
    #[error("{0}")]
    Denied(String),
    /// No session with the server.
    #[error("{0}")]
    Unavailable(String),
    /// No answer in time; the statement was killed and the session is closed.
    #[error("no answer in time")]
    Timeout,
    /// The session is gone, and with it every lock that it held.
    #[error("{0}")]
    ConnectionLost(String),
    /// The server answered with an error.
    #[error("ERROR {vendor_code} ({sqlstate}): {message}")]
    Database {
        /// Five characters.
        sqlstate: String,
        /// The server's number.
        vendor_code: i32,
        /// The server's words.
        message: String,
    },
    /// A limit of the grant.
    #[error("{0}")]
    Limit(String),
    /// A value that cannot be sent.
    #[error("{0}")]
    Unsupported(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// A host call was refused: what the guest is told, and what only the operator is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) error: SqlError,
    pub(crate) hint: Option<String>,
}

impl From<SqlError> for Refusal {
    fn from(error: SqlError) -> Self {
        Self { error, hint: None }
    }
}

impl From<Denial> for Refusal {
    fn from(Denial { message, hint }: Denial) -> Self {
        Self { error: SqlError::Denied(message), hint: Some(hint) }
    }
}

/// A statement for a session's task.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) statement: GrantedStatement,
    pub(crate) params: Vec<Value>,
    pub(crate) most_rows: usize,
    pub(crate) most_bytes: usize,
    pub(crate) deadline: Deadline,
    pub(crate) reply: oneshot::Sender<Result<Answer, SqlError>>,
}

/// What a session's task can be asked.
#[derive(Debug)]
pub(crate) enum Command {
    Run(Job),
    Ping { deadline: Deadline, reply: oneshot::Sender<bool> },
}

/// One session with a server. Closed when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct SqlSession(Arc<Open>);

#[derive(Debug)]
struct Open {
    connection: String,
    id: u64,
    info: ServerInfo,
    commands: mpsc::Sender<Command>,
    control: SessionControl,
    _slot: Arc<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.control.close();
    }
}

impl SqlSession {
    /// What answers.
    pub(crate) fn info(&self) -> &ServerInfo {
        &self.0.info
    }

    /// The server's own id of the session.
    pub(crate) fn id(&self) -> u64 {
        self.0.id
    }

    /// True if the server answers in this very session.
    pub(crate) async fn is_alive(&self, deadline: Deadline) -> bool {
        let (reply, answer) = oneshot::channel();
        let asked = self.0.commands.send(Command::Ping { deadline, reply }).await;
        asked.is_ok() && answer.await.unwrap_or(false)
    }
}

/// One hook's way to databases, in one instance.
#[derive(Debug)]
pub(crate) struct SqlHost {
    hook: String,
    powers: Arc<Powers>,
    registry: SessionRegistry,
    /// What stands between this hook and its servers in a test.
    stage: Option<Arc<dyn Stage>>,
    /// Cloned once for each session that the guest holds.
    slots: Arc<()>,
    /// One for each session that the server may still have: also one that the guest has dropped, until
    /// the server was told so.
    places: Arc<Semaphore>,
    statements_left: usize,
}

impl SqlHost {
    pub(crate) fn new(
        hook: String,
        powers: Arc<Powers>,
        registry: SessionRegistry,
        stage: Option<Arc<dyn Stage>>,
    ) -> Self {
        let statements_left = powers.limits.statements;
        let places = Arc::new(Semaphore::new(powers.limits.connections));
        Self { hook, powers, registry, stage, slots: Arc::new(()), places, statements_left }
    }

    /// The names of the connections that are granted.
    pub(crate) fn granted(&self) -> Vec<String> {
        self.powers.connections()
    }

    /// Opens a session on a granted connection.
    pub(crate) async fn open(
        &self,
        connection: &str,
        deadline: Deadline,
    ) -> Result<SqlSession, Refusal> {
        let target = self.powers.target(connection)?.clone();
        let most = self.powers.limits.connections;
        if Arc::strong_count(&self.slots) > most {
            return Err(limit(
                format!("{most} connections are open already"),
                "connections",
                "close one, or raise it",
            ));
        }
        let place = self.place(deadline).await?;
        let opened = engine::open(connection, &target, deadline, self.stage.as_ref()).await?;
        Ok(self.started(connection, target, opened, place))
    }

    /// Waits for a session that the guest has dropped to be gone from the server, if it takes one.
    async fn place(&self, deadline: Deadline) -> Result<OwnedSemaphorePermit, Refusal> {
        let free = Arc::clone(&self.places).acquire_owned();
        match timeout_at(deadline.instant().into(), free).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) | Err(_) => Err(SqlError::Timeout.into()),
        }
    }

    /// Gives the session a task of its own, known to the registry from its first moment.
    fn started(
        &self,
        connection: &str,
        target: Target,
        opened: engine::Opened,
        place: OwnedSemaphorePermit,
    ) -> SqlSession {
        let (control, end) = self.registry.register(&self.hook);
        let (commands, receiver) = mpsc::channel(1);
        let open = Open {
            connection: connection.to_owned(),
            id: opened.id,
            info: opened.info.clone(),
            commands,
            control,
            _slot: Arc::clone(&self.slots),
        };
        tokio::spawn(async move {
            engine::serve(opened, target, receiver, end).await;
            drop(place);
        });
        SqlSession(Arc::new(open))
    }

    /// Runs a granted statement. What is sent is the operator's own text.
    pub(crate) async fn run(
        &mut self,
        session: &SqlSession,
        statement: &str,
        params: Vec<Value>,
        deadline: Deadline,
    ) -> Result<Answer, Refusal> {
        let granted = self.powers.statement(&session.0.connection, statement)?.clone();
        check_params(&granted, &params)?;
        if deadline.has_passed() {
            return Err(SqlError::Timeout.into());
        }
        self.statements_left = self.statements_left.checked_sub(1).ok_or_else(|| {
            let most = self.powers.limits.statements;
            limit(format!("{most} statements were sent already"), "statements", "raise it")
        })?;
        let (reply, answer) = oneshot::channel();
        let job = Job {
            statement: granted,
            params,
            most_rows: self.powers.limits.rows,
            most_bytes: self.powers.limits.answer_bytes,
            deadline,
            reply,
        };
        let gone = || SqlError::ConnectionLost("the session is closed".into());
        session.0.commands.send(Command::Run(job)).await.map_err(|_| gone())?;
        Ok(answer.await.map_err(|_| gone())??)
    }
}

/// A call may take what the guest asks for, but never longer than its phase has left.
pub(crate) fn clamp(asked: Option<Duration>, phase: Deadline) -> Deadline {
    asked.map_or(phase, |asked| phase.min(Deadline::after(asked.min(phase.remaining()))))
}

fn limit(message: String, key: &str, next: &str) -> Refusal {
    Refusal {
        error: SqlError::Limit(message),
        hint: Some(format!("{next}: `{key}` under [limits] in the hook's grant file")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_never_gets_longer_than_its_phase_has_left() {
        let phase = Deadline::after(Duration::from_secs(1));
        assert_eq!(clamp(None, phase), phase);
        assert_eq!(clamp(Some(Duration::MAX), phase), phase);
        assert!(clamp(Some(Duration::from_millis(1)), phase) < phase);
    }
}
