//! The plan's laws, on literal mount tables and block devices.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::*;
use crate::consistency::{Level, ReasonCode, level_after};
use crate::exit_code::ExitCode;
use crate::provider::Disk;

fn dev(text: &str) -> DevId {
    mounts::dev_id(text.as_bytes()).unwrap()
}

/// An inventory in the making.
#[derive(Default)]
struct Machine(Inventory);

impl Machine {
    /// Lines of mountinfo; the file system comes after `-`.
    fn mounted(mut self, text: &str) -> Self {
        self.0.mounts = parse_mountinfo(text.as_bytes()).unwrap();
        self
    }

    fn block(mut self, device: &str, name: &str) -> Self {
        self.add(device, name);
        self
    }

    fn partition(mut self, device: &str, name: &str, of: &str) -> Self {
        self.add(device, name).partition_of = Some(dev(of));
        self
    }

    fn made_of(mut self, device: &str, name: &str, slaves: &[&str]) -> Self {
        self.add(device, name).slaves = slaves.iter().map(|slave| dev(slave)).collect();
        self
    }

    fn ring(mut self, device: &str, name: &str, image: &str) -> Self {
        self.add(device, name).backing =
            Some(BackingFile { path: image.into(), file_system: None, deleted: false });
        self
    }

    fn ring_on(mut self, device: &str, name: &str, image: &str, file_system: &str) -> Self {
        self.add(device, name).backing = Some(BackingFile {
            path: image.into(),
            file_system: Some(dev(file_system)),
            deleted: true,
        });
        self
    }

    fn btrfs(mut self, devices: &[&str]) -> Self {
        let devices = devices.iter().map(|device| dev(device)).collect();
        self.0.btrfs.push(BtrfsDevices { uuid: "6bd0".into(), devices });
        self
    }

    fn on_file(mut self, mount: u64) -> Self {
        self.0.on_files.insert(mount);
        self
    }

    fn add(&mut self, device: &str, name: &str) -> &mut BlockNode {
        let node = BlockNode {
            device: dev(device),
            name: name.into(),
            partition_of: None,
            slaves: Vec::new(),
            backing: None,
        };
        self.0.blocks.entry(dev(device)).or_insert(node)
    }

    fn plan(&self, disks: &[Disk]) -> Result<Plan, PlanError> {
        plan(&self.0, disks, &Scope::default())
    }
}

fn disk(device: &str, name: &str) -> Disk {
    Disk {
        id: format!("d-{name}"),
        device: dev(device),
        node: Path::new("/dev").join(name),
        warnings: Vec::new(),
    }
}

fn waves(plan: &Plan) -> Vec<(usize, String)> {
    plan.file_systems.iter().map(|it| (it.wave, it.mount_point.display().to_string())).collect()
}

fn frozen(plan: &Plan) -> Vec<String> {
    plan.file_systems.iter().map(|it| it.mount_point.display().to_string()).collect()
}

fn skipped(plan: &Plan) -> BTreeMap<String, SkipReason> {
    plan.skipped.iter().map(|it| (it.mount_point.display().to_string(), it.reason)).collect()
}

fn paths(texts: &[&str]) -> Vec<PathBuf> {
    texts.iter().map(PathBuf::from).collect()
}

/// A cloud instance: system disk with an EFI partition, a data disk, and all that is usual.
fn instance() -> Machine {
    Machine::default()
        .mounted(
            "\
22 1 254:1 / / rw shared:1 - ext4 /dev/vda1 rw
23 22 0:21 / /proc rw - proc proc rw
24 22 0:22 / /sys rw - sysfs sysfs rw
25 22 0:6 / /dev rw - devtmpfs udev rw
26 22 0:23 / /run rw - tmpfs tmpfs rw
27 22 254:15 / /boot/efi rw - vfat /dev/vda15 rw
28 22 254:16 / /data rw - xfs /dev/vdb rw
29 22 0:40 / /misc rw - autofs systemd-1 rw,direct
30 22 0:41 / /home rw - nfs4 server:/home rw
31 22 0:42 / /run/user/0/doc rw - fuse.portal portal rw
32 22 0:43 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw,lowerdir=/l,upperdir=/var/u,workdir=/var/w
33 22 7:0 / /snap/core ro - squashfs /dev/loop0 ro
",
        )
        .block("254:0", "vda")
        .partition("254:1", "vda1", "254:0")
        .partition("254:15", "vda15", "254:0")
        .block("254:16", "vdb")
        .ring("7:0", "loop0", "/var/lib/snapd/core.snap")
}

