//! What can be known about the server before anything is locked: who it is, where its files are, how
//! durable it is, whether it is part of something larger.

use std::collections::BTreeMap;

use stillpoint_hook::sql::{Connection, Error, RowSet, Value};
use stillpoint_hook::{HookError, MetadataEntry, Plan, debug, warn};

use crate::dialect::{Dialect, Flavour};
use crate::settings::Settings;
use crate::statements as s;

/// The connection that the operator declares for this hook.
pub const CONNECTION: &str = "main";

/// The server, as far as it was asked.
#[derive(Clone, Debug)]
pub struct Server {
    /// What it understands.
    pub dialect: Dialect,
    /// `SELECT VERSION()`.
    pub version: String,
    /// Who we are to it, `user@host`.
    pub user: String,
    /// It replicates from another one.
    pub replica: bool,
    /// It is a node of a Galera cluster.
    pub galera: bool,
    /// We may write the redo log out.
    pub may_flush_logs: bool,
    variables: BTreeMap<String, String>,
    status: Status,
}

/// What the server counts, as it was when it was asked.
#[derive(Clone, Debug, Default)]
pub struct Status(BTreeMap<String, String>);

impl Status {
    /// Asks the server.
    ///
    /// # Errors
    /// What the statement fails with.
    pub fn ask(session: &Connection) -> Result<Self, HookError> {
        Ok(Status(names_and_values(session.query(s::STATUS, &[], None)?.complete()?)?))
    }

    fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// Temporary tables that the applier of a replica has open: they are in no file that is copied.
    #[must_use]
    pub fn open_temporary_tables(&self) -> u64 {
        let names = ["replica_open_temp_tables", "slave_open_temp_tables"];
        names.iter().find_map(|name| self.text(name).parse().ok()).unwrap_or(0)
    }

    /// Where a Galera node is in the history of its cluster.
    #[must_use]
    pub fn wsrep_position(&self) -> String {
        [self.text("wsrep_cluster_state_uuid"), ":", self.text("wsrep_last_committed")].concat()
    }
}

/// The rows of a SHOW statement, by lower-case names.
fn names_and_values(rows: RowSet) -> Result<BTreeMap<String, String>, HookError> {
    let mut found = BTreeMap::new();
    for row in rows.iter() {
        let value: Option<String> = row.at(1)?;
        found.insert(row.at::<String>(0)?.to_ascii_lowercase(), value.unwrap_or_default());
    }
    Ok(found)
}

impl Server {
    /// Asks the server who it is. Locks nothing.
    ///
    /// # Errors
    /// Another database, a version that is too old, or whatever the statements fail with.
    pub fn ask(session: &Connection) -> Result<Self, HookError> {
        let rows = session.query(s::VERSION, &[], None)?;
        let row = rows.first()?;
        let version: String = row.at(0)?;
        let user = row.at::<Option<String>>(1)?.unwrap_or_default();
        let dialect = Dialect::of(session.info().engine, &version)
            .map_err(|unknown| HookError::application("version", unknown.to_string(), false))?;

        let variables = names_and_values(session.query(s::VARIABLES, &[], None)?.complete()?)?;
        let mut server = Server {
            dialect,
            version,
            user,
            replica: false,
            galera: false,
            may_flush_logs: true,
            variables,
            status: Status::ask(session)?,
        };
        let provider = server.variable("wsrep_provider");
        server.galera = server.is_on("wsrep_on") && !provider.is_empty() && provider != "none";
        Ok(server)
    }

    /// A variable's value; empty if the server has none.
    #[must_use]
    pub fn variable(&self, name: &str) -> &str {
        self.variables.get(name).map_or("", String::as_str)
    }

    fn is_on(&self, name: &str) -> bool {
        matches!(self.variable(name), "ON" | "1")
    }

    /// Whether it writes a binary log.
    #[must_use]
    pub fn logs_binary(&self) -> bool {
        self.is_on("log_bin")
    }

    /// Refuses what a read lock on this server alone cannot quiesce, and what it lacks.
    ///
    /// # Errors
    /// A Galera node that would stall its cluster; `deep` where there is no checkpoint statement.
    pub fn check(&self, settings: &Settings) -> Result<(), HookError> {
        if self.galera {
            self.check_galera()?;
        }
        if settings.deep && self.dialect.checkpoint().is_none() {
            return Err(HookError::invalid_settings(
                "/deep",
                "MySQL has no statement that makes a checkpoint: remove `deep`",
            ));
        }
        if settings.deep && !self.variables.contains_key("innodb_log_checkpoint_now") {
            return Err(HookError::invalid_settings(
                "/deep",
                "this server has no `innodb_log_checkpoint_now`: remove `deep`",
            ));
        }
        Ok(())
    }

