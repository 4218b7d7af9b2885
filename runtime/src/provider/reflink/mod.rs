//! The embedded default: the image files under loop devices are cloned (`FICLONE`) on XFS or btrfs.
//!
//! Clones lie in a directory of ours on the image's own file system, one folder for each group:
//!
//! ```text
//! .stillpoint/20261120T093000Z-nightly-0f3a91c2/
//!     group.json     what the group is made of
//!     manifest.json  what the run did
//!     00-data.img    the clones, never written to again
//!     attached/      writable copies of them, while a copy is attached
//! ```
//!
//! Until all clones are on the disk, the folder's name ends in `.incomplete`.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;

use super::{
    AttachedCopy, Disk, GroupRequest, GroupSummary, PassingCopies, PreparedGroup, Provider,
    ProviderError,
};
use crate::exit_code::ExitCode;
use crate::manifest::Manifest;
use crate::time::Deadline;

mod attach;
mod error;
mod group;
mod image;
mod store;
mod worker;

use store::Store;

/// For what only looks or writes a small file: longer, and the storage underneath is not well.
const A_LOOK: Duration = Duration::from_secs(30);

/// The name in `stillpoint.toml`.
pub const NAME: &str = "reflink";

/// What can be configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReflinkConfig {
    /// Where clones are kept; it must be on the file system of every image. `None`: a directory
    /// `.stillpoint` beside each image, which can only be found again while the loop device is
    /// attached.
    pub directory: Option<PathBuf>,
}

/// Clones the image files under loop devices.
#[derive(Clone, Debug)]
pub struct ReflinkProvider {
    store: Store,
}

impl ReflinkProvider {
    /// A provider with this configuration. Touches nothing yet.
    #[must_use]
    pub fn new(config: ReflinkConfig) -> Self {
        Self { store: Store::new(config.directory) }
    }
}

#[async_trait]
impl Provider for ReflinkProvider {
    fn name(&self) -> &str {
        NAME
    }

    async fn disks(&self) -> Result<Vec<Disk>, ProviderError> {
        let store = self.store.clone();
        let look = blocking(move || image::disks(&store));
        within(Deadline::after(A_LOOK), "looking at the images", look).await
    }

    async fn prepare(
        &self,
        request: GroupRequest,
        deadline: Deadline,
    ) -> Result<Box<dyn PreparedGroup>, ProviderError> {
        let store = self.store.clone();
        let prepare = blocking(move || group::ReflinkGroup::prepare(&store, &request));
        let group = within(deadline, "the preparation", prepare).await?;
        Ok(Box::new(group))
    }

    async fn list(&self) -> Result<Vec<GroupSummary>, ProviderError> {
        let store = self.store.clone();
        let look = blocking(move || store.list());
        within(Deadline::after(A_LOOK), "looking for groups", look).await
    }

    async fn delete(&self, group: &str) -> Result<(), ProviderError> {
        let (store, group) = (self.store.clone(), group.to_owned());
        blocking(move || attach::delete(&store, &group)).await
    }

    /// Attaches the copies as loop devices. They have the UUIDs of the originals: mount an XFS copy
    /// with `nouuid`, and a btrfs copy only on a machine where the original is not mounted.
    async fn attach_copy(&self, group: &str) -> Result<Vec<AttachedCopy>, ProviderError> {
        let (store, group) = (self.store.clone(), group.to_owned());
        blocking(move || attach::attach(&store, &group)).await
    }

    async fn detach_copy(&self, group: &str) -> Result<(), ProviderError> {
        let (store, group) = (self.store.clone(), group.to_owned());
        blocking(move || attach::detach(&store, &group)).await
    }

    /// As [`Provider::attach_copy`], of files without a name.
    async fn attach_passing(&self, group: &str) -> Result<PassingCopies, ProviderError> {
        let (store, group) = (self.store.clone(), group.to_owned());
        blocking(move || attach::attach_passing(&store, &group)).await
    }

    async fn amend(&self, group: &str, manifest: &Manifest) -> Result<(), ProviderError> {
        let (store, group, manifest) = (self.store.clone(), group.to_owned(), manifest.clone());
        blocking(move || store.amend(&group, &manifest)).await
    }
}

/// Runs `work`, which waits for disks, away from the threads that must not wait.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ProviderError> + Send + 'static,
) -> Result<T, ProviderError> {
    // A thread of its own: the runtime panics where no thread can be had.
    let (tell, told) = tokio::sync::oneshot::channel();
    let name = "provider".to_owned();
    let started = std::thread::Builder::new().name(name).spawn(move || drop(tell.send(work())));
    if let Err(error) = started {
        return Err(
            ProviderError::new(NAME, ExitCode::Unknown, "cannot start a thread").because(error)
        );
    }
    told.await.unwrap_or_else(|lost| {
        Err(ProviderError::new(NAME, ExitCode::Unknown, "a task of the provider ended early")
            .because(lost))
    })
}

/// Stops waiting for `work` at `deadline`.
async fn within<T>(
    deadline: Deadline,
    what: &str,
    work: impl Future<Output = Result<T, ProviderError>>,
) -> Result<T, ProviderError> {
    let ended = tokio::time::timeout_at(deadline.instant().into(), work).await;
    ended.unwrap_or_else(|_| {
        Err(ProviderError::new(
            NAME,
            ExitCode::GroupTimedOut,
            format!("{what} did not end within its deadline"),
        )
        .hint("is the file system that holds the images busy, full, or failing?"))
    })
}
