//! Flavour and version to statements. Pure: nothing here talks to a server, and no server gets a
//! statement that it lacks.

use std::fmt;

use stillpoint_hook::sql::Engine;

use crate::statements as s;

/// Which of the two families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// MariaDB.
    MariaDb,
    /// MySQL, Percona Server and their kin.
    MySql,
}

/// A server's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u16, pub u16, pub u16);

/// What a server of this flavour and version understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// Which family.
    pub flavour: Flavour,
    /// Which version.
    pub version: Version,
}

/// Why a server is not one of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// The version's text does not begin with three numbers.
    Version(String),
    /// It is older than what is tested.
    TooOld(Dialect),
    /// It is another database.
    Engine,
}

/// The oldest MariaDB that this hook knows: the first with the privilege `BINLOG MONITOR`.
const OLDEST_MARIADB: Version = Version(10, 5, 0);
/// The oldest MySQL that this hook knows.
const OLDEST_MYSQL: Version = Version(5, 7, 0);

impl Dialect {
    /// From the engine that the host saw, and `SELECT VERSION()`.
    ///
    /// # Errors
    /// [`Unknown`].
    pub fn of(engine: Engine, version: &str) -> Result<Self, Unknown> {
        let flavour = match engine {
            // A proxy may call a MariaDB a MySQL; its version does not.
            Engine::Mariadb | Engine::Mysql if version.contains("MariaDB") => Flavour::MariaDb,
            Engine::Mariadb => Flavour::MariaDb,
            Engine::Mysql => Flavour::MySql,
            _ => return Err(Unknown::Engine),
        };
        let Some(version) = parse(version) else {
            return Err(Unknown::Version(version.into()));
        };
        let dialect = Dialect { flavour, version };
        let oldest = match flavour {
            Flavour::MariaDb => OLDEST_MARIADB,
            Flavour::MySql => OLDEST_MYSQL,
        };
        if version < oldest {
            return Err(Unknown::TooOld(dialect));
        }
        Ok(dialect)
    }

    fn mariadb(self) -> bool {
        self.flavour == Flavour::MariaDb
    }

    fn mysql_from(self, version: Version) -> bool {
        self.flavour == Flavour::MySql && self.version >= version
    }

    /// The lock that keeps DDL away, and what takes it back, where there is one.
    #[must_use]
    pub fn instance_lock(self) -> Option<(&'static str, &'static str)> {
        self.mysql_from(Version(8, 0, 0)).then_some((s::LOCK_INSTANCE, s::UNLOCK_INSTANCE))
    }

