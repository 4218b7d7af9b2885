//! A hook on one screen: what is granted, what would be refused, and in which form a program reads it.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::path::Path;

use common::{Installation, puppet};
use stillpoint::hook::inspection::{Item, Standing};
use stillpoint::output::inspect::InspectDocument;

const GRANT: &str =
    "[[sql]]\nconnection = \"main\"\nstatements = [\"SELECT   1\", \"SELECT 99\"]\n";

fn with_connections(installation: &Installation) {
    let text = "[connections.main]\nengine = \"mysql\"\nsocket = \"/s\"\nuser = \"u\"\n";
    std::fs::write(installation.paths.config().join("connections.toml"), text).unwrap();
}

fn standing(items: &[Item], text: &str) -> Option<Standing> {
    items.iter().find(|item| item.text == text).map(|item| item.standing)
}

#[tokio::test]
async fn what_is_asked_granted_and_refused_is_told_by_statement() {
    let (installation, digest) = Installation::with_puppet().await;
    with_connections(&installation);
    installation.grant("db", &digest, &[], GRANT);
    let inspection = installation.store.inspect("puppet").await.unwrap();
    assert!(inspection.imports.iter().any(|name| name == "stillpoint:hook/sql@0.1.0"));
    assert!(inspection.toolchain.iter().any(|tool| tool.name == "wit-component"));
    assert_eq!(inspection.word.allowed_unsigned.as_deref(), Some("nobody signed it"));
    let granted = &inspection.grants[0];
    assert_eq!((granted.hook.as_str(), &granted.problem), ("db", &None));
    let items = &granted.powers[0].items;
    // White space does not count, everything else does.
    for (text, expected) in [
        ("SELECT 1", Some(Standing::Granted)),
        ("select 1", None),
        ("FLUSH TABLES WITH READ LOCK", Some(Standing::NotGranted)),
        ("SELECT 99", Some(Standing::NotAsked)),
        ("SELECT 98", None),
    ] {
        assert_eq!(standing(items, text), expected, "{text}");
    }
}

#[tokio::test]
async fn a_grant_file_that_is_wrong_is_told_and_hides_nothing_else() {
    let (installation, digest) = Installation::with_puppet().await;
    with_connections(&installation);
    installation.grant("good", &digest, &[], GRANT);
    installation.grant(
        "wrong",
        &digest,
        &[],
        "[[sql]]\nconnection = \"nowhere\"\nstatements = []\n",
    );
    let inspection = installation.store.inspect("puppet").await.unwrap();
    let problems: Vec<_> = inspection.grants.iter().map(|grant| grant.problem.clone()).collect();
    assert_eq!(problems[0], None);
    let wrong = problems[1].as_deref().unwrap();
    assert!(wrong.contains("wrong.toml:4:14") && wrong.contains("nowhere"), "{wrong}");
}

#[tokio::test]
async fn a_changed_image_is_told_before_a_run_finds_it() {
    let (installation, digest) = Installation::with_puppet().await;
    with_connections(&installation);
    installation.grant("db", &digest, &[], GRANT);
    let image = std::fs::read_dir(installation.paths.images()).unwrap().next().unwrap().unwrap();
    std::fs::write(image.path(), b"changed").unwrap();
    let inspection = installation.store.inspect("puppet").await.unwrap();
    let problem = inspection.grants[0].problem.clone().unwrap();
    assert!(problem.contains("was changed after it was installed"), "{problem}");
}

#[tokio::test]
async fn a_file_that_is_not_installed_is_told_with_what_it_asks_for() {
    let installation = Installation::new();
    let file = installation.file("hook.wasm", puppet());
    let inspection = installation.store.inspect(file.to_str().unwrap()).await.unwrap();
    let refused = inspection.word.refused.clone().unwrap();
    assert!(refused.contains("nobody signed it"), "{refused}");
    assert!(inspection.grants.is_empty());
    assert!(inspection.asks[0].items.iter().all(|item| item.standing == Standing::NotGranted));
}

#[tokio::test]
async fn the_document_is_of_the_schema_that_is_checked_in() {
    let (installation, digest) = Installation::with_puppet().await;
    with_connections(&installation);
    installation.grant("db", &digest, &[], GRANT);
    let file = installation.file("other.wasm", &common::puppet_that_describes("9.9.9"));
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/inspect.schema.json");
    let schema = serde_json::from_slice(&std::fs::read(schema).unwrap()).unwrap();
    for what in ["puppet", file.to_str().unwrap()] {
        let inspection = installation.store.inspect(what).await.unwrap();
        let document = serde_json::to_value(InspectDocument::from(&inspection)).unwrap();
        let validator = jsonschema::validator_for(&schema).unwrap();
        let wrong: Vec<String> =
            validator.iter_errors(&document).map(|error| error.to_string()).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }
}
