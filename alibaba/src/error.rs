//! What went wrong with a call. An error keeps the code, the message, the request's id and the HTTP
//! status; never a query, a secret, a token or a signature.

use std::time::Duration;

use jiff::SignedDuration;

use crate::credentials::CredentialsError;

/// From this difference on, a clock is worth a word.
const SKEW: SignedDuration = SignedDuration::from_secs(60);

/// A call did not give what was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EcsError {
    /// ECS answered with an error.
    #[error("{action}: {error}")]
    Api {
        /// The action.
        action: &'static str,
        /// What it said.
        error: Box<ApiError>,
    },
    /// There is no connection: name, route, TLS.
    #[error("{action}: cannot connect to {host}")]
    Connect {
        /// The action.
        action: &'static str,
        /// The host, with its port if that is unusual.
        host: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The request was sent, or part of it, and no whole answer came.
    #[error("{action}: {host} did not answer: the connection was lost")]
    NoAnswer {
        /// The action.
        action: &'static str,
        /// The host.
        host: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer came in time.
    #[error("{action}: no answer within {waited:?}")]
    TimedOut {
        /// The action.
        action: &'static str,
        /// How long it was waited for.
        waited: Duration,
    },
    /// An answer that is none of ECS's: somebody stands in between.
    #[error("{action}: {host} gave an answer that is not one of ECS (HTTP {status}): {problem}")]
    NotAnAnswer {
        /// The action.
        action: &'static str,
        /// The host.
        host: String,
        /// HTTP status.
        status: u16,
        /// What is wrong with it.
        problem: String,
    },
    /// The pages of a list have no end.
    #[error("{action}: the list has no end: {problem}")]
    Endless {
        /// The action.
        action: &'static str,
        /// What it looks like.
        problem: &'static str,
    },
    /// There are no credentials to sign with.
    #[error("{action}: there are no credentials to sign with")]
    Credentials {
        /// The action.
        action: &'static str,
        /// Why.
        #[source]
        source: CredentialsError,
    },
    /// The setting of the endpoint is not usable.
    #[error("the endpoint \"{endpoint}\" is not usable: {problem}")]
    Endpoint {
        /// As it was given.
        endpoint: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// No endpoint of the region can be reached.
    #[error("no endpoint of region {region} can be reached: {}", tried.join("; "))]
    Unreachable {
        /// The region.
        region: String,
        /// Each endpoint and what became of it.
        tried: Vec<String>,
    },
    /// TLS cannot be set up: no trusted certificates, say.
    #[error("cannot set up TLS")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What ECS said.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message} (HTTP {status}, request {})", request_id.as_deref().unwrap_or("unknown"))]
pub struct ApiError {
    /// HTTP status.
    pub status: u16,
    /// Stable code, `Forbidden.RAM`.
    pub code: String,
    /// For people, cut where it would tell a secret.
    pub message: String,
    /// What the vendor's support asks for.
    pub request_id: Option<String>,
    /// How long ECS wants to be left alone.
    pub retry_after: Option<Duration>,
    /// How far this machine's clock is ahead of the server's.
    pub clock_ahead: Option<SignedDuration>,
}

impl ApiError {
    /// Too many calls: `Throttling`, `Throttling.User`, `Throttling.Api`…
    #[must_use]
    pub fn is_throttling(&self) -> bool {
        self.code.starts_with("Throttling") || self.status == 429
    }

    /// The same request, by its token, is still being worked on.
    #[must_use]
    pub fn is_still_processing(&self) -> bool {
        matches!(self.code.as_str(), "IdempotentProcessing" | "LastTokenProcessing")
    }

    /// Nobody knows what became of the request.
    #[must_use]
    pub fn is_server_fault(&self) -> bool {
        self.status >= 500
    }

    /// The credentials are not accepted any more.
    #[must_use]
    pub fn is_expired_token(&self) -> bool {
        self.code.starts_with("InvalidSecurityToken") || self.code == "InvalidAccessKeyId.NotFound"
    }

    /// What is asked for is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.status == 404 || self.code.ends_with("NotFound")
    }
}

impl EcsError {
    /// The action that failed, if it was one.
    #[must_use]
    pub fn action(&self) -> Option<&'static str> {
        match self {
            EcsError::Api { action, .. }
            | EcsError::Connect { action, .. }
            | EcsError::NoAnswer { action, .. }
            | EcsError::TimedOut { action, .. }
            | EcsError::NotAnAnswer { action, .. }
            | EcsError::Endless { action, .. }
            | EcsError::Credentials { action, .. } => Some(action),
            EcsError::Endpoint { .. } | EcsError::Unreachable { .. } | EcsError::Tls(_) => None,
        }
    }

    /// The cause, for whoever says the rest in words of his own.
    #[must_use]
    pub fn into_source(self) -> Option<Box<dyn std::error::Error + Send + Sync>> {
        match self {
            EcsError::Connect { source, .. }
            | EcsError::NoAnswer { source, .. }
            | EcsError::Tls(source) => Some(source),
            EcsError::Credentials { source, .. } => Some(source.into()),
            _ => None,
        }
    }

    /// What ECS said, if it said something.
    #[must_use]
    pub fn api(&self) -> Option<&ApiError> {
        match self {
            EcsError::Api { error, .. } => Some(error),
            _ => None,
        }
    }

    /// The stable code, if ECS gave one.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.api().map(|error| error.code.as_str())
    }

    /// True if the request may have been carried out although no good answer came.
    #[must_use]
    pub fn may_have_happened(&self) -> bool {
        match self {
            EcsError::Api { error, .. } => error.is_server_fault() || error.is_still_processing(),
            EcsError::NoAnswer { .. }
            | EcsError::TimedOut { .. }
            | EcsError::NotAnAnswer { .. } => true,
            EcsError::Connect { .. }
            | EcsError::Endless { .. }
            | EcsError::Credentials { .. }
            | EcsError::Endpoint { .. }
            | EcsError::Unreachable { .. }
            | EcsError::Tls(_) => false,
        }
    }

    /// What the operator can do next, where that is known here.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            EcsError::Api { action, error } => api_hint(action, error),
            EcsError::Connect { .. } | EcsError::Unreachable { .. } => Some(
                "can the instance reach ECS? inside a VPC without public network that is \
                 ecs-vpc.<region>.aliyuncs.com; a security group, a proxy or DNS can be in the way"
                    .to_owned(),
            ),
            EcsError::NotAnAnswer { .. } => Some(
                "is there a proxy or a captive portal between this instance and ECS?".to_owned(),
            ),
            EcsError::Credentials { source, .. } => source.hint(),
            EcsError::Endpoint { .. } => {
                Some("give https://host, or http:// with a loopback address for tests".to_owned())
            }
            EcsError::Tls(_) => {
                Some("install the package ca-certificates, or set SSL_CERT_FILE".to_owned())
            }
            EcsError::NoAnswer { .. } | EcsError::TimedOut { .. } | EcsError::Endless { .. } => {
                None
            }
        }
    }
}

