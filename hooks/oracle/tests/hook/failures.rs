//! Every answer that goes wrong, at every statement: nothing of ours is left, and the error has the
//! next step.

use stillpoint_hook::{HookError, Outcome};

use crate::support::{BEGIN_BACKUP, Database, Lab, What, code, database, held, prepared};

/// What is different about a database.
type Change = fn(&mut Database);

fn with(change: impl FnOnce(&mut Database)) -> Lab {
    let mut database = database();
    change(&mut database);
    Lab::new(database)
}

#[test]
fn states_in_which_there_is_no_backup_mode_are_refused_before_anything_is_done() {
    let cases: [(&str, Change, &str); 10] = [
        ("ORA-00258", |it| it.log_mode = "NOARCHIVELOG".into(), "ALTER DATABASE ARCHIVELOG"),
        ("open-mode", |it| it.open_mode = "READ ONLY".into(), "READ WRITE"),
        ("open-mode", |it| it.status = "MOUNTED".into(), "open it"),
        ("ORA-01507", |it| it.status = "STARTED".into(), "STARTUP MOUNT"),
        ("ORA-01034", |it| it.status = "DOWN".into(), "ORACLE_SID"),
        ("role", |it| it.role = "PHYSICAL STANDBY".into(), "primary"),
        ("rac", |it| it.parallel = "YES".into(), "not supported"),
        ("busy", |it| it.rman = 2, "RMAN"),
        ("busy", |it| it.somebody_begins(1), "never ended from here"),
        ("not-a-file", |it| it.files[0].path = "+DATA/orcl/system.256".into(), "ASM"),
    ];
    for (wanted, change, words) in cases {
        let mut lab = with(change);
        let before = lab.database.borrow().lasting();
        let error = lab.prepare("{}").unwrap_err();
        assert_eq!(code(&error), wanted, "{error:?}");
        assert!(error.message().contains(words), "{words}: {error:?}");
        lab.finish().unwrap();
        assert_eq!(lab.log(), [""; 0], "nothing was asked that changes anything");
        assert_eq!(lab.database.borrow().lasting(), before);
        assert!(lab.host.kv().is_empty());
    }
}

#[test]
fn known_codes_have_their_class_and_the_next_step() {
    for (error, wanted, words) in [
        ("ORA-00258: x", "ORA-00258", "ARCHIVELOG"),
        ("ORA-01123: x", "ORA-01123", "ARCHIVELOG"),
        ("ORA-01146: x", "busy", "somebody else"),
        ("ORA-01149: x", "busy", "V$BACKUP"),
        ("ORA-01142: x", "ORA-01142", "V$BACKUP"),
        ("ORA-10873: x", "ORA-10873", "END BACKUP"),
        ("ORA-03113: x", "ORA-03113", "alert log"),
        ("ORA-03114: x", "ORA-03114", "alert log"),
        ("ORA-01034: x", "ORA-01034", "ORACLE_SID"),
        ("ORA-12514: x", "ORA-12514", "TWO_TASK"),
        ("ORA-01031: x", "ORA-01031", "OSBACKUPDBA"),
        ("ORA-00600: x", "ORA-00600", "x"),
    ] {
        let mut lab = prepared();
        lab.fault(BEGIN_BACKUP, false, What::Error(error.into()), 1);
        let failure = lab.pre_freeze().unwrap_err();
        assert_eq!(code(&failure), wanted, "{failure:?}");
        assert!(failure.message().contains(error), "the server's own words: {failure:?}");
        assert!(failure.message().contains(words), "{words}: {failure:?}");
        assert!(!lab.in_backup_mode());
    }
}

/// All places at which a fault can be, in the order of a run.
const PLACES: [(&str, bool); 12] = [
    ("LOGON", false),
    ("PROMPT <sp:begin>", true),
    ("SELECT '<sp:instance>'", false),
    ("SELECT '<sp:database>'", false),
    ("SELECT '<sp:file>'", true),
    ("ALTER SYSTEM ARCHIVE LOG CURRENT", false),
    ("ALTER SYSTEM CHECKPOINT", true),
    ("ALTER DATABASE BEGIN BACKUP", false),
    ("ALTER DATABASE BEGIN BACKUP", true),
    ("ALTER DATABASE END BACKUP", false),
    ("ALTER DATABASE END BACKUP", true),
    ("EXIT 0", false),
];

fn whats() -> Vec<What> {
    vec![
        What::Error("ORA-03113: end-of-file on communication channel".into()),
        What::Error("ORA-00600: internal error code".into()),
        What::Hang,
        What::Slow(100_000),
        What::Die(9),
        What::Exit(0),
        What::Exit(7),
        What::Half,
        What::NoMarkers,
        What::Noise("glogin.sql says hello\n<sp:fil\n".into()),
        What::Restart,
        What::OnlyOneFile,
    ]
}

