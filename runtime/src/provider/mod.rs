//! What makes the snapshot. A provider lists the disks of this instance, starts one group snapshot,
//! says when the point in time is fixed, waits for the members, keeps the manifest, deletes.

use std::fmt;
use std::path::PathBuf;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::exit_code::ExitCode;
use crate::file_lock::FileLock;
use crate::manifest::Manifest;
use crate::plan::DevId;
use crate::time::Deadline;

pub mod alibaba;
pub mod reflink;

/// A disk of this instance that the provider can snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// The provider's own name of it: a disk id of the cloud, the image file of a loop device.
    pub id: String,
    /// The block device in this instance (the whole disk, not a partition). Of a disk that is none
    /// here, [`DevId::of_no_device`]: it is in the snapshot, and lowers the level.
    pub device: DevId,
    /// Its node, for people: `/dev/loop3`, `/dev/vdb`.
    pub node: PathBuf,
    /// What the operator should know before the snapshot (a badly fragmented image, say).
    pub warnings: Vec<String>,
}

/// What the sequence asks a provider for.
#[derive(Clone, Debug)]
pub struct GroupRequest {
    /// This run; unique, and the idempotency token of the request.
    pub run_id: String,
    /// The operator's name for the snapshot.
    pub name: String,
    /// Free text.
    pub description: String,
    /// All members; one group, one point in time.
    pub disks: Vec<Disk>,
    /// Mount points that will be frozen while [`PreparedGroup::create`] runs: nothing may be
    /// written there by the provider.
    pub frozen_mounts: Vec<PathBuf>,
    /// The superblocks of those mounts.
    pub frozen_superblocks: Vec<DevId>,
}

/// The group exists and its point in time is fixed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedGroup {
    /// The provider's id of the group.
    pub id: String,
    /// False if the provider cannot say that the point in time is fixed now: the level drops.
    pub point_in_time_fixed: bool,
}

/// One member of a group that exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// The disk, as in the plan.
    pub disk: String,
    /// The snapshot of it: an id of the cloud, the path of a clone.
    pub snapshot: String,
    /// Size in bytes, if the provider says so.
    pub bytes: Option<u64>,
}

/// A group as `list` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupSummary {
    /// The provider's id of the group.
    pub id: String,
    /// Its members.
    pub members: Vec<Member>,
    /// The manifest, if one was written: without one the run did not end well.
    pub manifest: Option<Box<Manifest>>,
    /// Why this group must not be used, if so: the run that made it did not get to its end.
    #[serde(default)]
    pub incomplete: Option<String>,
}

/// One disk of a group, attached as a copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AttachedCopy {
    /// The disk that it is a copy of.
    pub disk: String,
    /// The writable copy: an image file, the id of a disk of the cloud.
    pub copy: PathBuf,
    /// The block device that it is attached as.
    pub node: PathBuf,
}

/// A copy of each disk of a group, for a look at it, given back to [`Provider::release_passing`]. Where
/// the provider can have it so, nobody else sees it, and it is gone with this value and with whoever has
/// one of its devices open or mounted, also if all of them are killed; elsewhere, what is left of a
/// process that was killed is found and removed by the next.
#[derive(Debug)]
pub struct PassingCopies {
    /// The copies; [`AttachedCopy::copy`] says where they lie, not under which name.
    pub copies: Vec<AttachedCopy>,
    /// What keeps the devices attached.
    pub(crate) held: Vec<std::fs::File>,
    /// What tells others that they are not abandoned.
    pub(crate) lock: Option<FileLock>,
}

/// A provider. Its errors carry the exit code that they lead to.
#[async_trait]
pub trait Provider: Send + Sync + fmt::Debug {
    /// Short name, as in `stillpoint.toml`.
    fn name(&self) -> &str;

    /// The disks of this instance that it can snapshot. Called before anything is held.
    async fn disks(&self) -> Result<Vec<Disk>, ProviderError>;

    /// Everything that can be done before the window: credentials, warm connection, directories,
    /// checks that the disks can be snapshotted and that there is room.
    async fn prepare(
        &self,
        request: GroupRequest,
        deadline: Deadline,
    ) -> Result<Box<dyn PreparedGroup>, ProviderError>;

