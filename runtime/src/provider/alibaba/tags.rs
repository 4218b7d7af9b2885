//! Tags: the run on the group, and on each member how consistent it is, and why.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use stillpoint_alibaba::EcsClient;
use stillpoint_alibaba::api::Tag;

use super::exit::ecs_error;
use super::group::AlibabaGroup;
use crate::consistency::Level;
use crate::manifest::{DiskRecord, HookRecord, Manifest, MetadataValue};
use crate::provider::ProviderError;

/// What a verification of a copy found; on the members.
const VERIFIED: &str = "Verified";

/// The id of the run; on the group, and on each member.
pub(super) const RUN: &str = "stillpoint-run-id";
/// On the members of a group that must not be used.
pub(super) const UNUSABLE: &str = "stillpoint-unusable";
/// What the vendor's plug-in writes, and its console shows.
const APPLICATION: &str = "AppConsistent";
const FILE_SYSTEM: &str = "FsConsistent";

/// A member has at most 20 tags; some are left for others.
const MOST: usize = 16;
/// The longest value, in characters.
const LONGEST: usize = 128;
/// Enough of a digest to recognise it.
const DIGEST: usize = 7 + 16;
/// How long tagging may take.
const TAGGING: Duration = Duration::from_secs(30);

/// What the group gets with its creation: enough to find it again.
pub(super) fn at_creation(run_id: &str) -> Vec<Tag> {
    vec![Tag::new(RUN, run_id)]
}

/// What the members of a group get that must not be used, and cannot be deleted.
pub(super) fn unusable(run_id: &str) -> Vec<Tag> {
    vec![
        Tag::new(APPLICATION, "False"),
        Tag::new(FILE_SYSTEM, "False"),
        Tag::new(UNUSABLE, "True"),
        Tag::new(RUN, run_id),
    ]
}

/// What the member of one disk gets: the consistency first, then what whoever restores needs most.
pub(super) fn of_member(manifest: &Manifest, disk: &DiskRecord) -> Vec<Tag> {
    let mut tags = Vec::new();
    // What applications wrote can be on every disk of the group: it takes all of them.
    match (manifest.level, disk.level) {
        (Level::Application, _) => tags.push(Tag::new(APPLICATION, "True")),
        (_, Level::FileSystem | Level::Application) => tags.push(Tag::new(FILE_SYSTEM, "True")),
        (_, Level::Crash) => {}
    }
    tags.push(Tag::new("stillpoint-level", manifest.level.to_string()));
    if disk.level != manifest.level {
        tags.push(Tag::new("stillpoint-disk-level", disk.level.to_string()));
    }
    if !manifest.reasons.is_empty() {
        let codes: Vec<&str> = manifest.reasons.iter().map(|reason| reason.code.code()).collect();
        tags.push(value("stillpoint-reason", &codes.join(" ")));
    }
    tags.push(Tag::new(RUN, &manifest.run_id));
    tags.push(Tag::new("stillpoint-version", &manifest.stillpoint));
    for hook in &manifest.hooks {
        tags.push(value(&format!("stillpoint-hook-{}", hook.name), &hook_in_short(hook)));
    }
    for hook in &manifest.hooks {
        for entry in &hook.metadata {
            let text = match &entry.value {
                MetadataValue::Text(text) => text.clone(),
                MetadataValue::Integer(number) => number.to_string(),
                MetadataValue::Boolean(yes) => yes.to_string(),
                MetadataValue::Bytes(bytes) => bytes.clone(),
            };
            if !text.is_empty() {
                tags.push(value(&format!("stillpoint-{}-{}", hook.name, entry.key), &text));
            }
        }
    }
    unique(tags)
}

/// `1.2.0 sha256:0123456789abcdef confirmed`
fn hook_in_short(hook: &HookRecord) -> String {
    let digest = hook.digest.as_deref().map(|digest| digest.chars().take(DIGEST).collect());
    let proof = if hook.confirmed { "confirmed" } else { "not confirmed" };
    let parts = [hook.version.clone(), digest, Some(proof.to_owned())];
    parts.into_iter().flatten().collect::<Vec<String>>().join(" ")
}

/// A value that is cut shows that it is.
fn value(key: &str, text: &str) -> Tag {
    if text.chars().count() <= LONGEST {
        return Tag::new(key, text);
    }
    let cut: String = text.chars().take(LONGEST - 1).collect();
    Tag::new(key, format!("{cut}…"))
}

/// Of two tags with one key ECS takes neither; of too many, none.
fn unique(tags: Vec<Tag>) -> Vec<Tag> {
    let mut unique: Vec<Tag> = Vec::new();
    for tag in tags {
        if !unique.iter().any(|other| other.key == tag.key) {
            unique.push(tag);
        }
    }
    unique.truncate(MOST);
    unique
}

/// Tags the members with what a verification found; they are tagged `AppConsistent` already.
pub(super) async fn tag_verified(
    ecs: &EcsClient,
    manifest: &Manifest,
) -> Result<(), ProviderError> {
    let Some(verified) = &manifest.verified else { return Ok(()) };
    let members = manifest.disks.iter().filter_map(|disk| disk.member.as_ref());
    let members: Vec<String> = members.map(|member| member.snapshot.clone()).collect();
    let tag = verified.tag();
    let (key, verdict) = tag.split_once(':').unwrap_or((VERIFIED, &tag));
    let deadline = Instant::now() + TAGGING;
    let tagged = ecs.tag_snapshots(&members, &[Tag::new(key, verdict)], deadline).await;
    tagged.map_err(ecs_error)
}

impl AlibabaGroup {
    /// Tags every member. Members with the same tags are one call.
    pub(super) async fn tag_members(&self, manifest: &Manifest) -> Result<(), ProviderError> {
        let mut by_level: BTreeMap<Level, (Vec<Tag>, Vec<String>)> = BTreeMap::new();
        for disk in &manifest.disks {
            let Some(member) = &disk.member else { continue };
            let entry = by_level.entry(disk.level);
            let (_, members) = entry.or_insert_with(|| (of_member(manifest, disk), Vec::new()));
            members.push(member.snapshot.clone());
        }
        let deadline = Instant::now() + TAGGING;
        for (tags, members) in by_level.into_values() {
            let tagged = self.session.ecs.tag_snapshots(&members, &tags, deadline).await;
            tagged.map_err(ecs_error)?;
        }
        Ok(())
    }
}