fn both() -> Vec<Disk> {
    vec![disk("254:0", "vda"), disk("254:16", "vdb")]
}

#[test]
fn the_file_systems_of_all_disks_are_frozen_and_everything_else_is_left_alone_with_a_reason() {
    let plan = instance().plan(&both()).unwrap();
    assert_eq!(frozen(&plan), ["/", "/data"]);
    assert_eq!(plan.file_systems[0].disks, ["d-vda"]);
    let skipped = skipped(&plan);
    assert_eq!(skipped["/proc"], SkipReason::NoBlockDevice);
    assert_eq!(skipped["/misc"], SkipReason::Automount);
    assert_eq!(skipped["/home"], SkipReason::Network);
    assert_eq!(skipped["/run/user/0/doc"], SkipReason::UserSpace);
    assert_eq!(skipped["/var/lib/docker/overlay2/x/merged"], SkipReason::NoBlockDevice);
    assert_eq!(skipped["/snap/core"], SkipReason::ReadOnly);
    assert_eq!(skipped["/boot/efi"], SkipReason::NotFreezable { accepted: false });
}

#[test]
fn a_type_that_cannot_be_frozen_lowers_the_level_of_its_disk_unless_accepted_or_read_only() {
    let plan = instance().plan(&both()).unwrap();
    assert_eq!(level_after(&plan.reasons), Level::Crash);
    assert_eq!(plan.reasons[0].code, ReasonCode::NotFreezable);
    assert!(plan.reasons[0].detail.contains("/boot/efi (vfat)"), "{}", plan.reasons[0]);
    let efi = plan.skipped.iter().find(|it| it.fs_type == "vfat").unwrap();
    assert_eq!(efi.disks, ["d-vda"]);
    assert!(efi.reason.lowers_the_level());

    let scope = Scope { accept_unfrozen: paths(&["/boot/efi/"]), ..Scope::default() };
    let accepted = super::plan(&instance().0, &both(), &scope).unwrap();
    assert!(accepted.reasons.is_empty());
    assert_eq!(skipped(&accepted)["/boot/efi"], SkipReason::NotFreezable { accepted: true });

    let mut read_only = instance();
    read_only.0.mounts[5].super_options = "ro".into();
    let plan = read_only.plan(&both()).unwrap();
    assert!(plan.reasons.is_empty());
    assert_eq!(skipped(&plan)["/boot/efi"], SkipReason::ReadOnly);
}

#[test]
fn an_excluded_disk_is_not_frozen() {
    let scope = Scope { exclude_disks: vec!["d-vda".into()], ..Scope::default() };
    let plan = super::plan(&instance().0, &both(), &scope).unwrap();
    assert_eq!(frozen(&plan), ["/data"]);
    assert_eq!(skipped(&plan)["/"], SkipReason::OtherDisk);
    assert!(plan.reasons.is_empty());
    assert_eq!(plan.disks, [disk("254:16", "vdb")]);
}

#[test]
fn disks_are_selected_by_mount_point_by_id_and_by_node() {
    for scope in [
        Scope { mounts: paths(&["/data"]), ..Scope::default() },
        Scope { disks: vec!["d-vdb".into()], ..Scope::default() },
        Scope { disks: vec!["/dev/vdb".into()], ..Scope::default() },
    ] {
        let plan = super::plan(&instance().0, &both(), &scope).unwrap();
        assert_eq!(frozen(&plan), ["/data"], "{scope:?}");
        assert_eq!(plan.disks.len(), 1);
    }
}

