//! TagResources and UntagResources.

use serde_json::{Value, json};

use crate::api::error::ApiError;
use crate::api::parameters::Parameters;
use crate::scenario::Tag;
use crate::world::World;

pub(super) fn tag(world: &mut World, parameters: &Parameters) -> Result<Value, ApiError> {
    let kind = parameters.required("ResourceType")?.to_owned();
    let ids = resources(parameters)?;
    let tags = parameters.tags()?;
    if tags.is_empty() {
        return Err(ApiError::missing("Tag.1.Key"));
    }
    let most = world.scenario.limits.tags_per_resource;
    // All or nothing: nothing is tagged unless everything can be.
    for id in &ids {
        let known = tags_of(world, &kind, id)?;
        let new = tags.iter().filter(|tag| !known.iter().any(|known| known.key == tag.key));
        if known.len() + new.count() > most {
            return Err(ApiError::documented("QuotaExceed.Tags"));
        }
    }
    for id in &ids {
        let known = tags_of(world, &kind, id)?;
        known.retain(|known| !tags.iter().any(|tag| tag.key == known.key));
        known.extend(tags.iter().cloned());
    }
    Ok(json!({}))
}

pub(super) fn untag(world: &mut World, parameters: &Parameters) -> Result<Value, ApiError> {
    let kind = parameters.required("ResourceType")?.to_owned();
    let ids = resources(parameters)?;
    let keys = parameters.list("TagKey", 20)?;
    let all = parameters.boolean("All")?.unwrap_or(false) && keys.is_empty();
    for id in &ids {
        tags_of(world, &kind, id)?;
    }
    for id in &ids {
        tags_of(world, &kind, id)?.retain(|tag| !all && !keys.contains(&tag.key));
    }
    Ok(json!({}))
}

fn resources(parameters: &Parameters) -> Result<Vec<String>, ApiError> {
    let ids = parameters.list("ResourceId", 50)?;
    if ids.is_empty() { Err(ApiError::missing("ResourceId.1")) } else { Ok(ids) }
}

fn tags_of<'a>(world: &'a mut World, kind: &str, id: &str) -> Result<&'a mut Vec<Tag>, ApiError> {
    let found = match kind {
        "snapshot" => {
            let mut members = world.groups.iter_mut().flat_map(|group| &mut group.members);
            members.find(|member| member.id == id).map(|member| &mut member.tags)
        }
        "disk" => {
            let disk = world.scenario.disks.iter_mut().find(|disk| disk.id == id);
            disk.map(|disk| &mut disk.tags)
        }
        // The API's list of types has none for a group.
        _ => return Err(ApiError::documented("InvalidResourceType.NotFound")),
    };
    found.ok_or_else(|| ApiError::documented("InvalidResourceId.NotFound"))
}
