//! The actions: each takes its parameters and the world, and gives the body of its answer or an
//! error of the service.

mod create;
mod disk_life;
mod disks;
pub(crate) mod error;
mod groups;
mod page;
pub(crate) mod parameters;
mod snapshots;
mod tags;

pub(crate) use create::{Admission, Order};
pub(crate) use disk_life::{attach, attached, detach};

use serde_json::Value;

use crate::api::error::ApiError;
use crate::api::parameters::Parameters;
use crate::scenario::Tag;
use crate::world::World;

/// The version of the API, and the only one.
pub(crate) const VERSION: &str = "2014-05-26";

/// Everything that can be called.
pub(crate) const ACTIONS: &[&str] = &[
    "AttachDisk",
    "CreateDisk",
    "CreateSnapshotGroup",
    "DeleteDisk",
    "DeleteSnapshotGroup",
    "DescribeDisks",
    "DescribeSnapshotGroups",
    "DescribeSnapshots",
    "DetachDisk",
    "TagResources",
    "UntagResources",
];

/// What a call needs before its effect: CreateSnapshotGroup takes hold of its client token.
///
/// # Errors
/// As the action.
pub(crate) fn admit(
    world: &mut World,
    action: &str,
    parameters: &Parameters,
) -> Result<Option<Admission>, ApiError> {
    // What names a disk needs no region; older SDKs send one all the same.
    let of_one_disk = ["AttachDisk", "DetachDisk", "DeleteDisk"].contains(&action);
    if !of_one_disk || parameters.optional("RegionId").is_some() {
        check_region(world, parameters)?;
    }
    if action == "CreateSnapshotGroup" {
        return create::admit(world, parameters).map(Some);
    }
    Ok(None)
}

/// The call takes effect.
///
/// # Errors
/// As the action.
pub(crate) fn perform(
    world: &mut World,
    action: &str,
    parameters: &Parameters,
) -> Result<Value, ApiError> {
    match action {
        "CreateDisk" => disk_life::create(world, parameters),
        "DeleteDisk" => disk_life::delete(world, parameters),
        "DescribeDisks" => disks::describe(world, parameters),
        "DescribeSnapshotGroups" => groups::describe(world, parameters),
        "DeleteSnapshotGroup" => groups::delete(world, parameters),
        "DescribeSnapshots" => snapshots::describe(world, parameters),
        "TagResources" => tags::tag(world, parameters),
        "UntagResources" => tags::untag(world, parameters),
        _ => Err(ApiError::documented("InvalidAction.NotFound")),
    }
}

/// CreateSnapshotGroup takes effect.
///
/// # Errors
/// As the action; the client token is free again then.
pub(crate) fn create(world: &mut World, order: &Order) -> Result<String, ApiError> {
    create::take_effect(world, order)
}

fn check_region(world: &World, parameters: &Parameters) -> Result<(), ApiError> {
    if parameters.required("RegionId")? == world.scenario.region {
        Ok(())
    } else {
        Err(ApiError::documented("InvalidRegionId.NotFound"))
    }
}

/// Whether a resource has all the tags that a filter asks for. A filter without a value asks for
/// the key alone.
fn has_tags(tags: &[Tag], filter: &[Tag]) -> bool {
    let fits = |wanted: &Tag, tag: &Tag| {
        tag.key == wanted.key && (wanted.value.is_empty() || tag.value == wanted.value)
    };
    filter.iter().all(|wanted| tags.iter().any(|tag| fits(wanted, tag)))
}

/// As groups show them.
fn key_value(tags: &[Tag]) -> Value {
    let tag = |tag: &Tag| serde_json::json!({ "Key": tag.key, "Value": tag.value });
    serde_json::json!({ "Tag": tags.iter().map(tag).collect::<Vec<_>>() })
}

/// As disks and snapshots show them.
fn tag_key_value(tags: &[Tag]) -> Value {
    let tag = |tag: &Tag| serde_json::json!({ "TagKey": tag.key, "TagValue": tag.value });
    serde_json::json!({ "Tag": tags.iter().map(tag).collect::<Vec<_>>() })
}
