//! The credentials of the instance's role: fetched before anything is frozen, renewed before they
//! expire, never shown.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use crate::metadata::{Metadata, MetadataError};

/// Credentials that expire sooner are renewed. New ones appear 30 minutes before the old expire,
/// and both are valid meanwhile.
const STALE: SignedDuration = SignedDuration::from_mins(15);

/// Text that nobody is shown, and that is overwritten when it is dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Keeps `text` secret from here on.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// What a request is signed with.
#[derive(Clone)]
pub struct Credentials {
    /// Which key it is. Not secret by itself, but nobody's business.
    pub key_id: String,
    /// The key.
    pub secret: Secret,
    /// The token of a role's temporary key.
    pub token: Option<Secret>,
    /// When they expire; `None`: never.
    pub expires: Option<Timestamp>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("expires", &self.expires).finish_non_exhaustive()
    }
}

impl Credentials {
    fn is_valid_for(&self, time: SignedDuration) -> bool {
        self.expires.is_none_or(|expires| expires.duration_since(Timestamp::now()) > time)
    }
}

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// The metadata service does not give them.
    #[error("the metadata service gives none")]
    Metadata(#[from] MetadataError),
    /// Those that it gives are expired already.
    #[error("those of role {role} expired at {expired}")]
    Expired {
        /// The role.
        role: String,
        /// When.
        expired: Timestamp,
    },
}

impl CredentialsError {
    /// True if the instance has no role, or not the one that was asked for.
    #[must_use]
    pub fn is_no_role(&self) -> bool {
        matches!(self, CredentialsError::Metadata(MetadataError::NoRole { .. }))
    }

    /// What the operator can do next.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            CredentialsError::Metadata(error) => error.hint(),
            CredentialsError::Expired { .. } => Some("is this machine's clock right?".to_owned()),
        }
    }
}

/// Where credentials come from, and those that are at hand.
#[derive(Debug)]
pub struct CredentialSource {
    metadata: Arc<Metadata>,
    role: String,
    at_hand: Mutex<Option<Arc<Credentials>>>,
}

impl CredentialSource {
    /// The credentials of `role`; of the only role there is without one. Fetches them.
    ///
    /// # Errors
    /// If the instance has no role, or the metadata service does not answer.
    pub async fn connect(
        metadata: Arc<Metadata>,
        role: Option<&str>,
    ) -> Result<Self, CredentialsError> {
        let role = match role {
            Some(role) => role.to_owned(),
            None => metadata.role().await?,
        };
        let source = Self { metadata, role, at_hand: Mutex::new(None) };
        source.renew().await?;
        Ok(source)
    }

    /// The role.
    #[must_use]
    pub fn role(&self) -> &str {
        &self.role
    }

    /// Those at hand as long as they are valid: no call to anybody. Renewed if they are expired.
    ///
    /// # Errors
    /// If they are expired and cannot be renewed.
    pub async fn current(&self) -> Result<Arc<Credentials>, CredentialsError> {
        self.valid_for(SignedDuration::ZERO).await
    }

    /// Renews them if they would expire within `time` or within 15 minutes, whatever is longer. Those
    /// that are still valid are kept if the metadata service does not answer.
    ///
    /// # Errors
    /// If there are none that are valid.
    pub async fn ready_for(&self, time: Duration) -> Result<(), CredentialsError> {
        let time = SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX).max(STALE);
        match self.valid_for(time).await {
            Err(error) => {
                tracing::debug!("credentials were not renewed: {error}");
                self.current().await.map(drop)
            }
            Ok(_) => Ok(()),
        }
    }

    /// Fetches new ones, whatever is at hand.
    ///
    /// # Errors
    /// If the metadata service does not give any.
    pub async fn renew(&self) -> Result<(), CredentialsError> {
        let mut at_hand = self.at_hand.lock().await;
        *at_hand = Some(self.fetch().await?);
        Ok(())
    }

    async fn valid_for(&self, time: SignedDuration) -> Result<Arc<Credentials>, CredentialsError> {
        let mut at_hand = self.at_hand.lock().await;
        if let Some(credentials) = at_hand.as_ref().filter(|it| it.is_valid_for(time)) {
            return Ok(Arc::clone(credentials));
        }
        let fresh = self.fetch().await?;
        *at_hand = Some(Arc::clone(&fresh));
        Ok(fresh)
    }

    async fn fetch(&self) -> Result<Arc<Credentials>, CredentialsError> {
        let credentials = self.metadata.role_credentials(&self.role).await?;
        match credentials.expires {
            Some(expired) if !credentials.is_valid_for(SignedDuration::ZERO) => {
                Err(CredentialsError::Expired { role: self.role.clone(), expired })
            }
            _ => Ok(Arc::new(credentials)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_is_shown() {
        let credentials = Credentials {
            key_id: "STS.canary".into(),
            secret: Secret::new("canary-secret"),
            token: Some(Secret::new("canary-token")),
            expires: None,
        };
        let shown = format!("{credentials:?} {:?}", credentials.secret);
        assert!(!shown.contains("canary"), "{shown}");
    }
}
