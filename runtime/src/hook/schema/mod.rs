//! The JSON Schema (2020-12) of a hook's settings. The hook's author writes it, the operator's
//! settings are checked against it by the host, before the hook sees them.
//!
//! A schema comes from somebody who is not trusted with anything, and is evaluated by root: it is
//! bounded before it is used. References stay inside it and make no circle, patterns are matched in
//! linear time, and what it can cost is counted first.

mod bounds;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use serde_json::Value;

use super::text::clean;
use crate::config::grants::{SettingPlaces, escaped};

/// Memory of one compiled pattern, in bytes; for its search, the same once more.
const PATTERN_BYTES: usize = 256 << 10;

/// How many wrong settings are told at once.
const MOST_PROBLEMS: usize = 5;

/// How much of a wrong value is shown, in characters.
const LONGEST_VALUE: usize = 80;

/// What a hook says about its settings.
#[derive(Debug)]
pub(crate) struct SettingsSchema(Option<(Value, Validator)>);

impl SettingsSchema {
    /// From the text that `describe` gives; without a text, any settings fit.
    ///
    /// # Errors
    /// In words for the hook's author.
    pub(crate) fn compile(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let schema = bounds::checked(text)?;
        let patterns =
            PatternOptions::regex().size_limit(PATTERN_BYTES).dfa_size_limit(PATTERN_BYTES);
        let validator = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .with_pattern_options(patterns)
            .offline()
            .build(&schema)
            .map_err(|error| in_schema(&error))?;
        Ok(Self(Some((schema, validator))))
    }

    /// What is wrong with settings, each with its place in the grant file. None if they fit.
    pub(crate) fn problems(&self, settings: &Value, places: &SettingPlaces) -> Vec<String> {
        let Some((schema, validator)) = &self.0 else { return Vec::new() };
        let mut problems: Vec<_> = validator
            .iter_errors(settings)
            .take(MOST_PROBLEMS)
            .map(|error| Problem::of(&error, schema))
            .collect();
        problems.sort_by_key(|problem| {
            places.nearest(&problem.pointer).map(|place| (place.line, place.column))
        });
        problems.into_iter().map(|problem| problem.at(places)).collect()
    }
}

/// A schema that is none.
fn in_schema(error: &ValidationError<'_>) -> String {
    let at = error.instance_path().to_string();
    let at = if at.is_empty() { "at its top".to_owned() } else { format!("at {at}") };
    format!("{at}: {}", clean(&error.to_string(), 400))
}

/// One wrong setting.
struct Problem {
    pointer: String,
    words: String,
}

impl Problem {
    fn of(error: &ValidationError<'_>, schema: &Value) -> Self {
        let pointer = error.instance_path().to_string();
        match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected }
            | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
                let key = unexpected.first().map_or("", String::as_str);
                Self {
                    pointer: format!("{pointer}/{}", escaped(key)),
                    words: format!("is not a setting of this hook{}", known(error, schema)),
                }
            }
            ValidationErrorKind::Required { property } => Self {
                words: format!(
                    "{} is missing",
                    clean(property.as_str().unwrap_or_default(), LONGEST_VALUE)
                ),
                pointer,
            },
            _ => {
                let value = shown(&pointer, error, schema);
                let words = clean(&error.masked_with(value).to_string(), 400);
                Self { pointer, words }
            }
        }
    }

    fn at(self, places: &SettingPlaces) -> String {
        let Self { pointer, words } = self;
        let pointer = clean(&pointer, 200);
        match places.nearest(&pointer) {
            Some(place) => format!("{place}: setting {pointer}: {words}"),
            None => format!("settings{pointer}: {words}"),
        }
    }
}

/// The settings that there are, where an unknown one was found.
fn known(error: &ValidationError<'_>, schema: &Value) -> String {
    let around = error.schema_path().to_string();
    let around = around.rsplit_once('/').map_or("", |(around, _)| around);
    let properties = schema.pointer(around).and_then(|object| object.get("properties"));
    let names: Vec<_> =
        properties.and_then(Value::as_object).into_iter().flatten().map(|(key, _)| key).collect();
    if names.is_empty() {
        return String::new();
    }
    let names = names.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    format!("; there are: {}", clean(&names, 600))
}

/// The wrong value, unless it may be a secret: by what the schema says of it, or by its name.
fn shown(pointer: &str, error: &ValidationError<'_>, schema: &Value) -> String {
    let of_schema = error.schema_path().to_string();
    let of_schema = of_schema.rsplit_once('/').map_or("", |(around, _)| around);
    let says = |key: &str, value: Value| {
        schema.pointer(of_schema).and_then(|object| object.get(key)) == Some(&value)
    };
    let name = pointer.to_lowercase();
    let secret = ["password", "passwd", "secret", "token", "credential", "passphrase", "private"];
    if says("writeOnly", true.into())
        || says("format", "password".into())
        || secret.iter().any(|word| name.contains(word))
    {
        return "the value (not shown)".into();
    }
    match error.instance().as_ref() {
        // Parts of it may be secret, and it is long.
        Value::Object(_) => "the table".into(),
        Value::Array(_) => "the list".into(),
        value => clean(&value.to_string(), LONGEST_VALUE),
    }
}

#[cfg(test)]
mod tests;