#[test]
fn a_selection_that_fits_nothing_says_what_there_is() {
    let fails = |scope: Scope| super::plan(&instance().0, &both(), &scope).unwrap_err();

    let error = fails(Scope { mounts: paths(&["/data/mysql"]), ..Scope::default() });
    assert_eq!(error.exit_code(), ExitCode::Parameters);
    let text = error.to_string();
    assert!(text.contains("/data/mysql is not a mount point (it is on /data)"), "{text}");
    assert!(text.contains("/, /boot/efi, /data"), "{text}");

    let error = fails(Scope { mounts: paths(&["/run"]), ..Scope::default() });
    assert_eq!(error.exit_code(), ExitCode::NoUsableDisk);
    assert!(error.to_string().contains("no block device"), "{error}");

    let error = fails(Scope { disks: vec!["vdz".into()], ..Scope::default() });
    assert!(error.to_string().contains("/dev/vdb = d-vdb"), "{error}");
    let error = fails(Scope { exclude_disks: vec!["vdz".into()], ..Scope::default() });
    assert!(error.to_string().contains("exclude-disks: \"vdz\""), "{error}");

    let all = vec!["d-vda".into(), "/dev/vdb".into()];
    let error = fails(Scope { exclude_disks: all, ..Scope::default() });
    assert_eq!(error.exit_code(), ExitCode::NoUsableDisk);
    assert!(matches!(instance().plan(&[]), Err(PlanError::NoDisks)));
}

#[test]
fn bind_mounts_and_second_mounts_are_one_file_system() {
    let plan = Machine::default()
        .mounted(
            "\
1 0 254:1 / / rw - ext4 /dev/vda1 rw
2 1 254:16 /sub /bound rw - xfs /dev/vdb rw
3 1 254:16 / /data rw - xfs /dev/vdb rw
4 1 254:16 / /a/second/time ro - xfs /dev/vdb rw
",
        )
        .block("254:16", "vdb")
        .plan(&[disk("254:16", "vdb")])
        .unwrap();
    assert_eq!(frozen(&plan), ["/data"]);
    assert_eq!(plan.file_systems[0].mount_id, 3);
    assert_eq!(plan.file_systems[0].other_mounts, paths(&["/a/second/time", "/bound"]));
}

#[test]
fn btrfs_subvolumes_are_one_file_system_on_all_its_devices() {
    let machine = |second: &str| {
        Machine::default()
            .mounted(
                "\
1 0 254:1 / / rw - ext4 /dev/vda1 rw
2 1 0:50 /@home /home rw - btrfs /dev/vdb rw,subvol=/@home
3 1 0:50 /@srv /srv rw - btrfs /dev/vdb rw,subvol=/@srv
",
            )
            .block("254:16", "vdb")
            .block("254:32", second)
            .btrfs(&["254:16", "254:32"])
    };
    let disks = [disk("254:16", "vdb"), disk("254:32", "vdc")];
    let plan = machine("vdc").plan(&disks).unwrap();
    assert_eq!(frozen(&plan), ["/home"]);
    assert_eq!(plan.file_systems[0].disks, ["d-vdb", "d-vdc"]);
    assert_eq!(plan.file_systems[0].other_mounts, paths(&["/srv"]));

    // One of its two devices is not in the snapshot: the copy would be half a file system.
    let plan = machine("vdc").plan(&disks[..1]).unwrap();
    assert_eq!(frozen(&plan), [""; 0]);
    assert_eq!(skipped(&plan)["/home"], SkipReason::DiskExcluded);
    assert!(plan.reasons[0].detail.contains("/dev/vdc"), "{}", plan.reasons[0]);
}

