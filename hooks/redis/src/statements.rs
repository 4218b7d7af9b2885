//! Every command line that this hook can run, as a whole text: what is listed here is what the operator
//! grants.

/// Everything there is to know, of one moment.
pub const INFO: &str = "INFO";

/// Where the server keeps its files.
pub const DIR: &str = "CONFIG GET dir";
/// The name of the RDB file.
pub const RDB_FILE: &str = "CONFIG GET dbfilename";
/// When RDB files are written; empty if never.
pub const SAVE_POINTS: &str = "CONFIG GET save";
/// The name of the AOF, or what the names of its files begin with.
pub const AOF_FILE: &str = "CONFIG GET appendfilename";
/// The directory of the AOF's files (from 7.0).
pub const AOF_DIRECTORY: &str = "CONFIG GET appenddirname";
/// When the AOF is synced.
pub const AOF_SYNC: &str = "CONFIG GET appendfsync";

/// At which growth the server rewrites the AOF; 0 is never.
pub const REWRITE_AT: &str = "CONFIG GET auto-aof-rewrite-percentage";
/// Sets it.
pub const SET_REWRITE_AT: &str = "CONFIG SET auto-aof-rewrite-percentage ?";

/// A script that nobody has, without keys: it changes nothing, and answers `NOSCRIPT` at once, except
/// while writes are paused. Servers before 8.0 say in no other way that somebody paused them.
pub const PROBE: &str = "EVALSHA 0000000000000000000000000000000000000000 0";
/// Pauses writes for so many milliseconds. 0 pauses nothing.
pub const PAUSE: &str = "CLIENT PAUSE ? WRITE";
/// Ends every pause, whosever it is.
pub const UNPAUSE: &str = "CLIENT UNPAUSE";

/// Writes the RDB file.
pub const SAVE: &str = "BGSAVE";
/// An error of syntax if we may write the RDB file, and one of permission if not.
pub const TRY_SAVE: &str = "BGSAVE TRY";
/// Waits, for so many milliseconds, until the AOF is synced (from 7.2).
pub const WAIT_FOR_SYNC: &str = "WAITAOF 1 0 ?";

/// All of them, in the order of a run.
pub const ALL: &[&str] = &[
    INFO,
    DIR,
    RDB_FILE,
    SAVE_POINTS,
    AOF_FILE,
    AOF_DIRECTORY,
    AOF_SYNC,
    PROBE,
    REWRITE_AT,
    SET_REWRITE_AT,
    PAUSE,
    TRY_SAVE,
    SAVE,
    WAIT_FOR_SYNC,
    UNPAUSE,
];
