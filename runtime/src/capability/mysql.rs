//! MySQL and MariaDB. Each session is a task that owns its connection and serves one command at a
//! time. After a time-out the statement is killed from a second connection, and the first is closed
//! and never used again.

use std::time::Duration;

use mysql_async::consts::{ColumnFlags, ColumnType};
use mysql_async::prelude::{Protocol, Queryable};
use mysql_async::{Conn, Error, Opts, OptsBuilder, Params, QueryResult, SslOpts};
use tokio::sync::mpsc;
use tokio::time::{timeout, timeout_at};

use super::Target;
use super::registry::SessionEnd;
use super::sql::{Answer, Column, Command, Flavour, Job, Refusal, ServerInfo, SqlError, Value};
use crate::config::connections::{Endpoint, Tls};
use crate::hook::text::{LONGEST_MESSAGE, clean};
use crate::time::Deadline;

/// How long a clean good-bye may take before the socket is just closed.
const QUIT: Duration = Duration::from_millis(250);

/// How long opening a second connection and sending KILL may take.
const KILL: Duration = Duration::from_millis(500);

/// How long a session may take to show that it is alive.
const PING: Duration = Duration::from_secs(2);

/// The longest packet that is taken from a server, in bytes.
const LONGEST_PACKET: usize = 16 << 20;

/// The character set that means "bytes" in a column's description.
const BINARY_CHARACTER_SET: u16 = 63;

/// Errors of the server that end the session: shutdown, killed, idle for too long.
const ENDS_THE_SESSION: [u16; 4] = [1053, 1927, 3169, 4031];

/// A connection that is open and knows who answers.
#[derive(Debug)]
pub(crate) struct Opened {
    conn: Conn,
    pub(crate) id: u32,
    pub(crate) info: ServerInfo,
}

/// Opens a connection by `deadline`, or by the connection's own time-out if that is earlier.
pub(crate) async fn open(target: &Target, deadline: Deadline) -> Result<Opened, Refusal> {
    let connection = &target.connection;
    let by = deadline.min(Deadline::after(connection.connect_timeout));
    let opening = async {
        let mut conn = Conn::new(options(target)).await?;
        let version: Option<String> = conn.query_first("SELECT VERSION()").await?;
        Ok::<_, Error>((conn, version.unwrap_or_default()))
    };
    let (conn, version) = match timeout_at(by.instant().into(), opening).await {
        Ok(opened) => opened.map_err(|error| not_opened(target, &error))?,
        Err(_) if deadline.has_passed() => {
            return Err(Refusal { error: SqlError::Timeout, hint: Some(server_hint(target)) });
        }
        Err(_) => {
            let limit = connection.connect_timeout;
            return Err(Refusal {
                error: SqlError::Unavailable(format!(
                    "the server does not answer within {limit:?}"
                )),
                hint: Some(server_hint(target)),
            });
        }
    };
    let flavour = if version.contains("MariaDB") { Flavour::Mariadb } else { Flavour::Mysql };
    let info = ServerInfo { flavour, version: clean(&version, 100) };
    Ok(Opened { id: conn.id(), conn, info })
}

/// The guest learns that there is no session; where and as whom is for the operator only.
fn not_opened(target: &Target, error: &Error) -> Refusal {
    let connection = &target.connection;
    let (said, hint) = match error {
        Error::Server(refused) if matches!(refused.code, 1045 | 1698) => (
            "the server refuses the operator's user or password".into(),
            format!(
                "the server said: {}; check `user` and the password at {}",
                clean(&refused.message, LONGEST_MESSAGE),
                connection.described_at
            ),
        ),
        Error::Server(refused) => (
            format!("the server refuses the connection (error {})", refused.code),
            format!(
                "the server said: {}; it is described at {}",
                clean(&refused.message, LONGEST_MESSAGE),
                connection.described_at
            ),
        ),
        other => (plain(other), server_hint(target)),
    };
    let message = format!("connection `{}`: {said}", connection.name);
    Refusal { error: SqlError::Unavailable(message), hint: Some(hint) }
}

/// What went wrong, without what the client's error types put in front of it at every level.
fn plain(error: &Error) -> String {
    let text = error.to_string();
    clean(text.trim_start_matches("Input/output error: "), LONGEST_MESSAGE)
}