#[test]
fn a_volume_over_two_disks_of_which_one_is_excluded_is_not_frozen_and_named() {
    for (device, name) in [("252:0", "dm-0"), ("9:0", "md0")] {
        let machine = Machine::default()
            .mounted(&format!(
                "1 0 254:1 / / rw - ext4 /dev/vda1 rw\n2 1 {device} / /data rw - xfs /dev/{name} rw\n"
            ))
            .block("254:16", "vdb")
            .partition("254:17", "vdb1", "254:16")
            .block("254:32", "vdc")
            .made_of(device, name, &["254:17", "254:32"]);
        let disks = [disk("254:16", "vdb"), disk("254:32", "vdc")];
        let plan = machine.plan(&disks).unwrap();
        assert_eq!(plan.file_systems[0].disks, ["d-vdb", "d-vdc"]);

        let scope = Scope { exclude_disks: vec!["/dev/vdc".into()], ..Scope::default() };
        let plan = super::plan(&machine.0, &disks, &scope).unwrap();
        assert_eq!(frozen(&plan), [""; 0]);
        assert_eq!(plan.reasons[0].code, ReasonCode::DiskExcluded);
        assert!(plan.reasons[0].detail.contains("d-vdc (excluded)"), "{}", plan.reasons[0]);
    }
}

#[test]
fn an_external_log_counts_as_one_of_the_file_systems_disks() {
    let machine = Machine::default()
        .mounted("1 0 254:16 / /data rw - xfs /dev/vdb rw,logdev=/dev/vdc,noquota\n")
        .block("254:16", "vdb")
        .block("254:32", "vdc");
    let plan = machine.plan(&[disk("254:16", "vdb")]).unwrap();
    assert_eq!(skipped(&plan)["/data"], SkipReason::DiskExcluded);
}

/// Loop devices three deep: /c on loop2 on /b on loop1 on /a on loop0 on /.
fn three_deep() -> Machine {
    Machine::default()
        .mounted(
            "\
1 0 254:1 / / rw - ext4 /dev/vda1 rw
2 1 7:0 / /a rw - xfs /dev/loop0 rw
3 2 7:1 / /a/b rw - ext4 /dev/loop1 rw
4 1 7:2 / /c rw - vfat /dev/loop2 rw
5 1 7:3 / /d rw - ext4 /dev/loop3 rw
",
        )
        .block("254:0", "vda")
        .partition("254:1", "vda1", "254:0")
        .ring("7:0", "loop0", "/srv/a.img")
        .ring("7:1", "loop1", "/a/b.img")
        .ring("7:2", "loop2", "/a/b/c.img")
        .ring("7:3", "loop3", "/c/d.img")
}

#[test]
fn what_is_stacked_is_frozen_before_what_it_lies_on_also_through_what_is_not_frozen() {
    // /c (vfat) cannot be frozen, and /d lies on it.
    let plan = three_deep().plan(&[disk("254:0", "vda")]).unwrap();
    assert_eq!(
        waves(&plan),
        [(0, "/d".into()), (1, "/a/b".into()), (2, "/a".into()), (3, "/".into())]
    );
}

#[test]
fn a_file_system_on_an_excluded_disk_is_not_frozen_even_if_it_is_stacked_on_the_snapshot() {
    let disks = [disk("7:0", "loop0"), disk("7:1", "loop1"), disk("7:2", "loop2")];
    let scope = Scope { exclude_disks: vec!["d-loop1".into()], ..Scope::default() };
    let plan = super::plan(&three_deep().0, &disks, &scope).unwrap();
    assert_eq!(skipped(&plan)["/a/b"], SkipReason::DiskExcluded);
    // Below loop2, the excluded disk only carries it.
    assert_eq!(skipped(&plan)["/c"], SkipReason::NotFreezable { accepted: false });
    assert_eq!(waves(&plan), [(0, "/d".into()), (1, "/a".into())]);
}

