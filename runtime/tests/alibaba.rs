//! The provider `alibaba` against the emulator of ECS: everything but the freeze.

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "common/cloud.rs"]
mod cloud;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cloud::{RUN, manifest};
use ecs_emulator::{ConnectionFault, Disk, Emulator, Fault, GroupStatus, Outcome, Role, Scenario};
use stillpoint::consistency::{Level, Reason, ReasonCode};
use stillpoint::exit_code::ExitCode;
use stillpoint::manifest::{HookRecord, MetadataEntry, MetadataValue};
use stillpoint::provider::alibaba::{AlibabaProvider, AlibabaSettings, PointInTime, WaitFor};
use stillpoint::provider::{GroupRequest, PreparedGroup, Provider, ProviderError};
use stillpoint::time::Deadline;

/// An instance with two disks, and a place for its manifests.
struct Lab {
    emulator: Emulator,
    folder: tempfile::TempDir,
}

impl Lab {
    fn new(scenario: Scenario) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, device) in [("loop1", "7:1"), ("loop2", "7:2"), ("loop3", "7:3")] {
            let block = folder.path().join("sys/block").join(name);
            std::fs::create_dir_all(&block).unwrap();
            std::fs::write(block.join("dev"), device).unwrap();
        }
        Self { emulator: Emulator::start(scenario).unwrap(), folder }
    }

    fn settings(&self) -> AlibabaSettings {
        AlibabaSettings {
            endpoint: Some(self.emulator.ecs_url.clone()),
            metadata_endpoint: Some(self.emulator.imds_url.clone()),
            late_group: Duration::from_secs(8),
            manifests: self.folder.path().join("manifests"),
            sys: self.folder.path().join("sys"),
            ..AlibabaSettings::default()
        }
    }

    fn provider(&self) -> AlibabaProvider {
        AlibabaProvider::new(self.settings()).unwrap()
    }

    /// All disks, ready for the window.
    async fn prepared(&self) -> Box<dyn PreparedGroup> {
        self.prepare(&self.provider()).await.unwrap()
    }

    async fn prepare(
        &self,
        provider: &AlibabaProvider,
    ) -> Result<Box<dyn PreparedGroup>, ProviderError> {
        let request = GroupRequest {
            run_id: RUN.into(),
            name: "LinuxApp1".into(),
            description: String::new(),
            disks: provider.disks().await?,
            frozen_mounts: Vec::new(),
            frozen_superblocks: Vec::new(),
        };
        provider.prepare(request, plenty()).await
    }

    fn count(&self, action: &str) -> usize {
        self.emulator.calls(action).len()
    }
}

fn two_disks() -> Scenario {
    Scenario::with_disks([Disk::at("d-1", "/dev/loop1"), Disk::at("d-2", "/dev/loop2")])
}

fn plenty() -> Deadline {
    Deadline::after(Duration::from_secs(30))
}

fn window(milliseconds: u64) -> Deadline {
    Deadline::after(Duration::from_millis(milliseconds))
}

