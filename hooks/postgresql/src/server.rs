//! What can be known about the server before anything is begun: who it is, where its files are, what it
//! promises, what else goes on.

use std::collections::BTreeMap;

use stillpoint_hook::sql::{Connection, Error, Row, RowSet};
use stillpoint_hook::{HookError, MetadataEntry, Plan, info, warn};

use crate::dialect::{Dialect, NEWEST, quoted};
use crate::settings::{Mode, Settings};
use crate::statements as s;

/// The connection that the operator declares for this hook.
pub const CONNECTION: &str = "main";

/// PostgreSQL's code for "you may not".
const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// Which server process, with which history, serves which session. All of it must be the same before
/// and after the window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The backend of the session.
    pub pid: u64,
    /// When the server was started.
    pub started: String,
    /// It replays another server's log.
    pub standby: bool,
    /// What `initdb` made up for the cluster.
    pub system: String,
    /// The timeline of the last checkpoint.
    pub timeline: u64,
}

impl Identity {
    /// Asks the server, and whether it is the one that was connected to.
    ///
    /// # Errors
    /// What the statement fails with; a pooler in between.
    pub fn ask(session: &Connection) -> Result<Self, HookError> {
        Self::of(session, &session.query(s::IDENTITY, &[], None)?)
    }

    /// As a session has answered.
    ///
    /// # Errors
    /// Another shape of the answer; a pooler in between.
    pub fn of(session: &Connection, answer: &RowSet) -> Result<Self, HookError> {
        let row = answer.first()?;
        let identity = Identity {
            pid: row.get("pid")?,
            started: row.get("started")?,
            standby: row.get("standby")?,
            system: row.get("system")?,
            timeline: row.get("timeline")?,
        };
        if session.session_id()? != identity.pid.to_string() {
            return Err(HookError::application(
                "pooler",
                "the session is served by another process than the one that it began with: connect \
                 to the server itself, not to a pooler",
                false,
            ));
        }
        Ok(identity)
    }

    /// In words, what is not as it was; `None` if all is.
    #[must_use]
    pub fn change(&self, now: &Identity) -> Option<String> {
        let (what, was, is) = if self.system != now.system {
            ("the system identifier", self.system.clone(), now.system.clone())
        } else if self.started != now.started {
            ("the server's start", self.started.clone(), now.started.clone())
        } else if self.standby != now.standby {
            ("recovery", self.standby.to_string(), now.standby.to_string())
        } else if self.timeline != now.timeline {
            ("the timeline", self.timeline.to_string(), now.timeline.to_string())
        } else if self.pid != now.pid {
            ("the session's process", self.pid.to_string(), now.pid.to_string())
        } else {
            return None;
        };
        Some(format!("{what} was {was}, and is {is}"))
    }
}

/// A tablespace of the operator's own.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tablespace {
    oid: u64,
    name: String,
    location: String,
}

/// The server, as far as it was asked.
#[derive(Clone, Debug)]
pub struct Server {
    /// What it understands.
    pub dialect: Dialect,
    /// As it greeted.
    pub version: String,
    /// Who it is.
    pub identity: Identity,
    /// As whom we are there.
    pub role: String,
    /// Why a copy would not have all that clients were promised; empty if it has.
    pub weaknesses: Vec<String>,
    settings: BTreeMap<String, String>,
    tablespaces: Vec<Tablespace>,
    prepared: Vec<String>,
}

impl Server {
    /// Asks the server who it is, what we may do there, and what it is told to do. Changes nothing.
    ///
    /// # Errors
    /// Another database, a version that is too old, a missing privilege, or whatever the statements
    /// fail with.
    pub fn ask(session: &Connection, settings: &Settings) -> Result<Self, HookError> {
        let info = session.info();
        let dialect = Dialect::of(info.engine, &info.version)
            .map_err(|unknown| HookError::application("version", unknown, false))?;
        if dialect.major > NEWEST {
            warn!("PostgreSQL {} is newer than what this hook was tested with", dialect.major);
        }
        let identity = Identity::ask(session)?;
        let role = check_privileges(session, dialect, settings)?;
        let mut server = Server {
            dialect,
            version: info.version,
            identity,
            role,
            weaknesses: Vec::new(),
            settings: BTreeMap::new(),
            tablespaces: Vec::new(),
            prepared: Vec::new(),
        };
        server.ask_settings(session)?;
        server.ask_tablespaces(session)?;
        server.ask_prepared(session)?;
        server.look_for_asynchronous_commits(session)?;
        server.look_for_backups(session)?;
        server.look_at_the_archiver(session, settings)?;
        Ok(server)
    }

