//! Copies of a group: disks that are made from its snapshots and attached to this instance, for a look
//! or for as long as somebody wants them, and then deleted. Every one carries tags from its first
//! moment, so that those of a process that was killed are found, and removed, by the next.

use std::collections::BTreeMap;
use std::sync::Arc;

use stillpoint_alibaba::api::{Disk as CloudDisk, SnapshotGroup, Tag};

use super::exit::{ecs_error, fail};
use super::manifests::Manifests;
use super::session::Session;
use super::settings::AlibabaSettings;
use crate::exit_code::ExitCode;
use crate::file_lock::FileLock;
use crate::provider::{AttachedCopy, ProviderError};
use crate::time::Deadline;

/// The group that a disk is a copy of; on the disk, with the others.
const OF: &str = "stillpoint-copy-of";
/// The instance that it is for.
const AT: &str = "stillpoint-copy-at";
/// The disk that it is a copy of.
const DISK: &str = "stillpoint-copy-disk";
/// The snapshot that it was made from.
const SNAPSHOT: &str = "stillpoint-copy-snapshot";
/// What it is for.
const FOR: &str = "stillpoint-copy-for";

/// What copies are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A look. Without a process that holds the lock of their group they are abandoned.
    Verify,
    /// Whatever the operator wants, until he detaches them.
    Restore,
}

impl Purpose {
    fn word(self) -> &'static str {
        match self {
            Purpose::Verify => "verify",
            Purpose::Restore => "restore",
        }
    }
}

/// A disk that is proved to be a copy of ours. Nothing else is ever detached or deleted.
#[derive(Clone, Debug)]
pub(super) struct Copy {
    pub(super) disk: CloudDisk,
    pub(super) group: String,
    /// The disk that it is a copy of.
    pub(super) original: String,
    purpose: Purpose,
}

impl Copy {
    /// Tags alone prove nothing, for anybody can give them to any disk: ECS itself must say that it was
    /// made from the snapshot that they name, which it says of no original.
    pub(super) fn recognise(disk: &CloudDisk, instance: &str) -> Option<Self> {
        let tag = |key| disk.tag(key).filter(|value| !value.is_empty());
        let (group, original, snapshot) = (tag(OF)?, tag(DISK)?, tag(SNAPSHOT)?);
        let purpose = [Purpose::Verify, Purpose::Restore];
        let purpose = purpose.into_iter().find(|purpose| tag(FOR) == Some(purpose.word()))?;
        let is_ours = tag(AT) == Some(instance)
            && disk.source_snapshot_id == snapshot
            && original != disk.disk_id
            && disk.kind != "system";
        is_ours.then(|| Self {
            disk: disk.clone(),
            group: group.to_owned(),
            original: original.to_owned(),
            purpose,
        })
    }
}

/// What a copy is made from.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub(super) original: String,
    pub(super) snapshot: String,
    pub(super) zone: String,
    pub(super) category: String,
    pub(super) performance_level: String,
    pub(super) size: Option<u64>,
    pub(super) purpose: Purpose,
    pub(super) group: String,
    pub(super) tags: Vec<Tag>,
}

/// What one attempt has made so far.
#[derive(Debug, Default)]
pub(super) struct Made {
    pub(super) ids: Vec<String>,
    /// A request whose answer was lost may have made one more, of this group.
    pub(super) unclear: Option<String>,
}

/// The copies of this instance.
#[derive(Clone, Debug)]
pub(super) struct Copies {
    pub(super) session: Session,
    pub(super) settings: Arc<AlibabaSettings>,
}

impl Copies {
    /// Attaches a copy of each member. If one cannot be, those that could are gone again.
    pub(super) async fn attach(
        &self,
        group: &SnapshotGroup,
        purpose: Purpose,
        _lock: &FileLock,
    ) -> Result<Vec<AttachedCopy>, ProviderError> {
        let until = Deadline::after(self.settings.copies);
        self.usable(group).await?;
        self.remove_abandoned(Some(&group.id)).await?;
        self.none_is_attached(&group.id, until).await?;
        let orders = self.orders(group, purpose, until).await?;
        let mut made = Made::default();
        let error = match self.bring(&orders, &mut made, until).await {
            Ok(copies) => return Ok(copies),
            Err(error) => error,
        };
        match self.take_back(&made).await {
            Ok(()) => Err(error),
            Err(left) => Err(left_behind(error, left, &group.id)),
        }
    }

