//! A MariaDB of the lab's own: data on one file system, binary log on another; and a second one on
//! a restored copy, with what its log says about the start.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mysql_async::{Conn, Opts, OptsBuilder};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::command::{output_of, run};
use crate::lab::Lab;

/// How long a server may take to answer, also after a crash.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How long a server may take to shut down.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// Base name of the binary log's files.
const BINLOG: &str = "binlog";

/// Where a server keeps its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Mount point of the data; the data directory is `mysql` in it.
    pub data: PathBuf,
    /// Mount point of the binary log; its files are in `log` in it.
    pub binlog: PathBuf,
}

impl Place {
    /// The data directory.
    #[must_use]
    pub fn data_directory(&self) -> PathBuf {
        self.data.join("mysql")
    }

    /// The directory of the binary log's files.
    #[must_use]
    pub fn binlog_directory(&self) -> PathBuf {
        self.binlog.join("log")
    }

    /// The binary log's files, oldest first. No server need run.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn binlog_files(&self) -> Result<Vec<PathBuf>> {
        let directory = self.binlog_directory();
        let mut files: Vec<PathBuf> = fs::read_dir(&directory)
            .with_context(|| format!("cannot read {}", directory.display()))?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .filter(|path| {
                path.extension()
                    .is_some_and(|extension| extension != "index" && extension != "state")
            })
            .collect();
        files.sort();
        Ok(files)
    }

    /// The index names the files by the path at which they were written; a copy's are elsewhere.
    fn relocate_binlog_index(&self) -> Result<()> {
        let lines: Vec<String> =
            self.binlog_files()?.iter().map(|file| format!("{}\n", file.display())).collect();
        fs::write(self.binlog_directory().join(format!("{BINLOG}.index")), lines.concat())
            .context("cannot write the binary log's index")
    }
}

/// A running server. Killed when dropped.
#[derive(Debug)]
pub struct MariaDb {
    process: Child,
    place: Place,
    socket: PathBuf,
    error_log: PathBuf,
}

impl MariaDb {
    /// Makes a new data directory and starts a server on it.
    ///
    /// # Errors
    /// If a program fails, or the server does not answer.
    pub fn install(lab: &Lab, place: Place) -> Result<Self> {
        fs::create_dir_all(place.data_directory())?;
        fs::create_dir_all(place.binlog_directory())?;
        // Any server that starts removes what it takes for remains in its temporary directory; not
        // even for a moment is one shared.
        let own = lab.scratch("mariadb-install")?;
        output_of(
            lab.command("mariadb-install-db")
                .args(["--no-defaults", "--user=root", "--skip-test-db"])
                .arg(format!("--datadir={}", place.data_directory().display()))
                .arg(format!("--tmpdir={}", own.display()))
                .arg(LOG_FILE_SIZE),
        )?;
        Self::start(lab, place, "live")
    }

    /// Starts a server on restored copies of the two file systems, mounted elsewhere.
    ///
    /// # Errors
    /// If the server does not answer.
    pub fn start_on_copy(lab: &Lab, place: Place, name: &str) -> Result<(Self, StartLog)> {
        place.relocate_binlog_index()?;
        let server = Self::start(lab, place, name)?;
        let log = server.start_log()?;
        Ok((server, log))
    }

    /// Starts a server on what is there. Socket and logs are on none of the lab's file systems.
    ///
    /// # Errors
    /// If the server does not answer.
    pub fn start(lab: &Lab, place: Place, name: &str) -> Result<Self> {
        let own = lab.scratch(&format!("mariadb-{name}"))?;
        let (socket, error_log) = (own.join("sock"), own.join("error.log"));
        // Each start has a log of its own, so that what it says is about this start.
        if let Err(error) = fs::remove_file(&error_log)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(error).context("cannot remove the old error log");
        }
        let binlog = place.binlog_directory().join(BINLOG);
        let process = lab
            .command("mariadbd")
            .args(["--no-defaults", "--user=root", "--skip-networking", "--server-id=1"])
            .args(["--sync-binlog=1", "--innodb-flush-log-at-trx-commit=1", "--binlog-format=ROW"])
            .args(["--innodb-buffer-pool-size=64M", LOG_FILE_SIZE, "--skip-name-resolve"])
            .arg(format!("--datadir={}", place.data_directory().display()))
            .arg(format!("--log-bin={}", binlog.display()))
            .arg(format!("--socket={}", socket.display()))
            .arg(format!("--pid-file={}", own.join("pid").display()))
            .arg(format!("--tmpdir={}", own.display()))
            .arg(format!("--log-error={}", error_log.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start mariadbd")?;
        let mut server = Self { process, place, socket, error_log };
        server.wait_until_it_answers()?;
        Ok(server)
    }

    /// Where its files are.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Its unix socket; root is let in by it.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.process.id()).unwrap_or(i32::MAX))
    }

    /// How to connect as root.
    #[must_use]
    pub fn options(&self) -> Opts {
        OptsBuilder::default()
            .socket(Some(self.socket.display().to_string()))
            .user(Some("root"))
            .into()
    }

    /// A new connection as root.
    ///
    /// # Errors
    /// If the server does not let it in.
    pub async fn connect(&self) -> Result<Conn> {
        Conn::new(self.options()).await.context("cannot connect to MariaDB")
    }

    /// Runs statements with the command line client, as an administrator would.
    ///
    /// # Errors
    /// If one fails.
    pub fn execute(&self, statements: &str) -> Result<String> {
        output_of(
            Command::new("mariadb")
                .args(["--no-defaults", "--skip-column-names", "--batch", "-u", "root", "-S"])
                .arg(&self.socket)
                .args(["-e", statements]),
        )
    }

