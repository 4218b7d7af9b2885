//! A Redis of the lab's own, with its data on one file system; and a second one on a restored copy,
//! with what its log says about the start.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use async_trait::async_trait;
use nix::sys::signal::Signal;
use redis::aio::MultiplexedConnection;

use crate::command::output_of;
use crate::lab::Lab;
use crate::writers::{Client, length_of_pad};

use super::process::ServerProcess;

/// The account of the hook, its password, which is no secret, and what hooks/redis/README.md asks for.
pub const USER: &str = "stillpoint";
/// See [`USER`].
pub const PASSWORD: &str = "of-the-lab";
/// See [`USER`].
pub const PRIVILEGES: &[&str] = &[
    "+info",
    "+config|get",
    "+config|set",
    "+client|pause",
    "+client|unpause",
    "+bgsave",
    "+evalsha",
];

/// How it keeps its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// Append-only file, synced once a second: the default of those who use it.
    AofEverySecond,
    /// Append-only file, synced before each answer.
    AofAlways,
    /// Dumps alone.
    Rdb,
}

impl Persistence {
    fn settings(self) -> [[&'static str; 2]; 3] {
        match self {
            Self::AofEverySecond => {
                [["--save", ""], ["--appendonly", "yes"], ["--appendfsync", "everysec"]]
            }
            Self::AofAlways => {
                [["--save", ""], ["--appendonly", "yes"], ["--appendfsync", "always"]]
            }
            Self::Rdb => {
                // Rules, so that the mode is told by them; none that a test lives to see fulfilled.
                [["--save", "36000 1"], ["--appendonly", "no"], ["--appendfsync", "everysec"]]
            }
        }
    }
}

/// A running server. Killed when dropped.
#[derive(Debug)]
pub struct Redis {
    process: ServerProcess,
    socket: PathBuf,
    mount: PathBuf,
    persistence: Persistence,
}

impl Redis {
    /// Starts a server on the directory `redis` of a file system mounted at `mount`. Socket and log
    /// are on none of the lab's file systems.
    ///
    /// # Errors
    /// If the server does not answer.
    pub fn start(lab: &Lab, mount: &Path, persistence: Persistence, name: &str) -> Result<Self> {
        let own = lab.scratch(&format!("redis-{name}"))?;
        let (data, socket) = (mount.join("redis"), own.join("sock"));
        fs::create_dir_all(&data)?;
        let mut command = lab.command("redis-server");
        command.arg("--dir").arg(&data).arg("--unixsocket").arg(&socket);
        // Its title would take the place of its environment, by which the lab finds it.
        command.args(["--port", "0", "--daemonize", "no", "--set-proc-title", "no"]);
        // What is damaged must be seen, not mended.
        command.args(["--aof-load-truncated", "no"]);
        command.args(["--user", USER, "on", &format!(">{PASSWORD}")]).args(PRIVILEGES);
        command.args(persistence.settings().concat());
        let process = ServerProcess::spawn(&mut command, &own.join("log"))?;
        let mut server = Self { process, socket, mount: mount.to_owned(), persistence };
        let socket = server.socket.clone();
        server.process.wait_until(|| {
            command_line(&socket, &["PING"]).is_ok_and(|answer| answer.trim() == "PONG")
        })?;
        Ok(server)
    }

    /// Its unix socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Where its file system is mounted.
    #[must_use]
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// How it keeps its data.
    #[must_use]
    pub fn persistence(&self) -> Persistence {
        self.persistence
    }

    /// Its processes.
    #[must_use]
    pub fn process(&self) -> &ServerProcess {
        &self.process
    }

    /// A new connection.
    ///
    /// # Errors
    /// If the server does not let it in.
    pub async fn connect(&self) -> Result<MultiplexedConnection> {
        let client = redis::Client::open(format!("unix://{}", self.socket.display()))?;
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
        client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .context("cannot connect to Redis")
    }

    /// Runs one command with the command line client, as an administrator would.
    ///
    /// # Errors
    /// If it fails.
    pub fn execute(&self, arguments: &[&str]) -> Result<String> {
        command_line(&self.socket, arguments)
    }

    /// What it has logged since its start.
    #[must_use]
    pub fn start_log(&self) -> StartLog {
        StartLog::parse(&self.process.log())
    }

    /// Shuts it down in order.
    ///
    /// # Errors
    /// If it does not end in time; it is killed then.
    pub fn stop(self) -> Result<()> {
        self.process.stop(Signal::SIGTERM)
    }

