//! What is refused or lowered before anything is begun, and what the operator is told.

use stillpoint_hook::sql::Engine;
use stillpoint_hook::testing::Answer;
use stillpoint_hook::{Consistency, HookError};
use stillpoint_hook_postgresql::statements as s;

use crate::support::{Lab, State, text};

#[test]
fn a_missing_privilege_is_found_in_prepare_with_the_statement_that_grants_it() {
    let no_checkpoint: fn(&mut State) = |state| state.may_checkpoint = false;
    let no_backup: fn(&mut State) = |state| state.may_backup = false;
    let no_settings: fn(&mut State) = |state| {
        state.settings.remove("data_directory");
    };
    for (major, settings, change, grant) in [
        (15, "{}", no_checkpoint, "GRANT pg_checkpoint TO \"stillpoint\""),
        (14, "{}", no_checkpoint, "ALTER ROLE \"stillpoint\" SUPERUSER"),
        (
            17,
            r#"{"mode": "backup"}"#,
            no_backup,
            "GRANT EXECUTE ON FUNCTION pg_backup_start(text, boolean), pg_backup_stop(boolean) TO \"stillpoint\"",
        ),
        (
            13,
            r#"{"mode": "backup"}"#,
            no_backup,
            "GRANT EXECUTE ON FUNCTION pg_start_backup(text, boolean, boolean), pg_stop_backup(boolean, boolean) TO",
        ),
        (15, "{}", no_settings, "GRANT pg_read_all_settings TO \"stillpoint\""),
    ] {
        let mut lab = Lab::new(major).with(change);
        let error = lab.prepare(settings).unwrap_err();
        assert!(matches!(error, HookError::Denied(_)), "{error:?}");
        assert!(error.message().contains(grant), "{error:?}");
        assert_eq!(lab.count(s::CHECKPOINT), 0);
    }
}

#[test]
fn a_privilege_that_only_the_statement_misses_is_explained_too() {
    let mut lab = Lab::new(15);
    lab.tell(s::CHECKPOINT, Answer::error(0, "42501", "must be superuser or have privileges"));
    let error = lab.prepare("{}").unwrap_err();
    assert!(error.message().contains("GRANT pg_checkpoint"), "{error:?}");
}

#[test]
fn versions_that_are_too_old_and_other_servers_are_refused() {
    for (engine, version) in [(Engine::Postgresql, "12.22"), (Engine::Mariadb, "10.11.19-MariaDB")]
    {
        let mut lab = Lab::new(15);
        lab.host.connection("main", engine, version);
        assert!(lab.prepare("{}").is_err(), "{version}");
        assert!(lab.host.statements().is_empty());
    }
}

#[test]
fn somebody_else_s_exclusive_backup_is_refused_and_never_ended() {
    for major in [13, 14] {
        let mut lab = Lab::new(major).with(|state| state.exclusive = true);
        let error = lab.prepare("{}").unwrap_err();
        assert!(matches!(error, HookError::Busy(_)), "{error:?}");
        assert_eq!(lab.count(s::BACKUP_STOP_13), 0);

        // Also one that began after the look.
        let mut lab = Lab::new(major).prepared("{}");
        lab.state.borrow_mut().exclusive = true;
        assert!(matches!(lab.pre_freeze().unwrap_err(), HookError::Busy(_)));
    }
}

#[test]
fn a_server_that_promises_less_is_said_to() {
    for (name, words) in [
        ("fsync", "fsync is off"),
        ("full_page_writes", "full_page_writes is off"),
        ("synchronous_commit", "acknowledged before they are in the log"),
    ] {
        let lab = Lab::new(15).with(|state| {
            state.settings.insert(name, "off");
        });
        let (lab, frozen) = lab.quiesced("{}");
        assert_eq!(frozen.consistency, Consistency::Crash, "{name}");
        assert!(text(&frozen.metadata, "weaknesses").contains(words), "{frozen:?}");
        assert!(lab.host.log().iter().any(|line| line.message.contains(words)));
    }
    let lab = Lab::new(15).with(|state| state.asynchronous = vec![["*", "fast"]]);
    let (_lab, frozen) = lab.quiesced("{}");
    assert_eq!(frozen.consistency, Consistency::Crash);
    assert!(text(&frozen.metadata, "weaknesses").contains("role fast in database *"));
}

#[test]
fn a_pooler_in_between_is_refused() {
    let mut lab = Lab::new(15);
    let row = [7_i64.into(), "now".into(), false.into(), "1".into(), 1_i64.into()];
    let other = Answer::rows(&["pid", "started", "standby", "system", "timeline"], [row]);
    lab.tell(s::IDENTITY, other);
    let error = lab.prepare("{}").unwrap_err();
    assert!(error.message().contains("not to a pooler"), "{error:?}");
}

#[test]
fn an_answer_that_was_cut_short_proves_nothing() {
    for statement in [s::SETTINGS, s::TABLESPACES] {
        let mut lab = Lab::new(15);
        let cut = Answer::rows(&["name", "setting"], [["fsync".into(), "on".into()]]).truncated();
        lab.tell(statement, cut);
        assert!(lab.prepare("{}").is_err(), "{statement}");
    }
}
