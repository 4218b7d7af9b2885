//! The actions that a snapshot of this instance, and copies of it, need. Answers are read tolerantly: unknown
//! fields, missing ones, `null`, and numbers written as text.

mod copies;
mod create;
mod disks;
mod groups;
mod lenient;
mod pages;
mod snapshots;
mod tags;

pub use copies::CreateDisk;
pub use create::CreateSnapshotGroup;
pub use disks::{Attachment, Disk};
pub use groups::{GroupFilter, GroupMember, SnapshotGroup};
pub use snapshots::Snapshot;
pub use tags::{MOST_TAGS, Tag};

use std::fmt;

use serde::{Deserialize, Deserializer};

/// The most disks that a group may have, and their size together in TiB, as the vendor's pages of
/// 2025 say. Some regions allow more: ECS decides.
pub const USUAL_MOST_DISKS: usize = 16;

/// The state of a group or of a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// Its data is being copied.
    Progressing,
    /// It is whole.
    Accomplished,
    /// It is not usable.
    Failed,
    /// ECS did not say.
    #[default]
    Unknown,
    /// Something that this program does not know.
    Other(String),
}

impl From<&str> for Status {
    fn from(text: &str) -> Self {
        match text.to_ascii_lowercase().as_str() {
            "" => Status::Unknown,
            "progressing" => Status::Progressing,
            "accomplished" => Status::Accomplished,
            "failed" => Status::Failed,
            _ => Status::Other(text.to_owned()),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Status::Progressing => "progressing",
            Status::Accomplished => "accomplished",
            Status::Failed => "failed",
            Status::Unknown => "unknown",
            Status::Other(text) => text,
        })
    }
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Option::<String>::deserialize(from)?.as_deref().map(Status::from).unwrap_or_default())
    }
}

/// `Name.1`, `Name.2`…
fn numbered<'a>(
    name: &'a str,
    values: impl IntoIterator<Item = &'a String> + 'a,
) -> impl Iterator<Item = (String, String)> + 'a {
    let values = values.into_iter().enumerate();
    values.map(move |(index, value)| (format!("{name}.{}", index + 1), value.clone()))
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}