    /// As [`ServerProcess::strike`].
    ///
    /// # Errors
    /// If it cannot be killed.
    pub fn strike(&mut self) -> Result<()> {
        self.process.strike()
    }

    /// Ends it as a power cut would.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub fn kill(self) -> Result<()> {
        self.process.kill()
    }

    /// A client of its own for each of `count` writers.
    ///
    /// # Errors
    /// If one cannot connect.
    pub async fn clients(&self, count: usize) -> Result<Vec<Box<dyn Client>>> {
        let mut clients: Vec<Box<dyn Client>> = Vec::with_capacity(count);
        for writer in 0..count {
            clients.push(Box::new(Writer { connection: self.connect().await?, writer }));
        }
        Ok(clients)
    }
}

fn command_line(socket: &Path, arguments: &[&str]) -> Result<String> {
    // -e: an error of the server is one of the command.
    output_of(Command::new("redis-cli").arg("-e").arg("-s").arg(socket).args(arguments))
}

/// Between two writes of one client.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(1);

struct Writer {
    connection: MultiplexedConnection,
    writer: usize,
}

/// The kinds of data that each client's sequence goes round.
pub const KINDS: usize = 3;

#[async_trait]
impl Client for Writer {
    async fn commit(&mut self, seq: usize) -> Result<()> {
        let writer = self.writer;
        let mut command = match seq % KINDS {
            0 => redis::cmd("RPUSH").arg(format!("list:{writer}")).arg(seq).to_owned(),
            1 => redis::cmd("HSET").arg(format!("hash:{writer}")).arg(seq).arg("x").to_owned(),
            _ => redis::cmd("SET")
                .arg(format!("key:{writer}:{seq}"))
                .arg("x".repeat(length_of_pad(writer, seq)))
                .to_owned(),
        };
        let _: redis::Value = command.take().query_async(&mut self.connection).await?;
        // A hundred thousand rows prove no more than a thousand, and are read by each copy.
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }

    async fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// The sequence numbers that a server has of one writer, whatever kind they are kept in.
///
/// # Errors
/// If the server does not tell them.
pub async fn numbers_of(connection: &mut MultiplexedConnection, writer: usize) -> Result<Vec<u64>> {
    let mut numbers: Vec<u64> = redis::cmd("LRANGE")
        .arg(format!("list:{writer}"))
        .arg(0)
        .arg(-1)
        .query_async(connection)
        .await?;
    let fields: Vec<u64> =
        redis::cmd("HKEYS").arg(format!("hash:{writer}")).query_async(connection).await?;
    numbers.extend(fields);
    let prefix = format!("key:{writer}:");
    let keys: Vec<String> =
        redis::cmd("KEYS").arg(format!("{prefix}*")).query_async(connection).await?;
    for key in keys {
        numbers.push(key.trim_start_matches(&prefix).parse().context("a key of nobody")?);
    }
    Ok(numbers)
}

/// A section of `INFO`, as its keys and values.
#[must_use]
pub fn parse_info(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.trim().split_once(':'));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// What a server's log says about its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartLog {
    /// Lines that tell what was read.
    pub loaded: Vec<String>,
    /// Lines of the level of warnings that tell of the data, and those that tell of truncated or bad
    /// files, whatever their level.
    pub errors: Vec<String>,
}

impl StartLog {
    /// Finds what it tells in the text of a log.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let lines = |words: &[&str]| -> Vec<String> {
            let tells = |line: &&str| words.iter().any(|word| line.contains(word));
            text.lines().filter(tells).map(str::to_owned).collect()
        };
        Self {
            loaded: lines(&["DB loaded from", "Done loading RDB"]),
            errors: lines(&[
                "Unexpected end of file",
                "short read",
                "Bad file format",
                "truncat",
                "corrupt",
                "Fatal error",
                "checksum",
            ]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{StartLog, parse_info};

    #[test]
    fn a_truncated_file_is_found_in_the_log() {
        let log = StartLog::parse(
            "1:M 20 Nov 2026 10:00:00.000 * DB loaded from base file appendonly.aof.1.base.rdb: 0.001 seconds\n\
             1:M 20 Nov 2026 10:00:00.000 # Unexpected end of file reading the append only file appendonly.aof.1.incr.aof.\n",
        );
        assert_eq!((log.loaded.len(), log.errors.len()), (1, 1));
    }

    #[test]
    fn a_section_of_info_is_keys_and_values() {
        let info = parse_info("# Replication\r\nrole:master\r\nmaster_repl_offset:14\r\n");
        assert_eq!(info["master_repl_offset"], "14");
    }
}