fn api_hint(action: &str, error: &ApiError) -> Option<String> {
    let code = error.code.as_str();
    if code.starts_with("InvalidTimeStamp")
        || code == "SignatureNonceUsed"
        || (code.starts_with("Signature") && clock(error).is_some())
    {
        let clock = clock(error).unwrap_or_else(|| "is this machine's clock right?".to_owned());
        return Some(format!("{clock}; ECS accepts 15 minutes of difference"));
    }
    if error.is_throttling() {
        return Some("other callers of this account use up the quota; try again later".to_owned());
    }
    let hint = match code {
        "QuotaExceed.Snapshot" => "delete snapshots of the disk that are not needed any more",
        "InstanceDiskLimitExceeded" => {
            "no further disk can be attached to this instance: detach one that is not needed, or \
             restore on another machine"
        }
        _ if is_forbidden(code) && OF_COPIES.contains(&action) => {
            "copies of snapshots need more than snapshots do: the role's policy must also allow \
             ecs:CreateDisk, ecs:AttachDisk, ecs:DetachDisk and ecs:DeleteDisk"
        }
        _ if is_forbidden(code) => {
            "the role's policy must allow ecs:DescribeDisks, ecs:DescribeSnapshot*, \
             ecs:CreateSnapshot*, ecs:TagResources and, to remove what is unusable, \
             ecs:DeleteSnapshotGroup"
        }
        _ => return None,
    };
    Some(hint.to_owned())
}

/// Actions that only copies need.
const OF_COPIES: [&str; 4] = ["CreateDisk", "AttachDisk", "DetachDisk", "DeleteDisk"];

fn is_forbidden(code: &str) -> bool {
    code.starts_with("Forbidden") || code.starts_with("NoPermission")
}

fn clock(error: &ApiError) -> Option<String> {
    let ahead = error.clock_ahead.filter(|ahead| ahead.abs() > SKEW)?;
    let direction = if ahead.is_negative() { "behind" } else { "ahead of" };
    Some(format!("this machine's clock is {} s {direction} that of ECS", ahead.abs().as_secs()))
}