    /// Where the binary log is.
    #[must_use]
    pub fn binlog_status(self) -> &'static str {
        if self.mysql_from(Version(8, 2, 0)) {
            s::BINLOG_STATUS_MYSQL
        } else {
            s::BINLOG_STATUS_OLD
        }
    }

    /// GTID positions, one column each, named as in the metadata.
    #[must_use]
    pub fn gtid(self) -> &'static str {
        if self.mariadb() { s::GTID_MARIADB } else { s::GTID_MYSQL }
    }

    /// InnoDB's log sequence numbers, where they can be had.
    #[must_use]
    pub fn lsn(self) -> Option<&'static str> {
        if self.mariadb() {
            Some(s::LSN_MARIADB)
        } else {
            self.mysql_from(Version(8, 0, 0)).then_some(s::LSN_MYSQL)
        }
    }

    /// Replication channels.
    #[must_use]
    pub fn replica_status(self) -> &'static str {
        if self.mariadb() {
            s::REPLICA_MARIADB
        } else if self.mysql_from(Version(8, 0, 22)) {
            s::REPLICA_MYSQL
        } else {
            s::REPLICA_OLD
        }
    }

    /// Statements that would keep the read lock waiting.
    #[must_use]
    pub fn long_queries(self) -> &'static str {
        if self.mariadb() { s::LONG_QUERIES_MARIADB } else { s::LONG_QUERIES_MYSQL }
    }

    /// InnoDB data files outside the data directory.
    #[must_use]
    pub fn far_files(self) -> &'static str {
        if self.mariadb() && self.version >= Version(10, 6, 0) {
            s::FAR_FILES_MARIADB
        } else if self.mysql_from(Version(8, 0, 0)) {
            s::FAR_FILES_MYSQL
        } else {
            s::FAR_FILES_OLD
        }
    }

    /// Checkpoint, and what tries whether we may, where there is one.
    #[must_use]
    pub fn checkpoint(self) -> Option<(&'static str, &'static str)> {
        self.mariadb().then_some((s::CHECKPOINT, s::TRY_CHECKPOINT))
    }

    /// Has a privilege for the read lock alone, which is less than RELOAD (MySQL from 8.0.23).
    #[must_use]
    pub fn has_flush_privilege(self) -> bool {
        self.mysql_from(Version(8, 0, 23))
    }

    /// The privileges that this hook needs, as GRANT statements for an administrator.
    #[must_use]
    pub fn grants(self, user: &str, deep: bool) -> String {
        let privileges = match (self.flavour, deep) {
            (Flavour::MariaDb, false) => "RELOAD, PROCESS, BINLOG MONITOR, SLAVE MONITOR",
            (Flavour::MariaDb, true) => "RELOAD, PROCESS, BINLOG MONITOR, SLAVE MONITOR, SUPER",
            (Flavour::MySql, _) if self.has_flush_privilege() => {
                "FLUSH_TABLES, BACKUP_ADMIN, PROCESS, REPLICATION CLIENT"
            }
            (Flavour::MySql, _) if self.instance_lock().is_some() => {
                "RELOAD, BACKUP_ADMIN, PROCESS, REPLICATION CLIENT"
            }
            (Flavour::MySql, _) => "RELOAD, PROCESS, REPLICATION CLIENT",
        };
        let user = quoted(user);
        let mut grants = ["GRANT ", privileges, " ON *.* TO ", &user, ";"].concat();
        if self.lsn() == Some(s::LSN_MYSQL) {
            grants += &[" GRANT SELECT ON performance_schema.log_status TO ", &user, ";"].concat();
        }
        grants
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.mariadb() { "MariaDB" } else { "MySQL" };
        let Version(major, minor, patch) = self.version;
        write!(f, "{name} {major}.{minor}.{patch}")
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unknown::Version(text) => write!(f, "the server's version is not understood: {text}"),
            Unknown::TooOld(dialect) => write!(
                f,
                "{dialect} is older than what this hook knows: MariaDB 10.5 and MySQL 5.7"
            ),
            Unknown::Engine => f.write_str("connection main is no MariaDB and no MySQL"),
        }
    }
}

/// `10.11.19-MariaDB-…`, `8.0.36-28`, and `5.5.5-10.11.19-MariaDB-…`, which MariaDB says to clients
/// that would not believe a first digit pair.
fn parse(text: &str) -> Option<Version> {
    let text = match text.strip_prefix("5.5.5-") {
        Some(rest) if rest.contains("MariaDB") => rest,
        _ => text,
    };
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse().ok());
    Some(Version(numbers.next()??, numbers.next()??, numbers.next()??))
}

