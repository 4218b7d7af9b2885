//! PostgreSQL.
//!
//! Every statement goes by the extended protocol, with or without parameters: it takes exactly one
//! statement, where the simple protocol would run several from one text. A parameter is declared of
//! the type that the operator granted, so that the server infers nothing.
//!
//! Two things are sent that are not the operator's text: at the start the question which process serves
//! the session, and, for a column of a type that the server does not come with (an enumeration, a
//! domain), the client's look at `pg_type`.

mod connect;
mod values;

use std::future::Future;
use std::pin::{Pin, pin};

use futures_util::StreamExt;
use tokio_postgres::error::{DbError, Severity, SqlState};
use tokio_postgres::types::ToSql;
use tokio_postgres::{CancelToken, Client, Error, Statement};

use super::Target;
use super::engine::{Answering, Failed, server_hint};
use super::sql::{Answer, Column, Flavour, Job, Refusal, ServerInfo, SqlError, Value};
use crate::hook::text::{LONGEST_MESSAGE, clean};
use connect::{ConnectError, Connected};
use values::Decoded;

/// One session. Its connection is driven while something is asked of it, and not in between: what the
/// server says to an idle session waits in the socket.
pub(crate) struct Session {
    client: Client,
    connection: Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>,
    cancel: CancelToken,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

/// Opens a session. Its id is the process id of its backend.
pub(crate) async fn open(target: &Target) -> Result<Answering<Session>, Refusal> {
    let connected = connect::connect(target).await;
    let Connected { client, connection, version } =
        connected.map_err(|error| not_opened(target, &error))?;
    let cancel = client.cancel_token();
    let mut session = Session { client, connection, cancel };
    let id = session.backend().await.map_err(|failed| Refusal::from(failed.error))?;
    let info = ServerInfo { flavour: Flavour::Postgresql, version: clean(&version, 100) };
    Ok(Answering { session, id, info })
}

impl super::engine::Session for Session {
    async fn run(&mut self, job: &Job) -> Result<Answer, Failed> {
        self.drive(async |client| run(client, job).await).await
    }

    /// An empty round trip: no statement.
    async fn ping(&mut self) -> bool {
        self.drive(async |client| client.check_connection().await.map_err(|e| translated(&e)))
            .await
            .is_ok()
    }

    async fn quit(self) {
        let Self { client, connection, .. } = self;
        drop(client);
        let _ = connection.await;
    }

    /// The backend is told to cancel what it runs; then its socket is closed, and it ends, with all
    /// that it holds.
    async fn kill(self, target: &Target) -> Result<(), String> {
        let Self { client, connection, cancel } = self;
        let told = connect::cancel(target, &cancel).await;
        drop((client, connection));
        told.map_err(|error| plain(&error))
    }
}

impl Session {
    /// The process that serves this session. A pooler would give one that may change.
    async fn backend(&mut self) -> Result<u64, Failed> {
        let asked = self
            .drive(async |client| {
                let row = client.query_one("SELECT pg_catalog.pg_backend_pid()", &[]).await;
                row.and_then(|row| row.try_get::<_, i32>(0)).map_err(|error| translated(&error))
            })
            .await?;
        Ok(u64::try_from(asked).unwrap_or(0))
    }

