//! The operator's settings: JSON text to a checked struct, with errors that point at the key.

use std::time::Duration;

use serde_json::{Map, Value, json};
use stillpoint_hook::HookError;

/// Words that one list of arguments may have.
pub const MOST_ARGUMENTS: usize = 4;

/// How one program is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Words, as granted.
    pub arguments: Vec<String>,
    /// How long it may take.
    pub time: Duration,
}

impl Default for Call {
    fn default() -> Self {
        Call { arguments: Vec::new(), time: Duration::from_secs(10) }
    }
}

/// What the operator may set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Looks; not run if it is not there.
    pub prepare: Option<Call>,
    /// Quiesces.
    pub quiesce: Call,
    /// Proves; not run if it is not there.
    pub confirm: Option<Call>,
    /// Releases.
    pub release: Call,
    /// How often `release` is tried in one phase.
    pub release_attempts: u32,
    /// The operator's word that what `confirm` proves makes the snapshot application consistent.
    pub claims_application: bool,
    /// Paths whose file systems must be in the snapshot.
    pub paths: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            prepare: None,
            quiesce: Call::default(),
            confirm: None,
            release: Call::default(),
            release_attempts: 3,
            claims_application: false,
            paths: Vec::new(),
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
        for (key, value) in entries("", &value)? {
            settings.set(key, value)?;
        }
        if settings.claims_application && settings.confirm.is_none() {
            return Err(HookError::invalid_settings(
                "/claims",
                "`application` wants a program that proves it: set `confirm`, and grant it",
            ));
        }
        Ok(settings)
    }

    fn set(&mut self, key: &str, value: &Value) -> Result<(), HookError> {
        let pointer = ["/", &key.replace('~', "~0").replace('/', "~1")].concat();
        match key {
            "prepare" => self.prepare = Some(Call::of(&pointer, value)?),
            "quiesce" => self.quiesce = Call::of(&pointer, value)?,
            "confirm" => self.confirm = Some(Call::of(&pointer, value)?),
            "release" => self.release = Call::of(&pointer, value)?,
            "release-attempts" => self.release_attempts = integer(&pointer, value, 1, 20)?,
            "claims" => {
                self.claims_application = match value.as_str() {
                    Some("application") => true,
                    Some("file-system") => false,
                    _ => return Err(wrong(&pointer, "must be `file-system` or `application`")),
                }
            }
            "paths" => self.paths = strings(&pointer, value, is_path, "an absolute path")?,
            _ => return Err(wrong(&pointer, "is not a setting of this hook")),
        }
        Ok(())
    }
}

impl Call {
    fn of(pointer: &str, value: &Value) -> Result<Self, HookError> {
        let mut call = Call::default();
        for (key, value) in entries(pointer, value)? {
            let pointer = [pointer, "/", &key.replace('~', "~0").replace('/', "~1")].concat();
            match key.as_str() {
                "arguments" => call.arguments = words(&pointer, value)?,
                "seconds" => {
                    let seconds = integer(&pointer, value, 1, 3600)?;
                    call.time = Duration::from_secs(seconds.into());
                }
                _ => return Err(wrong(&pointer, "is neither `arguments` nor `seconds`")),
            }
        }
        Ok(call)
    }

    /// To be kept.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({ "arguments": self.arguments, "seconds": self.time.as_secs() })
    }

    /// As it was kept; `None` if that is not what it is.
    #[must_use]
    pub fn from_json(value: &Value) -> Option<Self> {
        Call::of("", value).ok()
    }
}

fn entries<'a>(pointer: &str, value: &'a Value) -> Result<&'a Map<String, Value>, HookError> {
    value.as_object().ok_or_else(|| wrong(pointer, "must be a table"))
}

fn words(pointer: &str, value: &Value) -> Result<Vec<String>, HookError> {
    let what = "a word of 1 to 64 letters, digits, `_` and `-`, not beginning with `-`";
    let words = strings(pointer, value, is_word, what)?;
    if words.len() > MOST_ARGUMENTS {
        return Err(wrong(pointer, &format!("must have at most {MOST_ARGUMENTS} words")));
    }
    Ok(words)
}

/// What the host's placeholder `{name}` stands for.
fn is_word(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    (1..=64).contains(&text.len()) && !text.starts_with('-') && text.chars().all(allowed)
}

fn is_path(text: &str) -> bool {
    text.starts_with('/')
}

fn strings(
    pointer: &str,
    value: &Value,
    fits: fn(&str) -> bool,
    what: &str,
) -> Result<Vec<String>, HookError> {
    let list = value.as_array().ok_or_else(|| wrong(pointer, "must be a list"))?;
    let each = list.iter().enumerate().map(|(place, value)| match value.as_str() {
        Some(text) if fits(text) => Ok(text.to_owned()),
        _ => Err(wrong(&format!("{pointer}/{place}"), &format!("must be {what}"))),
    });
    each.collect()
}

fn integer(pointer: &str, value: &Value, least: u32, most: u32) -> Result<u32, HookError> {
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    match number {
        Some(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(wrong(pointer, &format!("must be a whole number from {least} to {most}"))),
    }
}

fn wrong(pointer: &str, message: &str) -> HookError {
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
        assert_eq!(Settings::parse("{}").unwrap(), Settings::default());
        assert_eq!(
            refusal(r#"{"quiesce": {"arguments": ["a", "--all"]}}"#),
            "/quiesce/arguments/1"
        );
        assert_eq!(refusal(r#"{"quiesce": {"arguments": ["/etc"]}}"#), "/quiesce/arguments/0");
        assert_eq!(
            refusal(r#"{"release": {"arguments": ["a","b","c","d","e"]}}"#),
            "/release/arguments"
        );
        assert_eq!(refusal(r#"{"release": {"seconds": 0}}"#), "/release/seconds");
        assert_eq!(refusal(r#"{"claims": "crash"}"#), "/claims");
        assert_eq!(refusal(r#"{"claims": "application"}"#), "/claims");
        assert!(Settings::parse(r#"{"claims": "application", "confirm": {}}"#).is_ok());
        assert_eq!(refusal(r#"{"paths": ["/a", "b"]}"#), "/paths/1");
        assert_eq!(refusal(r#"{"thaw": {}}"#), "/thaw");
        assert_eq!(refusal("[]"), "");
    }

    #[test]
    fn the_schema_says_what_the_code_does() {
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        let properties = schema["properties"].as_object().unwrap();
        assert_eq!(properties.len(), 7);
        let parse = |key: &str, value: &Value| {
            let one = Map::from_iter([(key.to_owned(), value.clone())]);
            Settings::parse(&Value::Object(one).to_string())
        };
        for (key, property) in properties {
            let default = property.get("default").cloned().unwrap_or_else(|| json!({}));
            assert!(parse(key, &default).is_ok(), "{key}");
        }
        assert_eq!(parse("release", &json!({})).unwrap(), Settings::default());
        let call = &schema["$defs"]["call"]["properties"];
        for bound in ["minimum", "maximum"] {
            assert!(parse("release", &json!({ "seconds": call["seconds"][bound] })).is_ok());
        }
        assert_eq!(call["arguments"]["maxItems"], json!(MOST_ARGUMENTS));
    }
}
