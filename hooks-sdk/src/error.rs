//! From what went wrong at the host to what a hook returns, so that `?` does the right thing.

use crate::hook::{AppError, HookError, SettingsError};
use crate::{kv, process, sql};

impl HookError {
    /// Settings are wrong at `pointer`, a JSON Pointer such as `/lock-wait-timeout-seconds`, or `""`
    /// for the whole of them.
    pub fn invalid_settings(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        HookError::InvalidSettings(SettingsError {
            pointer: pointer.into(),
            message: message.into(),
        })
    }

    /// The application answered with an error; `code` is its own.
    pub fn application(
        code: impl Into<String>,
        message: impl Into<String>,
        retryable: bool,
    ) -> Self {
        HookError::Application(AppError { code: code.into(), message: message.into(), retryable })
    }

    /// What went wrong, without the class.
    #[must_use]
    pub fn message(&self) -> &str {
        match self {
            HookError::InvalidSettings(error) => &error.message,
            HookError::Application(error) => &error.message,
            HookError::NotApplicable(text)
            | HookError::Denied(text)
            | HookError::Busy(text)
            | HookError::Timeout(text)
            | HookError::Internal(text) => text,
        }
    }

    /// The same error with more said, before (`context: message`).
    ///
    /// ```
    /// use stillpoint_hook::HookError;
    /// let error = HookError::Busy("lock wait timeout exceeded".into()).context("FLUSH TABLES");
    /// assert_eq!(error.message(), "FLUSH TABLES: lock wait timeout exceeded");
    /// ```
    #[must_use]
    pub fn context(self, context: &str) -> Self {
        self.map_message(|message| [context, ": ", &message].concat())
    }

    /// The same error with more said, after (`message; more`).
    #[must_use]
    pub fn also(self, more: &str) -> Self {
        self.map_message(|message| [&message, "; ", more].concat())
    }

    fn map_message(mut self, change: impl FnOnce(String) -> String) -> Self {
        let message = match &mut self {
            HookError::InvalidSettings(error) => &mut error.message,
            HookError::Application(error) => &mut error.message,
            HookError::NotApplicable(text)
            | HookError::Denied(text)
            | HookError::Busy(text)
            | HookError::Timeout(text)
            | HookError::Internal(text) => text,
        };
        *message = change(std::mem::take(message));
        self
    }
}

impl From<sql::Error> for HookError {
    /// A server that cannot be reached is an error of the application, not
    /// [`HookError::NotApplicable`]: that it is not there at all is for the hook to decide.
    fn from(error: sql::Error) -> Self {
        match error {
            sql::Error::Denied(text) => HookError::Denied(text),
            sql::Error::Unavailable(text) => HookError::application("unavailable", text, true),
            sql::Error::Timeout => HookError::Timeout(
                "the database did not answer in time; the host cancelled the statement and closed \
                 the session"
                    .into(),
            ),
            sql::Error::ConnectionLost(text) => {
                HookError::application("connection-lost", text, true)
            }
            sql::Error::Database(error) => {
                let retryable = error.sqlstate.starts_with("40");
                HookError::application(error.code(), error.message, retryable)
            }
            sql::Error::Limit(text) => HookError::Internal(["limit: ", &text].concat()),
            sql::Error::Unsupported(text) => HookError::Internal(["unsupported: ", &text].concat()),
            sql::Error::Other(text) => HookError::Internal(text),
        }
    }
}

impl From<sql::RowError> for HookError {
    fn from(error: sql::RowError) -> Self {
        HookError::Internal(error.to_string())
    }
}

impl From<process::Error> for HookError {
    fn from(error: process::Error) -> Self {
        match error {
            process::Error::Denied(text) => HookError::Denied(text),
            process::Error::NotFound(text) => {
                HookError::application("not-found", ["no such program: ", &text].concat(), false)
            }
            process::Error::Timeout(_) => {
                HookError::Timeout("the program did not end in time and was killed".into())
            }
            process::Error::Failed(text) => HookError::application("failed", text, false),
            process::Error::Other(text) => HookError::Internal(text),
        }
    }
}

impl From<kv::Error> for HookError {
    fn from(error: kv::Error) -> Self {
        match error {
            kv::Error::Denied => HookError::Denied(
                "no key-value state is granted: add `kv` to the hook's grant file".into(),
            ),
            kv::Error::TooLarge => {
                HookError::Internal("the granted key-value bytes are used up".into())
            }
            kv::Error::Io(text) | kv::Error::Other(text) => HookError::Internal(text),
        }
    }
}
