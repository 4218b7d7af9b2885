//! The operator's settings: JSON text to a checked struct, with errors that point at the key.

use std::time::Duration;

use serde_json::Value;
use stillpoint_hook::HookError;

/// What the operator may set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The instance that must answer; empty for any.
    pub sid: String,
    /// All instances of the machine that somebody answers for; empty: nobody looks.
    pub instances: Vec<String>,
    /// How long to wait for RMAN and for other people's backups, before anything is begun.
    pub wait_for_others: Duration,
    /// How long archiving and a checkpoint may take, before anything is begun.
    pub archive_timeout: Duration,
    /// How long archiving may take after the release; zero: it is not asked for.
    pub archive_after: Duration,
    /// Archive destinations must be in the snapshot.
    pub require_archive_path: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            sid: String::new(),
            instances: Vec::new(),
            wait_for_others: Duration::from_secs(10),
            archive_timeout: Duration::from_secs(20),
            archive_after: Duration::from_secs(5),
            require_archive_path: true,
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
        settings.check()?;
        Ok(settings)
    }

    fn set(&mut self, key: &str, value: &Value) -> Result<(), HookError> {
        match key {
            "sid" if value.as_str() == Some("") => self.sid.clear(),
            "sid" => self.sid = sid("/sid", value)?,
            "instances" => {
                let list = value.as_array().ok_or_else(|| wrong(key, "must be a list"))?;
                let each = list.iter().enumerate();
                let each = each.map(|(place, value)| sid(&format!("/instances/{place}"), value));
                self.instances = each.collect::<Result<_, _>>()?;
            }
            "wait-for-others-seconds" => self.wait_for_others = seconds(key, value, 0, 3600)?,
            "archive-timeout-seconds" => self.archive_timeout = seconds(key, value, 1, 3600)?,
            "archive-after-seconds" => self.archive_after = seconds(key, value, 0, 600)?,
            "require-archive-path" => {
                let flag = value.as_bool();
                self.require_archive_path =
                    flag.ok_or_else(|| wrong(key, "must be true or false"))?;
            }
            _ => return Err(wrong(key, "is not a setting of this hook")),
        }
        Ok(())
    }

    fn check(&self) -> Result<(), HookError> {
        let listed = self.instances.is_empty() || self.instances.contains(&self.sid);
        if listed || self.sid.is_empty() {
            return Ok(());
        }
        Err(HookError::invalid_settings("/instances", "must have the instance of `sid` in it"))
    }
}

/// Letters, digits, `_`, `$`, `#`, at most 30; `+ASM` and `-MGMTDB` are no databases of users.
fn sid(pointer: &str, value: &Value) -> Result<String, HookError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_$#".contains(c);
    match value.as_str() {
        Some(sid) if (1..=30).contains(&sid.len()) && sid.chars().all(allowed) => Ok(sid.into()),
        _ => Err(HookError::invalid_settings(
            pointer,
            "must be the name of an instance: 1 to 30 letters, digits, `_`, `$` and `#`",
        )),
    }
}

fn seconds(key: &str, value: &Value, least: u32, most: u32) -> Result<Duration, HookError> {
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    match number {
        Some(number) if (least..=most).contains(&number) => Ok(Duration::from_secs(number.into())),
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

    fn refusal(text: &str) -> String {
        match Settings::parse(text) {
            Err(HookError::InvalidSettings(error)) => error.pointer,
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn what_is_wrong_is_refused_with_its_pointer() {
        assert_eq!(Settings::parse("").unwrap(), Settings::default());
        assert_eq!(refusal(r#"{"sid": "a b"}"#), "/sid");
        assert_eq!(refusal(r#"{"sid": 7}"#), "/sid");
        assert_eq!(refusal(r#"{"instances": ["ORCL", "+ASM"]}"#), "/instances/1");
        assert_eq!(refusal(r#"{"sid": "ORCL", "instances": ["HR"]}"#), "/instances");
        assert_eq!(refusal(r#"{"archive-timeout-seconds": 0}"#), "/archive-timeout-seconds");
        assert_eq!(refusal(r#"{"require-archive-path": 1}"#), "/require-archive-path");
        assert_eq!(refusal(r#"{"a/b": 1}"#), "/a~1b");
        assert_eq!(refusal("[]"), "");
    }

    /// The schema's keys, defaults and limits are those of the code.
    #[test]
    fn the_schema_says_what_the_code_does() {
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        let properties = schema["properties"].as_object().unwrap();
        assert_eq!(properties.len(), 6);
        for (key, property) in properties {
            let with = |value: &Value| {
                let one = serde_json::Map::from_iter([(key.clone(), value.clone())]);
                Settings::parse(&Value::Object(one).to_string())
            };
            assert_eq!(with(&property["default"]).unwrap(), Settings::default(), "{key}");
            if property["type"] == "integer" {
                let (least, most) = (&property["minimum"], &property["maximum"]);
                assert!(with(least).is_ok() && with(most).is_ok(), "{key}");
                assert!(with(&Value::from(most.as_u64().unwrap() + 1)).is_err(), "{key}");
                assert!(with(&Value::from(least.as_i64().unwrap() - 1)).is_err(), "{key}");
            }
        }
    }
}
