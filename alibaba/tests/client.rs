//! The client against the emulator, which is held to the vendor's own SDKs.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use ecs_emulator::{ConnectionFault, Disk, Emulator, Fault, Role, Scenario, Timeline};
use stillpoint_alibaba::api::{CreateSnapshotGroup, GroupFilter, Tag};
use stillpoint_alibaba::{EcsClient, EcsError, SignatureVersion};
use support::{client, emulator, fake, http, plenty, signing, to, two_disks, within};

const INSTANCE: &str = "i-bp1emulator0000001";

fn group(token: &str) -> CreateSnapshotGroup {
    CreateSnapshotGroup {
        instance: INSTANCE.into(),
        disks: vec!["d-1".into(), "d-2".into()],
        name: "LinuxApp1".into(),
        description: "nightly: a b+c*~é/中 & =".into(),
        token: token.into(),
        tags: vec![Tag::new("run", "a b+c")],
    }
}

async fn create(ecs: &EcsClient, token: &str) -> Result<String, EcsError> {
    create_until(ecs, token, plenty()).await
}

async fn create_until(ecs: &EcsClient, token: &str, until: Instant) -> Result<String, EcsError> {
    ecs.create_snapshot_group(&group(token), until, until, Arc::new(AtomicBool::new(false))).await
}

/// Every action once, as a run uses them.
async fn whole_life(ecs: &EcsClient, emulator: &Emulator) {
    assert_eq!(ecs.describe_disks(INSTANCE, plenty()).await.unwrap().len(), 2);
    ecs.look(INSTANCE, plenty()).await.unwrap();
    let id = create(ecs, "token-1").await.unwrap();
    let filter = GroupFilter { ids: vec![id.clone()], ..GroupFilter::default() };
    let groups = ecs.describe_snapshot_groups(&filter, plenty()).await.unwrap();
    assert_eq!(groups[0].tags(), [Tag::new("run", "a b+c")]);
    let members: Vec<String> =
        groups[0].members().iter().map(|member| member.snapshot_id.clone()).collect();
    let snapshots = ecs.describe_snapshots(&members, plenty()).await.unwrap();
    assert_eq!(snapshots.len(), 2);
    assert_eq!(snapshots[0].source_disk_size, Some(40), "the size is text in the answer");
    let tags = [Tag::new("AppConsistent", "True"), Tag::new("name", "é 中")];
    ecs.tag_snapshots(&members, &tags, plenty()).await.unwrap();
    assert_eq!(emulator.groups()[0].tag("AppConsistent"), Some("True"));
    ecs.delete_snapshot_group(&id, plenty()).await.unwrap();
    assert!(emulator.groups().is_empty());
    // What is gone is deleted.
    ecs.delete_snapshot_group(&id, plenty()).await.unwrap();
}

#[tokio::test]
async fn both_signatures_are_accepted_for_every_action() {
    for version in [SignatureVersion::Acs3, SignatureVersion::RpcV1] {
        let emulator = emulator(two_disks());
        whole_life(&signing(&emulator, version).await, &emulator).await;
        for call in emulator.log() {
            assert!(call.unknown_parameters.is_empty(), "{call:?}");
            assert!(call.status.is_some_and(|status| status == 200 || status == 404), "{call:?}");
        }
    }
}

#[tokio::test]
async fn a_session_is_one_connection() {
    let emulator = emulator(two_disks());
    whole_life(&client(&emulator).await, &emulator).await;
    let calls = emulator.log().into_iter().filter(|call| !call.action.starts_with("metadata"));
    let connections: BTreeSet<u64> = calls.map(|call| call.connection).collect();
    assert_eq!(connections.len(), 1, "{connections:?}");
}

#[tokio::test]
async fn lists_are_read_to_their_last_page() {
    let disks = (0..7).map(|n| Disk::at(format!("d-{n}"), format!("/dev/loop{n}")));
    let mut scenario = Scenario::with_disks(disks);
    scenario.limits.page = 2;
    let emulator = emulator(scenario);
    let disks = client(&emulator).await.describe_disks(INSTANCE, plenty()).await.unwrap();
    let ids: BTreeSet<_> = disks.iter().map(|disk| disk.disk_id.as_str()).collect();
    assert_eq!(ids.len(), 7);
    assert_eq!(emulator.calls("DescribeDisks").len(), 4);
}