#[test]
fn selecting_a_mount_selects_the_topmost_disk_below_it() {
    let disks = [disk("7:0", "loop0"), disk("7:1", "loop1")];
    let scope = Scope { mounts: paths(&["/d"]), ..Scope::default() };
    let plan = super::plan(&three_deep().0, &disks, &scope).unwrap();
    assert_eq!(plan.disks, [disk("7:1", "loop1")]);
    assert_eq!(waves(&plan), [(0, "/d".into()), (1, "/a/b".into())]);
}

#[test]
fn storage_that_lies_on_itself_is_refused_and_the_ring_is_named() {
    let error = Machine::default()
        .mounted(
            "\
1 0 254:1 / / rw - ext4 /dev/vda1 rw
2 1 7:0 / /a rw - ext4 /dev/loop0 rw
3 1 7:1 / /b rw - ext4 /dev/loop1 rw
",
        )
        .ring("7:0", "loop0", "/b/a.img")
        .ring("7:1", "loop1", "/a/b.img")
        .plan(&[disk("7:0", "loop0")])
        .unwrap_err();
    assert_eq!(error.exit_code(), ExitCode::Precondition);
    let text = error.to_string();
    assert!(text.contains("/dev/loop0 (image /b/a.img)"), "{text}");
    assert!(text.contains("file system /b"), "{text}");
}

#[test]
fn a_backing_file_that_was_deleted_or_mounted_over_is_found_by_its_device_number() {
    let machine = |ring: Machine| {
        ring.mounted(
            "\
1 0 254:1 / / rw - ext4 /dev/vda1 rw
2 1 254:16 / /srv rw - xfs /dev/vdb rw
3 1 7:0 / /a rw - ext4 /dev/loop0 rw
",
        )
        .block("254:0", "vda")
        .partition("254:1", "vda1", "254:0")
        .block("254:16", "vdb")
    };
    let by_number = machine(Machine::default().ring_on("7:0", "loop0", "/srv/a.img", "254:1"));
    let plan = by_number.plan(&both()).unwrap();
    assert_eq!(waves(&plan), [(0, "/a".into()), (0, "/srv".into()), (1, "/".into())]);

    // On a file system that is not mounted here: nobody knows its disk.
    let elsewhere = machine(Machine::default().ring_on("7:0", "loop0", "/srv/a.img", "254:99"));
    assert_eq!(skipped(&elsewhere.plan(&both()).unwrap())["/a"], SkipReason::OtherDisk);
}

#[test]
fn a_mount_that_can_be_opened_is_chosen_and_one_that_nobody_can_reach_lowers_the_level() {
    let table = "\
1 0 254:1 / / rw - ext4 /dev/vda1 rw
2 1 254:16 / /data rw - xfs /dev/vdb rw
3 1 0:60 / /nfs rw - nfs server:/x rw
4 3 254:16 / /nfs/data rw - xfs /dev/vdb rw
5 1 254:16 /f /etc/file rw - xfs /dev/vdb rw
6 2 0:61 / /data rw - tmpfs tmpfs rw
";
    let disks = [disk("254:16", "vdb")];
    let machine = |more: &str| {
        Machine::default()
            .mounted(&format!("{table}{more}"))
            .block("254:16", "vdb")
            .on_file(5)
            .plan(&disks)
            .unwrap()
    };
    let plan = machine("7 1 254:16 /part /mnt/very/deep rw - xfs /dev/vdb rw\n");
    assert_eq!(frozen(&plan), ["/mnt/very/deep"]);

    let plan = machine("");
    let hidden = plan.skipped.iter().find(|it| it.fs_type == "xfs").unwrap();
    assert_eq!(hidden.reason, SkipReason::Unreachable);
    assert_eq!(level_after(&plan.reasons), Level::Crash);
    assert!(plan.reasons[0].detail.contains("/data (tmpfs) is mounted over it"));
}