    /// A read lock pauses the provider: the node applies nothing, and when its queue is full it stops the
    /// whole cluster (flow control). A node that an administrator desynchronised never does that, and one
    /// that is alone has nobody to stop. Its state of synchronisation is not changed here.
    fn check_galera(&self) -> Result<(), HookError> {
        let alone = self.status.text("wsrep_cluster_size") == "1";
        if alone || self.is_on("wsrep_desync") {
            return Ok(());
        }
        Err(HookError::application(
            "galera",
            format!(
                "the server is a node of a Galera cluster ({}, {} nodes): a read lock on it stops the \
                 whole cluster by flow control when its queue is full; run SET GLOBAL wsrep_desync = ON \
                 on this node before the snapshot and OFF after it, or take the snapshot of an \
                 asynchronous replica",
                self.status.text("wsrep_local_state_comment"),
                self.status.text("wsrep_cluster_size"),
            ),
            false,
        ))
    }

    /// Tells the operator what a copy of this server would not have.
    pub fn warn(&self) {
        for name in ["sync_binlog", "innodb_flush_log_at_trx_commit"] {
            let value = self.variable(name);
            if !value.is_empty() && value != "1" {
                warn!(
                    "{name} is {value}, not 1: this snapshot is complete all the same, because logs \
                     are written out under the lock; after a power cut commits would be missing"
                );
            }
        }
        if !self.variable("group_replication_group_name").is_empty() {
            warn!(
                "the server is a member of a replication group, which may wait for it while it is locked"
            );
        }
        if self.galera {
            warn!(
                "the server is a node of a Galera cluster: it applies nothing while it is locked, and the \
                 snapshot is as old as what it has applied"
            );
        }
        if self.replica {
            warn!("the server is a replica: the snapshot is as old as what it has applied");
        }
    }

    /// Asks for replication channels, and remembers whether there is one.
    ///
    /// # Errors
    /// What the statement fails with.
    pub fn ask_replica(&mut self, session: &Connection) -> Result<(), HookError> {
        let rows = self.privileged(session.query(self.dialect.replica_status(), &[], None))?;
        self.replica = !rows.rows.is_empty();
        Ok(())
    }

    /// Tries whether we may write the redo log out. A MySQL with a privilege for the read lock alone can do
    /// without, if every commit writes the log by itself: what is in doubt in the copy then is decided by
    /// the binary log when it starts, and is committed.
    ///
    /// # Errors
    /// [`HookError::Denied`], or what the statement fails with.
    pub fn try_flush_logs(&mut self, session: &Connection) -> Result<(), HookError> {
        let tried = self.privileged(session.execute(s::FLUSH_LOGS, &[], None));
        let log_is_written = matches!(self.variable("innodb_flush_log_at_trx_commit"), "1" | "2");
        let in_order = self.logs_binary() && self.dialect.has_flush_privilege() && log_is_written;
        match tried {
            Err(HookError::Denied(why)) if in_order => {
                debug!("the redo log is not written out under the lock: {why}");
                self.may_flush_logs = false;
                Ok(())
            }
            Err(HookError::Denied(why)) if self.dialect.has_flush_privilege() => {
                Err(HookError::Denied(
                    [why.as_str(), " and, for FLUSH ENGINE LOGS, GRANT RELOAD"].concat(),
                ))
            }
            other => other.map(drop),
        }
    }

    /// Refuses while transactions are prepared: a copy would start with them in doubt. MySQL tells
    /// them only to whoever has `XA_RECOVER_ADMIN`; without it they are found under the lock, as open
    /// transactions.
    ///
    /// # Errors
    /// [`HookError::Busy`], or what the statement fails with.
    pub fn refuse_prepared(&self, session: &Connection) -> Result<(), HookError> {
        let prepared = match session.query(s::PREPARED_XA, &[], None) {
            Err(Error::Database(error)) if self.dialect.flavour == Flavour::MySql => {
                debug!("prepared transactions are not looked for: {}", error.message);
                return Ok(());
            }
            answer => answer?.rows.len(),
        };
        if prepared == 0 {
            return Ok(());
        }
        Err(HookError::Busy(format!(
            "{prepared} XA transactions are prepared, and a copy would start with them in doubt: end \
             them (XA RECOVER, then XA COMMIT or XA ROLLBACK) and try again"
        )))
    }

    /// The paths whose file systems must be in the snapshot.
    ///
    /// # Errors
    /// No data directory, or what the statement fails with.
    pub fn plan(&self, session: &Connection, settings: &Settings) -> Result<Plan, HookError> {
        let datadir = self.variable("datadir");
        if !datadir.starts_with('/') {
            return Err(HookError::Internal(format!(
                "the server's data directory is not an absolute path: {datadir:?}"
            )));
        }
        let mut plan = Plan::new(self.summary()).with_path(tidy(datadir));
        for path in self.directories(settings) {
            plan = plan.with_path(resolve(datadir, &path));
        }
        let far = self.privileged(session.query(self.dialect.far_files(), &[], None))?;
        for row in far.complete()?.iter() {
            let file: String = row.at(0)?;
            plan = plan.with_path(parent(&file));
        }
        Ok(plan)
    }

