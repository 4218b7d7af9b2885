//! `CreateSnapshotGroup` and `DeleteSnapshotGroup`.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use serde::Deserialize;

use super::tags::{Done, tag_params};
use super::{Tag, numbered, pair};
use crate::client::{Call, EcsClient, Patience};
use crate::error::EcsError;

/// What a group is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CreateSnapshotGroup {
    /// The instance whose disks they are.
    pub instance: String,
    /// The members.
    pub disks: Vec<String>,
    /// 2 to 128 characters, begins with a letter.
    pub name: String,
    /// Empty, or 2 to 256 characters.
    pub description: String,
    /// At most 64 ASCII characters; however often the request is sent with it, there is one group.
    pub token: String,
    /// At most 20.
    pub tags: Vec<Tag>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    snapshot_group_id: String,
}

impl EcsClient {
    /// Creates a group and gives its id, `ssg-…`. Sent again, with the same token, if the connection
    /// is lost or ECS has a fault, until `deadline` or until `stop` is set. The answer of an attempt
    /// that was sent is waited for until `answer_until`: it says what there is.
    ///
    /// # Errors
    /// Those of every call. Where [`EcsError::may_have_happened`], the group may be there.
    pub async fn create_snapshot_group(
        &self,
        group: &CreateSnapshotGroup,
        deadline: Instant,
        answer_until: Instant,
        stop: Arc<AtomicBool>,
    ) -> Result<String, EcsError> {
        let mut params = vec![
            pair("InstanceId", &group.instance),
            pair("Name", &group.name),
            pair("ClientToken", &group.token),
        ];
        if !group.description.is_empty() {
            params.push(pair("Description", &group.description));
        }
        params.extend(numbered("DiskId", &group.disks));
        params.extend(tag_params(&group.tags));
        let patience = Patience::Answer { until: answer_until, stop };
        let call = Call { action: "CreateSnapshotGroup", params, patience };
        let created: Created = self.call(call, deadline).await?;
        Ok(created.snapshot_group_id)
    }

    /// Deletes a group with all its members. One that is not there is deleted.
    ///
    /// # Errors
    /// Those of every call; while members are being made ECS may refuse.
    pub async fn delete_snapshot_group(
        &self,
        group: &str,
        deadline: Instant,
    ) -> Result<(), EcsError> {
        let params = vec![pair("SnapshotGroupId", group)];
        let call = Call { action: "DeleteSnapshotGroup", params, patience: Patience::Read };
        match self.call::<Done>(call, deadline).await {
            Err(EcsError::Api { error, .. }) if error.is_not_found() => Ok(()),
            other => other.map(|Done {}| ()),
        }
    }
}
