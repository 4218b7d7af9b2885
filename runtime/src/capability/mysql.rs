//! MySQL and MariaDB.

use std::time::Duration;

use mysql_async::consts::{ColumnFlags, ColumnType};
use mysql_async::prelude::{Protocol, Queryable};
use mysql_async::{Conn, Error, Opts, OptsBuilder, Params, QueryResult, SslOpts};
use tokio::time::timeout;

use super::Target;
use super::engine::{Answering, Failed, server_hint};
use super::sql::{Answer, Column, Flavour, Job, Refusal, ServerInfo, SqlError, Value};
use crate::config::connections::{Endpoint, Tls};
use crate::hook::text::{LONGEST_MESSAGE, clean};

/// The longest packet that is taken from a server, in bytes.
const LONGEST_PACKET: usize = 16 << 20;

/// The character set that means "bytes" in a column's description.
const BINARY_CHARACTER_SET: u16 = 63;

/// Errors of the server that end the session: shutdown, killed, idle for too long.
const ENDS_THE_SESSION: [u16; 4] = [1053, 1927, 3169, 4031];

/// One session.
#[derive(Debug)]
pub(crate) struct Session {
    conn: Conn,
    id: u32,
}

/// Opens a session.
pub(crate) async fn open(target: &Target) -> Result<Answering<Session>, Refusal> {
    let opening = async {
        let mut conn = Conn::new(options(target)).await?;
        let version: Option<String> = conn.query_first("SELECT VERSION()").await?;
        Ok::<_, Error>((conn, version.unwrap_or_default()))
    };
    let (conn, version) = opening.await.map_err(|error| not_opened(target, &error))?;
    let flavour = if version.contains("MariaDB") { Flavour::Mariadb } else { Flavour::Mysql };
    let info = ServerInfo { flavour, version: clean(&version, 100) };
    let id = conn.id();
    Ok(Answering { session: Session { conn, id }, id: id.into(), info })
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

fn options(target: &Target) -> Opts {
    let connection = &target.connection;
    let base = OptsBuilder::default()
        .user(connection.user.clone())
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

impl super::engine::Session for Session {
    async fn run(&mut self, job: &Job) -> Result<Answer, Failed> {
        run(&mut self.conn, job).await.map_err(|error| translated(&error))
    }

    async fn ping(&mut self) -> bool {
        self.conn.ping().await.is_ok()
    }

    /// `disconnect` marks the connection first, so that dropping it afterwards just closes it.
    async fn quit(self) {
        let _ = self.conn.disconnect().await;
    }

    async fn kill(self, target: &Target) -> Result<(), String> {
        let Self { conn, id } = self;
        let _ = timeout(Duration::ZERO, conn.disconnect()).await;
        let killing = async {
            let mut conn = Conn::new(options(target)).await?;
            conn.query_drop(format!("KILL CONNECTION {id}")).await?;
            conn.disconnect().await
        };
        match killing.await {
            Ok(()) => Ok(()),
            // 1094: the session is gone already.
            Err(Error::Server(error)) if error.code == 1094 => Ok(()),
            Err(error) => Err(format!("session {id}: {error}")),
        }
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
        bytes += values.iter().map(Value::size).sum::<usize>();
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

/// The error for the guest, and whether the connection is of no use any more.
fn translated(error: &Error) -> Failed {
    let words = |text: &str| clean(text, LONGEST_MESSAGE);
    let (error, fatal) = match error {
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
    };
    Failed { error, fatal }
}
