//! Every statement that this hook can run, as a whole text: what is listed here is what the operator
//! grants. Which of them a server gets is decided in [`crate::dialect`].

/// Who the server is, and who we are to it.
pub const VERSION: &str = "SELECT VERSION(), CURRENT_USER()";

/// One statement for all flavours and versions: a variable that a server does not have is simply
/// not in the answer.
pub const VARIABLES: &str = "SHOW GLOBAL VARIABLES WHERE Variable_name IN (\
    'aria_log_dir_path', 'binlog_directory', 'datadir', 'group_replication_group_name', \
    'innodb_data_file_path', 'innodb_data_home_dir', 'innodb_doublewrite_dir', \
    'innodb_flush_log_at_trx_commit', 'innodb_log_checkpoint_now', 'innodb_log_group_home_dir', \
    'innodb_undo_directory', 'log_bin', 'log_bin_basename', 'log_bin_index', 'relay_log_basename', \
    'server_id', 'server_uid', 'server_uuid', 'sync_binlog', 'wsrep_desync', 'wsrep_on', \
    'wsrep_provider')";

/// What the applier of a replica and a Galera node say of themselves; the same for all, too.
pub const STATUS: &str = "SHOW GLOBAL STATUS WHERE Variable_name IN (\
    'Replica_open_temp_tables', 'Slave_open_temp_tables', 'wsrep_cluster_size', \
    'wsrep_cluster_state_uuid', 'wsrep_last_committed', 'wsrep_local_state_comment')";

/// InnoDB data files outside the data directory (MariaDB from 10.6).
pub const FAR_FILES_MARIADB: &str = "SELECT DISTINCT filename FROM \
    information_schema.innodb_sys_tablespaces WHERE filename LIKE '/%'";
/// InnoDB data files outside the data directory (MariaDB 10.5, MySQL 5.7).
pub const FAR_FILES_OLD: &str =
    "SELECT DISTINCT path FROM information_schema.innodb_sys_datafiles WHERE path LIKE '/%'";
/// InnoDB data files outside the data directory (MySQL from 8.0).
pub const FAR_FILES_MYSQL: &str =
    "SELECT DISTINCT path FROM information_schema.innodb_datafiles WHERE path LIKE '/%'";

/// Transactions that a coordinator left prepared.
pub const PREPARED_XA: &str = "XA RECOVER";

/// Replication channels (MariaDB).
pub const REPLICA_MARIADB: &str = "SHOW ALL SLAVES STATUS";
/// Replication channels (MySQL before 8.0.22).
pub const REPLICA_OLD: &str = "SHOW SLAVE STATUS";
/// Replication channels (MySQL from 8.0.22).
pub const REPLICA_MYSQL: &str = "SHOW REPLICA STATUS";

/// Statements that run for so many seconds (MariaDB, where a read lock passes a long SELECT).
pub const LONG_QUERIES_MARIADB: &str = "SELECT id, time FROM information_schema.processlist \
    WHERE command IN ('Query', 'Execute') AND user NOT IN ('system user', 'event_scheduler') \
    AND id <> CONNECTION_ID() AND info NOT LIKE 'SELECT%' AND time >= ? ORDER BY time DESC LIMIT 5";
/// Statements that run for so many seconds (MySQL, where a read lock waits for a long SELECT too).
pub const LONG_QUERIES_MYSQL: &str = "SELECT id, time FROM information_schema.processlist \
    WHERE command IN ('Query', 'Execute') AND user NOT IN ('system user', 'event_scheduler') \
    AND id <> CONNECTION_ID() AND time >= ? ORDER BY time DESC LIMIT 5";
/// Transactions that have changed something and have been open for so many seconds.
pub const LONG_TRANSACTIONS: &str = "SELECT trx_mysql_thread_id AS id, \
    TIMESTAMPDIFF(SECOND, trx_started, NOW()) AS time FROM information_schema.innodb_trx \
    WHERE trx_rows_modified > 0 AND TIMESTAMPDIFF(SECOND, trx_started, NOW()) >= ? \
    ORDER BY trx_started LIMIT 5";

/// The time-outs of the session that locks, and the mark by which it is known again.
pub const SESSION: &str =
    "SET SESSION lock_wait_timeout = ?, SESSION wait_timeout = ?, @stillpoint = CONNECTION_ID()";

/// Keeps DDL away (MySQL from 8.0).
pub const LOCK_INSTANCE: &str = "LOCK INSTANCE FOR BACKUP";
/// Takes it back.
pub const UNLOCK_INSTANCE: &str = "UNLOCK INSTANCE";
/// Stops writes and commits.
pub const LOCK_TABLES: &str = "FLUSH TABLES WITH READ LOCK";
/// Takes it back.
pub const UNLOCK_TABLES: &str = "UNLOCK TABLES";

