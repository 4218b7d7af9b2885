//! What is ours is ended, whoever died; what is somebody else's never is.

use stillpoint_hook::Outcome;

use crate::support::{BEGIN_BACKUP, END_BACKUP, Lab, What, code, database, held, prepared};

#[test]
fn what_a_dead_run_has_begun_is_ended_by_a_fresh_instance_once() {
    let mut lab = held();
    lab.die();
    lab.finish().unwrap();
    assert!(!lab.in_backup_mode());
    lab.finish().unwrap();
    assert_eq!(lab.done(END_BACKUP), 1);
    assert!(lab.host.kv().is_empty());
}

#[test]
fn what_a_run_began_and_died_before_it_knew_is_ended_too() {
    let mut lab = prepared();
    lab.fault(BEGIN_BACKUP, true, What::Hang, 1);
    lab.fault("SELECT '<sp:instance>'", false, What::Hang, 0);
    // The last look before it must pass.
    lab.database.borrow_mut().faults.swap(0, 1);
    lab.database.borrow_mut().faults.remove(0);
    let error = lab.pre_freeze().unwrap_err();
    assert_eq!(code(&error), "timeout");
    assert!(!lab.in_backup_mode(), "undone at once: {:?}", lab.log());
    assert_eq!(lab.done(END_BACKUP), 1);
}

#[test]
fn what_cannot_be_undone_at_once_is_kept_and_undone_later() {
    let mut lab = prepared();
    lab.fault(BEGIN_BACKUP, true, What::Die(9), 1);
    lab.fault(
        END_BACKUP,
        false,
        What::Error("ORA-03113: end-of-file on communication channel".into()),
        2,
    );
    let error = lab.pre_freeze().unwrap_err();
    assert!(error.message().contains("not certain that backup mode is ended"), "{error:?}");
    assert!(lab.in_backup_mode());
    let error = lab.post_thaw(Outcome::Aborted).unwrap_err();
    assert_eq!(code(&error), "ORA-03113");
    assert!(error.message().contains("`stillpoint recover`"), "{error:?}");
    lab.die();
    lab.finish().unwrap();
    assert!(!lab.in_backup_mode());
    assert_eq!(lab.done(END_BACKUP), 1);
}