    fn setting(&self, name: &str) -> &str {
        self.settings.get(name).map_or("", String::as_str)
    }

    fn ask_settings(&mut self, session: &Connection) -> Result<(), HookError> {
        for row in session.query(s::SETTINGS, &[], None)?.complete()?.iter() {
            let value: Option<String> = row.get("setting")?;
            self.settings.insert(row.get("name")?, value.unwrap_or_default());
        }
        if !self.setting("data_directory").starts_with('/') {
            let role = quoted(&self.role);
            return Err(HookError::Denied(format!(
                "the server does not say where its data directory is; a superuser must run: GRANT \
                 pg_read_all_settings TO {role}"
            )));
        }
        if self.setting("fsync") == "off" {
            self.weaken("fsync is off: the server does not see to it that commits are on disk");
        }
        if self.setting("full_page_writes") == "off" {
            self.weaken(
                "full_page_writes is off: a page that was being written cannot be repaired by redo",
            );
        }
        if self.setting("synchronous_commit") == "off" {
            self.weaken(
                "synchronous_commit is off: commits are acknowledged before they are in the log",
            );
        }
        Ok(())
    }

    fn weaken(&mut self, why: &str) {
        warn!("{why}");
        self.weaknesses.push(why.to_owned());
    }

    fn ask_tablespaces(&mut self, session: &Connection) -> Result<(), HookError> {
        let of = |row: Row<'_>| {
            Ok::<_, HookError>(Tablespace {
                oid: row.get("oid")?,
                name: row.get("name")?,
                location: row.get("location")?,
            })
        };
        let rows = session.query(s::TABLESPACES, &[], None)?.complete()?;
        self.tablespaces = rows.iter().map(of).collect::<Result<_, _>>()?;
        Ok(())
    }

    /// They are prepared in a copy, too: that is what they are for. So they are told and saved, and
    /// stand in nobody's way.
    fn ask_prepared(&mut self, session: &Connection) -> Result<(), HookError> {
        let rows = session.query(s::PREPARED, &[], None)?;
        for row in rows.iter() {
            self.prepared.push(row.get("gid")?);
        }
        if let Some(row) = rows.iter().next() {
            let seconds: i64 = row.get("seconds")?;
            warn!(
                "{} prepared transaction(s), the oldest for {seconds} s: a copy has them prepared, with \
                 their locks, until COMMIT PREPARED or ROLLBACK PREPARED",
                self.prepared.len()
            );
        }
        Ok(())
    }

    fn look_for_asynchronous_commits(&mut self, session: &Connection) -> Result<(), HookError> {
        let rows = session.query(s::ASYNCHRONOUS, &[], None)?;
        let mut whose = Vec::new();
        for row in rows.iter() {
            let (database, role): (String, String) = (row.get("database")?, row.get("role")?);
            whose.push(format!("role {role} in database {database}"));
        }
        if !whose.is_empty() {
            self.weaken(&format!(
                "synchronous_commit is off for {}: their commits are acknowledged before they are in \
                 the log",
                whose.join(", ")
            ));
        }
        Ok(())
    }

    /// Somebody else's backup is never ended. One over a replication connection is none of our
    /// business; an exclusive one has left its label in the data directory, and a copy with that label
    /// does not start.
    fn look_for_backups(&self, session: &Connection) -> Result<(), HookError> {
        self.refuse_exclusive_backup(session)?;
        let running: u64 = session.query(s::BASE_BACKUPS, &[], None)?.first()?.get("count")?;
        if running > 0 {
            info!("{running} base backup(s) of others run; they are left alone");
        }
        Ok(())
    }

    /// Refuses while an exclusive backup runs.
    ///
    /// # Errors
    /// [`HookError::Busy`], or what the statement fails with.
    pub fn refuse_exclusive_backup(&self, session: &Connection) -> Result<(), HookError> {
        let Some(statement) = self.dialect.exclusive_backup() else { return Ok(()) };
        if !session.query(statement, &[], None)?.first()?.get::<bool>("exclusive")? {
            return Ok(());
        }
        Err(HookError::Busy(
            "an exclusive backup runs: a copy would have its backup_label, and not start. It is not \
             ours, and is not ended; whoever began it must run SELECT pg_stop_backup()"
                .into(),
        ))
    }

    fn look_at_the_archiver(
        &mut self,
        session: &Connection,
        settings: &Settings,
    ) -> Result<(), HookError> {
        let rows = session.query(s::ARCHIVER, &[], None)?;
        let row = rows.first()?;
        let is_off = matches!(self.setting("archive_mode"), "off" | "");
        let is_failing: bool = row.get("failing")?;
        let failed: String = row.get("last_failed")?;
        let failing = format!("the archiver fails at {failed}: nothing after it is archived");
        match settings.mode {
            Mode::Backup if is_off => warn!(
                "archive_mode is off: to roll the copy forward, its log must come from elsewhere \
                 (pg_receivewal, a standby)"
            ),
            Mode::Backup if is_failing => self.weaken(&failing),
            Mode::Checkpoint if is_failing && !is_off => warn!("{failing}"),
            _ => {}
        }
        Ok(())
    }

    /// Every path whose file system must be in the snapshot. The log's directory and the tablespaces
    /// are named by the links to them, which the host follows: what the server opens is what counts.
    #[must_use]
    pub fn plan(&self, settings: &Settings) -> Plan {
        let data = self.setting("data_directory").trim_end_matches('/');
        let mut plan = Plan::new(self.summary(settings)).with_path(data);
        if settings.require_wal_paths {
            plan = plan.with_path(format!("{data}/pg_wal"));
        }
        for tablespace in &self.tablespaces {
            plan = plan.with_path(format!("{data}/pg_tblspc/{}", tablespace.oid));
        }
        plan
    }

    fn summary(&self, settings: &Settings) -> String {
        let role = if self.identity.standby { ", a standby" } else { "" };
        let tablespaces = match self.tablespaces.len() {
            0 => String::new(),
            count => format!(", {count} tablespace(s)"),
        };
        let major = self.dialect.major;
        format!("PostgreSQL {major}{role}{tablespaces}, mode {}", settings.mode.name())
    }

    /// What is known without being in the window, for the manifest.
    #[must_use]
    pub fn metadata(&self, settings: &Settings) -> Vec<MetadataEntry> {
        let tablespaces = self.tablespaces.iter();
        let tablespaces: Vec<String> =
            tablespaces.map(|it| format!("{} {} {}", it.oid, it.name, it.location)).collect();
        let count = i64::try_from(self.prepared.len()).unwrap_or(i64::MAX);
        let mut entries = vec![
            MetadataEntry::new("mode", settings.mode.name()),
            MetadataEntry::new("server-version", self.version.as_str()),
            // 64 bits without a sign: more than a number of JSON holds.
            MetadataEntry::new("system-identifier", self.identity.system.as_str()),
            MetadataEntry::new(
                "timeline",
                i64::try_from(self.identity.timeline).unwrap_or(i64::MAX),
            ),
            MetadataEntry::new("standby", self.identity.standby),
            MetadataEntry::new("prepared-transactions", count),
        ];
        for (key, text) in [
            ("prepared-gids", self.prepared.join("\n")),
            ("tablespaces", tablespaces.join("\n")),
            ("weaknesses", self.weaknesses.join("\n")),
        ] {
            if !text.is_empty() {
                entries.push(MetadataEntry::new(key, text));
            }
        }
        for name in [
            "archive_mode",
            "config_file",
            "data_checksums",
            "data_directory",
            "fsync",
            "full_page_writes",
            "synchronous_commit",
            "wal_level",
        ] {
            entries.push(MetadataEntry::new(name.replace('_', "-"), self.setting(name)));
        }
        entries
    }
}