    /// The groups that exist.
    async fn list(&self) -> Result<Vec<GroupSummary>, ProviderError> {
        Err(ProviderError::unsupported(self.name(), "list"))
    }

    /// Deletes a group with all its members.
    async fn delete(&self, _group: &str) -> Result<(), ProviderError> {
        Err(ProviderError::unsupported(self.name(), "delete"))
    }

    /// Attaches a writable copy of each member; the group itself is never written to.
    async fn attach_copy(&self, _group: &str) -> Result<Vec<AttachedCopy>, ProviderError> {
        Err(ProviderError::unsupported(self.name(), "restore"))
    }

    /// Detaches the copies of a group and deletes them.
    async fn detach_copy(&self, _group: &str) -> Result<(), ProviderError> {
        Err(ProviderError::unsupported(self.name(), "detach"))
    }

    /// Attaches a writable copy of each member for a look; the group itself is never written to.
    async fn attach_passing(&self, _group: &str) -> Result<PassingCopies, ProviderError> {
        Err(ProviderError::unsupported(self.name(), "verify").hint(
            "restore the snapshot to a machine of its own, and start the database there by hand",
        ))
    }

    /// Lets go of such copies when nothing of them is mounted any more; `None`: of what was made by an
    /// [`Provider::attach_passing`] that was given up. An error says what is left.
    async fn release_passing(
        &self,
        _group: &str,
        _copies: Option<PassingCopies>,
    ) -> Result<(), ProviderError> {
        Ok(())
    }

    /// Replaces the manifest of a group that exists, and what of it is in tags.
    async fn amend(&self, _group: &str, _manifest: &Manifest) -> Result<(), ProviderError> {
        Err(ProviderError::unsupported(self.name(), "amending a manifest"))
    }
}

/// A group that is about to be created. Exactly one request is left for the window.
#[async_trait]
pub trait PreparedGroup: Send + fmt::Debug {
    /// Right before the freeze, with applications quiesced: the last moment to see that the
    /// connection is still there. It must be quick; where there is nothing to see, it does nothing.
    async fn about_to_freeze(&mut self, _deadline: Deadline) -> Result<(), ProviderError> {
        Ok(())
    }

    /// Creates the group. Runs while file systems are frozen: it returns as soon as the point in
    /// time is fixed, writes nothing to a frozen file system, and does nothing that could have been
    /// done before. The caller stops waiting at `deadline`.
    async fn create(&mut self, deadline: Deadline) -> Result<CreatedGroup, ProviderError>;

    /// Waits for the members. Runs when nothing is held any more.
    async fn settle(&mut self, deadline: Deadline) -> Result<Vec<Member>, ProviderError>;

    /// What [`PreparedGroup::settle`] left undone although the group can be used: told, with its
    /// exit code, beside a snapshot that is kept.
    fn shortfall(&mut self) -> Option<ProviderError> {
        None
    }

    /// Keeps the manifest next to the snapshot, and what fits of it as tags.
    async fn record(&mut self, manifest: &Manifest) -> Result<(), ProviderError>;

    /// Removes what there is of a group that must not be used. Idempotent.
    async fn discard(&mut self) -> Result<(), ProviderError>;
}

/// What went wrong at the provider.
#[derive(Debug, thiserror::Error)]
#[error("provider {provider}: {message}")]
pub struct ProviderError {
    /// Which provider.
    pub provider: String,
    /// What failed; a fragment in lower case.
    pub message: String,
    /// The exit code that this leads to.
    pub exit_code: ExitCode,
    /// What the operator can do next.
    pub hint: Option<String>,
    /// The cause.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl ProviderError {
    /// An error without cause or hint.
    pub fn new(
        provider: impl Into<String>,
        exit_code: ExitCode,
        message: impl Into<String>,
    ) -> Self {
        Self {
            provider: provider.into(),
            message: message.into(),
            exit_code,
            hint: None,
            source: None,
        }
    }

    /// With its cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// With the next step.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn unsupported(provider: &str, verb: &str) -> Self {
        Self::new(provider, ExitCode::Precondition, format!("{verb} is not supported"))
    }
}