    /// Detaches the copies of a group and deletes them: all, or none if one is in use. With none there is
    /// nothing to do.
    pub(super) async fn detach(&self, group: &str, _lock: &FileLock) -> Result<(), ProviderError> {
        let until = Deadline::after(self.settings.copies);
        let copies = self.of_group(group, until).await?;
        copies.iter().try_for_each(|copy| self.refuse_if_used(copy))?;
        let ids = copies.into_iter().map(|copy| copy.disk.disk_id);
        self.remove(ids.collect(), until).await
    }

    /// Lets go of copies that were attached, by their ids and whatever else is tagged as they are.
    pub(super) async fn release(
        &self,
        group: &str,
        attached: &[AttachedCopy],
        _lock: &FileLock,
    ) -> Result<(), ProviderError> {
        let until = Deadline::after(self.settings.copies);
        let ids = attached.iter().map(|copy| copy.copy.display().to_string());
        let tagged = self.of_group(group, until).await?.into_iter().map(|copy| copy.disk.disk_id);
        let made = Made { ids: ids.chain(tagged).collect(), unclear: None };
        self.take_back(&made).await.map_err(|left| still_there(left, group))
    }

    /// Removes what an attempt to attach may have made that nobody waits for any more.
    pub(super) async fn give_up(&self, group: &str, _lock: &FileLock) -> Result<(), ProviderError> {
        self.take_back_unknown(group).await.map_err(|left| still_there(left, group))
    }

    /// Removes the copies of verifications that were killed: nobody holds the lock of their group.
    /// `held` is the group whose lock we hold ourselves.
    pub(super) async fn remove_abandoned(&self, held: Option<&str>) -> Result<(), ProviderError> {
        let until = Deadline::after(self.settings.copies);
        let mut abandoned: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for copy in self.all(Vec::new(), until).await? {
            if copy.purpose == Purpose::Verify {
                abandoned.entry(copy.group).or_default().push(copy.disk.disk_id);
            }
        }
        let manifests = Manifests::of(&self.settings);
        for (group, ids) in abandoned {
            let lock =
                if held == Some(group.as_str()) { None } else { manifests.lock(&group).await? };
            if held != Some(group.as_str()) && lock.is_none() {
                continue;
            }
            tracing::warn!(
                "{} is left from a verification of {group} that was killed, and is removed",
                ids.join(", ")
            );
            self.remove(ids.into_iter().collect(), until).await?;
        }
        Ok(())
    }

    /// A copy that somebody wanted holds his work. One of a verification that is listed only now was made
    /// right before its process was killed; it goes with the copies of this one.
    pub(super) async fn none_is_attached(
        &self,
        group: &str,
        until: Deadline,
    ) -> Result<(), ProviderError> {
        let copies = self.of_group(group, until).await?;
        let restored = copies.iter().find(|copy| copy.purpose == Purpose::Restore);
        let Some(first) = restored else { return Ok(()) };
        let id = &first.disk.disk_id;
        let what = format!("{id} is a copy of group {group} that was attached here before");
        Err(fail(ExitCode::GroupState, what)
            .hint(format!("`stillpoint detach {group}` detaches and deletes it")))
    }

    pub(super) async fn of_group(
        &self,
        group: &str,
        until: Deadline,
    ) -> Result<Vec<Copy>, ProviderError> {
        self.all(vec![Tag::new(OF, group)], until).await
    }

    /// The copies for this instance, attached or not, that have these tags.
    pub(super) async fn all(
        &self,
        mut tags: Vec<Tag>,
        until: Deadline,
    ) -> Result<Vec<Copy>, ProviderError> {
        let instance = &self.session.instance;
        tags.push(Tag::new(AT, instance));
        let listed = self.session.ecs.describe_disks_by_tags(&tags, until.instant()).await;
        let listed = listed.map_err(ecs_error)?;
        Ok(listed.iter().filter_map(|disk| Copy::recognise(disk, instance)).collect())
    }

    /// A group without a manifest is one whose run did not get to its end.
    async fn usable(&self, group: &SnapshotGroup) -> Result<(), ProviderError> {
        if Manifests::of(&self.settings).read(&group.id).await.is_some() {
            return Ok(());
        }
        let what = format!("group {} cannot be used: there is no manifest of it here", group.id);
        Err(fail(ExitCode::GroupState, what).hint("delete it, and use another group"))
    }

