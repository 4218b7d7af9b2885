//! Where the server is: binary log, GTID, log sequence number. Read under the lock, and again to prove
//! that nothing moved.

use stillpoint_hook::sql::{Connection, RowSet};
use stillpoint_hook::{HookError, MetadataEntry};

use crate::dialect::Flavour;
use crate::server::{Server, Status};

/// A point in the server's history. Under a read lock it does not move: every commit writes to the
/// binary log first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The binary log's file, if the server writes one.
    pub file: Option<String>,
    /// Where in it.
    pub offset: u64,
    /// GTID positions by their metadata keys.
    pub gtids: Vec<(String, String)>,
    /// Where a Galera node is in the history of its cluster.
    pub wsrep: Option<String>,
}

impl Position {
    /// Asks the server.
    ///
    /// # Errors
    /// What the statements fail with.
    pub fn ask(session: &Connection, server: &Server) -> Result<Self, HookError> {
        let mut position = Position::default();
        if server.logs_binary() {
            let status = session.query(server.dialect.binlog_status(), &[], None);
            let status = server.privileged(status)?;
            let row = status.first()?;
            position.file = Some(row.get("File")?);
            position.offset = row.get("Position")?;
        }
        let gtids = session.query(server.dialect.gtid(), &[], None)?;
        let row = gtids.first()?;
        for column in &gtids.columns {
            let value = row.get::<Option<String>>(&column.name)?.unwrap_or_default();
            // MySQL breaks long GTID sets into lines.
            position.gtids.push((column.name.clone(), value.replace('\n', "")));
        }
        if server.galera {
            position.wsrep = Some(Status::ask(session)?.wsrep_position());
        }
        Ok(position)
    }

    /// For the manifest: with it and the binary logs, a restored copy is rolled forward.
    #[must_use]
    pub fn metadata(&self) -> Vec<MetadataEntry> {
        let mut entries = Vec::new();
        if let Some(file) = &self.file {
            let offset = i64::try_from(self.offset).unwrap_or(i64::MAX);
            entries.push(MetadataEntry::new("binlog-file", file.as_str()));
            entries.push(MetadataEntry::new("binlog-position", offset));
        }
        for (key, value) in &self.gtids {
            if !value.is_empty() {
                entries.push(MetadataEntry::new(key.as_str(), value.as_str()));
            }
        }
        let wsrep = self.wsrep.as_deref();
        entries.extend(wsrep.map(|position| MetadataEntry::new("wsrep-position", position)));
        entries
    }

    /// In words, for the operator.
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.file {
            Some(file) => format!("{file}:{}", self.offset),
            None => "no binary log".to_owned(),
        }
    }
}

/// InnoDB's log sequence numbers, as far as the server tells them. They do not stand still under the
/// lock (purge goes on), so they are a note for people and prove nothing.
///
/// # Errors
/// What the statement fails with.
pub fn lsn(session: &Connection, server: &Server) -> Result<Vec<MetadataEntry>, HookError> {
    let Some(statement) = server.dialect.lsn() else {
        return Ok(Vec::new());
    };
    let rows = server.privileged(session.query(statement, &[], None))?;
    match server.dialect.flavour {
        Flavour::MariaDb => lsn_of_status(&rows),
        Flavour::MySql => Ok(lsn_of_log_status(&rows)),
    }
}

fn lsn_of_status(rows: &RowSet) -> Result<Vec<MetadataEntry>, HookError> {
    let mut entries = Vec::new();
    for row in rows.iter() {
        let key = match row.at::<String>(0)?.as_str() {
            "Innodb_lsn_current" => "innodb-lsn",
            "Innodb_lsn_last_checkpoint" => "innodb-checkpoint-lsn",
            _ => continue,
        };
        entries.push(MetadataEntry::new(key, row.at::<String>(1)?));
    }
    Ok(entries)
}

/// `{"InnoDB": {"LSN": 123, "LSN_checkpoint": 120}}`; a shape that is not this gives nothing.
fn lsn_of_log_status(rows: &RowSet) -> Vec<MetadataEntry> {
    let engines = rows.first().and_then(|row| row.at::<String>(0));
    let engines: serde_json::Value =
        engines.ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let mut entries = Vec::new();
    for (member, key) in [("LSN", "innodb-lsn"), ("LSN_checkpoint", "innodb-checkpoint-lsn")] {
        if let Some(number) = engines["InnoDB"][member].as_u64() {
            entries.push(MetadataEntry::new(key, number.to_string()));
        }
    }
    entries
}

/// Where the replica is in its source's history, per channel: read under the lock, so that it agrees
/// with the data. The source's address is not asked for.
///
/// # Errors
/// What the statement fails with.
pub fn replica(session: &Connection, server: &Server) -> Result<Vec<MetadataEntry>, HookError> {
    let rows = server.privileged(session.query(server.dialect.replica_status(), &[], None))?;
    let mut entries = Vec::new();
    for row in rows.iter() {
        let channel = ["Connection_name", "Channel_Name"]
            .iter()
            .find_map(|name| row.get::<String>(name).ok())
            .filter(|name| !name.is_empty());
        let suffix = channel.map_or(String::new(), |name| ["-", &name].concat());
        let first = |names: [&str; 2]| names.iter().find_map(|name| row.get::<String>(name).ok());
        for (key, names) in [
            ("source-file", ["Relay_Master_Log_File", "Relay_Source_Log_File"]),
            ("source-position", ["Exec_Master_Log_Pos", "Exec_Source_Log_Pos"]),
        ] {
            if let Some(value) = first(names) {
                entries.push(MetadataEntry::new([key, &suffix].concat(), value));
            }
        }
    }
    Ok(entries)
}
