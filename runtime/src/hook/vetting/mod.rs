//! Whose word a component is installed on: a signature by a key that the operator trusts for hooks of
//! that name, or the operator's own exception. Bad signatures and revocations are never excused.
//!
//! Looked at in three places: before a component is compiled (who signed it, is it revoked), once its
//! name and version are known (may that key sign this name, is this a way back), and at every load (is
//! it revoked by now). A key's expiry counts at the installation only: what was installed in time stays.

mod error;
mod keys;
mod revoked;
mod signature;
mod versions;

use crate::config::read::ConfigError;
use crate::paths::Paths;

use super::digest::Digest;
use super::store::{DetachedSignature, Signer};
pub use error::VettingError;
pub use keys::{TrustedKey, TrustedKeys};
pub use revoked::Revocations;
pub use signature::{KeyError, KeyId, PublicKey, SecretKey, Signature};
pub(super) use versions::Versions;

/// What an operator's files say: whom he trusts, and what he no longer does.
#[derive(Clone, Debug)]
pub struct Vetting {
    keys: TrustedKeys,
    revoked: Revocations,
    today: jiff::civil::Date,
}

/// What the signatures of one component are worth, before its name is known.
#[derive(Debug)]
pub(super) struct Vouched<'a> {
    /// Trusted keys that signed it, each with the signature.
    by: Vec<(&'a TrustedKey, &'a DetachedSignature)>,
    /// Why the other signatures count for nothing.
    objections: Vec<String>,
    keys: &'a TrustedKeys,
}

impl Vetting {
    /// Reads `keys.d` and `revoked.toml`.
    ///
    /// # Errors
    /// If one of them is not trusted or wrong, with file, line and column.
    pub fn load(paths: &Paths) -> Result<Self, ConfigError> {
        Ok(Self {
            keys: TrustedKeys::load(&paths.keys())?,
            revoked: Revocations::load(&paths.revoked())?,
            today: today(),
        })
    }

    /// Whom the operator trusts.
    #[must_use]
    pub fn keys(&self) -> &TrustedKeys {
        &self.keys
    }

    /// Who of those that the operator trusts has signed a component with these signatures. An empty
    /// answer is an error, too: [`VettingError::Untrusted`].
    ///
    /// # Errors
    /// See [`VettingError`].
    pub fn signers<'a>(
        &'a self,
        module: &[u8],
        signatures: &'a [DetachedSignature],
    ) -> Result<Vec<&'a TrustedKey>, VettingError> {
        let vouched = self.vouched(module, signatures)?;
        if vouched.by.is_empty() {
            return Err(vouched.untrusted());
        }
        Ok(vouched.by.iter().map(|(key, _)| *key).collect())
    }

    /// # Errors
    /// [`VettingError::Revoked`], for the component or for who signed it.
    pub(super) fn check(&self, digest: &Digest, by: Option<&Signer>) -> Result<(), VettingError> {
        self.revoked.check(digest, by)
    }

    /// Checks every signature. Fails if the component is revoked, if one signature is damaged or is not
    /// one of this component, or if all that vouch for it are revoked keys.
    pub(super) fn vouched<'a>(
        &'a self,
        module: &[u8],
        signatures: &'a [DetachedSignature],
    ) -> Result<Vouched<'a>, VettingError> {
        self.revoked.check_digest(&Digest::of(module))?;
        let mut vouched = Vouched { by: Vec::new(), objections: Vec::new(), keys: &self.keys };
        let mut revoked = None;
        for signature in signatures {
            let (id, keys) = self.verified(module, signature)?;
            if keys.is_empty() {
                revoked = revoked.or(self.revoked.check_key(None, id).err());
                let objection = format!("it is signed with key {id}, which is not trusted");
                vouched.objections.push(objection);
            }
            // Revoked before expired: an expiry can be excused.
            for key in keys {
                match self.revoked.check_key(Some(key.name()), id) {
                    Err(error) => revoked = Some(error),
                    Ok(()) => match key.in_time(self.today) {
                        Ok(()) => vouched.by.push((key, signature)),
                        Err(objection) => vouched.objections.push(objection),
                    },
                }
            }
        }
        match revoked {
            Some(error) if vouched.by.is_empty() => Err(error),
            _ => Ok(vouched),
        }
    }

    /// The key that made a signature, as it says, and the trusted keys with which it verifies: one, or
    /// more if the operator has it under several names. None if he does not have it at all.
    fn verified(
        &self,
        module: &[u8],
        signature: &DetachedSignature,
    ) -> Result<(KeyId, Vec<&TrustedKey>), VettingError> {
        let bad = |problem| VettingError::BadSignature { from: signature.from.clone(), problem };
        let parsed = Signature::parse(&signature.bytes).map_err(bad)?;
        let (mut keys, mut problem) = (Vec::new(), None);
        for key in self.keys.with_id(parsed.key_id()) {
            match key.public().verify(module, &parsed) {
                Ok(()) => keys.push(key),
                Err(why) => problem = Some(why),
            }
        }
        match problem {
            Some(problem) if keys.is_empty() => Err(bad(problem)),
            _ => Ok((parsed.key_id(), keys)),
        }
    }
}

impl<'a> Vouched<'a> {
    /// Nobody's word counts.
    pub(super) fn by_nobody(&self) -> bool {
        self.by.is_empty()
    }

    /// Who vouches for a hook of this name, and with which signature.
    pub(super) fn for_name(
        mut self,
        name: &str,
    ) -> Result<(Signer, &'a DetachedSignature), VettingError> {
        for (key, signature) in &self.by {
            match key.in_scope(name) {
                Ok(()) => return Ok((key.signer(), signature)),
                Err(objection) => self.objections.push(objection),
            }
        }
        Err(self.untrusted())
    }

    pub(super) fn untrusted(&self) -> VettingError {
        let why = match self.objections.as_slice() {
            [] => "nobody signed it".to_owned(),
            objections => objections.join("; "),
        };
        VettingError::Untrusted { why, keys: self.keys.directory().to_owned() }
    }
}

/// The day in UTC.
fn today() -> jiff::civil::Date {
    jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date()
}

#[cfg(test)]
mod tests;