#[tokio::test]
async fn a_group_is_made_settled_tagged_listed_and_deleted() {
    let mut scenario = two_disks();
    scenario.group.hidden_looks = 3;
    let lab = Lab::new(scenario);
    let provider = lab.provider();
    let mut group = lab.prepare(&provider).await.unwrap();
    let created = group.create(window(5_000)).await.unwrap();
    assert!(created.point_in_time_fixed);
    let members = group.settle(plenty()).await.unwrap();
    let disks: Vec<_> = members.iter().map(|member| member.disk.as_str()).collect();
    assert_eq!(disks, ["d-1", "d-2"]);
    assert_eq!(members[0].bytes, Some(40 << 30));
    let manifest = manifest(&created.id, Level::Application, &members);
    group.record(&manifest).await.unwrap();

    let seen = &lab.emulator.groups()[0];
    assert_eq!(seen.tag("AppConsistent"), Some("True"));
    assert_eq!(seen.tag("FsConsistent"), None);
    assert_eq!(seen.tag("stillpoint-level"), Some("application"));
    assert_eq!(seen.tag("stillpoint-run-id"), Some(RUN));
    assert_eq!(seen.client_token.as_deref(), Some(RUN));
    let create = &lab.emulator.calls("CreateSnapshotGroup")[0];
    assert_eq!(create.parameters["DiskId.2"], "d-2");
    assert!(create.unknown_parameters.is_empty(), "{create:?}");

    let listed = provider.list().await.unwrap();
    assert_eq!(listed[0].id, created.id);
    assert_eq!(listed[0].manifest.as_deref(), Some(&manifest));
    assert_eq!(listed[0].incomplete, None);
    provider.delete(&created.id).await.unwrap();
    assert!(lab.emulator.groups().is_empty());
    assert!(provider.list().await.unwrap().is_empty());
    let kept = std::fs::read_dir(lab.folder.path().join("manifests")).unwrap().count();
    assert_eq!(kept, 0, "the manifest goes with its group");
}

#[tokio::test]
async fn the_window_holds_one_request_on_the_connection_that_was_open() {
    let mut scenario = two_disks();
    scenario.group.hidden_looks = 2;
    let lab = Lab::new(scenario);
    let mut group = lab.prepared().await;
    lab.emulator.clear_log();
    let before = lab.emulator.log().len();
    assert_eq!(before, 0);
    group.about_to_freeze(window(1_000)).await.unwrap();
    group.create(window(5_000)).await.unwrap();
    let log = lab.emulator.log();
    let actions: Vec<_> = log.iter().map(|call| call.action.as_str()).collect();
    let look = "DescribeSnapshotGroups";
    // Two that show no group, one that shows members of which nothing is known yet.
    assert_eq!(actions, ["CreateSnapshotGroup", look, look, look, look]);
    assert!(log.iter().all(|call| call.connection == 1), "{log:?}");
}

#[tokio::test]
async fn a_member_that_is_listed_and_neither_usable_nor_copied_does_not_end_the_window() {
    let mut scenario = two_disks();
    scenario.group.unavailable_looks = 5;
    scenario.group.progress_looks = 1_000;
    let lab = Lab::new(scenario);
    let mut group = lab.prepared().await;
    lab.emulator.clear_log();
    group.create(window(5_000)).await.unwrap();
    assert_eq!(lab.count("DescribeSnapshotGroups"), 6);
}

#[tokio::test]
async fn accepted_is_enough_where_the_operator_says_so() {
    let mut scenario = two_disks();
    scenario.group.hidden_looks = 1_000;
    let lab = Lab::new(scenario);
    let settings = AlibabaSettings { point_in_time: PointInTime::Accepted, ..lab.settings() };
    let provider = AlibabaProvider::new(settings).unwrap();
    let mut group = lab.prepare(&provider).await.unwrap();
    lab.emulator.clear_log();
    group.create(window(5_000)).await.unwrap();
    assert_eq!(lab.count("DescribeSnapshotGroups"), 0);
}

#[tokio::test]
async fn a_group_that_is_never_listed_is_too_late_and_is_removed() {
    let mut scenario = two_disks();
    scenario.group.hidden_looks = 1_000;
    let lab = Lab::new(scenario);
    let mut group = lab.prepared().await;
    let error = group.create(window(500)).await.unwrap_err();
    assert_eq!(error.exit_code, ExitCode::GroupTimedOut);
    group.discard().await.unwrap();
    assert!(lab.emulator.groups().is_empty());
}

