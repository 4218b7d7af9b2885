//! Database sessions, over connections that the operator declared by name.
//!
//! The host runs a statement only if [`describe`](crate::Hook::describe) asked for it and the
//! operator granted it, as a whole text; what varies is a `?` with a [`Value`]. The guest never sees
//! an address or a password.
//!
//! ```
//! use stillpoint_hook::sql::Connection;
//! use stillpoint_hook::testing::{Answer, FakeHost};
//!
//! let host = FakeHost::new();
//! host.on("SELECT VERSION()").answers(Answer::rows(&["VERSION()"], [["10.11.19-MariaDB".into()]]));
//!
//! let session = Connection::open("main")?;
//! let version: String = session.query("SELECT VERSION()", &[], None)?.first()?.at(0)?;
//! assert_eq!(version, "10.11.19-MariaDB");
//! # Ok::<(), stillpoint_hook::HookError>(())
//! ```

mod rows;
mod value;

use std::time::Duration;

pub use crate::bindings::stillpoint::hook::sql::{
    Column, DbError, Engine, Error, RowSet, ServerInfo, Value,
};
pub use rows::{Row, RowError};
pub use value::FromValue;

use crate::host::{Current, Host, Session, nanoseconds};

/// One session at a database server.
///
/// It is open until it is dropped, and so are its locks: keep it in the hook from `pre_freeze` to
/// `post_thaw`. The host never reconnects behind it.
#[derive(Debug)]
pub struct Connection(<Current as Host>::Session);

impl Connection {
    /// Opens a session to what the operator calls `name`. Bounded by the operator's connect time-out
    /// and by the phase.
    ///
    /// # Errors
    /// [`Error::Denied`] (not granted, or not in this phase), [`Error::Unavailable`] (server down,
    /// refused, wrong credentials), [`Error::Limit`] (too many open), [`Error::Timeout`].
    pub fn open(name: &str) -> Result<Self, Error> {
        Current::open(name).map(Connection)
    }

    /// Engine and version as the server said when the session was opened. No round trip.
    #[must_use]
    pub fn info(&self) -> ServerInfo {
        Session::info(&self.0)
    }

    /// Runs a statement and gives its rows.
    ///
    /// `timeout` is clamped to what is left of the phase, which is also what counts for `None` (or
    /// the operator's limit for the connection, if that is less).
    ///
    /// # Errors
    /// [`Error::Timeout`]: the host has cancelled the statement and **closed the session**; its locks
    /// are being released. [`Error::ConnectionLost`]: the session is gone, with its locks.
    /// [`Error::Database`]: the server's error; the session is open and holds what it held.
    /// [`Error::Denied`]: not granted; the session is unharmed. [`Error::Limit`].
    pub fn query(
        &self,
        statement: &str,
        params: &[Value],
        timeout: Option<Duration>,
    ) -> Result<RowSet, Error> {
        Session::query(&self.0, statement, params, timeout.map(nanoseconds))
    }

    /// Runs a statement without rows; gives the number of affected rows, 0 where the server tells
    /// none. `timeout` as in [`Self::query`].
    ///
    /// # Errors
    /// As [`Self::query`].
    pub fn execute(
        &self,
        statement: &str,
        params: &[Value],
        timeout: Option<Duration>,
    ) -> Result<u64, Error> {
        Session::execute(&self.0, statement, params, timeout.map(nanoseconds))
    }

    /// The server's id of this session, as other sessions see it: the same answer as long as this value
    /// lives. No round trip.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the server has none.
    pub fn session_id(&self) -> Result<String, Error> {
        Session::session_id(&self.0)
    }

    /// Whether this session is still open: the host asks the server by a ping, at most to the end of
    /// the phase.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        Session::is_alive(&self.0)
    }
}

/// The names of the connections that are granted to this hook, sorted.
#[must_use]
pub fn granted() -> Vec<String> {
    Current::granted()
}

impl DbError {
    /// The server's own error code as text: its number, or its SQLSTATE if it has no number.
    #[must_use]
    pub fn code(&self) -> String {
        if self.vendor_code == 0 { self.sqlstate.clone() } else { self.vendor_code.to_string() }
    }
}

impl Error {
    /// The server's error number, if this is an error of the server.
    #[must_use]
    pub fn vendor_code(&self) -> Option<i32> {
        match self {
            Error::Database(error) => Some(error.vendor_code),
            _ => None,
        }
    }

    /// Whether the session is gone with this error, and every lock it held.
    #[must_use]
    pub fn session_is_gone(&self) -> bool {
        matches!(self, Error::Timeout | Error::ConnectionLost(_))
    }
}