    /// One for each member: of the kind of its original, if that is still known, in the zone of this
    /// instance.
    async fn orders(
        &self,
        group: &SnapshotGroup,
        purpose: Purpose,
        until: Deadline,
    ) -> Result<Vec<Order>, ProviderError> {
        let (ecs, instance) = (&self.session.ecs, &self.session.instance);
        let ids = |of: fn(&stillpoint_alibaba::api::GroupMember) -> &String| {
            group.members().iter().map(of).cloned().collect::<Vec<String>>()
        };
        let snapshots = ids(|member| &member.snapshot_id);
        let snapshots = ecs.describe_snapshots(&snapshots, until.instant()).await;
        let snapshots = snapshots.map_err(ecs_error)?;
        let here = ecs.describe_disks(instance, until.instant()).await.map_err(ecs_error)?;
        let originals = ids(|member| &member.source_disk_id);
        let originals = ecs.describe_disks_by_id(&originals, until.instant()).await;
        let originals = originals.map_err(ecs_error)?;
        let zone = here.iter().map(|disk| &disk.zone_id).find(|zone| !zone.is_empty());
        let zone = zone.ok_or_else(|| {
            fail(ExitCode::GroupState, "no disk of this instance says in which zone it is")
        })?;
        let mut orders = Vec::new();
        for member in group.members() {
            let (id, original) = (&member.snapshot_id, &member.source_disk_id);
            let snapshot = snapshots.iter().find(|it| it.snapshot_id == *id && it.is_usable());
            let snapshot = snapshot.ok_or_else(|| not_usable(id, original))?;
            let kind = originals.iter().find(|disk| disk.disk_id == *original);
            let category = kind.map(|disk| disk.category.clone()).filter(|it| !it.is_empty());
            orders.push(Order {
                original: original.clone(),
                snapshot: id.clone(),
                zone: zone.clone(),
                // The one ESSD that can be of any size.
                performance_level: match (&category, kind) {
                    (Some(_), Some(disk)) => disk.performance_level.clone(),
                    _ => "PL0".to_owned(),
                },
                category: category.unwrap_or_else(|| "cloud_essd".to_owned()),
                size: snapshot.source_disk_size,
                purpose,
                group: group.id.clone(),
                tags: vec![
                    Tag::new(OF, &group.id),
                    Tag::new(AT, instance),
                    Tag::new(DISK, original),
                    Tag::new(SNAPSHOT, id),
                    Tag::new(FOR, purpose.word()),
                ],
            });
        }
        Ok(orders)
    }
}

fn not_usable(snapshot: &str, disk: &str) -> ProviderError {
    let what = format!("snapshot {snapshot} of {disk} is not there, or cannot be used yet");
    fail(ExitCode::SnapshotState, what)
        .hint("the console shows how far it is; try again when it is at 100 %")
}

/// What failed, and that not all of it could be undone.
fn left_behind(error: ProviderError, left: ProviderError, group: &str) -> ProviderError {
    let left = still_there(left, group);
    let message = format!("{}; and {}", error.message, left.message);
    ProviderError { message, hint: left.hint, ..error }
}

/// What could not be removed.
fn still_there(left: ProviderError, group: &str) -> ProviderError {
    let message = format!("copies of group {group} are left: {}", left.message);
    let first = left.hint.as_ref().map(|hint| format!("{hint}; ")).unwrap_or_default();
    let hint = format!(
        "{first}disks cost money until they are deleted: `stillpoint detach {group}` tries again; \
         the console finds them by the tag {OF}"
    );
    ProviderError { message, ..left }.hint(hint)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn disk(change: impl Fn(&mut Value)) -> CloudDisk {
        let mut disk = json!({
            "DiskId": "d-copy", "SourceSnapshotId": "s-1", "Type": "data",
            "Tags": { "Tag": [
                { "TagKey": OF, "TagValue": "ssg-1" },
                { "TagKey": AT, "TagValue": "i-1" },
                { "TagKey": DISK, "TagValue": "d-1" },
                { "TagKey": SNAPSHOT, "TagValue": "s-1" },
                { "TagKey": FOR, "TagValue": "verify" },
            ]},
        });
        change(&mut disk);
        serde_json::from_value(disk).unwrap()
    }

    fn is_copy(change: impl Fn(&mut Value)) -> bool {
        Copy::recognise(&disk(change), "i-1").is_some()
    }

    #[test]
    fn only_what_ecs_says_was_made_from_that_snapshot_for_this_instance_is_a_copy() {
        assert!(is_copy(|_| {}));
        assert!(!is_copy(|disk| disk["SourceSnapshotId"] = json!("")), "an original");
        assert!(!is_copy(|disk| disk["SourceSnapshotId"] = json!("s-2")), "of another snapshot");
        assert!(!is_copy(|disk| disk["DiskId"] = json!("d-1")), "the original itself");
        assert!(!is_copy(|disk| disk["Type"] = json!("system")), "a system disk");
        assert!(Copy::recognise(&disk(|_| {}), "i-2").is_none(), "of another instance");
        for tag in 0..5 {
            assert!(!is_copy(|disk| disk["Tags"]["Tag"][tag]["TagValue"] = json!("")), "tag {tag}");
        }
    }
}