#[test]
fn mount_points_with_odd_names_are_planned_as_they_are() {
    let plan = Machine::default()
        .mounted("1 0 254:16 / /my\\040data\\134x\\012y rw - xfs /dev/vdb rw\n")
        .block("254:16", "vdb")
        .plan(&[disk("254:16", "vdb")])
        .unwrap();
    assert_eq!(plan.file_systems[0].mount_point, Path::new("/my data\\x\ny"));
}

#[test]
fn what_must_stay_writable_may_not_be_on_or_stacked_on_a_frozen_file_system() {
    let disks = [disk("7:0", "loop0")];
    let plan_with = |path: &str| {
        let protected = vec![(PathBuf::from(path), "the run directory".to_owned())];
        super::plan(&three_deep().0, &disks, &Scope { protected, ..Scope::default() })
    };
    assert!(plan_with("/run/stillpoint").is_ok());
    // /c is not frozen itself, but its image lies on what is.
    for path in ["/a/run", "/c/run"] {
        let error = plan_with(path).unwrap_err();
        assert!(matches!(error, PlanError::Protected { .. }), "{error}");
        assert!(error.to_string().contains(path), "{error}");
        assert!(error.to_string().contains("the run directory"), "{error}");
    }
}

#[test]
fn an_overlay_whose_upper_layer_is_frozen_is_not_a_place_to_write() {
    let mut scope = Scope { mounts: paths(&["/"]), ..Scope::default() };
    scope.protected = vec![("/var/lib/docker/overlay2/x/merged/run".into(), "the journal".into())];
    let error = super::plan(&instance().0, &both(), &scope).unwrap_err();
    assert!(matches!(error, PlanError::Protected { .. }), "{error}");
}

#[test]
fn without_freezing_nothing_is_frozen_and_the_level_says_so() {
    let scope = Scope { freeze: false, ..Scope::default() };
    let plan = super::plan(&instance().0, &both(), &scope).unwrap();
    assert!(plan.file_systems.is_empty());
    assert_eq!(skipped(&plan)["/data"], SkipReason::FreezeDisabled);
    assert!(plan.reasons.iter().any(|reason| reason.code == ReasonCode::FreezeDisabled));
}

#[test]
fn zfs_lowers_the_level_because_nobody_says_on_which_disks_it_lies() {
    let mut machine = instance();
    let text = b"40 22 0:70 / /tank rw - zfs tank rw\n";
    machine.0.mounts.extend(parse_mountinfo(text).unwrap());
    let plan = machine.plan(&both()).unwrap();
    assert_eq!(skipped(&plan)["/tank"], SkipReason::NotFreezable { accepted: false });
}

#[test]
fn what_only_another_mount_namespace_has_mounted_lowers_the_level_of_its_disk() {
    let mut machine = instance();
    let mount = machine.0.mounts.remove(6);
    machine.0.elsewhere.push(Elsewhere { process: 4711, command: "postgres".into(), mount });
    let plan = machine.plan(&both()[1..]).unwrap();
    assert!(plan.file_systems.is_empty());
    assert_eq!(skipped(&plan)["/data"], SkipReason::Unreachable);
    assert!(plan.reasons[0].detail.contains("process 4711 (postgres) only"));
    assert_eq!(plan.reasons[0].disks, ["d-vdb"]);
    still_valid(&plan, &machine.0).unwrap();
    // On another disk it is none of our affair, and one that comes later is noticed.
    let other = instance().plan(&both()[..1]).unwrap();
    assert!(still_valid(&other, &machine.0).is_ok());
    let mut later = instance();
    let mut mount = machine.0.elsewhere[0].mount.clone();
    mount.superblock = dev("254:2");
    later = later.partition("254:2", "vda2", "254:0");
    later.0.elsewhere.push(Elsewhere { process: 1, command: "x".into(), mount });
    assert!(still_valid(&other, &later.0).unwrap_err().to_string().contains("/data (xfs)"));
}

