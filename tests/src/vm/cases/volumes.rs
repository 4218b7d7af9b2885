//! File systems on partitions, logical volumes and mirrors: which disks are below them.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::stillpoint::Run;
use crate::vm::bench::Bench;
use crate::vm::guest::Guest;
use crate::vm::machine::{DATA_DISKS, Machine, disk_id, serial};

/// A node that udev made for this serial number: not the way in which stillpoint looks.
fn node(disk: &str) -> String {
    format!("/dev/disk/by-id/virtio-{}", serial(disk))
}

/// The ids of these disks, sorted.
fn ids(disks: &[&str]) -> Vec<String> {
    let mut ids: Vec<_> = disks.iter().map(|disk| disk_id(disk)).collect();
    ids.sort();
    ids
}

fn frozen(run: &Run) -> Result<Vec<String>> {
    let manifest = run.manifest()?;
    let list = manifest.at("/file_systems")?.as_array().context("no list")?.clone();
    let mount = |fs: &Value| Some(fs.get("mount_point")?.as_str()?.to_owned());
    let mut mounts: Vec<_> = list.iter().filter_map(mount).collect();
    mounts.sort();
    Ok(mounts)
}

/// Each data disk has an ext4 of its own, and the cloud calls the nodes otherwise than the kernel.
pub(super) fn serials(machine: &mut Machine) -> Result<String> {
    let guest = machine.guest()?;
    let mut make = String::new();
    for disk in DATA_DISKS {
        make += &format!(
            "mkfs.ext4 -qF {0} && mkdir -p /mnt/{disk} && mount {0} /mnt/{disk} || exit 1\n",
            node(disk)
        );
    }
    guest.sh(&make)?;
    for disk in DATA_DISKS {
        let mount = format!("/mnt/{disk}");
        let bench = Bench::new(guest, &[&mount])?;
        let run = bench.snapshot("")?;
        run.succeeded()?;
        ensure!(frozen(&run)? == [mount.clone()], "{}", run.description());
        let disks = bench.disks_of_last_group()?;
        ensure!(disks == ids(&[disk]), "{mount} is on {disk}, and the group has {disks:?}");
        bench.all_is_well(&[&mount])?;
    }
    guest.sh("umount /mnt/data* && wipefs -qa /dev/disk/by-id/virtio-bp1vmdata?")?;
    Ok(format!("{} disks, each by its serial number", DATA_DISKS.len()))
}

/// `/lvm` striped over data1 and data2; data3 has `/part` and one half of the mirror `/mirror`, of
/// which data4 is the other.
fn make_stack(guest: &Guest) -> Result<()> {
    let [one, two, three, four] = DATA_DISKS.map(node);
    guest
        .sh(&format!(
            "set -e\n\
         vgcreate -qy vg {one} {two}\n\
         lvcreate -qy -n lv -i 2 -l 100%FREE vg\n\
         printf ',100M\\n,200M\\n' | sfdisk -q {three}\n\
         udevadm settle\n\
         mdadm --create /dev/md0 --run --quiet --assume-clean --level=1 --raid-devices=2 \
               {three}-part2 {four}\n\
         mkfs.xfs -q /dev/vg/lv; mkfs.ext4 -q {three}-part1; mkfs.ext4 -q /dev/md0\n\
         mkdir -p /lvm /part /mirror\n\
         mount /dev/vg/lv /lvm; mount {three}-part1 /part; mount /dev/md0 /mirror"
        ))
        .map(drop)
}

fn remove_stack(guest: &Guest) -> Result<()> {
    let three = node("data3");
    guest
        .sh(&format!(
            "umount /lvm /part /mirror; vgremove -qfy vg; mdadm --stop --quiet /dev/md0;\n\
         wipefs -qa {three}-part1 {three}-part2; wipefs -qa {three}; partx -d {three};\n\
         wipefs -qa /dev/disk/by-id/virtio-bp1vmdata?; true"
        ))
        .map(drop)
}

pub(super) fn stacked(machine: &mut Machine) -> Result<String> {
    let guest = machine.guest()?;
    make_stack(guest)?;
    let below: [(&str, &[&str]); 3] =
        [("/lvm", &["data1", "data2"]), ("/part", &["data3"]), ("/mirror", &["data3", "data4"])];
    for (mount, disks) in below {
        let bench = Bench::new(guest, &[mount])?;
        let run = bench.snapshot("")?;
        let run = run.succeeded()?;
        let group = bench.disks_of_last_group()?;
        ensure!(group == ids(disks), "{mount}: the group has {group:?}\n{}", run.description());
        ensure!(frozen(run)?.contains(&mount.to_owned()), "{}", run.description());
        bench.all_is_well(&["/lvm", "/part", "/mirror"])?;
    }
    let bench = Bench::new(guest, &[])?;
    let run = bench.snapshot("")?;
    let run = run.succeeded()?;
    ensure!(frozen(run)? == ["/", "/lvm", "/mirror", "/part"], "{}", run.description());
    ensure!(run.manifest()?.level()? == "file-system", "{}", run.description());
    let all = ids(&["data1", "data2", "data3", "data4", "root"]);
    ensure!(bench.disks_of_last_group()? == all, "{}", run.description());
    bench.all_is_well(&["/", "/lvm", "/part", "/mirror"])?;
    remove_stack(guest)?;
    Ok("/lvm on 2 disks, /part on 1, /mirror on 2; all of them with / in one group of 5".to_owned())
}

pub(super) fn partly_excluded(machine: &mut Machine) -> Result<String> {
    let guest = machine.guest()?;
    make_stack(guest)?;
    let bench = Bench::new(guest, &[])?;
    let run = bench.snapshot(&format!("--exclude-disk {}", disk_id("data2")))?;
    let run = run.succeeded()?;
    let manifest = run.manifest()?;
    ensure!(frozen(run)? == ["/", "/mirror", "/part"], "{}", run.description());
    ensure!(manifest.level()? == "crash", "{}", run.description());
    let reasons = manifest.at("/reasons")?.to_string();
    ensure!(reasons.contains("/lvm"), "the reason names the volume: {reasons}");
    let group = bench.disks_of_last_group()?;
    ensure!(group == ids(&["data1", "data3", "data4", "root"]), "the group has {group:?}");

    let exclude = format!("--require file-system --exclude-disk {}", disk_id("data2"));
    let refused = bench.snapshot(&exclude)?;
    refused.exited_with(1)?;
    bench.all_is_well(&["/", "/lvm", "/part", "/mirror"])?;
    remove_stack(guest)?;
    Ok("level crash, /lvm named; with --require file-system refused".to_owned())
}
