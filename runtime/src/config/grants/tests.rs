use super::*;
use crate::capability::statement::fold;

const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// An installation with a connection `main` and the given grant files.
fn loaded(files: &[(&str, &str)]) -> Result<Vec<HookGrant>, ConfigError> {
    let root = tempfile::tempdir().unwrap();
    let paths = Paths::under(root.path());
    fs::create_dir_all(paths.grants()).unwrap();
    let connections = "[connections.main]\nengine = \"mysql\"\nsocket = \"/s\"\nuser = \"u\"\n\
        [connections.redis]\nengine = \"redis\"\nsocket = \"/r\"\n";
    fs::write(paths.config().join("connections.toml"), connections).unwrap();
    for (name, text) in files {
        let text = text.replace("DIGEST", DIGEST);
        fs::write(paths.grants().join(format!("{name}.toml")), text).unwrap();
    }
    load_grants(&paths, &Connections::load(&paths)?)
}

fn refusal(text: &str) -> String {
    loaded(&[("db", text)]).unwrap_err().to_string()
}

#[test]
fn a_whole_grant_is_read() {
    let grants = loaded(&[(
        "db",
        r#"
        module = "DIGEST"
        on-failure = "lower"
        [settings]
        deep = true
        [[sql]]
        connection = "main"
        statements = [
            "FLUSH  TABLES WITH READ LOCK",
            { text = "SET SESSION lock_wait_timeout = ?", params = ["uint"] },
        ]
        [limits]
        rows = 5
        "#,
    )])
    .unwrap();
    let grant = &grants[0];
    assert_eq!(grant.name, "db");
    assert_eq!(grant.on_failure, OnFailure::Lower);
    assert_eq!(grant.settings, serde_json::json!({"deep": true}));
    assert_eq!(grant.limits, Limits { rows: 5, ..Limits::default() });
    let sql = &grant.sql["main"];
    assert_eq!(sql.target, "main");
    assert_eq!(
        sql.statements[&fold("FLUSH TABLES WITH READ LOCK")].text,
        "FLUSH  TABLES WITH READ LOCK"
    );
}

#[test]
fn a_grant_for_a_connection_that_does_not_exist_names_line_and_the_ones_there_are() {
    let error = refusal("module = \"DIGEST\"\n[[sql]]\nconnection = \"prod\"\nstatements = []\n");
    assert!(
        error.contains("db.toml:3:14: connection `prod` does not exist; there are: main"),
        "{error}"
    );
}

#[test]
fn a_missing_parameter_type_is_an_error_at_its_statement() {
    let error =
        refusal("module = \"DIGEST\"\n[[sql]]\nconnection = \"main\"\nstatements = [\"KILL ?\"]\n");
    assert!(
        error.contains(":4:15: the statement has 1 `?`, but `params` gives 0 types"),
        "{error}"
    );
}

#[test]
fn an_unknown_key_is_an_error_wherever_it_is() {
    for (text, at) in [
        ("module = \"DIGEST\"\nmodul = 1\n", ":2:1: unknown field `modul`"),
        ("module = \"DIGEST\"\n[limits]\nrow = 1\n", ":3:1: unknown field `row`"),
        (
            "module = \"DIGEST\"\n[[sql]]\nconnection = \"main\"\nstatements = [{ text = \"A\", param = [] }]\n",
            "unknown field `param`",
        ),
    ] {
        let error = refusal(text);
        assert!(error.contains(at), "{error}");
    }
}

#[test]
fn a_digest_that_is_none_is_named() {
    let error = refusal("module = \"latest\"\n");
    assert!(error.contains(":1:10: `latest` is not a digest"), "{error}");
}

#[test]
fn hooks_that_wait_for_each_other_or_for_nobody_are_refused() {
    let unknown = loaded(&[("a", "module = \"DIGEST\"\nafter = [\"b\"]\n")]).unwrap_err();
    assert!(unknown.to_string().contains("a.toml:2:10: there is no hook `b`"), "{unknown}");
    let circle = loaded(&[
        ("a", "module = \"DIGEST\"\nafter = [\"b\"]\n"),
        ("b", "module = \"DIGEST\"\nafter = [\"a\"]\n"),
    ])
    .unwrap_err();
    assert!(circle.to_string().contains("hooks wait for each other: a, b"), "{circle}");
}

