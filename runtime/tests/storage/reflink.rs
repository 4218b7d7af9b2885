//! The provider `reflink`.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use stillpoint::consistency::Level;
use stillpoint::exit_code::ExitCode;
use stillpoint::manifest::{Manifest, SCHEMA_VERSION};
use stillpoint::plan::Inventory;
use stillpoint::provider::reflink::{ReflinkConfig, ReflinkProvider};
use stillpoint::provider::{Disk, Provider, ProviderError};
use stillpoint::time::Deadline;

use crate::lab::{EXT4, Lab, XFS, request, run};

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(30))
}

fn provider() -> ReflinkProvider {
    ReflinkProvider::new(ReflinkConfig::default())
}

fn manifest(group: &str) -> Manifest {
    Manifest {
        schema_version: SCHEMA_VERSION,
        stillpoint: "test".into(),
        run_id: "run".into(),
        name: "nightly".into(),
        description: String::new(),
        started: "2026-11-20T09:30:00Z".into(),
        provider: "reflink".into(),
        group: group.into(),
        level: Level::Application,
        reasons: Vec::new(),
        disks: Vec::new(),
        file_systems: Vec::new(),
        skipped: Vec::new(),
        hooks: Vec::new(),
        steps: Vec::new(),
        timings: Default::default(),
        output_dropped_bytes: 0,
        warnings: Vec::new(),
        verified: None,
    }
}

/// Takes a group from beginning to end and gives its id.
async fn snapshot(provider: &ReflinkProvider, disks: &[Disk]) -> Result<String, ProviderError> {
    let mut group = provider.prepare(request(disks), soon()).await?;
    let created = group.create(soon()).await?;
    assert!(created.point_in_time_fixed);
    let members = group.settle(soon()).await?;
    assert_eq!(members.len(), disks.len());
    group.record(&manifest(&created.id)).await?;
    Ok(created.id)
}

