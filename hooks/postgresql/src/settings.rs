//! The operator's settings: JSON text to a checked struct, with errors that point at the key.

use std::time::Duration;

use serde_json::Value;
use stillpoint_hook::HookError;

/// How the server is made ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A checkpoint; one atomic snapshot of all files, which starts by crash recovery.
    Checkpoint,
    /// A base backup around the snapshot, which is rolled forward with archived log.
    Backup,
}

impl Mode {
    /// As the operator writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Mode::Checkpoint => "checkpoint",
            Mode::Backup => "backup",
        }
    }
}

/// What the operator may set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How the server is made ready.
    pub mode: Mode,
    /// How long the checkpoint before the window may take.
    pub checkpoint: Duration,
    /// How long a second one, just before the freeze, may take; zero for none.
    pub final_checkpoint: Duration,
    /// In bytes: the second one is made if a copy would have to redo more than this.
    pub redo_goal: i64,
    /// How long the session may be idle before the server ends it.
    pub hold_budget: Duration,
    /// The write-ahead log must be in the snapshot.
    pub require_wal_paths: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            mode: Mode::Checkpoint,
            checkpoint: Duration::from_secs(60),
            final_checkpoint: Duration::from_millis(1000),
            redo_goal: 256 << 10,
            hold_budget: Duration::from_secs(60),
            require_wal_paths: true,
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
        if settings.mode == Mode::Checkpoint && !settings.require_wal_paths {
            return Err(wrong(
                "require-wal-paths",
                "without its write-ahead log a copy does not start: only mode = \"backup\" can do \
                 without",
            ));
        }
        Ok(settings)
    }

    fn set(&mut self, key: &str, value: &Value) -> Result<(), HookError> {
        match key {
            "mode" => {
                self.mode = match value.as_str() {
                    Some("checkpoint") => Mode::Checkpoint,
                    Some("backup") => Mode::Backup,
                    _ => return Err(wrong(key, "must be \"checkpoint\" or \"backup\"")),
                };
            }
            "checkpoint-timeout-seconds" => {
                self.checkpoint = Duration::from_secs(integer(key, value, 1, 3600)?.into());
            }
            "final-checkpoint-timeout-ms" => {
                self.final_checkpoint =
                    Duration::from_millis(integer(key, value, 0, 60_000)?.into());
            }
            "redo-goal-kib" => {
                self.redo_goal = i64::from(integer(key, value, 0, 1_048_576)?) << 10;
            }
            "hold-budget-seconds" => {
                self.hold_budget = Duration::from_secs(integer(key, value, 1, 3600)?.into());
            }
            "require-wal-paths" => {
                let flag = value.as_bool();
                self.require_wal_paths = flag.ok_or_else(|| wrong(key, "must be true or false"))?;
            }
            _ => return Err(wrong(key, "is not a setting of this hook")),
        }
        Ok(())
    }
}

fn integer(key: &str, value: &Value, least: u32, most: u32) -> Result<u32, HookError> {
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    match number {
        Some(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(wrong(key, &format!("must be a whole number from {least} to {most}"))),
    }
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
    fn what_is_wrong_is_refused_with_its_pointer() {
        assert_eq!(Settings::parse("").unwrap(), Settings::default());
        assert_eq!(refusal(r#"{"mode": "exclusive"}"#).0, "/mode");
        let (pointer, message) = refusal(r#"{"checkpoint-timeout-seconds": 0}"#);
        assert_eq!(pointer, "/checkpoint-timeout-seconds");
        assert_eq!(message, "must be a whole number from 1 to 3600");
        assert_eq!(refusal(r#"{"a/b": 1}"#).0, "/a~1b");
        assert_eq!(refusal("[]").0, "");
    }

    #[test]
    fn only_a_backup_can_do_without_the_log() {
        assert_eq!(refusal(r#"{"require-wal-paths": false}"#).0, "/require-wal-paths");
        let without = r#"{"require-wal-paths": false, "mode": "backup"}"#;
        assert!(!Settings::parse(without).unwrap().require_wal_paths);
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
            if property["type"] != "integer" {
                continue;
            }
            let (least, most) = (&property["minimum"], &property["maximum"]);
            assert!(with(least).is_ok() && with(most).is_ok(), "{key}");
            let above = Value::from(most.as_u64().unwrap() + 1);
            assert!(with(&above).is_err(), "{key}");
            let below = Value::from(least.as_i64().unwrap() - 1);
            assert!(with(&below).is_err(), "{key}");
        }
    }
}
