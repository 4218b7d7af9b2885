//! A PostgreSQL of the lab's own: data on one file system, write-ahead log and a tablespace on
//! another; and a second one on a restored copy, with what its log says about the start.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use nix::sys::signal::Signal;
use nix::unistd::User;
use tokio_postgres::{Config, NoTls};

use crate::command::output_of;
use crate::lab::Lab;
use crate::writers::{Client, length_of_pad};

use super::process::ServerProcess;

/// The superuser, and the account that the server runs as: it refuses root.
pub const ADMINISTRATOR: &str = "postgres";

/// The role that hooks connect as, with the privileges that the hook's README asks for.
pub const ROLE: &str = "stillpoint";

/// The only database that is used.
pub const DATABASE: &str = "postgres";

/// Where Debian and Ubuntu install the versions.
const VERSIONS: &str = "/usr/lib/postgresql";

/// Tables of different storage; each client's sequence goes round all of them.
pub const TABLES: &[(&str, &str)] = &[
    ("heap", ""),
    ("wide", "WITH (toast_tuple_target = 128)"),
    ("elsewhere", "TABLESPACE elsewhere"),
];

/// Where a server keeps its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Mount point of the data; the data directory is `postgresql` in it.
    pub data: PathBuf,
    /// Mount point of the write-ahead log, in `wal`, and of a tablespace, in `tablespace`.
    pub wal: PathBuf,
}

impl Place {
    /// The data directory.
    #[must_use]
    pub fn data_directory(&self) -> PathBuf {
        self.data.join("postgresql")
    }

    fn wal_directory(&self) -> PathBuf {
        self.wal.join("wal")
    }

    fn tablespace(&self) -> PathBuf {
        self.wal.join("tablespace")
    }

    /// Links in a copy lead to the original's directories; and it has the note of a server that runs
    /// elsewhere.
    fn relocate(&self) -> Result<()> {
        let data = self.data_directory();
        fs::remove_file(data.join("pg_wal"))?;
        symlink(self.wal_directory(), data.join("pg_wal"))?;
        for entry in fs::read_dir(data.join("pg_tblspc"))? {
            let link = entry?.path();
            fs::remove_file(&link)?;
            symlink(self.tablespace(), &link)?;
        }
        match fs::remove_file(data.join("postmaster.pid")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// A program of the newest version that is installed.
///
/// # Errors
/// If there is none.
pub fn program(name: &str) -> Result<PathBuf> {
    let versions = fs::read_dir(VERSIONS).context("PostgreSQL is not installed")?;
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions.filter_map(Result::ok).map(|entry| entry.path()).max_by_key(number);
    Ok(newest.context("PostgreSQL is not installed")?.join("bin").join(name))
}

/// A command of the lab that runs as the server's user, in a directory that this may read.
fn as_administrator(lab: &Lab, name: &str) -> Result<Command> {
    let user = User::from_name(ADMINISTRATOR)?.context("there is no user postgres")?;
    let mut command = lab.command(program(name)?);
    command.uid(user.uid.as_raw()).gid(user.gid.as_raw()).current_dir("/");
    command.env("LC_ALL", "C");
    Ok(command)
}

fn make_directory(path: &Path) -> Result<()> {
    let user = User::from_name(ADMINISTRATOR)?.context("there is no user postgres")?;
    fs::create_dir_all(path)?;
    chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o700))?)
}

/// A running server. Killed when dropped.
#[derive(Debug)]
pub struct PostgreSql {
    process: ServerProcess,
    place: Place,
    sockets: PathBuf,
}

