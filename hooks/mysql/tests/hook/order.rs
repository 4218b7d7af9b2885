//! What the hook does to a server, in which order: for each flavour and version.

use crate::support::{Lab, MARIADB, MYSQL};
use stillpoint_hook::{Consistency, Hook, MetaValue, Outcome};
use stillpoint_hook_mysql::statements as s;

/// The order of words, as `session statement`.
fn order(steps: &[(u32, &str)]) -> Vec<String> {
    steps.iter().map(|(session, statement)| format!("{session} {statement}")).collect()
}

#[test]
fn a_mariadb_is_locked_checked_flushed_and_its_position_is_read() {
    let mut lab = Lab::prepared(MARIADB, "{}");
    let frozen = lab.pre_freeze().unwrap();
    assert_eq!(frozen.consistency, Consistency::Application);
    let mut expected = order(&[(1, s::VERSION), (1, s::LONG_QUERIES_MARIADB)]);
    expected.push("open 2 main".into());
    expected.extend(order(&[
        (2, s::SESSION),
        (2, s::LOCK_TABLES),
        (2, s::CANARY),
        (2, s::OPEN_TRANSACTIONS),
        (2, s::END_CANARY),
        (2, s::FLUSH_LOGS),
        (2, s::BINLOG_STATUS_OLD),
        (2, s::GTID_MARIADB),
        (2, s::LSN_MARIADB),
    ]));
    assert_eq!(lab.host.order(), expected);
}

#[test]
fn a_mysql_is_kept_from_ddl_first() {
    let mut lab = Lab::prepared(MYSQL, "{}");
    lab.pre_freeze().unwrap();
    let mut expected = order(&[(1, s::VERSION), (1, s::LONG_QUERIES_MYSQL)]);
    expected.push("open 2 main".into());
    expected.extend(order(&[
        (2, s::SESSION),
        (2, s::LOCK_INSTANCE),
        (2, s::LOCK_TABLES),
        (2, s::CANARY),
        (2, s::OPEN_TRANSACTIONS),
        (2, s::END_CANARY),
        (2, s::FLUSH_LOGS),
        (2, s::BINLOG_STATUS_MYSQL),
        (2, s::GTID_MYSQL),
        (2, s::LSN_MYSQL),
    ]));
    assert_eq!(lab.host.order(), expected);
}

#[test]
fn the_way_back_unlocks_in_reverse_and_closes() {
    let mut lab = Lab::quiesced(MYSQL);
    lab.confirm().unwrap();
    let confirmed = order(&[
        (2, s::SAME_SESSION),
        (2, s::UNLOCKS),
        (2, s::BINLOG_STATUS_MYSQL),
        (2, s::GTID_MYSQL),
    ]);
    assert_eq!(lab.host.order(), confirmed);

    lab.host.clear_order();
    lab.hook.post_thaw(Outcome::Captured).unwrap();
    let mut expected = order(&[(2, s::UNLOCK_TABLES), (2, s::UNLOCK_INSTANCE)]);
    expected.push("close 2".into());
    assert_eq!(lab.host.order(), expected);
    assert!(lab.holders().is_empty());

    lab.hook.finish().unwrap();
    assert!(lab.host.open_sessions().is_empty());
}

#[test]
fn deep_checkpoints_on_the_other_session_and_only_under_the_lock() {
    let mut lab = Lab::prepared(MARIADB, r#"{"deep": true}"#);
    lab.pre_freeze().unwrap();
    let order = lab.host.order();
    let at = |word: &str| order.iter().position(|step| step == word).unwrap();
    let checkpoint = at(&format!("1 {}", s::CHECKPOINT));
    assert!(at(&format!("2 {}", s::LOCK_TABLES)) < checkpoint);
    assert!(checkpoint < at(&format!("2 {}", s::BINLOG_STATUS_OLD)));
}

#[test]
fn no_server_gets_a_statement_that_it_lacks() {
    for version in [
        "10.5.29-MariaDB",
        "10.6.22-MariaDB",
        MARIADB,
        "11.4.3-MariaDB",
        "12.1.2-MariaDB",
        "5.7.44-log",
        "8.0.11",
        "8.0.36-28",
        "8.2.0",
        MYSQL,
        "9.7.4-debug",
    ] {
        let mut lab = Lab::quiesced(version);
        lab.confirm().unwrap();
        lab.hook.post_thaw(Outcome::Captured).unwrap();
        lab.hook.finish().unwrap();
        for statement in lab.host.statements() {
            let state = lab.state.borrow();
            assert!(!state.lacks(&statement.text), "{version} has no {}", statement.text);
        }
    }
}

#[test]
fn the_session_that_locks_has_time_outs_of_its_own() {
    let lab = Lab::quiesced(MARIADB);
    let statements = lab.host.statements();
    let session = statements.iter().find(|it| it.text == s::SESSION).unwrap();
    assert_eq!(session.params, [5_i64.into(), 35_i64.into()]);
}

#[test]
fn what_a_restore_needs_is_in_the_metadata() {
    let mut lab = Lab::prepared(MARIADB, "{}");
    let frozen = lab.pre_freeze().unwrap();
    let value = |key: &str| {
        let entry = frozen.metadata.iter().find(|entry| entry.key == key);
        entry.map(|entry| entry.value.clone())
    };
    let text = |text: &str| Some(MetaValue::Text(text.into()));
    assert_eq!(value("flavour"), text("mariadb"));
    assert_eq!(value("server-version"), text(MARIADB));
    assert_eq!(value("binlog-file"), text("mysql-bin.000004"));
    assert_eq!(value("binlog-position"), Some(MetaValue::Integer(328)));
    assert_eq!(value("gtid-binlog-pos"), text("0-1-5"));
    assert_eq!(value("gtid-slave-pos"), None);
    assert_eq!(value("innodb-lsn"), text("46837"));
    assert_eq!(value("lock-wait-ms"), Some(MetaValue::Integer(3)));
    assert_eq!(value("open-transactions"), Some(MetaValue::Integer(0)));
}

#[test]
fn every_directory_of_the_server_is_in_the_plan_once() {
    let mut lab = Lab::new(MARIADB)
        .variable("innodb_undo_directory", "undo")
        .variable("innodb_log_group_home_dir", "/redo/")
        .variable("innodb_data_file_path", "ibdata1:12M;/far/ibdata2:12M:autoextend");
    let plan = lab.prepare("{}").unwrap();
    assert_eq!(plan.paths, ["/var/lib/mysql", "/redo", "/var/lib/mysql/undo", "/far", "/binlog"]);
    assert_eq!(plan.summary, "MariaDB 10.11.19, binary log on");

    let without = lab.prepare(r#"{"require-binlog-paths": false}"#).unwrap();
    assert!(!without.paths.contains(&"/binlog".to_owned()));
}

#[test]
fn nothing_is_locked_in_prepare() {
    let lab = Lab::prepared(MYSQL, "{}");
    for statement in lab.host.statements() {
        assert!(!statement.text.contains("LOCK"), "{}", statement.text);
    }
}

#[test]
fn finish_on_a_fresh_instance_does_nothing() {
    let mut lab = Lab::new(MARIADB);
    lab.hook.finish().unwrap();
    lab.hook.finish().unwrap();
    assert!(lab.host.order().is_empty());
}

#[test]
fn finish_releases_what_post_thaw_did_not() {
    let mut lab = Lab::quiesced(MARIADB);
    lab.hook.finish().unwrap();
    assert!(lab.holders().is_empty());
    assert!(lab.host.open_sessions().is_empty());
}
