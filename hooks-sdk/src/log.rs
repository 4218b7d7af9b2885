//! Lines for the operator: kept in memory, written out when nothing is frozen or held.
//!
//! ```
//! use stillpoint_hook::{info, warn};
//! # let host = stillpoint_hook::testing::FakeHost::new();
//! let (query, seconds) = (17, 12);
//! info!("waiting for a long query");
//! warn!("query {query} has been running for {seconds} s"; session = query, seconds = seconds);
//! # assert_eq!(host.log()[1].message, "query 17 has been running for 12 s");
//! # assert_eq!(host.log()[1].fields[0], ("session".into(), "17".into()));
//! ```

pub use crate::bindings::stillpoint::hook::log::Level;

use crate::host::{Current, Host};

/// Writes one line. Never blocks, never fails. No secrets. The macros [`trace!`](crate::trace!),
/// [`debug!`](crate::debug!), [`info!`](crate::info!), [`warn!`](crate::warn!) and
/// [`error!`](crate::error!) are the shorter way.
pub fn write(level: Level, message: &str, fields: &[(String, String)]) {
    Current::log(level, message, fields);
}

/// One line at a level: a format text, then `;` and fields if there are any.
#[doc(hidden)]
#[macro_export]
macro_rules! __log {
    ($level:ident, $text:literal $(, $arg:expr)* $(; $($key:ident = $value:expr),+ $(,)?)?) => {
        $crate::log::write(
            $crate::log::Level::$level,
            &::std::format!($text $(, $arg)*),
            &[$($((::std::stringify!($key).into(), ::std::string::ToString::to_string(&$value))),+)?],
        )
    };
}

/// A line that only whoever writes the hook wants. See [`log`](crate::log).
#[macro_export]
macro_rules! trace { ($($line:tt)+) => { $crate::__log!(Trace, $($line)+) }; }
/// A line for finding out why. See [`log`](crate::log).
#[macro_export]
macro_rules! debug { ($($line:tt)+) => { $crate::__log!(Debug, $($line)+) }; }
/// A line that says what goes on. See [`log`](crate::log).
#[macro_export]
macro_rules! info { ($($line:tt)+) => { $crate::__log!(Info, $($line)+) }; }
/// A line about what the operator should look at. See [`log`](crate::log).
#[macro_export]
macro_rules! warn { ($($line:tt)+) => { $crate::__log!(Warn, $($line)+) }; }
/// A line about what went wrong. See [`log`](crate::log).
#[macro_export]
macro_rules! error { ($($line:tt)+) => { $crate::__log!(Error, $($line)+) }; }
