//! CreateSnapshotGroup.

use std::collections::BTreeMap;
use std::time::Instant;

use uuid::Uuid;

use crate::api::error::ApiError;
use crate::api::parameters::Parameters;
use crate::group::{Group, Member};
use crate::log::now_ns;
use crate::scenario::{Disk, Tag};
use crate::world::{ClientToken, World};

const GIB_PER_TIB: u64 = 1024;

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Admission {
    /// The group of this id exists already: the client token says so.
    Repeated(String),
    /// A group is to be made.
    New(Order),
}

/// A group that is to be made.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    name: String,
    description: String,
    instance: Option<String>,
    disks: Vec<String>,
    excluded: Vec<String>,
    tags: Vec<Tag>,
    client_token: Option<String>,
}

/// Reads the request, and takes hold of its client token.
pub(super) fn admit(world: &mut World, parameters: &Parameters) -> Result<Admission, ApiError> {
    let order = read(parameters)?;
    let Some(token) = &order.client_token else { return Ok(Admission::New(order)) };
    let meaning: BTreeMap<_, _> = parameters.meaning();
    match world.client_tokens.get(token) {
        Some(known) if known.meaning != meaning => {
            Err(ApiError::documented("IdempotentParameterMismatch"))
        }
        Some(ClientToken { made: Some(group), .. }) => Ok(Admission::Repeated(group.clone())),
        Some(_) => Err(ApiError::documented("LastTokenProcessing")),
        None => {
            world.client_tokens.insert(token.clone(), ClientToken { meaning, made: None });
            Ok(Admission::New(order))
        }
    }
}

/// Makes the group. If it cannot be made, the client token is free again.
pub(super) fn take_effect(world: &mut World, order: &Order) -> Result<String, ApiError> {
    let made = select(world, order).map(|disks| make(world, order, disks));
    if let Some(token) = &order.client_token {
        match &made {
            Ok(group) => {
                if let Some(known) = world.client_tokens.get_mut(token) {
                    known.made = Some(group.clone());
                }
            }
            Err(_) => drop(world.client_tokens.remove(token)),
        }
    }
    made
}

fn read(parameters: &Parameters) -> Result<Order, ApiError> {
    parameters.ignore(&["StorageLocationArn"]);
    parameters.boolean("InstantAccess")?;
    parameters.number("InstantAccessRetentionDays")?;
    let order = Order {
        name: parameters.optional("Name").unwrap_or_default().to_owned(),
        description: parameters.optional("Description").unwrap_or_default().to_owned(),
        instance: parameters.optional("InstanceId").map(str::to_owned),
        disks: parameters.list("DiskId", 128)?,
        excluded: parameters.list("ExcludeDiskId", 128)?,
        tags: parameters.tags()?,
        client_token: parameters.optional("ClientToken").map(str::to_owned),
    };
    check_name(&order.name)?;
    check_description(&order.description)?;
    if !order.disks.is_empty() && !order.excluded.is_empty() {
        return Err(ApiError::documented("InvalidParameter.Conflict"));
    }
    if order.disks.is_empty() && order.instance.is_none() {
        return Err(ApiError::missing("InstanceId"));
    }
    let token = order.client_token.as_deref().unwrap_or_default();
    if token.len() > 64 || !token.is_ascii() {
        return Err(ApiError::invalid("ClientToken", "at most 64 ASCII characters"));
    }
    Ok(order)
}

/// 2 to 128 characters; a letter first; then letters, digits, `.`, `_`, `-`, `:`.
pub(super) fn check_name(name: &str) -> Result<(), ApiError> {
    let length = name.chars().count();
    let letter_first = name.chars().next().is_some_and(char::is_alphabetic);
    let allowed = |sign: char| sign.is_alphanumeric() || "._-:".contains(sign);
    let good = letter_first && (2..=128).contains(&length) && name.chars().all(allowed);
    // Not given at all is allowed.
    if name.is_empty() || good {
        return Ok(());
    }
    Err(ApiError::documented("InvalidSnapshotName.Malformed"))
}

/// 2 to 256 characters, and no link at its start.
pub(super) fn check_description(description: &str) -> Result<(), ApiError> {
    let link = description.starts_with("http://") || description.starts_with("https://");
    if description.is_empty() || (!link && (2..=256).contains(&description.chars().count())) {
        return Ok(());
    }
    Err(ApiError::documented("InvalidDescription.Malformed"))
}