/// Makes this session visible in `innodb_trx`, see [`OPEN_TRANSACTIONS`]. Does not release the read
/// lock.
pub const CANARY: &str = "START TRANSACTION WITH CONSISTENT SNAPSHOT";
/// Transactions that have changed something, and our own. InnoDB answers from a cache that is renewed
/// only when nobody has read it for 0.1 s; our own transaction, begun under the lock, is in the answer
/// exactly if the answer is from after the lock.
pub const OPEN_TRANSACTIONS: &str = "SELECT trx_mysql_thread_id AS id, \
    trx_mysql_thread_id = CONNECTION_ID() AS own, \
    TIMESTAMPDIFF(SECOND, trx_started, NOW()) AS time FROM information_schema.innodb_trx \
    WHERE trx_rows_modified > 0 OR trx_mysql_thread_id = CONNECTION_ID() \
    ORDER BY own DESC, trx_started LIMIT 6";
/// Ends our own transaction. It wrote nothing, so that the read lock does not stop it.
pub const END_CANARY: &str = "COMMIT";

/// Writes the redo log out, so that no commit is in doubt in the copy.
pub const FLUSH_LOGS: &str = "FLUSH NO_WRITE_TO_BINLOG ENGINE LOGS";
/// Whether we may checkpoint; changes nothing (MariaDB).
pub const TRY_CHECKPOINT: &str = "SET GLOBAL innodb_log_checkpoint_now = 0";
/// Writes all dirty pages, so that the copy has nothing to redo (MariaDB). Only under the read lock:
/// without it, it runs after every new write.
pub const CHECKPOINT: &str = "SET GLOBAL innodb_log_checkpoint_now = 1";

/// Where the binary log is (MariaDB; MySQL before 8.2).
pub const BINLOG_STATUS_OLD: &str = "SHOW MASTER STATUS";
/// Where the binary log is (MySQL from 8.2).
pub const BINLOG_STATUS_MYSQL: &str = "SHOW BINARY LOG STATUS";
/// GTID positions (MariaDB).
pub const GTID_MARIADB: &str = "SELECT @@GLOBAL.gtid_binlog_pos AS `gtid-binlog-pos`, \
    @@GLOBAL.gtid_current_pos AS `gtid-current-pos`, @@GLOBAL.gtid_slave_pos AS `gtid-slave-pos`";
/// GTID set (MySQL).
pub const GTID_MYSQL: &str = "SELECT @@GLOBAL.gtid_executed AS `gtid-executed`";
/// InnoDB's log sequence numbers (MariaDB).
pub const LSN_MARIADB: &str = "SHOW GLOBAL STATUS LIKE 'Innodb_lsn_%'";
/// InnoDB's log sequence numbers, as JSON (MySQL from 8.0).
pub const LSN_MYSQL: &str = "SELECT storage_engines FROM performance_schema.log_status";

/// Is this the session that locked?
pub const SAME_SESSION: &str = "SELECT CONNECTION_ID() AS id, @stillpoint AS mark";
/// Has it released?
pub const UNLOCKS: &str = "SHOW SESSION STATUS LIKE 'Com_unlock_tables'";
/// Is a session there?
pub const SESSION_COUNT: &str = "SELECT COUNT(*) FROM information_schema.processlist WHERE id = ?";

/// All of them, in the order of a run.
pub const ALL: &[&str] = &[
    VERSION,
    VARIABLES,
    STATUS,
    FAR_FILES_MARIADB,
    FAR_FILES_OLD,
    FAR_FILES_MYSQL,
    PREPARED_XA,
    REPLICA_MARIADB,
    REPLICA_OLD,
    REPLICA_MYSQL,
    LONG_QUERIES_MARIADB,
    LONG_QUERIES_MYSQL,
    LONG_TRANSACTIONS,
    SESSION,
    LOCK_INSTANCE,
    LOCK_TABLES,
    CANARY,
    OPEN_TRANSACTIONS,
    END_CANARY,
    FLUSH_LOGS,
    TRY_CHECKPOINT,
    CHECKPOINT,
    BINLOG_STATUS_OLD,
    BINLOG_STATUS_MYSQL,
    GTID_MARIADB,
    GTID_MYSQL,
    LSN_MARIADB,
    LSN_MYSQL,
    SAME_SESSION,
    UNLOCKS,
    UNLOCK_TABLES,
    UNLOCK_INSTANCE,
    SESSION_COUNT,
];
