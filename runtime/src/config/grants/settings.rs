//! `[settings]`: what is given to the hook, as JSON, and where in the file each part of it is.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::read::{Document, Location};

/// TOML as JSON; dates and times become text.
pub(super) fn as_json(value: toml::Value) -> serde_json::Value {
    match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => number.into(),
        toml::Value::Boolean(flag) => flag.into(),
        toml::Value::Datetime(moment) => moment.to_string().into(),
        toml::Value::Array(items) => items.into_iter().map(as_json).collect(),
        toml::Value::Table(table) => {
            table.into_iter().map(|(key, value)| (key, as_json(value))).collect()
        }
    }
}

/// Where each setting is in the grant file, by its JSON pointer (RFC 6901).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettingPlaces(BTreeMap<String, Location>);

impl SettingPlaces {
    /// The place of a setting; of the nearest one around it, if it is not in the file itself; `None`
    /// if the file has no settings at all.
    #[must_use]
    pub fn nearest(&self, pointer: &str) -> Option<&Location> {
        let mut pointer = pointer;
        loop {
            if let Some(place) = self.0.get(pointer) {
                return Some(place);
            }
            pointer = &pointer[..pointer.rfind('/')?];
        }
    }

    /// Looks for `[settings]` in a document that is known to be TOML.
    pub(super) fn of(document: &Document) -> Self {
        let mut places = Self::default();
        if let Ok(table) = DeTable::parse(document.text()) {
            let found = table.get_ref().iter().find(|(key, _)| key.get_ref() == "settings");
            if let Some((key, settings)) = found {
                places.0.insert(String::new(), document.location(&key.span()));
                places.add_children("", settings, document);
            }
        }
        places
    }

    fn add_children(&mut self, pointer: &str, value: &Spanned<DeValue<'_>>, document: &Document) {
        match value.get_ref() {
            DeValue::Table(table) => {
                for (key, child) in table {
                    let below = format!("{pointer}/{}", escaped(key.get_ref()));
                    self.0.insert(below.clone(), document.location(&key.span()));
                    self.add_children(&below, child, document);
                }
            }
            DeValue::Array(items) => {
                for (at, child) in items.iter().enumerate() {
                    let below = format!("{pointer}/{at}");
                    self.0.insert(below.clone(), document.location(&child.span()));
                    self.add_children(&below, child, document);
                }
            }
            _ => {}
        }
    }
}

/// One key as a part of a JSON pointer.
pub(crate) fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