#[test]
fn a_plan_holds_until_mounts_or_disks_change() {
    let machine = instance();
    let scope = Scope { mounts: paths(&["/data"]), ..Scope::default() };
    let plan = super::plan(&machine.0, &both(), &scope).unwrap();
    still_valid(&plan, &machine.0).unwrap();

    let after = |change: &dyn Fn(&mut Inventory)| {
        let mut inventory = machine.0.clone();
        change(&mut inventory);
        still_valid(&plan, &inventory).map_err(|error| error.to_string())
    };
    let mount = |line: &str| parse_mountinfo(line.as_bytes()).unwrap().remove(0);

    let gone = after(&|it| it.mounts.retain(|mount| mount.id != 28));
    assert!(gone.unwrap_err().contains("/data was unmounted"));
    let over = after(&|it| it.mounts.push(mount("50 28 0:9 / /data rw - tmpfs t rw")));
    assert!(over.unwrap_err().contains("mounted over /data"));
    let pulled = after(&|it| {
        it.blocks.remove(&dev("254:16"));
    });
    assert!(pulled.unwrap_err().contains("/dev/vdb is gone"));
    let new = |it: &mut Inventory| {
        let node = BlockNode { device: dev("254:17"), ..it.blocks[&dev("254:16")].clone() };
        let node = BlockNode { partition_of: Some(dev("254:16")), name: "vdb1".into(), ..node };
        it.blocks.insert(dev("254:17"), node);
        it.mounts.push(mount("50 22 254:17 / /new rw - ext4 /dev/vdb1 rw"));
    };
    assert!(after(&new).unwrap_err().contains("/new (ext4) was mounted from a disk"));

    // Another bind mount, a container's overlay, a network file system: none of our affair.
    after(&|it| {
        it.mounts.push(mount("51 22 254:16 /x /bind rw - xfs /dev/vdb rw"));
        it.mounts.push(mount("52 22 0:80 / /merged rw - overlay o rw,upperdir=/data/u"));
        it.mounts.push(mount("53 22 0:81 / /share rw - nfs s:/x rw"));
    })
    .unwrap();
}

#[test]
fn the_explanation_says_order_reasons_and_level_in_plain_words() {
    let mut disks = both();
    disks[1].warnings.push("its image has 17395 extents".into());
    let text = explain(&instance().plan(&disks).unwrap());
    for part in [
        "snapshot of 2 disks",
        "warning: its image has 17395 extents",
        "frozen: 2 file systems, in parallel",
        "/data (xfs, /dev/vdb)",
        "/home (nfs4): network file system, never opened",
        "5 mounts not on a block device (devtmpfs, overlay, proc, sysfs, tmpfs)",
        "the level can be crash at best, because",
        "/boot/efi (vfat): its type cannot be frozen (not-freezable)",
    ] {
        assert!(text.contains(part), "no \"{part}\" in\n{text}");
    }
    let text = explain(&three_deep().plan(&[disk("254:0", "vda")]).unwrap());
    assert!(
        text.contains("in 4 waves, what is stacked on another first\n  wave 1\n    /d"),
        "{text}"
    );
}

