//! `CreateDisk` of a snapshot, `AttachDisk`, `DetachDisk` and `DeleteDisk`. Each of the last three is
//! accepted long before it is done: [`EcsClient::describe_disks_by_id`] shows how far it is.

use std::time::Instant;

use serde::Deserialize;

use super::tags::{Done, tag_params};
use super::{Tag, pair};
use crate::client::{Call, EcsClient, Params, Patience};
use crate::error::EcsError;

/// A pay-as-you-go disk that is to be made from a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CreateDisk {
    /// `s-…`
    pub snapshot: String,
    /// That of the instance it is for.
    pub zone: String,
    /// `cloud_essd`… ECS's own default is a kind that most instances cannot attach.
    pub category: String,
    /// `PL0` to `PL3`; empty for what has none.
    pub performance_level: String,
    /// In GiB. Smaller than the snapshot is as large as the snapshot.
    pub size: Option<u64>,
    /// 2 to 128 characters, begins with a letter.
    pub name: String,
    /// Empty, or 2 to 256 characters.
    pub description: String,
    /// At most 64 ASCII characters; however often the request is sent with it, there is one disk.
    pub token: String,
    /// At most 20. They are on the disk from its first moment: it can be found by them even if nobody
    /// learns its id.
    pub tags: Vec<Tag>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    disk_id: String,
}

impl EcsClient {
    /// Asks for a disk and gives its id, `d-…`. It is `Creating` for a while, and not listed at once.
    ///
    /// # Errors
    /// Those of every call. Where [`EcsError::may_have_happened`], the disk may be there.
    pub async fn create_disk(
        &self,
        disk: &CreateDisk,
        deadline: Instant,
    ) -> Result<String, EcsError> {
        let mut params = vec![
            pair("SnapshotId", &disk.snapshot),
            pair("ZoneId", &disk.zone),
            pair("DiskCategory", &disk.category),
            pair("DiskName", &disk.name),
            pair("ClientToken", &disk.token),
        ];
        for (name, value) in
            [("PerformanceLevel", &disk.performance_level), ("Description", &disk.description)]
        {
            if !value.is_empty() {
                params.push(pair(name, value));
            }
        }
        params.extend(disk.size.map(|size| pair("Size", &size.to_string())));
        params.extend(tag_params(&disk.tags));
        let call = Call { action: "CreateDisk", params, patience: Patience::Read };
        let created: Created = self.call(call, deadline).await?;
        Ok(created.disk_id)
    }

    /// Attaches a disk that is `Available`. It is not known by a token: sent again after an answer that
    /// was lost, ECS refuses it for the state of the disk.
    ///
    /// # Errors
    /// Those of every call.
    pub async fn attach_disk(
        &self,
        disk: &str,
        instance: &str,
        delete_with_instance: bool,
        deadline: Instant,
    ) -> Result<(), EcsError> {
        let mut params = at(disk, instance);
        params.push(pair("DeleteWithInstance", &delete_with_instance.to_string()));
        self.do_to_disk("AttachDisk", params, deadline).await
    }

    /// Detaches a disk. As with [`EcsClient::attach_disk`], a second request is refused.
    ///
    /// # Errors
    /// Those of every call.
    pub async fn detach_disk(
        &self,
        disk: &str,
        instance: &str,
        deadline: Instant,
    ) -> Result<(), EcsError> {
        self.do_to_disk("DetachDisk", at(disk, instance), deadline).await
    }

    /// Deletes a disk that is attached nowhere. One that is not there is deleted.
    ///
    /// # Errors
    /// Those of every call.
    pub async fn delete_disk(&self, disk: &str, deadline: Instant) -> Result<(), EcsError> {
        match self.do_to_disk("DeleteDisk", vec![pair("DiskId", disk)], deadline).await {
            Err(EcsError::Api { error, .. }) if error.is_not_found() => Ok(()),
            other => other,
        }
    }

    async fn do_to_disk(
        &self,
        action: &'static str,
        params: Params,
        deadline: Instant,
    ) -> Result<(), EcsError> {
        let Done {} =
            self.call(Call { action, params, patience: Patience::Read }, deadline).await?;
        Ok(())
    }
}

fn at(disk: &str, instance: &str) -> Params {
    vec![pair("InstanceId", instance), pair("DiskId", disk)]
}
