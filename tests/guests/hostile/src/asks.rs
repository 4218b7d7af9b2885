//! What it says about itself. Tests overwrite the mode in the finished component.

use std::hint::black_box;

use super::exports::stillpoint::hook::lifecycle::{
    CapabilityNeed, Description, KvNeed, ProgramNeed, SqlNeed,
};
use super::stillpoint::hook::{log, run, sql};
use super::{CALLS, eat, recurse, spin};

/// Tests overwrite what follows the `=` in the finished component.
static MODE: [u8; 41] = *b"HOSTILE-DESCRIBE=honest                  ";

/// What it asks for on `main`: what the tests grant, and more.
const STATEMENTS: &[&str] = &[
    "SELECT 1",
    "SELECT SLEEP(30)",
    "SELECT 'a  b'",
    "SELECT ?",
    "FLUSH TABLES WITH READ LOCK",
    "UNLOCK TABLES",
    "DROP TABLE test.t",
];

pub fn description() -> Description {
    let mode = String::from_utf8_lossy(&black_box(MODE)[17..]).trim().to_owned();
    let mut said = honest();
    match mode.as_str() {
        "panic" => panic!("described to death"),
        "loop" => spin(),
        "eat" => eat(),
        "recurse" => said.summary = recurse(1).to_string(),
        "sleep" => loop {
            run::sleep(u64::MAX);
        },
        "log" => log::write(log::Level::Error, "hello", &[]),
        "clock" => said.version = format!("0.1.{}", run::remaining() % 1000),
        "open" => said.summary = format!("{:?}", sql::open("main").is_ok()),
        // The same instance says something else the second time.
        "second-call" if CALLS.get() > 1 => said.name = "mysql".into(),
        "escape-name" => said.name = "hostile\u{1b}[2J".into(),
        "path-name" => said.name = "../../etc/cron.d/x".into(),
        "long-name" => said.name = "a".repeat(1 << 20),
        "escape-version" => said.version = "1.0\u{1b}]0;x\u{7}".into(),
        "escape-summary" => said.summary = TRICKS.into(),
        "long-summary" => said.summary = "x".repeat(2 << 20),
        "escape-reason" => reason(&mut said, TRICKS),
        "lines-in-statement" => statement(&mut said, "SELECT 1\n  granted    by everybody"),
        "escape-statement" => statement(&mut said, "SELECT '\u{1b}[2J'"),
        "hidden-statement" => statement(&mut said, "SELECT\u{200b} 1"),
        "bidi-statement" => statement(&mut said, "SELECT '\u{202e}'"),
        "nul-statement" => statement(&mut said, "SELECT 1\0; DROP TABLE t"),
        "many-statements" => {
            (0..100_000).for_each(|n| statement(&mut said, &format!("SELECT {n}")))
        }
        "long-statement" => statement(&mut said, &"SELECT 1 ".repeat(300_000)),
        "many-needs" => {
            let other = |n| CapabilityNeed::Other(format!("need {n}"));
            said.needs = (0..100_000).map(other).collect();
        }
        "escape-other" => said.needs.push(CapabilityNeed::Other(TRICKS.into())),
        "escape-connection" => connection(&mut said, "main\u{1b}[2J"),
        "path-connection" => connection(&mut said, "../main"),
        "escape-program" => program(&mut said, "sh\u{1b}[2J", "x"),
        "escape-argument" => program(&mut said, "sh", "-c\u{1b}[2J"),
        "no-schema" => said.settings_schema = "[]".into(),
        "deep-schema" => said.settings_schema = deep(10_000),
        "ring-schema" => said.settings_schema = r##"{"$ref":"#"}"##.into(),
        "rings-schema" => {
            said.settings_schema =
                r##"{"allOf":[{"$ref":"#/$defs/a"}],"$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}}}"##
                    .into();
        }
        "remote-schema" => said.settings_schema = r#"{"$ref":"http://127.0.0.1:9/x"}"#.into(),
        "file-schema" => said.settings_schema = r#"{"$ref":"file:///etc/shadow"}"#.into(),
        "pattern-schema" => {
            said.settings_schema =
                r#"{"properties":{"x":{"type":"string","pattern":"^(([a-z])+.)+[A-Z]([a-z])+$"}}}"#
                    .into();
        }
        "wrong-schema" => said.settings_schema = r#"{"type":7}"#.into(),
        "long-schema" => {
            said.settings_schema = format!("{{\"description\":\"{}\"}}", "x".repeat(3 << 20));
        }
        "all-state" => said.needs.push(CapabilityNeed::Kv(KvNeed {
            bytes: u32::MAX,
            reason: "to fill the disk".into(),
            required: true,
        })),
        _ => {}
    }
    said
}

/// What could steer a terminal, or lie in one: escapes, a title, C1, BEL, direction, zero width, tags.
const TRICKS: &str = "t\u{1b}[2J\u{1b}]0;x\u{7}\u{9b}31m\r\u{8}\u{202e}\u{200b}\u{2066}\u{feff}\u{e0041}\nstate: all is well";

fn honest() -> Description {
    Description {
        name: "hostile".into(),
        version: "0.1.0".into(),
        summary: "attacks".into(),
        settings_schema: String::new(),
        needs: vec![
            CapabilityNeed::Sql(SqlNeed {
                connection: "main".into(),
                engines: vec![sql::Engine::Mysql, sql::Engine::Mariadb],
                statements: STATEMENTS.iter().map(|text| text.to_string()).collect(),
                reason: "to attack".into(),
                required: false,
            }),
            CapabilityNeed::Program(ProgramNeed {
                command: "tool".into(),
                arguments: vec![vec!["--version".into()], vec!["-c".into(), "x y".into()]],
                stdin_scripts: vec!["one\ntwo\n".into()],
                reason: "to attack".into(),
                required: false,
            }),
            CapabilityNeed::Kv(KvNeed { bytes: 4096, reason: "to attack".into(), required: false }),
        ],
        freeze_budget_ms: 0,
    }
}

fn statement(said: &mut Description, text: &str) {
    if let Some(CapabilityNeed::Sql(need)) = said.needs.first_mut() {
        need.statements.push(text.into());
    }
}

fn connection(said: &mut Description, name: &str) {
    if let Some(CapabilityNeed::Sql(need)) = said.needs.first_mut() {
        need.connection = name.into();
    }
}

fn reason(said: &mut Description, text: &str) {
    if let Some(CapabilityNeed::Sql(need)) = said.needs.first_mut() {
        need.reason = text.into();
    }
}

fn program(said: &mut Description, command: &str, argument: &str) {
    said.needs.push(CapabilityNeed::Program(ProgramNeed {
        command: command.into(),
        arguments: vec![vec![argument.into()]],
        stdin_scripts: Vec::new(),
        reason: "to attack".into(),
        required: false,
    }));
}

fn deep(depth: usize) -> String {
    format!("{}{{}}{}", r#"{"not":"#.repeat(depth), "}".repeat(depth))
}