#[test]
fn the_owner_of_a_path_is_told_through_links_and_for_paths_that_do_not_exist_yet() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().canonicalize().unwrap();
    let text = format!(
        "1 0 254:1 / / rw - ext4 /dev/vda1 rw\n2 1 254:16 / {}/data rw - xfs /dev/vdb rw\n\
         3 1 0:9 / {}/dead rw - nfs s:/x rw\n",
        base.display(),
        base.display()
    );
    let machine = Machine::default().mounted(&text).block("254:16", "vdb").block("254:1", "vda1");
    std::fs::create_dir_all(base.join("data/mysql")).unwrap();
    std::os::unix::fs::symlink("data/mysql", base.join("link")).unwrap();
    std::os::unix::fs::symlink("ring", base.join("ring")).unwrap();
    let plan = machine.plan(&[disk("254:16", "vdb")]).unwrap();
    let owner = |path: PathBuf| find_owner(&machine.0, &plan, &path);

    let linked = owner(base.join("link/ibdata1")).unwrap();
    assert!(linked.frozen && linked.in_snapshot && !linked.exists);
    assert_eq!(linked.path, base.join("data/mysql"));
    assert_eq!(linked.disks, ["d-vdb"]);
    assert!(linked.to_string().contains("does not exist"), "{linked}");

    let outside = owner(base.join("data/../other")).unwrap();
    assert!(!outside.frozen && !outside.in_snapshot);
    assert_eq!(outside.mount_point, Path::new("/"));

    // A dead server is not asked.
    let dead = owner(base.join("dead/deep/down")).unwrap();
    assert_eq!(dead.fs_type, "nfs");

    assert!(owner(base.join("ring")).unwrap_err().to_string().contains("ring"));
    assert!(owner("relative".into()).is_err());
    assert_eq!(canonical(&machine.0, &base.join("link")).unwrap(), base.join("data/mysql"));
    let absent = canonical(&machine.0, &base.join("link/new/dir")).unwrap();
    assert_eq!(absent, base.join("data/mysql/new/dir"));
}

/// Any stack of loop devices: whatever lies on something frozen is in an earlier wave.
#[test]
fn in_any_stack_what_lies_above_is_frozen_before_what_lies_below() {
    let mut seed = 0x2545_f491_4f6c_dd1du64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % below as u64).unwrap()
    };
    for _ in 0..300 {
        let count = 2 + random(12);
        let mut text = String::from("1 0 254:1 / / rw - ext4 /dev/vda1 rw\n");
        let mut machine = Machine::default().block("254:1", "vda1");
        let mut carrier = vec![None; count];
        for (this, carrier) in carrier.iter_mut().enumerate() {
            let fs_type = ["ext4", "xfs", "vfat"][random(3)];
            text +=
                &format!("{} 1 7:{this} / /m{this} rw - {fs_type} /dev/loop{this} rw\n", this + 2);
            *carrier = if this == 0 { None } else { Some(random(this)) };
            let image = carrier.map_or("/i".into(), |on: usize| format!("/m{on}/i"));
            machine = machine.ring(&format!("7:{this}"), &format!("loop{this}"), &image);
        }
        let plan = machine.mounted(&text).plan(&[disk("254:1", "vda1")]).unwrap();
        let wave: BTreeMap<&Path, usize> =
            plan.file_systems.iter().map(|it| (it.mount_point.as_path(), it.wave)).collect();
        for this in 0..count {
            let Some(&above) = wave.get(Path::new(&format!("/m{this}"))) else { continue };
            let mut lower = carrier[this];
            while let Some(on) = lower {
                if let Some(&below) = wave.get(Path::new(&format!("/m{on}"))) {
                    assert!(above < below, "/m{this} and /m{on} in\n{text}");
                }
                lower = carrier[on];
            }
            assert!(above < wave[Path::new("/")]);
        }
    }
}

#[test]
fn a_disk_that_is_no_device_here_is_in_the_snapshot_and_lowers_the_level() {
    let nowhere = |index: usize| Disk {
        id: format!("d-nowhere{index}"),
        device: DevId::of_no_device(index),
        node: "/dev/xvdz".into(),
        warnings: Vec::new(),
    };
    let disks = [disk("254:0", "vda"), nowhere(0), nowhere(1)];
    let plan = instance().plan(&disks).unwrap();
    let found: Vec<_> =
        plan.reasons.iter().filter(|it| it.code == ReasonCode::DeviceNotFound).collect();
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].disks, ["d-nowhere0"]);
    assert_eq!(level_after(&plan.reasons), Level::Crash);

    let scope = Scope { exclude_disks: vec!["d-nowhere0".into()], ..Scope::default() };
    let plan = super::plan(&instance().0, &disks, &scope).unwrap();
    let left: Vec<_> = plan.disks.iter().map(|disk| disk.id.as_str()).collect();
    assert_eq!(left, ["d-vda", "d-nowhere1"], "only the one that was named is left out");
}