impl PostgreSql {
    /// Makes a new data directory and starts a server on it.
    ///
    /// # Errors
    /// If a program fails, or the server does not answer.
    pub fn install(lab: &Lab, place: Place) -> Result<Self> {
        for directory in [place.data_directory(), place.wal_directory(), place.tablespace()] {
            make_directory(&directory)?;
        }
        output_of(
            as_administrator(lab, "initdb")?
                .args(["--no-sync", "--data-checksums", "--locale=C", "--encoding=UTF8"])
                .args(["--auth-local=peer", "--auth-host=reject", "--username", ADMINISTRATOR])
                .arg(format!("--waldir={}", place.wal_directory().display()))
                .arg(format!("--pgdata={}", place.data_directory().display())),
        )?;
        let data = place.data_directory();
        // root may be anybody: it tests what the role of the hook may do, and sets the stage.
        fs::write(data.join("pg_hba.conf"), "local all all peer map=lab\n")?;
        let may_be = [ADMINISTRATOR, ROLE].map(|role| format!("lab root {role}\n")).concat();
        fs::write(data.join("pg_ident.conf"), may_be)?;
        let tablespace = place.tablespace();
        let server = Self::start(lab, place, "live")?;
        let location = tablespace.display();
        server.execute(&format!("CREATE TABLESPACE elsewhere LOCATION '{location}'"))?;
        server.execute(&format!("CREATE ROLE {ROLE} LOGIN"))?;
        server.grant_privileges()?;
        Ok(server)
    }

    /// Starts a server on what is there. Sockets and log are on none of the lab's file systems.
    ///
    /// # Errors
    /// If the server does not answer.
    pub fn start(lab: &Lab, place: Place, name: &str) -> Result<Self> {
        let own = lab.scratch(&format!("postgresql-{name}"))?;
        let sockets = own.join("sockets");
        make_directory(&sockets)?;
        let mut command = as_administrator(lab, "postgres")?;
        command.arg("-D").arg(place.data_directory());
        for setting in [
            "listen_addresses=",
            &format!("unix_socket_directories={}", sockets.display()),
            "shared_buffers=32MB",
            "max_connections=40",
            "max_prepared_transactions=4",
            "log_line_prefix=",
        ] {
            command.args(["-c", setting]);
        }
        let process = ServerProcess::spawn(&mut command, &own.join("log"))?;
        let mut server = Self { process, place, sockets };
        let sockets = server.sockets.clone();
        server.process.wait_until(|| psql(&sockets, "SELECT 1").is_ok())?;
        Ok(server)
    }

    /// Starts a server on restored copies of the two file systems, mounted elsewhere: on files
    /// alone, as after a power cut.
    ///
    /// # Errors
    /// If the server does not answer.
    pub fn start_on_copy(lab: &Lab, place: Place, name: &str) -> Result<(Self, StartLog)> {
        place.relocate()?;
        let server = Self::start(lab, place, name)?;
        let log = server.start_log();
        Ok((server, log))
    }

    /// What the hook's README tells an operator to grant.
    ///
    /// # Errors
    /// If the server refuses it.
    pub fn grant_privileges(&self) -> Result<()> {
        self.execute(&privileges(true)).map(drop)
    }

    /// Where its files are.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The directory of its socket.
    #[must_use]
    pub fn sockets(&self) -> &Path {
        &self.sockets
    }

    /// Its processes.
    #[must_use]
    pub fn process(&self) -> &ServerProcess {
        &self.process
    }

    /// A new connection as the superuser; what the server says meanwhile is dropped.
    ///
    /// # Errors
    /// If the server does not let it in.
    pub async fn connect(&self) -> Result<tokio_postgres::Client> {
        connect(&self.sockets).await
    }

    /// Runs statements with the command line client, as an administrator would.
    ///
    /// # Errors
    /// If one fails.
    pub fn execute(&self, statements: &str) -> Result<String> {
        psql(&self.sockets, statements)
    }

    /// What it has logged since its start.
    #[must_use]
    pub fn start_log(&self) -> StartLog {
        StartLog::parse(&self.process.log())
    }

