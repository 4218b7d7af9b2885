//! Every exit code of every command, in one place.
//!
//! The numbers are those of Alibaba Cloud's `app-snapshot-plugin` (its documents, "Error codes"),
//! so that whoever reads them today reads them right tomorrow.

/// What the process's exit status says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ExitCode {
    /// Everything that was asked for was done.
    Ok = 0,
    /// A condition is not met: not root, a file system frozen by somebody else, a hook that needs what is not there.
    Precondition = 1,
    /// A parameter or a configuration file is wrong.
    Parameters = 2,
    /// No disk that the provider can snapshot, or no permission to.
    NoUsableDisk = 3,
    /// The provider did not create the snapshot group.
    CreateFailed = 4,
    /// The group is in a state that it should not be in.
    GroupState = 5,
    /// The provider did not answer in time.
    GroupTimedOut = 6,
    /// A member of the group is in a state that it should not be in.
    MemberState = 7,
    /// The snapshot is there, but its tags or its manifest could not be written.
    Tags = 8,
    /// A hook or the pre-freeze script failed before the freeze; no snapshot was taken.
    PreFreeze = 9,
    /// A hook or the post-thaw script failed after the thaw; the snapshot's level is not affected.
    PostThaw = 10,
    /// A file system could not be frozen; no snapshot was taken.
    CannotFreeze = 11,
    /// A file system could not be thawed, or is not known to be.
    CannotThaw = 12,
    /// No role is attached to the instance.
    NoRole = 13,
    /// The provider's quota of snapshots is used up.
    Quota = 14,
    /// A snapshot is in a state that it should not be in.
    SnapshotState = 15,
    /// Another snapshot is in progress: another run of ours, or the provider's.
    InProgress = 16,
    /// Of `verify` alone: the snapshot can be used, but as after a power cut.
    Recovered = 17,
    /// Of `verify` alone: something in the snapshot is broken, or is not what its manifest says.
    Damaged = 18,
    /// Anything else.
    Unknown = 255,
}

impl ExitCode {
    /// All of them, in order.
    pub const ALL: [ExitCode; 20] = [
        ExitCode::Ok,
        ExitCode::Precondition,
        ExitCode::Parameters,
        ExitCode::NoUsableDisk,
        ExitCode::CreateFailed,
        ExitCode::GroupState,
        ExitCode::GroupTimedOut,
        ExitCode::MemberState,
        ExitCode::Tags,
        ExitCode::PreFreeze,
        ExitCode::PostThaw,
        ExitCode::CannotFreeze,
        ExitCode::CannotThaw,
        ExitCode::NoRole,
        ExitCode::Quota,
        ExitCode::SnapshotState,
        ExitCode::InProgress,
        ExitCode::Recovered,
        ExitCode::Damaged,
        ExitCode::Unknown,
    ];

    /// What an exit status says; `Unknown` for one that is not ours.
    #[must_use]
    pub fn from_status(status: u8) -> Self {
        Self::ALL.into_iter().find(|code| *code as u8 == status).unwrap_or(ExitCode::Unknown)
    }

    /// A stable name, for metrics and traces.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ExitCode::Ok => "ok",
            ExitCode::Precondition => "precondition",
            ExitCode::Parameters => "parameters",
            ExitCode::NoUsableDisk => "no-usable-disk",
            ExitCode::CreateFailed => "create-failed",
            ExitCode::GroupState => "group-state",
            ExitCode::GroupTimedOut => "group-timed-out",
            ExitCode::MemberState => "member-state",
            ExitCode::Tags => "tags",
            ExitCode::PreFreeze => "pre-freeze",
            ExitCode::PostThaw => "post-thaw",
            ExitCode::CannotFreeze => "cannot-freeze",
            ExitCode::CannotThaw => "cannot-thaw",
            ExitCode::NoRole => "no-role",
            ExitCode::Quota => "quota",
            ExitCode::SnapshotState => "snapshot-state",
            ExitCode::InProgress => "in-progress",
            ExitCode::Recovered => "recovered",
            ExitCode::Damaged => "damaged",
            ExitCode::Unknown => "unknown",
        }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        std::process::ExitCode::from(code as u8)
    }
}
