//! CreateDisk, AttachDisk, DetachDisk, DeleteDisk: disks of snapshots, on their way to the guest and
//! away again.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::api::create::{check_description, check_name, short_id};
use crate::api::error::ApiError;
use crate::api::parameters::Parameters;
use crate::scenario::Disk;
use crate::world::{Attaching, ClientToken, OnItsWay, World};

const CATEGORIES: [&str; 6] =
    ["cloud", "cloud_efficiency", "cloud_ssd", "cloud_essd", "cloud_auto", "cloud_essd_entry"];

/// A pay-as-you-go disk, of a snapshot: an empty one, or one that is attached by being made, nobody
/// asks for here.
pub(super) fn create(world: &mut World, parameters: &Parameters) -> Result<Value, ApiError> {
    let disk = read(world, parameters)?;
    let token = parameters.optional("ClientToken").map(str::to_owned);
    if token.as_ref().is_some_and(|token| token.len() > 64 || !token.is_ascii()) {
        return Err(ApiError::invalid("ClientToken", "at most 64 ASCII characters"));
    }
    let id = disk.id.clone();
    if let Some(token) = token {
        let meaning = parameters.meaning();
        match world.client_tokens.get(&token) {
            Some(known) if known.meaning != meaning => {
                return Err(ApiError::documented("IdempotentParameterMismatch"));
            }
            Some(known) => return Ok(json!({ "DiskId": known.made })),
            None => {
                let made = Some(id.clone());
                world.client_tokens.insert(token, ClientToken { meaning, made });
            }
        }
    }
    let looks = world.scenario.disk_looks;
    let way = OnItsWay { hidden: looks.hidden, looks: looks.creating, then: "Available" };
    world.on_their_way.insert(id.clone(), way);
    world.scenario.disks.push(disk);
    Ok(json!({ "DiskId": id, "OrderId": "" }))
}

fn read(world: &World, parameters: &Parameters) -> Result<Disk, ApiError> {
    let refuse = |code: &str| Err(ApiError::documented(code));
    parameters.ignore(&["BurstingEnabled", "Encrypted", "KMSKeyId"]);
    if parameters.required("ZoneId")? != world.scenario.instance.zone {
        return refuse("InvalidZoneId.NotFound");
    }
    let name = parameters.optional("DiskName").unwrap_or_default();
    if check_name(name).is_err() {
        return refuse("InvalidDiskName.Malformed");
    }
    check_description(parameters.optional("Description").unwrap_or_default())?;
    let category = parameters.optional("DiskCategory").unwrap_or("cloud");
    if !CATEGORIES.contains(&category) {
        return refuse("InvalidDiskCategory.NotSupported");
    }
    let snapshot = parameters.required("SnapshotId")?;
    let (group, member) = world
        .groups
        .iter()
        .flat_map(|group| group.members.iter().map(move |member| (group, member)))
        .find(|(_, member)| member.id == snapshot)
        .ok_or_else(|| ApiError::documented("InvalidSnapshotId.NotFound"))?;
    if !group.member(member, group.phase()).2 {
        return refuse("InvalidSnapshot.NotReady");
    }
    // One that is too small counts as that of the snapshot.
    let wanted = parameters.number("Size")?.and_then(|size| u64::try_from(size).ok());
    let size = wanted.unwrap_or_default().max(member.disk.size);
    let short = short_id();
    let essd = (category == "cloud_essd").then_some("PL1");
    Ok(Disk {
        id: format!("d-bp1{short}"),
        serial: Some(format!("bp1{short}")),
        name: name.to_owned(),
        source_snapshot: Some(snapshot.to_owned()),
        category: category.to_owned(),
        performance_level: parameters.optional("PerformanceLevel").or(essd).map(str::to_owned),
        status: "Creating".to_owned(),
        size,
        instance: Some(String::new()),
        tags: parameters.tags()?,
        ..Disk::default()
    })
}

/// Only what is attached nowhere.
pub(super) fn delete(world: &mut World, parameters: &Parameters) -> Result<Value, ApiError> {
    let id = parameters.required("DiskId")?.to_owned();
    if find(world, &id)?.status != "Available" {
        return Err(ApiError::documented("IncorrectDiskStatus"));
    }
    world.scenario.disks.retain(|disk| disk.id != id);
    world.on_their_way.remove(&id);
    Ok(json!({}))
}

