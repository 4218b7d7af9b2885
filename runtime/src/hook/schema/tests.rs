use std::time::{Duration, Instant};

use serde_json::json;

use super::*;

fn refusal(schema: &Value) -> String {
    SettingsSchema::compile(&schema.to_string()).unwrap_err()
}

/// What is said of settings, without places.
fn problems(schema: &Value, settings: &Value) -> Vec<String> {
    let schema = SettingsSchema::compile(&schema.to_string()).unwrap();
    schema.problems(settings, &SettingPlaces::default())
}

fn problem(schema: &Value, settings: &Value) -> String {
    let problems = problems(schema, settings);
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems[0].clone()
}

#[test]
fn without_a_schema_everything_fits() {
    let schema = SettingsSchema::compile("").unwrap();
    assert!(schema.problems(&json!({"a": 1}), &SettingPlaces::default()).is_empty());
}

#[test]
fn a_wrong_setting_is_named_with_its_value_and_a_right_one_fits() {
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "additionalProperties": false,
        "required": ["wait"],
        "properties": {
            "wait": {"type": "integer", "minimum": 1, "maximum": 60},
            "mode": {"enum": ["fast", "safe"]},
            "name": {"type": "string", "pattern": "^[a-z]+$"},
            "list": {"type": "array", "items": {"$ref": "#/$defs/port"}},
        },
        "$defs": {"port": {"type": "integer", "maximum": 65535}},
    });
    assert!(
        problems(&schema, &json!({"wait": 5, "mode": "safe", "name": "a", "list": [1]})).is_empty()
    );
    for (settings, said) in [
        (json!({"wait": 0}), "settings/wait: 0 is less than the minimum of 1"),
        (json!({"wait": "5"}), "settings/wait: \"5\" is not of type \"integer\""),
        (
            json!({"wait": 1, "wiat": 1}),
            "settings/wiat: is not a setting of this hook; there are: list, mode, name, wait",
        ),
        (json!({}), "settings: wait is missing"),
        (json!({"wait": 1, "list": [1, 70_000]}), "settings/list/1: 70000 is greater than"),
        (json!({"wait": 1, "name": "A1"}), "settings/name: \"A1\" does not match"),
        (json!({"wait": 1, "mode": "slow"}), "settings/mode: \"slow\" is not one of"),
    ] {
        let problem = problem(&schema, &settings);
        assert!(problem.starts_with(said), "{problem}");
    }
}

#[test]
fn what_may_be_a_secret_is_not_shown() {
    let schema = json!({"properties": {
        "api-token": {"type": "integer"},
        "hidden": {"type": "integer", "writeOnly": true},
        "key": {"type": "integer", "format": "password"},
        "nested": {"type": "integer"},
    }});
    for key in ["api-token", "hidden", "key"] {
        let problem = problem(&schema, &json!({key: "hunter2"}));
        assert!(!problem.contains("hunter2"), "{problem}");
        assert!(problem.contains("the value (not shown) is not of type"), "{problem}");
    }
    let problem = problem(&schema, &json!({"nested": {"deep": "hunter2"}}));
    assert!(!problem.contains("hunter2"), "{problem}");
}

#[test]
fn terminal_escapes_of_a_setting_or_a_schema_are_not_printed() {
    let schema = json!({"additionalProperties": false, "properties": {"a\u{1b}[2J": {}}});
    let problem = problem(&schema, &json!({"b\u{1b}[2J": 1}));
    assert!(!problem.contains('\u{1b}'), "{problem:?}");
}

#[test]
fn a_schema_that_is_none_is_refused_in_words_for_its_author() {
    for (schema, said) in [
        (json!([]), "it is not a JSON object"),
        (json!({"type": "integr"}), "at /type"),
        (json!({"properties": {"a": {"minimum": "1"}}}), "at /properties/a/minimum"),
        (json!({"$schema": "http://json-schema.org/draft-07/schema#"}), "its `$schema` is"),
        (json!({"$ref": "https://example.org/x.json"}), "leaves the schema; nothing is fetched"),
        (json!({"$ref": "file:///etc/shadow"}), "leaves the schema; nothing is fetched"),
        (json!({"properties": {"a": {"$ref": "other.json"}}}), "leaves the schema"),
        (json!({"$ref": "#/$defs/none"}), "refers to nothing"),
        (json!({"properties": {"a": {"$id": "https://example.org/"}}}), "it uses `$id`"),
        (json!({"$dynamicRef": "#a"}), "it uses `$dynamicRef`"),
        (json!({"properties": {"a": {"$ref": "#"}}}), "leads back to itself"),
        (json!({"pattern": "(?=a)"}), "at /pattern"),
    ] {
        let refusal = refusal(&schema);
        assert!(refusal.contains(said), "{schema}: {refusal}");
    }
    assert!(SettingsSchema::compile("{").unwrap_err().contains("it is not JSON"));
}

/// Each of these takes seconds, hours or gigabytes where nothing is bounded.
#[test]
fn a_schema_that_would_cost_too_much_is_refused_or_cheap() {
    let began = Instant::now();
    let mut doubling = serde_json::Map::new();
    for step in 0..60 {
        let next = format!("#/$defs/d{}", step + 1);
        doubling.insert(format!("d{step}"), json!({"allOf": [{"$ref": next}, {"$ref": next}]}));
    }
    doubling.insert("d60".into(), json!(true));
    let doubling = json!({"$ref": "#/$defs/d0", "$defs": doubling});
    assert!(refusal(&doubling).contains("20000 are the most"), "{}", refusal(&doubling));

    let mut again = json!({});
    for _ in 0..40 {
        again = json!({"allOf": [again], "unevaluatedProperties": {}});
    }
    assert!(refusal(&again).contains("20000 are the most"));

    assert!(refusal(&json!({"pattern": "((a{1000}){1000}){1000}"})).contains("at /pattern"));
    let many: serde_json::Map<_, _> =
        (0..200).map(|n| (format!("^{n}[a-z]+$"), json!({}))).collect();
    assert!(refusal(&json!({"patternProperties": many})).contains("patterns"));
    assert!(SettingsSchema::compile(&" ".repeat(70_000)).unwrap_err().contains("bytes"));

    let evil = json!({"properties": {"a": {"pattern": "^(a+)+$"}}});
    let settings = json!({"a": format!("{}!", "a".repeat(50_000))});
    assert_eq!(problems(&evil, &settings).len(), 1);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

/// The first-party hook: its schema takes what its README and its grant file show.
#[test]
fn the_schema_of_the_hook_mysql_takes_what_its_documents_show() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../hooks/mysql");
    let read = |name: &str| std::fs::read_to_string(format!("{folder}/{name}")).unwrap();
    let schema = SettingsSchema::compile(&read("src/settings.schema.json")).unwrap();
    let grant: toml::Table = read("grant.toml").parse().unwrap();
    let settings = serde_json::to_value(&grant["settings"]).unwrap();
    assert!(settings.as_object().is_some_and(|settings| settings.len() > 5));
    assert_eq!(schema.problems(&settings, &SettingPlaces::default()), [""; 0]);

    let mut rows = 0;
    for line in read("README.md").lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, key, default, ..] = cells[..] else { continue };
        let Ok(value) = serde_json::from_str::<Value>(default) else { continue };
        let settings = json!({ key.trim_matches('`'): value });
        assert_eq!(schema.problems(&settings, &SettingPlaces::default()), [""; 0], "{line}");
        rows += 1;
    }
    assert_eq!(rows, 9, "the README's table of settings");
}
