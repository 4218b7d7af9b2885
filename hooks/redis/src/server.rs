//! Talking to the server, and what can be known about it before anything is paused: who it is, where its
//! files are, what it keeps on disk.

use std::time::Duration;

use stillpoint_hook::sql::{Connection, Error, RowSet, Value};
use stillpoint_hook::{HookError, MetadataEntry, Plan, run, warn};

use crate::info::{Info, Version};
use crate::settings::Settings;
use crate::statements as s;

/// The connection that the operator declares for this hook.
pub const CONNECTION: &str = "main";

/// How long one answer may take: Redis answers one client after the other, in microseconds.
const ANSWER: Duration = Duration::from_secs(5);
/// What every command leaves of its phase: an instance that is ended by the host cannot send the way back.
const LAST: Duration = Duration::from_millis(500);

/// The oldest version that can pause writes only.
const OLDEST: Version = Version(6, 2, 0);
/// The first with the AOF in a directory of its own.
const AOF_DIRECTORY: Version = Version(7, 0, 0);
/// The first that can wait for the AOF to be synced.
const WAIT_FOR_SYNC: Version = Version(7, 2, 0);

/// The session. Nothing that the hook takes is tied to it, so that it is opened again when it is lost:
/// by the next [`Self::info`].
#[derive(Debug)]
pub struct Control {
    session: Connection,
    /// A command timed out.
    silent: bool,
}

impl Control {
    /// Opens it.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub fn open() -> Result<Self, HookError> {
        Ok(Control { session: Connection::open(CONNECTION)?, silent: false })
    }

    /// What the server is, in the host's words: "Redis 7.0.15".
    #[must_use]
    pub fn version(&self) -> String {
        self.session.info().version
    }

    /// Runs a command within `limit`. A session that was lost before is opened again; one that is lost
    /// by this command is not, because nobody knows whether it was run.
    ///
    /// # Errors
    /// [`explain`]ed.
    pub fn run(
        &mut self,
        statement: &str,
        params: &[Value],
        limit: Duration,
    ) -> Result<RowSet, HookError> {
        self.ask(statement, params, limit).map_err(|error| explain(statement, error))
    }

    /// Whether a command timed out: then the server may stand still, and to open a session to it may take
    /// all that is left of the phase.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.silent
    }

    fn ask(&mut self, statement: &str, params: &[Value], limit: Duration) -> Result<RowSet, Error> {
        let limit = limit.min(ANSWER).min(run::remaining_but(LAST));
        let answer = self.session.query(statement, params, Some(limit));
        self.silent |= answer == Err(Error::Timeout);
        answer
    }

    /// What the server says of itself now.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn info(&mut self) -> Result<Info, HookError> {
        self.info_within(ANSWER)
    }

    /// The same, within a limit. Asking twice does no harm: a session that is gone is opened again.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn info_within(&mut self, limit: Duration) -> Result<Info, HookError> {
        let answer = match self.ask(s::INFO, &[], limit) {
            Err(Error::ConnectionLost(_)) => {
                self.session = Connection::open(CONNECTION)?;
                self.ask(s::INFO, &[], limit)
            }
            answer => answer,
        };
        let rows = answer.map_err(|error| explain(s::INFO, error))?.complete()?;
        let info = Info::parse(&rows.first()?.at::<String>(0)?);
        // By this the server is known again: without it, nothing may be concluded.
        if info.run_id().is_empty() {
            return Err(HookError::Internal("the server's INFO has no `run_id`".into()));
        }
        Ok(info)
    }

    /// One entry of the configuration; `None` if the server has none of that name.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn config(&mut self, statement: &str) -> Result<Option<String>, HookError> {
        let rows = self.run(statement, &[], ANSWER)?;
        match rows.iter().next() {
            None => Ok(None),
            Some(row) => Ok(Some(row.at(1)?)),
        }
    }

    /// At which growth the AOF is rewritten, in percent.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn rewrite_at(&mut self) -> Result<u64, HookError> {
        let text = self.config(s::REWRITE_AT)?.unwrap_or_default();
        text.parse().map_err(|_| {
            HookError::Internal(["auto-aof-rewrite-percentage is no number: ", &text].concat())
        })
    }

    /// Sets it.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn set_rewrite_at(&mut self, percent: u64, limit: Duration) -> Result<(), HookError> {
        self.run(s::SET_REWRITE_AT, &[percent.into()], limit).map(drop)
    }
}

