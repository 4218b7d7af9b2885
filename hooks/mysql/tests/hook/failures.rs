//! Whatever fails, nothing is left locked, and the error says what to do.

use std::time::Duration;

use crate::support::{Lab, MARIADB, MYSQL};
use stillpoint_hook::testing::Answer;
use stillpoint_hook::{Hook, HookError, MetaValue, Outcome};
use stillpoint_hook_mysql::statements as s;

const LOCK_WAIT_TIMEOUT: fn() -> Answer =
    || Answer::error(1205, "HY000", "Lock wait timeout exceeded; try restarting transaction");
const DENIED: fn() -> Answer = || {
    Answer::error(
        1227,
        "42000",
        "Access denied; you need (at least one of) the RELOAD privilege(s)",
    )
};

/// The law of every test here.
#[track_caller]
fn nothing_is_locked(lab: &Lab) {
    assert_eq!(lab.holders(), [0_u32; 0], "{:#?}", lab.host.order());
    // Only the control session is left.
    assert!(lab.host.open_sessions().len() <= 1, "{:#?}", lab.host.order());
}

#[test]
fn every_statement_under_the_lock_can_fail_in_every_way_and_nothing_stays_locked() {
    for version in [MARIADB, MYSQL, "5.7.44"] {
        let statements = {
            let lab = Lab::prepared(version, "{}");
            let before = lab.host.statements().len();
            let mut lab = lab;
            lab.pre_freeze().unwrap();
            lab.host.statements().split_off(before)
        };
        assert!(statements.len() > 8);
        for statement in statements {
            let statement = *s::ALL.iter().find(|text| **text == statement.text).unwrap();
            for fail in [
                Answer::error(1064, "42000", "You have an error in your SQL syntax"),
                LOCK_WAIT_TIMEOUT(),
                DENIED(),
                Answer::lost(),
                Answer::never(),
                Answer::denied(),
                // Neither a row nor a column of what is expected.
                Answer::rows(&["x"], [["y".into()]]),
            ] {
                let mut lab = Lab::prepared(version, "{}");
                lab.tell(statement, fail.clone());
                let outcome = lab.pre_freeze();
                if outcome.is_err() {
                    nothing_is_locked(&lab);
                }
                // The host calls these whatever happened.
                let _ = lab.hook.post_thaw(Outcome::Aborted);
                let _ = lab.hook.finish();
                assert_eq!(lab.holders(), [0_u32; 0], "{version}: {statement}: {fail:?}");
                assert!(lab.host.open_sessions().is_empty(), "{version}: {statement}: {fail:?}");
            }
        }
    }
}

#[test]
fn a_lock_that_does_not_come_is_given_up_and_taken_back() {
    for version in [MARIADB, MYSQL] {
        let mut lab = Lab::prepared(version, "{}");
        lab.tell(s::LOCK_TABLES, LOCK_WAIT_TIMEOUT().after(Duration::from_secs(5)));
        let error = lab.pre_freeze().unwrap_err();
        let HookError::Busy(message) = error else { panic!("{error:?}") };
        assert!(
            message.contains("FLUSH TABLES WITH READ LOCK was not granted within 5 s"),
            "{message}"
        );
        // MySQL keeps a part of the lock in the session of a request that failed.
        assert!(lab.host.order().contains(&format!("2 {}", s::UNLOCK_TABLES)));
        nothing_is_locked(&lab);
    }
}

