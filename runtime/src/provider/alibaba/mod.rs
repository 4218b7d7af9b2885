//! Alibaba Cloud ECS: snapshot-consistent groups of this instance's cloud disks.
//!
//! | file | job |
//! |---|---|
//! | `settings` | what can be configured |
//! | `session` | metadata service, role, endpoint: once, before anything is held |
//! | `local`, `disks` | which block device is which cloud disk; whether it can be in a group |
//! | `group` | one group: the request in the window, and the point in time |
//! | `keep_warm` | the one connection stays open until the window |
//! | `late` | a group whose answer was lost, or came too late |
//! | `settle` | waiting for the members |
//! | `tags`, `manifests` | what is kept about a run: on the members, and here |
//! | `exit` | which error leads to which exit code |

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::OnceCell;

use super::{Disk, GroupRequest, GroupSummary, PreparedGroup, Provider, ProviderError};
use crate::time::Deadline;

mod exit;
mod session;
mod settings;

pub use exit::{BY_CODE, DEFAULTS};
pub use settings::{AlibabaSettings, Network, PointInTime, SignatureVersion};

use session::Session;

/// The name in `stillpoint.toml`.
pub const NAME: &str = "alibaba";

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
}

#[async_trait]
impl Provider for AlibabaProvider {
    fn name(&self) -> &str {
        NAME
    }

    async fn disks(&self) -> Result<Vec<Disk>, ProviderError> {
        Err(ProviderError::unsupported(NAME, "disks"))
    }

    async fn prepare(
        &self,
        _request: GroupRequest,
        _deadline: Deadline,
    ) -> Result<Box<dyn PreparedGroup>, ProviderError> {
        Err(ProviderError::unsupported(NAME, "prepare"))
    }

    async fn list(&self) -> Result<Vec<GroupSummary>, ProviderError> {
        Err(ProviderError::unsupported(NAME, "list"))
    }
}
