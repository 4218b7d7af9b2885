//! The fake host does what the contract says the real one does.

use std::time::Duration;

use stillpoint_hook::sql::{Connection, Engine, Error};
use stillpoint_hook::testing::{Answer, FakeHost, exited};
use stillpoint_hook::{HookError, Phase, info, kv, process, run};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_statement_that_times_out_costs_its_session() {
    let host = FakeHost::new();
    host.on("SELECT SLEEP(9)").answers(Answer::affected(0).after(SECOND * 9));
    let session = Connection::open("main").unwrap();
    let answer = session.query("SELECT SLEEP(9)", &[], Some(SECOND));
    assert_eq!(answer.unwrap_err(), Error::Timeout);
    assert_eq!(host.clock(), SECOND);
    assert!(!session.is_alive());
    let later = session.query("SELECT SLEEP(9)", &[], None).unwrap_err();
    assert!(matches!(later, Error::ConnectionLost(_)));
    drop(session);
    assert_eq!(host.order(), ["open 1 main", "1 SELECT SLEEP(9)", "killed 1", "close 1"]);
}

#[test]
fn a_time_out_is_clamped_to_the_phase() {
    let host = FakeHost::new();
    host.begin(Phase::Confirm, SECOND);
    host.on("SELECT 1").answers(Answer::never());
    let session = Connection::open("main").unwrap();
    session.query("SELECT 1", &[], Some(SECOND * 60)).unwrap_err();
    assert_eq!(host.clock(), SECOND);
    assert_eq!(run::remaining(), Duration::ZERO);
}

#[test]
fn answers_come_in_turn_and_the_last_one_stays() {
    let host = FakeHost::new();
    host.on("SELECT 1").answers(Answer::error(1205, "HY000", "busy")).answers(Answer::affected(3));
    let session = Connection::open("main").unwrap();
    let run = || session.execute("SELECT  1", &[], None);
    assert_eq!(run().unwrap_err().vendor_code(), Some(1205));
    assert_eq!((run(), run()), (Ok(3), Ok(3)));
}

#[test]
fn what_is_not_granted_is_denied() {
    let host = FakeHost::new();
    assert!(matches!(Connection::open("other"), Err(Error::Denied(_))));
    host.connection("other", Engine::Postgresql, "15.18");
    let session = Connection::open("other").unwrap();
    assert_eq!(session.info().engine, Engine::Postgresql);
    assert!(matches!(session.execute("DROP TABLE t", &[], None), Err(Error::Denied(_))));
    assert!(session.is_alive());
    assert!(matches!(process::run("rm", &[], None, None), Err(process::Error::Denied(_))));
}

#[test]
fn no_connection_is_opened_while_settings_are_checked() {
    let host = FakeHost::new();
    host.begin(Phase::Validate, SECOND);
    assert!(matches!(Connection::open("main"), Err(Error::Denied(_))));
}

#[test]
fn a_server_that_is_down_is_unavailable() {
    let host = FakeHost::new();
    host.refuse("main", "connection refused");
    assert_eq!(
        Connection::open("main").unwrap_err(),
        Error::Unavailable("connection refused".into())
    );
}

#[test]
fn sleep_ends_with_the_phase_and_with_the_cancellation() {
    let host = FakeHost::new();
    host.begin(Phase::PreFreeze, SECOND * 10);
    host.cancel_at(SECOND * 2);
    run::sleep(SECOND * 5);
    assert!(run::cancelled());
    assert_eq!(host.clock(), SECOND * 2);

    let host = FakeHost::new();
    host.begin(Phase::PreFreeze, SECOND);
    run::sleep(SECOND * 5);
    assert_eq!(host.clock(), SECOND);
}

#[test]
fn a_granted_program_runs_and_is_in_the_order() {
    let host = FakeHost::new();
    host.program("mongosh", |run| {
        assert_eq!(run.stdin.as_deref(), Some(b"db.fsyncLock()".as_slice()));
        Ok(process::Output {
            exit_code: Some(0),
            signal: None,
            stdout: b"ok".to_vec(),
            stderr: vec![],
            truncated: false,
        })
    });
    let output = process::run("mongosh", &["--quiet"], Some(b"db.fsyncLock()"), None).unwrap();
    assert!(output.succeeded());
    assert_eq!(host.order(), ["run mongosh --quiet"]);
}

#[test]
fn no_program_runs_while_settings_are_checked() {
    let host = FakeHost::new();
    host.program("mongosh", |_| Ok(exited(0, "")));
    host.begin(Phase::Validate, SECOND);
    let refused = process::run("mongosh", &[], None, None);
    assert!(matches!(refused, Err(process::Error::Denied(_))));
    assert!(host.order().is_empty());
    // Its twin.
    host.begin(Phase::Prepare, SECOND);
    assert!(process::run("mongosh", &[], None, None).unwrap().succeeded());
}

#[test]
fn a_program_that_failed_says_why_in_its_last_line() {
    let failed = |output: process::Output| output.success().unwrap_err();
    let signal = process::Output { exit_code: None, signal: Some(9), ..exited(0, "") };
    let HookError::Application(error) = failed(signal) else { panic!() };
    assert_eq!(
        (error.code.as_str(), error.message.as_str()),
        ("signal 9", "the program failed: it wrote nothing")
    );
    let both = process::Output { stderr: b"why\n\n".to_vec(), ..exited(3, "what") };
    let HookError::Application(error) = failed(both) else { panic!() };
    assert_eq!((error.code.as_str(), error.message.as_str()), ("3", "the program failed: why"));
}

#[test]
fn durable_state_has_a_limit() {
    let host = FakeHost::new();
    host.kv_limit(8);
    kv::set("a", b"1234567").unwrap();
    kv::set("a", b"7654321").unwrap();
    assert_eq!(kv::set("b", b"x"), Err(kv::Error::TooLarge));
    assert_eq!(kv::get("a"), Ok(Some(b"7654321".to_vec())));
    assert_eq!(kv::keys(), Ok(vec!["a".to_owned()]));
    kv::delete("a").unwrap();
    kv::delete("a").unwrap();
    assert_eq!(kv::keys(), Ok(vec![]));
    assert!(host.kv().is_empty());
}

#[test]
fn without_a_fake_host_errors_say_so() {
    let Err(Error::Unavailable(text)) = Connection::open("main") else { panic!() };
    assert!(text.contains("FakeHost"));
    info!("goes nowhere");
}
