//! Whatever fails, writes go on and the configuration is what it was, and the error says what to do.

use std::time::Duration;

use crate::support::{Lab, V6, V7, V8, V72};
use stillpoint_hook::testing::Answer;
use stillpoint_hook::{Hook, HookError, Outcome, Phase};
use stillpoint_hook_redis::statements as s;

const DENIED: fn() -> Answer = || {
    Answer::error(0, "", "NOPERM this user has no permissions to run the 'client|pause' command")
};

/// The law of every test here, after the host's calls.
#[track_caller]
fn is_as_it_was(lab: &Lab, what: &str) {
    assert!(!lab.is_paused(), "{what}: {:#?}", lab.host.order());
    assert_eq!(lab.rewrite_at(), 100, "{what}: {:#?}", lab.host.order());
    assert!(lab.host.kv().is_empty(), "{what}");
    assert!(lab.host.open_sessions().is_empty(), "{what}: {:#?}", lab.host.order());
}

/// What the host calls whatever happened.
fn end(lab: &mut Lab, pre_freeze_was_called: bool) {
    if pre_freeze_was_called {
        lab.host.begin(Phase::PostThaw, Duration::from_secs(10));
        let _ = lab.hook.post_thaw(Outcome::Aborted);
    }
    lab.host.begin(Phase::Finish, Duration::from_secs(10));
    let _ = lab.hook.finish();
}

#[test]
fn every_command_can_fail_in_every_way_in_every_phase_and_all_is_as_it_was() {
    let mut cases = 0;
    for (version, rdb) in
        [(V6, false), (V7, false), (V7, true), (V72, false), (V72, true), (V8, false)]
    {
        let new = || if rdb { Lab::new(version).rdb() } else { Lab::new(version) };
        let settings = r#"{"sync-under-pause": true, "wait-for-saves-seconds": 1}"#;
        for statement in s::ALL {
            for fail in [
                Answer::error(0, "", "ERR unknown command"),
                Answer::error(0, "", "LOADING Redis is loading the dataset in memory"),
                Answer::error(0, "", "BUSY Redis is busy running a script."),
                DENIED(),
                Answer::lost(),
                Answer::never(),
                Answer::denied(),
                // Neither a row nor a column of what is expected.
                Answer::rows(&["x"], [["y".into()]]),
                Answer::rows(&["x", "y"], []),
            ] {
                for phase in ["prepare", "pre-freeze", "confirm", "post-thaw"] {
                    cases += 1;
                    let what = format!("{version}, rdb {rdb}: {statement} in {phase}: {fail:?}");
                    let mut lab = new();
                    if phase == "prepare" {
                        lab.tell(statement, fail.clone());
                    }
                    if lab.prepare(settings).is_err() {
                        end(&mut lab, false);
                        is_as_it_was(&lab, &what);
                        continue;
                    }
                    if phase == "pre-freeze" {
                        lab.tell(statement, fail.clone());
                    }
                    let outcome = lab.pre_freeze();
                    // If UNPAUSE itself failed, the next call does it.
                    if outcome.is_err() && *statement != s::UNPAUSE {
                        assert!(!lab.is_paused(), "{what}: {:#?}", lab.host.order());
                    }
                    if outcome.is_ok() {
                        if phase == "confirm" {
                            lab.tell(statement, fail.clone());
                        }
                        let _ = lab.confirm();
                        if phase == "post-thaw" {
                            lab.tell(statement, fail.clone());
                        }
                    }
                    end(&mut lab, true);
                    // What fails once is done by the next call.
                    end(&mut lab, false);
                    is_as_it_was(&lab, &what);
                }
            }
        }
    }
    assert!(cases > 2000, "{cases}");
}

#[test]
fn a_missing_permission_is_found_before_the_pause_with_the_rule_to_add() {
    for (statement, rule, rdb) in [
        (s::INFO, "+info", false),
        (s::DIR, "+config|get", false),
        (s::SET_REWRITE_AT, "+config|set", false),
        (s::PAUSE, "+client|pause", false),
        (s::UNPAUSE, "+client|unpause", false),
        (s::TRY_SAVE, "+bgsave", true),
    ] {
        let mut lab = if rdb { Lab::new(V7).rdb() } else { Lab::new(V7) };
        lab.tell(statement, DENIED());
        let error = lab.prepare("{}").unwrap_err();
        let HookError::Denied(message) = &error else { panic!("{statement}: {error:?}") };
        assert!(message.contains(&format!("ACL SETUSER <user> {rule},")), "{message}");
        assert!(!lab.is_paused());
    }
}

#[test]
fn without_the_permission_to_probe_the_server_is_taken_as_not_paused() {
    let mut lab = Lab::new(V7);
    lab.tell(s::PROBE, DENIED());
    lab.prepare("{}").unwrap();
}

