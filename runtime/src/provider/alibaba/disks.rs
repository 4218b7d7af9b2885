//! Which cloud disk is which block device, and whether it can be in a group.

use std::collections::BTreeMap;
use std::path::PathBuf;

use stillpoint_alibaba::api::{Disk as CloudDisk, USUAL_MOST_DISKS};

use super::copies::Copy;
use super::exit::fail;
use super::local::LocalDisk;
use crate::exit_code::ExitCode;
use crate::plan::DevId;
use crate::provider::{Disk, ProviderError};

/// virtio-blk shows no more than this of a serial number, in bytes.
const LONGEST_SERIAL: usize = 20;

/// How a block device was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    /// Its serial number is the disk's.
    Serial,
    /// ECS names this very node, and the device shows no serial number.
    Node,
    /// ECS names a node of the same letter, the sizes agree, and the device shows no serial number.
    Letter,
}

/// The cloud disks of `instance` as this instance sees them, in the order of ECS. One that is no
/// block device here is listed too, with a device number that none has: it is part of the
/// instance, and what is on it cannot be known.
pub(super) fn recognise(cloud: &[CloudDisk], local: &[LocalDisk], instance: &str) -> Vec<Disk> {
    let is_copy = |disk: &CloudDisk| Copy::recognise(disk, instance).is_some();
    let (copies, cloud): (Vec<_>, Vec<_>) = cloud.iter().partition(|disk| is_copy(disk));
    let (disks, left_out): (Vec<_>, Vec<_>) =
        cloud.iter().copied().partition(|disk| is_cloud(disk));
    let found: Vec<_> = disks.iter().map(|disk| find(disk, local, instance)).collect();
    let mut claims: BTreeMap<DevId, usize> = BTreeMap::new();
    for (local, _) in found.iter().flatten() {
        *claims.entry(local.device).or_default() += 1;
    }
    let mut recognised: Vec<Disk> = disks
        .into_iter()
        .zip(found)
        .enumerate()
        .map(|(index, (disk, found))| match found {
            Some((local, proof)) if claims[&local.device] == 1 => {
                here(disk, local, proof, instance)
            }
            _ => nowhere(disk, index, instance),
        })
        .collect();
    if let Some(first) = recognised.first_mut() {
        first.warnings.extend(left_out.iter().map(|disk| {
            format!(
                "{} ({}) is left out: it is a local disk, and ECS takes no snapshots of those",
                disk.disk_id, disk.category
            )
        }));
        first.warnings.extend(copies.iter().map(|disk| {
            format!(
                "{} is left out: it is a copy of a snapshot, which stillpoint attached",
                disk.disk_id
            )
        }));
        if disks_are_many(&cloud) {
            first.warnings.push(format!(
                "{} disks are attached; ECS takes at most {USUAL_MOST_DISKS} into a group in most \
                 regions",
                cloud.len()
            ));
        }
    }
    recognised
}

fn disks_are_many(cloud: &[&CloudDisk]) -> bool {
    cloud.len() > USUAL_MOST_DISKS
}

/// Local disks of the host (`ephemeral_ssd`, `local_hdd_pro`…) are listed with the cloud disks.
fn is_cloud(disk: &CloudDisk) -> bool {
    disk.category.is_empty() || disk.category.starts_with("cloud")
}

fn here(disk: &CloudDisk, local: &LocalDisk, proof: Proof, instance: &str) -> Disk {
    let mut warnings = Vec::new();
    if proof == Proof::Letter {
        warnings.push(format!(
            "{} is taken for /dev/{} because ECS calls it {}: it shows no serial number that would \
             prove it",
            disk.disk_id,
            local.name,
            disk.device_in(instance)
        ));
    }
    let node = PathBuf::from("/dev").join(&local.name);
    Disk { id: disk.disk_id.clone(), device: local.device, node, warnings }
}

fn nowhere(disk: &CloudDisk, index: usize, instance: &str) -> Disk {
    let name = match disk.device_in(instance) {
        "" => disk.disk_id.as_str(),
        device => device,
    };
    Disk {
        id: disk.disk_id.clone(),
        device: DevId::of_no_device(index),
        node: name.into(),
        warnings: Vec::new(),
    }
}

