//! Small durable state, private to this hook on this machine.
//!
//! For what a fresh instance must know to undo what an earlier one did: what a database ties to its
//! session needs none of it.

pub use crate::bindings::stillpoint::hook::kv::Error;

use crate::host::{Current, Host};

/// What is stored under `key`; `None` if nothing is.
///
/// # Errors
/// [`Error::Denied`], [`Error::Io`].
pub fn get(key: &str) -> Result<Option<Vec<u8>>, Error> {
    Current::kv_get(key)
}

/// Stores `value` under `key` (1 to 128 bytes), in place of what was there.
///
/// # Errors
/// [`Error::Denied`], [`Error::TooLarge`] (the granted bytes), [`Error::Io`].
pub fn set(key: &str, value: &[u8]) -> Result<(), Error> {
    Current::kv_set(key, value)
}

/// Removes `key`; one that is not there is no error.
///
/// # Errors
/// [`Error::Denied`], [`Error::Io`].
pub fn delete(key: &str) -> Result<(), Error> {
    Current::kv_delete(key)
}