/// Asks for every privilege that the mode needs, so that a missing one is found before anything is
/// begun, and says which statement grants it. Gives the role's name.
fn check_privileges(
    session: &Connection,
    dialect: Dialect,
    settings: &Settings,
) -> Result<String, HookError> {
    let rows = session.query(dialect.privileges(), &[], None)?;
    let row = rows.first()?;
    let role: String = row.get("role")?;
    let (checkpoint, backup): (bool, bool) = (row.get("checkpoint")?, row.get("backup")?);
    let name = quoted(&role);
    let (may, what, grant) = match settings.mode {
        Mode::Checkpoint => (checkpoint, "CHECKPOINT", dialect.grant_checkpoint(&name)),
        Mode::Backup => (backup, "take a base backup", dialect.grant_backup(&name)),
    };
    if may {
        return Ok(role);
    }
    Err(HookError::Denied(format!("{role} may not {what}; a superuser must run: {grant}")))
}

/// A database error; a refusal says what to grant.
#[must_use]
pub fn explain(error: Error, grant: impl FnOnce() -> String) -> HookError {
    match error {
        Error::Database(error) if error.sqlstate == INSUFFICIENT_PRIVILEGE => HookError::Denied(
            format!("the database refuses: {}; a superuser must run: {}", error.message, grant()),
        ),
        other => other.into(),
    }
}
