//! What is done around the window: checkpoints, the base backup, where the log is.

use std::time::Duration;

use stillpoint_hook::sql::{Connection, Error, Value};
use stillpoint_hook::{HookError, MetadataEntry, info, run, warn};

use crate::dialect::quoted;
use crate::server::{Server, explain};
use crate::settings::Settings;
use crate::statements as s;

/// What of a phase is kept for what comes after the long statement in it.
const RESERVE: Duration = Duration::from_millis(500);

/// The least time that a second checkpoint gets: enough for the small statement that takes its limit back.
const LEAST: Duration = Duration::from_millis(50);

/// How long the end of a base backup may take. It waits for nobody: a few records, and a new segment.
const BACKUP_STOP: Duration = Duration::from_secs(5);

/// PostgreSQL's code for a statement that was stopped.
const QUERY_CANCELED: &str = "57014";

/// Lets the server itself stop every further statement of the session after this time, or when the
/// phase has but its reserve left. Gives which it is.
fn limit_statements(session: &Connection, most: Duration) -> Result<Duration, HookError> {
    // 0 would be no limit at all.
    let limit = most.min(run::remaining_but(RESERVE)).max(Duration::from_millis(1));
    session.query(s::STATEMENT_TIMEOUT, &[milliseconds(limit)], None)?;
    Ok(limit)
}

/// What comes next is short, and bounded by its phase.
fn unlimit_statements(session: &Connection) -> Result<(), HookError> {
    session.query(s::STATEMENT_TIMEOUT, &[Value::Int64(0)], None)?;
    Ok(())
}

/// Lets the server itself end the session when nobody has asked it anything for this time: a base
/// backup then ends with it.
///
/// # Errors
/// What the statement fails with.
pub fn limit_idleness(
    session: &Connection,
    server: &Server,
    most: Duration,
) -> Result<(), HookError> {
    if let Some(statement) = server.dialect.idle_timeout() {
        session.query(statement, &[milliseconds(most)], None)?;
    }
    Ok(())
}

fn milliseconds(duration: Duration) -> Value {
    Value::Int64(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
}

fn was_stopped(error: &Error) -> bool {
    matches!(error, Error::Database(error) if error.sqlstate == QUERY_CANCELED)
}

/// Writes out what is dirty. Takes as long as it takes to write it, up to `most`; no client waits for
/// it.
///
/// # Errors
/// [`HookError::Timeout`] if the server stopped it; [`HookError::Denied`] with the GRANT.
pub fn checkpoint(session: &Connection, server: &Server, most: Duration) -> Result<(), HookError> {
    let limit = limit_statements(session, most)?;
    match session.execute(s::CHECKPOINT, &[], None) {
        Ok(_) => unlimit_statements(session),
        Err(error) if was_stopped(&error) => Err(HookError::Timeout(format!(
            "CHECKPOINT was not done after {} s: raise `checkpoint-timeout-seconds` and the deadline of \
             prepare, or take the snapshot when less is written",
            limit.as_secs()
        ))),
        Err(error) => {
            Err(explain(error, || server.dialect.grant_checkpoint(&quoted(&server.role))))
        }
    }
}

/// Just before the freeze, a second checkpoint if a copy would have much to redo. It is there for a
/// quick start and nothing else, so that one that takes too long is given up, and the run goes on.
///
/// # Errors
/// What the statements fail with, but for the time-out.
pub fn final_checkpoint(session: &Connection, settings: &Settings) -> Result<(), HookError> {
    if settings.final_checkpoint.is_zero() {
        return Ok(());
    }
    let before = Position::ask(session)?;
    if before.redo_bytes <= settings.redo_goal {
        return Ok(());
    }
    let limit = limit_statements(session, settings.final_checkpoint.max(LEAST))?;
    match session.execute(s::CHECKPOINT, &[], None) {
        Ok(_) => {
            info!("a second checkpoint, because there were {} bytes to redo", before.redo_bytes);
        }
        Err(error) if was_stopped(&error) => {
            warn!(
                "the second checkpoint was not done after {} ms, and is not waited for: a copy has some \
                 {} bytes to redo",
                limit.as_millis(),
                before.redo_bytes
            );
        }
        Err(error) => return Err(error.into()),
    }
    unlimit_statements(session)
}

/// Where the log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Up to here it is on disk; on a standby, replayed.
    pub lsn: String,
    /// Where redo would begin.
    pub redo: String,
    /// How much it would be, at least.
    pub redo_bytes: i64,
    checkpoint: String,
    file: String,
}