    /// Where the log ended that it found when it started: its first record after recovery is the
    /// checkpoint that ends this. Its log does not say as much: why no further record was found has
    /// many words (no length, a checksum, another record's link, another page), of which most name no
    /// position.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn end_of_recovery(&self) -> Result<u64> {
        let answer = self.execute("SELECT redo_lsn FROM pg_control_checkpoint()")?;
        parse_lsn(answer.trim()).with_context(|| format!("not a position: {answer:?}"))
    }

    /// Shuts it down in order, without waiting for its clients.
    ///
    /// # Errors
    /// If it does not end in time; it is killed then.
    pub fn stop(self) -> Result<()> {
        self.process.stop(Signal::SIGINT)
    }

    /// Ends it at once, without a shutdown.
    ///
    /// # Errors
    /// If it does not end in time; it is killed then.
    pub fn stop_immediately(self) -> Result<()> {
        self.process.stop(Signal::SIGQUIT)
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

    /// An empty schema `lab` with the clients' tables, which no read of the catalogue has in a
    /// cache.
    ///
    /// # Errors
    /// If a statement fails.
    pub fn create_tables(&self) -> Result<()> {
        let mut statements =
            "SET client_min_messages = warning; DROP SCHEMA IF EXISTS lab CASCADE; CREATE SCHEMA lab;"
                .to_owned();
        for (table, options) in TABLES {
            statements.push_str(&format!(
                "CREATE TABLE lab.{table} (writer int NOT NULL, seq bigint NOT NULL, pad text NOT \
                 NULL, PRIMARY KEY (writer, seq)) {options};"
            ));
        }
        self.execute(&statements).map(drop)
    }

    /// A client of its own for each of `count` writers.
    ///
    /// # Errors
    /// If one cannot connect.
    pub async fn clients(&self, count: usize) -> Result<Vec<Box<dyn Client>>> {
        let mut clients: Vec<Box<dyn Client>> = Vec::with_capacity(count);
        for writer in 0..count {
            clients.push(Box::new(Writer { client: self.connect().await?, writer }));
        }
        Ok(clients)
    }
}

/// The least that the hook `postgresql` needs in all of its modes (hooks/postgresql/README.md), given
/// or taken.
#[must_use]
pub fn privileges(granted: bool) -> String {
    let (verb, word) = if granted { ("GRANT", "TO") } else { ("REVOKE", "FROM") };
    format!(
        "{verb} pg_checkpoint, pg_read_all_settings {word} {ROLE}; {verb} EXECUTE ON FUNCTION \
         pg_backup_start(text, boolean), pg_backup_stop(boolean) {word} {ROLE}"
    )
}

/// A new connection as the superuser to the server with its socket in this directory.
///
/// # Errors
/// If the server does not let it in.
pub async fn connect(sockets: &Path) -> Result<tokio_postgres::Client> {
    let (client, connection) = Config::new()
        .host_path(sockets)
        .user(ADMINISTRATOR)
        .dbname(DATABASE)
        .connect(NoTls)
        .await
        .context("cannot connect to PostgreSQL")?;
    // It ends with its client, or with the server: then the client says why.
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
}

fn psql(sockets: &Path, statements: &str) -> Result<String> {
    output_of(
        Command::new("psql")
            .args([
                "--no-psqlrc",
                "--quiet",
                "--tuples-only",
                "--no-align",
                "--set=ON_ERROR_STOP=1",
            ])
            .args(["--username", ADMINISTRATOR, "--dbname", DATABASE, "--host"])
            .arg(sockets)
            .args(["--command", statements])
            .env("PGCONNECT_TIMEOUT", "5"),
    )
}

struct Writer {
    client: tokio_postgres::Client,
    writer: usize,
}

#[async_trait]
impl Client for Writer {
    async fn commit(&mut self, seq: usize) -> Result<()> {
        let Some((table, _)) = TABLES.get(seq % TABLES.len()) else { return Ok(()) };
        let writer = self.writer;
        let insert = format!(
            "INSERT INTO lab.{table} VALUES ({writer}, {seq}, repeat(md5('{seq}'), {}))",
            length_of_pad(writer, seq) / 32
        );
        Ok(self.client.batch_execute(&insert).await?)
    }