fn server_hint(target: &Target) -> String {
    let connection = &target.connection;
    format!(
        "is the server running, and does it answer at {}? It is described at {}",
        connection.address(),
        connection.described_at
    )
}

fn options(target: &Target) -> Opts {
    let connection = &target.connection;
    let base = OptsBuilder::default()
        .user(Some(connection.user.clone()))
        .pass(target.secret.as_ref().map(|secret| secret.expose().to_owned()))
        .prefer_socket(false)
        // Given, so that the client does not ask the server for them.
        .max_allowed_packet(Some(LONGEST_PACKET))
        .wait_timeout(Some(28_800))
        .stmt_cache_size(0)
        .connect_attribute("program_name", "stillpoint");
    match &connection.endpoint {
        Endpoint::Socket(path) => base.socket(Some(path.to_string_lossy())).into(),
        Endpoint::Tcp { host, port, tls } => base
            .ip_or_hostname(host.clone())
            .tcp_port(*port)
            .tcp_nodelay(true)
            .ssl_opts(tls_options(tls, target.authorities.as_deref()))
            .into(),
    }
}

fn tls_options(tls: &Tls, authorities: Option<&[u8]>) -> Option<SslOpts> {
    match tls {
        Tls::Off => None,
        Tls::Required => Some(SslOpts::default().with_danger_accept_invalid_certs(true)),
        Tls::Verify { server_name, .. } => {
            let mut options = SslOpts::default();
            if let Some(pem) = authorities {
                let roots = vec![pem.to_owned().into()];
                options = options.with_disable_built_in_roots(true).with_root_certs(roots);
            }
            Some(options.with_danger_tls_hostname_override(server_name.clone()))
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

/// Serves one session until it is told to close, its handle is gone, or it breaks. Dropping `end`
/// tells the registry that the session has ended.
pub(crate) async fn serve(
    opened: Opened,
    target: Target,
    mut commands: mpsc::Receiver<Command>,
    mut end: SessionEnd,
) {
    let Opened { mut conn, id, .. } = opened;
    let how = loop {
        let command = tokio::select! {
            biased;
            () = end.told() => break End::Idle,
            command = commands.recv() => command,
        };
        let step = match command {
            None => break End::Idle,
            Some(Command::Run(job)) => run_job(&mut conn, job, &mut end).await,
            Some(Command::Ping { deadline, reply }) => {
                let deadline = deadline.min(Deadline::after(PING));
                let answered = timeout_at(deadline.instant().into(), conn.ping())
                    .await
                    .is_ok_and(|p| p.is_ok());
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
        End::Idle => close(conn, QUIT).await,
        End::Broken => close(conn, Duration::ZERO).await,
        End::Busy => {
            close(conn, Duration::ZERO).await;
            kill(&target, id).await;
        }
    }
    drop(end);
}

/// Runs one statement by its deadline. `Some` if the session has to end.
async fn run_job(conn: &mut Conn, job: Job, end: &mut SessionEnd) -> Option<End> {
    let Job { deadline, .. } = job;
    let outcome = tokio::select! {
        biased;
        () = end.told() => return Some(End::Busy),
        outcome = timeout_at(deadline.instant().into(), run(conn, &job)) => outcome,
    };
    match outcome {
        Ok(Ok(answer)) => {
            let _ = job.reply.send(Ok(answer));
            None
        }
        Ok(Err(error)) => {
            let (error, fatal) = translated(&error);
            let _ = job.reply.send(Err(error));
            fatal.then_some(End::Broken)
        }
        Err(_) => {
            let _ = job.reply.send(Err(SqlError::Timeout));
            Some(End::Busy)
        }
    }
}

/// Closes the socket, with a good-bye if the server takes it within `patience`. `disconnect` marks
/// the connection first, so that dropping it afterwards just closes it, whatever is in flight.
async fn close(conn: Conn, patience: Duration) {
    let _ = timeout(patience, conn.disconnect()).await;
}

/// Ends a session on the server from a second connection. Best effort, and bounded: the first
/// connection is closed already.
async fn kill(target: &Target, id: u32) {
    let killing = async {
        let mut conn = Conn::new(options(target)).await?;
        conn.query_drop(format!("KILL CONNECTION {id}")).await?;
        conn.disconnect().await
    };
    match timeout(KILL, killing).await {
        Ok(Ok(())) => {}
        // 1094: the session is gone already.
        Ok(Err(Error::Server(error))) if error.code == 1094 => {}
        Ok(Err(error)) => tracing::warn!(
            connection = target.connection.name,
            session = id,
            "a statement timed out and could not be killed: {error}"
        ),
        Err(_) => tracing::warn!(
            connection = target.connection.name,
            session = id,
            "a statement timed out and could not be killed: the server does not answer"
        ),
    }
}

/// Sends the operator's text: with parameters as a prepared statement, so that a value is never
/// part of the text.
async fn run(conn: &mut Conn, job: &Job) -> Result<Answer, Error> {
    let text = job.statement.text.as_str();
    let mut answer = Answer::default();
    if job.params.is_empty() {
        let mut result = conn.query_iter(text).await?;
        read(&mut result, job, &mut answer).await?;
        result.drop_result().await?;
    } else {
        let params = Params::Positional(job.params.iter().map(sent).collect());
        let mut result = conn.exec_iter(text, params).await?;
        read(&mut result, job, &mut answer).await?;
        result.drop_result().await?;
    }
    Ok(answer)
}

/// Reads the first result, up to the limits; what is beyond them is read and thrown away, so that
/// the connection stays usable.
async fn read<P: Protocol>(
    result: &mut QueryResult<'_, 'static, P>,
    job: &Job,
    answer: &mut Answer,
) -> Result<(), Error> {
    let described: Vec<_> = result.columns_ref().to_vec();
    answer.affected = result.affected_rows();
    answer.columns = described.iter().map(column).collect();
    let mut bytes = 0;
    while let Some(row) = result.next().await? {
        let values: Vec<Value> =
            described.iter().zip(row.unwrap_raw()).map(|(c, v)| value(c, v)).collect();
        bytes += values.iter().map(size).sum::<usize>();
        if answer.rows.len() == job.most_rows || bytes > job.most_bytes {
            answer.truncated = true;
            break;
        }
        answer.rows.push(values);
    }
    Ok(())
}

fn column(described: &mysql_async::Column) -> Column {
    let name = format!("{:?}", described.column_type());
    Column {
        name: described.name_str().into_owned(),
        db_type: name.trim_start_matches("MYSQL_TYPE_").to_owned(),
    }
}

/// The text protocol gives text for everything, so the column says what it is.
fn value(column: &mysql_async::Column, raw: Option<mysql_async::Value>) -> Value {
    use mysql_async::Value as Raw;
    match raw {
        None | Some(Raw::NULL) => Value::Null,
        Some(Raw::Bytes(bytes)) => from_bytes(column, bytes),
        Some(Raw::Int(number)) => Value::Int64(number),
        Some(Raw::UInt(number)) => Value::Uint64(number),
        Some(Raw::Float(number)) => Value::Float64(number.into()),
        Some(Raw::Double(number)) => Value::Float64(number),
        Some(moment @ (Raw::Date(..) | Raw::Time(..))) => {
            Value::Temporal(moment.as_sql(true).trim_matches('\'').to_owned())
        }
    }
}

fn from_bytes(column: &mysql_async::Column, bytes: Vec<u8>) -> Value {
    use ColumnType::{
        MYSQL_TYPE_BIT, MYSQL_TYPE_DATE, MYSQL_TYPE_DATETIME, MYSQL_TYPE_DATETIME2,
        MYSQL_TYPE_DECIMAL, MYSQL_TYPE_DOUBLE, MYSQL_TYPE_FLOAT, MYSQL_TYPE_GEOMETRY,
        MYSQL_TYPE_INT24, MYSQL_TYPE_LONG, MYSQL_TYPE_LONGLONG, MYSQL_TYPE_NEWDATE,
        MYSQL_TYPE_NEWDECIMAL, MYSQL_TYPE_SHORT, MYSQL_TYPE_TIME, MYSQL_TYPE_TIME2,
        MYSQL_TYPE_TIMESTAMP, MYSQL_TYPE_TIMESTAMP2, MYSQL_TYPE_TINY, MYSQL_TYPE_YEAR,
    };
    let column_type = column.column_type();
    let is_binary = column.character_set() == BINARY_CHARACTER_SET
        && (column_type.is_character_type() || matches!(column_type, MYSQL_TYPE_GEOMETRY));
    if is_binary || matches!(column_type, MYSQL_TYPE_BIT) {
        return Value::Binary(bytes);
    }
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(not_text) => return Value::Binary(not_text.into_bytes()),
    };
    match column_type {
        MYSQL_TYPE_TINY | MYSQL_TYPE_SHORT | MYSQL_TYPE_INT24 | MYSQL_TYPE_LONG
        | MYSQL_TYPE_LONGLONG | MYSQL_TYPE_YEAR => {
            let unsigned = column.flags().contains(ColumnFlags::UNSIGNED_FLAG);
            let number = if unsigned {
                text.parse().ok().map(Value::Uint64)
            } else {
                text.parse().ok().map(Value::Int64)
            };
            number.unwrap_or(Value::Other(text))
        }
        MYSQL_TYPE_FLOAT | MYSQL_TYPE_DOUBLE => {
            text.parse().map_or_else(|_| Value::Other(text.clone()), Value::Float64)
        }
        MYSQL_TYPE_DECIMAL | MYSQL_TYPE_NEWDECIMAL => Value::Decimal(text),
        MYSQL_TYPE_DATE
        | MYSQL_TYPE_NEWDATE
        | MYSQL_TYPE_TIME
        | MYSQL_TYPE_TIME2
        | MYSQL_TYPE_DATETIME
        | MYSQL_TYPE_DATETIME2
        | MYSQL_TYPE_TIMESTAMP
        | MYSQL_TYPE_TIMESTAMP2 => Value::Temporal(text),
        _ => Value::Text(text),
    }
}

/// A parameter, checked already to be of a type that can be sent.
fn sent(value: &Value) -> mysql_async::Value {
    use mysql_async::Value as Raw;
    match value {
        Value::Null => Raw::NULL,
        Value::Boolean(flag) => Raw::Int((*flag).into()),
        Value::Int64(number) => Raw::Int(*number),
        Value::Uint64(number) => Raw::UInt(*number),
        Value::Float64(number) => Raw::Double(*number),
        Value::Binary(bytes) => Raw::Bytes(bytes.clone()),
        Value::Text(text) | Value::Decimal(text) | Value::Temporal(text) | Value::Other(text) => {
            Raw::Bytes(text.clone().into_bytes())
        }
    }
}

fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Boolean(_) => 1,
        Value::Int64(_) | Value::Uint64(_) | Value::Float64(_) => 8,
        Value::Binary(bytes) => bytes.len(),
        Value::Text(text) | Value::Decimal(text) | Value::Temporal(text) | Value::Other(text) => {
            text.len()
        }
    }
}

/// The error for the guest, and whether the connection is of no use any more.
fn translated(error: &Error) -> (SqlError, bool) {
    let words = |text: &str| clean(text, LONGEST_MESSAGE);
    match error {
        Error::Server(error) if ENDS_THE_SESSION.contains(&error.code) => {
            (SqlError::ConnectionLost(words(&error.message)), true)
        }
        Error::Server(error) => (
            SqlError::Database {
                sqlstate: words(&error.state),
                vendor_code: error.code.into(),
                message: words(&error.message),
            },
            false,
        ),
        Error::Driver(mysql_async::DriverError::PacketTooLarge) => (
            SqlError::Limit(format!(
                "the server sent a packet of more than {LONGEST_PACKET} bytes"
            )),
            true,
        ),
        Error::Driver(mysql_async::DriverError::StmtParamsMismatch { .. }) => {
            (SqlError::Unsupported(words(&error.to_string())), false)
        }
        Error::Io(_) | Error::Driver(mysql_async::DriverError::ConnectionClosed) => {
            (SqlError::ConnectionLost(plain(error)), true)
        }
        other => (SqlError::Other(words(&other.to_string())), true),
    }
}
