//! Tags, and `TagResources`.

use std::time::Instant;

use serde::Deserialize;

use super::{numbered, pair};
use crate::client::{Call, EcsClient, Params, Patience};
use crate::error::EcsError;

/// The most tags of one resource, and of one call.
pub const MOST_TAGS: usize = 20;
/// The longest key and the longest value, in characters.
const LONGEST: usize = 128;
/// The most resources of one call.
const MOST_RESOURCES: usize = 50;

/// A tag. Groups call its parts `Key` and `Value`, disks and snapshots `TagKey` and `TagValue`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Tag {
    /// At most 128 characters.
    #[serde(rename = "TagKey", alias = "Key")]
    pub key: String,
    /// At most 128 characters.
    #[serde(rename = "TagValue", alias = "Value")]
    pub value: String,
}

impl Tag {
    /// A tag within the limits: what is too long is cut, and what ECS refuses is written otherwise.
    #[must_use]
    pub fn new(key: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        Self { key: within_limits(key.as_ref()), value: within_limits(value.as_ref()) }
    }
}

/// At most 128 characters, no control characters, no `http://` or `https://`, and at the beginning
/// neither `aliyun` nor `acs:`.
fn within_limits(text: &str) -> String {
    let text = text.replace("://", ":");
    let reserved = ["aliyun", "acs:"];
    let starts = |prefix: &str| {
        text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    let prefix = if reserved.iter().any(|prefix| starts(prefix)) { "_" } else { "" };
    let shown = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    prefix.chars().chain(shown).take(LONGEST).collect()
}

pub(super) fn tag_params(tags: &[Tag]) -> Params {
    let tags = tags.iter().take(MOST_TAGS).enumerate();
    tags.flat_map(|(index, tag)| {
        let number = index + 1;
        [
            (format!("Tag.{number}.Key"), tag.key.clone()),
            (format!("Tag.{number}.Value"), tag.value.clone()),
        ]
    })
    .collect()
}

/// The answer has nothing but the request's id.
#[derive(Deserialize)]
pub(super) struct Done {}

impl EcsClient {
    /// Tags snapshots, all with the same tags, of which at most 20 are sent. A tag that is there
    /// gets its new value.
    ///
    /// # Errors
    /// Those of every call, and what ECS says about the tags.
    pub async fn tag_snapshots(
        &self,
        snapshots: &[String],
        tags: &[Tag],
        deadline: Instant,
    ) -> Result<(), EcsError> {
        for some in snapshots.chunks(MOST_RESOURCES) {
            let mut params = vec![pair("ResourceType", "snapshot")];
            params.extend(numbered("ResourceId", some));
            params.extend(tag_params(tags));
            let call = Call { action: "TagResources", params, patience: Patience::Read };
            let Done {} = self.call(call, deadline).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_keeps_within_what_ecs_takes() {
        let tag = Tag::new("acs:level", format!("https://x/{}", "é".repeat(200)));
        assert_eq!(tag.key, "_acs:level");
        assert_eq!(tag.value.chars().count(), 128);
        assert!(tag.value.starts_with("https:x/é"), "{}", tag.value);
        assert_eq!(Tag::new("a", "two\nlines").value, "two lines");
    }

    #[test]
    fn both_ways_to_write_a_tag_are_read() {
        for text in [r#"{"Key":"a","Value":"b"}"#, r#"{"TagKey":"a","TagValue":"b"}"#] {
            assert_eq!(serde_json::from_str::<Tag>(text).unwrap(), Tag::new("a", "b"));
        }
    }
}
