//! Clients that commit one row after another, and remember when each commit was begun and when the
//! server acknowledged it. What they remember is outside of everything that is snapshotted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts};
use nix::time::{ClockId, clock_gettime};
use tokio::task::JoinHandle;

use crate::stats::Durations;

/// The database that the clients write to.
pub const DATABASE: &str = "lab";

/// Tables of different engines; each client's sequence goes round all of them, so that a copy in
/// which one is older than another has a hole in somebody's sequence.
pub const TABLES: &[(&str, &str)] = &[
    ("innodb_a", "ENGINE=InnoDB"),
    ("innodb_b", "ENGINE=InnoDB ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=8"),
    ("aria", "ENGINE=Aria TRANSACTIONAL=1"),
    ("myisam", "ENGINE=MyISAM"),
];

/// Nanoseconds on `CLOCK_MONOTONIC`, as in a manifest.
#[must_use]
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// A span of `CLOCK_MONOTONIC`, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// Its begin.
    pub began_ns: u64,
    /// Its end.
    pub ended_ns: u64,
}

impl Interval {
    /// How long it is.
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_nanos(self.ended_ns.saturating_sub(self.began_ns))
    }
}

/// One commit that the server acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Sent.
    pub began_ns: u64,
    /// Acknowledged; `u64::MAX` if nobody knows whether it counts.
    pub acked_ns: u64,
}

impl Commit {
    fn duration(self) -> Duration {
        Duration::from_nanos(self.acked_ns.saturating_sub(self.began_ns))
    }
}

/// What the clients know. The index in the inner list is the sequence number, from 0.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Per client, in order.
    pub commits: Vec<Vec<Commit>>,
}

impl History {
    /// How many commits were acknowledged.
    #[must_use]
    pub fn len(&self) -> usize {
        self.commits.iter().map(Vec::len).sum()
    }

    /// True if nothing was committed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How long the commits took that were under way at any moment of `interval`.
    #[must_use]
    pub fn durations_in(&self, interval: Interval) -> Durations {
        let overlaps = |commit: &&Commit| {
            commit.began_ns <= interval.ended_ns && commit.acked_ns >= interval.began_ns
        };
        self.commits.iter().flatten().filter(overlaps).map(|commit| commit.duration()).collect()
    }

    /// The same, each counted from the begin of `interval` on if it was begun before.
    #[must_use]
    pub fn stalls_in(&self, interval: Interval) -> Durations {
        let within = |commit: &Commit| {
            let overlaps =
                commit.began_ns <= interval.ended_ns && commit.acked_ns >= interval.began_ns;
            let began_ns = commit.began_ns.max(interval.began_ns);
            overlaps.then(|| Commit { began_ns, ..*commit }.duration())
        };
        self.commits.iter().flatten().filter_map(within).collect()
    }

    /// How long each client's longest commit took.
    #[must_use]
    pub fn longest(&self) -> Vec<Duration> {
        let of = |commits: &Vec<Commit>| commits.iter().map(|commit| commit.duration()).max();
        self.commits.iter().map(|commits| of(commits).unwrap_or_default()).collect()
    }

    /// Per client: how long after `moment` the first commit was acknowledged that was begun after
    /// it; `None` if there is none.
    #[must_use]
    pub fn recovery_after(&self, moment: u64) -> Vec<Option<Duration>> {
        self.commits
            .iter()
            .map(|commits| {
                let first = commits.partition_point(|commit| commit.began_ns < moment);
                commits.get(first).map(|commit| Duration::from_nanos(commit.acked_ns - moment))
            })
            .collect()
    }

    /// How long all commits took.
    #[must_use]
    pub fn durations(&self) -> Durations {
        self.commits.iter().flatten().map(|commit| commit.duration()).collect()
    }
}

/// Makes the database and its tables, empty.
///
/// # Errors
/// If a statement fails.
pub async fn create_tables(connection: &mut Conn) -> Result<()> {
    connection.query_drop(format!("DROP DATABASE IF EXISTS {DATABASE}")).await?;
    connection.query_drop(format!("CREATE DATABASE {DATABASE}")).await?;
    for (table, options) in TABLES {
        connection
            .query_drop(format!(
                "CREATE TABLE {DATABASE}.{table} (writer INT NOT NULL, seq BIGINT NOT NULL, \
                 pad VARBINARY(1024) NOT NULL, PRIMARY KEY (writer, seq)) {options}"
            ))
            .await
            .with_context(|| format!("cannot create table {table}"))?;
    }
    Ok(())
}

/// One client of a server, with a connection of its own.
#[async_trait]
pub trait Client: Send + 'static {
    /// Commits its row number `seq`, and returns when the server has acknowledged it.
    ///
    /// # Errors
    /// If it was not acknowledged: then nobody knows whether it counts.
    async fn commit(&mut self, seq: usize) -> Result<()>;

    /// Takes leave of the server.
    ///
    /// # Errors
    /// If the server does not.
    async fn close(self: Box<Self>) -> Result<()>;
}

