//! Alibaba Cloud ECS: snapshot-consistent groups of this instance's cloud disks.
//!
//! | file | job |
//! |---|---|
//! | `settings` | what can be configured |
//! | `session` | metadata service, role, endpoint: once, before anything is held |
//! | `local`, `disks` | which block device is which cloud disk; whether it can be in a group |
//! | `names` | what ECS takes as a name; the token of a run |
//! | `group` | one group: the request in the window, and the point in time |
//! | `late` | a group that must not be used, found and removed even if its answer was lost |
//! | `settle` | waiting for the members |
//! | `tags`, `manifests` | what is kept about a run: on the members, and here |
//! | `copies`, `copy_steps` | disks made from the members, attached here, and gone again |
//! | `exit` | which error leads to which exit code |

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use stillpoint_alibaba::api::{GroupFilter, SnapshotGroup, Tag};
use tokio::sync::OnceCell;

use super::{
    AttachedCopy, Disk, GroupRequest, GroupSummary, Member, PassingCopies, PreparedGroup, Provider,
    ProviderError,
};
use crate::exit_code::ExitCode;
use crate::file_lock::FileLock;
use crate::manifest::Manifest;
use crate::time::Deadline;

mod copies;
mod copy_steps;
mod disks;
mod exit;
mod group;
mod late;
mod local;
mod manifests;
mod names;
mod session;
mod settings;
mod settle;
mod tags;

pub use exit::{BY_CODE, DEFAULTS};
pub use settings::{AlibabaSettings, Network, PointInTime, SignatureVersion, WaitFor};

use copies::{Copies, Purpose};
use exit::{ecs_error, fail};
use group::AlibabaGroup;
use manifests::Manifests;
use session::Session;

/// The name in `stillpoint.toml`.
pub const NAME: &str = "alibaba";

/// For a question that holds nothing, from the metadata service to the last page.
const A_LOOK: Duration = Duration::from_secs(30);
/// For deleting a group.
const A_DELETION: Duration = Duration::from_secs(60);

/// Snapshot-consistent groups of ECS.
#[derive(Clone, Debug)]
pub struct AlibabaProvider {
    settings: Arc<AlibabaSettings>,
    /// Made by the first question.
    session: Arc<OnceCell<Session>>,
}

impl AlibabaProvider {
    /// A provider with these settings. Asks nobody yet: the metadata service and ECS are asked by
    /// the first question, or by [`AlibabaProvider::connect`].
    ///
    /// # Errors
    /// If a setting is not usable.
    pub fn new(settings: AlibabaSettings) -> Result<Self, ProviderError> {
        settings.check()?;
        Ok(Self { settings: Arc::new(settings), session: Arc::default() })
    }

    /// A provider that has asked the metadata service who and where this instance is, and has
    /// credentials and an endpoint that accepts connections.
    ///
    /// # Errors
    /// If a setting is not usable, the instance has no role, or nobody answers.
    pub async fn connect(settings: AlibabaSettings) -> Result<Self, ProviderError> {
        let provider = Self::new(settings)?;
        provider.session().await?;
        Ok(provider)
    }

    /// The id of this instance.
    ///
    /// # Errors
    /// As [`AlibabaProvider::connect`].
    pub async fn instance(&self) -> Result<&str, ProviderError> {
        Ok(&self.session().await?.instance)
    }

    /// The region of this instance.
    ///
    /// # Errors
    /// As [`AlibabaProvider::connect`].
    pub async fn region(&self) -> Result<&str, ProviderError> {
        Ok(self.session().await?.ecs.region())
    }

    async fn session(&self) -> Result<&Session, ProviderError> {
        self.session.get_or_try_init(|| Session::open(&self.settings)).await
    }

    /// The groups of this instance that stillpoint made.
    async fn groups(&self, filter: GroupFilter) -> Result<Vec<SnapshotGroup>, ProviderError> {
        let session = self.session().await?;
        let filter = GroupFilter {
            instance: Some(session.instance.clone()),
            tag: Some(Tag::new(tags::RUN, "")),
            ..filter
        };
        let until = Deadline::after(A_LOOK).instant();
        session.ecs.describe_snapshot_groups(&filter, until).await.map_err(ecs_error)
    }
}

#[async_trait]
impl Provider for AlibabaProvider {
    fn name(&self) -> &str {
        NAME
    }

    async fn disks(&self) -> Result<Vec<Disk>, ProviderError> {
        let session = self.session().await?;
        let until = Deadline::after(A_LOOK).instant();
        let cloud = session.ecs.describe_disks(&session.instance, until).await;
        let local = local::local_disks(&self.settings.sys).map_err(|error| {
            let what = format!("cannot read {}", self.settings.sys.join("block").display());
            fail(ExitCode::Unknown, what).because(error)
        })?;
        Ok(disks::recognise(&cloud.map_err(ecs_error)?, &local, &session.instance))
    }