    async fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// What a server's log says about its start (databases: facts A3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartLog {
    /// Where redo began, and the end of the log that was found; none if nothing was to be redone.
    pub redo: Option<(u64, u64)>,
    /// Lines that tell of prepared transactions.
    pub prepared: Vec<String>,
    /// Lines of the levels PANIC, FATAL, ERROR and WARNING.
    pub errors: Vec<String>,
}

impl StartLog {
    /// Finds what it tells in the text of a log.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let position = |words: &str| -> Option<u64> {
            let (_, rest) = text.split_once(words)?;
            parse_lsn(rest.split([' ', ':', '\n']).find(|word| !word.is_empty())?)
        };
        // The last record itself begins where redo is done; the end is where no other was found.
        let end = position("invalid record length at ").or_else(|| position("redo done at "));
        let lines = |words: &[&str]| -> Vec<String> {
            let tells = |line: &&str| {
                words.iter().any(|word| line.contains(word))
                    // Said to whoever asks whether it answers already.
                    && !line.contains("the database system is starting up")
                    && !line.contains("the database system is not yet accepting connections")
                    // Of one that asked, and was gone before the answer.
                    && !line.contains("connection to client lost")
            };
            text.lines().filter(tells).map(str::to_owned).collect()
        };
        Self {
            redo: position("redo starts at ").zip(end),
            prepared: lines(&["recovering prepared transaction"]),
            errors: lines(&["PANIC:", "FATAL:", "ERROR:", "WARNING:"]),
        }
    }

    /// How much was redone, in bytes of the log.
    #[must_use]
    pub fn redone(&self) -> u64 {
        self.redo.map_or(0, |(from, to)| to.saturating_sub(from))
    }
}

/// A position in the write-ahead log, from PostgreSQL's own notation.
#[must_use]
pub fn parse_lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let number = |digits| u64::from_str_radix(digits, 16).ok();
    Some((number(high)? << 32) | number(low)?)
}

/// What the control file of a data directory says, by `pg_controldata`. No server need run.
///
/// # Errors
/// If it cannot be read.
pub fn control_data(lab: &Lab, place: &Place) -> Result<BTreeMap<String, String>> {
    let text = output_of(as_administrator(lab, "pg_controldata")?.arg(place.data_directory()))?;
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    let found: BTreeMap<_, _> =
        pairs.map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned())).collect();
    ensure!(!found.is_empty(), "pg_controldata says nothing");
    Ok(found)
}

/// One entry of it.
///
/// # Errors
/// If there is no such entry.
pub fn of_control_data<'a>(control: &'a BTreeMap<String, String>, name: &str) -> Result<&'a str> {
    let found = control.get(name).with_context(|| format!("pg_controldata: no {name}"))?;
    Ok(found.as_str())
}

#[cfg(test)]
mod tests {
    use super::{StartLog, parse_lsn};

    #[test]
    fn the_amount_of_redo_is_found_in_the_log() {
        let log = StartLog::parse(
            "LOG:  database system was not properly shut down; automatic recovery in progress\n\
             LOG:  redo starts at 0/1900028\n\
             LOG:  invalid record length at 0/1901128: wanted 24, got 0\n\
             LOG:  redo done at 0/19010F0 system usage: CPU: user: 0.00 s\n\
             FATAL:  the database system is starting up\n\
             WARNING:  something else\n",
        );
        assert_eq!(log.redone(), 0x1100);
        assert_eq!(log.errors, ["WARNING:  something else"]);
        assert_eq!(parse_lsn("2/A0"), Some((2 << 32) + 0xa0));
    }

    #[test]
    fn a_start_without_redo_has_none() {
        let log = StartLog::parse("LOG:  redo is not required\n");
        assert_eq!((log.redone(), log.redo), (0, None));
    }
}
