//! For everything that is allowed, its twin that is denied: one key is missing, or something is almost the
//! same.

use std::fs;

use super::*;
use crate::config::grants::HookGrant;
use crate::paths::Paths;

const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

const CONNECTIONS: &str = "
[connections.main]
engine = \"mysql\"
socket = \"/s\"
user = \"u\"
";

/// What the operator grants in most of the tests.
const GRANTED: &str = "
[[sql]]
connection = \"main\"
statements = [\"SELECT 1\"]
";

/// The powers of a hook that asks for `needs`, with `granted` in its grant file and `connections`.
fn powers_with(connections: &str, granted: &str, needs: Vec<Need>) -> Result<Powers, PowersError> {
    powers_on(CONNECTIONS, connections, granted, needs)
}

/// The same, where the grant was read with other connections.
fn powers_on(
    before: &str,
    connections: &str,
    granted: &str,
    needs: Vec<Need>,
) -> Result<Powers, PowersError> {
    let root = tempfile::tempdir().unwrap();
    let paths = Paths::under(root.path());
    fs::create_dir_all(paths.grants()).unwrap();
    fs::write(paths.config().join("connections.toml"), before).unwrap();
    let file = paths.grants().join("db.toml");
    fs::write(&file, format!("module = \"{DIGEST}\"\n{granted}")).unwrap();
    let grant = HookGrant::load(&file, &Connections::load(&paths).unwrap()).unwrap();
    fs::write(paths.config().join("connections.toml"), connections).unwrap();
    let connections = Connections::load(&paths).unwrap();
    let description = Description {
        name: "db".into(),
        version: "1".into(),
        summary: String::new(),
        settings_schema: String::new(),
        needs,
        freeze_budget_ms: 0,
    };
    Powers::agreed(&description, &grant, &connections)
}

fn powers(granted: &str, needs: Vec<Need>) -> Result<Powers, PowersError> {
    powers_with(CONNECTIONS, granted, needs)
}

fn sql(engines: &[&str], statements: &[&str], required: bool) -> Need {
    Need::Sql {
        connection: "main".into(),
        engines: engines.iter().map(ToString::to_string).collect(),
        statements: statements.iter().map(ToString::to_string).collect(),
        reason: "to lock".into(),
        required,
    }
}

fn refused(result: Result<Powers, PowersError>) -> (String, String) {
    match result.unwrap_err() {
        PowersError::Missing(problem, hint) => (problem, hint),
        PowersError::Config(error) => (error.to_string(), String::new()),
    }
}

#[test]
fn a_connection_that_both_sides_name_is_there() {
    let agreed = powers(GRANTED, vec![sql(&[], &["SELECT 1"], true)]).unwrap();
    assert_eq!(agreed.connections(), ["main"]);
    assert_eq!(agreed.target("main").unwrap().connection.name, "main");
    assert_eq!(agreed.statement("main", " SELECT\n1").unwrap().text, "SELECT 1");
}

#[test]
fn a_connection_that_only_the_operator_names_is_not() {
    let agreed = powers(GRANTED, Vec::new()).unwrap();
    assert!(agreed.connections().is_empty());
    let denial = agreed.target("main").unwrap_err();
    assert!(denial.message.contains("not in what the hook's `describe` asks for"), "{denial:?}");
    assert!(agreed.statement("main", "SELECT 1").is_err());
}

#[test]
fn a_connection_that_only_the_hook_names_is_not() {
    let agreed = powers("", vec![sql(&[], &["SELECT 1"], false)]).unwrap();
    let denial = agreed.target("main").unwrap_err();
    assert!(denial.message.contains("connection `main` is not granted"), "{denial:?}");
    assert!(denial.hint.contains("hooks.d/db.toml: [[sql]] connection = \"main\""), "{denial:?}");
    let (problem, hint) = refused(powers("", vec![sql(&[], &["SELECT 1"], true)]));
    assert!(problem.contains("it cannot work without (to lock)"), "{problem}");
    assert!(hint.contains("[[sql]] connection = \"main\""), "{hint}");
}

#[test]
fn a_statement_is_neither_another_one_nor_one_that_one_side_does_not_name() {
    let asks = vec![sql(&[], &["SELECT 1", "SELECT 3"], false)];
    let grants = "[[sql]]\nconnection = \"main\"\nstatements = [\"SELECT 1\", \"SELECT 2\"]\n";
    let agreed = powers(grants, asks).unwrap();
    assert!(agreed.statement("main", "SELECT 1").is_ok());
    for (statement, why) in [
        ("select 1", "is not granted"),
        ("SELECT 1;", "is not granted"),
        ("SELECT\u{a0}1", "is not granted"),
        ("SELECT 3", "is not granted"),
        ("SELECT 2", "is not in what the hook's `describe` asks for"),
    ] {
        let denial = agreed.statement("main", statement).unwrap_err();
        assert!(denial.message.contains(why), "{denial:?}");
    }
}

#[test]
fn a_server_that_the_hook_knows_is_taken_and_another_is_a_mistake_of_the_configuration() {
    for engines in [&[][..], &["mysql"], &["postgresql", "mariadb"]] {
        assert!(powers(GRANTED, vec![sql(engines, &[], true)]).is_ok(), "{engines:?}");
    }
    let (problem, hint) =
        refused(powers(GRANTED, vec![sql(&["postgresql", "oracle"], &[], false)]));
    assert!(
        problem.contains("must be one of postgresql, oracle, but `main` is mysql"),
        "{problem}"
    );
    assert!(hint.contains("set `target`"), "{hint}");
}

#[test]
fn a_connection_that_is_gone_from_the_configuration_is_named_with_its_place() {
    let (problem, _) = refused(powers_with("", GRANTED, Vec::new()));
    assert!(problem.contains("connection `main` does not exist"), "{problem}");
    assert!(problem.contains("db.toml:"), "{problem}");
}

#[test]
fn a_guest_s_megabytes_are_not_in_the_words_of_its_denial() {
    let agreed = powers(GRANTED, vec![sql(&[], &[], false)]).unwrap();
    let denial = agreed.statement("main", &"x".repeat(1 << 20)).unwrap_err();
    assert!(denial.message.len() + denial.hint.len() < 5000);
    let odd = agreed.target("a\", statements = [\"DROP\"] #").unwrap_err();
    assert!(odd.hint.contains(r#"connection = "a\", statements = [\"DROP\"] #""#), "{odd:?}");
}

#[test]
fn state_is_the_lesser_of_what_both_sides_say_and_nothing_if_one_says_nothing() {
    let asks = |bytes, required| Need::Kv { bytes, reason: "to remember".into(), required };
    let grants = "[kv]\nbytes = 100\n";
    assert_eq!(powers(grants, vec![asks(50, true)]).unwrap().kv_quota(), Ok(50));
    assert_eq!(powers(grants, vec![asks(500, true)]).unwrap().kv_quota(), Ok(100));
    assert!(powers(grants, Vec::new()).unwrap().kv_quota().is_err());
    assert!(powers("", vec![asks(50, false)]).unwrap().kv_quota().is_err());
    assert!(powers("", Vec::new()).unwrap().kv_quota().is_err());
    let (problem, hint) = refused(powers("", vec![asks(50, true)]));
    assert!(problem.contains("durable state is not granted"), "{problem}");
    assert!(hint.ends_with("[kv] bytes = 50"), "{hint}");
}

#[test]
fn wasi_is_there_if_it_is_granted_and_imported() {
    let asks = || vec![Need::Wasi { imports: vec!["wasi:cli/exit@0.2.0".into()] }];
    assert!(powers("wasi = \"minimal\"\n", asks()).unwrap().wasi());
    assert!(!powers("wasi = \"minimal\"\n", Vec::new()).unwrap().wasi());
    assert!(!powers("", Vec::new()).unwrap().wasi());
    assert!(refused(powers("", asks())).0.contains("WASI is not granted"));
}

#[test]
fn what_this_version_does_not_know_is_asked_for_in_vain() {
    let agreed = powers("", vec![Need::Other { what: "the moon".into() }]).unwrap();
    assert!(agreed.connections().is_empty() && !agreed.wasi());
}

/// A program that is there, and one that is not.
const PROGRAMS: &str = "
[[program]]
command = \"tool\"
path = \"/usr/bin/touch\"
arguments = [[\"--version\"], [\"--help\"]]
stdin = [\"one\\n\", \"two\\n\"]
[[program]]
command = \"gone\"
path = \"/usr/bin/stillpoint-test-is-not-there\"
arguments = [[]]
";

fn program(command: &str, required: bool) -> Need {
    Need::Program {
        command: command.into(),
        arguments: vec![vec!["--version".into()], vec!["--never".into()]],
        stdin_scripts: vec!["one\n".into(), "three\n".into()],
        reason: "to flush".into(),
        required,
    }
}

#[test]
fn a_program_that_both_sides_name_runs_as_both_sides_say() {
    let agreed = powers(PROGRAMS, vec![program("tool", true)]).unwrap();
    let version = ["--version".to_owned()];
    assert!(agreed.program("tool", &version, b"").is_ok());
    assert!(agreed.program("tool", &version, b"one\n").is_ok());
}

#[test]
fn its_twins_do_not() {
    let agreed = powers(PROGRAMS, vec![program("tool", false)]).unwrap();
    let not_asked = "is not in what the hook's `describe` asks for";
    for (command, argument, stdin, why) in [
        ("tool", "--help", &b""[..], not_asked),
        ("tool", "--never", b"", "is not granted"),
        ("tool", "--version\0", b"", "is not granted"),
        ("tool", "--version", b"two\n", not_asked),
        ("tool", "--version", b"three\n", "is not granted"),
        ("tool", "--version", b"one", "is not granted"),
        ("tool", "--version", &[b'x'; 5000], "is not granted"),
        ("gone", "--version", b"", not_asked),
        ("Tool", "--version", b"", "program `Tool` is not granted"),
        ("/usr/bin/touch", "--version", b"", "is not granted"),
    ] {
        let denial = agreed.program(command, &[argument.to_owned()], stdin).unwrap_err();
        assert!(denial.message.contains(why), "{command} {argument}: {denial:?}");
        assert!(denial.message.len() + denial.hint.len() < 9000, "{denial:?}");
    }
}

#[test]
fn a_program_that_is_required_must_be_granted_and_there() {
    assert!(powers(PROGRAMS, vec![program("gone", false)]).is_ok());
    let (problem, hint) = refused(powers(PROGRAMS, vec![program("gone", true)]));
    assert!(problem.contains("there is no /usr/bin/stillpoint-test-is-not-there"), "{problem}");
    assert!(hint.contains("install it, or correct `path`"), "{hint}");
    let (problem, hint) = refused(powers("", vec![program("tool", true)]));
    assert!(problem.contains("program `tool` is not granted"), "{problem}");
    assert!(hint.contains("[[program]] command = \"tool\""), "{hint}");
}

#[test]
fn a_need_of_another_sort_asks_for_no_state() {
    let mut power = kv::KvPower::default();
    assert!(power.ask(&Need::Other { what: "x".into() }, "db.toml").is_ok());
    assert!(power.quota("db.toml").is_err());
}

#[test]
fn another_major_version_of_wasi_is_none() {
    assert!(wasi::is_minimal("wasi:cli/exit@0.2.0"));
    for other in
        ["wasi:cli/exit@1.2.0", "wasi:cli/exit@0.3.0", "wasi:cli/exit", "wasi:cli/exit@0.2.x"]
    {
        assert!(!wasi::is_minimal(other), "{other}");
    }
}

#[test]
fn a_password_that_cannot_be_read_is_told_before_anything_is_asked() {
    let file = "password-file = \"/stillpoint-test-is-not-there\"\n";
    let (problem, _) = refused(powers_with(&format!("{CONNECTIONS}{file}"), GRANTED, Vec::new()));
    assert!(problem.contains("/stillpoint-test-is-not-there"), "{problem}");
}

#[test]
fn a_program_that_is_none_is_told_before_anything_runs() {
    let grants = "[[program]]\ncommand = \"tool\"\npath = \"/usr/bin\"\narguments = [[]]\n";
    let (problem, _) = refused(powers(grants, Vec::new()));
    assert!(problem.contains("/usr/bin"), "{problem}");
}

#[test]
fn a_command_line_for_redis_is_neither_another_one_nor_one_that_one_side_does_not_name() {
    let connections =
        format!("{CONNECTIONS}[connections.cache]\nengine = \"redis\"\nsocket = \"/r\"\n");
    let grants = r#"
[[sql]]
connection = "main"
target = "cache"
statements = [
    "INFO", "CONFIG GET dir", "PING", { text = "CLIENT PAUSE ? WRITE", params = ["uint"] },
]
"#;
    let asks = ["INFO", "CONFIG  GET dir", "CLIENT PAUSE ? WRITE", "FLUSHALL"];
    let needs = || vec![sql(&["other"], &asks, true)];
    let agreed = powers_on(&connections, &connections, grants, needs()).unwrap();
    assert_eq!(agreed.statement("main", " CONFIG\tGET  dir").unwrap().text, "CONFIG GET dir");
    assert!(agreed.statement("main", "CLIENT PAUSE ? WRITE").is_ok());
    let not_asked = "is not in what the hook's `describe` asks for";
    for (statement, why) in [
        ("FLUSHALL", "is not granted"),
        ("PING", not_asked),
        ("info", "is not granted"),
        ("INFO all", "is not granted"),
        ("CONFIG GET *", "is not granted"),
        ("CONFIG GET\u{a0}dir", "is not granted"),
        ("CLIENT PAUSE 1000 WRITE", "is not granted"),
        ("CLIENT PAUSE ? ALL", "is not granted"),
        ("CLIENT PAUSE \"?\" WRITE", "is not granted"),
        ("INFO\r\nFLUSHALL", "is not granted"),
    ] {
        let denial = agreed.statement("main", statement).unwrap_err();
        assert!(denial.message.contains(why), "{statement}: {denial:?}");
    }

    // A hook for another sort of server is not given a Redis, nor one for Redis another server.
    let sorts = |connections: &str, engine: &str| {
        let needs = vec![sql(&[engine], &["INFO"], true)];
        powers_on(connections, connections, grants, needs).map(drop)
    };
    assert!(sorts(&connections, "mysql").is_err());
    let other = connections.replace("engine = \"redis\"", "engine = \"mysql\"\nuser = \"u\"");
    assert!(sorts(&other, "other").is_err());
}
