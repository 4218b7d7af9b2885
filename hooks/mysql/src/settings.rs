//! The operator's settings: JSON text to a checked struct, with errors that point at the key.

use std::time::Duration;

use serde_json::Value;
use stillpoint_hook::HookError;

/// What the operator may set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long the lock may wait for others. Everybody who writes waits as long.
    pub lock_wait: Duration,
    /// How long the lock may be held: after this and 5 s the server itself ends the session.
    pub hold_budget: Duration,
    /// From when on a statement, or a transaction with changes, is in the way.
    pub long_query_threshold: Duration,
    /// How long to wait, before the lock, for what is in the way.
    pub wait_for_long_queries: Duration,
    /// How often to give the lock back and try again because a transaction was open.
    pub open_transaction_retries: u32,
    /// How long to wait in between.
    pub open_transaction_wait: Duration,
    /// Take transactions that are open: the copy rolls them back.
    pub accept_open_transactions: bool,
    /// Write all dirty pages under the lock, so that the copy has nothing to redo (MariaDB).
    pub deep: bool,
    /// The binary logs must be in the snapshot.
    pub require_binlog_paths: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            lock_wait: Duration::from_secs(5),
            hold_budget: Duration::from_secs(30),
            long_query_threshold: Duration::from_secs(10),
            wait_for_long_queries: Duration::from_secs(10),
            open_transaction_retries: 10,
            open_transaction_wait: Duration::from_millis(150),
            accept_open_transactions: false,
            deep: false,
            require_binlog_paths: true,
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
            "lock-wait-timeout-seconds" => self.lock_wait = seconds(key, value, 1, 60)?,
            "hold-budget-seconds" => self.hold_budget = seconds(key, value, 1, 3600)?,
            "long-query-threshold-seconds" => {
                self.long_query_threshold = seconds(key, value, 1, 86_400)?;
            }
            "wait-for-long-queries-seconds" => {
                self.wait_for_long_queries = seconds(key, value, 0, 3600)?;
            }
            "open-transaction-retries" => {
                self.open_transaction_retries = integer(key, value, 0, 1000)?;
            }
            "open-transaction-wait-ms" => {
                let milliseconds = integer(key, value, 110, 10_000)?;
                self.open_transaction_wait = Duration::from_millis(milliseconds.into());
            }
            "accept-open-transactions" => self.accept_open_transactions = boolean(key, value)?,
            "deep" => self.deep = boolean(key, value)?,
            "require-binlog-paths" => self.require_binlog_paths = boolean(key, value)?,
            _ => return Err(wrong(key, "is not a setting of this hook")),
        }
        Ok(())
    }
}

fn seconds(key: &str, value: &Value, least: u32, most: u32) -> Result<Duration, HookError> {
    integer(key, value, least, most).map(|seconds| Duration::from_secs(seconds.into()))
}

fn integer(key: &str, value: &Value, least: u32, most: u32) -> Result<u32, HookError> {
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    match number {
        Some(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(wrong(key, &format!("must be a whole number from {least} to {most}"))),
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
        let (pointer, message) = refusal(r#"{"lock-wait-timeout-seconds": 0}"#);
        assert_eq!(pointer, "/lock-wait-timeout-seconds");
        assert_eq!(message, "must be a whole number from 1 to 60");
        assert_eq!(refusal(r#"{"deep": 1}"#).0, "/deep");
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
        assert_eq!(properties.len(), 9);
        for (key, property) in properties {
            let with = |value: &Value| {
                let one = serde_json::Map::from_iter([(key.clone(), value.clone())]);
                Settings::parse(&Value::Object(one).to_string())
            };
            assert_eq!(with(&property["default"]).unwrap(), Settings::default(), "{key}");
            if property["type"] == "boolean" {
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