#[tokio::test]
async fn a_group_whose_answer_comes_too_late_is_found_and_removed() {
    // Before the effect: the group comes into being when file systems run again.
    let slow = |fault: Fault| {
        let lab = Lab::new(two_disks().fault(fault));
        async move {
            let mut group = lab.prepared().await;
            let began = Instant::now();
            let error = group.create(window(300)).await.unwrap_err();
            assert!(began.elapsed() < Duration::from_millis(1_500), "{:?}", began.elapsed());
            assert_eq!(error.exit_code, ExitCode::GroupTimedOut);
            group.discard().await.unwrap();
            assert_eq!(lab.count("CreateSnapshotGroup"), 1);
            assert_eq!(lab.count("DeleteSnapshotGroup"), 1);
            assert!(lab.emulator.groups().is_empty());
        }
    };
    let create = || Fault::on("CreateSnapshotGroup");
    slow(create().delay_before(Duration::from_secs(3))).await;
    slow(create().delay_after(Duration::from_secs(3))).await;
    slow(create().connection(ConnectionFault::HangAfter)).await;
}

#[tokio::test]
async fn a_request_that_nobody_waits_for_any_more_is_not_sent_again() {
    let fault = Fault::on("CreateSnapshotGroup").error("InternalError");
    let lab = Lab::new(two_disks().fault(fault));
    let mut group = lab.prepared().await;
    {
        let create = group.create(window(5_000));
        tokio::pin!(create);
        // Dropped once the first attempt is on its way: the window was broken.
        while lab.count("CreateSnapshotGroup") == 0 {
            let _ = tokio::time::timeout(Duration::from_millis(1), &mut create).await;
        }
    }
    lab.emulator.faults([]);
    let sent = lab.count("CreateSnapshotGroup");
    group.discard().await.unwrap();
    assert!(lab.count("CreateSnapshotGroup") <= sent, "an attempt was begun after the window");
    assert!(lab.emulator.groups().is_empty());
}

#[tokio::test]
async fn a_group_that_the_role_may_not_delete_is_tagged_so_that_nobody_believes_it() {
    let scenario = Scenario { role: Role::of_the_manual(), ..two_disks() };
    let fault = Fault::on("CreateSnapshotGroup").delay_after(Duration::from_secs(2));
    let lab = Lab::new(scenario.fault(fault));
    let mut group = lab.prepared().await;
    group.create(window(200)).await.unwrap_err();
    let error = group.discard().await.unwrap_err();
    assert!(error.to_string().contains("stillpoint-unusable"), "{error}");
    let groups = lab.emulator.groups();
    assert_eq!(groups.len(), 1);
    assert_eq!(groups[0].tag("stillpoint-unusable"), Some("True"));
    assert_eq!(groups[0].tag("AppConsistent"), Some("False"));
    assert_eq!(groups[0].tag("FsConsistent"), Some("False"));
    assert!(error.to_string().contains(&groups[0].id), "{error}");
}

#[tokio::test]
async fn a_request_that_was_refused_leaves_nothing_to_look_for() {
    let fault = Fault::on("CreateSnapshotGroup").error("QuotaExceed.Snapshot");
    let lab = Lab::new(two_disks().fault(fault));
    let mut group = lab.prepared().await;
    assert_eq!(group.create(window(5_000)).await.unwrap_err().exit_code, ExitCode::Quota);
    lab.emulator.clear_log();
    group.discard().await.unwrap();
    group.discard().await.unwrap();
    assert!(lab.emulator.log().is_empty());
}

#[tokio::test]
async fn a_group_that_may_be_there_and_is_not_found_is_told() {
    let fault = Fault::on("CreateSnapshotGroup").connection(ConnectionFault::HangBefore);
    let lab = Lab::new(two_disks().fault(fault));
    let settings = AlibabaSettings { late_group: Duration::from_millis(700), ..lab.settings() };
    let provider = AlibabaProvider::new(settings).unwrap();
    let mut group = lab.prepare(&provider).await.unwrap();
    group.create(window(200)).await.unwrap_err();
    let error = group.discard().await.unwrap_err();
    assert!(error.to_string().contains(&format!("stillpoint-run-id={RUN}")), "{error}");
}

