//! What the hook does to a server, in which order: for each way to keep data, and each version.

use std::time::Duration;

use crate::support::{Lab, V6, V7, V8, V72};
use stillpoint_hook::{Consistency, Hook, MetaValue, Outcome, Phase};
use stillpoint_hook_redis::statements as s;

/// The commands so far, without the session's number.
fn commands(lab: &Lab) -> Vec<String> {
    lab.host.statements().into_iter().map(|statement| statement.text).collect()
}

/// The commands of `pre_freeze`.
fn under_the_pause(lab: &mut Lab) -> Vec<String> {
    let before = commands(lab).len();
    lab.pre_freeze().unwrap();
    commands(lab).split_off(before)
}

#[test]
fn a_server_with_an_aof_is_paused_and_its_buffer_waited_for() {
    for version in [V6, V7, V72] {
        let mut lab = Lab::new(version).prepared("{}");
        lab.state.borrow_mut().draining_for = 2;
        // One look and the probe, the pause, and looks until the buffer is empty.
        assert_eq!(
            under_the_pause(&mut lab),
            [s::INFO, s::PROBE, s::PAUSE, s::INFO, s::INFO],
            "{version}"
        );
        assert!(lab.is_paused());
    }
}

#[test]
fn a_server_that_tells_of_pauses_is_not_probed() {
    let mut lab = Lab::new(V8).prepared("{}");
    assert_eq!(under_the_pause(&mut lab), [s::INFO, s::PAUSE, s::INFO]);
}

#[test]
fn a_server_with_rdb_files_only_writes_one_under_the_pause() {
    let mut lab = Lab::new(V7).rdb().prepared("{}");
    let steps = under_the_pause(&mut lab);
    assert_eq!(steps[..5], [s::INFO, s::PROBE, s::PAUSE, s::INFO, s::SAVE]);
    assert!(lab.is_paused());

    // Not if the last one has everything.
    let mut lab = Lab::new(V7).rdb().field("rdb_changes_since_last_save", "0").prepared("{}");
    assert_eq!(under_the_pause(&mut lab), [s::INFO, s::PROBE, s::PAUSE, s::INFO]);
}