/// An error of the server as this hook's. Its message begins with a word that says what it is.
#[must_use]
pub fn explain(statement: &str, error: Error) -> HookError {
    let Error::Database(error) = error else { return error.into() };
    let message = error.message;
    let code = message.split(' ').next().unwrap_or_default();
    match code {
        "NOPERM" => HookError::Denied(format!(
            "the server refuses `{statement}`: {message}; an administrator must run: ACL SETUSER <user> \
             {}, and put it into the ACL file",
            permission(statement)
        )),
        "LOADING" | "MASTERDOWN" | "TRYAGAIN" => {
            HookError::Busy(format!("the server is not ready: {message}"))
        }
        "BUSY" => HookError::Busy(format!(
            "a script or function keeps the server from answering, and is not stopped by stillpoint: \
             {message}"
        )),
        code => HookError::application(code, format!("{statement}: {message}"), false),
    }
}

/// The rule of an ACL that allows a statement.
#[must_use]
pub fn permission(statement: &str) -> String {
    let mut words = statement.split(' ').map(str::to_ascii_lowercase);
    let command = words.next().unwrap_or_default();
    match command.as_str() {
        "config" | "client" => ["+", &command, "|", &words.next().unwrap_or_default()].concat(),
        _ => ["+", &command].concat(),
    }
}

/// What the server keeps on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// An append-only file, which is what a start reads; maybe RDB files beside it.
    Aof,
    /// RDB files only.
    Rdb,
    /// Nothing.
    Nothing,
}

impl Persistence {
    fn word(self) -> &'static str {
        match self {
            Persistence::Aof => "aof",
            Persistence::Rdb => "rdb",
            Persistence::Nothing => "none",
        }
    }
}

/// The server, as far as it was asked.
#[derive(Clone, Debug)]
pub struct Server {
    /// In the host's words.
    pub version: String,
    /// What it keeps on disk.
    pub persistence: Persistence,
    /// `WAITAOF` is there, and something to wait for.
    pub can_wait_for_sync: bool,
    dir: String,
    rdb_file: String,
    aof_file: String,
    aof_directory: Option<String>,
    aof_sync: String,
}

impl Server {
    /// Asks the server who it is. Changes nothing.
    ///
    /// # Errors
    /// A version that is too old, or whatever the commands fail with.
    pub fn ask(control: &mut Control) -> Result<Self, HookError> {
        let info = control.info()?;
        let version = info.version()?;
        if version < OLDEST {
            let message = format!(
                "{} cannot pause writes and let reads go on: this hook needs 6.2",
                control.version()
            );
            return Err(HookError::application("version", message, false));
        }
        let mut get = |statement| control.config(statement);
        let has_save_points = !get(s::SAVE_POINTS)?.unwrap_or_default().is_empty();
        let persistence = match (info.aof(), has_save_points) {
            (true, _) => Persistence::Aof,
            (false, true) => Persistence::Rdb,
            (false, false) => Persistence::Nothing,
        };
        let has_directory = version >= AOF_DIRECTORY;
        let aof_sync = get(s::AOF_SYNC)?.unwrap_or_default();
        Ok(Server {
            persistence,
            can_wait_for_sync: version >= WAIT_FOR_SYNC
                && info.aof()
                && aof_sync != "no"
                && !info.replica(),
            dir: get(s::DIR)?.unwrap_or_default(),
            rdb_file: get(s::RDB_FILE)?.unwrap_or_default(),
            aof_file: get(s::AOF_FILE)?.unwrap_or_default(),
            aof_directory: if has_directory { get(s::AOF_DIRECTORY)? } else { None },
            aof_sync,
            version: control.version(),
        })
    }

    /// Refuses what cannot be quiesced, and tells the operator what a copy of this server would not have.
    ///
    /// # Errors
    /// No persistence, unless the operator accepts it; an AOF that cannot be written; RDB files that
    /// take longer than they may.
    pub fn check(&self, info: &Info, settings: &Settings) -> Result<(), HookError> {
        match self.persistence {
            Persistence::Nothing if !settings.lower_without_persistence => {
                return Err(HookError::application(
                    "no-persistence",
                    "the server keeps nothing on disk (appendonly is no, save is empty), so that a copy \
                     of its disks has none of its data: switch one on, or set `without-persistence` to \
                     \"lower\"",
                    false,
                ));
            }
            Persistence::Aof => writable(info)?,
            Persistence::Rdb => {
                let last = info.number("rdb_last_bgsave_time_sec").unwrap_or(-1);
                let most = settings.save_budget.as_secs();
                if u64::try_from(last).is_ok_and(|last| last > most) {
                    return Err(HookError::application(
                        "save-budget",
                        format!(
                            "the last RDB file took {last} s, and writes may be paused for {most} s for \
                             one: switch the AOF on, or raise `save-budget-seconds`"
                        ),
                        false,
                    ));
                }
            }
            Persistence::Nothing => {
                warn!("the server keeps nothing on disk: its data is not in the copy")
            }
        }
        if info.cluster() {
            warn!(
                "the server is a node of a cluster: its snapshot is consistent in itself, not with \
                 those of other nodes"
            );
        }
        if info.replica() {
            let link = info.text("master_link_status");
            warn!(
                "the server is a replica (link {link}): the snapshot is as old as what it has applied"
            );
        }
        Ok(())
    }