/// Clients at work. They stop when this is dropped; [`Writers::stop`] is the way that tells.
#[derive(Debug)]
pub struct Writers {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<Written>>,
}

/// What one client knows, and why it ended before it was told to.
type Written = (Vec<Commit>, Result<()>);

impl Writers {
    /// Starts `count` clients of MariaDB, each with a connection of its own, committing in a closed
    /// loop.
    ///
    /// # Errors
    /// If one cannot connect.
    pub async fn start(options: Opts, count: usize) -> Result<Self> {
        Ok(Self::of(mariadb_clients(options, count).await?))
    }

    /// Lets each of these commit in a closed loop.
    #[must_use]
    pub fn of(clients: Vec<Box<dyn Client>>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let start = |(writer, client)| {
            let (stop, acknowledged) = (Arc::clone(&stop), Arc::clone(&acknowledged));
            tokio::spawn(commit_until(client, writer, stop, acknowledged))
        };
        let tasks = clients.into_iter().enumerate().map(start).collect();
        Self { stop, acknowledged, tasks }
    }

    /// How many commits have been acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until `count` more commits have been acknowledged.
    ///
    /// # Errors
    /// If that takes longer than `limit`, or a client has failed: [`Writers::stop`] says why.
    pub async fn wait_for(&self, count: u64, limit: Duration) -> Result<()> {
        let target = self.acknowledged() + count;
        let reached = async {
            while self.acknowledged() < target {
                let failed = self.tasks.iter().any(JoinHandle::is_finished);
                ensure!(!failed, "a client has failed");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok(())
        };
        tokio::time::timeout(limit, reached).await.with_context(|| {
            format!("only {} of {target} commits after {limit:?}", self.acknowledged())
        })?
    }

    /// Lets every client end its commit, and returns what all of them know.
    ///
    /// # Errors
    /// If a commit failed: then nobody knows whether it counts.
    pub async fn stop(mut self) -> Result<History> {
        self.stop.store(true, Ordering::Relaxed);
        let mut commits = Vec::with_capacity(self.tasks.len());
        for task in self.tasks.drain(..) {
            let (committed, ended) = task.await.context("a client panicked")?;
            ended?;
            commits.push(committed);
        }
        Ok(History { commits })
    }

    /// As [`Writers::stop`], for clients that may have lost their server: the commit that each was
    /// about to make counts or not. Who still waits after `limit` is given up.
    ///
    /// # Errors
    /// If a client panicked.
    pub async fn stop_anyhow(mut self, limit: Duration) -> Result<History> {
        self.stop.store(true, Ordering::Relaxed);
        let mut commits = Vec::with_capacity(self.tasks.len());
        for task in self.tasks.drain(..) {
            let (committed, _) = tokio::time::timeout(limit, task)
                .await
                .context("a client still waits for its commit")?
                .context("a client panicked")?;
            commits.push(committed);
        }
        Ok(History { commits })
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn commit_until(
    mut client: Box<dyn Client>,
    writer: usize,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
) -> Written {
    let mut commits: Vec<Commit> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let seq = commits.len();
        let began_ns = now_ns();
        let committed = client.commit(seq).await;
        let acked_ns = if committed.is_ok() { now_ns() } else { u64::MAX };
        commits.push(Commit { began_ns, acked_ns });
        if let Err(error) = committed {
            return (commits, Err(error.context(format!("client {writer}: commit {seq} failed"))));
        }
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    (commits, client.close().await.context("cannot disconnect"))
}

/// A client of MariaDB for each of `count` writers, with a connection of its own.
///
/// # Errors
/// If one cannot connect.
pub async fn mariadb_clients(options: Opts, count: usize) -> Result<Vec<Box<dyn Client>>> {
    let mut clients: Vec<Box<dyn Client>> = Vec::with_capacity(count);
    for writer in 0..count {
        let connection = Conn::new(options.clone()).await.context("a client cannot connect")?;
        clients.push(Box::new(MariaDbClient { connection, writer }));
    }
    Ok(clients)
}

#[derive(Debug)]
struct MariaDbClient {
    connection: Conn,
    writer: usize,
}

#[async_trait]
impl Client for MariaDbClient {
    async fn commit(&mut self, seq: usize) -> Result<()> {
        let Some((table, _)) = TABLES.get(seq % TABLES.len()) else { return Ok(()) };
        let writer = self.writer;
        let insert = format!(
            "INSERT INTO {DATABASE}.{table} VALUES ({writer}, {seq}, REPEAT('x', {}))",
            length_of_pad(writer, seq)
        );
        Ok(self.connection.query_drop(insert).await?)
    }

    async fn close(self: Box<Self>) -> Result<()> {
        Ok(self.connection.disconnect().await?)
    }
}

/// Rows of all lengths below 1000 bytes, the same in every run.
#[must_use]
pub fn length_of_pad(writer: usize, seq: usize) -> usize {
    (seq * 37 + writer * 101) % 1000
}
