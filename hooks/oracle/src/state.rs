//! What the database says about itself.

use std::collections::BTreeMap;

use stillpoint_hook::HookError;

use crate::sqlplus::{Failure, Report, number};

/// A file that `V$BACKUP` calls so is in backup mode.
const ACTIVE: &str = "ACTIVE";

/// Instance, database and files at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// `V$INSTANCE`.
    pub instance: Instance,
    /// `V$DATABASE`.
    pub database: Database,
    /// `V$DATAFILE` and `V$BACKUP`.
    pub files: Vec<DataFile>,
}

/// `V$INSTANCE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// ORACLE_SID.
    pub name: String,
    /// `STARTED`, `MOUNTED`, `OPEN`, …
    pub status: String,
    /// As `19.0.0.0.0`.
    pub version: String,
    /// One of several instances of the same database (RAC).
    pub in_cluster: bool,
    /// When it was started, in seconds of the server's local time.
    pub started: i64,
}

/// `V$DATABASE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// The database's number.
    pub dbid: String,
    /// Its name.
    pub name: String,
    /// Its name among its standbys.
    pub unique_name: String,
    /// `ARCHIVELOG` or not.
    pub log_mode: String,
    /// `READ WRITE` or not.
    pub open_mode: String,
    /// `PRIMARY` or a standby.
    pub role: String,
    /// It has pluggable databases.
    pub is_container: bool,
    /// The system change number now; 0 in MOUNT.
    pub scn: u64,
    /// The change number of the last RESETLOGS.
    pub resetlogs: u64,
    /// Now, in seconds of the server's local time.
    pub now: i64,
}

/// One data file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFile {
    /// Its number.
    pub number: u32,
    /// In backup mode.
    pub active: bool,
    /// The change number at which backup mode last began.
    pub change: u64,
    /// When it last began, in seconds of the server's local time.
    pub begun: i64,
    /// The server may write to it: online, and not read only.
    pub is_written: bool,
    /// Its container; 0 where there are none.
    pub container: u32,
    /// Where it is.
    pub path: String,
}

impl State {
    /// Of the scripts that look at the files.
    ///
    /// # Errors
    /// If the report has not all of it.
    pub fn of(report: &Report) -> Result<Self, Failure> {
        let [name, status, version, parallel, started] = report.row("instance")?;
        let instance = Instance {
            name: name.into(),
            status: status.into(),
            version: version.into(),
            in_cluster: parallel == "YES",
            started: number(started)?,
        };
        let files = report.rows("file")?.into_iter().map(DataFile::of);
        let files: Vec<DataFile> = files.collect::<Result<_, _>>()?;
        if files.is_empty() {
            return Err(Failure::Unreadable("it names no data file".into()));
        }
        Ok(State { instance, database: Database::of(report)?, files })
    }

    /// Files in backup mode.
    pub fn active(&self) -> impl Iterator<Item = &DataFile> {
        self.files.iter().filter(|file| file.active)
    }

    /// The same database, in the same start of the same instance, as `other`.
    #[must_use]
    pub fn is_same_run_of(&self, other: &State) -> bool {
        let of = |state: &State| {
            (state.database.dbid.clone(), state.database.resetlogs, state.instance.started)
        };
        of(self) == of(other)
    }

    /// Refuses a database whose files cannot be put into backup mode, or would not be all of it.
    ///
    /// # Errors
    /// [`HookError::Application`] with what to do.
    pub fn check(&self) -> Result<(), HookError> {
        let Database { log_mode, open_mode, role, .. } = &self.database;
        let refused =
            |code: &str, message: String| Err(HookError::application(code, message, false));
        if self.instance.in_cluster {
            return refused(
                "rac",
                "this instance belongs to a cluster (RAC), whose other instances write to the same files on other machines: that is not supported".into(),
            );
        }
        if role != "PRIMARY" {
            return refused(
                "role",
                format!(
                    "the database is a {role}, which cannot be put into backup mode: take the snapshot of the primary"
                ),
            );
        }
        if log_mode != "ARCHIVELOG" {
            return refused(
                "ORA-00258",
                format!(
                    "the database is in {log_mode} mode, in which there is no backup mode: in MOUNT, run ALTER DATABASE ARCHIVELOG"
                ),
            );
        }
        if self.instance.status != "OPEN" || open_mode != "READ WRITE" {
            let status = &self.instance.status;
            return refused(
                "open-mode",
                format!(
                    "the instance is {status} and the database {open_mode}, not OPEN and READ WRITE: open it, or switch this hook off while it is closed"
                ),
            );
        }
        Ok(())
    }
}

