//! Mode `checkpoint`: what is sent in which phase, what is promised, and what is saved.

use std::time::Duration;

use stillpoint_hook::sql::Value;
use stillpoint_hook::testing::Answer;
use stillpoint_hook::{Consistency, Hook, HookError, MetaValue, Outcome};
use stillpoint_hook_postgresql::statements as s;

use crate::support::{Lab, text};

#[test]
fn what_is_dirty_is_written_before_the_window_and_the_paths_are_those_that_the_server_opens() {
    for major in 13..=17 {
        let mut lab = Lab::new(major);
        let plan = lab.prepare("{}").unwrap();
        assert_eq!(
            plan.paths,
            [
                "/var/lib/postgresql/15/main",
                "/var/lib/postgresql/15/main/pg_wal",
                "/var/lib/postgresql/15/main/pg_tblspc/16400",
            ]
        );
        assert_eq!(plan.summary, format!("PostgreSQL {major}, 1 tablespace(s), mode checkpoint"));
        assert_eq!(lab.count(s::CHECKPOINT), 1);

        let frozen = lab.pre_freeze().unwrap();
        assert_eq!(frozen.consistency, Consistency::Application);
        let sent: Vec<String> = lab.host.order();
        let mut expected = vec![s::IDENTITY];
        if major < 15 {
            expected.push(s::EXCLUSIVE_13);
        }
        if major >= 14 {
            expected.push(s::IDLE_TIMEOUT_14);
        }
        expected.extend([s::POSITION, s::POSITION]);
        let expected: Vec<String> = expected.iter().map(|text| format!("1 {text}")).collect();
        assert_eq!(sent, expected);
    }
}

/// What the server was told about how long statements may run.
fn limits(lab: &Lab) -> Vec<Value> {
    let sent = lab.host.statements().into_iter();
    sent.filter(|it| it.text == s::STATEMENT_TIMEOUT).flat_map(|it| it.params).collect()
}