/// The device of a disk, if that is certain: by its serial number, or by the very node where the device
/// shows none. What is only likely is enough to freeze a file system, not to look into a copy.
pub(super) fn certain<'l>(
    disk: &CloudDisk,
    local: &'l [LocalDisk],
    instance: &str,
) -> Option<&'l LocalDisk> {
    let (found, proof) = find(disk, local, instance)?;
    (proof != Proof::Letter && found.bytes != Some(0)).then_some(found)
}

/// By serial number; where the device shows none, by the name that ECS has for it.
fn find<'l>(
    disk: &CloudDisk,
    local: &'l [LocalDisk],
    instance: &str,
) -> Option<(&'l LocalDisk, Proof)> {
    let serial = disk.serial_number.trim();
    let by_number = || only(local, |it| shows(it, serial));
    let by_id = || only(local, |it| shows(it, disk.disk_id.strip_prefix("d-").unwrap_or_default()));
    if let Some(found) = by_number().or_else(by_id) {
        return Some((found, Proof::Serial));
    }
    // A device that shows a serial number is the disk with that number, whatever ECS calls it.
    let device = disk.device_in(instance).strip_prefix("/dev/")?;
    let nameless = |name: &str| local.iter().find(|it| it.name == name && it.serial.is_none());
    if let Some(found) = nameless(device) {
        return Some((found, Proof::Node));
    }
    let found = nameless(&other_letter_name(device)?)?;
    let agree = match (disk.size, found.bytes) {
        (Some(gib), Some(bytes)) => gib.checked_mul(1 << 30) == Some(bytes),
        _ => false,
    };
    agree.then_some((found, Proof::Letter))
}

/// The one device that fits; of two, none is it.
fn only(local: &[LocalDisk], fits: impl Fn(&LocalDisk) -> bool) -> Option<&LocalDisk> {
    let mut fitting = local.iter().filter(|disk| fits(disk));
    fitting.next().filter(|_| fitting.next().is_none())
}

fn shows(local: &LocalDisk, serial: &str) -> bool {
    let Some(shown) = local.serial.as_deref().filter(|_| !serial.is_empty()) else { return false };
    shown == serial || (shown.len() == LONGEST_SERIAL && serial.starts_with(shown))
}

/// ECS says `xvdb` where virtio says `vdb`.
fn other_letter_name(name: &str) -> Option<String> {
    match name.strip_prefix("xvd") {
        Some(letter) => Some(format!("vd{letter}")),
        None => name.strip_prefix("vd").map(|letter| format!("xvd{letter}")),
    }
}

/// Whether the disks that a group is asked for can be in one: found out before anything is locked.
pub(super) fn check(
    wanted: &[Disk],
    cloud: &[CloudDisk],
    categories: &[String],
) -> Result<(), ProviderError> {
    let can_be = |disk: &CloudDisk| categories.contains(&disk.category);
    let mut problems: Vec<(ExitCode, String)> = Vec::new();
    for disk in wanted {
        match cloud.iter().find(|other| other.disk_id == disk.id) {
            Some(cloud) => problems.extend(problem(cloud, can_be(cloud))),
            None => problems.push((
                ExitCode::CreateFailed,
                format!("{} is not attached to this instance any more", disk.id),
            )),
        }
    }
    let Some(&(code, _)) = problems.first() else { return Ok(()) };
    let none_can = !cloud.iter().any(can_be);
    let code = if none_can { ExitCode::NoUsableDisk } else { code };
    let texts: Vec<String> = problems.into_iter().map(|(_, text)| text).collect();
    let hint = if none_can {
        "a snapshot-consistent group is made of ESSDs; attach one, or see `categories` in \
         [provider.alibaba]"
    } else {
        "leave these disks out: `exclude-disks` in stillpoint.toml, `--exclude-disk`, or \
         -ExcludeDiskId"
    };
    Err(fail(code, texts.join("; ")).hint(hint))
}

