//! Errors in the shape of the service: a status, a code that programs read, a message for people.

use serde_json::{Value, json};

/// An error that a client is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status.
    pub status: u16,
    /// `Forbidden.RAM`, …
    pub code: String,
    /// For people.
    pub message: String,
    /// `x-acs-retry-after`, in milliseconds.
    pub retry_after_ms: Option<u64>,
}

impl ApiError {
    /// An error with its own message.
    #[must_use]
    pub fn new(status: u16, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { status, code: code.into(), message: message.into(), retry_after_ms: None }
    }

    /// The documented status and message of a code; 400 for those that are not in the list.
    #[must_use]
    pub fn documented(code: &str) -> Self {
        let (status, message) = KNOWN
            .iter()
            .find(|(known, _, _)| *known == code)
            .map_or((400, "The request cannot be processed."), |(_, status, text)| {
                (*status, *text)
            });
        Self::new(status, code, message)
    }

    pub(crate) fn missing(parameter: &str) -> Self {
        let text = format!(
            "The input parameter \"{parameter}\" that is mandatory for processing this request is not supplied."
        );
        Self::new(400, "MissingParameter", text)
    }

    pub(crate) fn invalid(parameter: &str, why: &str) -> Self {
        let text = format!("The specified parameter {parameter} is not valid: {why}.");
        Self::new(400, "InvalidParameter", text)
    }

    /// The body that a client gets.
    pub(crate) fn body(&self, request_id: &str, host: &str) -> Value {
        let mut body = json!({
            "RequestId": request_id,
            "HostId": host,
            "Code": self.code,
            "Message": self.message,
            "Recommend": format!(
                "https://api.aliyun.com/troubleshoot?q={}&product=Ecs&requestId={request_id}",
                self.code
            ),
        });
        if self.code == "Forbidden.RAM" {
            body["AccessDeniedDetail"] = json!({
                "AuthPrincipalType": "AssumedRoleUser",
                "NoPermissionType": "ImplicitDeny",
                "PolicyType": "AccountLevelIdentityBasedPolicy",
            });
        }
        body
    }
}

