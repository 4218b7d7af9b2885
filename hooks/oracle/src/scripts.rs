//! The texts that `sqlplus` reads, whole. They are asked for in `describe` and granted word for word:
//! what varies between runs and machines is not in them.
//!
//! Every value that is read back stands on a line of its own, between `<sp:KEY>` and `</sp>`; a script
//! begins with `<sp:begin>NAME</sp>` and ends with `<sp:end>NAME</sp>`. Banners, warnings and what
//! `glogin.sql` prints are outside of that, and are never taken for data. (`-R 3` keeps `login.sql` and
//! every command that leaves `sqlplus` away.)

/// The program, by the name of the grant.
pub const SQLPLUS: &str = "sqlplus";

/// Silent; one attempt to log on, so that a refused one does not take the script for a password;
/// restricted; as the operating system's user, with no more than the privilege to back up.
pub const ARGUMENTS: &[&str] = &["-S", "-L", "-R", "3", "/", "as", "sysbackup"];

/// The program that shows [`ORATAB`].
pub const CAT: &str = "cat";

/// Where the instances of a machine are listed.
pub const ORATAB: &str = "/etc/oratab";

/// The exit code of a script of which a statement failed.
pub const SQL_FAILED: i32 = 3;

/// The exit code of a script when `sqlplus` could not read or write.
pub const OS_FAILED: i32 = 4;

/// Whatever `glogin.sql` has set, output is one value for each line, not cut and not decorated.
macro_rules! script {
    ($name:literal, $($statement:expr),+ $(,)?) => {
        concat!(
            "WHENEVER OSERROR EXIT 4 ROLLBACK\n",
            "WHENEVER SQLERROR EXIT 3 ROLLBACK\n",
            "SET DEFINE OFF\n",
            "SET MARKUP HTML OFF\n",
            "SET ECHO OFF FEEDBACK OFF HEADING OFF VERIFY OFF TIMING OFF TIME OFF\n",
            "SET PAGESIZE 0 LINESIZE 32767 TRIMOUT ON TAB OFF WRAP ON RECSEP OFF\n",
            "SET SERVEROUTPUT OFF AUTOTRACE OFF TERMOUT ON\n",
            "TTITLE OFF\n",
            "BTITLE OFF\n",
            "PROMPT <sp:begin>", $name, "</sp>\n",
            $($statement, "\n",)+
            "PROMPT <sp:end>", $name, "</sp>\n",
            "EXIT 0\n",
        )
    };
}

macro_rules! instance {
    () => {
        "SELECT '<sp:instance>' || instance_name || '|' || status || '|' || version || '|' || parallel || '|' || ROUND((startup_time - DATE '1970-01-01') * 86400) || '</sp>' FROM v$instance;"
    };
}

macro_rules! database {
    () => {
        "SELECT '<sp:database>' || dbid || '|' || name || '|' || db_unique_name || '|' || log_mode || '|' || open_mode || '|' || database_role || '|' || cdb || '|' || current_scn || '|' || resetlogs_change# || '|' || ROUND((SYSDATE - DATE '1970-01-01') * 86400) || '</sp>' FROM v$database;"
    };
}

macro_rules! files {
    () => {
        "SELECT '<sp:file>' || d.file# || '|' || b.status || '|' || b.change# || '|' || ROUND((b.time - DATE '1970-01-01') * 86400) || '|' || d.status || '|' || d.enabled || '|' || d.con_id || '|' || d.name || '</sp>' FROM v$datafile d, v$backup b WHERE b.file# = d.file# ORDER BY d.file#;"
    };
}

macro_rules! log {
    () => {
        "SELECT '<sp:log>' || thread# || '|' || sequence# || '</sp>' FROM v$log WHERE status = 'CURRENT';"
    };
}

/// Everything that has to be known before anything is done; changes nothing.
pub const LOOK: &str = script!(
    "look",
    instance!(),
    database!(),
    files!(),
    log!(),
    "SELECT '<sp:incarnation>' || incarnation# || '</sp>' FROM v$database_incarnation WHERE status = 'CURRENT';",
    "SELECT '<sp:container>' || con_id || '|' || open_mode || '|' || name || '</sp>' FROM v$containers ORDER BY con_id;",
    "SELECT '<sp:redo>' || member || '</sp>' FROM v$logfile WHERE type = 'ONLINE';",
    "SELECT '<sp:control>' || name || '</sp>' FROM v$controlfile;",
    "SELECT '<sp:archive>' || destination || '</sp>' FROM v$archive_dest WHERE status = 'VALID' AND target = 'PRIMARY';",
    "SELECT '<sp:recovery-area>' || name || '</sp>' FROM v$recovery_file_dest;",
    "SELECT '<sp:rman>' || COUNT(*) || '</sp>' FROM v$session WHERE client_info LIKE 'rman channel=%';",
);

/// Which files are in backup mode, since when; changes nothing. Works in MOUNT, too.
pub const STATE: &str = script!("state", instance!(), database!(), files!());

/// The redo so far is archived, and dirty blocks are written, so that BEGIN BACKUP has little to do.
pub const SWITCH: &str =
    script!("switch", "ALTER SYSTEM ARCHIVE LOG CURRENT;", "ALTER SYSTEM CHECKPOINT;");

/// All files into backup mode, and how they are then.
pub const BEGIN: &str =
    script!("begin", "ALTER DATABASE BEGIN BACKUP;", instance!(), database!(), files!(), log!(),);

/// All files out of backup mode, and how they are then. Works in MOUNT, too.
pub const END: &str =
    script!("end-backup", "ALTER DATABASE END BACKUP;", instance!(), database!(), files!());

/// The redo of the backup is archived.
pub const ARCHIVE: &str = script!(
    "archive",
    "ALTER SYSTEM ARCHIVE LOG CURRENT;",
    instance!(),
    database!(),
    files!(),
    log!()
);

/// All scripts, in the order of a run.
pub const ALL: &[&str] = &[LOOK, SWITCH, STATE, BEGIN, END, ARCHIVE];

/// What a script calls itself between its markers.
#[must_use]
pub fn name_of(script: &str) -> &str {
    let rest = script.split_once("<sp:begin>").map_or("", |(_, rest)| rest);
    rest.split_once("</sp>").map_or("", |(name, _)| name)
}
