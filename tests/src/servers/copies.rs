//! Whether the copies of a PostgreSQL or a Redis are what the run says. Judged like MariaDB's
//! ([`crate::oracle`]): by what the clients know and what is in the copy.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command::run;
use crate::journal;
use crate::lab::Lab;
use crate::oracle::{Found, Violation, judge_sequences};
use crate::stillpoint::{Copies, Manifest};
use crate::writers::History;

use super::postgresql::{self, PostgreSql, parse_lsn};
use super::redis::{self, Redis};
use super::{Kind, Verdict};

/// What is promised of the redo at a start from a snapshot.
const MOST_REDO: u64 = 1 << 20;

/// Mounts copies, and unmounts them again, whatever became of the examination.
struct Mounted(Vec<PathBuf>);

impl Mounted {
    fn new(
        lab: &Lab,
        copies: &Copies,
        names: &[&str],
        violations: &mut Vec<Violation>,
    ) -> Result<Self> {
        let mut mounted = Self(Vec::new());
        for name in names {
            let restored = copies.of(lab, name)?;
            let replay = journal::replay_needed(lab, &restored.device, restored.fs_type)?;
            violations.extend(replay.map(Violation::JournalReplay));
            mounted.0.push(lab.mount_copy(&restored.device, restored.fs_type, name)?);
        }
        Ok(mounted)
    }

    fn at(&self, index: usize) -> Result<&Path> {
        Ok(self.0.get(index).context("not mounted")?)
    }

    fn unmount(mut self) -> Result<()> {
        while let Some(mount) = self.0.pop() {
            run("umount", [&mount])?;
        }
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        for mount in self.0.drain(..).rev() {
            let _ = run("umount", [&mount]);
        }
    }
}

/// What both are judged by.
struct Judge<'a> {
    kind: Kind,
    history: &'a History,
    manifest: &'a Manifest,
    violations: Vec<Violation>,
}

impl Judge<'_> {
    /// The freeze fixes the point in time: what was acknowledged before it had to be there, and what
    /// was begun after the thaw could not.
    fn sequences(mut self, found: &[Found], note: String) -> Result<Verdict> {
        let frozen = self.manifest.span("freeze", "thaw")?;
        let (had_to_be_there, could_not_be_there) =
            judge_sequences(found, self.history, frozen, &mut self.violations);
        Ok(Verdict {
            kind: self.kind,
            violations: self.violations,
            rows: found.iter().map(|found| found.rows).sum(),
            had_to_be_there,
            could_not_be_there,
            redone: None,
            note,
        })
    }

    fn not_started(self, error: &anyhow::Error) -> Verdict {
        let mut violations = self.violations;
        violations.push(Violation::Server(format!("{error:#}")));
        Verdict {
            kind: self.kind,
            violations,
            rows: 0,
            had_to_be_there: 0,
            could_not_be_there: 0,
            redone: None,
            note: String::new(),
        }
    }

    /// The run must have saved it, and the copy must agree.
    fn position(&mut self, what: &'static str, key: &str, found: &str) -> Result<()> {
        let claimed = self.manifest.saved(self.kind.hook(), key)?;
        if claimed.as_deref() != Some(found) {
            self.violations.push(Violation::Position {
                what,
                claimed: claimed.unwrap_or_else(|| "nothing".to_owned()),
                found: found.to_owned(),
            });
        }
        Ok(())
    }

    /// Redo begins where the run says. A checkpoint of the server's own that was done between the
    /// hook's look and the freeze moves it, but not beyond where the log was after the thaw.
    fn redo_position(&mut self, control: &BTreeMap<String, String>) -> Result<()> {
        const REDO: &str = "redo position";
        let found = postgresql::of_control_data(control, "Latest checkpoint's REDO location")?;
        let checkpoint = postgresql::of_control_data(control, "Latest checkpoint location")?;
        let hook = self.kind.hook();
        let position = |key| -> Result<Option<u64>> {
            Ok(self.manifest.saved(hook, key)?.as_deref().and_then(parse_lsn))
        };
        let earliest = position("redo-lsn")?;
        let is_later = parse_lsn(checkpoint) > position("checkpoint-lsn")?;
        if !is_later || earliest.is_none() {
            return self.position(REDO, "redo-lsn", found);
        }
        let latest = position("lsn-after")?;
        let redo = parse_lsn(found);
        if redo < earliest || redo > latest {
            self.violations.push(Violation::Position {
                what: REDO,
                claimed: format!("{earliest:x?} to {latest:x?}"),
                found: found.to_owned(),
            });
        }
        Ok(())
    }
}