#[test]
fn every_limit_is_read_and_one_out_of_its_range_is_named_with_its_place() {
    let all = "module = \"DIGEST\"\n[limits]\nmemory-bytes = 1\ncpu-time = \"1ms\"\ncalls = 2\nrows = 3\nanswer-bytes = 4\nconnections = 5\nstatements = 6\nlog-bytes = 0\n";
    let limits = Limits {
        memory_bytes: 1,
        cpu_time: std::time::Duration::from_millis(1),
        calls: 2,
        rows: 3,
        answer_bytes: 4,
        connections: 5,
        statements: 6,
        log_bytes: 0,
    };
    assert_eq!(loaded(&[("db", all)]).unwrap()[0].limits, limits);

    for (line, said) in [
        ("memory-bytes = 0", "db.toml:4:16: `memory-bytes = 0` is not from 1 to 1073741824"),
        ("memory-bytes = 1073741825", "`memory-bytes = 1073741825` is not from"),
        ("cpu-time = \"0s\"", "db.toml:4:12: `cpu-time`: `0s` is not longer than zero"),
        ("cpu-time = \"999us\"", "`cpu-time`: `999us` is not from 1ms to 10m"),
        ("cpu-time = \"601s\"", "`cpu-time`: `601s` is not from 1ms to 10m"),
        ("cpu-time = \"fast\"", "`cpu-time`: `fast` is not a duration"),
        ("cpu-time = 5", "db.toml:4:12: invalid type: integer `5`, expected a string"),
        ("calls = 0", "`calls = 0` is not from 1 to 10000000"),
        ("rows = -1", "db.toml:4:8: `rows = -1` is not from 1 to 1000000"),
        ("rows = 1000001", "`rows = 1000001` is not from"),
        ("answer-bytes = 67108865", "`answer-bytes = 67108865` is not from 1 to 67108864"),
        ("connections = 65", "`connections = 65` is not from 1 to 64"),
        ("statements = 0", "`statements = 0` is not from 1 to 10000000"),
        ("log-bytes = 16777217", "`log-bytes = 16777217` is not from 0 to 16777216"),
        ("log-bytes = 1.5", "db.toml:4:13: invalid type: floating point `1.5`"),
        ("memory = 1", "db.toml:4:1: unknown field `memory`"),
    ] {
        let error = refusal(&format!("module = \"DIGEST\"\n\n[limits]\n{line}\n"));
        assert!(error.contains(said), "{line}: {error}");
    }
}

#[test]
fn state_and_wasi_are_nothing_unless_granted() {
    let grant = |text: &str| loaded(&[("db", text)]).map(|mut grants| grants.remove(0));
    let nothing = grant("module = \"DIGEST\"\n").unwrap();
    assert_eq!((nothing.kv, nothing.wasi), (None, Wasi::None));
    let both = grant("module = \"DIGEST\"\nwasi = \"minimal\"\n[kv]\nbytes = 4096\n").unwrap();
    assert_eq!((both.kv, both.wasi), (Some(KvGrant { bytes: 4096 }), Wasi::Minimal));
    for (line, said) in [
        ("wasi = \"full\"", "db.toml:2:8: unknown variant `full`, expected `none` or `minimal`"),
        ("wasi = true", "db.toml:2:8: "),
        ("[kv]\nbytes = 0", "db.toml:3:9: `bytes = 0` is not from 1 to 1048576"),
        ("[kv]\nbytes = 1048577", "`bytes = 1048577` is not from"),
        ("[kv]\nbytes = -1", "`bytes = -1` is not from"),
        ("[kv]\nbyte = 1", "db.toml:3:1: unknown field `byte`"),
        ("[kv]\n", "missing field `bytes`"),
    ] {
        let error = refusal(&format!("module = \"DIGEST\"\n{line}\n"));
        assert!(error.contains(said), "{line}: {error}");
    }
}

#[test]
fn the_place_of_every_setting_is_known_by_its_pointer() {
    let text = "module = \"DIGEST\"\n[settings]\nwait = 5\n\"a/b~c\" = 1\nlist = [\n  1,\n  { deep = 2 },\n]\n[settings.more]\nkey = 1\n[limits]\nrows = 1\n";
    let grants = loaded(&[("db", text)]).unwrap();
    let place = |pointer: &str| {
        let place = grants[0].settings_at.nearest(pointer).unwrap();
        (place.line, place.column)
    };
    for (pointer, at) in [
        ("/wait", (3, 1)),
        ("/a~1b~0c", (4, 1)),
        ("/list", (5, 1)),
        ("/list/0", (6, 3)),
        ("/list/1/deep", (7, 5)),
        ("/more/key", (10, 1)),
        ("/more/missing/below", (9, 11)),
        ("/missing", (2, 2)),
        ("", (2, 2)),
    ] {
        assert_eq!(place(pointer), at, "{pointer}");
    }
    let none = loaded(&[("db", "module = \"DIGEST\"\n")]).unwrap();
    assert!(none[0].settings_at.nearest("/wait").is_none());
}

