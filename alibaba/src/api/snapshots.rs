//! `DescribeSnapshots`.

use std::time::Instant;

use serde::Deserialize;

use super::lenient::{number, or_default, yes};
use super::pages::{self, Page};
use super::{Status, Tag, pair};
use crate::client::EcsClient;
use crate::error::EcsError;

/// The most snapshots that one call can be asked about.
const MOST_IDS: usize = 100;

/// A snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Snapshot {
    /// `s-…`.
    #[serde(deserialize_with = "or_default")]
    pub snapshot_id: String,
    /// `d-…`.
    #[serde(deserialize_with = "or_default")]
    pub source_disk_id: String,
    /// Of the disk, in GiB.
    #[serde(deserialize_with = "number")]
    pub source_disk_size: Option<u64>,
    /// Its state.
    pub status: Status,
    /// `100%`.
    #[serde(deserialize_with = "or_default")]
    pub progress: String,
    /// It can be used, even if its data is still being copied.
    #[serde(deserialize_with = "yes")]
    pub available: bool,
    #[serde(deserialize_with = "or_default")]
    tags: Tags,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Tags {
    #[serde(rename = "Tag", deserialize_with = "or_default")]
    list: Vec<Tag>,
}

impl Snapshot {
    /// Its tags.
    #[must_use]
    pub fn tags(&self) -> &[Tag] {
        &self.tags.list
    }

    /// True if a disk can be made from it.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.status != Status::Failed && (self.available || self.status == Status::Accomplished)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default, deserialize_with = "or_default")]
    snapshots: List,
    next_token: Option<String>,
}

#[derive(Default, Deserialize)]
struct List {
    #[serde(rename = "Snapshot", default, deserialize_with = "or_default")]
    list: Vec<Snapshot>,
}

impl Page for Answer {
    type Item = Snapshot;

    fn open(self) -> (Vec<Snapshot>, Option<String>) {
        (self.snapshots.list, self.next_token)
    }
}

impl EcsClient {
    /// The snapshots with these ids, as far as they are there.
    ///
    /// # Errors
    /// Those of every call.
    pub async fn describe_snapshots(
        &self,
        ids: &[String],
        deadline: Instant,
    ) -> Result<Vec<Snapshot>, EcsError> {
        let mut snapshots = Vec::new();
        for some in ids.chunks(MOST_IDS) {
            // A list of strings is JSON in one parameter here, not numbered ones.
            let list = serde_json::Value::from(some).to_string();
            let params = vec![pair("SnapshotIds", &list), pair("MaxResults", "100")];
            snapshots
                .extend(pages::all::<Answer>(self, "DescribeSnapshots", params, deadline).await?);
        }
        Ok(snapshots)
    }
}