impl Position {
    /// Asks the server.
    ///
    /// # Errors
    /// What the statement fails with.
    pub fn ask(session: &Connection) -> Result<Self, HookError> {
        let rows = session.query(s::POSITION, &[], None)?;
        let row = rows.first()?;
        Ok(Position {
            lsn: row.get("lsn")?,
            redo: row.get("redo")?,
            redo_bytes: row.get("bytes")?,
            checkpoint: row.get("checkpoint")?,
            file: row.get("file")?,
        })
    }

    /// For the manifest. Everything up to `lsn` is in the snapshot, and a little more.
    #[must_use]
    pub fn metadata(&self) -> Vec<MetadataEntry> {
        vec![
            MetadataEntry::new("lsn", self.lsn.as_str()),
            MetadataEntry::new("redo-lsn", self.redo.as_str()),
            MetadataEntry::new("checkpoint-lsn", self.checkpoint.as_str()),
            MetadataEntry::new("redo-wal-file", self.file.as_str()),
            MetadataEntry::new("redo-bytes", self.redo_bytes),
        ]
    }
}

/// Where a standby is, beside what it has replayed.
///
/// # Errors
/// What the statement fails with.
pub fn standby(session: &Connection) -> Result<Vec<MetadataEntry>, HookError> {
    let rows = session.query(s::STANDBY, &[], None)?;
    let row = rows.first()?;
    let (received, replayed): (String, String) = (row.get("received")?, row.get("replayed")?);
    warn!("the server is a standby: the snapshot is as old as what it has received");
    Ok(vec![
        MetadataEntry::new("received-lsn", received),
        MetadataEntry::new("replayed-at", replayed),
    ])
}

/// A base backup that has begun in this session, and ends with it in any case.
#[derive(Debug)]
pub struct Backup {
    start: String,
}

impl Backup {
    /// Begins one: a checkpoint at once, and full pages from then on.
    ///
    /// # Errors
    /// [`HookError::Timeout`] if the server stopped it; [`HookError::Denied`] with the GRANT. Nothing
    /// has begun then.
    pub fn begin(
        session: &Connection,
        server: &Server,
        settings: &Settings,
    ) -> Result<Self, HookError> {
        let limit = limit_statements(session, settings.checkpoint)?;
        match session.query(server.dialect.backup_start(), &[], None) {
            Ok(rows) => {
                unlimit_statements(session)?;
                Ok(Backup { start: rows.first()?.get("lsn")? })
            }
            Err(error) if was_stopped(&error) => Err(HookError::Timeout(format!(
                "the base backup had not begun after {} s, because its checkpoint takes long: raise \
                 `checkpoint-timeout-seconds`, or take the snapshot when less is written",
                limit.as_secs()
            ))),
            Err(error) => {
                Err(explain(error, || server.dialect.grant_backup(&quoted(&server.role))))
            }
        }
    }

    /// Ends it, and gives what a restored copy needs. Does not wait for the archiver.
    ///
    /// # Errors
    /// What the statement fails with: the backup is of no use then, and the level falls.
    pub fn end(
        self,
        session: &Connection,
        server: &Server,
    ) -> Result<Vec<MetadataEntry>, HookError> {
        limit_statements(session, BACKUP_STOP)?;
        let ended = session.query(server.dialect.backup_stop(), &[], None);
        let rows = ended.map_err(|error| {
            explain(error, || server.dialect.grant_backup(&quoted(&server.role)))
                .context("the base backup has no end")
        })?;
        let row = rows.first()?;
        let (label, map): (String, String) = (row.get("labelfile")?, row.get("spcmapfile")?);
        Ok(vec![
            MetadataEntry::new("backup-stop-lsn", row.get::<String>("lsn")?),
            MetadataEntry::new("backup-label", label),
            MetadataEntry::new("tablespace-map", map),
        ])
    }

    /// For the manifest.
    #[must_use]
    pub fn metadata(&self) -> MetadataEntry {
        MetadataEntry::new("backup-start-lsn", self.start.as_str())
    }
}
