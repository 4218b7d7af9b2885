//! `[kv]`: durable state for the hook.

use serde::Deserialize;
use toml::Spanned;

use crate::config::read::{ConfigError, Document};

/// The most that can be granted, in bytes: it is written whole at every change.
pub const MOST_KV_BYTES: u32 = 1 << 20;

/// Durable state that is granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvGrant {
    /// For keys and values together, in bytes; 1 to [`MOST_KV_BYTES`].
    pub bytes: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawKvGrant {
    bytes: Spanned<i64>,
}

impl RawKvGrant {
    pub(super) fn validated(self, document: &Document) -> Result<KvGrant, ConfigError> {
        match u32::try_from(*self.bytes.get_ref()) {
            Ok(bytes) if (1..=MOST_KV_BYTES).contains(&bytes) => Ok(KvGrant { bytes }),
            _ => Err(document.invalid(
                self.bytes.span(),
                format!("`bytes = {}` is not from 1 to {MOST_KV_BYTES}", self.bytes.get_ref()),
            )),
        }
    }
}