#[test]
fn saves_rewrites_loads_and_pauses_are_waited_for_and_no_longer_than_told() {
    for (field, said) in [
        ("rdb_bgsave_in_progress", "an RDB file is being written"),
        ("aof_rewrite_in_progress", "the AOF is being rewritten"),
        ("aof_rewrite_scheduled", "the AOF is being rewritten"),
        ("loading", "the server loads its data"),
        ("async_loading", "the server loads its data"),
        ("master_sync_in_progress", "a whole copy"),
    ] {
        let mut lab = Lab::new(V7).field(field, "1");
        let error = lab.prepare(r#"{"wait-for-saves-seconds": 3}"#).unwrap_err();
        let HookError::Busy(message) = error else { panic!("{field}: {error:?}") };
        assert!(message.contains(said) && message.contains("waited 3 s"), "{message}");
        assert_eq!(lab.host.clock(), Duration::from_secs(3));
        end(&mut lab, false);
        is_as_it_was(&lab, field);
    }

    let mut lab = Lab::new(V7);
    lab.state.borrow_mut().saving_for = Some(5);
    lab.prepare("{}").unwrap();
    // Two looks to find out who it is, and then one every 0.1 s.
    assert_eq!(lab.host.clock(), Duration::from_millis(300));
}

#[test]
fn somebody_else_s_pause_is_never_joined() {
    for version in [V6, V7, V8] {
        let mut lab = Lab::new(version);
        lab.state.borrow_mut().paused_until = u64::MAX;
        let error = lab.prepare(r#"{"wait-for-saves-seconds": 1}"#).unwrap_err();
        assert!(error.message().contains("somebody else paused"), "{error:?}");
        end(&mut lab, false);
        assert!(lab.is_paused(), "their pause is theirs");
        assert!(lab.host.statements().iter().all(|it| it.text != s::UNPAUSE));

        // Between `prepare` and the pause.
        let mut lab = Lab::new(version).prepared(r#"{"wait-for-saves-seconds": 1}"#);
        lab.state.borrow_mut().paused_until = u64::MAX;
        lab.pre_freeze().unwrap_err();
        end(&mut lab, true);
        assert!(lab.is_paused(), "their pause is theirs");
        assert_eq!(lab.rewrite_at(), 100);
    }
}

#[test]
fn a_save_that_begins_together_with_the_pause_is_waited_for_with_writes_going_on() {
    let mut lab = Lab::new(V7).prepared("{}");
    lab.state.borrow_mut().saves_begin = 2;
    lab.pre_freeze().unwrap();
    let pauses = lab.host.statements().into_iter().filter(|it| it.text == s::PAUSE).count();
    assert_eq!(pauses, 1 + 3);

    let mut lab = Lab::new(V7).prepared("{}");
    lab.state.borrow_mut().saves_begin = 9;
    let error = lab.pre_freeze().unwrap_err();
    assert!(matches!(error, HookError::Busy(_)), "{error:?}");
    assert!(!lab.is_paused());
}

#[test]
fn a_buffer_that_does_not_get_empty_ends_the_pause_after_four_seconds() {
    let mut lab = Lab::new(V7).prepared("{}");
    lab.state.borrow_mut().draining_for = u32::MAX;
    let before = lab.host.clock();
    let error = lab.pre_freeze().unwrap_err();
    assert!(error.message().contains("into its AOF within 4 s"), "{error:?}");
    assert!(lab.host.clock() - before < Duration::from_millis(4100));
    assert!(!lab.is_paused());
}

#[test]
fn an_aof_that_cannot_be_written_is_refused_before_and_under_the_pause() {
    let mut lab = Lab::new(V7).field("aof_last_write_status", "err");
    let error = lab.prepare("{}").unwrap_err();
    assert!(error.message().contains("is the disk full?"), "{error:?}");

    let mut lab = Lab::new(V7).prepared("{}");
    lab.set("aof_last_write_status", "err");
    lab.pre_freeze().unwrap_err();
    assert!(!lab.is_paused());
}

#[test]
fn an_rdb_file_that_takes_long_or_fails_is_given_up_and_writes_go_on() {
    let mut lab = Lab::new(V7).rdb().field("rdb_last_bgsave_time_sec", "11");
    let error = lab.prepare("{}").unwrap_err();
    assert!(error.message().contains("the last RDB file took 11 s"), "{error:?}");

    let mut lab = Lab::new(V7).rdb().prepared(r#"{"save-budget-seconds": 2}"#);
    lab.state.borrow_mut().save_looks = u32::MAX;
    let before = lab.host.clock();
    let error = lab.pre_freeze().unwrap_err();
    assert!(error.message().contains("was not written within 2 s"), "{error:?}");
    assert!(lab.host.clock() - before < Duration::from_millis(2100));
    assert!(!lab.is_paused());

    let mut lab = Lab::new(V7).rdb().field("rdb_last_bgsave_status", "err").prepared("{}");
    let error = lab.pre_freeze().unwrap_err();
    assert!(error.message().contains("could not write its RDB file"), "{error:?}");
    assert!(!lab.is_paused());
}

#[test]
fn everything_that_moved_is_not_confirmed() {
    for (field, value, said) in [
        ("run_id", "run-2", "the server was restarted"),
        ("rdb_changes_since_last_save", "6", "6 changes"),
        ("aof_current_size", "1001", "had 1000 bytes, and has 1001"),
        ("role", "slave", "role"),
        ("loading", "1", "load"),
    ] {
        let mut lab = Lab::new(V7).held();
        lab.set(field, value);
        let error = lab.confirm().unwrap_err();
        assert!(error.message().contains(said), "{field}: {error:?}");
    }
    // A master's pings move this one.
    let mut lab = Lab::new(V7).held();
    lab.set("master_repl_offset", "14");
    lab.confirm().unwrap();
}

#[test]
fn a_pause_that_somebody_ended_is_not_confirmed_where_the_server_tells() {
    let mut lab = Lab::new(V8).held();
    lab.state.borrow_mut().paused_until = 0;
    let error = lab.confirm().unwrap_err();
    assert!(error.message().contains("somebody ended the pause"), "{error:?}");
}

#[test]
fn a_session_that_was_lost_is_opened_again_because_nothing_is_tied_to_it() {
    let mut lab = Lab::new(V7).prepared("{}");
    for session in lab.host.open_sessions() {
        lab.host.kill(session);
    }
    lab.pre_freeze().unwrap();
    for session in lab.host.open_sessions() {
        lab.host.kill(session);
    }
    lab.confirm().unwrap();
    for session in lab.host.open_sessions() {
        lab.host.kill(session);
    }
    lab.hook.post_thaw(Outcome::Captured).unwrap();
    lab.hook.finish().unwrap();
    is_as_it_was(&lab, "lost sessions");
}

#[test]
fn a_pause_that_cannot_be_ended_says_when_it_ends_by_itself() {
    let mut lab = Lab::new(V7).prepared("{}");
    lab.tell(s::PAUSE, Answer::never());
    // On the way back, and when it is asked for.
    lab.tell(s::UNPAUSE, Answer::never());
    lab.tell(s::UNPAUSE, Answer::never());
    let error = lab.pre_freeze().unwrap_err();
    assert!(error.message().contains("ends it by itself after 35 s, CLIENT UNPAUSE"), "{error:?}");
}

#[test]
fn a_server_that_does_not_say_what_is_in_force_is_told_to_let_writers_go_on() {
    for lost in [false, true] {
        let mut lab = Lab::new(V7).prepared("{}");
        if lost {
            // An operator's `timeout` has ended all that were idle: the hook opens the first one again.
            for session in lab.host.open_sessions() {
                lab.host.kill(session);
            }
        }
        lab.state.borrow_mut().refused_looks = u32::MAX;
        let error = lab.pre_freeze().unwrap_err();
        assert!(!lab.is_paused(), "lost {lost}: {:#?}", lab.host.order());
        assert!(error.message().contains("the server refuses it"), "{error:?}");
        assert!(!error.message().contains("could not be ended"), "{error:?}");
        // Rewrites stay off until the thaw: the run may go on without this hook.
        assert_eq!(lab.rewrite_at(), 0);
        end(&mut lab, true);
        is_as_it_was(&lab, "refused looks");
    }
}

#[test]
fn a_server_that_is_not_there_is_asked_again_at_the_next_start() {
    let mut lab = Lab::new(V7).held();
    lab.reborn();
    lab.host.refuse("main", "connection refused");
    lab.host.begin(Phase::Finish, Duration::from_secs(10));
    lab.hook.finish().unwrap_err();
    assert!(!lab.host.kv().is_empty());
}

#[test]
fn a_version_without_a_pause_of_writes_is_refused() {
    let mut lab = Lab::new("6.0.16");
    let error = lab.prepare("{}").unwrap_err();
    assert!(error.message().contains("this hook needs 6.2"), "{error:?}");
}

#[test]
fn state_that_cannot_be_read_is_told_once_and_thrown_away() {
    let mut lab = Lab::new(V7);
    stillpoint_hook::kv::set("intent", b"garbage").unwrap();
    let error = lab.hook.finish().unwrap_err();
    assert!(error.message().contains("check auto-aof-rewrite-percentage"), "{error:?}");
    lab.hook.finish().unwrap();
}

#[test]
fn a_server_that_stands_still_gets_what_it_needs_to_go_on_as_before() {
    let mut lab = Lab::new(V7).held();
    // From now on no answer comes, but what is sent waits in the socket and is run later.
    for _ in 0..10 {
        lab.tell(s::INFO, Answer::never());
        lab.tell(s::UNPAUSE, Answer::never());
        lab.tell(s::SET_REWRITE_AT, Answer::never());
    }
    lab.confirm().unwrap_err();
    lab.host.begin(Phase::PostThaw, Duration::from_secs(10));
    let error = lab.hook.post_thaw(Outcome::Captured).unwrap_err();
    assert!(error.message().contains("CLIENT UNPAUSE ends it at once"), "{error:?}");
    assert!(!lab.is_paused());
    assert_eq!(lab.rewrite_at(), 100);
    assert!(!lab.host.kv().is_empty(), "nobody has seen that it was run");
}