#[test]
fn the_pause_ends_by_itself_five_seconds_after_the_hold_budget() {
    let mut lab = Lab::new(V7).prepared(r#"{"hold-budget-seconds": 7}"#);
    lab.pre_freeze().unwrap();
    let pauses = lab.host.statements().into_iter().filter(|it| it.text == s::PAUSE);
    // The first tries the permission, and pauses nothing.
    assert_eq!(
        pauses.map(|it| it.params).collect::<Vec<_>>(),
        [[0_u64.into()], [12_000_u64.into()]]
    );
}

#[test]
fn the_way_back_ends_the_pause_first_and_then_puts_the_configuration_back() {
    let mut lab = Lab::new(V7).held();
    assert_eq!(lab.rewrite_at(), 0);
    lab.confirm().unwrap();
    let before = commands(&lab).len();
    lab.hook.post_thaw(Outcome::Captured).unwrap();
    assert_eq!(commands(&lab)[before..], [s::UNPAUSE, s::INFO, s::REWRITE_AT, s::SET_REWRITE_AT]);
    assert!(!lab.is_paused());
    assert_eq!(lab.rewrite_at(), 100);
    assert!(lab.host.kv().is_empty());

    lab.hook.finish().unwrap();
    assert!(lab.host.open_sessions().is_empty());
}

#[test]
fn what_is_done_is_kept_before_it_is_done() {
    let mut lab = Lab::new(V7);
    lab.host.kv_limit(0);
    lab.prepare("{}").unwrap_err();
    assert_eq!(lab.rewrite_at(), 100);

    let mut lab = Lab::new(V7).prepared("{}");
    lab.host.kv_limit(0);
    lab.pre_freeze().unwrap_err();
    assert!(!commands(&lab).iter().skip_while(|it| *it != s::UNPAUSE).any(|it| it == s::PAUSE));
    assert!(!lab.is_paused());
}

#[test]
fn an_agent_that_died_is_cleaned_up_after() {
    let mut lab = Lab::new(V7).held();
    lab.reborn();
    lab.host.begin(Phase::Finish, Duration::from_secs(10));
    lab.hook.finish().unwrap();
    assert!(!lab.is_paused());
    assert_eq!(lab.rewrite_at(), 100);
    assert!(lab.host.kv().is_empty());
    // And again: there is nothing to do.
    let before = commands(&lab).len();
    lab.hook.finish().unwrap();
    assert_eq!(commands(&lab).len(), before);
}

#[test]
fn a_run_that_follows_a_dead_agent_s_cleans_up_first_and_restores_what_was_there() {
    let mut lab = Lab::new(V7).held();
    lab.reborn();
    lab.prepare("{}").unwrap();
    assert_eq!(lab.rewrite_at(), 0);
    lab.hook.finish().unwrap();
    assert_eq!(lab.rewrite_at(), 100);
}

#[test]
fn a_server_that_was_restarted_is_left_as_it_is() {
    let mut lab = Lab::new(V7).held();
    lab.reborn();
    lab.set("run_id", "run-2");
    lab.state.borrow_mut().rewrite_at = 50;
    lab.state.borrow_mut().paused_until = u64::MAX;
    lab.hook.finish().unwrap();
    assert_eq!(lab.rewrite_at(), 50);
    assert!(lab.is_paused(), "that pause is another's");
    assert!(lab.host.kv().is_empty());
}

#[test]
fn what_somebody_set_during_the_run_stays() {
    let mut lab = Lab::new(V7).held();
    lab.state.borrow_mut().rewrite_at = 42;
    lab.hook.post_thaw(Outcome::Captured).unwrap();
    assert_eq!(lab.rewrite_at(), 42);
    assert!(lab.host.log().iter().any(|line| line.message.contains("it was 100")));
}

#[test]
fn rewrites_that_were_off_stay_off_and_nothing_is_kept() {
    let lab = Lab::new(V7);
    lab.state.borrow_mut().rewrite_at = 0;
    let lab = lab.prepared("{}");
    assert!(lab.host.kv().is_empty());
    assert!(!commands(&lab).iter().any(|it| it == s::SET_REWRITE_AT));
}

#[test]
fn a_pause_that_ran_out_is_not_ended_for_whoever_has_one_now() {
    let mut lab = Lab::new(V7).held();
    lab.state.borrow_mut().clock += 60_000;
    let error = lab.confirm().unwrap_err();
    assert!(error.message().contains("raise `hold-budget-seconds`"), "{error:?}");
    let until = lab.state.borrow().clock + 5_000;
    lab.state.borrow_mut().paused_until = until;
    lab.hook.post_thaw(Outcome::Captured).unwrap();
    assert!(lab.is_paused());
}

#[test]
fn a_longer_pause_of_somebody_else_is_left_where_the_server_tells() {
    let mut lab = Lab::new(V8).held();
    let until = lab.state.borrow().clock + 600_000;
    lab.state.borrow_mut().paused_until = until;
    lab.hook.post_thaw(Outcome::Captured).unwrap();
    assert!(lab.is_paused());
    assert_eq!(lab.rewrite_at(), 100);
    assert!(lab.host.log().iter().any(|line| line.message.contains("that pause is left")));
}

#[test]
fn nothing_is_paused_or_saved_in_prepare() {
    for lab in [Lab::new(V7), Lab::new(V7).rdb()] {
        let lab = lab.prepared("{}");
        for statement in lab.host.statements() {
            assert_ne!(statement.text, s::SAVE);
            assert!(statement.text != s::PAUSE || statement.params == [0_u64.into()]);
        }
        assert!(!lab.is_paused());
    }
}

#[test]
fn the_aof_is_synced_where_that_can_be_asked_for_and_under_the_pause_only_if_wanted() {
    let syncs = |lab: &Lab| commands(lab).iter().filter(|it| *it == s::WAIT_FOR_SYNC).count();
    let mut lab = Lab::new(V72).prepared("{}");
    assert_eq!(syncs(&lab), 1);
    lab.pre_freeze().unwrap();
    assert_eq!(syncs(&lab), 1);

    let mut lab = Lab::new(V72).prepared(r#"{"sync-under-pause": true}"#);
    lab.pre_freeze().unwrap();
    assert_eq!(syncs(&lab), 2);

    // There is nothing to wait for.
    let lab = Lab::new(V72).config("appendfsync", "no").prepared("{}");
    assert_eq!(syncs(&lab), 0);
    let lab = Lab::new(V72).field("role", "slave").prepared("{}");
    assert_eq!(syncs(&lab), 0);
}

#[test]
fn the_directories_of_the_server_are_in_the_plan() {
    let plan = Lab::new(V7).prepare("{}").unwrap();
    assert_eq!(plan.paths, ["/var/lib/redis", "/var/lib/redis/appendonlydir"]);
    assert_eq!(plan.summary, "Redis 7.0.15, AOF, appendfsync everysec");
    let plan = Lab::new(V6).prepare("{}").unwrap();
    assert_eq!(plan.paths, ["/var/lib/redis"]);
    let plan = Lab::new(V7).rdb().field("role", "slave").prepare("{}").unwrap();
    assert_eq!(plan.paths, ["/var/lib/redis"]);
    assert_eq!(plan.summary, "Redis 7.0.15, RDB files only, a replica");
}

#[test]
fn what_a_restore_needs_is_in_the_metadata() {
    let mut lab = Lab::new(V7).prepared("{}");
    let frozen = lab.pre_freeze().unwrap();
    assert_eq!(frozen.consistency, Consistency::Application);
    let value = |key: &str| {
        let entry = frozen.metadata.iter().find(|entry| entry.key == key);
        entry.map(|entry| entry.value.clone())
    };
    let text = |text: &str| Some(MetaValue::Text(text.into()));
    assert_eq!(value("server-version"), text("Redis 7.0.15"));
    assert_eq!(value("persistence"), text("aof"));
    assert_eq!(value("master-replid"), text("replid-1"));
    assert_eq!(value("aof-size"), Some(MetaValue::Integer(1000)));
    assert_eq!(value("aof-directory"), text("appendonlydir"));
    assert_eq!(value("dbsize"), Some(MetaValue::Integer(3)));
    assert_eq!(value("slave-repl-offset"), None);
}

#[test]
fn a_server_that_keeps_nothing_is_refused_or_lowered_as_the_operator_says() {
    let nothing = || Lab::new(V7).rdb().config("save", "");
    let error = nothing().prepare("{}").unwrap_err();
    assert!(error.message().contains("`without-persistence`"), "{error:?}");

    let mut lab = nothing().prepared(r#"{"without-persistence": "lower"}"#);
    let frozen = lab.pre_freeze().unwrap();
    assert_eq!(frozen.consistency, Consistency::Crash);
    assert!(!lab.is_paused());
    lab.confirm().unwrap();
    lab.hook.post_thaw(Outcome::Captured).unwrap();
    lab.hook.finish().unwrap();
}
