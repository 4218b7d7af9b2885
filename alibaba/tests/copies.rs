//! Disks of snapshots, against the emulator: made, attached, seen, detached, deleted.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ecs_emulator::{ConnectionFault, Emulator, Fault};
use stillpoint_alibaba::api::{CreateDisk, CreateSnapshotGroup, Disk, GroupFilter, Tag};
use stillpoint_alibaba::{EcsClient, EcsError, SignatureVersion};
use support::{client, emulator, fake, http, plenty, signing, to, two_disks};

const INSTANCE: &str = "i-bp1emulator0000001";
const TAG: &str = "stillpoint-copy-of";

/// A group of one disk, and its snapshot, which can be used.
async fn snapshot(ecs: &EcsClient) -> String {
    let group = CreateSnapshotGroup {
        instance: INSTANCE.into(),
        disks: vec!["d-1".into()],
        name: "LinuxApp1".into(),
        token: "group".into(),
        ..CreateSnapshotGroup::default()
    };
    let never = Arc::new(AtomicBool::new(false));
    let id = ecs.create_snapshot_group(&group, plenty(), plenty(), never).await.unwrap();
    loop {
        let filter = GroupFilter { ids: vec![id.clone()], ..GroupFilter::default() };
        let groups = ecs.describe_snapshot_groups(&filter, plenty()).await.unwrap();
        if let [member] = groups[0].members()
            && member.available
        {
            return member.snapshot_id.clone();
        }
    }
}

fn disk_of(snapshot: &str) -> CreateDisk {
    CreateDisk {
        snapshot: snapshot.into(),
        zone: "cn-hangzhou-i".into(),
        category: "cloud_essd".into(),
        performance_level: "PL0".into(),
        size: Some(40),
        name: "stillpoint-copy".into(),
        description: "a copy: é & =".into(),
        token: "copy-1".into(),
        tags: vec![Tag::new(TAG, "ssg 1+2")],
    }
}

/// Looks until the disk has this status; gives every status on the way.
async fn until(ecs: &EcsClient, id: &str, status: &str) -> (Disk, Vec<String>) {
    let mut seen: Vec<String> = Vec::new();
    for _ in 0..20 {
        let disks = ecs.describe_disks_by_id(&[id.to_owned()], plenty()).await.unwrap();
        let now = disks.first().map(|disk| disk.status.clone()).unwrap_or_default();
        if seen.last() != Some(&now) {
            seen.push(now);
        }
        if let Some(disk) = disks.into_iter().find(|disk| disk.status == status) {
            return (disk, seen);
        }
    }
    panic!("never {status}: {seen:?}");
}

fn statuses(emulator: &Emulator) -> Vec<String> {
    emulator.disks().into_iter().map(|disk| disk.status).collect()
}

