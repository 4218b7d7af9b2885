//! Which error leads to which exit code. The numbers are those that Alibaba Cloud documents for its
//! plug-in; which error gives which is decided here, in one table.

use stillpoint_alibaba::credentials::CredentialsError;
use stillpoint_alibaba::{EcsError, MetadataError};

use super::NAME;
use crate::exit_code::ExitCode;
use crate::provider::ProviderError;

/// Error codes of ECS, of the actions that come before the group, and where they lead. A `*` at the end
/// stands for any rest. The first that fits counts; see [`DEFAULTS`] for all others.
pub const BY_CODE: &[(&str, ExitCode)] = &[
    ("DiskCategory.OperationNotSupported", ExitCode::Precondition),
    ("IncorrectDiskType.NotSupport", ExitCode::Precondition),
    ("DiskId.ValueNotSupported", ExitCode::Precondition),
    ("InvalidSnapshotName*", ExitCode::Precondition),
    ("InvalidName*", ExitCode::Precondition),
    ("InvalidParameter.Name", ExitCode::Precondition),
    ("InvalidDescription*", ExitCode::Precondition),
    ("InvalidRegionId*", ExitCode::Precondition),
    ("InvalidTimeStamp*", ExitCode::Precondition),
    ("Forbidden*", ExitCode::NoUsableDisk),
    ("NoPermission*", ExitCode::NoUsableDisk),
    ("InvalidSecurityToken*", ExitCode::NoUsableDisk),
    ("InvalidAccessKeyId*", ExitCode::NoUsableDisk),
    ("SignatureDoesNotMatch", ExitCode::NoUsableDisk),
    ("IncompleteSignature", ExitCode::NoUsableDisk),
    ("QuotaExceed.Snapshot*", ExitCode::Quota),
    ("IncorrectDiskStatus.CreatingSnapshot", ExitCode::InProgress),
];

/// Where an action's other errors lead.
pub const DEFAULTS: &[(&str, ExitCode)] = &[
    ("DescribeDisks", ExitCode::CreateFailed),
    ("CreateSnapshotGroup", ExitCode::CreateFailed),
    ("DescribeSnapshotGroups", ExitCode::GroupState),
    ("DescribeSnapshots", ExitCode::SnapshotState),
    ("DeleteSnapshotGroup", ExitCode::GroupState),
    ("TagResources", ExitCode::Tags),
    ("CreateDisk", ExitCode::CreateFailed),
    ("AttachDisk", ExitCode::CreateFailed),
    ("DetachDisk", ExitCode::GroupState),
    ("DeleteDisk", ExitCode::GroupState),
];

/// Actions whose errors lead to one exit code, whatever the error.
const AFTER_THE_GROUP: &[&str] = &["TagResources", "DescribeSnapshots"];

/// The exit code of an error.
pub(super) fn exit_code(error: &EcsError) -> ExitCode {
    let by_action = || {
        let default = DEFAULTS.iter().find(|(action, _)| Some(*action) == error.action());
        default.map_or(ExitCode::Unknown, |(_, code)| *code)
    };
    match error {
        // The group is there: what went wrong then must not read as if nothing was made.
        _ if AFTER_THE_GROUP.iter().any(|action| Some(*action) == error.action()) => by_action(),
        EcsError::Api { error, .. } => {
            let row = BY_CODE.iter().find(|(pattern, _)| fits(pattern, &error.code));
            row.map_or_else(by_action, |(_, code)| *code)
        }
        EcsError::Credentials { source, .. } => credentials(source),
        EcsError::Connect { .. } | EcsError::Unreachable { .. } | EcsError::Tls(_) => {
            ExitCode::Precondition
        }
        // Before the group is asked for, no answer is a condition that is not met.
        EcsError::NoAnswer { action: "DescribeDisks", .. }
        | EcsError::NotAnAnswer { action: "DescribeDisks", .. }
        | EcsError::TimedOut { action: "DescribeDisks", .. } => ExitCode::Precondition,
        EcsError::TimedOut { .. } => ExitCode::GroupTimedOut,
        EcsError::Endpoint { .. } => ExitCode::Parameters,
        _ => by_action(),
    }
}

fn fits(pattern: &str, code: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => code.starts_with(start),
        None => code == pattern,
    }
}

fn credentials(error: &CredentialsError) -> ExitCode {
    match error {
        CredentialsError::Metadata(error) => metadata(error),
        _ => ExitCode::Precondition,
    }
}

fn metadata(error: &MetadataError) -> ExitCode {
    match error {
        MetadataError::NoRole { .. } | MetadataError::NoCredentials { .. } => ExitCode::NoRole,
        _ => ExitCode::Precondition,
    }
}

/// An error of ECS as the sequence wants it.
pub(super) fn ecs_error(error: EcsError) -> ProviderError {
    let (code, hint, message) = (exit_code(&error), error.hint(), error.to_string());
    let source = error.into_source();
    ProviderError { hint, source, ..ProviderError::new(NAME, code, message) }
}

/// An error of the metadata service.
pub(super) fn metadata_error(error: MetadataError) -> ProviderError {
    credentials_error(error.into())
}

/// An error on the way to credentials.
pub(super) fn credentials_error(error: CredentialsError) -> ProviderError {
    let (code, hint) = (credentials(&error), error.hint());
    let error = match error {
        CredentialsError::Metadata(error) => {
            let message = error.to_string();
            let source = error.into_source();
            ProviderError { source, ..fail(code, message) }
        }
        other => fail(code, format!("there are no credentials: {other}")),
    };
    ProviderError { hint, ..error }
}

/// An error of ours, in words.
pub(super) fn fail(code: ExitCode, message: impl Into<String>) -> ProviderError {
    ProviderError::new(NAME, code, message)
}