/// The exit code of `create`, with the error that ECS gives.
async fn create_fails_with(code: &str) -> ExitCode {
    let lab = Lab::new(two_disks().fault(Fault::on("CreateSnapshotGroup").error(code)));
    let mut group = lab.prepared().await;
    let error = group.create(window(5_000)).await.unwrap_err();
    assert!(error.to_string().contains(code), "{error}");
    error.exit_code
}

#[tokio::test]
async fn each_error_of_the_creation_leads_to_its_exit_code() {
    for (code, exit_code) in [
        ("DiskCategory.OperationNotSupported", 1),
        ("InvalidSnapshotName.Malformed", 1),
        ("Forbidden.RAM", 3),
        ("NoPermission.Tag", 3),
        ("CreateSnapshot.Failed", 4),
        ("InternalError", 4),
        ("ServiceUnavailable", 4),
        ("Throttling.User", 4),
        ("IncorrectDiskStatus", 4),
        ("InvalidAccountStatus.NotEnoughBalance", 4),
        ("NeverHeardOf", 4),
        ("QuotaExceed.Snapshot", 14),
        ("IncorrectDiskStatus.CreatingSnapshot", 16),
    ] {
        assert_eq!(create_fails_with(code).await as u8, exit_code, "{code}");
    }
}

/// The exit code of `settle` after a group that ends so.
async fn settle_fails_with(outcome: Outcome) -> ExitCode {
    let mut scenario = two_disks();
    scenario.group.outcome = outcome;
    let lab = Lab::new(scenario);
    let mut group = lab.prepared().await;
    group.create(window(5_000)).await.unwrap();
    group.settle(plenty()).await.unwrap_err().exit_code
}

#[tokio::test]
async fn a_group_or_a_member_that_fails_is_told_apart() {
    let member = |group| Outcome::FailMember { disk: "d-2".into(), group };
    assert_eq!(settle_fails_with(Outcome::Fail).await, ExitCode::GroupState);
    assert_eq!(settle_fails_with(member(GroupStatus::Failed)).await, ExitCode::MemberState);
    assert_eq!(settle_fails_with(member(GroupStatus::Accomplished)).await, ExitCode::SnapshotState);
    assert_eq!(settle_fails_with(Outcome::Vanish).await, ExitCode::GroupState);
}

#[tokio::test]
async fn snapshots_that_may_not_be_looked_at_are_of_unknown_state() {
    let lab = Lab::new(two_disks());
    lab.emulator.change(|scenario| scenario.role.deny = vec!["ecs:DescribeSnapshots".into()]);
    let mut group = lab.prepared().await;
    group.create(window(5_000)).await.unwrap();
    let error = group.settle(plenty()).await.unwrap_err();
    assert_eq!(error.exit_code, ExitCode::SnapshotState, "{error}");
}

#[tokio::test]
async fn a_group_that_is_only_slow_is_kept_and_the_run_says_so() {
    let mut scenario = two_disks();
    scenario.group.outcome = Outcome::Never;
    let lab = Lab::new(scenario);
    let settings = AlibabaSettings { wait_for: WaitFor::Accomplished, ..lab.settings() };
    let provider = AlibabaProvider::new(settings).unwrap();
    let mut group = lab.prepare(&provider).await.unwrap();
    group.create(window(5_000)).await.unwrap();
    assert_eq!(group.settle(window(700)).await.unwrap().len(), 2);
    assert_eq!(group.shortfall().unwrap().exit_code, ExitCode::GroupTimedOut);
    assert!(group.shortfall().is_none(), "told once");
}

#[tokio::test]
async fn members_that_cannot_be_tagged_are_told() {
    let fault = Fault::on("TagResources").error("QuotaExceed.Tags");
    let lab = Lab::new(two_disks().fault(fault));
    let mut group = lab.prepared().await;
    let created = group.create(window(5_000)).await.unwrap();
    let members = group.settle(plenty()).await.unwrap();
    let manifest = manifest(&created.id, Level::FileSystem, &members);
    assert_eq!(group.record(&manifest).await.unwrap_err().exit_code, ExitCode::Tags);
    let file = lab.folder.path().join("manifests").join(format!("{}.json", created.id));
    assert!(file.exists(), "the manifest is kept all the same");
}