#[test]
fn somebody_elses_backup_is_never_ended() {
    // Before us.
    let mut lab = Lab::new(database());
    lab.database.borrow_mut().somebody_begins(1_700_000_100);
    let error = lab.prepare(r#"{"wait-for-others-seconds": 0}"#).unwrap_err();
    assert_eq!(code(&error), "busy");
    lab.finish().unwrap();

    // Between prepare and us.
    let mut lab2 = prepared();
    lab2.database.borrow_mut().somebody_begins(lab2.now.get());
    assert_eq!(code(&lab2.pre_freeze().unwrap_err()), "busy");
    lab2.post_thaw(Outcome::Aborted).unwrap();
    lab2.finish().unwrap();

    // Between our last look and BEGIN BACKUP: ORA-01146.
    let mut lab3 = prepared();
    lab3.fault(BEGIN_BACKUP, false, What::SomebodyBegins, 1);
    let error = lab3.pre_freeze().unwrap_err();
    assert_eq!(code(&error), "busy");
    assert!(error.message().contains("ORA-01146"), "{error:?}");
    lab3.post_thaw(Outcome::Aborted).unwrap();
    lab3.finish().unwrap();

    // Ours was ended, and another begun, while the snapshot was taken.
    let mut lab4 = held();
    lab4.database.borrow_mut().somebody_ends();
    lab4.database.borrow_mut().somebody_begins(lab4.now.get() + 1);
    assert_eq!(code(&lab4.confirm().unwrap_err()), "backup-mode-lost");
    lab4.post_thaw(Outcome::Captured).unwrap();
    lab4.finish().unwrap();

    // After the death of our run.
    let mut lab5 = held();
    lab5.die();
    lab5.database.borrow_mut().somebody_ends();
    lab5.database.borrow_mut().somebody_begins(lab5.now.get() + 2);
    lab5.finish().unwrap();

    // After the death of a run that had begun nothing.
    let mut lab6 = prepared();
    lab6.die();
    lab6.database.borrow_mut().somebody_begins(lab6.now.get() + 2);
    lab6.finish().unwrap();

    for lab in [&lab, &lab2, &lab3, &lab4, &lab5, &lab6] {
        assert!(lab.in_backup_mode(), "it goes on: {:?}", lab.log());
        assert_eq!(lab.done(END_BACKUP), 0);
        assert!(lab.host.kv().is_empty(), "and nothing is kept");
    }
}

#[test]
fn a_backup_that_began_long_after_the_intent_is_not_ours() {
    let mut lab = prepared();
    lab.fault(BEGIN_BACKUP, false, What::Die(9), 1);
    lab.fault("SELECT '<sp:instance>'", false, What::Die(9), 0);
    lab.database.borrow_mut().faults.pop();
    // BEGIN BACKUP was killed before it did anything; nothing is left, and nothing is kept.
    lab.pre_freeze().unwrap_err();
    assert!(lab.host.kv().is_empty());

    // The same, but the agent dies with it: the intent stays.
    let mut lab = prepared();
    lab.fault(BEGIN_BACKUP, false, What::Die(9), 1);
    lab.fault(END_BACKUP, false, What::Die(9), 1);
    let kept = lab.host.kv();
    assert!(!kept.is_empty());
    lab.die();
    lab.database.borrow_mut().somebody_begins(lab.now.get() + 7200);
    lab.finish().unwrap();
    assert!(lab.in_backup_mode());
}

/// A reboot takes what was kept in memory; what `prepare` kept is on a disk.
#[test]
fn after_a_reboot_the_crashed_database_is_taken_out_of_backup_mode_in_mount() {
    let mut lab = prepared();
    let on_disk = lab.host.kv();
    lab.pre_freeze().unwrap();
    lab.die();
    {
        let mut database = lab.database.borrow_mut();
        database.started += 900;
        database.status = "MOUNTED".into();
        database.open_mode = "MOUNTED".into();
    }
    for (key, value) in &on_disk {
        stillpoint_hook::kv::set(key, value).unwrap();
    }
    lab.finish().unwrap();
    assert!(!lab.in_backup_mode());
    assert_eq!(lab.done(END_BACKUP), 1);
}

#[test]
fn a_database_that_is_down_cannot_be_helped_yet_and_is_not_forgotten() {
    let mut lab = held();
    lab.die();
    lab.database.borrow_mut().status = "DOWN".into();
    let error = lab.finish().unwrap_err();
    assert_eq!(code(&error), "ORA-01034");
    assert!(!lab.host.kv().is_empty());
    lab.database.borrow_mut().status = "MOUNTED".into();
    lab.finish().unwrap();
    assert!(!lab.in_backup_mode());
}

/// A machine that rebooted has no journal; the next run looks at what was kept.
#[test]
fn the_next_run_ends_what_the_last_one_left() {
    let mut lab = held();
    lab.die();
    lab.prepare("{}").unwrap();
    assert!(!lab.in_backup_mode());
    assert_eq!(lab.done(END_BACKUP), 1);
    lab.pre_freeze().unwrap();
    lab.confirm().unwrap();
    lab.post_thaw(Outcome::Captured).unwrap();
    assert_eq!((lab.done(BEGIN_BACKUP), lab.done(END_BACKUP)), (2, 2));
}

#[test]
fn what_was_kept_and_cannot_be_read_is_said_and_not_taken_for_nothing() {
    let mut lab = Lab::new(database());
    lab.database.borrow_mut().somebody_begins(lab.now.get());
    stillpoint_hook::kv::set("backup-mode", b"{\"stage\":\"active\"}").unwrap();
    let error = lab.finish().unwrap_err();
    assert!(error.message().contains("V$BACKUP"), "{error:?}");
    assert!(lab.in_backup_mode());
}