pub(crate) async fn examine_postgresql(
    kind: Kind,
    lab: &Lab,
    copies: &Copies,
    history: &History,
    manifest: &Manifest,
) -> Result<Verdict> {
    let mut judge = Judge { kind, history, manifest, violations: Vec::new() };
    let mounted = Mounted::new(lab, copies, &["pgdata", "pgwal"], &mut judge.violations)?;
    let place =
        postgresql::Place { data: mounted.at(0)?.to_owned(), wal: mounted.at(1)?.to_owned() };
    let verdict = judge_postgresql(lab, judge, place).await;
    mounted.unmount()?;
    verdict
}

async fn judge_postgresql(
    lab: &Lab,
    mut judge: Judge<'_>,
    place: postgresql::Place,
) -> Result<Verdict> {
    // Before a server touches it.
    let control = postgresql::control_data(lab, &place)?;
    for (what, key, name) in [
        ("system identifier", "system-identifier", "Database system identifier"),
        ("timeline", "timeline", "Latest checkpoint's TimeLineID"),
    ] {
        judge.position(what, key, postgresql::of_control_data(&control, name)?)?;
    }
    judge.redo_position(&control)?;
    let (server, log) = match PostgreSql::start_on_copy(lab, place, "copy") {
        Ok(started) => started,
        Err(error) => return Ok(judge.not_started(&error)),
    };
    judge.violations.extend(log.prepared.iter().cloned().map(Violation::Prepared));
    judge.violations.extend(log.errors.iter().cloned().map(Violation::Server));
    if log.redone() >= MOST_REDO {
        judge.violations.push(Violation::Redo { bytes: log.redone() });
    }
    // What the run says was written is there: redo goes at least as far.
    let lsn = judge.manifest.saved(judge.kind.hook(), "lsn")?.as_deref().and_then(parse_lsn);
    let end = server.end_of_recovery()?;
    if let Some(lsn) = lsn
        && !reaches(end, lsn)
    {
        judge.violations.push(Violation::Position {
            what: "end of the log",
            claimed: format!("{lsn:#x} or later"),
            found: format!("{end:#x}"),
        });
    }
    let found = rows_of_postgresql(&server, &mut judge).await?;
    server.stop_immediately()?;
    let redone = log.redone();
    let verdict = judge.sequences(&found, format!("{redone} bytes redone"))?;
    Ok(Verdict { redone: Some(redone), ..verdict })
}

/// Whether a log that ends at `end`, as its server found when it started, has everything that had been
/// flushed when it stood at `lsn`. The server's writer flushes whole pages, in the middle of a record;
/// what of that record is there ends no record, and nobody was told of it.
fn reaches(end: u64, lsn: u64) -> bool {
    const PAGE: u64 = 8 << 10;
    const LONGEST_RECORD: u64 = 64 << 10;
    end >= lsn || (lsn.is_multiple_of(PAGE) && lsn - end <= LONGEST_RECORD)
}