#[tokio::test]
async fn a_group_of_two_is_taken_listed_attached_read_detached_and_deleted() {
    let lab = Lab::xfs();
    let disks = [lab.disk("host/e4.img", EXT4, 64, "e4"), lab.disk("host/xf.img", XFS, 320, "xf")];
    let listed = provider().disks().await.unwrap();
    for disk in &disks {
        assert!(listed.contains(disk), "{disk:?} is not in {listed:?}");
    }
    for place in ["e4", "xf"] {
        fs::write(lab.path(place).join("data"), format!("before, on {place}")).unwrap();
        run("fsfreeze", &["-f", lab.path(place).to_str().unwrap()]);
    }
    let provider = provider();
    let mut group = provider.prepare(request(&disks), soon()).await.unwrap();
    let created = group.create(soon()).await.unwrap();
    for place in ["e4", "xf"] {
        run("fsfreeze", &["-u", lab.path(place).to_str().unwrap()]);
        fs::write(lab.path(place).join("data"), "after").unwrap();
    }
    let summary = provider.list().await.unwrap().into_iter().find(|it| it.id == created.id);
    assert!(summary.unwrap().incomplete.unwrap().contains("did not get to its end"));

    let members = group.settle(soon()).await.unwrap();
    assert_eq!(members[0].disk, disks[0].id);
    assert_eq!(members[0].bytes, Some(64 << 20));
    assert_eq!(group.settle(soon()).await.unwrap(), members, "settle is not idempotent");
    group.record(&manifest(&created.id)).await.unwrap();

    // While the run lives, nobody else touches its group.
    let busy = provider.delete(&created.id).await.unwrap_err();
    assert_eq!(busy.exit_code, ExitCode::InProgress);
    drop(group);

    let groups = provider.list().await.unwrap();
    let summary = groups.iter().find(|it| it.id == created.id).unwrap();
    assert_eq!(summary.incomplete, None);
    assert_eq!(summary.members, members);
    assert_eq!(summary.manifest.as_ref().unwrap().level, Level::Application);

    let before = fs::read(&members[0].snapshot).unwrap();
    let copies = provider.attach_copy(&created.id).await.unwrap();
    assert_eq!(copies.len(), 2);
    let twice = provider.attach_copy(&created.id).await.unwrap_err();
    assert!(twice.to_string().contains("attached already, as /dev/loop"), "{twice}");

    let copy = |index: usize| copies[index].node.to_str().unwrap();
    // Frozen when cloned: nothing to replay. (XFS leaves a record for inodes that were unlinked but
    // open; so there the proof is that the data is there without a replay.)
    let state = run("dumpe2fs", &["-h", copy(0)]);
    assert!(!state.contains("needs_recovery"), "{state}");
    let at = |place: &str| lab.path(&format!("copy-{place}"));
    for place in ["e4", "xf"] {
        fs::create_dir(at(place)).unwrap();
    }
    run("mount", &["-o", "ro,norecovery,nouuid", copy(1), at("xf").to_str().unwrap()]);
    assert_eq!(fs::read_to_string(at("xf").join("data")).unwrap(), "before, on xf");
    run("umount", &[at("xf").to_str().unwrap()]);
    for (index, place, options) in [(0, "e4", "rw"), (1, "xf", "nouuid")] {
        run("mount", &["-o", options, copy(index), at(place).to_str().unwrap()]);
        let data = fs::read_to_string(at(place).join("data")).unwrap();
        assert_eq!(data, format!("before, on {place}"));
        fs::write(at(place).join("new"), "only in the copy").unwrap();
    }
    // An attached copy is not a disk of the instance.
    let listed = provider.disks().await.unwrap();
    assert!(!listed.iter().any(|disk| disk.node == copies[0].node), "{listed:?}");

    let attached = provider.delete(&created.id).await.unwrap_err();
    assert_eq!(attached.exit_code, ExitCode::GroupState);
    assert!(attached.to_string().contains("attached as /dev/loop"), "{attached}");
    let mounted = provider.detach_copy(&created.id).await.unwrap_err();
    assert!(mounted.to_string().contains("copy-e4"), "{mounted}");

    for place in ["e4", "xf"] {
        run("umount", &[at(place).to_str().unwrap()]);
    }
    provider.detach_copy(&created.id).await.unwrap();
    provider.detach_copy(&created.id).await.unwrap();
    assert!(fs::read(&members[0].snapshot).unwrap() == before, "the group was written to");
    provider.delete(&created.id).await.unwrap();
    assert_eq!(lab.groups_left("host/.stillpoint"), [""; 0]);
    let gone = provider.delete(&created.id).await.unwrap_err();
    assert_eq!(gone.exit_code, ExitCode::GroupState);
}

#[tokio::test]
async fn images_on_several_host_file_systems_are_one_group() {
    let lab = Lab::xfs();
    lab.host("second", &["mkfs.btrfs", "-q"], 300);
    let disks = [lab.disk("host/a.img", EXT4, 32, "a"), lab.disk("second/b.img", EXT4, 32, "b")];
    let provider = provider();
    let id = snapshot(&provider, &disks).await.unwrap();
    let groups = provider.list().await.unwrap();
    let group = groups.iter().find(|it| it.id == id).unwrap();
    assert_eq!(group.incomplete, None);
    assert!(group.members[1].snapshot.contains("/second/.stillpoint/"), "{group:?}");
    assert_eq!(provider.attach_copy(&id).await.unwrap().len(), 2);
    provider.detach_copy(&id).await.unwrap();
    provider.delete(&id).await.unwrap();
    for host in ["host", "second"] {
        assert_eq!(lab.groups_left(&format!("{host}/.stillpoint")), [""; 0]);
    }
}

#[tokio::test]
async fn a_configured_directory_keeps_the_group_when_the_loop_device_is_gone() {
    let lab = Lab::xfs();
    let disks = [lab.disk("host/a.img", EXT4, 32, "a")];
    let config = ReflinkConfig { directory: Some(lab.path("host/clones")) };
    let beside = provider();
    let provider = ReflinkProvider::new(config);
    let id = snapshot(&provider, &disks).await.unwrap();
    run("umount", &[lab.path("a").to_str().unwrap()]);
    run("losetup", &["-d", disks[0].node.to_str().unwrap()]);
    fs::remove_file(&disks[0].id).unwrap();

    assert_eq!(provider.list().await.unwrap().len(), 1);
    let copies = provider.attach_copy(&id).await.unwrap();
    run("e2fsck", &["-fn", copies[0].node.to_str().unwrap()]);
    provider.detach_copy(&id).await.unwrap();

    // Beside no image, nothing leads to it, and the error says what would.
    let lost = beside.delete(&id).await.unwrap_err();
    assert!(lost.hint.unwrap().contains("directory"));
    provider.delete(&id).await.unwrap();
}

