//! Small durable state, private to this hook on this machine.
//!
//! For what a fresh instance must know to undo what an earlier one did, also after the agent was
//! killed: keep the intent first, then act; `finish` undoes what it finds. What a database ties to its
//! session needs none of it.
//!
//! What [`set`] acknowledged in `prepare` is on a disk. From `pre_freeze` to the end of the release it
//! is in the machine's memory (tmpfs): the agent's death does not lose it, a reboot does.

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
/// [`Error::Denied`], [`Error::TooLarge`] (the granted bytes), [`Error::Io`]; what was there counts.
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

/// The keys that are there, sorted: by them `finish` on a fresh instance sees what was begun, also by an
/// older version of the hook. Since version 0.1.1 of the contract.
///
/// # Errors
/// [`Error::Denied`], [`Error::Io`].
pub fn keys() -> Result<Vec<String>, Error> {
    Current::kv_keys()
}
