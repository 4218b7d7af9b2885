//! Whether a copy holds what it must, and nothing else. It judges by what the clients know and by
//! what is in the copy; of the run it believes only the times of the hold and the position of the
//! binary log, and those it checks.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::journal;
use crate::lab::{FsType, Lab};
use crate::mariadb::{MariaDb, Place, StartLog, inserts_in_binlog};
use crate::writers::{DATABASE, History, Interval, TABLES};

/// A position in the binary log, as the hook saved it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BinlogPosition {
    /// Name of the file, without its directory.
    pub file: String,
    /// Offset in it.
    pub offset: u64,
}

/// What a run claims, and what the clients know.
#[derive(Clone, Debug)]
pub struct Claim {
    /// From before the application was asked to quiesce to after it was released.
    pub hold: Interval,
    /// Where the binary log ended.
    pub position: BinlogPosition,
}

/// A restored block device with one of the lab's file systems on it, not mounted yet.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The device.
    pub device: PathBuf,
    /// The file system's type.
    pub fs_type: FsType,
}

/// The two file systems of a server.
#[derive(Clone, Debug)]
pub struct RestoredServer {
    /// Of the data directory.
    pub data: Restored,
    /// Of the binary log.
    pub binlog: Restored,
}

/// Something in the copy that must not be so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A file system was copied while it ran.
    JournalReplay(String),
    /// The binary log does not end where the run says.
    BinlogEnd {
        /// What the run says.
        claimed: BinlogPosition,
        /// Where the copy's ends.
        found: BinlogPosition,
    },
    /// The copy does not stand where the run says.
    Position {
        /// Which position, or number.
        what: &'static str,
        /// What the run says.
        claimed: String,
        /// What the copy says.
        found: String,
    },
    /// The server had more to redo than is promised.
    Redo {
        /// How much, in bytes of its log.
        bytes: u64,
    },
    /// The two file systems disagree.
    BinlogAndData {
        /// Rows inserted by the binary log.
        in_binlog: u64,
        /// Rows in the tables.
        in_tables: u64,
    },
    /// A commit that was acknowledged before the hold is not there.
    LostCommit {
        /// Whose.
        writer: usize,
        /// Which.
        seq: u64,
    },
    /// A commit that was begun after the hold is there.
    CommitFromLater {
        /// Whose.
        writer: usize,
        /// Which.
        seq: u64,
    },
    /// A client's rows are not the beginning of its sequence.
    Hole {
        /// Whose.
        writer: usize,
        /// How many rows it has.
        rows: u64,
        /// The greatest sequence number among them.
        last: u64,
    },
    /// The server undid something.
    RolledBack(String),
    /// A transaction was found prepared.
    Prepared(String),
    /// A table was not closed, or is damaged.
    Table(String),
    /// The server could not be started on it, or logged an error.
    Server(String),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::JournalReplay(what) => write!(f, "journal replay needed: {what}"),
            Violation::BinlogEnd { claimed, found } => write!(
                f,
                "binary log ends at {}:{}, the run says {}:{}",
                found.file, found.offset, claimed.file, claimed.offset
            ),
            Violation::Position { what, claimed, found } => {
                write!(f, "{what} of the copy is {found}, the run says {claimed}")
            }
            Violation::Redo { bytes } => write!(f, "{bytes} bytes were redone at the start"),
            Violation::BinlogAndData { in_binlog, in_tables } => {
                write!(f, "{in_binlog} rows by the binary log, {in_tables} in the tables")
            }
            Violation::LostCommit { writer, seq } => {
                write!(f, "client {writer}: commit {seq}, acknowledged before the hold, is lost")
            }
            Violation::CommitFromLater { writer, seq } => {
                write!(f, "client {writer}: commit {seq}, begun after the hold, is there")
            }
            Violation::Hole { writer, rows, last } => {
                write!(f, "client {writer}: {rows} rows, but the last is number {last}")
            }
            Violation::RolledBack(line) => write!(f, "rolled back: {line}"),
            Violation::Prepared(line) => write!(f, "found prepared: {line}"),
            Violation::Table(line) => write!(f, "table: {line}"),
            Violation::Server(line) => write!(f, "server: {line}"),
        }
    }
}

