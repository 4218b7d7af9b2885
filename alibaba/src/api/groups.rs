//! `DescribeSnapshotGroups`.

use std::time::Instant;

use serde::Deserialize;

use super::lenient::{or_default, yes};
use super::pages::{self, Page};
use super::{Status, Tag, numbered, pair};
use crate::client::{Call, EcsClient, Params, Patience};
use crate::error::EcsError;

/// A snapshot-consistent group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SnapshotGroup {
    /// `ssg-…`.
    #[serde(rename = "SnapshotGroupId", deserialize_with = "or_default")]
    pub id: String,
    /// Its name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// Free text.
    #[serde(deserialize_with = "or_default")]
    pub description: String,
    /// The instance.
    #[serde(deserialize_with = "or_default")]
    pub instance_id: String,
    /// Its state.
    pub status: Status,
    /// RFC 3339, UTC.
    #[serde(deserialize_with = "or_default")]
    pub creation_time: String,
    #[serde(deserialize_with = "or_default")]
    tags: Tags,
    #[serde(deserialize_with = "or_default")]
    snapshots: Members,
}

/// A snapshot as its group lists it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct GroupMember {
    /// `s-…`.
    #[serde(deserialize_with = "or_default")]
    pub snapshot_id: String,
    /// `d-…`.
    #[serde(deserialize_with = "or_default")]
    pub source_disk_id: String,
    /// `100%`.
    #[serde(deserialize_with = "or_default")]
    pub progress: String,
    /// It can be used, even if its data is still being copied.
    #[serde(deserialize_with = "yes")]
    pub available: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Members {
    #[serde(rename = "Snapshot", deserialize_with = "or_default")]
    list: Vec<GroupMember>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Tags {
    #[serde(rename = "Tag", deserialize_with = "or_default")]
    list: Vec<Tag>,
}

impl GroupMember {
    /// ECS says that its content stands: it can be used, or some of it has been copied. A member that
    /// is only listed says less.
    #[must_use]
    pub fn is_fixed(&self) -> bool {
        let percent = self.progress.trim().trim_end_matches('%').parse::<f64>();
        self.available || percent.is_ok_and(|percent| percent > 0.0)
    }
}

impl SnapshotGroup {
    /// Its members, as far as they are listed.
    #[must_use]
    pub fn members(&self) -> &[GroupMember] {
        &self.snapshots.list
    }

    /// Its tags.
    #[must_use]
    pub fn tags(&self) -> &[Tag] {
        &self.tags.list
    }
}

/// Which groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupFilter {
    /// Of this instance.
    pub instance: Option<String>,
    /// With these ids; at most 10.
    pub ids: Vec<String>,
    /// With this tag; an empty value: with any value.
    pub tag: Option<Tag>,
}

impl GroupFilter {
    fn params(&self) -> Params {
        let mut params: Params =
            self.instance.iter().map(|instance| pair("InstanceId", instance)).collect();
        params.extend(numbered("SnapshotGroupId", &self.ids));
        if let Some(tag) = &self.tag {
            params.push(pair("Tag.1.Key", &tag.key));
            if !tag.value.is_empty() {
                params.push(pair("Tag.1.Value", &tag.value));
            }
        }
        params
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default, deserialize_with = "or_default")]
    snapshot_groups: List,
    next_token: Option<String>,
}

#[derive(Default, Deserialize)]
struct List {
    #[serde(rename = "SnapshotGroup", default, deserialize_with = "or_default")]
    list: Vec<SnapshotGroup>,
}

impl Page for Answer {
    type Item = SnapshotGroup;

    fn open(self) -> (Vec<SnapshotGroup>, Option<String>) {
        (self.snapshot_groups.list, self.next_token)
    }
}

const ACTION: &str = "DescribeSnapshotGroups";

impl EcsClient {
    /// The groups that fit `filter`. A group that was made a moment ago may not be listed yet.
    ///
    /// # Errors
    /// Those of every call.
    pub async fn describe_snapshot_groups(
        &self,
        filter: &GroupFilter,
        deadline: Instant,
    ) -> Result<Vec<SnapshotGroup>, EcsError> {
        let mut params = filter.params();
        params.push(pair("MaxResults", "100"));
        pages::all::<Answer>(self, ACTION, params, deadline).await
    }

    /// A cheap signed read: opens the connection or keeps it open, and shows that groups may be
    /// looked at.
    ///
    /// # Errors
    /// Those of every call.
    pub async fn look(&self, instance: &str, deadline: Instant) -> Result<(), EcsError> {
        let params = vec![pair("InstanceId", instance), pair("MaxResults", "1")];
        let _: Answer =
            self.call(Call { action: ACTION, params, patience: Patience::Read }, deadline).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_fixed_when_it_can_be_used_or_is_being_copied() {
        let member = |progress: &str, available| GroupMember {
            progress: progress.into(),
            available,
            ..GroupMember::default()
        };
        for (progress, available) in [("0%", true), ("", true), ("1%", false), ("100%", false)] {
            assert!(member(progress, available).is_fixed(), "{progress} {available}");
        }
        for progress in ["0%", "", "%", "soon", "-1%", "NaN"] {
            assert!(!member(progress, false).is_fixed(), "{progress}");
        }
    }
}