    /// The paths whose file systems must be in the snapshot.
    ///
    /// # Errors
    /// A data directory that is no absolute path.
    pub fn plan(&self, info: &Info) -> Result<Plan, HookError> {
        if !self.dir.starts_with('/') {
            return Err(HookError::Internal(
                ["the server's data directory is not an absolute path: ", &self.dir].concat(),
            ));
        }
        let plan = Plan::new(self.summary(info)).with_path(self.dir.as_str());
        Ok(match (&self.aof_directory, self.persistence) {
            (Some(name), Persistence::Aof) => plan.with_path(self.inside(name)),
            _ => plan,
        })
    }

    fn inside(&self, name: &str) -> String {
        [self.dir.trim_end_matches('/'), "/", name].concat()
    }

    fn summary(&self, info: &Info) -> String {
        let persistence = match self.persistence {
            Persistence::Aof => format!("AOF, appendfsync {}", self.aof_sync),
            Persistence::Rdb => "RDB files only".to_owned(),
            Persistence::Nothing => "nothing on disk".to_owned(),
        };
        let role = if info.replica() { ", a replica" } else { "" };
        let cluster = if info.cluster() { ", a node of a cluster" } else { "" };
        format!("{}, {persistence}{role}{cluster}", self.version)
    }

    /// For the manifest: where the server stood.
    #[must_use]
    pub fn metadata(&self, info: &Info) -> Vec<MetadataEntry> {
        let mut entries = vec![
            MetadataEntry::new("flavour", "redis"),
            MetadataEntry::new("server-version", self.version.as_str()),
            MetadataEntry::new("persistence", self.persistence.word()),
            MetadataEntry::new("replica", info.replica()),
            MetadataEntry::new("cluster", info.cluster()),
            MetadataEntry::new("dbsize", info.keys()),
            MetadataEntry::new("dir", self.dir.as_str()),
            MetadataEntry::new("rdb-file", self.rdb_file.as_str()),
        ];
        let mut text = |key: &str, value: &str| {
            if !value.is_empty() {
                entries.push(MetadataEntry::new(key, value));
            }
        };
        text("run-id", info.run_id());
        text("master-replid", info.text("master_replid"));
        text("master-link-status", info.text("master_link_status"));
        if self.persistence == Persistence::Aof {
            text("appendfsync", &self.aof_sync);
            text("aof-file", &self.aof_file);
            text("aof-directory", self.aof_directory.as_deref().unwrap_or_default());
        }
        for (key, field) in [
            ("master-repl-offset", "master_repl_offset"),
            ("slave-repl-offset", "slave_repl_offset"),
            ("rdb-last-save-time", "rdb_last_save_time"),
            ("rdb-changes-since-last-save", "rdb_changes_since_last_save"),
            ("aof-size", "aof_current_size"),
            ("aof-base-size", "aof_base_size"),
        ] {
            if let Some(number) = info.number(field) {
                entries.push(MetadataEntry::new(key, number));
            }
        }
        entries
    }
}

/// The AOF could be written when it was written last.
///
/// # Errors
/// If not: then a part of what was acknowledged is in the server's memory only.
pub fn writable(info: &Info) -> Result<(), HookError> {
    match info.text("aof_last_write_status") {
        "ok" => Ok(()),
        status => Err(HookError::application(
            "aof",
            format!(
                "the server cannot write its AOF (aof_last_write_status is {status}: is the disk full?), \
                 so that acknowledged writes are in its memory only"
            ),
            true,
        )),
    }
}

/// What is left of the phase beside `reserve`, as an error if it is nothing.
///
/// # Errors
/// [`HookError::Timeout`].
pub fn time_left(reserve: Duration) -> Result<Duration, HookError> {
    let left = run::remaining_but(reserve);
    if left.is_zero() {
        return Err(HookError::Timeout("the phase has no time left: give it more".into()));
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_statement_has_a_rule_that_allows_it() {
        let mut rules: Vec<String> = s::ALL.iter().map(|text| permission(text)).collect();
        rules.sort();
        rules.dedup();
        assert_eq!(
            rules,
            [
                "+bgsave",
                "+client|pause",
                "+client|unpause",
                "+config|get",
                "+config|set",
                "+evalsha",
                "+info",
                "+waitaof"
            ]
        );
    }
}