    /// What it has logged since its start.
    ///
    /// # Errors
    /// If its log cannot be read.
    pub fn start_log(&self) -> Result<StartLog> {
        Ok(StartLog::parse(&fs::read_to_string(&self.error_log)?))
    }

    /// Sends it a signal: SIGSTOP for a server that hangs, SIGCONT for one that goes on.
    ///
    /// # Errors
    /// If it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid(), signal).with_context(|| format!("cannot send {signal} to mariadbd"))
    }

    /// Shuts it down in order.
    ///
    /// # Errors
    /// If it does not end in time; it is killed then.
    pub fn stop(mut self) -> Result<()> {
        self.signal(Signal::SIGTERM)?;
        let deadline = Instant::now() + STOP_LIMIT;
        while self.process.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "mariadbd does not shut down");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Ends it as a power cut would.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    fn wait_until_it_answers(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if self.execute("SELECT 1").is_ok() {
                return Ok(());
            }
            if let Some(status) = self.process.try_wait()? {
                bail!("mariadbd ended at its start ({status}):\n{}", self.log_text());
            }
            ensure!(Instant::now() < deadline, "mariadbd does not answer:\n{}", self.log_text());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn log_text(&self) -> String {
        fs::read_to_string(&self.error_log).unwrap_or_else(|error| error.to_string())
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        // A stopped one dies, too. If it has ended already there is nothing to kill.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const LOG_FILE_SIZE: &str = "--innodb-log-file-size=32M";

/// What a server's error log says about its start (databases: facts A3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartLog {
    /// InnoDB redid from its log. Not an undo: redo is always there under `FLUSH TABLES WITH READ
    /// LOCK` without a checkpoint.
    pub crash_recovery: bool,
    /// From its checkpoint to the end of its log, in bytes; none if it does not tell.
    pub redone: Option<u64>,
    /// Lines that tell of transactions that were, or have to be, rolled back.
    pub rolled_back: Vec<String>,
    /// Lines that tell of transactions that were found prepared, and were decided by the binary log.
    pub prepared: Vec<String>,
    /// Lines that tell of tables that were not closed.
    pub unclosed_tables: Vec<String>,
    /// Lines of level ERROR.
    pub errors: Vec<String>,
}

impl StartLog {
    /// Finds what it tells in the text of an error log.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let lines = |words: &[&str]| -> Vec<String> {
            text.lines()
                .filter(|line| {
                    let line = line.to_lowercase();
                    words.iter().any(|word| line.contains(word))
                })
                .map(str::to_owned)
                .collect()
        };
        let position = |words: &str| -> Option<u64> {
            let (_, rest) = text.split_once(words)?;
            rest.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
        };
        let checkpoint = position("Starting crash recovery from checkpoint LSN=");
        let end = position("End of log at LSN=");
        Self {
            crash_recovery: text.contains("Starting crash recovery from checkpoint"),
            redone: checkpoint.zip(end).map(|(checkpoint, end)| end.saturating_sub(checkpoint)),
            rolled_back: lines(&[
                "rolled back recovered transaction",
                "which must be rolled back",
                "rolling back trx",
                "rollback of trx",
            ]),
            prepared: lines(&["prepared transaction(s)", "prepared state"]),
            unclosed_tables: lines(&["hasn't closed the table", "marked as crashed"]),
            errors: lines(&["[error]"]),
        }
    }
}

/// How many rows were inserted into the tables of `database`, by the binary log's files alone.
///
/// # Errors
/// If `mariadb-binlog` cannot read them.
pub fn inserts_in_binlog(files: &[PathBuf], database: &str) -> Result<u64> {
    let mut decode: Vec<PathBuf> =
        ["--no-defaults", "--base64-output=decode-rows", "--verbose"].map(PathBuf::from).to_vec();
    decode.extend_from_slice(files);
    let text = run("mariadb-binlog", decode)?;
    let insert = format!("### INSERT INTO `{database}`");
    Ok(text.lines().filter(|line| line.starts_with(&insert)).count() as u64)
}

#[cfg(test)]
mod tests {
    use super::StartLog;

    #[test]
    fn a_rollback_and_prepared_transactions_are_found_in_the_log() {
        let log = StartLog::parse(
            "2026-11-20 10:00:00 0 [Note] InnoDB: Starting crash recovery from checkpoint LSN=46946\n\
             2026-11-20 10:00:00 0 [Note] InnoDB: Transaction 25 was in the XA prepared state.\n\
             2026-11-20 10:00:00 0 [Note] InnoDB: Transaction 26 was in the XA prepared state.\n\
             2026-11-20 10:00:00 0 [Note] InnoDB: 3 transaction(s) which must be rolled back or cleaned up in total 2000 row operations to undo\n\
             2026-11-20 10:00:00 0 [Note] InnoDB: Rolled back recovered transaction 27\n\
             2026-11-20 10:00:00 0 [Note] Found 2 prepared transaction(s) in InnoDB\n",
        );
        assert!(log.crash_recovery);
        assert_eq!(log.rolled_back.len(), 2);
        assert_eq!(log.prepared.len(), 3);
    }

    #[test]
    fn a_quiet_start_has_nothing_to_tell() {
        let log = StartLog::parse(
            "2026-11-20 10:00:00 0 [Note] InnoDB: Buffer pool(s) load completed\n\
             2026-11-20 10:00:00 0 [Note] mariadbd: ready for connections.\n",
        );
        assert_eq!(log, StartLog::default());
    }
}
