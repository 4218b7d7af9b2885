//! What is asked beside what is granted.

use super::agreement::powers;
use super::*;
use crate::hook::description::Need;
use crate::paths::Paths;

fn description(needs: Vec<Need>) -> Description {
    Description {
        name: "db".into(),
        version: "1.0.0".into(),
        summary: String::new(),
        settings_schema: String::new(),
        needs,
        freeze_budget_ms: 0,
    }
}

fn sql(connection: &str, statements: &[&str]) -> Need {
    Need::Sql {
        connection: connection.into(),
        engines: Vec::new(),
        statements: statements.iter().map(|&text| text.into()).collect(),
        reason: "to hold still".into(),
        required: true,
    }
}

fn program(arguments: &[&[&str]], scripts: &[&str]) -> Need {
    let words = |words: &&[&str]| words.iter().map(|&word| word.into()).collect();
    Need::Program {
        command: "ctl".into(),
        arguments: arguments.iter().map(words).collect(),
        stdin_scripts: scripts.iter().map(|&text| text.into()).collect(),
        reason: String::new(),
        required: false,
    }
}

fn grant(text: &str) -> HookGrant {
    let root = tempfile::tempdir().unwrap();
    let paths = Paths::under(root.path());
    std::fs::create_dir_all(paths.grants()).unwrap();
    let connections = "[connections.main]\nengine = \"mysql\"\nsocket = \"/s\"\nuser = \"u\"\n";
    std::fs::write(paths.config().join("connections.toml"), connections).unwrap();
    let file = paths.grants().join("db.toml");
    let module = Digest::of(b"module");
    std::fs::write(&file, format!("module = \"{module}\"\n{text}")).unwrap();
    HookGrant::load(&file, &Connections::load(&paths).unwrap()).unwrap()
}

/// Every item with its standing, behind the power's own.
fn told(needs: Vec<Need>, grant_text: &str) -> Vec<String> {
    let powers = powers(&description(needs), Some(&grant(grant_text)));
    let mut lines = Vec::new();
    for power in powers {
        lines.push(format!("{:?} {}: {:?}", power.kind, power.name, power.standing));
        lines.extend(power.items.iter().map(|item| format!("{}: {:?}", item.text, item.standing)));
    }
    lines
}

#[test]
fn statements_are_granted_refused_or_not_asked_for() {
    let asks = vec![sql("main", &["SELECT 1", "select   2"]), sql("other", &["SELECT 1"])];
    let grants = "[[sql]]\nconnection = \"main\"\nstatements = [\"SELECT 1\", \"SELECT 3\"]\n\
                  [[sql]]\nconnection = \"spare\"\ntarget = \"main\"\nstatements = [\"SELECT 4\"]\n";
    assert_eq!(
        told(asks, grants),
        [
            "Sql main: Granted",
            "SELECT 1: Granted",
            "select   2: NotGranted",
            "SELECT 3: NotAsked",
            "Sql other: NotGranted",
            "SELECT 1: NotGranted",
            "Sql spare: NotAsked",
            "SELECT 4: NotAsked",
        ]
    );
}

#[test]
fn programs_are_compared_by_arguments_and_texts() {
    let asks = vec![program(&[&["-s", "{uint}"], &["stop"]], &["BEGIN;\n", "END;\n"])];
    let grants = "[[program]]\ncommand = \"ctl\"\npath = \"/usr/bin/ctl\"\n\
                  arguments = [[\"-s\", \"7\"], [\"start\"]]\nstdin = [\"BEGIN;\\n\", \"DROP;\\n\"]\n";
    assert_eq!(
        told(asks, grants),
        [
            "Program ctl: Granted",
            "[\"-s\",\"{uint}\"]: Granted",
            "[\"stop\"]: NotGranted",
            "BEGIN;\n: Granted",
            "END;\n: NotGranted",
            "[\"start\"]: NotAsked",
            "DROP;\n: NotAsked",
        ]
    );
}

#[test]
fn state_and_wasi_are_granted_refused_or_not_asked_for() {
    let kv = || Need::Kv { bytes: 100, reason: String::new(), required: false };
    let wasi = || Need::Wasi { imports: vec!["wasi:cli/exit@0.2.0".into()] };
    let other = || Need::Other { what: "the moon".into() };
    let granted = "wasi = \"minimal\"\n[kv]\nbytes = 10\n";
    assert_eq!(
        told(vec![kv(), wasi(), other()], granted),
        ["Kv : Granted", "Wasi : Granted", "wasi:cli/exit@0.2.0: Granted", "Other : NotGranted"]
    );
    assert_eq!(
        told(vec![kv(), wasi()], ""),
        ["Kv : NotGranted", "Wasi : NotGranted", "wasi:cli/exit@0.2.0: NotGranted"]
    );
    assert_eq!(told(vec![], granted), ["Kv : NotAsked", "Wasi : NotAsked"]);
    let powers = powers(&description(vec![kv()]), Some(&grant(granted)));
    assert_eq!(powers[0].target.as_deref(), Some("10 of the 100 bytes that it asks for"));
}

#[test]
fn what_is_asked_in_two_parts_is_one_power() {
    let asks = vec![sql("main", &["SELECT 1"]), sql("main", &["SELECT 2"])];
    let grants = "[[sql]]\nconnection = \"main\"\nstatements = [\"SELECT 2\"]\n";
    assert_eq!(
        told(asks, grants),
        ["Sql main: Granted", "SELECT 1: NotGranted", "SELECT 2: Granted"]
    );
}
