//! What a hook can ask of its host, in one trait with two implementations: the component's imports
//! in wasm, and a scripted host natively. The same hook code runs on both; which one is decided when
//! it is compiled, so that a wasm module holds nothing of the other.

use std::time::Duration;

use crate::bindings::stillpoint::hook as wit;

/// The host of this target.
#[cfg(target_arch = "wasm32")]
pub(crate) type Current = crate::imports::Imports;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) type Current = crate::testing::Scripted;

/// The imports of the contract, function by function. See `wit/` for what each does.
pub(crate) trait Host {
    /// An open database session; dropping it closes the session.
    type Session: Session;

    fn open(name: &str) -> Result<Self::Session, wit::sql::Error>;
    fn granted() -> Vec<String>;

    fn run_program(
        command: &str,
        args: &[String],
        stdin: Option<&[u8]>,
        timeout: Option<u64>,
    ) -> Result<wit::process::Output, wit::process::Error>;

    fn kv_get(key: &str) -> Result<Option<Vec<u8>>, wit::kv::Error>;
    fn kv_set(key: &str, value: &[u8]) -> Result<(), wit::kv::Error>;
    fn kv_delete(key: &str) -> Result<(), wit::kv::Error>;
    fn kv_keys() -> Result<Vec<String>, wit::kv::Error>;

    fn info() -> wit::run::Info;
    fn phase() -> wit::types::Phase;
    fn remaining() -> u64;
    fn cancelled() -> bool;
    fn sleep(nanoseconds: u64);

    fn log(level: wit::log::Level, message: &str, fields: &[(String, String)]);
}

/// One database session of a [`Host`].
pub(crate) trait Session {
    fn info(&self) -> wit::sql::ServerInfo;
    fn query(
        &self,
        statement: &str,
        params: &[wit::sql::Value],
        timeout: Option<u64>,
    ) -> Result<wit::sql::RowSet, wit::sql::Error>;
    fn execute(
        &self,
        statement: &str,
        params: &[wit::sql::Value],
        timeout: Option<u64>,
    ) -> Result<u64, wit::sql::Error>;
    fn session_id(&self) -> Result<String, wit::sql::Error>;
    fn is_alive(&self) -> bool;
}

/// A time-out as the contract wants it; one of more than 584 years is the longest there is.
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
