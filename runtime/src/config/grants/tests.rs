use super::*;
use crate::capability::statement::fold;

const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// An installation with a connection `main` and the given grant files.
fn loaded(files: &[(&str, &str)]) -> Result<Vec<HookGrant>, ConfigError> {
    let root = tempfile::tempdir().unwrap();
    let paths = Paths::under(root.path());
    fs::create_dir_all(paths.grants()).unwrap();
    let connections = "[connections.main]\nengine = \"mysql\"\nsocket = \"/s\"\nuser = \"u\"\n";
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
