//! The hook against a scripted host: no server is needed. `cargo test`

use {{name_}}::{Quiesce, STATEMENTS};
use stillpoint_hook::testing::{Answer, FakeHost};
use stillpoint_hook::{Hook, HookError, Outcome};

/// A server on which nothing stands in the way.
fn server() -> FakeHost {
    let host = FakeHost::new();
    for statement in STATEMENTS {
        host.on(statement).answers(Answer::affected(0));
    }
    host.on(STATEMENTS[0]).answers(Answer::rows(
        &["@@GLOBAL.datadir", "@@GLOBAL.log_bin_basename"],
        [["/var/lib/mysql/".into(), "/var/log/mysql/bin".into()]],
    ));
    host.on(STATEMENTS[3]).answers(Answer::rows(&["COUNT(*)"], [[0_i64.into()]]));
    host.on(STATEMENTS[5]).answers(at(342));
    host
}

fn at(offset: i64) -> Answer {
    Answer::rows(&["File", "Position"], [["bin.000001".into(), offset.into()]])
}

#[test]
fn it_locks_notes_the_position_and_unlocks() -> Result<(), HookError> {
    let host = server();
    let mut hook = Quiesce::default();
    let plan = hook.prepare("{}")?;
    assert_eq!(plan.paths, ["/var/lib/mysql/", "/var/log/mysql"]);
    let frozen = hook.pre_freeze()?;
    assert_eq!(frozen.metadata[0].key, "binlog-file");
    hook.confirm()?;
    hook.post_thaw(Outcome::Captured)?;
    hook.finish()?;
    let order = host.order();
    let place = |text: &str| order.iter().position(|line| line.ends_with(text));
    assert!(place("READ LOCK") < place("MASTER STATUS"), "{order:?}");
    assert_eq!(order[order.len() - 2..], ["1 UNLOCK TABLES", "close 1"]);
    Ok(())
}

#[test]
fn what_it_took_is_given_back_when_a_transaction_stays_open() -> Result<(), HookError> {
    let host = server();
    host.on(STATEMENTS[3]).answers(Answer::rows(&["COUNT(*)"], [[1_i64.into()]]));
    let mut hook = Quiesce::default();
    hook.prepare("{}")?;
    assert!(matches!(hook.pre_freeze(), Err(HookError::Busy(_))));
    assert_eq!(host.order().last().map(String::as_str), Some("close 1"));
    hook.post_thaw(Outcome::Aborted)?;
    Ok(())
}

#[test]
fn a_lock_that_is_not_granted_is_an_error_of_the_server() -> Result<(), HookError> {
    let host = server();
    host.on(STATEMENTS[2]).answers(Answer::error(1205, "HY000", "Lock wait timeout exceeded"));
    let mut hook = Quiesce::default();
    hook.prepare("{}")?;
    assert!(hook.pre_freeze().is_err());
    assert_eq!(host.order().last().map(String::as_str), Some("close 1"));
    Ok(())
}

#[test]
fn what_was_written_under_the_lock_is_told() -> Result<(), HookError> {
    let host = server();
    let mut hook = Quiesce::default();
    hook.prepare("{}")?;
    hook.pre_freeze()?;
    host.on(STATEMENTS[5]).answers(at(999));
    assert!(hook.confirm().is_err());
    Ok(())
}

#[test]
fn settings_that_make_no_sense_are_named() {
    assert!(Quiesce::validate(r#"{"connection": "main"}"#).is_ok());
    assert!(matches!(
        Quiesce::validate(r#"{"connection": 7}"#),
        Err(HookError::InvalidSettings(error)) if error.pointer == "/connection"
    ));
}
