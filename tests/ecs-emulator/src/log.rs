//! What came, when, and how it was answered. Without secrets: no signature, no security token, no
//! token of the metadata service.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::signature::SignatureVersion;

/// One request.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Logged {
    /// From 1, in the order of arrival.
    pub number: u64,
    /// Of the connection that it came over, from 1 for each service.
    pub connection: u64,
    /// `CreateSnapshotGroup`, `metadata:role`, …; empty if it cannot be told.
    pub action: String,
    /// `POST`, …
    pub method: String,
    /// Without the query.
    pub path: String,
    /// The header `host`.
    pub host: String,
    /// Names of all headers, in the order in which they came.
    pub header_names: Vec<String>,
    /// How it was signed, if its signature was good.
    pub signature: Option<SignatureVersion>,
    /// Query and form.
    pub parameters: BTreeMap<String, String>,
    /// Names that the action does not know. Only of requests that were carried out.
    pub unknown_parameters: Vec<String>,
    /// When its head had arrived: `CLOCK_MONOTONIC`, in nanoseconds.
    pub received_ns: u64,
    /// When it took effect; absent if it did not.
    pub effect_ns: Option<u64>,
    /// When its answer was on its way; absent if there was none.
    pub answered_ns: Option<u64>,
    /// HTTP status of the answer.
    pub status: Option<u16>,
    /// Code of the error that it was answered with.
    pub code: Option<String>,
    /// Of the answer.
    pub request_id: Option<String>,
    /// What was made to go wrong.
    pub fault: Option<String>,
}

/// Nanoseconds on `CLOCK_MONOTONIC`, the clock of stillpoint's manifests.
pub(crate) fn now_ns() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    let now = now.map(std::time::Duration::from).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
