//! What a schema may be, and what it may cost.

use serde_json::{Map, Value};

use super::super::text::clean;

/// The longest schema, in bytes.
const LONGEST: usize = 64 << 10;

/// Patterns in one schema; each is compiled.
const MOST_PATTERNS: usize = 100;

/// Schemas that are looked at for one value, with each reference followed: without a bound, twenty
/// lines that refer to each other twice cost a million.
const MOST_STEPS: u64 = 20_000;

/// References from one to the next.
const LONGEST_CHAIN: usize = 64;

const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Keywords whose value is a schema.
const ONE: [&str; 11] = [
    "additionalProperties",
    "contains",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
    "contentSchema",
];
/// Keywords whose value is a list of schemas.
const LIST: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];
/// Keywords whose value has schemas by name, which are evaluated.
const NAMED: [&str; 3] = ["dependentSchemas", "patternProperties", "properties"];
/// Keywords that look through everything beside them once more.
const AGAIN: [&str; 2] = ["unevaluatedItems", "unevaluatedProperties"];
/// Keywords that change what a reference means.
const REBINDING: [&str; 5] = ["$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveRef", "$id"];

/// The schema, if it is one that can be evaluated within bounds.
pub(super) fn checked(text: &str) -> Result<Value, String> {
    if text.len() > LONGEST {
        return Err(format!("it has {} bytes, and {LONGEST} are the most", text.len()));
    }
    let schema: Value =
        serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))?;
    let Value::Object(top) = &schema else { return Err("it is not a JSON object".into()) };
    match top.get("$schema") {
        None => {}
        Some(Value::String(dialect)) if dialect.trim_end_matches('#') == DIALECT => {}
        Some(other) => {
            return Err(format!(
                "its `$schema` is {}, not {DIALECT}",
                clean(&other.to_string(), 100)
            ));
        }
    }
    check_references(&schema, &schema, true, &mut 0)?;
    let mut walk = Walk { schema: &schema, following: Vec::new(), known: Vec::new() };
    let steps = walk.steps(&schema)?;
    if steps > MOST_STEPS {
        return Err(format!(
            "one value is compared with {steps} schemas, and {MOST_STEPS} are the most: refer less"
        ));
    }
    Ok(schema)
}

/// Looks at everything, whether it is evaluated or not: what is not understood as a schema here must
/// not be one for the validator.
fn check_references(
    value: &Value,
    schema: &Value,
    is_top: bool,
    patterns: &mut usize,
) -> Result<(), String> {
    match value {
        Value::Object(object) => {
            for key in REBINDING.into_iter().filter(|key| object.contains_key(*key)) {
                if !(is_top && key == "$id") {
                    return Err(format!("it uses `{key}`; refer by `$ref` and `#/…` only"));
                }
            }
            if let Some(reference) = object.get("$ref") {
                target(reference.as_str().unwrap_or_default(), schema)?;
            }
            let named = object.get("patternProperties").and_then(Value::as_object);
            *patterns += usize::from(object.contains_key("pattern")) + named.map_or(0, Map::len);
            if *patterns > MOST_PATTERNS {
                return Err(format!("it has more than {MOST_PATTERNS} patterns"));
            }
            object.values().try_for_each(|child| check_references(child, schema, false, patterns))
        }
        Value::Array(items) => {
            items.iter().try_for_each(|child| check_references(child, schema, false, patterns))
        }
        _ => Ok(()),
    }
}

/// What a reference refers to, inside the schema.
fn target<'a>(reference: &str, schema: &'a Value) -> Result<&'a Value, String> {
    let shown = clean(reference, 100);
    if reference == "#" {
        return Ok(schema);
    }
    match reference.strip_prefix('#').filter(|pointer| pointer.starts_with('/')) {
        None => Err(format!("`$ref` \"{shown}\" leaves the schema; nothing is fetched: use `#/…`")),
        Some(pointer) => {
            schema.pointer(pointer).ok_or(format!("`$ref` \"{shown}\" refers to nothing"))
        }
    }
}

/// Counts with how many schemas one value may be compared.
struct Walk<'a> {
    schema: &'a Value,
    /// References that are being followed, to see a circle.
    following: Vec<&'a str>,
    /// What following a reference costs.
    known: Vec<(&'a str, u64)>,
}

impl<'a> Walk<'a> {
    fn steps(&mut self, value: &'a Value) -> Result<u64, String> {
        let Value::Object(object) = value else { return Ok(1) };
        let mut steps = 1_u64;
        for (key, child) in object {
            let key = key.as_str();
            let more = match child {
                Value::String(reference) if key == "$ref" => self.follow(reference)?,
                one if ONE.contains(&key) => self.steps(one)?,
                Value::Array(list) if LIST.contains(&key) => self.all(list.iter())?,
                Value::Object(named) if NAMED.contains(&key) => self.all(named.values())?,
                _ => 0,
            };
            steps = steps.saturating_add(more);
        }
        let again = AGAIN.iter().any(|key| object.contains_key(*key));
        Ok(if again { steps.saturating_mul(2) } else { steps })
    }

    fn all(&mut self, schemas: impl Iterator<Item = &'a Value>) -> Result<u64, String> {
        let mut steps = 0_u64;
        for schema in schemas {
            steps = steps.saturating_add(self.steps(schema)?);
        }
        Ok(steps)
    }

    fn follow(&mut self, reference: &'a str) -> Result<u64, String> {
        if let Some((_, steps)) = self.known.iter().find(|(known, _)| *known == reference) {
            return Ok(*steps);
        }
        if self.following.contains(&reference) {
            return Err(format!("`$ref` \"{}\" leads back to itself", clean(reference, 100)));
        }
        if self.following.len() == LONGEST_CHAIN {
            return Err(format!("more than {LONGEST_CHAIN} references lead from one to the next"));
        }
        let schema = self.schema;
        self.following.push(reference);
        let steps = self.steps(target(reference, schema)?)?;
        self.following.pop();
        self.known.push((reference, steps));
        Ok(steps)
    }
}
