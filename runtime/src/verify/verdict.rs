//! What a verification found, and what that makes of the snapshot.

use std::fmt;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::consistency::Level;
use crate::exit_code::ExitCode;

/// The version of this document's form. Grows when a reader must change.
pub const SCHEMA_VERSION: u32 = 1;

/// What the copy turned out to be, from best to worst.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Nothing had to be undone or replayed beyond what its hook promises, everything checked is whole,
    /// and the copy stands where the manifest says.
    Clean,
    /// It can be used, but as after a power cut: a journal was replayed, changes were redone that no
    /// hook answers for, or something was rolled back or in doubt.
    Recovered,
    /// Something in it is broken, or it is not what its manifest says.
    Damaged,
}

impl Verdict {
    /// The exit code of a verification that came to this verdict.
    #[must_use]
    pub fn exit_code(self) -> ExitCode {
        match self {
            Verdict::Clean => ExitCode::Ok,
            Verdict::Recovered => ExitCode::Recovered,
            Verdict::Damaged => ExitCode::Damaged,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Clean => "clean",
            Verdict::Recovered => "recovered",
            Verdict::Damaged => "damaged",
        })
    }
}

/// What can be found. Stable: scripts may rely on the codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Code {
    /// The journal of a file system held what was not at its place yet.
    JournalReplay,
    /// A file system's own check found errors.
    FileSystemErrors,
    /// A file system cannot be mounted.
    NotMountable,
    /// The server applied its log although no hook of the manifest answers for the database.
    Redo,
    /// The server rolled transactions back.
    RolledBack,
    /// Transactions were found prepared, neither committed nor rolled back.
    InDoubt,
    /// Tables were not closed.
    NotClosed,
    /// The end of an append-only file was cut off.
    Truncated,
    /// A table or index does not pass the server's check.
    Table,
    /// A page does not have the checksum that it says, or cannot be read.
    Page,
    /// The server logged an error.
    ServerError,
    /// The server does not start on the copy.
    NotStarted,
    /// The copy does not stand where the manifest says.
    Position,
    /// A query of the operator's failed, or had another answer than expected.
    Query,
}

impl Code {
    /// What a finding of this kind makes of the snapshot.
    #[must_use]
    pub fn verdict(self) -> Verdict {
        match self {
            Code::JournalReplay
            | Code::Redo
            | Code::RolledBack
            | Code::InDoubt
            | Code::NotClosed
            | Code::Truncated => Verdict::Recovered,
            Code::FileSystemErrors
            | Code::NotMountable
            | Code::Table
            | Code::Page
            | Code::ServerError
            | Code::NotStarted
            | Code::Position
            | Code::Query => Verdict::Damaged,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // As in JSON.
        match serde_json::to_value(self) {
            Ok(serde_json::Value::String(word)) => f.write_str(&word),
            _ => write!(f, "{self:?}"),
        }
    }
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// Which kind.
    pub code: Code,
    /// What that makes of the snapshot.
    pub makes_it: Verdict,
    /// Where: a mount point, a data directory.
    pub subject: String,
    /// What exactly: the file, the table, the line of the log.
    pub detail: String,
}

impl Finding {
    /// A finding.
    pub fn new(code: Code, subject: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { code, makes_it: code.verdict(), subject: subject.into(), detail: detail.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.code, self.subject, self.detail)
    }
}

/// One file system that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileSystemCheck {
    /// Where the original is mounted; the copy was mounted there, too, out of everybody's sight.
    pub mount_point: PathBuf,
    /// Type, as the kernel names it.
    pub fs_type: String,
    /// The disk it lies on.
    pub disk: String,
    /// Nothing had to be replayed.
    pub journal_clean: bool,
    /// The program that checked it; absent if it is not installed here.
    pub checked_by: Option<String>,
}

/// One position that the manifest and the copy were compared by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PositionCheck {
    /// Its name, as the hook calls it.
    pub name: String,
    /// What the hook saved.
    pub saved: String,
    /// What the copy says.
    pub copy: String,
    /// They agree.
    pub agrees: bool,
}

/// One query of the operator's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QueryCheck {
    /// The query.
    pub query: String,
    /// The first column of its first row, as text; absent if there is no row, or it is NULL.
    pub answer: Option<String>,
    /// What it had to be, if the operator said so.
    pub expected: Option<String>,
}

/// One database that was started on the copy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DatabaseCheck {
    /// `mariadb`, `postgresql` or `redis`.
    pub engine: String,
    /// Its data directory.
    pub directory: PathBuf,
    /// The hook of the manifest that answers for it, if one does.
    pub hook: Option<String>,
    /// What the server says that it is.
    pub server: Option<String>,
    /// How much of its log the server applied, in bytes, if it says so.
    pub redo_bytes: Option<u64>,
    /// Transactions that the server rolled back.
    pub rolled_back: u64,
    /// Transactions that were found prepared.
    pub in_doubt: u64,
    /// Tables that were not closed, or marked as crashed.
    pub crashed_tables: Vec<String>,
    /// Tables, or files of keys, that were checked.
    pub tables_checked: u64,
    /// Files whose pages' checksums were checked.
    pub files_checked: u64,
    /// Positions that were compared.
    pub positions: Vec<PositionCheck>,
    /// The operator's queries.
    pub queries: Vec<QueryCheck>,
    /// How long the server took until it answered, in milliseconds.
    pub start_ms: u64,
}

/// What was verified, and with which result. Kept in the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Verification {
    /// See [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The version of stillpoint that verified.
    pub stillpoint: String,
    /// The provider's id of the group.
    pub group: String,
    /// The level that the manifest claims.
    pub level: Level,
    /// What the copy is.
    pub verdict: Verdict,
    /// When it was verified, RFC 3339, UTC.
    pub time: String,
    /// How long that took, in milliseconds.
    pub took_ms: u64,
    /// What was found, in the order in which it was.
    pub findings: Vec<Finding>,
    /// File systems that were looked at.
    pub file_systems: Vec<FileSystemCheck>,
    /// Databases that were started.
    pub databases: Vec<DatabaseCheck>,
    /// What was not looked at, and why.
    pub not_checked: Vec<String>,
}

impl Verification {
    /// What this is as a tag of the snapshot: `Verified:clean`.
    #[must_use]
    pub fn tag(&self) -> String {
        format!("Verified:{}", self.verdict)
    }

    /// The worst that any finding makes of the snapshot.
    #[must_use]
    pub fn judge(findings: &[Finding]) -> Verdict {
        findings.iter().map(|finding| finding.makes_it).max().unwrap_or(Verdict::Clean)
    }
}