fn problem(disk: &CloudDisk, right_category: bool) -> Option<(ExitCode, String)> {
    let id = &disk.disk_id;
    let locks: Vec<&str> = disk.locks().collect();
    if !right_category {
        let category = &disk.category;
        return Some((
            ExitCode::Precondition,
            format!("{id} is of category {category}, which cannot be in a group"),
        ));
    }
    if disk.is_multi_attach() {
        return Some((
            ExitCode::Precondition,
            format!("{id} can be attached to several instances, and so cannot be in a group"),
        ));
    }
    if !locks.is_empty() {
        return Some((ExitCode::CreateFailed, format!("{id} is locked ({})", locks.join(", "))));
    }
    if !["", "In_use"].contains(&disk.status.as_str()) {
        return Some((ExitCode::CreateFailed, format!("{id} is {}, not In_use", disk.status)));
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::{BlockNode, Inventory, Scope, plan};

    fn cloud(id: &str, serial: &str, device: &str) -> CloudDisk {
        serde_json::from_value(json!({
            "DiskId": id, "SerialNumber": serial, "Device": device, "Category": "cloud_essd",
            "Status": "In_use", "Size": 40, "InstanceId": "i-1", "MultiAttach": "Disabled",
        }))
        .unwrap()
    }

    fn local(minor: u32, name: &str, serial: &str) -> LocalDisk {
        LocalDisk {
            device: DevId { major: 253, minor },
            name: name.into(),
            serial: (!serial.is_empty()).then(|| serial.into()),
            bytes: Some(40 << 30),
        }
    }

    /// Which node each disk is taken for; nothing if for none.
    fn nodes(cloud: &[CloudDisk], local: &[LocalDisk]) -> Vec<String> {
        let found = recognise(cloud, local, "i-1");
        let name = |disk: &Disk| {
            if disk.device.is_a_device() { disk.node.display().to_string() } else { String::new() }
        };
        found.iter().map(name).collect()
    }

    #[test]
    fn a_serial_number_decides_against_every_name() {
        let disks = [cloud("d-bp1a", "bp1a", "/dev/xvda"), cloud("d-bp1b", "bp1b", "/dev/xvdb")];
        let local = [local(0, "vda", "bp1b"), local(16, "nvme1n1", "bp1a")];
        assert_eq!(nodes(&disks, &local), ["/dev/nvme1n1", "/dev/vda"]);
    }

    #[test]
    fn without_a_serial_number_of_ecs_the_id_has_it() {
        let disks = [cloud("d-bp1a", "", "/dev/xvda")];
        assert_eq!(nodes(&disks, &[local(0, "vdc", "bp1a")]), ["/dev/vdc"]);
    }

    #[test]
    fn a_serial_number_that_virtio_has_cut_still_fits() {
        let disks = [cloud("d-x", "bp1aaaaaaaaaaaaaaaaaZZ", "")];
        assert_eq!(nodes(&disks, &[local(0, "vda", "bp1aaaaaaaaaaaaaaaaa")]), ["/dev/vda"]);
    }

    #[test]
    fn without_serial_numbers_the_very_node_is_it_and_else_the_same_letter() {
        let disks = [cloud("d-1", "1", "/dev/loop7"), cloud("d-2", "2", "/dev/xvdb")];
        let local = [local(7, "loop7", ""), local(16, "vdb", "")];
        assert_eq!(nodes(&disks, &local), ["/dev/loop7", "/dev/vdb"]);
        let found = recognise(&disks, &local, "i-1");
        assert!(found[0].warnings.is_empty());
        assert!(found[1].warnings[0].contains("no serial number"), "{:?}", found[1].warnings);
    }

    #[test]
    fn a_device_with_another_serial_number_is_another_disk() {
        let disks = [cloud("d-bp1a", "bp1a", "/dev/vda")];
        assert_eq!(nodes(&disks, &[local(0, "vda", "bp1z")]), [""]);
    }

    #[test]
    fn the_same_letter_with_another_size_is_another_disk() {
        let disks = [cloud("d-1", "", "/dev/xvdb")];
        let small = LocalDisk { bytes: Some(20 << 30), ..local(16, "vdb", "") };
        assert_eq!(nodes(&disks, &[small]), [""]);
    }

    #[test]
    fn a_device_that_two_disks_claim_is_neither() {
        let disks = [cloud("d-1", "", "/dev/vdb"), cloud("d-2", "", "/dev/vdb")];
        assert_eq!(nodes(&disks, &[local(16, "vdb", "")]), ["", ""]);
        let twins = [local(0, "vda", "bp1a"), local(16, "vdb", "bp1a")];
        assert_eq!(nodes(&[cloud("d-bp1a", "bp1a", "")], &twins), [""]);
    }

    #[test]
    fn disks_that_are_no_device_here_have_numbers_of_their_own() {
        let disks = [cloud("d-1", "1", "/dev/xvdb"), cloud("d-2", "2", "")];
        let found = recognise(&disks, &[], "i-1");
        assert_ne!(found[0].device, found[1].device);
        assert_eq!(found[0].node, PathBuf::from("/dev/xvdb"));
        assert_eq!(found[1].node, PathBuf::from("d-2"));
    }

    #[test]
    fn a_disk_of_several_instances_is_found_by_its_attachment() {
        let disk: CloudDisk = serde_json::from_value(json!({
            "DiskId": "d-1", "Device": "", "InstanceId": null, "Category": "cloud_essd",
            "Attachments": { "Attachment": [
                { "InstanceId": "i-2", "Device": "/dev/loop1" },
                { "InstanceId": "i-1", "Device": "/dev/loop7" },
            ]},
        }))
        .unwrap();
        assert_eq!(nodes(&[disk], &[local(7, "loop7", "")]), ["/dev/loop7"]);
    }

    #[test]
    fn local_disks_of_the_host_are_left_out_with_a_word() {
        let mut host = cloud("d-2", "2", "");
        host.category = "local_ssd_pro".into();
        let found = recognise(&[cloud("d-1", "1", ""), host], &[], "i-1");
        assert_eq!(found.len(), 1);
        assert!(found[0].warnings[0].contains("d-2 (local_ssd_pro)"), "{:?}", found[0].warnings);
    }

    fn checked(change: impl Fn(&mut serde_json::Value)) -> Option<(ExitCode, String)> {
        let mut other = json!({
            "DiskId": "d-2", "Category": "cloud_auto", "Status": "In_use", "MultiAttach": "Disabled",
        });
        change(&mut other);
        let all = [cloud("d-1", "1", ""), serde_json::from_value(other).unwrap()];
        let wanted = recognise(&all, &[], "i-1");
        let categories = ["cloud_essd".to_owned(), "cloud_auto".to_owned()];
        let error = check(&wanted, &all, &categories).err()?;
        Some((error.exit_code, error.message))
    }

    #[test]
    fn what_cannot_be_in_a_group_is_refused_by_name() {
        assert_eq!(checked(|_| {}), None);
        let cases = [
            (json!({ "Category": "cloud_efficiency" }), ExitCode::Precondition, "cloud_efficiency"),
            (json!({ "MultiAttach": "Enabled" }), ExitCode::Precondition, "several instances"),
            (json!({ "Status": "Detaching" }), ExitCode::CreateFailed, "Detaching"),
            (
                json!({ "OperationLocks": { "OperationLock": [{ "LockReason": "security" }] } }),
                ExitCode::CreateFailed,
                "security",
            ),
        ];
        for (change, code, word) in cases {
            let merge = |disk: &mut serde_json::Value| {
                for (key, value) in change.as_object().unwrap() {
                    disk[key] = value.clone();
                }
            };
            let (exit_code, message) = checked(merge).unwrap();
            assert_eq!(exit_code, code, "{message}");
            assert!(message.contains("d-2") && message.contains(word), "{message}");
        }
    }

    #[test]
    fn an_instance_without_any_essd_has_no_usable_disk() {
        let mut disk = cloud("d-1", "1", "");
        disk.category = "cloud_ssd".into();
        let wanted = recognise(std::slice::from_ref(&disk), &[], "i-1");
        let error = check(&wanted, &[disk], &["cloud_essd".to_owned()]).unwrap_err();
        assert_eq!(error.exit_code, ExitCode::NoUsableDisk);
    }

    /// Serial numbers at the bottom, file systems at the top: a partition, a volume over a virtio
    /// and an NVMe disk, a mirror, and a disk of the instance that is none of the cloud's.
    #[test]
    fn file_systems_are_frozen_with_the_cloud_disks_that_they_lie_on_at_whatever_depth() {
        let number = |minor| DevId { major: 253, minor };
        let cloud = [
            cloud("d-bp1a", "bp1a", "/dev/xvda"),
            cloud("d-bp1b", "bp1b", "/dev/xvdb"),
            cloud("d-bp1c", "bp1c", "/dev/xvdc"),
            cloud("d-bp1d", "bp1d", "/dev/xvdd"),
        ];
        // Found in another order than ECS has them.
        let local = [
            local(0, "vda", "bp1a"),
            local(16, "nvme0n1", "bp1c"),
            local(32, "vdb", "bp1b"),
            local(48, "vdc", "bp1d"),
            local(64, "vdd", ""),
        ];
        let mut inventory = Inventory::default();
        let mut block = |minor, name: &str, partition_of: Option<u32>, slaves: &[u32]| {
            let node = BlockNode {
                device: number(minor),
                name: name.into(),
                partition_of: partition_of.map(number),
                slaves: slaves.iter().copied().map(number).collect(),
                backing: None,
            };
            inventory.blocks.insert(number(minor), node);
        };
        for disk in &local {
            block(disk.device.minor, &disk.name, None, &[]);
        }
        block(1, "vda1", Some(0), &[]);
        block(17, "nvme0n1p1", Some(16), &[]);
        block(100, "dm-0", None, &[17, 32]);
        block(110, "md0", None, &[32, 48]);
        inventory.mounts = crate::plan::parse_mountinfo(
            b"1 0 253:1 / / rw - ext4 /dev/vda1 rw\n\
              2 1 253:100 / /lvm rw - xfs /dev/mapper/vg-lv rw\n\
              3 1 253:110 / /mirror rw - ext4 /dev/md0 rw\n\
              4 1 253:64 / /own rw - ext4 /dev/vdd rw\n",
        )
        .unwrap();
        let disks = recognise(&cloud, &local, "i-1");
        let planned = |exclude: &[&str]| {
            let exclude_disks = exclude.iter().map(|id| (*id).to_owned()).collect();
            let scope = Scope { exclude_disks, ..Scope::default() };
            let plan = plan(&inventory, &disks, &scope).unwrap();
            let frozen =
                plan.file_systems.iter().map(|fs| (fs.mount_point.clone(), fs.disks.clone()));
            (frozen.collect::<BTreeMap<_, _>>(), plan.reasons)
        };
        let (frozen, reasons) = planned(&[]);
        let on = |place: &str| frozen.get(&PathBuf::from(place)).map(|disks| disks.join(" "));
        assert_eq!(on("/").as_deref(), Some("d-bp1a"));
        assert_eq!(on("/lvm").as_deref(), Some("d-bp1b d-bp1c"));
        assert_eq!(on("/mirror").as_deref(), Some("d-bp1b d-bp1d"));
        assert_eq!(on("/own"), None, "it is on no disk of the cloud");
        assert!(reasons.is_empty(), "{reasons:?}");

        // Of the volume and the mirror, a part would be missing: both are named.
        let (frozen, reasons) = planned(&["d-bp1b"]);
        assert_eq!(frozen.keys().collect::<Vec<_>>(), [&PathBuf::from("/")]);
        let named: Vec<&str> = reasons.iter().map(|reason| reason.detail.as_str()).collect();
        assert!(named.iter().any(|detail| detail.contains("/lvm")), "{named:?}");
        assert!(named.iter().any(|detail| detail.contains("/mirror")), "{named:?}");
        assert_eq!(crate::consistency::level_after(&reasons), crate::consistency::Level::Crash);
    }
}