impl Database {
    fn of(report: &Report) -> Result<Self, Failure> {
        let [dbid, name, unique_name, log_mode, open_mode, role, cdb, scn, resetlogs, now] =
            report.row("database")?;
        Ok(Database {
            dbid: dbid.into(),
            name: name.into(),
            unique_name: unique_name.into(),
            log_mode: log_mode.into(),
            open_mode: open_mode.into(),
            role: role.into(),
            is_container: cdb == "YES",
            scn: number(scn)?,
            resetlogs: number(resetlogs)?,
            now: number(now)?,
        })
    }
}

impl DataFile {
    fn of(fields: [&str; 8]) -> Result<Self, Failure> {
        let [file, backup, change, begun, status, enabled, container, path] = fields;
        Ok(DataFile {
            number: number(file)?,
            active: backup == ACTIVE,
            change: number(change)?,
            begun: number(begun)?,
            is_written: matches!(status, "SYSTEM" | "ONLINE") && enabled == "READ WRITE",
            container: number(container)?,
            path: path.into(),
        })
    }
}

/// What only `prepare` looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surroundings {
    /// Name and open mode, by number.
    pub containers: BTreeMap<u32, (String, String)>,
    /// Number of the current incarnation.
    pub incarnation: i64,
    /// Thread and sequence of the current redo log.
    pub log: (i64, i64),
    /// Redo logs, control files.
    pub redo_and_control: Vec<String>,
    /// Local archive destinations.
    pub archive: Vec<String>,
    /// Channels of RMAN at work.
    pub rman: u64,
}

/// As a destination: what DB_RECOVERY_FILE_DEST says.
const RECOVERY_AREA: &str = "USE_DB_RECOVERY_FILE_DEST";

impl Surroundings {
    /// Of the script [`crate::scripts::LOOK`].
    ///
    /// # Errors
    /// If the report has not all of it.
    pub fn of(report: &Report) -> Result<Self, Failure> {
        let one = |key: &str| -> Result<Vec<String>, Failure> {
            let rows = report.rows::<1>(key)?.into_iter().map(|[value]| value.to_owned());
            Ok(rows.filter(|value| !value.is_empty()).collect())
        };
        let mut containers = BTreeMap::new();
        for [id, open_mode, name] in report.rows("container")? {
            containers.insert(number(id)?, (name.to_owned(), open_mode.to_owned()));
        }
        let area = one("recovery-area")?;
        let mut archive = one("archive")?;
        let uses_area = archive.iter().any(|place| place == RECOVERY_AREA);
        archive.retain(|place| place != RECOVERY_AREA);
        if uses_area {
            archive.extend(area);
        }
        let [incarnation] = report.row("incarnation")?;
        let [rman] = report.row("rman")?;
        Ok(Surroundings {
            containers,
            incarnation: number(incarnation)?,
            log: log(report)?,
            redo_and_control: [one("redo")?, one("control")?].concat(),
            archive,
            rman: number(rman)?,
        })
    }

    /// Must be in backup mode for the copy to be sound: the server may write to it now. Files of a
    /// container that is closed or read only are at rest.
    #[must_use]
    pub fn needs_backup_mode(&self, file: &DataFile) -> bool {
        let open = self.containers.get(&file.container);
        file.is_written && open.is_none_or(|(_, mode)| mode == "READ WRITE")
    }
}

/// Thread and sequence of the current redo log.
///
/// # Errors
/// If the report has it not.
pub fn log(report: &Report) -> Result<(i64, i64), Failure> {
    let [thread, sequence] = report.row("log")?;
    Ok((number(thread)?, number(sequence)?))
}