#[tokio::test]
async fn a_list_whose_pages_name_each_other_ends_with_an_error() {
    let emulator = emulator(two_disks());
    let page = r#"{"NextToken":"again","Disks":{"Disk":[]}}"#;
    let url = fake(move |_| http("200 OK", page));
    let ecs = to(&url, &emulator.imds_url, SignatureVersion::Acs3).await;
    let error = ecs.describe_disks(INSTANCE, plenty()).await.unwrap_err();
    assert!(matches!(error, EcsError::Endless { .. }), "{error}");
}

#[tokio::test]
async fn throttling_is_waited_for_as_long_as_ecs_says() {
    let wait = Duration::from_millis(400);
    let fault = Fault::on("DescribeDisks").error("Throttling.User").retry_after(wait).times(2);
    let emulator = emulator(two_disks().fault(fault));
    client(&emulator).await.describe_disks(INSTANCE, plenty()).await.unwrap();
    let calls = emulator.calls("DescribeDisks");
    assert_eq!(calls.len(), 3);
    for two in calls.windows(2) {
        let waited = Duration::from_nanos(two[1].received_ns - two[0].received_ns);
        assert!(waited >= wait, "{waited:?}");
    }
}

#[tokio::test]
async fn throttling_beyond_the_deadline_is_not_waited_for() {
    let wait = Duration::from_secs(60);
    let fault = Fault::on("DescribeDisks").error("Throttling").retry_after(wait);
    let emulator = emulator(two_disks().fault(fault));
    let began = Instant::now();
    let error = client(&emulator).await.describe_disks(INSTANCE, within(5_000)).await.unwrap_err();
    assert_eq!(error.code(), Some("Throttling"));
    assert!(error.hint().unwrap().contains("quota"));
    assert!(began.elapsed() < Duration::from_secs(4), "nothing to wait for");
}

#[tokio::test]
async fn however_the_answer_is_lost_there_is_one_group() {
    use ConnectionFault::{CloseAfter, CloseBefore, ResetAfter, ResetBefore, Truncate};
    for lost in [ResetBefore, ResetAfter, CloseBefore, CloseAfter, Truncate] {
        let fault = Fault::on("CreateSnapshotGroup").connection(lost).times(2);
        let emulator = emulator(two_disks().fault(fault));
        let id = create(&client(&emulator).await, "token-1").await.unwrap();
        let groups = emulator.groups();
        assert_eq!(groups.len(), 1, "{lost:?}");
        assert_eq!(groups[0].id, id, "{lost:?}");
        let calls = emulator.calls("CreateSnapshotGroup");
        // The emulator refuses a nonce that it has seen: that it took them all shows new ones.
        assert_eq!(calls.len(), 3, "{lost:?}");
        let tokens: BTreeSet<_> =
            calls.iter().map(|call| &call.parameters["ClientToken"]).collect();
        assert_eq!(tokens.len(), 1, "{lost:?}");
    }
}

#[tokio::test]
async fn a_fault_of_the_server_is_tried_again_and_an_error_of_ours_is_not() {
    let fault = Fault::on("CreateSnapshotGroup").error("ServiceUnavailable").times(3);
    let emulator = emulator(two_disks().fault(fault));
    let ecs = client(&emulator).await;
    create(&ecs, "token-1").await.unwrap();
    assert_eq!(emulator.calls("CreateSnapshotGroup").len(), 4);

    emulator.clear_log();
    emulator.faults([Fault::on("CreateSnapshotGroup").error("QuotaExceed.Snapshot")]);
    let error = create(&ecs, "token-2").await.unwrap_err();
    assert_eq!(error.code(), Some("QuotaExceed.Snapshot"));
    let said = error.api().unwrap();
    assert_eq!(said.status, 403);
    assert!(said.request_id.is_some() && !said.message.is_empty());
    assert!(!error.may_have_happened());
    assert_eq!(emulator.calls("CreateSnapshotGroup").len(), 1);
}