/// The disks of the group, each fit to be in it.
fn select(world: &World, order: &Order) -> Result<Vec<Disk>, ApiError> {
    let scenario = &world.scenario;
    if order.instance.as_ref().is_some_and(|instance| *instance != scenario.instance.id) {
        return Err(ApiError::documented("InvalidInstanceId.NotFound"));
    }
    if order.instance.is_some()
        && !["Running", "Stopped"].contains(&scenario.instance.status.as_str())
    {
        return Err(ApiError::documented("IncorrectInstanceStatus"));
    }
    let attached = |disk: &&Disk| disk.instance.is_none() || disk.instance == order.instance;
    let find = |id: &String| {
        let disk = scenario.disks.iter().filter(attached).find(|disk| disk.id == *id);
        disk.cloned().ok_or_else(|| ApiError::documented("InvalidDiskId.NotFound"))
    };
    let disks: Vec<Disk> = if order.disks.is_empty() {
        order.excluded.iter().try_for_each(|id| find(id).map(drop))?;
        let kept = |disk: &&Disk| !order.excluded.contains(&disk.id);
        scenario.disks.iter().filter(attached).filter(kept).cloned().collect()
    } else {
        order.disks.iter().map(find).collect::<Result<_, _>>()?
    };
    disks.iter().try_for_each(|disk| check_disk(world, disk))?;
    check_size(world, &disks)?;
    Ok(disks)
}

fn check_disk(world: &World, disk: &Disk) -> Result<(), ApiError> {
    let refuse = |code: &str| Err(ApiError::documented(code));
    if !["cloud_essd", "cloud_auto", "cloud_essd_entry"].contains(&disk.category.as_str()) {
        return refuse("DiskCategory.OperationNotSupported");
    }
    if disk.multi_attach {
        return refuse("IncorrectDiskType.NotSupport");
    }
    match disk.operation_lock.as_deref() {
        Some("security") => return refuse("InstanceLockedForSecurity"),
        Some(_) => return refuse("DiskInArrears"),
        None => {}
    }
    if !["In_use", "Available"].contains(&disk.status.as_str()) {
        return refuse("IncorrectDiskStatus");
    }
    if disk.creating_snapshot || world.groups.iter().any(|group| group.is_reading(&disk.id)) {
        return refuse("IncorrectDiskStatus.CreatingSnapshot");
    }
    let members = world.groups.iter().flat_map(|group| &group.members);
    let here = members.filter(|member| member.disk.id == disk.id).count();
    let before = usize::try_from(disk.manual_snapshots).unwrap_or(usize::MAX);
    if here.saturating_add(before) >= world.scenario.limits.snapshots_per_disk {
        return refuse("QuotaExceed.Snapshot");
    }
    Ok(())
}

fn check_size(world: &World, disks: &[Disk]) -> Result<(), ApiError> {
    let limits = &world.scenario.limits;
    if disks.is_empty() {
        return Err(ApiError::documented("InvalidDiskId.NotFound"));
    }
    let gib: u64 = disks.iter().map(|disk| disk.size).sum();
    if disks.len() > limits.disks_per_group || gib > limits.group_tib * GIB_PER_TIB {
        return Err(ApiError::documented("QuotaExceed.DiskNumber"));
    }
    Ok(())
}

fn make(world: &mut World, order: &Order, disks: Vec<Disk>) -> String {
    let id = format!("ssg-bp1{}", short_id());
    let member =
        |disk| Member { id: format!("s-bp1{}", short_id()), disk, tags: order.tags.clone() };
    let group = Group {
        id: id.clone(),
        name: order.name.clone(),
        description: order.description.clone(),
        instance: order.instance.clone().unwrap_or_default(),
        creation_time: world.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        client_token: order.client_token.clone(),
        tags: order.tags.clone(),
        members: disks.into_iter().map(member).collect(),
        effect_ns: now_ns(),
        made: Instant::now(),
        timeline: world.scenario.group.clone(),
        hidden_looks_seen: 0,
        looks_seen: 0,
    };
    world.groups.push(group);
    id
}

pub(super) fn short_id() -> String {
    Uuid::new_v4().simple().to_string().chars().take(17).collect()
}
