//! The parameters of a call, read by name. What is not read by the end was unknown to the action.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::api::error::ApiError;
use crate::scenario::Tag;

/// Known to every action, and without a meaning here: of old account systems, of the protocol, or
/// of features that the emulator has not.
const COMMON: &[&str] = &[
    "AccessKeyId",
    "Action",
    "Format",
    "OwnerAccount",
    "OwnerId",
    "ResourceGroupId",
    "ResourceOwnerAccount",
    "ResourceOwnerId",
    "SecurityToken",
    "Signature",
    "SignatureMethod",
    "SignatureNonce",
    "SignatureType",
    "SignatureVersion",
    "Timestamp",
    "Version",
];

/// The parameters of one call.
#[derive(Clone, Debug, Default)]
pub struct Parameters {
    values: BTreeMap<String, String>,
    read: RefCell<BTreeSet<String>>,
}

impl Parameters {
    /// Of these values.
    #[must_use]
    pub fn new(values: BTreeMap<String, String>) -> Self {
        Self { values, read: RefCell::default() }
    }

    /// Names that nobody asked for.
    pub(crate) fn unknown(&self) -> Vec<String> {
        let read = self.read.borrow();
        let known = |name: &str| read.contains(name) || COMMON.contains(&name);
        self.values.keys().filter(|name| !known(name)).cloned().collect()
    }

    /// All values but those that carry a secret or sign.
    pub(crate) fn for_the_log(&self) -> BTreeMap<String, String> {
        let hidden = ["Signature", "SecurityToken"];
        let shown = |name: &&String| !hidden.contains(&name.as_str());
        let keep = |(name, value): (&String, &String)| (name.clone(), value.clone());
        self.values.iter().filter(|(name, _)| shown(name)).map(keep).collect()
    }

    /// What makes two calls the same call: everything but what changes from one try to the next.
    pub(crate) fn meaning(&self) -> BTreeMap<String, String> {
        let differs = ["AccessKeyId", "SecurityToken", "Signature", "SignatureNonce", "Timestamp"];
        let same = |name: &&String| !differs.contains(&name.as_str());
        let keep = |(name, value): (&String, &String)| (name.clone(), value.clone());
        self.values.iter().filter(|(name, _)| same(name)).map(keep).collect()
    }

    /// A text that may be absent. An empty one is as absent.
    pub(crate) fn optional(&self, name: &str) -> Option<&str> {
        self.read.borrow_mut().insert(name.to_owned());
        self.values.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A text that must be there.
    pub(crate) fn required(&self, name: &str) -> Result<&str, ApiError> {
        self.optional(name).ok_or_else(|| ApiError::missing(name))
    }

    /// A number that may be absent.
    pub(crate) fn number(&self, name: &str) -> Result<Option<usize>, ApiError> {
        self.optional(name)
            .map(|text| text.parse().map_err(|_| ApiError::invalid(name, "it must be a number")))
            .transpose()
    }

    /// `true` or `false`, in any case: Python writes `True`.
    pub(crate) fn boolean(&self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.optional(name).map(str::to_ascii_lowercase).as_deref() {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(ApiError::invalid(name, "it must be true or false")),
        }
    }

    /// `Name.1`, `Name.2`, … in the order of their numbers.
    pub(crate) fn list(&self, name: &str, most: usize) -> Result<Vec<String>, ApiError> {
        let mut found = BTreeMap::new();
        for (key, value) in &self.values {
            if let Some(number) = key.strip_prefix(name).and_then(|rest| rest.strip_prefix('.')) {
                found.insert(position(key, number, most)?, value.clone());
                self.read.borrow_mut().insert(key.clone());
            }
        }
        if found.values().any(String::is_empty) {
            return Err(ApiError::invalid(name, "an entry is empty"));
        }
        Ok(found.into_values().collect())
    }

    /// One text that holds a JSON array of at most `most` texts.
    pub(crate) fn json_list(
        &self,
        name: &str,
        most: usize,
    ) -> Result<Option<Vec<String>>, ApiError> {
        let Some(text) = self.optional(name) else { return Ok(None) };
        let list: Vec<String> = serde_json::from_str(text)
            .map_err(|_| ApiError::invalid(name, "it must be a JSON array of texts"))?;
        if list.len() > most {
            return Err(ApiError::invalid(name, "it has too many entries"));
        }
        Ok(Some(list))
    }

    /// `Tag.1.Key` and `Tag.1.Value`, … by the rules for tags.
    pub(crate) fn tags(&self) -> Result<Vec<Tag>, ApiError> {
        let mut found: BTreeMap<usize, (Option<String>, String)> = BTreeMap::new();
        for (key, value) in &self.values {
            let Some((number, field)) =
                key.strip_prefix("Tag.").and_then(|rest| rest.split_once('.'))
            else {
                continue;
            };
            let number =
                number.parse().map_err(|_| ApiError::invalid(key, "a number is needed"))?;
            let entry: &mut (Option<String>, String) = found.entry(number).or_default();
            match field {
                "Key" => entry.0 = Some(value.clone()),
                "Value" => entry.1.clone_from(value),
                _ => continue,
            }
            self.read.borrow_mut().insert(key.clone());
        }
        if found.len() > 20 || found.keys().any(|number| !(1..=20).contains(number)) {
            return Err(ApiError::documented("NumberExceed.Tags"));
        }
        let mut tags: Vec<Tag> = Vec::new();
        for (key, value) in found.into_values() {
            let key = key.ok_or_else(|| ApiError::missing("Tag.N.Key"))?;
            check_tag(&key, &value)?;
            if tags.iter().any(|tag| tag.key == key) {
                return Err(ApiError::documented("Duplicate.TagKey"));
            }
            tags.push(Tag { key, value });
        }
        Ok(tags)
    }

    /// Parameters that exist and change nothing here.
    pub(crate) fn ignore(&self, names: &[&str]) {
        let is = |name: &str, key: &str| {
            key.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let ignored = self.values.keys().filter(|key| names.iter().any(|name| is(name, key)));
        self.read.borrow_mut().extend(ignored.cloned());
    }
}

fn position(key: &str, number: &str, most: usize) -> Result<usize, ApiError> {
    match number.parse() {
        Ok(position) if (1..=most).contains(&position) => Ok(position),
        _ => Err(ApiError::invalid(key, &format!("N must be from 1 to {most}"))),
    }
}

fn check_tag(key: &str, value: &str) -> Result<(), ApiError> {
    let link = |text: &str| text.contains("http://") || text.contains("https://");
    let reserved = |text: &str| text.starts_with("acs:") || text.starts_with("aliyun");
    if key.is_empty() || key.chars().count() > 128 || reserved(key) || link(key) {
        return Err(ApiError::documented("InvalidTagKey.Malformed"));
    }
    if value.chars().count() > 128 || value.starts_with("acs:") || link(value) {
        return Err(ApiError::documented("InvalidTagValue.Malformed"));
    }
    Ok(())
}