#[tokio::test]
async fn a_disk_of_a_snapshot_goes_its_whole_way_by_both_signatures() {
    for version in [SignatureVersion::Acs3, SignatureVersion::RpcV1] {
        let emulator = emulator(two_disks());
        emulator.on_attach(|attaching| Some(format!("/dev/{}", attaching.source_disk)));
        let ecs = signing(&emulator, version).await;
        let snapshot = snapshot(&ecs).await;
        let id = ecs.create_disk(&disk_of(&snapshot), plenty()).await.unwrap();
        // Not listed at once: nothing is not an error.
        let (disk, seen) = until(&ecs, &id, "Available").await;
        assert_eq!(seen, ["", "Creating", "Available"]);
        assert_eq!(disk.source_snapshot_id, snapshot);
        assert_eq!(disk.tag(TAG), Some("ssg 1+2"));
        assert_eq!((disk.performance_level.as_str(), disk.size), ("PL0", Some(40)));
        assert!(!disk.is_at(INSTANCE), "{disk:?}");

        ecs.attach_disk(&id, INSTANCE, true, plenty()).await.unwrap();
        let (disk, _) = until(&ecs, &id, "In_use").await;
        assert!(disk.is_at(INSTANCE) && disk.device == "/dev/d-1", "{disk:?}");
        assert_eq!(format!("d-{}", disk.serial_number), id);
        let found = ecs.describe_disks_by_tags(&[Tag::new(TAG, "")], plenty()).await.unwrap();
        assert_eq!(found, [disk]);
        let other = ecs.describe_disks_by_tags(&[Tag::new(TAG, "ssg-2")], plenty()).await.unwrap();
        assert_eq!(other, []);
        // What is in use is not deleted, by nobody.
        let error = ecs.delete_disk(&id, plenty()).await.unwrap_err();
        assert_eq!(error.code(), Some("IncorrectDiskStatus"));

        ecs.detach_disk(&id, INSTANCE, plenty()).await.unwrap();
        until(&ecs, &id, "Available").await;
        ecs.delete_disk(&id, plenty()).await.unwrap();
        // What is gone is deleted.
        ecs.delete_disk(&id, plenty()).await.unwrap();
        assert_eq!(statuses(&emulator), ["In_use", "In_use"]);
        for call in emulator.log() {
            assert!(call.unknown_parameters.is_empty(), "{call:?}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_is_lost_makes_no_second_disk() {
    let emulator = emulator(two_disks());
    let ecs = client(&emulator).await;
    let snapshot = snapshot(&ecs).await;
    for fault in [ConnectionFault::ResetAfter, ConnectionFault::CloseAfter] {
        emulator.faults([Fault::on("CreateDisk").connection(fault).times(1)]);
        ecs.create_disk(&disk_of(&snapshot), plenty()).await.unwrap();
        assert_eq!(emulator.disks().len(), 3, "{fault:?}");
    }
    let mut other = disk_of(&snapshot);
    other.name = "another".into();
    let error = ecs.create_disk(&other, plenty()).await.unwrap_err();
    assert_eq!(error.code(), Some("IdempotentParameterMismatch"));
}

#[tokio::test]
async fn an_attachment_whose_answer_is_lost_is_refused_the_second_time_and_shown_by_the_disk() {
    let emulator = emulator(two_disks());
    let ecs = client(&emulator).await;
    let id = ecs.create_disk(&disk_of(&snapshot(&ecs).await), plenty()).await.unwrap();
    until(&ecs, &id, "Available").await;
    emulator.faults([Fault::on("AttachDisk").connection(ConnectionFault::CloseAfter).times(1)]);
    let error = ecs.attach_disk(&id, INSTANCE, true, plenty()).await.unwrap_err();
    assert_eq!(error.code(), Some("IncorrectDiskStatus"));
    let (disk, _) = until(&ecs, &id, "In_use").await;
    assert!(disk.is_at(INSTANCE));
}

/// A proxy that says yes to everything has made no disk, or one that nobody knows.
#[tokio::test]
async fn an_answer_without_the_id_of_a_disk_may_have_made_one() {
    let emulator = emulator(two_disks());
    let url = fake(|_| http("200 OK", r#"{"RequestId":"1"}"#));
    let ecs = to(&url, &emulator.imds_url, SignatureVersion::Acs3).await;
    let error = ecs.create_disk(&disk_of("s-1"), plenty()).await.unwrap_err();
    assert!(matches!(error, EcsError::NotAnAnswer { .. }), "{error}");
    assert!(error.may_have_happened());
}

#[tokio::test]
async fn throttling_of_each_of_them_is_waited_for() {
    let emulator = emulator(two_disks());
    let ecs = client(&emulator).await;
    let snapshot = snapshot(&ecs).await;
    let wait = Duration::from_millis(120);
    let actions = ["CreateDisk", "AttachDisk", "DetachDisk", "DeleteDisk"];
    let throttled = |action| Fault::on(action).error("Throttling.User").retry_after(wait).times(1);
    emulator.faults(actions.map(throttled));
    let id = ecs.create_disk(&disk_of(&snapshot), plenty()).await.unwrap();
    until(&ecs, &id, "Available").await;
    ecs.attach_disk(&id, INSTANCE, false, plenty()).await.unwrap();
    until(&ecs, &id, "In_use").await;
    ecs.detach_disk(&id, INSTANCE, plenty()).await.unwrap();
    until(&ecs, &id, "Available").await;
    ecs.delete_disk(&id, plenty()).await.unwrap();
    for action in actions {
        let calls = emulator.calls(action);
        let waited = Duration::from_nanos(calls[1].received_ns - calls[0].received_ns);
        assert!(calls.len() == 2 && waited >= wait, "{action}: {waited:?}");
    }
}

#[tokio::test]
async fn a_role_for_snapshots_alone_is_told_what_copies_need() {
    let mut scenario = two_disks();
    scenario.role = ecs_emulator::Role::of_the_manual();
    let emulator = emulator(scenario);
    let ecs = client(&emulator).await;
    let snapshot = snapshot(&ecs).await;
    let error = ecs.create_disk(&disk_of(&snapshot), plenty()).await.unwrap_err();
    assert_eq!(error.code(), Some("Forbidden.RAM"));
    let hint = error.hint().unwrap();
    for action in ["ecs:CreateDisk", "ecs:AttachDisk", "ecs:DetachDisk", "ecs:DeleteDisk"] {
        assert!(hint.contains(action), "{hint}");
    }
}