/// Read from the tables, whose pages have checksums, and counted by their indexes once more.
async fn rows_of_postgresql(server: &PostgreSql, judge: &mut Judge<'_>) -> Result<Vec<Found>> {
    let client = server.connect().await?;
    let mut found = vec![Found::default(); judge.history.commits.len()];
    for (table, _) in postgresql::TABLES {
        let mut counts = Vec::new();
        for way in
            ["enable_indexscan = off; SET enable_indexonlyscan = off", "enable_seqscan = off"]
        {
            client
                .batch_execute(&format!("RESET ALL; SET {way}; SET enable_bitmapscan = off"))
                .await?;
            let statement = format!(
                "SELECT writer, count(*), max(seq) + 1, count(pad) FROM lab.{table} GROUP BY writer"
            );
            match client.query(&statement, &[]).await {
                Ok(rows) => counts.push(rows),
                Err(error) => {
                    let text =
                        error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string);
                    judge.violations.push(Violation::Table(format!("lab.{table}: {text}")));
                }
            }
        }
        let mut by_way: Vec<u64> = Vec::new();
        for rows in &counts {
            let count = |row: &tokio_postgres::Row| row.get::<_, i64>(1);
            by_way.push(rows.iter().map(|row| u64::try_from(count(row)).unwrap_or(0)).sum());
        }
        if by_way.windows(2).any(|pair| pair.first() != pair.last()) {
            let text = format!("lab.{table}: rows by table and by index: {by_way:?}");
            judge.violations.push(Violation::Table(text));
        }
        for row in counts.first().into_iter().flatten() {
            let writer = usize::try_from(row.get::<_, i32>(0))?;
            let found = found.get_mut(writer).context("a row of nobody")?;
            found.rows += u64::try_from(row.get::<_, i64>(1))?;
            found.next = found.next.max(u64::try_from(row.get::<_, i64>(2))?);
        }
    }
    let prepared = client.query("SELECT gid FROM pg_prepared_xacts", &[]).await?;
    let names = prepared.iter().map(|row| row.get::<_, String>(0));
    judge.violations.extend(names.map(Violation::Prepared));
    Ok(found)
}

pub(super) async fn examine_redis(
    database: (Kind, redis::Persistence),
    lab: &Lab,
    copies: &Copies,
    history: &History,
    manifest: &Manifest,
) -> Result<Verdict> {
    let (kind, persistence) = database;
    let mut judge = Judge { kind, history, manifest, violations: Vec::new() };
    let mounted = Mounted::new(lab, copies, &["redis"], &mut judge.violations)?;
    let verdict = judge_redis(lab, judge, mounted.at(0)?, persistence).await;
    mounted.unmount()?;
    verdict
}

async fn judge_redis(
    lab: &Lab,
    mut judge: Judge<'_>,
    mount: &Path,
    persistence: redis::Persistence,
) -> Result<Verdict> {
    let server = match Redis::start(lab, mount, persistence, "copy") {
        Ok(server) => server,
        Err(error) => return Ok(judge.not_started(&error)),
    };
    let log = server.start_log();
    judge.violations.extend(log.errors.iter().cloned().map(Violation::Server));
    let mut connection = server.connect().await?;
    let keys: u64 = ::redis::cmd("DBSIZE").query_async(&mut connection).await?;
    judge.position("number of keys", "dbsize", &keys.to_string())?;
    let mut found = Vec::new();
    for writer in 0..judge.history.commits.len() {
        let numbers = redis::numbers_of(&mut connection, writer).await?;
        found.push(Found {
            rows: numbers.len() as u64,
            next: numbers.iter().max().map_or(0, |greatest| greatest + 1),
        });
    }
    server.kill()?;
    judge.sequences(&found, log.loaded.last().cloned().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::reaches;

    #[test]
    fn a_log_that_was_flushed_to_a_page_may_end_with_the_record_before() {
        assert!(reaches(0x26e_5d40, 0x26e_6000));
        assert!(reaches(0x26e_6000, 0x26e_6000) && reaches(0x26e_6028, 0x26e_6000));
    }

    #[test]
    fn a_log_that_lacks_a_record_is_seen() {
        assert!(!reaches(0x26e_5d40, 0x26e_5d78));
        assert!(!reaches(0x26c_0000, 0x26e_6000));
    }
}