#[tokio::test]
async fn without_room_for_changes_there_is_an_error_and_nothing_is_left() {
    let lab = Lab::new(&["mkfs.xfs", "-q", "-m", "reflink=1"], 320);
    let disks = [lab.disk("host/a.img", EXT4, 32, "a")];
    let room = nix::sys::statvfs::statvfs(&lab.path("host")).unwrap();
    let free = ((room.blocks_available() * room.fragment_size()) >> 20) - 4;
    let ballast = lab.path("host/ballast");
    run("fallocate", &["-l", &format!("{free}MiB"), ballast.to_str().unwrap()]);
    let error = snapshot(&provider(), &disks).await.unwrap_err();
    assert_eq!(error.exit_code, ExitCode::CreateFailed);
    assert!(error.to_string().contains("MiB are free"), "{error}");
    assert!(error.hint.unwrap().contains("delete old groups"));
    assert_eq!(lab.groups_left("host/.stillpoint"), [""; 0]);
}

#[tokio::test]
async fn a_disk_that_fills_up_after_the_preparation_leaves_no_group() {
    let lab = Lab::new(&["mkfs.btrfs", "-q", "--mixed"], 120);
    let disks = [lab.disk("host/a.img", EXT4, 32, "a")];
    // Many extents, so that the clone needs metadata of its own.
    let image = fs::OpenOptions::new().write(true).open(&disks[0].id).unwrap();
    for block in 0..4000u64 {
        image.write_all_at(&[7; 512], (4 << 20) + block * 5120).unwrap();
    }
    image.sync_all().unwrap();
    let provider = provider();
    let mut group = provider.prepare(request(&disks), soon()).await.unwrap();
    let ballast = fs::File::create(lab.path("host/ballast")).unwrap();
    let mut at = 0;
    for size in [1 << 20, 4096, 512] {
        while ballast.write_all_at(&vec![1; size], at).is_ok() {
            at += size as u64;
        }
    }
    let _ = ballast.sync_all();
    let ended = match group.create(soon()).await {
        Ok(_) => group.settle(soon()).await.map(drop),
        Err(error) => Err(error),
    };
    if let Err(error) = &ended {
        assert!(matches!(error.exit_code, ExitCode::CreateFailed | ExitCode::MemberState));
        assert!(error.hint.as_ref().unwrap().contains("is full"), "{error:?}");
    }
    drop(ballast);
    fs::remove_file(lab.path("host/ballast")).unwrap();
    group.discard().await.unwrap();
    group.discard().await.unwrap();
    assert_eq!(lab.groups_left("host/.stillpoint"), [""; 0]);
    assert!(ended.is_err(), "the disk was not full enough to show it");
}

#[tokio::test]
async fn a_badly_fragmented_image_is_warned_about_with_its_extents_and_what_to_do() {
    let lab = Lab::xfs();
    let image = lab.path("host/frag.img");
    {
        let file = fs::File::create(&image).unwrap();
        for block in 0..2500u64 {
            file.write_all_at(&[1; 4096], block * 8192).unwrap();
        }
        file.sync_all().unwrap();
    }
    let node = run("losetup", &["--show", "-f", image.to_str().unwrap()]);
    let disks = provider().disks().await.unwrap();
    let disk = disks.iter().find(|disk| disk.node == Path::new(&node)).unwrap();
    let [warning] = disk.warnings.as_slice() else { panic!("{disk:?}") };
    let extents: u32 =
        warning.split(' ').find_map(|word| word.parse().ok()).expect("a number of extents");
    assert!(extents >= 2500, "{warning}");
    assert!(warning.contains("cp --reflink=never --sparse=always"), "{warning}");
    assert!(warning.contains("cowextsize 1m"), "{warning}");
}

