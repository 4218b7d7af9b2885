//! `DescribeDisks`.

use std::time::Instant;

use serde::Deserialize;

use super::lenient::{number, or_default};
use super::pages::{self, Page};
use super::{Tag, pair};
use crate::client::EcsClient;
use crate::error::EcsError;

/// A cloud disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Disk {
    /// `d-…`.
    #[serde(deserialize_with = "or_default")]
    pub disk_id: String,
    /// The serial number that the instance sees; empty for old disks.
    #[serde(deserialize_with = "or_default")]
    pub serial_number: String,
    /// `/dev/xvdb`; a name that the instance need not have. Empty for disks attached several times.
    #[serde(deserialize_with = "or_default")]
    pub device: String,
    /// Where it is; a disk and its instance are in the same.
    #[serde(deserialize_with = "or_default")]
    pub zone_id: String,
    /// `cloud_essd`, `cloud_auto`, `cloud_efficiency`…
    #[serde(deserialize_with = "or_default")]
    pub category: String,
    /// `PL0` to `PL3`, of an ESSD.
    #[serde(deserialize_with = "or_default")]
    pub performance_level: String,
    /// The snapshot that it was made from; empty for an original.
    #[serde(deserialize_with = "or_default")]
    pub source_snapshot_id: String,
    /// `system` or `data`.
    #[serde(rename = "Type", deserialize_with = "or_default")]
    pub kind: String,
    /// `In_use`, `Available`, `Attaching`…
    #[serde(deserialize_with = "or_default")]
    pub status: String,
    /// In GiB.
    #[serde(deserialize_with = "number")]
    pub size: Option<u64>,
    /// The instance it is attached to; empty for disks attached several times.
    #[serde(deserialize_with = "or_default")]
    pub instance_id: String,
    /// `Enabled` or `Disabled`.
    #[serde(deserialize_with = "or_default")]
    pub multi_attach: String,
    #[serde(deserialize_with = "or_default")]
    attachments: Attachments,
    #[serde(deserialize_with = "or_default")]
    operation_locks: OperationLocks,
    #[serde(deserialize_with = "or_default")]
    tags: Tags,
}

/// Where a disk is attached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Attachment {
    /// The instance.
    #[serde(deserialize_with = "or_default")]
    pub instance_id: String,
    /// The name of the device there.
    #[serde(deserialize_with = "or_default")]
    pub device: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Attachments {
    #[serde(rename = "Attachment", deserialize_with = "or_default")]
    list: Vec<Attachment>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct OperationLocks {
    #[serde(rename = "OperationLock", deserialize_with = "or_default")]
    list: Vec<OperationLock>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct OperationLock {
    #[serde(deserialize_with = "or_default")]
    lock_reason: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Tags {
    #[serde(rename = "Tag", deserialize_with = "or_default")]
    list: Vec<Tag>,
}

impl Disk {
    /// True if several instances may use it at once.
    #[must_use]
    pub fn is_multi_attach(&self) -> bool {
        self.multi_attach.eq_ignore_ascii_case("enabled")
    }

    /// Why it may not be touched now: `security`, `financial`. Empty: it may.
    pub fn locks(&self) -> impl Iterator<Item = &str> {
        self.operation_locks.list.iter().map(|lock| lock.lock_reason.as_str())
    }

    /// Where it is attached.
    #[must_use]
    pub fn attachments(&self) -> &[Attachment] {
        &self.attachments.list
    }

    /// The device name that ECS has for it in `instance`; empty if it has none.
    #[must_use]
    pub fn device_in(&self, instance: &str) -> &str {
        let mut attachments = self.attachments.list.iter();
        let here = attachments.find(|it| it.instance_id == instance && !it.device.is_empty());
        here.map_or(self.device.as_str(), |attachment| attachment.device.as_str())
    }

    /// Its tags.
    #[must_use]
    pub fn tags(&self) -> &[Tag] {
        &self.tags.list
    }

    /// The value of a tag.
    #[must_use]
    pub fn tag(&self, key: &str) -> Option<&str> {
        self.tags().iter().find(|tag| tag.key == key).map(|tag| tag.value.as_str())
    }

    /// True if it is attached to `instance`, or on its way there or away from there.
    #[must_use]
    pub fn is_at(&self, instance: &str) -> bool {
        self.instance_id == instance
            || self.attachments().iter().any(|attachment| attachment.instance_id == instance)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default, deserialize_with = "or_default")]
    disks: List,
    next_token: Option<String>,
}

#[derive(Default, Deserialize)]
struct List {
    #[serde(rename = "Disk", default, deserialize_with = "or_default")]
    list: Vec<Disk>,
}

impl Page for Answer {
    type Item = Disk;

    fn open(self) -> (Vec<Disk>, Option<String>) {
        (self.disks.list, self.next_token)
    }
}

const ACTION: &str = "DescribeDisks";
/// The most disks that one call can be asked about.
const MOST_IDS: usize = 100;

impl EcsClient {
    /// The disks that are attached to an instance.
    ///
    /// # Errors
    /// Those of every call.
    pub async fn describe_disks(
        &self,
        instance: &str,
        deadline: Instant,
    ) -> Result<Vec<Disk>, EcsError> {
        let params = vec![pair("InstanceId", instance), pair("MaxResults", "100")];
        pages::all::<Answer>(self, ACTION, params, deadline).await
    }

    /// The disks with these ids, as far as they are listed: one that was made a moment ago may not be.
    ///
    /// # Errors
    /// Those of every call.
    pub async fn describe_disks_by_id(
        &self,
        ids: &[String],
        deadline: Instant,
    ) -> Result<Vec<Disk>, EcsError> {
        let mut disks = Vec::new();
        for some in ids.chunks(MOST_IDS) {
            // A list of strings is JSON in one parameter here, not numbered ones.
            let list = serde_json::Value::from(some).to_string();
            let params = vec![pair("DiskIds", &list), pair("MaxResults", "100")];
            disks.extend(pages::all::<Answer>(self, ACTION, params, deadline).await?);
        }
        Ok(disks)
    }

    /// The disks with all of these tags, attached or not; an empty value: with any value.
    ///
    /// # Errors
    /// Those of every call.
    pub async fn describe_disks_by_tags(
        &self,
        tags: &[Tag],
        deadline: Instant,
    ) -> Result<Vec<Disk>, EcsError> {
        let mut params = vec![pair("MaxResults", "100")];
        for (index, tag) in tags.iter().enumerate() {
            params.push((format!("Tag.{}.Key", index + 1), tag.key.clone()));
            if !tag.value.is_empty() {
                params.push((format!("Tag.{}.Value", index + 1), tag.value.clone()));
            }
        }
        pages::all::<Answer>(self, ACTION, params, deadline).await
    }
}