/// What was found in the copy.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// What must not be so. Empty: the copy is what the run says.
    pub violations: Vec<Violation>,
    /// Rows in the copy's tables.
    pub rows: u64,
    /// Commits that were acknowledged before the hold, and so had to be there.
    pub had_to_be_there: u64,
    /// Commits that were begun after the hold, and so could not be there.
    pub could_not_be_there: u64,
    /// Where the copy's binary log ends.
    pub binlog_end: BinlogPosition,
    /// What the server said when it started on the copy.
    pub start_log: StartLog,
}

impl Verdict {
    /// All of it in one error, if there is anything.
    ///
    /// # Errors
    /// If the copy is not what the run says.
    pub fn into_result(self) -> Result<Self> {
        if self.violations.is_empty() {
            return Ok(self);
        }
        let list: Vec<String> = self.violations.iter().map(|v| format!("  {v}\n")).collect();
        anyhow::bail!("the copy is not what the run says:\n{}", list.concat())
    }
}

/// Mounts the copy, starts a server on it, compares, and takes all of it down again; the devices
/// stay attached.
///
/// # Errors
/// If it cannot be examined. What is wrong with the copy itself is in the verdict.
pub async fn examine(
    lab: &Lab,
    copy: &RestoredServer,
    history: &History,
    claim: &Claim,
) -> Result<Verdict> {
    let mut violations = Vec::new();
    for restored in [&copy.data, &copy.binlog] {
        let replay = journal::replay_needed(lab, &restored.device, restored.fs_type)?;
        violations.extend(replay.map(Violation::JournalReplay));
    }
    let place = Place {
        data: lab.mount_copy(&copy.data.device, copy.data.fs_type, "data")?,
        binlog: lab.mount_copy(&copy.binlog.device, copy.binlog.fs_type, "binlog")?,
    };
    let examined = examine_mounted(lab, &place, history, claim, violations).await;
    for mount in [&place.data, &place.binlog] {
        crate::command::run("umount", [mount])?;
    }
    examined
}

async fn examine_mounted(
    lab: &Lab,
    place: &Place,
    history: &History,
    claim: &Claim,
    mut violations: Vec<Violation>,
) -> Result<Verdict> {
    // Before a server touches it.
    let binlog_end = end_of_binlog(place)?;
    if binlog_end != claim.position {
        violations.push(Violation::BinlogEnd {
            claimed: claim.position.clone(),
            found: binlog_end.clone(),
        });
    }
    let in_binlog = inserts_in_binlog(&place.binlog_files()?, DATABASE)?;

    let (server, start_log) = match MariaDb::start_on_copy(lab, place.clone(), "copy") {
        Ok(started) => started,
        Err(error) => {
            violations.push(Violation::Server(format!("{error:#}")));
            return Ok(Verdict {
                violations,
                rows: 0,
                had_to_be_there: 0,
                could_not_be_there: 0,
                binlog_end,
                start_log: StartLog::default(),
            });
        }
    };
    judge_start(&start_log, &mut violations);
    let mut connection = server.connect().await?;
    let found = rows_of_writers(&mut connection, history.commits.len(), &mut violations).await?;
    check_tables(&mut connection, &mut violations).await?;
    check_prepared(&mut connection, &mut violations).await?;
    connection.disconnect().await?;
    server.kill()?;

    let rows = found.iter().map(|found| found.rows).sum();
    if in_binlog != rows {
        violations.push(Violation::BinlogAndData { in_binlog, in_tables: rows });
    }
    let (had_to_be_there, could_not_be_there) =
        judge_sequences(&found, history, claim.hold, &mut violations);
    Ok(Verdict { violations, rows, had_to_be_there, could_not_be_there, binlog_end, start_log })
}

fn end_of_binlog(place: &Place) -> Result<BinlogPosition> {
    let files = place.binlog_files()?;
    let last = files.last().context("the copy has no binary log")?;
    let name = last.file_name().context("a file has a name")?;
    Ok(BinlogPosition {
        file: name.to_string_lossy().into_owned(),
        offset: std::fs::metadata(last)?.len(),
    })
}

/// A client's rows in all tables of the copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// How many there are.
    pub rows: u64,
    /// One more than the greatest sequence number.
    pub next: u64,
}