#[tokio::test]
async fn a_host_that_cannot_share_extents_is_refused_in_words() {
    for (mkfs, words) in [
        (EXT4, "(ext4), where extents cannot be shared"),
        (&["mkfs.xfs", "-q", "-m", "reflink=0"] as &[&str], "made without reflink=1"),
    ] {
        let lab = Lab::new(mkfs, 320);
        let disks = [lab.disk("host/a.img", EXT4, 16, "a")];
        let error = snapshot(&provider(), &disks).await.unwrap_err();
        assert_eq!(error.exit_code, ExitCode::NoUsableDisk);
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.hint.unwrap().contains("XFS (made with reflink=1) or btrfs"));
        assert!(!lab.path("host/.stillpoint").exists());
    }
}

#[tokio::test]
async fn an_image_that_was_swapped_or_deleted_is_refused() {
    let lab = Lab::xfs();
    let disks = [lab.disk("host/a.img", EXT4, 16, "a")];
    let image = Path::new(&disks[0].id);
    let saved = lab.path("host/saved.img");
    fs::rename(image, &saved).unwrap();
    fs::copy(&saved, image).unwrap();
    // The kernel shows the new name of the file that it has.
    let error = snapshot(&provider(), &disks).await.unwrap_err();
    assert!(error.to_string().contains("its image is"), "{error}");
    assert!(error.to_string().contains("saved.img now"), "{error}");

    fs::remove_file(&saved).unwrap();
    let error = snapshot(&provider(), &disks).await.unwrap_err();
    assert!(error.to_string().contains("was deleted"), "{error}");
    assert_eq!(lab.groups_left("host/.stillpoint"), [""; 0]);
}

#[tokio::test]
async fn another_file_at_the_place_of_a_hidden_image_is_not_taken_for_it() {
    let lab = Lab::xfs();
    lab.host("second", &["mkfs.xfs", "-q", "-m", "reflink=1"], 320);
    let disks = [lab.disk("host/a.img", EXT4, 16, "a")];
    fs::copy(&disks[0].id, lab.path("second/a.img")).unwrap();
    let (second, host) = (lab.path("second"), lab.path("host"));
    run("mount", &["--bind", second.to_str().unwrap(), host.to_str().unwrap()]);
    let error = snapshot(&provider(), &disks).await.unwrap_err();
    assert_eq!(error.exit_code, ExitCode::NoUsableDisk);
    assert!(error.to_string().contains("another file is at the place of its image"), "{error}");
}

#[tokio::test]
async fn clones_are_never_written_to_a_file_system_that_is_frozen_then() {
    let lab = Lab::xfs();
    let disks = [lab.disk("host/a.img", EXT4, 16, "a")];
    let inventory = Inventory::collect().unwrap();
    let host = lab.path("host");
    let frozen = inventory.mounts.iter().find(|mount| mount.mount_point == host).unwrap();
    let mut asked = request(&disks);
    asked.frozen_superblocks = vec![frozen.superblock];
    let error = provider().prepare(asked, soon()).await.unwrap_err();
    assert_eq!(error.exit_code, ExitCode::Precondition);
    assert!(error.to_string().contains(host.to_str().unwrap()), "{error}");
    assert!(!lab.path("host/.stillpoint").exists());
}

#[tokio::test]
async fn a_preparation_that_is_given_up_leaves_nothing() {
    let lab = Lab::xfs();
    let disks = [lab.disk("host/a.img", EXT4, 16, "a")];
    let group = provider().prepare(request(&disks), soon()).await.unwrap();
    assert_eq!(lab.groups_left("host/.stillpoint").len(), 1);
    drop(group);
    assert_eq!(lab.groups_left("host/.stillpoint"), [""; 0]);
}

#[tokio::test]
async fn an_id_that_is_no_id_is_refused_before_anything_is_touched() {
    for id in ["", "..", "../../etc", "20261120T093000Z-a-0f3a91c2/..", "x.incomplete"] {
        let error = provider().delete(id).await.unwrap_err();
        assert_eq!(error.exit_code, ExitCode::Parameters, "{id}");
    }
}