#[test]
fn the_lock_stalls_others_at_most_half_a_second_beyond_its_time_out() {
    let mut lab = Lab::prepared(MARIADB, r#"{"lock-wait-timeout-seconds": 2}"#);
    lab.tell(s::LOCK_TABLES, Answer::never());
    let before = lab.host.clock();
    let error = lab.pre_freeze().unwrap_err();
    assert!(matches!(error, HookError::Busy(_)), "{error:?}");
    assert!(lab.host.clock() - before <= Duration::from_millis(2500));
    nothing_is_locked(&lab);
}

#[test]
fn too_little_time_is_an_error_before_the_lock() {
    let mut lab = Lab::prepared(MARIADB, "{}");
    lab.host.begin(stillpoint_hook::Phase::PreFreeze, Duration::from_secs(3));
    let error = lab.hook.pre_freeze().unwrap_err();
    assert!(matches!(error, HookError::Timeout(_)), "{error:?}");
    assert!(!lab.host.statements().iter().any(|it| it.text == s::LOCK_TABLES));
}

#[test]
fn an_open_transaction_gives_the_lock_back_and_the_next_try_succeeds() {
    let mut lab = Lab::prepared(MARIADB, "{}");
    lab.state.borrow_mut().open_transactions.extend([2, 1]);
    let frozen = lab.pre_freeze().unwrap();
    let retries = frozen.metadata.iter().find(|entry| entry.key == "retries").unwrap();
    assert_eq!(retries.value, MetaValue::Integer(2));
    let order = lab.host.order();
    let unlocks = order.iter().filter(|step| step.ends_with(s::UNLOCK_TABLES)).count();
    assert_eq!(unlocks, 2);
    // Each try has a session of its own; only the last one holds.
    assert_eq!(lab.holders(), [4]);
}

#[test]
fn transactions_that_stay_open_are_named_and_nothing_is_locked() {
    let mut lab = Lab::prepared(MARIADB, r#"{"open-transaction-retries": 3}"#);
    lab.state.borrow_mut().open_transactions.extend([2; 10]);
    let error = lab.pre_freeze().unwrap_err();
    let HookError::Busy(message) = error else { panic!("{error:?}") };
    assert!(message.starts_with("2 transaction(s) with changes were open under the lock, the oldest of session 500 for 4 s, also after 3 retries"), "{message}");
    nothing_is_locked(&lab);
}

#[test]
fn open_transactions_that_the_operator_accepts_are_in_the_metadata() {
    let settings = r#"{"open-transaction-retries": 1, "accept-open-transactions": true}"#;
    let mut lab = Lab::prepared(MARIADB, settings);
    lab.state.borrow_mut().open_transactions.extend([2; 10]);
    let frozen = lab.pre_freeze().unwrap();
    let open = frozen.metadata.iter().find(|entry| entry.key == "open-transactions").unwrap();
    assert_eq!(open.value, MetaValue::Integer(2));
}

#[test]
fn an_answer_from_before_the_lock_proves_nothing_and_is_asked_for_again() {
    let mut lab = Lab::prepared(MARIADB, "{}");
    lab.state.borrow_mut().stale = 1;
    lab.pre_freeze().unwrap();
    let asked = lab.host.order().iter().filter(|step| step.ends_with(s::OPEN_TRANSACTIONS)).count();
    assert_eq!(asked, 2);

    let mut lab = Lab::prepared(MARIADB, r#"{"accept-open-transactions": true}"#);
    lab.state.borrow_mut().stale = 100;
    let error = lab.pre_freeze().unwrap_err();
    assert!(error.message().contains("pause that monitor"), "{error:?}");
    nothing_is_locked(&lab);
}

#[test]
fn the_way_is_looked_at_before_the_lock_is_asked_for() {
    let mut lab = Lab::prepared(MARIADB, "{}");
    lab.tell(
        s::LONG_QUERIES_MARIADB,
        Answer::rows(&["id", "time"], [[7_i64.into(), 12_i64.into()]]),
    );
    let error = lab.pre_freeze().unwrap_err();
    assert!(error.message().contains("the oldest of session 7 for 12 s"), "{error:?}");
    assert!(!lab.host.statements().iter().any(|it| it.text == s::LOCK_TABLES));
}

#[test]
fn prepare_waits_for_what_is_in_the_way_and_no_longer_than_it_is_told() {
    let long = || Answer::rows(&["id", "time"], [[7_i64.into(), 12_i64.into()]]);
    let mut lab = Lab::new(MARIADB);
    lab.tell(s::LONG_QUERIES_MARIADB, long());
    lab.tell(s::LONG_QUERIES_MARIADB, long());
    lab.prepare("{}").unwrap();
    // Two polls, and the cache's age.
    assert_eq!(lab.host.clock(), Duration::from_millis(1120));

    let mut lab = Lab::new(MARIADB);
    for _ in 0..100 {
        lab.tell(s::LONG_TRANSACTIONS, long());
    }
    let error = lab.prepare(r#"{"wait-for-long-queries-seconds": 3}"#).unwrap_err();
    assert!(matches!(error, HookError::Busy(_)), "{error:?}");
    assert_eq!(lab.host.clock(), Duration::from_secs(3));
}

#[test]
fn a_missing_privilege_is_found_before_the_lock_with_the_grant_to_run() {
    let mut lab = Lab::new(MARIADB);
    lab.tell(s::FLUSH_LOGS, DENIED());
    let error = lab.prepare("{}").unwrap_err();
    let HookError::Denied(message) = error else { panic!("{error:?}") };
    assert!(
        message.ends_with(
            "an administrator must run: GRANT RELOAD, PROCESS, BINLOG MONITOR, SLAVE MONITOR ON *.* TO 'sp'@'localhost';"
        ),
        "{message}"
    );
}

#[test]
fn deep_without_its_privilege_or_its_statement_is_found_before_the_lock() {
    let mut lab = Lab::new(MARIADB);
    lab.tell(s::TRY_CHECKPOINT, DENIED());
    let error = lab.prepare(r#"{"deep": true}"#).unwrap_err();
    assert!(error.message().contains(", SUPER ON *.*"), "{error:?}");

    let mut lab = Lab::new(MYSQL);
    let error = lab.prepare(r#"{"deep": true}"#).unwrap_err();
    let HookError::InvalidSettings(error) = error else { panic!("{error:?}") };
    assert_eq!(error.pointer, "/deep");
}

/// One of three nodes of a cluster.
fn galera_node() -> Lab {
    Lab::new(MARIADB)
        .variable("wsrep_on", "ON")
        .variable("wsrep_provider", "/usr/lib/galera/libgalera_smm.so")
        .status("wsrep_cluster_size", "3")
        .status("wsrep_cluster_state_uuid", "9d6a0b0e")
        .status("wsrep_last_committed", "77")
        .status("wsrep_local_state_comment", "Synced")
}

#[test]
fn a_galera_node_that_would_stop_its_cluster_is_refused() {
    let error = galera_node().prepare("{}").unwrap_err();
    assert!(error.message().contains("Galera cluster (Synced, 3 nodes)"), "{error:?}");
    assert!(error.message().contains("SET GLOBAL wsrep_desync = ON"), "{error:?}");

    // MariaDB has the variables in every build.
    let mut alone =
        Lab::new(MARIADB).variable("wsrep_on", "OFF").variable("wsrep_provider", "none");
    alone.prepare("{}").unwrap();
}

#[test]
fn a_galera_node_that_is_desynchronised_or_alone_is_locked_and_its_state_is_left_as_it_is() {
    for desynchronised in [true, false] {
        let mut lab = match desynchronised {
            true => galera_node().variable("wsrep_desync", "ON"),
            false => galera_node().status("wsrep_cluster_size", "1"),
        };
        let plan = lab.prepare("{}").unwrap();
        assert!(plan.summary.ends_with("a Galera node"), "{plan:?}");
        let frozen = lab.pre_freeze().unwrap();
        let position = frozen.metadata.iter().find(|entry| entry.key == "wsrep-position").unwrap();
        assert_eq!(position.value, MetaValue::Text("9d6a0b0e:77".into()));
        lab.confirm().unwrap();

        // What another node commits is applied after the lock, not under it.
        lab.state.borrow_mut().status.insert("wsrep_last_committed", "78".into());
        let error = lab.confirm().unwrap_err();
        assert!(
            matches!(&error, HookError::Application(moved) if moved.code == "moved"),
            "{error:?}"
        );
        lab.hook.post_thaw(Outcome::Captured).unwrap();
        nothing_is_locked(&lab);
    }
}

#[test]
fn a_replica_s_applier_is_never_stopped_and_its_temporary_tables_are_waited_for() {
    for version in [MARIADB, MYSQL] {
        let mut lab = Lab::new(version);
        lab.state.borrow_mut().replica = true;
        lab.prepare("{}").unwrap();
        lab.state.borrow_mut().temporary_tables.extend([2, 1]);
        let frozen = lab.pre_freeze().unwrap();
        let value = |key: &str| {
            let entry = frozen.metadata.iter().find(|entry| entry.key == key);
            entry.map(|entry| entry.value.clone())
        };
        assert_eq!(value("retries"), Some(MetaValue::Integer(2)));
        let source = Some(MetaValue::Text("source-bin.000007".into()));
        assert_eq!(value("source-file-east"), source, "{version}");
        lab.hook.post_thaw(Outcome::Captured).unwrap();
        for statement in lab.host.statements() {
            let text = statement.text;
            assert!(!text.contains("STOP") && !text.contains("START SLAVE"), "{text}");
            assert!(!text.contains("read_only"), "{text}");
        }
    }
}

#[test]
fn temporary_tables_that_stay_open_are_named_even_if_open_transactions_are_accepted() {
    let settings = r#"{"open-transaction-retries": 2, "accept-open-transactions": true}"#;
    let mut lab = Lab::new(MARIADB);
    lab.state.borrow_mut().replica = true;
    lab.prepare(settings).unwrap();
    lab.state.borrow_mut().temporary_tables.extend([3; 10]);
    let error = lab.pre_freeze().unwrap_err();
    let HookError::Busy(message) = error else { panic!("{error:?}") };
    assert!(message.contains("had 3 temporary table(s) open under the lock"), "{message}");
    nothing_is_locked(&lab);
}

#[test]
fn a_mysql_with_the_privilege_of_the_read_lock_alone_does_without_flushing_its_log() {
    let refused = || Answer::error(1227, "42000", "Access denied; you need RELOAD");
    let mut lab = Lab::new(MYSQL);
    lab.tell(s::FLUSH_LOGS, refused());
    lab.prepare("{}").unwrap();
    lab.pre_freeze().unwrap();
    let flushes = lab.host.statements().into_iter().filter(|it| it.text == s::FLUSH_LOGS).count();
    assert_eq!(flushes, 1);

    // Not if commits may be in the server's memory only, or no binary log could decide.
    for (name, value) in [("innodb_flush_log_at_trx_commit", "0"), ("log_bin", "OFF")] {
        let mut lab = Lab::new(MYSQL).variable(name, value);
        lab.tell(s::FLUSH_LOGS, refused());
        let error = lab.prepare("{}").unwrap_err();
        assert!(error.message().contains("GRANT RELOAD"), "{name}: {error:?}");
    }
    // Nor on a server that has no such privilege.
    let mut lab = Lab::new("8.0.22");
    lab.tell(s::FLUSH_LOGS, refused());
    assert!(matches!(lab.prepare("{}").unwrap_err(), HookError::Denied(_)));
}

#[test]
fn a_gtid_set_of_many_lines_is_one_line_in_the_metadata() {
    let mut lab = Lab::prepared(MYSQL, "{}");
    let frozen = lab.pre_freeze().unwrap();
    let gtid = frozen.metadata.iter().find(|entry| entry.key == "gtid-executed").unwrap();
    assert_eq!(gtid.value, MetaValue::Text("3e11fa47:1-5,4f22ab58:1-9".into()));
}

#[test]
fn transactions_in_doubt_are_refused_where_the_server_tells_them() {
    let xa = || Answer::rows(&["formatID", "data"], [[1_i64.into(), "x".into()]]);
    let mut lab = Lab::new(MARIADB);
    lab.tell(s::PREPARED_XA, xa());
    let error = lab.prepare("{}").unwrap_err();
    assert!(error.message().contains("XA RECOVER"), "{error:?}");

    // MySQL without XA_RECOVER_ADMIN.
    let mut lab = Lab::new(MYSQL);
    lab.tell(s::PREPARED_XA, Answer::error(1401, "XAE03", "XAER_RMERR"));
    lab.prepare("{}").unwrap();
}

#[test]
fn durability_that_is_turned_down_is_said() {
    let mut lab = Lab::new(MARIADB).variable("sync_binlog", "0");
    lab.prepare("{}").unwrap();
    assert!(lab.host.log().iter().any(|line| line.message.starts_with("sync_binlog is 0, not 1")));
}

#[test]
fn a_position_that_moved_is_not_confirmed() {
    let mut lab = Lab::quiesced(MARIADB);
    lab.state.borrow_mut().position = 999;
    let error = lab.confirm().unwrap_err();
    assert!(
        error.message().contains("it was at mysql-bin.000004:328, and is at mysql-bin.000004:999"),
        "{error:?}"
    );
}

#[test]
fn a_session_that_was_killed_is_not_confirmed_and_there_is_nothing_to_release() {
    let mut lab = Lab::quiesced(MARIADB);
    lab.host.kill(2);
    let error = lab.confirm().unwrap_err();
    let HookError::Application(error) = error else { panic!("{error:?}") };
    assert_eq!(error.code, "lock-lost");
    lab.hook.post_thaw(Outcome::Captured).unwrap();
    nothing_is_locked(&lab);
}

#[test]
fn an_unlock_by_the_session_itself_is_not_confirmed() {
    let mut lab = Lab::quiesced(MARIADB);
    let count =
        Answer::rows(&["Variable_name", "Value"], [["Com_unlock_tables".into(), "1".into()]]);
    lab.tell(s::UNLOCKS, count);
    let error = lab.confirm().unwrap_err();
    assert!(error.message().contains("UNLOCK TABLES"), "{error:?}");
}

#[test]
fn a_session_without_the_mark_is_not_confirmed() {
    let mut lab = Lab::quiesced(MARIADB);
    let row = [102_u64.into(), None::<u64>.into()];
    lab.tell(s::SAME_SESSION, Answer::rows(&["id", "mark"], [row]));
    let error = lab.confirm().unwrap_err();
    assert!(error.message().contains("another one answers"), "{error:?}");
}

#[test]
fn a_release_that_cannot_be_proven_says_what_to_do() {
    let mut lab = Lab::quiesced(MARIADB);
    lab.tell(s::UNLOCK_TABLES, Answer::never());
    for _ in 0..100 {
        lab.tell(s::SESSION_COUNT, Answer::rows(&["COUNT(*)"], [[1_i64.into()]]));
    }
    let error = lab.hook.post_thaw(Outcome::Captured).unwrap_err();
    assert!(error.message().contains("run KILL 102"), "{error:?}");
}

#[test]
fn a_control_session_that_idled_out_is_opened_again() {
    let mut lab = Lab::prepared(MARIADB, "{}");
    lab.host.kill(1);
    lab.pre_freeze().unwrap();
    assert_eq!(lab.holders(), [3]);
}