/// `user@host` as `CURRENT_USER()` gives it, as a GRANT statement wants it.
fn quoted(user: &str) -> String {
    let (name, host) = user.rsplit_once('@').unwrap_or((user, "%"));
    ["'", name, "'@'", host, "'"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialect(version: &str) -> Dialect {
        let engine = if version.contains("MariaDB") { Engine::Mariadb } else { Engine::Mysql };
        Dialect::of(engine, version).unwrap()
    }

    const SERVERS: [&str; 12] = [
        "10.5.29-MariaDB",
        "10.6.22-MariaDB",
        "10.11.19-MariaDB-0+deb12u1-log",
        "11.4.3-MariaDB-ubu2404",
        "11.8.2-MariaDB",
        "12.1.2-MariaDB",
        "5.7.44-log",
        "8.0.11",
        "8.0.36-28",
        "8.2.0",
        "8.4.5",
        "9.7.4-debug",
    ];

    #[test]
    fn versions_are_read_as_servers_write_them() {
        let version = |text| dialect(text).version;
        assert_eq!(version("10.11.19-MariaDB-0+deb12u1-log"), Version(10, 11, 19));
        assert_eq!(version("5.5.5-10.6.22-MariaDB"), Version(10, 6, 22));
        assert_eq!(version("8.0.36-28"), Version(8, 0, 36));
        assert_eq!(version("9.7.4-debug"), Version(9, 7, 4));
    }

    #[test]
    fn a_mariadb_behind_a_proxy_that_says_mysql_is_a_mariadb() {
        let dialect = Dialect::of(Engine::Mysql, "5.5.5-10.11.19-MariaDB").unwrap();
        assert_eq!(dialect.flavour, Flavour::MariaDb);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let refused = |engine, version| Dialect::of(engine, version).unwrap_err();
        assert_eq!(refused(Engine::Postgresql, "15.18"), Unknown::Engine);
        assert!(matches!(refused(Engine::Mysql, "5.6.51"), Unknown::TooOld(_)));
        assert!(matches!(refused(Engine::Mariadb, "10.4.34-MariaDB"), Unknown::TooOld(_)));
        assert!(matches!(refused(Engine::Mysql, "abc"), Unknown::Version(_)));
    }

    #[test]
    fn show_master_status_is_gone_from_mysql_8_2() {
        assert_eq!(dialect("8.0.36").binlog_status(), "SHOW MASTER STATUS");
        assert_eq!(dialect("8.2.0").binlog_status(), "SHOW BINARY LOG STATUS");
        assert_eq!(dialect("9.7.4").binlog_status(), "SHOW BINARY LOG STATUS");
        assert_eq!(dialect("12.1.2-MariaDB").binlog_status(), "SHOW MASTER STATUS");
    }

    #[test]
    fn only_mysql_from_8_0_has_an_instance_lock() {
        for version in SERVERS {
            let expected = !version.contains("MariaDB") && !version.starts_with("5.7");
            assert_eq!(dialect(version).instance_lock().is_some(), expected, "{version}");
        }
    }

    #[test]
    fn only_mariadb_has_a_checkpoint() {
        for version in SERVERS {
            let expected = version.contains("MariaDB");
            assert_eq!(dialect(version).checkpoint().is_some(), expected, "{version}");
        }
    }

    #[test]
    fn show_replica_status_came_with_mysql_8_0_22() {
        assert_eq!(dialect("8.0.21").replica_status(), "SHOW SLAVE STATUS");
        assert_eq!(dialect("8.0.22").replica_status(), "SHOW REPLICA STATUS");
        assert_eq!(dialect("5.7.44").replica_status(), "SHOW SLAVE STATUS");
    }

    #[test]
    fn every_statement_of_every_dialect_is_asked_for_and_none_is_asked_for_in_vain() {
        let mut used: Vec<&str> = vec![
            s::VERSION,
            s::VARIABLES,
            s::STATUS,
            s::PREPARED_XA,
            s::LONG_TRANSACTIONS,
            s::SESSION,
            s::LOCK_TABLES,
            s::UNLOCK_TABLES,
            s::CANARY,
            s::OPEN_TRANSACTIONS,
            s::END_CANARY,
            s::FLUSH_LOGS,
            s::SAME_SESSION,
            s::UNLOCKS,
            s::SESSION_COUNT,
        ];
        for version in SERVERS {
            let d = dialect(version);
            used.extend([d.binlog_status(), d.gtid(), d.replica_status()]);
            used.extend([d.long_queries(), d.far_files()]);
            used.extend(d.lsn());
            let pairs = [d.instance_lock(), d.checkpoint()];
            used.extend(pairs.into_iter().flatten().flat_map(|(a, b)| [a, b]));
        }
        for statement in &used {
            assert!(s::ALL.contains(statement), "not asked for: {statement}");
        }
        for statement in s::ALL {
            assert!(used.contains(statement), "asked for in vain: {statement}");
        }
    }

    #[test]
    fn the_grants_name_the_user_as_the_server_knows_it() {
        assert_eq!(
            dialect("10.11.19-MariaDB").grants("sp@localhost", false),
            "GRANT RELOAD, PROCESS, BINLOG MONITOR, SLAVE MONITOR ON *.* TO 'sp'@'localhost';"
        );
        assert_eq!(
            dialect("8.4.5").grants("sp@%", false),
            "GRANT FLUSH_TABLES, BACKUP_ADMIN, PROCESS, REPLICATION CLIENT ON *.* TO 'sp'@'%'; \
             GRANT SELECT ON performance_schema.log_status TO 'sp'@'%';"
        );
    }
}
