//! `revoked.toml`: what the operator no longer trusts, whoever signed it and whenever it was installed.
//!
//! ```toml
//! digests = ["sha256:…"]                      # components
//! keys = ["acme-2025", "B6BC6C2F2B05A2C5"]    # names of keys, or better their ids
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use super::error::VettingError;
use crate::config::grants::is_hook_name;
use crate::config::read::{ConfigError, Document, Location};
use crate::hook::digest::Digest;
use crate::hook::store::Signer;

/// What is revoked, and where it says so.
#[derive(Clone, Debug, Default)]
pub struct Revocations {
    digests: BTreeMap<Digest, Location>,
    keys: BTreeMap<String, Location>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct RawRevocations {
    digests: Vec<Spanned<String>>,
    keys: Vec<Spanned<String>>,
}

impl Revocations {
    /// Reads a file; nothing is revoked if it is not there.
    ///
    /// # Errors
    /// If it could have been written by others, or is wrong. Then nothing may be installed or run: what
    /// it was to say is not known.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let document = match Document::read(file) {
            Err(error) if error.is_not_found() => return Ok(Self::default()),
            other => other?,
        };
        let raw: RawRevocations = document.parse()?;
        let mut revocations = Self::default();
        for text in raw.digests {
            let digest = text.get_ref().parse::<Digest>();
            let digest = digest.map_err(|why| document.invalid(text.span(), why))?;
            revocations.digests.insert(digest, document.location(&text.span()));
        }
        for text in raw.keys {
            let key = normal(text.get_ref()).ok_or_else(|| {
                let message = format!(
                    "`{}` is neither a key's id (16 hexadecimal digits) nor a key's name",
                    text.get_ref()
                );
                document.invalid(text.span(), message)
            })?;
            revocations.keys.insert(key, document.location(&text.span()));
        }
        Ok(revocations)
    }

    /// # Errors
    /// [`VettingError::Revoked`].
    pub(crate) fn check_digest(&self, digest: &Digest) -> Result<(), VettingError> {
        let revoked = |location: &Location| VettingError::Revoked {
            what: format!("its digest {digest}"),
            location: location.clone(),
        };
        self.digests.get(digest).map_or(Ok(()), |location| Err(revoked(location)))
    }

    /// A key by the operator's name for it, if he has one, and by its id.
    ///
    /// # Errors
    /// [`VettingError::Revoked`].
    pub(crate) fn check_key(
        &self,
        name: Option<&str>,
        id: impl std::fmt::Display,
    ) -> Result<(), VettingError> {
        let id = id.to_string();
        let named = name.and_then(|name| self.keys.get(&normal(name)?));
        let Some(location) = named.or_else(|| self.keys.get(&id)) else { return Ok(()) };
        let what = match name {
            Some(name) => format!("the key `{name}` ({id}) that signed it"),
            None => format!("the key {id} that signed it"),
        };
        Err(VettingError::Revoked { what, location: location.clone() })
    }

    /// # Errors
    /// [`VettingError::Revoked`], for the component or for who signed it.
    pub(crate) fn check(&self, digest: &Digest, by: Option<&Signer>) -> Result<(), VettingError> {
        self.check_digest(digest)?;
        by.map_or(Ok(()), |signer| self.check_key(Some(&signer.name), &signer.id))
    }
}

/// Ids in upper case, as minisign prints them; names as they are. A name of 16 hexadecimal digits is
/// taken for an id, which revokes more rather than less.
fn normal(key: &str) -> Option<String> {
    if key.len() == 16 && key.chars().all(|c| c.is_ascii_hexdigit()) {
        return Some(key.to_ascii_uppercase());
    }
    is_hook_name(key).then(|| key.to_owned())
}
