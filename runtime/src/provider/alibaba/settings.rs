//! What can be configured: `[provider.alibaba]`, and what the plug-in's parameters say.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use stillpoint_alibaba::endpoint::{self, Endpoint};
use stillpoint_alibaba::metadata;

use super::NAME;
use crate::exit_code::ExitCode;
use crate::paths::Paths;
use crate::provider::ProviderError;

/// The settings of the provider. All have defaults that are right on an ECS instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlibabaSettings {
    /// The RAM role of the instance. `None`: the one that is attached.
    pub role: Option<String>,
    /// `cn-hangzhou`. `None`: the metadata service knows.
    pub region: Option<String>,
    /// `i-…`. `None`: the metadata service knows.
    pub instance: Option<String>,
    /// Where ECS answers: `https://host`, or `http://` with a loopback address. `None`: the
    /// environment's `ALIBABA_CLOUD_ECS_ENDPOINT`, else by region and `network`.
    pub endpoint: Option<String>,
    /// Where the metadata service answers. `None`: the environment's
    /// `ALIBABA_CLOUD_ECS_METADATA_SERVICE_ENDPOINT`, else `http://100.100.100.200`.
    pub metadata_endpoint: Option<String>,
    /// Which way to ECS.
    pub network: Network,
    /// How requests are signed.
    pub signature: SignatureVersion,
    /// What is believed to fix the point in time.
    pub point_in_time: PointInTime,
    /// When a member counts as there.
    pub wait_for: WaitFor,
    /// Disk categories that can be in a group.
    pub categories: Vec<String>,
    /// How long, when nothing is held any more, a group is looked for whose answer was lost.
    pub late_group: Duration,
    /// How long copies of a group may take to be made and attached; and how long, to be removed.
    pub copies: Duration,
    /// Where the manifests of groups are kept on this instance.
    pub manifests: PathBuf,
    /// Where block devices are looked up: `/sys`.
    pub sys: PathBuf,
}

/// Which way to ECS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// The endpoint inside the VPC if it accepts a connection, else the public one.
    #[default]
    Auto,
    /// The endpoint inside the VPC, which needs no public network.
    Vpc,
    /// The public endpoint.
    Public,
}

/// How requests are signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SignatureVersion {
    /// `ACS3-HMAC-SHA256`.
    #[default]
    Acs3,
    /// RPC version 1, for private deployments that know nothing newer.
    RpcV1,
}

/// What is believed to fix the point in time of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PointInTime {
    /// Every member is listed by ECS and can be used, or is being copied: what the vendor's own
    /// plug-in was seen to wait for.
    #[default]
    Members,
    /// ECS has accepted the request. Shorter windows; nobody documents that it is enough.
    Accepted,
}

/// When a member of a group counts as there, once nothing is held any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WaitFor {
    /// A disk can be made from it, even if its data is still being copied: seconds, for ESSDs.
    #[default]
    Available,
    /// All its data is copied: minutes to hours.
    Accomplished,
}

impl Default for AlibabaSettings {
    fn default() -> Self {
        let categories = ["cloud_essd", "cloud_auto", "cloud_essd_entry"];
        Self {
            role: None,
            region: None,
            instance: None,
            endpoint: None,
            metadata_endpoint: None,
            network: Network::default(),
            signature: SignatureVersion::default(),
            point_in_time: PointInTime::default(),
            wait_for: WaitFor::default(),
            categories: categories.map(str::to_owned).to_vec(),
            late_group: Duration::from_secs(60),
            copies: Duration::from_secs(600),
            manifests: Paths::default().manifests(),
            sys: "/sys".into(),
        }
    }
}

impl AlibabaSettings {
    /// Whatever is wrong with the settings is said before anybody is asked.
    pub(super) fn check(&self) -> Result<(), ProviderError> {
        self.named_endpoint().map(drop)
    }

    /// The endpoint that the settings or the environment name.
    pub(super) fn named_endpoint(&self) -> Result<Option<Endpoint>, ProviderError> {
        let named = self.endpoint.clone().or_else(|| variable(endpoint::ENDPOINT_VARIABLE));
        let endpoint = named.map(|named| Endpoint::named(&named)).transpose();
        endpoint.map_err(|error| {
            let hint = error.hint();
            let error = ProviderError::new(NAME, ExitCode::Parameters, error.to_string());
            ProviderError { hint, ..error }
        })
    }

    /// The metadata service that the settings or the environment name.
    pub(super) fn metadata(&self) -> metadata::MetadataOptions {
        let named = self.metadata_endpoint.clone();
        let named = named.or_else(|| variable(metadata::ENDPOINT_VARIABLE));
        let disabled = variable(metadata::PLAIN_DISABLED_VARIABLE);
        metadata::MetadataOptions {
            endpoint: named.unwrap_or_else(|| metadata::ENDPOINT.to_owned()),
            plain_disabled: disabled.is_some_and(|value| value.eq_ignore_ascii_case("true")),
        }
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl From<Network> for stillpoint_alibaba::Network {
    fn from(network: Network) -> Self {
        match network {
            Network::Auto => Self::Auto,
            Network::Vpc => Self::Vpc,
            Network::Public => Self::Public,
        }
    }
}

impl From<SignatureVersion> for stillpoint_alibaba::SignatureVersion {
    fn from(version: SignatureVersion) -> Self {
        match version {
            SignatureVersion::Acs3 => Self::Acs3,
            SignatureVersion::RpcV1 => Self::RpcV1,
        }
    }
}
