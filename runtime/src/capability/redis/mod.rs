//! Redis, and Valkey. A statement is one command line (see [`command`]), an answer becomes rows (see
//! [`reply`]), and a session is exactly one connection: nothing reconnects behind it. The protocol is RESP2,
//! so that a server never sends what was not asked for.

pub(crate) mod command;
mod link;
mod reply;

use redis::{Cmd, ErrorKind, RedisError, Value as Reply};

use super::Target;
use super::engine::{Answering, Failed, server_hint};
use super::sql::{Answer, Flavour, Job, Refusal, ServerInfo, SqlError};
use crate::config::connections::Connection;
use crate::hook::text::{LONGEST_MESSAGE, clean};
use link::Link;
use reply::Most;

/// One session.
pub(crate) struct Session {
    link: Link,
    id: u64,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Opens a session.
pub(crate) async fn open(target: &Target) -> Result<Answering<Session>, Refusal> {
    let (session, info) = greeted(target).await.map_err(|error| not_opened(target, &error))?;
    Ok(Answering { id: session.id, session, info })
}

/// Connects, and says HELLO: that logs in, and tells who answers and the session's number, in one
/// exchange, which every user may do.
async fn greeted(target: &Target) -> Result<(Session, ServerInfo), RedisError> {
    let mut link = Link::connect(target).await?;
    let greeting = link.send(&hello(target)).await?;
    let told = Told::from_greeting(greeting);
    let Some(id) = told.id else {
        return Err(RedisError::from((
            ErrorKind::Parse,
            "the server does not say the session's id",
        )));
    };
    let info = ServerInfo { flavour: Flavour::Redis, version: clean(&told.version(), 100) };
    Ok((Session { link, id }, info))
}

fn hello(target: &Target) -> Cmd {
    let mut hello = redis::cmd("HELLO");
    hello.arg(2);
    let user = target.connection.user.as_deref();
    let password = target.secret.as_ref().map(|secret| secret.expose());
    if user.is_some() || password.is_some() {
        // A user without a password takes any.
        hello.arg("AUTH").arg(user.unwrap_or("default")).arg(password.unwrap_or_default());
    }
    hello.arg("SETNAME").arg("stillpoint");
    hello
}

/// What the server says of itself when it is greeted.
#[derive(Debug, Default)]
struct Told {
    server: String,
    version: String,
    id: Option<u64>,
}

impl Told {
    /// Names and values in turn; what is not known is left out.
    fn from_greeting(greeting: Reply) -> Self {
        let entries: Vec<(Reply, Reply)> = match greeting {
            Reply::Map(entries) => entries,
            Reply::Array(items) => {
                let mut items = items.into_iter();
                std::iter::from_fn(|| Some((items.next()?, items.next()?))).collect()
            }
            _ => Vec::new(),
        };
        let mut told = Told::default();
        for (name, value) in entries {
            match (text(name).as_str(), value) {
                ("server", value) => told.server = text(value),
                ("version", value) => told.version = text(value),
                ("id", Reply::Int(id)) => told.id = u64::try_from(id).ok(),
                _ => {}
            }
        }
        told
    }

