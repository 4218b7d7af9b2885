//! `grant.toml` is what an operator copies to `hooks.d/postgresql.toml`: it grants what the hook asks for,
//! and nothing else.

use stillpoint_hook::{CapabilityNeed, Hook};
use stillpoint_hook_postgresql::Postgresql;
use toml::{Table, Value};

const GRANT: &str = include_str!("../../grant.toml");

/// The texts of the granted statements, and how many parameters each has.
fn granted(section: &Table) -> Vec<(String, usize)> {
    let statements = section["statements"].as_array().unwrap();
    let of = |statement: &Value| match statement {
        Value::String(text) => (text.clone(), 0),
        other => {
            let text = other["text"].as_str().unwrap();
            (text.to_owned(), other["params"].as_array().unwrap().len())
        }
    };
    statements.iter().map(of).collect()
}

#[test]
fn the_grant_file_grants_what_the_hook_asks_for_and_nothing_else() {
    let grant: Table = GRANT.parse().unwrap();
    let section = grant["sql"].as_array().unwrap()[0].as_table().unwrap();
    let needs = Postgresql::describe().needs;
    let [CapabilityNeed::Sql(need)] = needs.as_slice() else { panic!("{needs:?}") };

    assert_eq!(section["connection"].as_str(), Some(need.connection.as_str()));
    let granted = granted(section);
    let texts: Vec<&str> = granted.iter().map(|(text, _)| text.as_str()).collect();
    assert_eq!(texts, need.statements);
    for (text, params) in &granted {
        assert_eq!(text.matches('$').count(), *params, "{text}");
    }
}

#[test]
fn the_settings_of_the_grant_file_are_the_defaults() {
    use stillpoint_hook_postgresql::settings::Settings;
    let grant: Table = GRANT.parse().unwrap();
    let settings = serde_json::to_string(&grant["settings"]).unwrap();
    assert_eq!(Settings::parse(&settings).unwrap(), Settings::default());
}

#[test]
fn the_description_is_complete() {
    let description = Postgresql::describe();
    assert_eq!(description.name, "postgresql");
    assert!(description.settings_schema.contains("2020-12"));
}
