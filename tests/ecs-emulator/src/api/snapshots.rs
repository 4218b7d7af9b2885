//! DescribeSnapshots.

use serde_json::{Value, json};

use crate::api::error::ApiError;
use crate::api::parameters::Parameters;
use crate::api::{has_tags, page, tag_key_value};
use crate::group::{Group, Member, Phase};
use crate::scenario::Tag;
use crate::world::World;

struct Filter {
    ids: Option<Vec<String>>,
    instance: Option<String>,
    disk: Option<String>,
    name: Option<String>,
    kind: Option<String>,
    tags: Vec<Tag>,
}

impl Filter {
    fn read(parameters: &Parameters) -> Result<Self, ApiError> {
        parameters.ignore(&[
            "Category",
            "DryRun",
            "Encrypted",
            "Filter",
            "KMSKeyId",
            "SnapshotLinkId",
            "SnapshotType",
            "Usage",
        ]);
        let text = |name| parameters.optional(name).map(str::to_owned);
        Ok(Self {
            ids: parameters.json_list("SnapshotIds", 100)?,
            instance: text("InstanceId"),
            disk: text("DiskId"),
            name: text("SnapshotName"),
            kind: text("SourceDiskType").map(|kind| kind.to_lowercase()),
            tags: parameters.tags()?,
        })
    }

    fn lets_through(&self, group: &Group, member: &Member) -> bool {
        let same = |wanted: &Option<String>, value: &String| {
            wanted.as_ref().is_none_or(|wanted| wanted == value)
        };
        self.ids.as_ref().is_none_or(|ids| ids.contains(&member.id))
            && same(&self.instance, &group.instance)
            && same(&self.disk, &member.disk.id)
            && same(&self.name, &group.name)
            && same(&self.kind, &member.disk.kind)
            && has_tags(&member.tags, &self.tags)
    }
}

pub(super) fn describe(world: &mut World, parameters: &Parameters) -> Result<Value, ApiError> {
    let filter = Filter::read(parameters)?;
    let status = parameters.optional("Status").unwrap_or("all").to_owned();
    if !["progressing", "accomplished", "failed", "all"].contains(&status.as_str()) {
        return Err(ApiError::invalid("Status", &format!("{status} is none")));
    }
    let mut found = Vec::new();
    for group in &mut world.groups {
        if !group.members.iter().any(|member| filter.lets_through(group, member)) {
            continue;
        }
        let phase = group.look();
        let members = group.members.iter().filter(|member| filter.lets_through(group, member));
        found.extend(members.filter_map(|member| entry(group, member, phase, &status)));
    }
    let sizes = page::Sizes { default: 10, least: 1, most: 100, cap: world.scenario.limits.page };
    let page = page::turn(found, parameters, sizes)?;
    Ok(json!({
        "NextToken": page.next_token,
        "TotalCount": page.total,
        "PageNumber": 1,
        "PageSize": page.items.len(),
        "Snapshots": { "Snapshot": page.items },
    }))
}

fn entry(group: &Group, member: &Member, phase: Phase, wanted: &str) -> Option<Value> {
    let (status, percent, available) = group.member(member, phase);
    if phase == Phase::Hidden || (wanted != "all" && wanted != status.name()) {
        return None;
    }
    Some(json!({
        "SnapshotId": member.id,
        "SnapshotName": group.name,
        "Description": group.description,
        "Status": status.name(),
        "Progress": format!("{percent}%"),
        "Available": available,
        "Category": "standard",
        "Usage": "none",
        "SourceDiskId": member.disk.id,
        // A text, as the service sends it; its own manual shows a number.
        "SourceDiskSize": member.disk.size.to_string(),
        "SourceDiskType": member.disk.kind,
        "SnapshotType": "user",
        "InstantAccess": false,
        "RemainTime": if percent == 100 { 0 } else { 30 },
        "CreationTime": group.creation_time,
        "LastModifiedTime": group.creation_time,
        "Encrypted": false,
        "KMSKeyId": "",
        "ProductCode": "",
        "ResourceGroupId": "",
        "SnapshotLinkId": format!("sl-{}", member.disk.id.trim_start_matches("d-")),
        "SnapshotSN": member.id,
        "Tags": tag_key_value(&member.tags),
    }))
}
