//! Quiesces MariaDB: a global read lock, from before the freeze until after the thaw, and where the
//! binary log stood meanwhile. The lock belongs to the session, so that it ends with the hook, whatever
//! happens to either.

use std::time::Duration;

use stillpoint_hook::sql::{Connection, Engine};
use stillpoint_hook::{
    Description, Frozen, HELD_BEFORE_FREEZE, Hook, HookError, MetadataEntry, Outcome, Plan, run,
};

/// The connection that the hook asks for, and uses unless its settings name another.
const CONNECTION: &str = "main";

// What the hook asks for, whole and exact: the operator grants these texts, and the host sends no other.
const FILES: &str = "SELECT @@GLOBAL.datadir, @@GLOBAL.log_bin_basename";
const BOUND_THE_WAIT: &str = "SET SESSION lock_wait_timeout = 5";
const LOCK: &str = "FLUSH TABLES WITH READ LOCK";
const UNFINISHED: &str =
    "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_rows_modified > 0";
const FLUSH_LOGS: &str = "FLUSH NO_WRITE_TO_BINLOG ENGINE LOGS";
const POSITION: &str = "SHOW MASTER STATUS";
const UNLOCK: &str = "UNLOCK TABLES";
/// All of them.
pub const STATEMENTS: [&str; 7] =
    [FILES, BOUND_THE_WAIT, LOCK, UNFINISHED, FLUSH_LOGS, POSITION, UNLOCK];

/// How often the lock is tried while transactions are open under it, and the pause between: InnoDB
/// answers from a cache that is up to 0.1 s old.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(150);
/// Nothing is begun with less than this left of the phase: it is for giving back.
const RESERVE: Duration = Duration::from_secs(2);

/// The hook: one value lives through one run.
#[derive(Debug, Default)]
pub struct Quiesce {
    /// Open from `prepare` on. While the lock is held it is this session's.
    session: Option<Connection>,
    /// Where the binary log stood when everything was quiet.
    position: Option<Position>,
}

impl Hook for Quiesce {
    fn describe() -> Description {
        Description::new(
            "mariadb-lock",
            env!("CARGO_PKG_VERSION"),
            "Locks MariaDB, and saves where its binary log stands",
        )
        .settings_schema(include_str!("settings.schema.json"))
        .freeze_budget_ms(20_000)
        .needs_sql(
            CONNECTION,
            &[Engine::Mariadb],
            &STATEMENTS,
            "to find its files, to stop writes while the snapshot is taken, and to let them go on",
        )
    }

    fn validate(settings: &str) -> Result<(), HookError> {
        connection(settings).map(drop)
    }

    /// Everything that can be found out before anything is held.
    fn prepare(&mut self, settings: &str) -> Result<Plan, HookError> {
        let session = Connection::open(&connection(settings)?)?;
        let server = session.info();
        if server.engine != Engine::Mariadb {
            return Err(HookError::NotApplicable(format!("{} is not MariaDB", server.version)));
        }
        let plan = plan(&session, &server.version)?;
        self.session = Some(session);
        Ok(plan)
    }

    /// Other clients wait from here to `post_thaw`.
    fn pre_freeze(&mut self) -> Result<Frozen, HookError> {
        let session = self.session()?;
        match quiesce(session) {
            Ok((position, held_from)) => {
                let held = held_from.saturating_sub(run::remaining());
                let mut metadata = position.metadata();
                let held = i64::try_from(held.as_nanos()).unwrap_or(i64::MAX);
                metadata.push(MetadataEntry::new(HELD_BEFORE_FREEZE, held));
                self.position = Some(position);
                Ok(Frozen::application(metadata))
            }
            Err(error) => {
                // Closing the session releases too, but only once the server has noticed.
                let _ = session.execute(UNLOCK, &[], None);
                self.session = None;
                Err(error)
            }
        }
    }

    /// The session that locked still answers, and nothing was written meanwhile.
    fn confirm(&mut self) -> Result<(), HookError> {
        let now = Position::ask(self.session()?)?;
        match &self.position {
            Some(then) if *then == now => Ok(()),
            then => Err(HookError::Internal(format!(
                "the lock did not hold: the binary log was at {then:?} and is at {now:?}"
            ))),
        }
    }

    /// Called whenever `pre_freeze` was, also when that failed: nothing left to do is a success.
    fn post_thaw(&mut self, _outcome: Outcome) -> Result<Vec<MetadataEntry>, HookError> {
        if let Some(session) = self.session.take() {
            session.execute(UNLOCK, &[], None)?;
        }
        Ok(Vec::new())
    }
}

stillpoint_hook::export!(Quiesce);

impl Quiesce {
    fn session(&self) -> Result<&Connection, HookError> {
        self.session.as_ref().ok_or_else(|| HookError::Internal("no session is open".into()))
    }
}

/// The one setting.
fn connection(settings: &str) -> Result<String, HookError> {
    let wrong = |error: serde_json::Error| HookError::invalid_settings("", error.to_string());
    let settings: serde_json::Value = serde_json::from_str(settings).map_err(wrong)?;
    match &settings["connection"] {
        serde_json::Value::Null => Ok(CONNECTION.into()),
        serde_json::Value::String(name) if !name.is_empty() => Ok(name.clone()),
        _ => Err(HookError::invalid_settings("/connection", "the name of a connection is wanted")),
    }
}

/// The directories that must be in the snapshot.
fn plan(session: &Connection, version: &str) -> Result<Plan, HookError> {
    let files = session.query(FILES, &[], None)?;
    let row = files.first()?;
    let log: Option<String> = row.at(1)?;
    let log = log.ok_or_else(|| {
        HookError::NotApplicable("the server writes no binary log: set log_bin".into())
    })?;
    let directory = log.rsplit_once('/').map_or("/", |(directory, _)| directory);
    Ok(Plan::new(format!("MariaDB {version}"))
        .with_path(row.at::<String>(0)?)
        .with_path(directory))
}

/// Takes the lock with no transaction open under it: a copy would roll that back. Gives what was left
/// of the phase when the lock was granted.
fn quiesce(session: &Connection) -> Result<(Position, Duration), HookError> {
    session.execute(BOUND_THE_WAIT, &[], None)?;
    for _ in 0..TRIES {
        session.execute(LOCK, &[], Some(run::remaining_but(RESERVE)))?;
        let granted = run::remaining();
        let open: i64 = session.query(UNFINISHED, &[], None)?.first()?.at(0)?;
        if open == 0 {
            // What was committed is in the binary log; with this it is in InnoDB's files, too.
            session.execute(FLUSH_LOGS, &[], Some(run::remaining_but(RESERVE)))?;
            return Ok((Position::ask(session)?, granted));
        }
        session.execute(UNLOCK, &[], None)?;
        if run::cancelled() || run::remaining_but(RESERVE) <= PAUSE {
            break;
        }
        run::sleep(PAUSE);
    }
    Err(HookError::Busy("transactions were open whenever the lock was granted: try later".into()))
}

/// A place in the binary log. Every commit moves it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Position {
    file: String,
    offset: i64,
}

impl Position {
    fn ask(session: &Connection) -> Result<Self, HookError> {
        let status = session.query(POSITION, &[], None)?;
        let row = status.first()?;
        Ok(Position { file: row.get("File")?, offset: row.get("Position")? })
    }

    fn metadata(&self) -> Vec<MetadataEntry> {
        vec![
            MetadataEntry::new("binlog-file", self.file.as_str()),
            MetadataEntry::new("binlog-position", self.offset),
        ]
    }
}
