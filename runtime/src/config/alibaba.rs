//! `[provider.alibaba]`.

use std::time::Duration;

use serde::Deserialize;

use super::duration;
use crate::paths::Paths;
use crate::provider::alibaba::{AlibabaSettings, Network, PointInTime, SignatureVersion, WaitFor};

/// `[provider.alibaba]`. Nothing of it is needed on an ECS instance with a role.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct AlibabaConfig {
    /// The RAM role of the instance. Default: the one that is attached.
    pub role: Option<String>,
    /// Default: the metadata service knows.
    pub region: Option<String>,
    /// Default: the metadata service knows.
    pub instance: Option<String>,
    /// Where ECS answers, for private deployments. Default: by region and `network`.
    pub endpoint: Option<String>,
    /// Where the metadata service answers. Default: `http://100.100.100.200`.
    pub metadata_endpoint: Option<String>,
    /// `auto` (the VPC's endpoint if it can be reached, else the public one), `vpc`, `public`.
    pub network: Network,
    /// `acs3`, or `rpc-v1`.
    pub signature: SignatureVersion,
    /// What fixes the point in time: `members` (all are listed), or `accepted` (the request was).
    pub point_in_time: PointInTime,
    /// When a member counts as there: `available` (usable), or `accomplished` (copied).
    pub wait_for: WaitFor,
    /// Disk categories that can be in a group.
    pub categories: Vec<String>,
    /// How long a group is looked for whose answer was lost.
    #[serde(deserialize_with = "duration::parse")]
    pub late_group: Duration,
    /// How long copies for `verify` and `restore` may take to be attached; and how long, to be removed.
    #[serde(deserialize_with = "duration::parse")]
    pub copies: Duration,
}

impl Default for AlibabaConfig {
    fn default() -> Self {
        let AlibabaSettings { categories, late_group, copies, .. } = AlibabaSettings::default();
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
            categories,
            late_group,
            copies,
        }
    }
}

impl AlibabaConfig {
    /// What the provider wants, in the installation at `paths`.
    #[must_use]
    pub fn settings(&self, paths: &Paths) -> AlibabaSettings {
        AlibabaSettings {
            role: self.role.clone(),
            region: self.region.clone(),
            instance: self.instance.clone(),
            endpoint: self.endpoint.clone(),
            metadata_endpoint: self.metadata_endpoint.clone(),
            network: self.network,
            signature: self.signature,
            point_in_time: self.point_in_time,
            wait_for: self.wait_for,
            categories: self.categories.clone(),
            late_group: self.late_group,
            copies: self.copies,
            manifests: paths.manifests(),
            ..AlibabaSettings::default()
        }
    }
}