#[tokio::test]
async fn tags_tell_the_level_the_reason_the_hooks_and_what_they_saved() {
    let lab = Lab::new(two_disks());
    let mut group = lab.prepared().await;
    let created = group.create(window(5_000)).await.unwrap();
    let members = group.settle(plenty()).await.unwrap();
    let mut manifest = manifest(&created.id, Level::Crash, &members);
    manifest.disks[1].level = Level::FileSystem;
    manifest.reasons.push(Reason {
        limits_to: Level::Crash,
        code: ReasonCode::NotFreezable,
        detail: "see https://example.com".into(),
        disks: vec!["d-1".into()],
    });
    let saved = |key: &str, value: &str| MetadataEntry {
        key: key.into(),
        value: MetadataValue::Text(value.into()),
    };
    manifest.hooks.push(HookRecord {
        name: "mysql".into(),
        kind: "component".into(),
        version: Some("1.2.0".into()),
        digest: Some(format!("sha256:{}", "ab".repeat(32))),
        signed_by: None,
        allowed_unsigned: None,
        level: Level::Application,
        confirmed: true,
        released: true,
        metadata: vec![
            saved("binlog", "binlog.000001:997136"),
            saved("gtid", &"0-1-2,".repeat(50)),
        ],
    });
    manifest.hooks[0].metadata.extend((0..30).map(|n| saved(&format!("more-{n}"), "x")));
    group.record(&manifest).await.unwrap();

    let group = &lab.emulator.groups()[0];
    let member = |disk: &str| group.members.iter().find(|member| member.disk == disk).unwrap();
    let (crash, file_system) = (member("d-1"), member("d-2"));
    assert_eq!(crash.tag("FsConsistent"), None);
    assert_eq!(file_system.tag("FsConsistent"), Some("True"));
    assert_eq!(file_system.tag("AppConsistent"), None);
    assert_eq!(crash.tag("stillpoint-level"), Some("crash"));
    assert_eq!(file_system.tag("stillpoint-disk-level"), Some("file-system"));
    assert_eq!(crash.tag("stillpoint-reason"), Some("not-freezable"));
    assert_eq!(crash.tag("stillpoint-hook-mysql"), Some("1.2.0 sha256:abababababababab confirmed"));
    assert_eq!(crash.tag("stillpoint-mysql-binlog"), Some("binlog.000001:997136"));
    let gtid = crash.tag("stillpoint-mysql-gtid").unwrap();
    assert!(gtid.ends_with('…') && gtid.chars().count() == 128, "{gtid}");
    assert!(crash.tags.len() <= 20);
}

#[tokio::test]
async fn what_cannot_be_in_a_group_is_refused_before_anything_is_held() {
    type Change = fn(&mut Disk);
    let cases: [(Change, ExitCode); 4] = [
        (|disk| disk.category = "cloud_efficiency".into(), ExitCode::Precondition),
        (|disk| disk.multi_attach = true, ExitCode::Precondition),
        (|disk| disk.status = "Detaching".into(), ExitCode::CreateFailed),
        (|disk| disk.operation_lock = Some("security".into()), ExitCode::CreateFailed),
    ];
    for (change, exit_code) in cases {
        let mut scenario = two_disks();
        change(&mut scenario.disks[1]);
        let lab = Lab::new(scenario);
        let error = lab.prepare(&lab.provider()).await.unwrap_err();
        assert_eq!(error.exit_code, exit_code, "{error}");
        assert!(error.to_string().contains("d-2"), "{error}");
        assert_eq!(lab.count("CreateSnapshotGroup"), 0);
    }
    let mut scenario = two_disks();
    scenario.disks.iter_mut().for_each(|disk| disk.category = "cloud_ssd".into());
    let lab = Lab::new(scenario);
    let error = lab.prepare(&lab.provider()).await.unwrap_err();
    assert_eq!(error.exit_code, ExitCode::NoUsableDisk, "{error}");
}