    /// Lets the connection work while something is asked over it. What the server said at its end is
    /// the better reason.
    async fn drive<T>(
        &mut self,
        ask: impl AsyncFnOnce(&Client) -> Result<T, Failed>,
    ) -> Result<T, Failed> {
        let Self { client, connection, .. } = self;
        tokio::select! {
            biased;
            ended = connection => Err(match ended {
                Ok(()) => lost("the server closed the connection"),
                Err(error) => lost(&plain_error(&error)),
            }),
            answer = ask(client) => answer,
        }
    }
}

/// Sends the operator's text, and reads what fits the limits; what is beyond them is read and thrown
/// away, so that the connection stays usable.
async fn run(client: &Client, job: &Job) -> Result<Answer, Failed> {
    let text = job.statement.text.as_str();
    let (types, params) = values::sent(&job.statement.params, &job.params)
        .map_err(|what| refused(SqlError::Unsupported(format!("{what} in `{text}`"))))?;
    let statement = client.prepare_typed(text, &types).await.map_err(|e| translated(&e))?;
    check_columns(&statement)?;
    let params = params.iter().map(|param| &**param as &(dyn ToSql + Sync));
    let rows = client.query_raw(&statement, params).await.map_err(|e| translated(&e))?;
    let mut rows = pin!(rows);

    let mut answer = Answer { columns: columns(&statement), ..Answer::default() };
    let mut bytes = 0;
    while let Some(row) = rows.next().await {
        let row = row.map_err(|e| translated(&e))?;
        if answer.truncated {
            continue;
        }
        let values = (0..row.len()).map(|at| row.try_get::<_, Decoded>(at).map(|it| it.0));
        let values: Vec<Value> =
            values.collect::<Result<_, _>>().map_err(|error| translated(&error))?;
        bytes += values.iter().map(Value::size).sum::<usize>();
        if answer.rows.len() == job.most_rows || bytes > job.most_bytes {
            answer.truncated = true;
        } else {
            answer.rows.push(values);
        }
    }
    answer.affected = rows.rows_affected().unwrap_or(0);
    Ok(answer)
}

/// Before it runs: what cannot be read is refused, and nothing has happened.
fn check_columns(statement: &Statement) -> Result<(), Failed> {
    let unknown = statement.columns().iter().find(|column| !values::is_known(column.type_()));
    let Some(column) = unknown else { return Ok(()) };
    Err(refused(SqlError::Unsupported(format!(
        "column {} is of type {}, which cannot be read: the statement must cast it to text",
        clean(column.name(), LONGEST_MESSAGE),
        clean(column.type_().name(), LONGEST_MESSAGE),
    ))))
}

fn columns(statement: &Statement) -> Vec<Column> {
    let described = statement.columns().iter();
    let column = |column: &tokio_postgres::Column| Column {
        name: column.name().to_owned(),
        db_type: column.type_().name().to_owned(),
    };
    described.map(column).collect()
}

fn refused(error: SqlError) -> Failed {
    Failed { error, fatal: false }
}

fn lost(why: &str) -> Failed {
    Failed { error: SqlError::ConnectionLost(why.to_owned()), fatal: true }
}

/// The error for the guest, and whether the connection is of no use any more.
fn translated(error: &Error) -> Failed {
    match error.as_db_error() {
        Some(said) if ends_the_session(said) => lost(&clean(said.message(), LONGEST_MESSAGE)),
        Some(said) => refused(SqlError::Database {
            sqlstate: clean(said.code().code(), 5),
            vendor_code: 0,
            message: clean(&in_words(said), LONGEST_MESSAGE),
        }),
        None => lost(&plain_error(error)),
    }
}

/// The server's words, with its detail where it gives one.
fn in_words(said: &DbError) -> String {
    match said.detail() {
        Some(detail) => format!("{} ({detail})", said.message()),
        None => said.message().to_owned(),
    }
}

/// A backend that says FATAL has ended; shutdown, a crash and the idle time-outs do so.
fn ends_the_session(said: &DbError) -> bool {
    matches!(said.parsed_severity(), Some(Severity::Fatal | Severity::Panic))
        || matches!(
            *said.code(),
            SqlState::ADMIN_SHUTDOWN | SqlState::CRASH_SHUTDOWN | SqlState::CANNOT_CONNECT_NOW
        )
}

/// What went wrong, without the layers that only name themselves.
fn plain_error(error: &Error) -> String {
    if let Some(said) = error.as_db_error() {
        return clean(&in_words(said), LONGEST_MESSAGE);
    }
    if error.is_closed() {
        return "the server closed the connection".into();
    }
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    clean(&innermost.to_string(), LONGEST_MESSAGE)
}

fn plain(error: &ConnectError) -> String {
    match error {
        ConnectError::Socket(error) => clean(&error.to_string(), LONGEST_MESSAGE),
        ConnectError::Tls(problem) => clean(problem, LONGEST_MESSAGE),
        ConnectError::Server(error) => plain_error(error),
    }
}

/// The guest learns that there is no session; where and as whom is for the operator only.
fn not_opened(target: &Target, error: &ConnectError) -> Refusal {
    let connection = &target.connection;
    let said = match error {
        ConnectError::Server(error) => error.as_db_error(),
        _ => None,
    };
    let (said, hint) = match said {
        Some(said) => {
            let class = said.code().code();
            let guest = match class {
                "28P01" | "28000" => "the server refuses the operator's user or password".into(),
                "3D000" => "the server has no such database".into(),
                "57P03" => "the server is starting up or shutting down".into(),
                other => format!("the server refuses the connection (error {other})"),
            };
            let check = match class {
                "28000" => "check `user`, and the line for it in the server's pg_hba.conf",
                "28P01" => "check `user` and the password",
                "3D000" => "check `database`",
                _ => "it is described",
            };
            let words = clean(&in_words(said), LONGEST_MESSAGE);
            (guest, format!("the server said: {words}; {check} at {}", connection.described_at))
        }
        None => (plain(error), server_hint(target)),
    };
    let message = format!("connection `{}`: {said}", connection.name);
    Refusal { error: SqlError::Unavailable(message), hint: Some(hint) }
}