#[test]
fn a_connection_that_is_granted_twice_is_named() {
    let section = "[[sql]]\nconnection = \"main\"\nstatements = [\"SELECT 1\"]\n";
    assert!(loaded(&[("db", &format!("module = \"DIGEST\"\n{section}"))]).is_ok());
    let error = refusal(&format!("module = \"DIGEST\"\n{section}{section}"));
    assert!(error.contains("db.toml:6:14: connection `main` is granted twice"), "{error}");
}

#[test]
fn a_file_whose_name_cannot_be_a_hook_s_is_refused_and_its_twin_is_not() {
    let long = "a".repeat(65);
    for (right, wrong) in
        [("db2", "Db"), ("d-b_c.1", "d b"), (&long[..64], long.as_str()), ("d", "-d")]
    {
        assert!(loaded(&[(right, "module = \"DIGEST\"\n")]).is_ok(), "{right}");
        let error = loaded(&[(wrong, "module = \"DIGEST\"\n")]).unwrap_err();
        assert!(error.to_string().contains("cannot be a hook's name"), "{error}");
        assert!(error.hint().unwrap().contains("lower-case"), "{error}");
    }
}

#[test]
fn no_directory_is_no_grants_and_one_that_cannot_be_read_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    let paths = Paths::under(root.path());
    fs::create_dir_all(paths.config()).unwrap();
    let connections = Connections::load(&paths).unwrap();
    assert_eq!(load_grants(&paths, &connections).unwrap(), []);
    fs::write(paths.grants(), "a file").unwrap();
    let error = load_grants(&paths, &connections).unwrap_err().to_string();
    assert!(error.contains("hooks.d cannot be read"), "{error}");
    assert!(HookGrant::load(&paths.config().join("none.toml"), &connections).is_err());
}

#[test]
fn a_file_that_is_a_link_is_not_read() {
    let root = tempfile::tempdir().unwrap();
    let paths = Paths::under(root.path());
    fs::create_dir_all(paths.grants()).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", paths.grants().join("db.toml")).unwrap();
    let connections = Connections::load(&paths).unwrap();
    let error = load_grants(&paths, &connections).unwrap_err().to_string();
    assert!(error.contains("symbolic link"), "{error}");
}

#[test]
fn a_statement_is_a_text_that_says_something() {
    let with = |statement: &str| {
        refusal(&format!(
            "module = \"DIGEST\"\n[[sql]]\nconnection = \"main\"\nstatements = [{statement}]\n"
        ))
    };
    assert!(with("\" \\t \"").contains(":4:15: a statement is empty"), "{}", with("\" \\t \""));
    assert!(with("7").contains("expected a statement"), "{}", with("7"));
}

#[test]
fn where_there_are_no_connections_it_is_said() {
    let root = tempfile::tempdir().unwrap();
    let paths = Paths::under(root.path());
    fs::create_dir_all(paths.grants()).unwrap();
    let text = format!("module = \"{DIGEST}\"\n[[sql]]\nconnection = \"main\"\nstatements = []\n");
    fs::write(paths.grants().join("db.toml"), text).unwrap();
    let error = load_grants(&paths, &Connections::load(&paths).unwrap()).unwrap_err().to_string();
    assert!(error.contains("connection `main` does not exist; there are none"), "{error}");
}

#[test]
fn a_command_line_for_redis_that_could_mean_two_things_is_refused_with_its_line() {
    let grant = |statement: &str| {
        format!(
            "module = \"DIGEST\"\n[[sql]]\nconnection = \"redis\"\nstatements = [\n{statement},\n]\n"
        )
    };
    let pause = r#"{ text = "CLIENT PAUSE ? WRITE", params = ["uint"] }"#;
    assert!(loaded(&[("db", &grant(pause))]).is_ok());
    for (statement, said) in [
        (r#"{ text = "CLIENT ? WRITE", params = ["uint"] }"#, "what CLIENT does cannot be"),
        (r#"{ text = "CLIENT PAUSE ? WRITE", params = ["null"] }"#, "cannot be of type null"),
        (r#""CLIENT PAUSE ? WRITE""#, "has 1 `?`, but `params` gives 0 types"),
        (r#""SET a 'b c'""#, "there are no quotes and no escapes"),
        (r#""KEYS *""#, "`*` cannot be in a command line"),
        (r#""SUBSCRIBE a""#, "SUBSCRIBE cannot be granted"),
    ] {
        let error = refusal(&grant(statement));
        assert!(error.contains("db.toml:5:1: ") && error.contains(said), "{statement}: {error}");
    }
    // The same texts are the affair of other servers.
    let quoted =
        "module = \"DIGEST\"\n[[sql]]\nconnection = \"main\"\nstatements = [\"SET a 'b c'\"]\n";
    assert!(loaded(&[("db", quoted)]).is_ok());
}