#[tokio::test]
async fn an_attached_disk_that_is_no_device_here_is_listed_without_one() {
    let mut scenario = two_disks();
    scenario.disks.push(Disk::at("d-3", "/dev/xvdz"));
    let disks = Lab::new(scenario).provider().disks().await.unwrap();
    let devices: Vec<_> = disks.iter().map(|disk| disk.device.is_a_device()).collect();
    assert_eq!(devices, [true, true, false]);
}

#[tokio::test]
async fn roles_permissions_and_settings_fail_with_their_exit_codes() {
    let lab = Lab::new(two_disks());
    lab.emulator.change(|scenario| scenario.role.name = None);
    assert_eq!(lab.provider().disks().await.unwrap_err().exit_code, ExitCode::NoRole);

    let lab = Lab::new(two_disks());
    let settings = AlibabaSettings { role: Some("Other".into()), ..lab.settings() };
    let error = AlibabaProvider::connect(settings).await.unwrap_err();
    assert_eq!(error.exit_code, ExitCode::NoRole, "{error}");

    for denied in ["ecs:DescribeDisks", "ecs:DescribeSnapshotGroups"] {
        let lab = Lab::new(two_disks());
        lab.emulator.change(|scenario| scenario.role.deny = vec![denied.into()]);
        let error = lab.prepare(&lab.provider()).await.unwrap_err();
        assert_eq!(error.exit_code, ExitCode::NoUsableDisk, "{denied}: {error}");
        assert!(error.hint.unwrap().contains("policy"), "{denied}");
    }

    let nobody = "http://127.0.0.1:9".to_owned();
    let lab = Lab::new(two_disks());
    let settings = AlibabaSettings { endpoint: Some(nobody.clone()), ..lab.settings() };
    let error = AlibabaProvider::new(settings).unwrap().disks().await.unwrap_err();
    assert_eq!(error.exit_code, ExitCode::Precondition, "{error}");
    let settings = AlibabaSettings { metadata_endpoint: Some(nobody), ..lab.settings() };
    let error = AlibabaProvider::new(settings).unwrap().disks().await.unwrap_err();
    assert_eq!(error.exit_code, ExitCode::Precondition, "{error}");
    let endpoint = Some("http://ecs.cn-hangzhou.aliyuncs.com".to_owned());
    let settings = AlibabaSettings { endpoint, ..lab.settings() };
    assert_eq!(AlibabaProvider::new(settings).unwrap_err().exit_code, ExitCode::Parameters);
}

#[tokio::test]
async fn only_groups_of_ours_are_listed_and_deleted() {
    let lab = Lab::new(two_disks());
    let mut group = lab.prepared().await;
    let created = group.create(window(5_000)).await.unwrap();
    let provider = lab.provider();
    let listed = provider.list().await.unwrap();
    assert!(listed[0].incomplete.is_some(), "it has no manifest yet");
    for other in ["ssg-of-somebody-else", "../../etc/passwd"] {
        let error = provider.delete(other).await.unwrap_err();
        assert_eq!(error.exit_code, ExitCode::GroupState, "{error}");
    }
    let error = provider.attach_copy(&created.id).await.unwrap_err();
    assert!(error.to_string().contains("no manifest"), "{error}");
}

#[tokio::test]
async fn a_prepared_group_can_be_dropped_at_every_point() {
    let lab = Lab::new(two_disks());
    let mut group = lab.prepared().await;
    group.discard().await.unwrap();
    assert_eq!(lab.count("CreateSnapshotGroup"), 0);
    let mut group = lab.prepared().await;
    group.create(window(5_000)).await.unwrap();
    group.discard().await.unwrap();
    group.discard().await.unwrap();
    assert!(lab.emulator.groups().is_empty());
    let provider: Arc<dyn Provider> = Arc::new(lab.provider());
    assert_eq!(provider.name(), "alibaba");
    assert!(Path::new("/sys/block").exists());
}
