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
    /// `cloud_essd`, `cloud_auto`, `cloud_efficiency`…
    #[serde(deserialize_with = "or_default")]
    pub category: String,
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
        pages::all::<Answer>(self, "DescribeDisks", params, deadline).await
    }
}