/// A table that cannot be read has no rows, and is a violation by itself.
async fn rows_of_writers(
    connection: &mut Conn,
    writers: usize,
    violations: &mut Vec<Violation>,
) -> Result<Vec<Found>> {
    let mut found = vec![Found::default(); writers];
    for (table, _) in TABLES {
        let rows: Vec<(usize, u64, u64)> = match connection
            .query(format!(
                "SELECT writer, COUNT(*), MAX(seq) + 1 FROM {DATABASE}.{table} GROUP BY writer"
            ))
            .await
        {
            Ok(rows) => rows,
            Err(error) => {
                violations.push(Violation::Table(format!("{DATABASE}.{table}: {error}")));
                continue;
            }
        };
        for (writer, rows, next) in rows {
            let found = found.get_mut(writer).context("a row of nobody")?;
            found.rows += rows;
            found.next = found.next.max(next);
        }
    }
    Ok(found)
}

async fn check_tables(connection: &mut Conn, violations: &mut Vec<Violation>) -> Result<()> {
    for (table, _) in TABLES {
        let messages: Vec<(String, String, String, String)> =
            connection.query(format!("CHECK TABLE {DATABASE}.{table}")).await?;
        for (name, _, kind, text) in messages {
            if kind != "status" || text != "OK" {
                violations.push(Violation::Table(format!("{name}: {kind}: {text}")));
            }
        }
    }
    Ok(())
}

async fn check_prepared(connection: &mut Conn, violations: &mut Vec<Violation>) -> Result<()> {
    let prepared: Vec<(i64, i64, i64, String)> = connection.query("XA RECOVER").await?;
    violations.extend(
        prepared.into_iter().map(|(_, _, _, data)| Violation::Prepared(format!("XA {data}"))),
    );
    Ok(())
}

fn judge_start(log: &StartLog, violations: &mut Vec<Violation>) {
    violations.extend(log.rolled_back.iter().cloned().map(Violation::RolledBack));
    violations.extend(log.prepared.iter().cloned().map(Violation::Prepared));
    violations.extend(log.unclosed_tables.iter().cloned().map(Violation::Table));
    violations.extend(log.errors.iter().cloned().map(Violation::Server));
}

/// Per client: no hole; all that was acknowledged before; nothing that was begun after. Returns how
/// many commits had to be there, and how many could not.
pub fn judge_sequences(
    found: &[Found],
    history: &History,
    hold: Interval,
    violations: &mut Vec<Violation>,
) -> (u64, u64) {
    let (mut had_to, mut could_not) = (0, 0);
    for (writer, (found, commits)) in found.iter().zip(&history.commits).enumerate() {
        if found.rows != found.next {
            let last = found.next.saturating_sub(1);
            violations.push(Violation::Hole { writer, rows: found.rows, last });
        }
        let before = commits.iter().filter(|commit| commit.acked_ns < hold.began_ns).count() as u64;
        if found.next < before {
            violations.push(Violation::LostCommit { writer, seq: found.next });
        }
        let not_after =
            commits.iter().filter(|commit| commit.began_ns <= hold.ended_ns).count() as u64;
        if found.next > not_after {
            violations.push(Violation::CommitFromLater { writer, seq: not_after });
        }
        had_to += before;
        could_not += commits.len() as u64 - not_after;
    }
    (had_to, could_not)
}

#[cfg(test)]
mod tests {
    use super::{Found, Violation, judge_sequences};
    use crate::writers::{Commit, History, Interval};

    /// Commit n of one client: begun at 10 n, acknowledged at 10 n + 5. The hold is [50, 72].
    fn judge(rows: u64, next: u64) -> Vec<Violation> {
        let commits = (0..10).map(|n| Commit { began_ns: 10 * n, acked_ns: 10 * n + 5 }).collect();
        let mut violations = Vec::new();
        judge_sequences(
            &[Found { rows, next }],
            &History { commits: vec![commits] },
            Interval { began_ns: 50, ended_ns: 72 },
            &mut violations,
        );
        violations
    }

    #[test]
    fn what_overlaps_the_hold_may_be_there_or_not() {
        for next in [5, 6, 7, 8] {
            assert_eq!(judge(next, next), []);
        }
    }

    #[test]
    fn a_commit_acknowledged_before_the_hold_must_be_there() {
        assert_eq!(judge(4, 4), [Violation::LostCommit { writer: 0, seq: 4 }]);
    }

    #[test]
    fn a_commit_begun_after_the_hold_must_not_be_there() {
        assert_eq!(judge(9, 9), [Violation::CommitFromLater { writer: 0, seq: 8 }]);
    }

    #[test]
    fn a_hole_is_seen() {
        assert_eq!(judge(6, 7), [Violation::Hole { writer: 0, rows: 6, last: 6 }]);
    }
}
