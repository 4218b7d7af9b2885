//! What went wrong, as the host's policy wants it, and what to do about it.

use stillpoint_hook::{HookError, process};

use crate::sqlplus::Failure;

/// How an error of Oracle's is classed.
enum Class {
    /// Somebody else is at work: later it may go.
    Busy,
    /// The server says no; the same again would be refused again.
    Refused,
    /// The server is away, or went away.
    Away,
}

/// Code, class, and the next step.
const KNOWN: &[(&str, Class, &str)] = &[
    (
        "ORA-00257",
        Class::Busy,
        "the archive destination is full: make room there (rman: DELETE ARCHIVELOG …), then run again",
    ),
    (
        "ORA-00258",
        Class::Refused,
        "the database is not in ARCHIVELOG mode: in MOUNT, run ALTER DATABASE ARCHIVELOG",
    ),
    (
        "ORA-00900",
        Class::Refused,
        "this server does not know a statement of the script: the hook is for Oracle Database 12.1 and later",
    ),
    (
        "ORA-01017",
        Class::Refused,
        "the program's `user` may not log on without a password: it must be in the OSBACKUPDBA group, and that group granted in `groups`",
    ),
    (
        "ORA-01031",
        Class::Refused,
        "the program's `user` has not the privilege SYSBACKUP: it must be in the OSBACKUPDBA group, and that group granted in `groups`",
    ),
    ("ORA-01033", Class::Away, "the instance is starting or stopping: run again when it is open"),
    (
        "ORA-01034",
        Class::Away,
        "the instance does not run, or ORACLE_SID and ORACLE_HOME in the grant's `environment` are not those of the one that does: start it, or correct them",
    ),
    ("ORA-01089", Class::Away, "the instance is being shut down: run again when it is open"),
    ("ORA-01109", Class::Away, "the database is not open: ALTER DATABASE OPEN, then run again"),
    (
        "ORA-01123",
        Class::Refused,
        "the database is not in ARCHIVELOG mode: in MOUNT, run ALTER DATABASE ARCHIVELOG",
    ),
    (
        "ORA-01142",
        Class::Refused,
        "no file is in backup mode: somebody else has ended it; look at V$BACKUP",
    ),
    (
        "ORA-01146",
        Class::Busy,
        "a file is in backup mode by somebody else, and that is never ended from here: wait for that backup, or end it by hand (V$BACKUP; ALTER DATABASE END BACKUP)",
    ),
    (
        "ORA-01149",
        Class::Busy,
        "the instance cannot be shut down while files are in backup mode: look at V$BACKUP; `stillpoint recover` ends what a run of stillpoint has left",
    ),
    ("ORA-01507", Class::Away, "the database is not mounted: STARTUP MOUNT, then run again"),
    (
        "ORA-03113",
        Class::Away,
        "the session was cut off: look at the alert log whether the instance lives",
    ),
    (
        "ORA-03114",
        Class::Away,
        "the session was cut off: look at the alert log whether the instance lives",
    ),
    (
        "ORA-03135",
        Class::Away,
        "the session was cut off: look at the alert log whether the instance lives",
    ),
    (
        "ORA-09817",
        Class::Refused,
        "the server process may not write its audit file: add the directory of AUDIT_FILE_DEST to `writable` of the program's grant, and make room there",
    ),
    (
        "ORA-09925",
        Class::Refused,
        "the server process may not write its audit file: add the directory of AUDIT_FILE_DEST to `writable` of the program's grant, and make room there",
    ),
    (
        "ORA-10873",
        Class::Refused,
        "the instance went down while files were in backup mode: in MOUNT, run ALTER DATABASE END BACKUP, then ALTER DATABASE OPEN (if nobody has restored files from a backup)",
    ),
    (
        "ORA-12514",
        Class::Away,
        "the listener does not know the service: only local instances are quiesced; TWO_TASK must not be in the grant's `environment`",
    ),
    (
        "ORA-12546",
        Class::Refused,
        "the server process could not be started: the program's `user` must own $ORACLE_HOME/bin/oracle",
    ),
    (
        "ORA-12547",
        Class::Refused,
        "the server process ended at once: the program's `user` must own $ORACLE_HOME/bin/oracle, and `writable` must have what it writes (docs/oracle.md)",
    ),
    (
        "ORA-19502",
        Class::Busy,
        "the archive destination is full, or cannot be written: look at it (df), then run again",
    ),
    (
        "ORA-19504",
        Class::Busy,
        "the archive destination cannot be written: look at it (df, ls -ld), and at `writable` of the program's grant",
    ),
    (
        "ORA-19809",
        Class::Busy,
        "the recovery area is full: make room there (rman: DELETE ARCHIVELOG …), or raise DB_RECOVERY_FILE_DEST_SIZE",
    ),
    (
        "SP2-0640",
        Class::Refused,
        "sqlplus is not logged on: try it by hand, as the program's `user` (docs/oracle.md, step 2)",
    ),
    ("SP2-0750", Class::Refused, "add ORACLE_HOME to `environment` of the program's grant"),
    (
        "SP2-0667",
        Class::Refused,
        "ORACLE_HOME in `environment` of the program's grant is not where this sqlplus belongs",
    ),
    (
        "SP2-1503",
        Class::Refused,
        "ORACLE_HOME in `environment` of the program's grant is not where this sqlplus belongs",
    ),
];

/// The error that a failed script stands for; `doing` says what it was for.
#[must_use]
pub fn explain(failure: Failure, doing: &str) -> HookError {
    match failure {
        Failure::Oracle { code, line } => of_oracle(code, &line).context(doing),
        Failure::Unreadable(why) => HookError::application(
            "output",
            format!(
                "{doing}: what sqlplus gave cannot be trusted: {why}; try it by hand (docs/oracle.md, step 2)"
            ),
            false,
        ),
        Failure::Process(process::Error::Timeout(_)) => HookError::Timeout(format!(
            "{doing}: sqlplus did not end in time, and was killed with its server process"
        )),
        Failure::Process(process::Error::NotFound(text)) => HookError::application(
            "not-found",
            format!(
                "{doing}: {text}: write the path of a root-owned sqlplus into the grant (docs/oracle.md, step 1)"
            ),
            false,
        ),
        Failure::Process(error) => HookError::from(error).context(doing),
    }
}

fn of_oracle(code: String, line: &str) -> HookError {
    match KNOWN.iter().find(|(known, ..)| *known == code) {
        Some((_, Class::Busy, next)) => HookError::Busy(format!("{line}; {next}")),
        Some((_, Class::Away, next)) => {
            HookError::application(code, format!("{line}; {next}"), true)
        }
        Some((_, Class::Refused, next)) => {
            HookError::application(code, format!("{line}; {next}"), false)
        }
        None => HookError::application(code, line.to_owned(), false),
    }
}
