//! DescribeDisks.

use serde_json::{Value, json};

use crate::api::error::ApiError;
use crate::api::parameters::Parameters;
use crate::api::{disk_life, has_tags, page, tag_key_value};
use crate::scenario::{Disk, Scenario};
use crate::world::World;

pub(super) fn describe(world: &mut World, parameters: &Parameters) -> Result<Value, ApiError> {
    parameters.ignore(&[
        "AdditionalAttributes",
        "AutoSnapshotPolicyId",
        "DeleteAutoSnapshot",
        "DeleteWithInstance",
        "DiskChargeType",
        "DryRun",
        "EnableAutoSnapshot",
        "EnableAutomatedSnapshotPolicy",
        "EnableShared",
        "Encrypted",
        "Filter",
        "KMSKeyId",
        "LockReason",
        "Portable",
        "SnapshotId",
    ]);
    let ids = parameters.json_list("DiskIds", 100)?;
    let hidden = disk_life::look(world, ids.as_deref());
    let scenario = &world.scenario;
    let tags = parameters.tags()?;
    let text = |name| parameters.optional(name).filter(|value| *value != "all");
    let (instance, category, kind) = (text("InstanceId"), text("Category"), text("DiskType"));
    let (status, level, zone) = (text("Status"), text("PerformanceLevel"), text("ZoneId"));
    let (name, multi_attach) = (text("DiskName"), text("MultiAttach"));
    let same = |wanted: Option<&str>, value: &str| wanted.is_none_or(|wanted| wanted == value);
    let found = scenario.disks.iter().filter(|disk| {
        !hidden.contains(&disk.id)
            && ids.as_ref().is_none_or(|ids| ids.contains(&disk.id))
            && same(instance, attached_to(disk, scenario))
            && same(category, &disk.category)
            && same(kind, &disk.kind)
            && same(status, &disk.status)
            && same(level, disk.performance_level.as_deref().unwrap_or_default())
            && same(zone, &scenario.instance.zone)
            && same(name, &disk.name)
            && same(multi_attach, multi_attach_of(disk))
            && has_tags(&disk.tags, &tags)
    });
    let found = found.map(|disk| entry(disk, scenario)).collect();
    let sizes = page::Sizes { default: 10, least: 10, most: 500, cap: scenario.limits.page };
    let page = page::turn(found, parameters, sizes)?;
    Ok(json!({
        "NextToken": page.next_token,
        "TotalCount": page.total,
        "PageNumber": 1,
        "PageSize": page.items.len(),
        "Disks": { "Disk": page.items },
    }))
}

fn attached_to<'a>(disk: &'a Disk, scenario: &'a Scenario) -> &'a str {
    disk.instance.as_deref().unwrap_or(&scenario.instance.id)
}

fn multi_attach_of(disk: &Disk) -> &'static str {
    if disk.multi_attach { "Enabled" } else { "Disabled" }
}

fn entry(disk: &Disk, scenario: &Scenario) -> Value {
    let instance = attached_to(disk, scenario);
    let attachment = json!({
        "InstanceId": instance,
        "Device": disk.device,
        "AttachedTime": "2026-11-01T08:00:00Z",
    });
    let attachments = if instance.is_empty() { Vec::new() } else { vec![attachment] };
    let locks: Vec<Value> =
        disk.operation_lock.iter().map(|reason| json!({ "LockReason": reason })).collect();
    // A disk of several instances names none; only its attachments do.
    let (instance, device) =
        if disk.multi_attach { ("", "") } else { (instance, disk.device.as_str()) };
    json!({
        "DiskId": disk.id,
        "DiskName": disk.name,
        "SerialNumber": disk.serial.as_deref().unwrap_or_default(),
        "Description": "",
        "RegionId": scenario.region,
        "ZoneId": scenario.instance.zone,
        "Category": disk.category,
        "PerformanceLevel": disk.performance_level.as_deref().unwrap_or_default(),
        "Type": disk.kind,
        "Status": disk.status,
        "Size": disk.size,
        "InstanceId": instance,
        "Device": device,
        "MultiAttach": multi_attach_of(disk),
        "Attachments": { "Attachment": attachments },
        "MountInstances": { "MountInstance": [] },
        "OperationLocks": { "OperationLock": locks },
        "AttachedTime": "2026-11-01T08:00:00Z",
        "CreationTime": "2026-11-01T08:00:00Z",
        "DeleteAutoSnapshot": false,
        "DeleteWithInstance": disk.delete_with_instance,
        "DiskChargeType": "PostPaid",
        "EnableAutoSnapshot": true,
        "Encrypted": false,
        "KMSKeyId": "",
        "Portable": true,
        "ResourceGroupId": "",
        "SourceSnapshotId": disk.source_snapshot.as_deref().unwrap_or_default(),
        "BdfId": "",
        "Tags": tag_key_value(&disk.tags),
    })
}