/// The statements after a checkpoint, in the window among them, are not to be stopped by its limit.
#[test]
fn a_checkpoint_s_limit_is_taken_back() {
    for (settings, limit) in [
        (r#"{"final-checkpoint-timeout-ms": 700}"#, 700),
        (r#"{"final-checkpoint-timeout-ms": 1}"#, 50),
    ] {
        for stopped in [false, true] {
            let mut lab = Lab::new(15).prepared(settings);
            lab.state.borrow_mut().redo_bytes = 9 << 20;
            if stopped {
                lab.tell(s::CHECKPOINT, Answer::error(0, "57014", "canceling statement"));
            }
            lab.pre_freeze().unwrap();
            assert_eq!(limits(&lab)[2..], [Value::Int64(limit), Value::Int64(0)]);
        }
    }
}

#[test]
fn the_server_itself_stops_a_checkpoint_that_takes_too_long() {
    let mut lab = Lab::new(15);
    lab.tell(
        s::CHECKPOINT,
        Answer::error(0, "57014", "canceling statement due to statement timeout"),
    );
    let error = lab.prepare(r#"{"checkpoint-timeout-seconds": 10}"#).unwrap_err();
    assert!(matches!(error, HookError::Timeout(_)), "{error:?}");
    assert!(error.message().contains("not done after 10 s: raise `checkpoint-timeout-seconds`"));
    assert_eq!(limits(&lab), [Value::Int64(10_000)]);
    lab.hook.finish().unwrap();
    assert!(lab.host.open_sessions().is_empty());
}

#[test]
fn a_checkpoint_never_gets_longer_than_its_phase_has_left() {
    let lab = Lab::new(15).prepared(r#"{"checkpoint-timeout-seconds": 3600}"#);
    assert_eq!(limits(&lab), [Value::Int64(29_500), Value::Int64(0)]);
}

#[test]
fn a_second_checkpoint_is_made_only_if_there_is_much_to_redo() {
    for (bytes, settings, expected) in [
        (256 << 10, "{}", 1),
        ((256 << 10) + 1, "{}", 2),
        (1, r#"{"redo-goal-kib": 0}"#, 2),
        (1 << 30, r#"{"final-checkpoint-timeout-ms": 0}"#, 1),
    ] {
        let mut lab = Lab::new(15).prepared(settings);
        lab.state.borrow_mut().redo_bytes = bytes;
        lab.pre_freeze().unwrap();
        assert_eq!(lab.count(s::CHECKPOINT), expected, "{bytes} {settings}");
    }
}

#[test]
fn a_second_checkpoint_that_takes_too_long_is_given_up_and_the_run_goes_on() {
    let mut lab = Lab::new(15).prepared("{}");
    lab.state.borrow_mut().redo_bytes = 9 << 20;
    lab.tell(s::CHECKPOINT, Answer::error(0, "57014", "canceling statement"));
    let frozen = lab.pre_freeze().unwrap();
    assert_eq!(frozen.consistency, Consistency::Application);
    let redo = frozen.metadata.iter().find(|entry| entry.key == "redo-bytes").unwrap();
    assert!(matches!(redo.value, MetaValue::Integer(bytes) if bytes == 9 << 20));
    assert!(lab.host.log().iter().any(|line| line.message.contains("is not waited for")));
}

#[test]
fn what_a_copy_is_compared_with_is_saved() {
    let (_lab, frozen) =
        Lab::new(15).with(|state| state.prepared = vec!["gid-1", "gid-2"]).quiesced("{}");
    for (key, expected) in [
        ("lsn", "0/3000148"),
        ("redo-lsn", "0/30000A0"),
        ("checkpoint-lsn", "0/30000D8"),
        ("redo-wal-file", "000000010000000000000003"),
        ("system-identifier", "7574000000000000001"),
        ("server-version", "15.3 (Debian)"),
        ("tablespaces", "16400 fast /fast/pg"),
        ("prepared-gids", "gid-1\ngid-2"),
        ("mode", "checkpoint"),
    ] {
        assert_eq!(text(&frozen.metadata, key), expected);
    }
    for (key, expected) in
        [("timeline", 1), ("prepared-transactions", 2), ("held-before-freeze-ns", 0)]
    {
        let entry = frozen.metadata.iter().find(|entry| entry.key == key).unwrap();
        assert!(
            matches!(entry.value, MetaValue::Integer(number) if number == expected),
            "{entry:?}"
        );
    }
}

#[test]
fn the_way_back_proves_that_it_is_the_same_server_and_closes() {
    let (mut lab, _) = Lab::new(15).quiesced("{}");
    lab.confirm().unwrap();
    let expected: Vec<_> =
        [s::IDENTITY, s::POSITION].iter().map(|text| format!("1 {text}")).collect();
    assert_eq!(lab.host.order(), expected);
    let after = lab.hook.post_thaw(Outcome::Captured).unwrap();
    assert_eq!(text(&after, "lsn-after"), "0/3000148");
    assert!(lab.host.open_sessions().is_empty());
    lab.hook.finish().unwrap();
}

#[test]
fn a_server_that_was_restarted_or_promoted_in_the_window_is_not_confirmed() {
    let cases: [fn(&mut crate::support::State); 3] = [
        |state| state.started = "2026-11-20 10:00:09+00",
        |state| state.standby = true,
        |state| state.timeline = 2,
    ];
    for change in cases {
        let (mut lab, _) = Lab::new(15).quiesced("{}");
        change(&mut lab.state.borrow_mut());
        let error = lab.confirm().unwrap_err();
        assert!(error.message().contains("not the one that it was before the freeze"), "{error:?}");
        lab.hook.post_thaw(Outcome::Captured).unwrap();
    }
}

#[test]
fn a_session_that_was_lost_in_the_window_is_not_confirmed() {
    let (mut lab, _) = Lab::new(15).quiesced("{}");
    lab.host.kill(1);
    let error = lab.confirm().unwrap_err();
    assert!(error.message().contains("after the snapshot"), "{error:?}");
    assert!(lab.hook.post_thaw(Outcome::Captured).unwrap().is_empty());
}

#[test]
fn a_session_that_was_idle_for_too_long_before_the_window_is_opened_again() {
    let mut lab = Lab::new(15).prepared("{}");
    lab.host.kill(1);
    lab.pre_freeze().unwrap();
    lab.confirm().unwrap();
    assert_eq!(lab.host.open_sessions(), [2]);
}

#[test]
fn another_server_than_the_one_that_was_looked_at_is_refused() {
    let mut lab = Lab::new(15).prepared("{}");
    lab.state.borrow_mut().started = "2026-11-20 10:00:09+00";
    let error = lab.pre_freeze().unwrap_err();
    assert!(error.message().contains("not the one that was looked at"), "{error:?}");
    assert!(lab.host.open_sessions().is_empty());
}

#[test]
fn a_standby_says_how_far_it_has_come() {
    let (_lab, frozen) = Lab::new(15).with(|state| state.standby = true).quiesced("{}");
    assert_eq!(frozen.consistency, Consistency::Application);
    assert_eq!(text(&frozen.metadata, "received-lsn"), "0/5000000");
    assert_eq!(text(&frozen.metadata, "replayed-at"), "2026-11-20 10:00:01+00");
}

#[test]
fn a_hook_that_is_killed_between_phases_leaves_nothing() {
    let (lab, _) = Lab::new(15).quiesced("{}");
    let Lab { host, hook, .. } = lab;
    drop(hook);
    assert!(host.open_sessions().is_empty());
    let mut fresh = stillpoint_hook_postgresql::Postgresql::default();
    host.begin(stillpoint_hook::Phase::Finish, Duration::from_secs(5));
    fresh.finish().unwrap();
}