    /// "Redis 7.0.15".
    fn version(&self) -> String {
        let mut name = self.server.chars();
        let first = name.next().map(|first| first.to_ascii_uppercase());
        format!("{}{} {}", first.map(String::from).unwrap_or_default(), name.as_str(), self.version)
    }
}

fn text(reply: Reply) -> String {
    match reply {
        Reply::BulkString(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Reply::SimpleString(text) | Reply::VerbatimString { text, .. } => text,
        _ => String::new(),
    }
}

impl super::engine::Session for Session {
    async fn run(&mut self, job: &Job) -> Result<Answer, Failed> {
        let harmless = |error| Failed { error, fatal: false };
        let arguments = command::arguments(&job.statement.text, &job.params).map_err(harmless)?;
        let mut line = Cmd::new();
        line.arg(&arguments);
        let reply = self.link.send(&line).await.map_err(|error| self.failed(&error))?;
        let most = Most { rows: job.most_rows, bytes: job.most_bytes };
        reply::answer(reply, command::answers_pairs(&arguments), most).map_err(harmless)
    }

    /// Any answer will do: the user may lack the permission for PING.
    async fn ping(&mut self) -> bool {
        match self.link.send(&redis::cmd("PING")).await {
            Ok(_) => true,
            Err(error) => server_words(&error).is_some(),
        }
    }

    /// Redis takes a closed socket for a good-bye.
    async fn quit(self) {
        self.link.close().await;
    }

    async fn kill(self, target: &Target) -> Result<(), String> {
        let Session { link, id } = self;
        link.close().await;
        let killing = async {
            let (mut session, _) = greeted(target).await?;
            let mut kill = redis::cmd("CLIENT");
            kill.arg("KILL").arg("ID").arg(id);
            // The number of clients killed: none, if the server had noticed that the socket is closed.
            session.link.send(&kill).await?;
            session.link.close().await;
            Ok(())
        };
        killing.await.map_err(|error: RedisError| plain(&error))
    }
}

impl Session {
    fn failed(&self, error: &RedisError) -> Failed {
        if let Some(message) = server_words(error) {
            // Redis has no numbers: the message begins with a word that says what it is.
            let error = SqlError::Database { sqlstate: String::new(), vendor_code: 0, message };
            return Failed { error, fatal: false };
        }
        let error = if self.link.was_flooded() {
            SqlError::Limit(format!(
                "the server's answer has more than {} bytes",
                link::LONGEST_ANSWER
            ))
        } else if error.kind() == ErrorKind::Io {
            SqlError::ConnectionLost(plain(error))
        } else {
            SqlError::Other(plain(error))
        };
        Failed { error, fatal: true }
    }
}

/// An error of the server in its own words, `NOPERM this user has no permissions …`; `None` if it is
/// not the server's.
fn server_words(error: &RedisError) -> Option<String> {
    let code = error.code()?;
    let words = match error.detail() {
        Some(detail) => format!("{code} {detail}"),
        None => code.to_owned(),
    };
    Some(clean(&words, LONGEST_MESSAGE))
}

/// The guest learns that there is no session; where and as whom is for the operator only.
fn not_opened(target: &Target, error: &RedisError) -> Refusal {
    let Connection { name, described_at, .. } = &*target.connection;
    let (said, hint) = match (error.code(), server_words(error)) {
        (Some("WRONGPASS" | "NOAUTH" | "NOPERM"), Some(words)) => (
            "the server refuses the operator's user or password".to_owned(),
            format!(
                "the server said: {words}; check `user` and the password at {described_at} (every \
                 connection logs in by HELLO)"
            ),
        ),
        (Some("ERR"), Some(words)) if words.contains("unknown command") => (
            "the server is older than Redis 6.0".to_owned(),
            format!("the server said: {words}; it is described at {described_at}"),
        ),
        (_, Some(words)) => (
            "the server refuses the connection".to_owned(),
            format!("the server said: {words}; it is described at {described_at}"),
        ),
        (_, None) => (plain(error), server_hint(target)),
    };
    let message = format!("connection `{name}`: {said}");
    Refusal { error: SqlError::Unavailable(message), hint: Some(hint) }
}

fn plain(error: &RedisError) -> String {
    match server_words(error) {
        Some(words) => words,
        None => clean(&error.to_string(), LONGEST_MESSAGE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting(server: &str) -> Reply {
        let bulk = |text: &str| Reply::BulkString(text.into());
        Reply::Array(vec![
            bulk("server"),
            bulk(server),
            bulk("version"),
            bulk("7.0.15"),
            bulk("id"),
            Reply::Int(7),
            bulk("modules"),
            Reply::Array(vec![]),
        ])
    }

    #[test]
    fn the_greeting_tells_who_answers_and_the_session_s_number() {
        let told = Told::from_greeting(greeting("redis"));
        assert_eq!((told.version().as_str(), told.id), ("Redis 7.0.15", Some(7)));
        assert_eq!(Told::from_greeting(greeting("valkey")).version(), "Valkey 7.0.15");
        assert_eq!(Told::from_greeting(Reply::Okay).id, None);
    }
}