#[tokio::test]
async fn the_answer_to_a_token_that_is_being_worked_on_is_waited_for() {
    let slow = Fault::on("CreateSnapshotGroup").delay_before(Duration::from_secs(1)).call(1);
    let emulator = emulator(two_disks().fault(slow));
    let ecs = client(&emulator).await;
    let both = tokio::join!(create(&ecs, "token-1"), async {
        while emulator.calls("CreateSnapshotGroup").is_empty() {
            tokio::task::yield_now().await;
        }
        create(&ecs, "token-1").await
    });
    assert_eq!(both.0.unwrap(), both.1.unwrap());
    assert_eq!(emulator.groups().len(), 1);
}

#[tokio::test]
async fn no_attempt_is_begun_once_it_was_told_to_stop() {
    let fault = Fault::on("CreateSnapshotGroup").error("InternalError");
    let emulator = emulator(two_disks().fault(fault));
    let ecs = client(&emulator).await;
    let stop = Arc::new(AtomicBool::new(true));
    let error = ecs.create_snapshot_group(&group("t"), plenty(), plenty(), stop).await.unwrap_err();
    assert!(error.may_have_happened());
    assert_eq!(emulator.calls("CreateSnapshotGroup").len(), 1);
}

#[tokio::test]
async fn a_late_answer_is_an_error_of_time() {
    let fault = Fault::on("CreateSnapshotGroup").connection(ConnectionFault::HangBefore);
    let emulator = emulator(two_disks().fault(fault));
    let error = create_until(&client(&emulator).await, "t", within(300)).await.unwrap_err();
    assert!(matches!(error, EcsError::TimedOut { .. }), "{error}");
    assert!(error.may_have_happened());
}

#[tokio::test]
async fn expired_credentials_are_renewed_and_the_call_made_again() {
    let fault = Fault::on("DescribeDisks").expire_credentials().call(1);
    let emulator = emulator(two_disks().fault(fault));
    let ecs = client(&emulator).await;
    assert_eq!(ecs.describe_disks(INSTANCE, plenty()).await.unwrap().len(), 2);
    assert_eq!(emulator.calls("DescribeDisks").len(), 2);
    assert_eq!(emulator.calls("metadata:role").len(), 2);
}

#[tokio::test]
async fn what_the_role_may_not_is_said_with_the_policy_that_is_needed() {
    let scenario = Scenario { role: Role::of_the_manual(), ..two_disks() };
    let emulator = emulator(scenario);
    let ecs = client(&emulator).await;
    let id = create(&ecs, "token-1").await.unwrap();
    let error = ecs.delete_snapshot_group(&id, plenty()).await.unwrap_err();
    assert_eq!(error.code(), Some("Forbidden.RAM"));
    assert!(error.hint().unwrap().contains("ecs:DeleteSnapshotGroup"));
}

#[tokio::test]
async fn redirects_are_refused() {
    let elsewhere = emulator(two_disks());
    let fault = Fault::on("DescribeDisks").redirect(&elsewhere.ecs_url);
    let emulator = emulator(two_disks().fault(fault));
    let error = client(&emulator).await.describe_disks(INSTANCE, plenty()).await.unwrap_err();
    assert!(matches!(error, EcsError::NotAnAnswer { .. }), "{error}");
    assert!(elsewhere.log().is_empty(), "the signed request went elsewhere");
}

#[tokio::test]
async fn an_empty_list_after_the_creation_is_an_empty_list() {
    let timeline = Timeline { hidden_looks: 2, ..Timeline::default() };
    let emulator = emulator(Scenario { group: timeline, ..two_disks() });
    let ecs = client(&emulator).await;
    let id = create(&ecs, "token-1").await.unwrap();
    let filter = GroupFilter { ids: vec![id], ..GroupFilter::default() };
    let mut found = Vec::new();
    for _ in 0..3 {
        found.push(ecs.describe_snapshot_groups(&filter, plenty()).await.unwrap().len());
    }
    assert_eq!(found, [0, 0, 1]);
}

