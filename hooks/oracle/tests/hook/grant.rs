//! `grant.toml` is what an operator copies to `hooks.d`: it grants what the hook asks for, and nothing
//! else.

use stillpoint_hook::{CapabilityNeed, Hook};
use stillpoint_hook_oracle::Oracle;
use stillpoint_hook_oracle::settings::Settings;
use toml::{Table, Value};

const GRANT: &str = include_str!("../../grant.toml");

fn texts(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_grant_file_grants_what_the_hook_asks_for_and_nothing_else() {
    let grant: Table = GRANT.parse().unwrap();
    let sections = grant["program"].as_array().unwrap();
    let needs = Oracle::describe().needs;
    let programs: Vec<_> = needs
        .iter()
        .filter_map(|need| match need {
            CapabilityNeed::Program(need) => Some(need),
            _ => None,
        })
        .collect();
    assert_eq!(sections.len(), programs.len());
    for (section, need) in sections.iter().zip(programs) {
        assert_eq!(section["command"].as_str(), Some(need.command.as_str()));
        let lists: Vec<_> = section["arguments"].as_array().unwrap().iter().map(texts).collect();
        assert_eq!(lists, need.arguments);
        let stdin = section.get("stdin").map(texts).unwrap_or_default();
        assert_eq!(stdin, need.stdin_scripts);
    }
    let bytes = needs.iter().find_map(|need| match need {
        CapabilityNeed::Kv(need) => Some(i64::from(need.bytes)),
        _ => None,
    });
    assert_eq!(grant["kv"]["bytes"].as_integer(), bytes);
}

#[test]
fn the_settings_of_the_grant_file_are_the_defaults() {
    let grant: Table = GRANT.parse().unwrap();
    let settings = serde_json::to_string(&grant["settings"]).unwrap();
    let defaults = Settings { sid: "ORCL".into(), ..Settings::default() };
    assert_eq!(Settings::parse(&settings).unwrap(), defaults);
}

/// For whoever changes a script: prints what belongs into `grant.toml`.
#[test]
#[ignore = "prints what belongs into grant.toml"]
fn print_the_scripts() {
    for script in stillpoint_hook_oracle::scripts::ALL {
        println!("    '''\n{script}''',");
    }
}
