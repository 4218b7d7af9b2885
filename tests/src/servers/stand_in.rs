//! Stand-ins, and no servers: they answer on a unix socket as versions do that are too old for their
//! hook, and know nothing else. Real ones of those versions are not to be had any more.

use std::path::Path;

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use crate::lab::Lab;

/// What the stand-in for PostgreSQL says that it is.
pub const OLD_POSTGRESQL: &str = "9.6.24";
/// What the stand-in for Redis says that it is, to whoever can still ask: every session begins with
/// HELLO, which it does not know.
pub const OLD_REDIS: &str = "2.8.24";

/// Answers until it is dropped.
#[derive(Debug)]
pub struct StandIn {
    task: JoinHandle<()>,
    /// Its entry in `connections.toml`, after the table's header.
    pub connection: String,
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Of a PostgreSQL that is too old.
///
/// # Errors
/// If the socket cannot be made.
pub fn postgresql(lab: &Lab) -> Result<StandIn> {
    let directory = lab.scratch("stand-in-postgresql")?;
    let listener = listen(&directory.join(".s.PGSQL.5432"))?;
    let connection = format!(
        "engine = \"postgresql\"\nsocket = \"{}\"\nuser = \"stillpoint\"\ndatabase = \"postgres\"\n",
        directory.display()
    );
    Ok(StandIn {
        task: accept(listener, |stream| async { postgresql_session(stream).await }),
        connection,
    })
}

/// Of a Redis that is too old.
///
/// # Errors
/// If the socket cannot be made.
pub fn redis(lab: &Lab) -> Result<StandIn> {
    let socket = lab.scratch("stand-in-redis")?.join("sock");
    let listener = listen(&socket)?;
    let connection = format!("engine = \"redis\"\nsocket = \"{}\"\n", socket.display());
    Ok(StandIn {
        task: accept(listener, |stream| async { redis_session(stream).await }),
        connection,
    })
}

fn listen(socket: &Path) -> Result<UnixListener> {
    let _ = std::fs::remove_file(socket);
    UnixListener::bind(socket).with_context(|| format!("cannot listen at {}", socket.display()))
}

fn accept<F>(
    listener: UnixListener,
    session: impl Fn(UnixStream) -> F + Send + 'static,
) -> JoinHandle<()>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // It ends with its client.
            tokio::spawn(session(stream));
        }
    })
}

/// Lets everybody in, says which process serves him, and answers all else with an error.
async fn postgresql_session(mut stream: UnixStream) -> Result<()> {
    const SSL_REQUEST: u32 = 80_877_103;
    loop {
        let length = stream.read_u32().await?;
        let code = stream.read_u32().await?;
        let mut rest = vec![0; usize::try_from(length)?.saturating_sub(8)];
        stream.read_exact(&mut rest).await?;
        if code != SSL_REQUEST {
            break;
        }
        stream.write_all(b"N").await?;
    }
    let version = format!("server_version\0{OLD_POSTGRESQL}\0");
    for (kind, body) in [
        (b'R', vec![0; 4]),
        (b'S', version.into_bytes()),
        (b'S', b"client_encoding\0UTF8\0".to_vec()),
        (b'K', vec![0, 0, 0, 1, 0, 0, 0, 1]),
        (b'Z', b"I".to_vec()),
    ] {
        say(&mut stream, kind, &body).await?;
    }
    let mut failed = false;
    loop {
        let kind = stream.read_u8().await?;
        let length = stream.read_u32().await?;
        let mut body = vec![0; usize::try_from(length)?.saturating_sub(4)];
        stream.read_exact(&mut body).await?;
        match kind {
            b'X' => return Ok(()),
            b'S' => {
                failed = false;
                say(&mut stream, b'Z', b"I").await?;
            }
            _ if failed => {}
            b'P' if !String::from_utf8_lossy(&body).contains("pg_backend_pid()") => {
                failed = true;
                let error =
                    b"SERROR\0VERROR\0C42883\0Mthis is a stand-in, and does not know that\0\0";
                say(&mut stream, b'E', error).await?;
            }
            kind => answer_with_a_pid(&mut stream, kind).await?,
        }
    }
}

/// One row of one column, an `int4` in binary.
async fn answer_with_a_pid(stream: &mut UnixStream, kind: u8) -> Result<()> {
    const COLUMN: &[u8] = b"\0\x01pid\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\x01";
    match kind {
        b'P' => say(stream, b'1', b"").await,
        b'D' => {
            say(stream, b't', b"\0\0").await?;
            say(stream, b'T', COLUMN).await
        }
        b'B' => say(stream, b'2', b"").await,
        b'E' => {
            say(stream, b'D', b"\0\x01\0\0\0\x04\0\0\0\x01").await?;
            say(stream, b'C', b"SELECT 1\0").await
        }
        b'C' => say(stream, b'3', b"").await,
        _ => Ok(()),
    }
}

async fn say(stream: &mut UnixStream, kind: u8, body: &[u8]) -> Result<()> {
    stream.write_u8(kind).await?;
    stream.write_u32(u32::try_from(body.len() + 4)?).await?;
    Ok(stream.write_all(body).await?)
}

/// Knows INFO and nothing else; not even HELLO, as before version 6.
async fn redis_session(stream: UnixStream) -> Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut words: Vec<String> = Vec::new();
        let count = number(&mut stream, '*').await?;
        for _ in 0..count {
            let length = number(&mut stream, '$').await?;
            let mut word = vec![0; length + 2];
            stream.read_exact(&mut word).await?;
            words.push(String::from_utf8_lossy(&word).trim().to_uppercase());
        }
        let answer = match words.first().map(String::as_str) {
            Some("INFO") => {
                let text = format!(
                    "# Server\r\nredis_version:{OLD_REDIS}\r\nrun_id:0\r\n# Replication\r\nrole:master\r\n"
                );
                format!("${}\r\n{text}\r\n", text.len())
            }
            Some("PING") => "+PONG\r\n".to_owned(),
            word => format!("-ERR unknown command '{}'\r\n", word.unwrap_or_default()),
        };
        stream.write_all(answer.as_bytes()).await?;
    }
}

async fn number(stream: &mut BufReader<UnixStream>, mark: char) -> Result<usize> {
    let mut line = String::new();
    anyhow::ensure!(stream.read_line(&mut line).await? > 0, "the client has gone");
    line.trim().strip_prefix(mark).context("not RESP")?.parse().context("no number")
}
