//! A database under the cells of a kind of its own: clients that commit, and whether they go on.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::runtime::Runtime;

use crate::lab::Lab;
use crate::mariadb::{MariaDb, Place};
use crate::writers::{Writers, create_tables};

/// Clients that commit during a cell.
const CLIENTS: usize = 2;
/// Commits after which it is known that clients go on.
const COMMITS: u64 = 20;
/// A client that has not committed for this long is locked out.
const LOCKED: Duration = Duration::from_secs(5);

/// A server on the lab's file systems `data` and `binlog`.
#[derive(Debug)]
pub struct Database {
    server: MariaDb,
    runtime: Runtime,
}

/// Clients at work.
#[derive(Debug)]
pub struct Clients {
    writers: Writers,
    newest_session: u64,
}

impl Database {
    /// Makes one and starts it.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn new(lab: &Lab) -> Result<Self> {
        let place = Place { data: lab.mount("data"), binlog: lab.mount("binlog") };
        let server = MariaDb::install(lab, place)?;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        Ok(Self { server, runtime })
    }

    /// The server.
    #[must_use]
    pub fn server(&self) -> &MariaDb {
        &self.server
    }

    /// Empty tables, and clients that commit into them.
    ///
    /// # Errors
    /// If they cannot.
    pub fn begin(&self) -> Result<Clients> {
        self.runtime.block_on(async {
            create_tables(&mut self.server.connect().await?).await?;
            let writers = Writers::start(self.server.options(), CLIENTS).await?;
            writers.wait_for(COMMITS / 4, LOCKED).await?;
            let newest =
                self.server.execute("SELECT MAX(id) FROM information_schema.processlist")?;
            let newest_session = newest.trim().parse().context("a session's number")?;
            Ok(Clients { writers, newest_session })
        })
    }

    /// Ends every session that was opened after the clients': those of the hook.
    ///
    /// # Errors
    /// If the server does not answer.
    pub fn cut_sessions(&self, clients: &Clients) -> Result<()> {
        let list = self.server.execute(&format!(
            "SELECT id FROM information_schema.processlist WHERE id > {} AND id <> CONNECTION_ID() \
             AND command <> 'Daemon'",
            clients.newest_session
        ))?;
        for id in list.split_whitespace() {
            // It may have ended by itself meanwhile.
            let _ = self.server.execute(&format!("KILL {id}"));
        }
        Ok(())
    }

    /// Whether the clients go on within `limit`.
    ///
    /// # Errors
    /// If a client failed.
    pub fn go_on_within(&self, clients: &Clients, limit: Duration) -> Result<bool> {
        Ok(self.runtime.block_on(clients.writers.wait_for(COMMITS / 4, limit)).is_ok())
    }

    /// Waits until the clients have gone on, and ends them: how long after `since_ns` each committed
    /// what it had begun after that; none if they are locked out.
    ///
    /// # Errors
    /// If a client failed.
    pub fn end(&self, clients: Clients, since_ns: Option<u64>) -> Result<Option<Vec<Duration>>> {
        self.runtime.block_on(async {
            if clients.writers.wait_for(COMMITS, LOCKED).await.is_err() {
                return Ok(None);
            }
            let history = clients.writers.stop().await?;
            let Some(since_ns) = since_ns else { return Ok(Some(Vec::new())) };
            Ok(Some(history.recovery_after(since_ns).into_iter().flatten().collect()))
        })
    }

    /// Stops it.
    ///
    /// # Errors
    /// If it does not end.
    pub fn stop(self) -> Result<()> {
        self.server.stop()
    }
}