    /// The directories that the variables name, as they name them.
    fn directories(&self, settings: &Settings) -> Vec<String> {
        let mut paths = Vec::new();
        for name in [
            "innodb_data_home_dir",
            "innodb_log_group_home_dir",
            "innodb_undo_directory",
            "innodb_doublewrite_dir",
            "aria_log_dir_path",
        ] {
            paths.push(self.variable(name).to_owned());
        }
        let home = self.variable("innodb_data_home_dir");
        for file in self.variable("innodb_data_file_path").split(';') {
            // `path:size[:autoextend[:max:size]]`
            let file = file.split(':').next().unwrap_or_default();
            paths.push(parent(&join(home, file)));
        }
        if self.logs_binary() && settings.require_binlog_paths {
            paths.push(parent(self.variable("log_bin_basename")));
            paths.push(parent(self.variable("log_bin_index")));
            paths.push(self.variable("binlog_directory").to_owned());
        }
        if self.replica {
            paths.push(parent(self.variable("relay_log_basename")));
        }
        paths.retain(|path| !path.is_empty());
        paths
    }

    fn summary(&self) -> String {
        let binlog = if self.logs_binary() { "on" } else { "off" };
        let role = if self.replica { ", a replica" } else { "" };
        let cluster = if self.galera { ", a Galera node" } else { "" };
        format!("{}, binary log {binlog}{role}{cluster}", self.dialect)
    }

    /// What is known without a lock, for the manifest.
    #[must_use]
    pub fn metadata(&self) -> Vec<MetadataEntry> {
        let flavour = match self.dialect.flavour {
            Flavour::MariaDb => "mariadb",
            Flavour::MySql => "mysql",
        };
        let mut entries = vec![
            MetadataEntry::new("flavour", flavour),
            MetadataEntry::new("server-version", self.version.as_str()),
            MetadataEntry::new("binary-log", self.logs_binary()),
            MetadataEntry::new("replica", self.replica),
        ];
        for name in [
            "server_id",
            "server_uid",
            "server_uuid",
            "sync_binlog",
            "innodb_flush_log_at_trx_commit",
        ] {
            let value = self.variable(name);
            if !value.is_empty() {
                entries.push(MetadataEntry::new(name.replace('_', "-"), value));
            }
        }
        entries
    }

    /// The answer to a statement that needs a privilege; a refusal says which GRANT is missing.
    ///
    /// # Errors
    /// [`HookError::Denied`] with the GRANT statements, or what the statement failed with.
    pub fn privileged<T>(&self, answer: Result<T, Error>) -> Result<T, HookError> {
        answer.map_err(|error| self.explain(error, false))
    }

    /// A database error, with the GRANT statements if it is a refusal.
    #[must_use]
    pub fn explain(&self, error: Error, deep: bool) -> HookError {
        match error {
            Error::Database(error) if is_refusal(error.vendor_code) => HookError::Denied(format!(
                "the database refuses: {} ({}); an administrator must run: {}",
                error.message,
                error.vendor_code,
                self.dialect.grants(&self.user, deep)
            )),
            other => other.into(),
        }
    }
}

/// The server's numbers for "you may not": to the database, to the table, the statement as a whole.
fn is_refusal(vendor_code: i32) -> bool {
    matches!(vendor_code, 1044 | 1045 | 1142 | 1143 | 1227 | 1370)
}

/// `path` as the server sees it, which is in its data directory when it starts it.
fn resolve(datadir: &str, path: &str) -> String {
    tidy(&join(datadir, path))
}

fn join(base: &str, path: &str) -> String {
    if path.starts_with('/') || base.is_empty() {
        path.to_owned()
    } else {
        [base, "/", path].concat()
    }
}

/// The directory that a file is in; empty for a file that has none.
fn parent(file: &str) -> String {
    match file.rsplit_once('/') {
        Some(("", _)) => "/".to_owned(),
        Some((directory, _)) => directory.to_owned(),
        None => String::new(),
    }
}

/// Without `.`, double and trailing slashes. `..` stays: only the file system knows what it means.
fn tidy(path: &str) -> String {
    let mut tidy = String::new();
    for part in path.split('/') {
        if !part.is_empty() && part != "." {
            tidy.push('/');
            tidy.push_str(part);
        }
    }
    if tidy.is_empty() {
        tidy.push('/');
    }
    tidy
}

/// A parameter in whole seconds.
#[must_use]
pub fn seconds(duration: std::time::Duration) -> Value {
    Value::Int64(i64::try_from(duration.as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_are_in_the_data_directory() {
        assert_eq!(resolve("/var/lib/mysql/", "./"), "/var/lib/mysql");
        assert_eq!(resolve("/var/lib/mysql/", "undo"), "/var/lib/mysql/undo");
        assert_eq!(resolve("/var/lib/mysql", "/redo/"), "/redo");
        assert_eq!(resolve("/", "./"), "/");
    }

    #[test]
    fn a_file_s_directory_is_found() {
        assert_eq!(parent("/log/mysql-bin"), "/log");
        assert_eq!(parent("/ibdata1"), "/");
        assert_eq!(parent("ibdata1"), "");
    }
}
