//! Mode `backup`: begins and ends in one session, and its label is saved.

use stillpoint_hook::testing::Answer;
use stillpoint_hook::{Consistency, Hook, HookError, Outcome};
use stillpoint_hook_postgresql::statements as s;

use crate::support::{Lab, text};

const BACKUP: &str = r#"{"mode": "backup"}"#;

#[test]
fn it_begins_before_the_freeze_and_ends_after_the_thaw_in_the_same_session() {
    for (major, start, stop) in [
        (13, s::BACKUP_START_13, s::BACKUP_STOP_13),
        (14, s::BACKUP_START_13, s::BACKUP_STOP_13),
        (15, s::BACKUP_START_15, s::BACKUP_STOP_15),
        (16, s::BACKUP_START_15, s::BACKUP_STOP_15),
        (17, s::BACKUP_START_15, s::BACKUP_STOP_15),
    ] {
        let (mut lab, frozen) = Lab::new(major).quiesced(BACKUP);
        assert_eq!(frozen.consistency, Consistency::Application);
        assert_eq!(text(&frozen.metadata, "backup-start-lsn"), "0/4000028");
        assert_eq!((lab.count(start), lab.count(stop), lab.count(s::CHECKPOINT)), (1, 0, 0));
        assert!(lab.backup_runs());

        lab.confirm().unwrap();
        assert!(!lab.backup_runs());
        let after = lab.hook.post_thaw(Outcome::Captured).unwrap();
        assert_eq!(text(&after, "backup-stop-lsn"), "0/4000138");
        assert_eq!(text(&after, "backup-label"), "START WAL LOCATION: 0/4000028\n");
        assert_eq!(text(&after, "tablespace-map"), "16400 /fast/pg\n");
    }
}

#[test]
fn without_a_snapshot_it_ends_with_its_session() {
    for outcome in [Outcome::Aborted, Outcome::Failed] {
        let (mut lab, _) = Lab::new(15).quiesced(BACKUP);
        lab.hook.post_thaw(outcome).unwrap();
        assert!(!lab.backup_runs());
        assert_eq!(lab.count(s::BACKUP_STOP_15), 0);
    }
}

#[test]
fn an_error_after_its_begin_ends_it_at_once() {
    let mut lab = Lab::new(15).prepared(BACKUP);
    lab.tell(s::POSITION, Answer::error(0, "XX000", "could not read the control file"));
    lab.pre_freeze().unwrap_err();
    assert_eq!(lab.count(s::BACKUP_START_15), 1);
    assert!(!lab.backup_runs());
}

#[test]
fn a_begin_whose_answer_is_lost_ends_with_its_session() {
    let mut lab = Lab::new(15).prepared(BACKUP);
    lab.tell(s::BACKUP_START_15, Answer::never());
    let error = lab.pre_freeze().unwrap_err();
    assert!(matches!(error, HookError::Timeout(_)), "{error:?}");
    assert!(lab.host.open_sessions().is_empty());
}

#[test]
fn one_that_cannot_be_ended_is_not_confirmed() {
    let (mut lab, _) = Lab::new(15).quiesced(BACKUP);
    lab.tell(s::BACKUP_STOP_15, Answer::error(0, "57014", "canceling statement"));
    let error = lab.confirm().unwrap_err();
    assert!(error.message().contains("the base backup has no end"), "{error:?}");
    lab.hook.post_thaw(Outcome::Captured).unwrap();
    assert!(!lab.backup_runs());
}

#[test]
fn an_archiver_that_fails_makes_it_worth_less() {
    let failing = || Lab::new(15).with(|state| state.archiver_fails = true);
    let (_lab, frozen) = failing().quiesced(BACKUP);
    assert_eq!(frozen.consistency, Consistency::Crash);
    assert!(text(&frozen.metadata, "weaknesses").contains("000000010000000000000007"));

    // A checkpoint does not need the archive.
    let (lab, frozen) = failing().quiesced("{}");
    assert_eq!(frozen.consistency, Consistency::Application);
    assert!(lab.host.log().iter().any(|line| line.message.contains("the archiver fails")));
}

#[test]
fn the_log_may_be_elsewhere() {
    let mut lab = Lab::new(15);
    let plan = lab.prepare(r#"{"mode": "backup", "require-wal-paths": false}"#).unwrap();
    assert!(!plan.paths.iter().any(|path| path.ends_with("pg_wal")), "{:?}", plan.paths);
}
