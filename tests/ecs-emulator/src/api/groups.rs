//! DescribeSnapshotGroups and DeleteSnapshotGroup.

use serde_json::{Value, json};

use crate::api::error::ApiError;
use crate::api::parameters::Parameters;
use crate::api::{has_tags, key_value, page};
use crate::group::{Group, Phase};
use crate::scenario::Tag;
use crate::world::World;

struct Filter {
    ids: Vec<String>,
    instance: Option<String>,
    name: Option<String>,
    tags: Vec<Tag>,
}

impl Filter {
    fn read(parameters: &Parameters) -> Result<Self, ApiError> {
        parameters.ignore(&["AdditionalAttributes"]);
        Ok(Self {
            ids: parameters.list("SnapshotGroupId", 10)?,
            instance: parameters.optional("InstanceId").map(str::to_owned),
            name: parameters.optional("Name").map(str::to_owned),
            tags: parameters.tags()?,
        })
    }

    fn lets_through(&self, group: &Group) -> bool {
        let same = |wanted: &Option<String>, value: &String| {
            wanted.as_ref().is_none_or(|wanted| wanted == value)
        };
        (self.ids.is_empty() || self.ids.contains(&group.id))
            && same(&self.instance, &group.instance)
            && same(&self.name, &group.name)
            && has_tags(&group.tags, &self.tags)
    }
}

pub(super) fn describe(world: &mut World, parameters: &Parameters) -> Result<Value, ApiError> {
    let filter = Filter::read(parameters)?;
    let statuses = parameters.list("Status", 3)?;
    if let Some(status) = statuses
        .iter()
        .find(|status| !["progressing", "accomplished", "failed"].contains(&status.as_str()))
    {
        return Err(ApiError::invalid("Status", &format!("{status} is none")));
    }
    let wanted =
        |status: &str| statuses.is_empty() || statuses.iter().any(|wanted| wanted == status);
    let found: Vec<Value> = world
        .groups
        .iter_mut()
        .filter(|group| filter.lets_through(group))
        .filter_map(|group| {
            let phase = group.look();
            let listed = phase != Phase::Hidden && wanted(group.status(phase).name());
            listed.then(|| entry(group, phase))
        })
        .collect();
    let sizes = page::Sizes { default: 10, least: 1, most: 100, cap: world.scenario.limits.page };
    let page = page::turn(found, parameters, sizes)?;
    Ok(json!({
        "NextToken": page.next_token,
        "SnapshotGroups": { "SnapshotGroup": page.items },
    }))
}

/// The members go with it. Works as soon as the group exists, listed or not.
pub(super) fn delete(world: &mut World, parameters: &Parameters) -> Result<Value, ApiError> {
    let id = parameters.required("SnapshotGroupId")?;
    let place = world
        .groups
        .iter()
        .position(|group| group.id == id)
        .ok_or_else(|| ApiError::documented("InvalidSnapshotGroupId.NotFound"))?;
    let group = world.groups.remove(place);
    let progress = |id: &str| {
        json!({
            "OperationStatus": "Success",
            "ErrorCode": "",
            "ErrorMsg": "",
            "RelatedItemSet": { "RelatedItem": [{ "Name": "SnapshotId", "Value": id }] },
        })
    };
    let members: Vec<Value> = group.members.iter().map(|member| progress(&member.id)).collect();
    Ok(json!({ "OperationProgressSet": { "OperationProgress": members } }))
}

fn entry(group: &Group, phase: Phase) -> Value {
    let members = group.members.iter().map(|member| {
        let (_, percent, available) = group.member(member, phase);
        json!({
            "SnapshotId": member.id,
            "SourceDiskId": member.disk.id,
            "SourceDiskType": member.disk.kind,
            "Progress": format!("{percent}%"),
            "Available": available,
            "InstantAccess": false,
            "InstantAccessRetentionDays": 0,
            "Tags": key_value(&member.tags),
        })
    });
    json!({
        "SnapshotGroupId": group.id,
        "Name": group.name,
        "Description": group.description,
        "InstanceId": group.instance,
        "Status": group.status(phase).name(),
        "ProgressStatus": "",
        "CreationTime": group.creation_time,
        "ResourceGroupId": "",
        "Tags": key_value(&group.tags),
        "Snapshots": { "Snapshot": members.collect::<Vec<_>>() },
    })
}
