//! Every statement that this hook can run, as a whole text: what is listed here is what the operator
//! grants. Which of them a server gets is decided in [`crate::dialect`].

/// Who answers, in which session, with which history. Asked before and after, and compared.
pub const IDENTITY: &str = "SELECT pg_backend_pid() AS pid, \
    pg_postmaster_start_time()::text AS started, pg_is_in_recovery() AS standby, \
    s.system_identifier::text AS system, c.timeline_id AS timeline \
    FROM pg_control_system() s, pg_control_checkpoint() c";

/// What the server is told to do. Of the archive's command only whether there is one: it may have a
/// secret in it. `data_directory` is shown only to members of `pg_read_all_settings`.
pub const SETTINGS: &str = "SELECT name, CASE WHEN name IN ('archive_command', 'archive_library') \
    THEN (setting <> '')::text ELSE setting END AS setting FROM pg_settings WHERE name IN \
    ('archive_command', 'archive_library', 'archive_mode', 'config_file', 'data_checksums', \
    'data_directory', 'fsync', 'full_page_writes', 'synchronous_commit', 'wal_level')";

/// Roles and databases whose commits are acknowledged before they are in the log.
pub const ASYNCHRONOUS: &str = "SELECT coalesce(d.datname::text, '*') AS database, \
    coalesce(r.rolname::text, '*') AS role FROM pg_db_role_setting s \
    LEFT JOIN pg_database d ON d.oid = s.setdatabase LEFT JOIN pg_roles r ON r.oid = s.setrole \
    WHERE EXISTS (SELECT FROM unnest(s.setconfig) AS c WHERE lower(c) IN \
    ('synchronous_commit=off', 'synchronous_commit=false', 'synchronous_commit=no', \
    'synchronous_commit=0')) LIMIT 5";

/// What this role may do (from 15).
pub const PRIVILEGES_15: &str = "SELECT current_user::text AS role, \
    pg_has_role('pg_checkpoint', 'USAGE') AS checkpoint, \
    has_function_privilege('pg_backup_start(text, boolean)', 'EXECUTE') AND \
    has_function_privilege('pg_backup_stop(boolean)', 'EXECUTE') AS backup";
/// What this role may do (13 and 14, where only a superuser may checkpoint).
pub const PRIVILEGES_13: &str = "SELECT current_user::text AS role, \
    current_setting('is_superuser') = 'on' AS checkpoint, \
    has_function_privilege('pg_start_backup(text, boolean, boolean)', 'EXECUTE') AND \
    has_function_privilege('pg_stop_backup(boolean, boolean)', 'EXECUTE') AS backup";

/// Tablespaces of the operator's own.
pub const TABLESPACES: &str = "SELECT oid, spcname::text AS name, \
    pg_tablespace_location(oid) AS location FROM pg_tablespace \
    WHERE spcname NOT IN ('pg_default', 'pg_global') ORDER BY oid";

/// Transactions that a coordinator left prepared.
pub const PREPARED: &str = "SELECT gid, extract(epoch FROM now() - prepared)::bigint AS seconds \
    FROM pg_prepared_xacts ORDER BY prepared LIMIT 20";

/// Base backups that somebody takes now, over replication connections.
pub const BASE_BACKUPS: &str = "SELECT count(*) AS count FROM pg_stat_progress_basebackup";
/// Whether somebody's exclusive backup runs (13 and 14; there are none since).
pub const EXCLUSIVE_13: &str = "SELECT pg_is_in_backup() AS exclusive";

/// How the archiver does.
pub const ARCHIVER: &str = "SELECT coalesce(last_archived_wal, '') AS last_archived, \
    coalesce(last_failed_wal, '') AS last_failed, \
    coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false) AS failing \
    FROM pg_stat_archiver";

/// Where a standby is.
pub const STANDBY: &str = "SELECT coalesce(pg_last_wal_receive_lsn()::text, '') AS received, \
    coalesce(pg_last_xact_replay_timestamp()::text, '') AS replayed";

/// How long a statement may run: the server itself stops it. Milliseconds.
pub const STATEMENT_TIMEOUT: &str = "SELECT set_config('statement_timeout', $1::text, false)";
/// How long the session may be idle before the server ends it (from 14). Milliseconds.
pub const IDLE_TIMEOUT_14: &str = "SELECT set_config('idle_session_timeout', $1::text, false)";

/// Writes all dirty pages.
pub const CHECKPOINT: &str = "CHECKPOINT";

/// Where the log is, where redo would begin, and how much it would be.
pub const POSITION: &str = "SELECT p.lsn::text AS lsn, c.checkpoint_lsn::text AS checkpoint, \
    c.redo_lsn::text AS redo, c.redo_wal_file AS file, \
    pg_wal_lsn_diff(p.lsn, c.redo_lsn)::bigint AS bytes FROM pg_control_checkpoint() c, \
    (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
    ELSE pg_current_wal_flush_lsn() END AS lsn) p";

/// Begins a base backup in this session (from 15).
pub const BACKUP_START_15: &str = "SELECT pg_backup_start('stillpoint', true)::text AS lsn";
/// Begins a base backup in this session, not an exclusive one (13 and 14).
pub const BACKUP_START_13: &str = "SELECT pg_start_backup('stillpoint', true, false)::text AS lsn";
/// Ends it; does not wait for the archiver (from 15).
pub const BACKUP_STOP_15: &str = "SELECT lsn::text AS lsn, labelfile, \
    coalesce(spcmapfile, '') AS spcmapfile FROM pg_backup_stop(false)";
/// Ends it; does not wait for the archiver (13 and 14).
pub const BACKUP_STOP_13: &str = "SELECT lsn::text AS lsn, labelfile, \
    coalesce(spcmapfile, '') AS spcmapfile FROM pg_stop_backup(false, false)";

/// All of them, in the order of a run.
pub const ALL: &[&str] = &[
    IDENTITY,
    SETTINGS,
    ASYNCHRONOUS,
    PRIVILEGES_15,
    PRIVILEGES_13,
    TABLESPACES,
    PREPARED,
    BASE_BACKUPS,
    EXCLUSIVE_13,
    ARCHIVER,
    STANDBY,
    STATEMENT_TIMEOUT,
    IDLE_TIMEOUT_14,
    CHECKPOINT,
    POSITION,
    BACKUP_START_15,
    BACKUP_START_13,
    BACKUP_STOP_15,
    BACKUP_STOP_13,
];