#[tokio::test]
async fn answers_with_nulls_gaps_and_news_are_read() {
    let imds = emulator(two_disks());
    let answer = r#"{"NextToken":null,"Disks":{"Disk":[
        {"DiskId":"d-1","SerialNumber":null,"Size":"40","Attachments":null,"Tags":null,
         "OperationLocks":{"OperationLock":null},"Status":null,"FromTheFuture":{"a":[1]}},
        {}
    ]}}"#;
    let url = fake(move |_| http("200 OK", answer));
    let ecs = to(&url, &imds.imds_url, SignatureVersion::Acs3).await;
    let disks = ecs.describe_disks(INSTANCE, plenty()).await.unwrap();
    assert_eq!((disks[0].disk_id.as_str(), disks[0].size), ("d-1", Some(40)));
    assert_eq!(disks[1].disk_id, "");
    for body in [r#"{"Disks":null}"#, "{}"] {
        let url = fake(move |_| http("200 OK", body));
        let ecs = to(&url, &imds.imds_url, SignatureVersion::Acs3).await;
        assert!(ecs.describe_disks(INSTANCE, plenty()).await.unwrap().is_empty(), "{body}");
    }
}

#[tokio::test]
async fn what_is_no_answer_of_ecs_is_called_so() {
    let imds = emulator(two_disks());
    let too_long = format!("[{}", " ".repeat(9 << 20));
    let cases = [
        (http("200 OK", "<html>log in</html>"), "JSON"),
        (http("407 Proxy Authentication Required", "<html>"), "no error code"),
        (http("200 OK", &too_long), "longer than"),
    ];
    for (answer, word) in cases {
        let url = fake(move |_| answer.clone());
        let ecs = to(&url, &imds.imds_url, SignatureVersion::Acs3).await;
        let error = ecs.describe_disks(INSTANCE, plenty()).await.unwrap_err();
        assert!(matches!(error, EcsError::NotAnAnswer { .. }), "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[tokio::test]
async fn a_clock_that_is_wrong_is_named() {
    let emulator = emulator(Scenario { clock_offset_s: 3_600, ..two_disks() });
    let error = client(&emulator).await.describe_disks(INSTANCE, plenty()).await.unwrap_err();
    assert!(error.code().unwrap().starts_with("InvalidTimeStamp"), "{error}");
    assert!(error.hint().unwrap().contains("clock"), "{:?}", error.hint());
}

/// An error with all its causes, as people and logs see it, and as `Debug` shows it.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = format!("{error:?} {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[tokio::test]
async fn no_error_shows_a_secret() {
    let emulator = emulator(two_disks());
    for version in [SignatureVersion::Acs3, SignatureVersion::RpcV1] {
        let ecs = signing(&emulator, version).await;
        let mut errors = Vec::new();
        for code in ["SignatureDoesNotMatch", "InvalidSecurityToken.Malformed", "InternalError"] {
            // As the real service does: it shows what it has signed.
            let mut secrets = emulator.secrets();
            // Nothing of the metadata service ever goes to ECS.
            secrets.retain(|secret| !secret.starts_with("canary-metadata"));
            let secrets = secrets.join(" ");
            let mut fault = Fault::on("DescribeDisks").error_with_status(code, 400);
            let message = format!("no match. server string to sign is:{secrets} and {secrets}");
            fault.error.as_mut().unwrap().message = Some(message);
            emulator.faults([fault]);
            errors.push(ecs.describe_disks(INSTANCE, plenty()).await.unwrap_err());
            let mut fault = Fault::on("DescribeDisks").error_with_status(code, 400);
            fault.error.as_mut().unwrap().message = Some(format!("you sent {secrets}"));
            emulator.faults([fault]);
            errors.push(ecs.describe_disks(INSTANCE, plenty()).await.unwrap_err());
        }
        for broken in [ConnectionFault::ResetBefore, ConnectionFault::Truncate] {
            emulator.faults([Fault::on("DescribeDisks").connection(broken)]);
            errors.push(ecs.describe_disks(INSTANCE, within(1_000)).await.unwrap_err());
        }
        emulator.faults([]);
        for error in &errors {
            let text = format!("{} {ecs:?}", whole(error));
            for secret in emulator.secrets() {
                assert!(!text.contains(&secret), "{text}");
            }
            assert!(!text.contains("Signature="), "{text}");
            assert!(!text.contains("InstanceId="), "the query is in {text}");
        }
    }
}
