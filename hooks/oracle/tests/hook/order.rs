//! What the hook does when nothing goes wrong.

use stillpoint_hook::testing::exited;
use stillpoint_hook::{Consistency, MetaValue, MetadataEntry, Outcome};

use crate::support::{Lab, code, database, held, prepared};

fn value<'a>(metadata: &'a [MetadataEntry], key: &str) -> &'a MetaValue {
    let entry = metadata.iter().find(|entry| entry.key == key);
    &entry.unwrap_or_else(|| panic!("no {key} in {metadata:?}")).value
}

#[test]
fn a_run_begins_once_and_ends_once_and_leaves_nothing() {
    let before = database();
    let mut lab = Lab::new(before.clone());
    let plan = lab.prepare(r#"{"sid": "ORCL"}"#).unwrap();
    assert_eq!(
        plan.paths,
        [
            "/data/system01.dbf",
            "/data/users|01.dbf",
            "/redo/redo01.log",
            "/data/control01.ctl",
            "/archive"
        ]
    );
    assert!(!lab.in_backup_mode(), "nothing is begun in prepare");
    let frozen = lab.pre_freeze().unwrap();
    assert_eq!(frozen.consistency, Consistency::Application);
    assert!(lab.in_backup_mode());
    lab.confirm().unwrap();
    let more = lab.post_thaw(Outcome::Captured).unwrap();
    assert!(!lab.in_backup_mode());
    lab.finish().unwrap();
    assert_eq!(
        lab.log(),
        [
            "ALTER SYSTEM ARCHIVE LOG CURRENT: done",
            "ALTER SYSTEM CHECKPOINT: done",
            "ALTER DATABASE BEGIN BACKUP: done",
            "ALTER DATABASE END BACKUP: done",
            "ALTER SYSTEM ARCHIVE LOG CURRENT: done",
        ]
    );
    assert_eq!(lab.database.borrow().lasting(), before.lasting());
    assert!(lab.host.kv().is_empty(), "nothing is kept");

    let metadata = frozen.metadata;
    assert_eq!(value(&metadata, "dbid"), &MetaValue::Text("1234567890".into()));
    assert_eq!(value(&metadata, "log-sequence"), &MetaValue::Integer(42));
    assert_eq!(value(&metadata, "incarnation"), &MetaValue::Integer(2));
    assert_eq!(value(&metadata, "data-files-in-backup-mode"), &MetaValue::Integer(2));
    assert_eq!(value(&more, "log-sequence-after"), &MetaValue::Integer(43));
    assert_eq!(value(&more, "archived-after"), &MetaValue::Boolean(true));
}

#[test]
fn what_was_not_captured_needs_no_archived_redo() {
    let mut lab = held();
    lab.post_thaw(Outcome::Aborted).unwrap();
    assert!(!lab.in_backup_mode());
    assert!(lab.log().last().unwrap().starts_with("ALTER DATABASE END BACKUP"));
}

#[test]
fn of_a_container_database_only_what_is_written_must_be_in_backup_mode() {
    let mut lab = Lab::new(database().with_containers("/data"));
    lab.prepare("{}").unwrap();
    let metadata = lab.pre_freeze().unwrap().metadata;
    assert_eq!(value(&metadata, "data-files"), &MetaValue::Integer(5));
    assert_eq!(value(&metadata, "data-files-in-backup-mode"), &MetaValue::Integer(3));
    let MetaValue::Text(containers) = value(&metadata, "containers") else { panic!() };
    assert!(containers.contains("PDB$SEED (READ ONLY)"), "{containers}");
    lab.confirm().unwrap();
}

#[test]
fn a_recovery_area_stands_for_its_directory() {
    let mut database = database();
    database.archive = vec!["USE_DB_RECOVERY_FILE_DEST".into()];
    database.recovery_area = Some("/fra".into());
    let plan = Lab::new(database.clone()).prepare("{}").unwrap();
    assert_eq!(plan.paths.last().unwrap(), "/fra");
    let plan = Lab::new(database).prepare(r#"{"require-archive-path": false}"#).unwrap();
    assert!(!plan.paths.contains(&"/fra".to_owned()));
}

#[test]
fn a_second_release_has_nothing_to_do() {
    let mut lab = held();
    lab.post_thaw(Outcome::Captured).unwrap();
    let log = lab.log();
    lab.post_thaw(Outcome::Captured).unwrap();
    lab.finish().unwrap();
    lab.finish().unwrap();
    assert_eq!(lab.log(), log);
}

#[test]
fn oratab_may_list_no_instance_that_nobody_answers_for() {
    let oratab = "# comment\n*:/u01:N\n+ASM:/u01/grid:N\nORCL:/u01/db:Y\nHR:/u01/db:N # x\n";
    for (instances, refused) in [(r#"["ORCL"]"#, true), (r#"["ORCL", "HR"]"#, false)] {
        let mut lab = Lab::new(database());
        lab.host.program("cat", move |run| {
            assert_eq!(run.args, ["/etc/oratab"]);
            Ok(exited(0, oratab))
        });
        let prepared = lab.prepare(&format!(r#"{{"sid": "ORCL", "instances": {instances}}}"#));
        match prepared {
            Err(error) => {
                assert!(refused, "{error:?}");
                assert_eq!(code(&error), "/instances");
                assert!(error.message().contains("lists HR"), "{error:?}");
            }
            Ok(_) => assert!(!refused),
        }
    }
}

#[test]
fn the_instance_that_answers_must_be_the_one_that_was_meant() {
    let error = Lab::new(database()).prepare(r#"{"sid": "HR"}"#).unwrap_err();
    assert_eq!(code(&error), "/sid");
    assert!(error.message().contains("ORCL"), "{error:?}");
}

#[test]
fn what_is_kept_before_the_act_is_gone_if_there_was_no_act() {
    let mut lab = prepared();
    assert!(!lab.host.kv().is_empty());
    let asked = lab.host.order().len();
    lab.finish().unwrap();
    assert!(lab.host.kv().is_empty());
    assert_eq!(lab.host.order().len(), asked, "nobody has to be asked");
}