/// Phase by phase, until one fails, then what the host does after a failure; and then, the fault being
/// over, what the next start does.
fn whole_run(lab: &mut Lab) -> (bool, Vec<HookError>) {
    let mut errors = Vec::new();
    let mut confirmed = false;
    match lab.prepare(r#"{"wait-for-others-seconds": 0}"#) {
        Err(error) => errors.push(error),
        Ok(_) => {
            match lab.pre_freeze() {
                Err(error) => errors.push(error),
                Ok(_) => match lab.confirm() {
                    Ok(()) => confirmed = true,
                    Err(error) => errors.push(error),
                },
            }
            let outcome = if confirmed { Outcome::Captured } else { Outcome::Aborted };
            errors.extend(lab.post_thaw(outcome).err());
        }
    }
    errors.extend(lab.finish().err());
    lab.database.borrow_mut().faults.clear();
    lab.die();
    lab.finish().unwrap();
    (confirmed, errors)
}

#[test]
fn no_fault_at_any_place_leaves_backup_mode_behind_or_is_confirmed_wrongly() {
    let (mut runs, mut failed) = (0, 0);
    for (place, after) in PLACES {
        for what in whats() {
            for times in [0, 1, 2] {
                for late in [false, true] {
                    let mut lab = if late { held() } else { Lab::new(database()) };
                    let before = database().lasting();
                    lab.fault(place, after, what.clone(), times);
                    let (confirmed, errors) = if late {
                        let confirmed = lab.confirm();
                        let released = lab.post_thaw(Outcome::Captured);
                        let finished = lab.finish();
                        let ok = confirmed.is_ok();
                        let errors = [confirmed.err(), released.err(), finished.err()];
                        lab.database.borrow_mut().faults.clear();
                        lab.die();
                        lab.finish().unwrap();
                        (ok, errors.into_iter().flatten().collect())
                    } else {
                        whole_run(&mut lab)
                    };
                    let case = format!("{place} after={after} {what:?} x{times} late={late}");
                    let mut now = lab.database.borrow().lasting();
                    now.started = before.started;
                    assert_eq!(now, before, "{case}: {errors:?} {:?}", lab.log());
                    assert!(lab.host.kv().is_empty(), "{case}: {:?}", lab.host.kv());
                    assert!(
                        confirmed || !errors.is_empty(),
                        "{case}: neither confirmed nor an error"
                    );
                    if what == What::Restart && place == "LOGON" && late {
                        assert!(!confirmed, "{case}");
                    }
                    runs += 1;
                    failed += usize::from(!errors.is_empty());
                }
            }
        }
    }
    assert!(failed > runs / 3, "{failed} of {runs} failed: the faults do not happen");
}

#[test]
fn a_file_that_is_not_in_backup_mode_is_found_after_begin() {
    let mut lab = prepared();
    lab.fault(BEGIN_BACKUP, false, What::OnlyOneFile, 0);
    let error = lab.pre_freeze().unwrap_err();
    assert_eq!(code(&error), "not-active");
    assert!(!lab.in_backup_mode());
}

#[test]
fn archiving_that_hangs_stops_the_run_before_anything_is_begun() {
    let mut lab = Lab::new(database());
    lab.fault("ALTER SYSTEM ARCHIVE LOG CURRENT", false, What::Hang, 0);
    let error = lab.prepare("{}").unwrap_err();
    assert_eq!(code(&error), "timeout");
    assert!(error.message().contains("V$ARCHIVE_DEST"), "{error:?}");
    assert!(lab.host.kv().is_empty());
}

#[test]
fn archiving_that_hangs_after_the_release_holds_nothing() {
    let mut lab = held();
    lab.fault("ALTER SYSTEM ARCHIVE LOG CURRENT", false, What::Hang, 0);
    lab.confirm().unwrap();
    let metadata = lab.post_thaw(Outcome::Captured).unwrap();
    assert!(metadata.iter().any(|entry| entry.key == "archived-after"));
    assert!(!lab.in_backup_mode());
    assert!(lab.host.log().iter().any(|line| line.message.contains("not archived yet")));
}

#[test]
fn without_state_nothing_is_begun() {
    let mut lab = Lab::new(database());
    lab.host.kv_limit(10);
    let error = lab.prepare("{}").unwrap_err();
    assert!(error.message().contains("cannot be kept"), "{error:?}");
    assert_eq!(lab.done(BEGIN_BACKUP), 0);
}