/// The first half: it may be attached, and is on its way.
pub(crate) fn attach(world: &mut World, parameters: &Parameters) -> Result<Attaching, ApiError> {
    let instance = instance(world, parameters)?;
    let id = parameters.required("DiskId")?.to_owned();
    let delete_with_instance = parameters.boolean("DeleteWithInstance")?.unwrap_or(false);
    let here = |disk: &&Disk| disk.instance.as_ref().is_none_or(|it| *it == instance);
    if !["Running", "Stopped"].contains(&world.scenario.instance.status.as_str()) {
        return Err(ApiError::documented("IncorrectInstanceStatus"));
    }
    let attached = world.scenario.disks.iter().filter(here).count();
    let most = world.scenario.limits.disks_per_instance;
    let looks = world.scenario.disk_looks.attaching;
    let disk = find(world, &id)?;
    if disk.status != "Available" {
        return Err(ApiError::documented("IncorrectDiskStatus"));
    }
    if attached >= most {
        return Err(ApiError::documented("InstanceDiskLimitExceeded"));
    }
    "Attaching".clone_into(&mut disk.status);
    disk.instance = Some(instance);
    disk.delete_with_instance = delete_with_instance;
    let attaching = attaching(world, &id)?;
    world.on_their_way.insert(id, OnItsWay { hidden: 0, looks, then: "In_use" });
    Ok(attaching)
}

/// The second half: the guest sees it, or ECS thinks so.
pub(crate) fn attached(world: &mut World, id: &str, device: Option<String>) {
    let used: Vec<String> = world.scenario.disks.iter().map(|disk| disk.device.clone()).collect();
    let free = ('b'..='z').map(|letter| format!("/dev/xvd{letter}"));
    let free = free.into_iter().find(|device| !used.contains(device));
    if let Ok(disk) = find(world, id) {
        disk.device = device.or(free).unwrap_or_default();
    }
}

/// It is on its way back.
pub(crate) fn detach(world: &mut World, parameters: &Parameters) -> Result<Attaching, ApiError> {
    let instance = instance(world, parameters)?;
    let id = parameters.required("DiskId")?.to_owned();
    parameters.boolean("DeleteWithInstance")?;
    let looks = world.scenario.disk_looks.detaching;
    let attaching = attaching(world, &id)?;
    let disk = find(world, &id)?;
    if disk.instance.as_ref().is_some_and(|it| *it != instance) {
        return Err(ApiError::documented("DependencyViolation"));
    }
    if disk.status != "In_use" {
        return Err(ApiError::documented("IncorrectDiskStatus"));
    }
    "Detaching".clone_into(&mut disk.status);
    world.on_their_way.insert(id, OnItsWay { hidden: 0, looks, then: "Available" });
    Ok(attaching)
}

/// One look at all disks, or those that are wanted: what is on its way is one step further at the
/// next. Gives those that this one does not show.
pub(super) fn look(world: &mut World, wanted: Option<&[String]>) -> BTreeSet<String> {
    let (mut hidden, mut there) = (BTreeSet::new(), Vec::new());
    for (id, way) in &mut world.on_their_way {
        if wanted.is_some_and(|wanted| !wanted.contains(id)) {
            continue;
        }
        match (way.hidden, way.looks) {
            (0, 0) => there.push((id.clone(), way.then)),
            (0, looks) => way.looks = looks - 1,
            (looks, _) => {
                way.hidden = looks - 1;
                hidden.insert(id.clone());
            }
        }
    }
    for (id, then) in there {
        world.on_their_way.remove(&id);
        let Ok(disk) = find(world, &id) else { continue };
        if disk.status == "Detaching" {
            disk.device.clear();
            disk.instance = Some(String::new());
        }
        then.clone_into(&mut disk.status);
    }
    hidden
}

fn instance(world: &World, parameters: &Parameters) -> Result<String, ApiError> {
    let instance = parameters.required("InstanceId")?;
    if instance == world.scenario.instance.id {
        Ok(instance.to_owned())
    } else {
        Err(ApiError::documented("InvalidInstanceId.NotFound"))
    }
}

fn find<'w>(world: &'w mut World, id: &str) -> Result<&'w mut Disk, ApiError> {
    let disk = world.scenario.disks.iter_mut().find(|disk| disk.id == id);
    disk.ok_or_else(|| ApiError::documented("InvalidDiskId.NotFound"))
}

fn attaching(world: &mut World, id: &str) -> Result<Attaching, ApiError> {
    let disk = find(world, id)?.clone();
    let snapshot = disk.source_snapshot.unwrap_or_default();
    let source = world.groups.iter().find_map(|group| {
        let member = group.members.iter().find(|member| member.id == snapshot)?;
        Some((group.id.clone(), member.disk.id.clone()))
    });
    let (group, source_disk) = source.unwrap_or_default();
    let serial = disk.serial.unwrap_or_default();
    Ok(Attaching { disk: disk.id, serial, device: disk.device, group, source_disk })
}
