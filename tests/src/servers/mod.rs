//! Databases of one machine, behind one trait: what the suites of several hooks, the fault tables and
//! the bench ask of each. MariaDB itself is in [`crate::mariadb`].

mod copies;
mod databases;
pub mod faults;
pub mod machine;
pub mod pause;
pub mod postgresql;
pub mod process;
pub mod redis;
pub mod shell;
pub mod stand_in;

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Result, bail};
use async_trait::async_trait;
use nix::sys::signal::Signal;

use crate::lab::{FsSpec, FsType, Lab};
use crate::oracle::Violation;
use crate::stillpoint::{Copies, Manifest};
use crate::writers::{Client, History};

pub(crate) use copies::examine_postgresql;
pub use machine::Machine;

/// A database, and how its hook quiesces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// MariaDB: data on ext4, binary log on XFS.
    MariaDb,
    /// PostgreSQL with the hook's mode `checkpoint`: data on XFS, write-ahead log on ext4.
    PostgreSql,
    /// The same with the mode `backup`.
    PostgreSqlBackup,
    /// Redis on btrfs, append-only file synced every second.
    Redis,
    /// The same, synced before each answer.
    RedisAlways,
    /// The same with dumps alone.
    RedisDumps,
}

impl Kind {
    /// All, each with everything about it.
    pub const ALL: [Self; 6] = [
        Self::MariaDb,
        Self::PostgreSql,
        Self::PostgreSqlBackup,
        Self::Redis,
        Self::RedisAlways,
        Self::RedisDumps,
    ];

    /// The hook for it, which is also the name of its connection.
    #[must_use]
    pub fn hook(self) -> &'static str {
        match self {
            Self::MariaDb => "mysql",
            Self::PostgreSql | Self::PostgreSqlBackup => "postgresql",
            Self::Redis | Self::RedisAlways | Self::RedisDumps => "redis",
        }
    }

    /// What is put into the `[settings]` of the hook's grant.
    #[must_use]
    pub fn settings(self) -> &'static str {
        match self {
            Self::PostgreSqlBackup => "mode = \"backup\"\n",
            _ => "",
        }
    }

    /// The file systems that it lies on.
    #[must_use]
    pub fn file_systems(self) -> Vec<FsSpec> {
        match self {
            Self::MariaDb => vec![
                FsSpec::new("data", FsType::Ext4, 512),
                FsSpec::new("binlog", FsType::Xfs, 320),
            ],
            Self::PostgreSql | Self::PostgreSqlBackup => vec![
                FsSpec::new("pgdata", FsType::Xfs, 384),
                FsSpec::new("pgwal", FsType::Ext4, 384),
            ],
            Self::Redis | Self::RedisAlways | Self::RedisDumps => {
                vec![FsSpec::new("redis", FsType::Btrfs, 256)]
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MariaDb => "mariadb",
            Self::PostgreSql => "postgresql",
            Self::PostgreSqlBackup => "postgresql-backup",
            Self::Redis => "redis-everysec",
            Self::RedisAlways => "redis-always",
            Self::RedisDumps => "redis-rdb",
        })
    }
}

/// A connection that is in the way until this is dropped.
#[derive(Debug)]
pub struct Held(tokio::task::JoinHandle<()>);

impl Held {
    /// Does `work` and keeps what comes of it; returns when that is done, or is waiting for something
    /// itself.
    async fn by<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Self {
        let (done, is_done) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(async move {
            let kept = work.await;
            let _ = done.send(());
            if kept.is_ok() {
                std::future::pending::<()>().await;
            }
        });
        // Behind a lock of the hook's, it waits for us: then that is what is wanted.
        let _ = tokio::time::timeout(std::time::Duration::from_millis(300), is_done).await;
        Self(task)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A running server, and what can be asked of it and done to it.
#[async_trait]
pub trait Database: fmt::Debug + Send + Sync {
    /// Which.
    fn kind(&self) -> Kind;

    /// Its table in `connections.toml`, with what follows the table's header.
    fn connection(&self) -> String;

    /// The client with which a script holds it.
    fn shell_client(&self) -> shell::ShellClient;

    /// Empties what the clients write to, so that a proof counts from nothing.
    async fn fresh(&self) -> Result<()>;

    /// A client with a connection of its own for each of `count` writers.
    async fn clients(&self, count: usize) -> Result<Vec<Box<dyn Client>>>;

    /// Whether the copies of its file systems are what the run says, and what the clients know.
    async fn examine(
        &self,
        lab: &Lab,
        copies: &Copies,
        history: &History,
        manifest: &Manifest,
    ) -> Result<Verdict>;

    /// Everything that is configured or switched, by name: what a run must leave as it was.
    async fn state(&self) -> Result<BTreeMap<String, String>>;

    /// Writes something on a new connection, which nothing but a lock can keep it from.
    async fn write(&self) -> Result<()>;

    /// Ends the connections that match the hook's, from the server's side, as an administrator would.
    /// Returns how many.
    async fn cut_connections_of_hook(&self) -> Result<usize>;

    /// Takes from the hook's account what its README tells an operator to grant, or gives it back.
    async fn set_privileges(&self, granted: bool) -> Result<()>;

    /// A transaction that has written, and stays open until the value is dropped.
    async fn hold_transaction(&self) -> Result<Held>;

    /// Something that the hook has to wait for, or refuses: a statement that takes long, a lock, a
    /// save. It lasts until the value is dropped, and [`Database::unblock`] was called.
    async fn block(&self) -> Result<Held>;

    /// Puts back what [`Database::block`] changed.
    async fn unblock(&self) -> Result<()> {
        Ok(())
    }

    /// Sends a signal to all of its processes.
    fn signal(&self, signal: Signal) -> Result<()>;

    /// Ends it as a power cut would.
    fn kill(&mut self) -> Result<()>;

    /// The same, without waiting for its end, while its file systems may be frozen; then
    /// [`Database::kill`] waits.
    fn strike(&mut self) -> Result<()>;

    /// Starts it again on its data, after [`Database::kill`].
    fn start(&mut self, lab: &Lab) -> Result<()>;
}

/// What was found in the copy of one database.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Which database.
    pub kind: Kind,
    /// What must not be so. Empty: the copy is what the run says.
    pub violations: Vec<Violation>,
    /// Rows in the copy.
    pub rows: u64,
    /// Commits that were acknowledged before the freeze, and so had to be there.
    pub had_to_be_there: u64,
    /// Commits that were begun after the thaw, and so could not be there.
    pub could_not_be_there: u64,
    /// Bytes of its log that the server redid when it started; none if it does not tell.
    pub redone: Option<u64>,
    /// What else is worth telling, for the test's output.
    pub note: String,
}

impl Verdict {
    /// Itself, if the copy is what the run says, and there was something to tell it by.
    ///
    /// # Errors
    /// With everything that is wrong.
    pub fn into_result(self) -> Result<Self> {
        if !self.violations.is_empty() {
            let list: Vec<String> = self.violations.iter().map(|v| format!("  {v}\n")).collect();
            bail!("{}: the copy is not what the run says:\n{}", self.kind, list.concat());
        }
        if self.had_to_be_there == 0 || self.could_not_be_there == 0 {
            bail!("{}: no commit before or after: nothing was proved: {self:?}", self.kind);
        }
        Ok(self)
    }
}
