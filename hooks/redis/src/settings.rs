//! The operator's settings: JSON text to a checked struct, with errors that point at the key.

use std::time::Duration;

use serde_json::Value;
use stillpoint_hook::HookError;

/// What the operator may set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long writes may be paused: after this and 5 s the server itself ends the pause.
    pub hold_budget: Duration,
    /// How long to wait, before the pause, for rewrites, saves, loads, and somebody else's pause.
    pub wait_for_saves: Duration,
    /// How long an RDB file may take that is written under the pause.
    pub save_budget: Duration,
    /// Switch automatic AOF rewrites off for the run.
    pub stop_aof_rewrites: bool,
    /// Wait for the AOF to be synced under the pause.
    pub sync_under_pause: bool,
    /// Take a server that keeps nothing on disk, as crash-consistent.
    pub lower_without_persistence: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            hold_budget: Duration::from_secs(30),
            wait_for_saves: Duration::from_secs(30),
            save_budget: Duration::from_secs(10),
            stop_aof_rewrites: true,
            sync_under_pause: false,
            lower_without_persistence: false,
        }
    }
}

/// The JSON Schema of [`Settings`]; a test holds the two together.
pub const SCHEMA: &str = include_str!("settings.schema.json");

impl Settings {
    /// From JSON text; empty text is the defaults.
    ///
    /// # Errors
    /// [`HookError::InvalidSettings`] with the pointer of the key.
    pub fn parse(text: &str) -> Result<Self, HookError> {
        let mut settings = Settings::default();
        if text.trim().is_empty() {
            return Ok(settings);
        }
        let value: Value = serde_json::from_str(text)
            .map_err(|error| HookError::invalid_settings("", error.to_string()))?;
        let Value::Object(entries) = value else {
            return Err(HookError::invalid_settings("", "must be an object"));
        };
        for (key, value) in &entries {
            settings.set(key, value)?;
        }
        Ok(settings)
    }

    fn set(&mut self, key: &str, value: &Value) -> Result<(), HookError> {
        match key {
            "hold-budget-seconds" => self.hold_budget = seconds(key, value, 1)?,
            "wait-for-saves-seconds" => self.wait_for_saves = seconds(key, value, 0)?,
            "save-budget-seconds" => self.save_budget = seconds(key, value, 1)?,
            "stop-aof-rewrites" => self.stop_aof_rewrites = boolean(key, value)?,
            "sync-under-pause" => self.sync_under_pause = boolean(key, value)?,
            "without-persistence" => {
                self.lower_without_persistence = match value.as_str() {
                    Some("refuse") => false,
                    Some("lower") => true,
                    _ => return Err(wrong(key, "must be \"refuse\" or \"lower\"")),
                };
            }
            _ => return Err(wrong(key, "is not a setting of this hook")),
        }
        Ok(())
    }
}

/// The most seconds that any setting takes.
const MOST: u64 = 3600;

fn seconds(key: &str, value: &Value, least: u64) -> Result<Duration, HookError> {
    match value.as_u64() {
        Some(number) if (least..=MOST).contains(&number) => Ok(Duration::from_secs(number)),
        _ => Err(wrong(key, &format!("must be a whole number from {least} to {MOST}"))),
    }
}

fn boolean(key: &str, value: &Value) -> Result<bool, HookError> {
    value.as_bool().ok_or_else(|| wrong(key, "must be true or false"))
}

fn wrong(key: &str, message: &str) -> HookError {
    let pointer = ["/", &key.replace('~', "~0").replace('/', "~1")].concat();
    HookError::invalid_settings(pointer, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> (String, String) {
        match Settings::parse(text) {
            Err(HookError::InvalidSettings(error)) => (error.pointer, error.message),
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn nothing_given_is_the_defaults() {
        assert_eq!(Settings::parse("").unwrap(), Settings::default());
        assert_eq!(Settings::parse("{}").unwrap(), Settings::default());
    }

    #[test]
    fn what_is_wrong_is_refused_with_its_pointer() {
        let (pointer, message) = refusal(r#"{"hold-budget-seconds": 0}"#);
        assert_eq!(pointer, "/hold-budget-seconds");
        assert_eq!(message, "must be a whole number from 1 to 3600");
        assert_eq!(refusal(r#"{"stop-aof-rewrites": 1}"#).0, "/stop-aof-rewrites");
        assert_eq!(refusal(r#"{"without-persistence": "skip"}"#).0, "/without-persistence");
        assert_eq!(refusal(r#"{"a/b": 1}"#).0, "/a~1b");
        assert_eq!(refusal("[]").0, "");
        assert_eq!(refusal("{").0, "");
    }

    /// The schema's keys, defaults and limits are those of the code.
    #[test]
    fn the_schema_says_what_the_code_does() {
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        assert_eq!(schema["additionalProperties"], Value::Bool(false));
        let properties = schema["properties"].as_object().unwrap();
        assert_eq!(properties.len(), 6);
        for (key, property) in properties {
            let with = |value: &Value| {
                let one = serde_json::Map::from_iter([(key.clone(), value.clone())]);
                Settings::parse(&Value::Object(one).to_string())
            };
            assert_eq!(with(&property["default"]).unwrap(), Settings::default(), "{key}");
            for allowed in property["enum"].as_array().into_iter().flatten() {
                assert!(with(allowed).is_ok(), "{key}");
            }
            if property["type"] != "integer" {
                continue;
            }
            let (least, most) = (&property["minimum"], &property["maximum"]);
            assert!(with(least).is_ok() && with(most).is_ok(), "{key}");
            assert!(with(&Value::from(most.as_u64().unwrap() + 1)).is_err(), "{key}");
            assert!(with(&Value::from(least.as_i64().unwrap() - 1)).is_err(), "{key}");
        }
    }
}