    async fn prepare(
        &self,
        request: GroupRequest,
        deadline: Deadline,
    ) -> Result<Box<dyn PreparedGroup>, ProviderError> {
        let session = self.session().await?.clone();
        let settings = Arc::clone(&self.settings);
        Ok(Box::new(AlibabaGroup::prepare(session, settings, request, deadline).await?))
    }

    async fn list(&self) -> Result<Vec<GroupSummary>, ProviderError> {
        let manifests = Manifests::of(&self.settings);
        let mut summaries = Vec::new();
        for group in self.groups(GroupFilter::default()).await? {
            let manifest = manifests.read(&group.id).await.map(Box::new);
            let incomplete = manifest.is_none().then(|| {
                "there is no manifest of it here: the run that made it did not get to its end"
                    .to_owned()
            });
            summaries.push(GroupSummary {
                members: members(&group),
                id: group.id,
                manifest,
                incomplete,
            });
        }
        Ok(summaries)
    }

    async fn delete(&self, group: &str) -> Result<(), ProviderError> {
        self.group(group).await?;
        let session = self.session().await?;
        let lock = self.lock(group).await?;
        let copies = self.copies().await?;
        copies.remove_abandoned(Some(group)).await?;
        copies.none_is_attached(group, Deadline::after(A_LOOK)).await?;
        let until = Deadline::after(A_DELETION).instant();
        session.ecs.delete_snapshot_group(group, until).await.map_err(ecs_error)?;
        Manifests::of(&self.settings).remove(group).await?;
        drop(lock);
        Ok(())
    }

    /// Attaches the copies as disks of their own. They have the UUIDs of the originals: mount an XFS
    /// copy with `nouuid`, and a btrfs copy only on a machine where the original is not mounted.
    async fn attach_copy(&self, group: &str) -> Result<Vec<AttachedCopy>, ProviderError> {
        let listed = self.group(group).await?;
        let lock = self.lock(group).await?;
        self.copies().await?.attach(&listed, Purpose::Restore, &lock).await
    }

    /// Also of a group that is gone: its copies are not.
    async fn detach_copy(&self, group: &str) -> Result<(), ProviderError> {
        let copies = self.copies().await?;
        if copies.of_group(group, Deadline::after(A_LOOK)).await?.is_empty() {
            self.group(group).await?;
        }
        let lock = self.lock(group).await?;
        copies.detach(group, &lock).await
    }

    async fn attach_passing(&self, group: &str) -> Result<PassingCopies, ProviderError> {
        let listed = self.group(group).await?;
        let lock = self.lock(group).await?;
        let copies = self.copies().await?.attach(&listed, Purpose::Verify, &lock).await?;
        Ok(PassingCopies { copies, held: Vec::new(), lock: Some(lock) })
    }

    async fn release_passing(
        &self,
        group: &str,
        passing: Option<PassingCopies>,
    ) -> Result<(), ProviderError> {
        let copies = self.copies().await?;
        match passing {
            Some(PassingCopies { copies: attached, lock: Some(lock), .. }) => {
                copies.release(group, &attached, &lock).await
            }
            _ => copies.give_up(group, &self.lock(group).await?).await,
        }
    }

    async fn amend(&self, _group: &str, manifest: &Manifest) -> Result<(), ProviderError> {
        let kept = Manifests::of(&self.settings).write(manifest).await;
        let tagged = tags::tag_verified(&self.session().await?.ecs, manifest).await;
        kept.and(tagged)
    }
}

impl AlibabaProvider {
    async fn copies(&self) -> Result<Copies, ProviderError> {
        let session = self.session().await?.clone();
        Ok(Copies { session, settings: Arc::clone(&self.settings) })
    }

    /// A group of this instance that stillpoint made.
    async fn group(&self, id: &str) -> Result<SnapshotGroup, ProviderError> {
        let filter = GroupFilter { ids: vec![id.to_owned()], ..GroupFilter::default() };
        let listed = self.groups(filter).await?.into_iter().find(|other| other.id == id);
        listed.ok_or_else(|| {
            let what = format!("there is no group {} that stillpoint made", id.escape_debug());
            fail(ExitCode::GroupState, what)
                .hint("`stillpoint list` shows them; others are deleted in the console")
        })
    }

    /// Held by whoever attaches, looks at or removes copies of a group.
    async fn lock(&self, group: &str) -> Result<FileLock, ProviderError> {
        let lock = Manifests::of(&self.settings).lock(group).await?;
        lock.ok_or_else(|| {
            let what = format!("copies of group {group} are in use by another stillpoint");
            fail(ExitCode::InProgress, what)
                .hint("a verification, perhaps: try again when it has ended")
        })
    }
}

fn members(group: &SnapshotGroup) -> Vec<Member> {
    let member = group.members().iter().map(|member| Member {
        disk: member.source_disk_id.clone(),
        snapshot: member.snapshot_id.clone(),
        bytes: None,
    });
    member.collect()
}