/// Codes, their status and their message, from the reference pages of the API.
const KNOWN: &[(&str, u16, &str)] = &[
    ("Throttling", 400, "Request was denied due to request throttling."),
    ("Throttling.User", 400, "Request was denied due to user flow control."),
    ("Throttling.Api", 400, "Request was denied due to api flow control."),
    ("ServiceUnavailable", 503, "The request has failed due to a temporary failure of the server."),
    ("InternalError", 500, "The request processing has failed due to some unknown error."),
    (
        "Forbidden.RAM",
        403,
        "User not authorized to operate on the specified resource, or this API doesn't support RAM.",
    ),
    ("Forbidden.Unauthorized", 403, "The specified action is not authorized to the user."),
    ("Forbidden.NotSupportRAM", 403, "This action does not support accessed by RAM mode."),
    ("Forbidden.Action", 403, "User not authorized to operate this action."),
    ("NoPermission.Tag", 403, "The caller has no permission to operate on the tags."),
    ("InvalidAccessKeyId.NotFound", 404, "Specified access key is not found."),
    ("SignatureDoesNotMatch", 400, "Specified signature does not match our calculation."),
    ("IncompleteSignature", 400, "The request signature does not conform to Aliyun standards."),
    ("SignatureNonceUsed", 400, "Specified signature nonce was used already."),
    ("InvalidTimeStamp.Expired", 400, "Specified time stamp or date value is expired."),
    ("InvalidTimeStamp.Format", 400, "Specified time stamp or date value is not well formatted."),
    ("InvalidSecurityToken.Expired", 400, "Specified SecurityToken is expired."),
    ("InvalidSecurityToken.Malformed", 400, "Specified SecurityToken is malformed."),
    (
        "InvalidSecurityToken.MismatchWithAccessKey",
        400,
        "Specified SecurityToken mismatch with the AccessKey.",
    ),
    ("MissingSecurityToken", 400, "SecurityToken is mandatory for this action."),
    (
        "InvalidAction.NotFound",
        404,
        "Specified api is not found, please check your url and method.",
    ),
    ("InvalidVersion", 400, "Specified parameter Version is not valid."),
    ("InvalidRegionId.NotFound", 404, "The specified RegionId does not exist."),
    ("InvalidInstanceId.NotFound", 404, "The specified InstanceId does not exist."),
    ("InvalidDiskId.NotFound", 404, "The specified DiskId does not exist."),
    ("InvalidSnapshotGroupId.NotFound", 404, "The specified SnapshotGroupId does not exist."),
    ("InvalidResourceId.NotFound", 404, "The specified ResourceId is not found in our records."),
    (
        "InvalidResourceType.NotFound",
        404,
        "The specified ResourceType is not found in our records.",
    ),
    (
        "InvalidParameter.Conflict",
        400,
        "The specified parameters DiskId and ExcludeDiskId conflict.",
    ),
    ("InvalidSnapshotName.Malformed", 400, "The specified snapshot name is wrongly formed."),
    ("InvalidDescription.Malformed", 400, "The specified description is wrongly formed."),
    ("InvalidTagKey.Malformed", 400, "The specified Tag.n.Key is not valid."),
    ("InvalidTagValue.Malformed", 400, "The specified Tag.n.Value is not valid."),
    ("Duplicate.TagKey", 400, "The Tag.N.Key contain duplicate key."),
    ("NumberExceed.Tags", 400, "The Tags parameter number exceed."),
    ("QuotaExceed.Tags", 400, "The quota of tags on resource is beyond permitted range."),
    ("OperationDenied.QuotaExceed", 403, "The quota of tag keys has been exceeded."),
    (
        "DiskCategory.OperationNotSupported",
        403,
        "The operation is not supported to the specified disk due to its disk category.",
    ),
    (
        "IncorrectDiskType.NotSupport",
        403,
        "The disk type does not support the operation: a disk with multi-attach enabled.",
    ),
    ("InvalidSnapshotId.NotFound", 404, "The specified SnapshotId does not exist."),
    ("InvalidZoneId.NotFound", 404, "The specified zone does not exists."),
    ("InvalidSnapshot.NotReady", 403, "The specified snapshot creation is not completed yet."),
    ("InvalidDiskName.Malformed", 400, "The specified disk name is wrongly formed."),
    ("InvalidDiskCategory.NotSupported", 403, "The specified disk category is not supported."),
    (
        "InstanceDiskLimitExceeded",
        403,
        "The amount of the disk on instance in question reach its limits.",
    ),
    ("DependencyViolation", 403, "The specified disk has not been attached on the instance."),
    ("DiskId.ValueNotSupported", 400, "The specified parameter DiskId is not supported."),
    (
        "IncorrectInstanceStatus",
        403,
        "The current status of the resource does not support this operation.",
    ),
    ("IncorrectDiskStatus", 403, "The current disk status does not support this operation."),
    ("IncorrectDiskStatus.CreatingSnapshot", 403, "A previous snapshot creation is in process."),
    (
        "IncorrectDiskStatus.NeverAttached",
        403,
        "The specified disk has never been attached to any instance.",
    ),
    ("InstanceLockedForSecurity", 403, "The disk attached instance is locked due to security."),
    ("DiskInArrears", 403, "The specified operation is denied as your disk has expired."),
    ("QuotaExceed.Snapshot", 403, "The snapshot quota exceeds."),
    (
        "QuotaExceed.DiskNumber",
        403,
        "The number of disks or their size exceeds what a snapshot group may contain.",
    ),
    ("CreateSnapshot.Failed", 403, "The process of creating snapshot is failed."),
    ("InvalidAccountStatus.NotEnoughBalance", 403, "Your account does not have enough balance."),
    (
        "InvalidAccountStatus.SnapshotServiceUnavailable",
        403,
        "Snapshot service has not been opened yet.",
    ),
    (
        "IdempotentParameterMismatch",
        400,
        "The request uses the same client token as a previous, but non-identical request.",
    ),
    ("LastTokenProcessing", 403, "The last token request is processing."),
];
