//! What the vendor's documents say of each exit code, and when stillpoint ends with it. The tables in
//! `docs/alibaba.md` are these; a test compares them.

use std::fmt::Write as _;

use crate::exit_code::ExitCode;
use crate::provider::alibaba::{BY_CODE, DEFAULTS};

/// One exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The code.
    pub code: ExitCode,
    /// The vendor's words ("Error codes"), shortened.
    pub documented: &'static str,
    /// When stillpoint ends with it.
    pub ours: &'static str,
}

/// All of them, in order.
pub const TABLE: [Row; 18] = [
    row(
        ExitCode::Ok,
        "the snapshots are created as expected",
        "a group is there; its tags say which level was reached",
    ),
    row(
        ExitCode::Precondition,
        "a condition is not met: disk category, snapshot name, network, operating system",
        "the same; a file system that somebody else has frozen; a hook whose data is not in the snapshot; a level that was required and is not reached",
    ),
    row(
        ExitCode::Parameters,
        "type or number of the parameters is invalid",
        "the same; words that belong to no parameter; an excluded disk that is not there; a configuration file that is wrong",
    ),
    row(
        ExitCode::NoUsableDisk,
        "no ESSD is attached, or the RAM role has no permission",
        "the same; every disk is excluded",
    ),
    row(ExitCode::CreateFailed, "the group cannot be created", "the same"),
    row(
        ExitCode::GroupState,
        "the group is not in the expected state",
        "the same; it is removed if the role may",
    ),
    row(
        ExitCode::GroupTimedOut,
        "the request to create the group timed out",
        "the same: file systems were thawed on time; a group that was made nevertheless is found by the tag of its run, and removed or tagged as not consistent",
    ),
    row(
        ExitCode::MemberState,
        "a disk snapshot in the group is not in the expected state",
        "the same",
    ),
    row(
        ExitCode::Tags,
        "tags cannot be added to the snapshot",
        "the same; the group is there and is as good as the output says, but does not say so itself",
    ),
    row(
        ExitCode::PreFreeze,
        "the script cannot be executed (the documents name postscript.sh; prescript.sh is meant)",
        "prescript.sh or a hook failed before the freeze; it is undone (postscript.sh has run), and there is no snapshot",
    ),
    row(
        ExitCode::PostThaw,
        "postscript.sh cannot be executed",
        "postscript.sh or a hook failed after the thaw, or could not prove that it had held; the group is there, its tags say at which level",
    ),
    row(
        ExitCode::CannotFreeze,
        "I/O operations cannot be suspended",
        "a file system cannot be frozen in time, or a guard was lost while it was",
    ),
    row(
        ExitCode::CannotThaw,
        "I/O operations cannot be resumed",
        "a file system is not known to run, or turned read-only at the thaw",
    ),
    row(
        ExitCode::NoRole,
        "no RAM role is attached to the instance",
        "the same; or not the one that RamRoleName names",
    ),
    row(ExitCode::Quota, "the number of snapshots exceeded the upper limit", "the same"),
    row(ExitCode::SnapshotState, "the snapshot is not in the expected state", "the same"),
    row(
        ExitCode::InProgress,
        "the previous snapshot is being created",
        "the same; or another run of stillpoint is in progress on this machine",
    ),
    row(
        ExitCode::Unknown,
        "an unknown error occurred",
        "the same; a run that was stopped by a signal",
    ),
];

const fn row(code: ExitCode, documented: &'static str, ours: &'static str) -> Row {
    Row { code, documented, ours }
}

/// The vendor's words for a code.
#[must_use]
pub fn documented(code: ExitCode) -> &'static str {
    TABLE
        .iter()
        .find(|row| row.code == code)
        .map_or("an unknown error occurred", |row| row.documented)
}

/// The table as Markdown.
#[must_use]
pub fn markdown() -> String {
    let mut text = "| exit | documented | here |\n|---|---|---|\n".to_owned();
    for row in TABLE {
        let code = row.code as u8;
        let _ = writeln!(text, "| {code} | {} | {} |", row.documented, row.ours);
    }
    text
}

/// Which error of the API leads to which code, as Markdown.
#[must_use]
pub fn api_markdown() -> String {
    let mut text = "| error of ECS | exit |\n|---|---|\n".to_owned();
    for (pattern, code) in BY_CODE {
        let _ = writeln!(text, "| `{pattern}` | {} |", *code as u8);
    }
    for (action, code) in DEFAULTS {
        let _ = writeln!(text, "| any other of `{action}` | {} |", *code as u8);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_code_is_there_once_and_in_order() {
        let codes: Vec<u8> = TABLE.iter().map(|row| row.code as u8).collect();
        assert_eq!(codes, (0..=16).chain([255]).collect::<Vec<_>>());
    }

    #[test]
    fn the_tables_of_the_documentation_are_these() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/alibaba.md");
        let page = std::fs::read_to_string(path).unwrap_or_default();
        for table in [markdown(), api_markdown()] {
            assert!(page.contains(&table), "put this into docs/alibaba.md:\n{table}");
        }
    }
}
