//! What goes wrong: in which call, before or after its effect, and what the client sees of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Something that goes wrong.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fault {
    /// `CreateSnapshotGroup`, …; `*` for each of ECS. For the metadata service `metadata:token`,
    /// `metadata:roles`, `metadata:role`, `metadata:instance-id`, …; `metadata:*` for each of it.
    pub action: String,
    /// The first call that it happens in, counted from 1 since the scenario was last set or changed.
    pub first_call: u32,
    /// In how many calls it happens; in all that follow if absent.
    pub calls: Option<u32>,
    /// Waits before the call takes effect. It takes effect even if the client has left.
    pub delay_before_ms: u64,
    /// Waits after the effect, before the answer.
    pub delay_after_ms: u64,
    /// The role's credentials expire when the call arrives.
    pub expire_credentials: bool,
    /// Answered instead of doing anything.
    pub error: Option<ErrorAnswer>,
    /// Answered with a redirect to this address instead of doing anything.
    pub redirect: Option<String>,
    /// Happens to the connection.
    pub connection: Option<ConnectionFault>,
}

impl Default for Fault {
    fn default() -> Self {
        Self {
            action: "*".to_owned(),
            first_call: 1,
            calls: None,
            delay_before_ms: 0,
            delay_after_ms: 0,
            expire_credentials: false,
            error: None,
            redirect: None,
            connection: None,
        }
    }
}

/// An error of the service.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ErrorAnswer {
    /// `Throttling.User`, …
    pub code: String,
    /// HTTP status; the documented one of the code if absent.
    pub status: Option<u16>,
    /// The documented one of the code if absent.
    pub message: Option<String>,
    /// Header `x-acs-retry-after`, in milliseconds.
    pub retry_after_ms: Option<u64>,
}

/// What can happen to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConnectionFault {
    /// RST, and nothing took effect.
    ResetBefore,
    /// RST, and the call took effect.
    ResetAfter,
    /// Closed without an answer, and nothing took effect.
    CloseBefore,
    /// Closed without an answer, and the call took effect.
    CloseAfter,
    /// Half of the answer's body, then closed.
    Truncate,
    /// No answer, no effect; the connection stays open.
    HangBefore,
    /// No answer; the call took effect; the connection stays open.
    HangAfter,
}

impl ConnectionFault {
    /// Whether the call takes effect.
    #[must_use]
    pub fn has_effect(self) -> bool {
        use ConnectionFault::{CloseBefore, HangBefore, ResetBefore};
        !matches!(self, ResetBefore | CloseBefore | HangBefore)
    }
}

impl Fault {
    /// In every call of this action; nothing goes wrong yet.
    #[must_use]
    pub fn on(action: impl Into<String>) -> Self {
        Self { action: action.into(), ..Self::default() }
    }

    /// In the call of this number only.
    #[must_use]
    pub fn call(mut self, number: u32) -> Self {
        self.first_call = number;
        self.calls = Some(1);
        self
    }

    /// In so many calls only, from the first.
    #[must_use]
    pub fn times(mut self, calls: u32) -> Self {
        self.calls = Some(calls);
        self
    }

    /// Waits before the effect.
    #[must_use]
    pub fn delay_before(mut self, time: Duration) -> Self {
        self.delay_before_ms = millis(time);
        self
    }

    /// Waits after the effect.
    #[must_use]
    pub fn delay_after(mut self, time: Duration) -> Self {
        self.delay_after_ms = millis(time);
        self
    }

    /// Answers with this error, in its documented status and message.
    #[must_use]
    pub fn error(mut self, code: impl Into<String>) -> Self {
        self.error = Some(ErrorAnswer { code: code.into(), ..ErrorAnswer::default() });
        self
    }

    /// Answers with this error and status.
    #[must_use]
    pub fn error_with_status(mut self, code: impl Into<String>, status: u16) -> Self {
        let code = code.into();
        self.error = Some(ErrorAnswer { code, status: Some(status), ..ErrorAnswer::default() });
        self
    }

    /// Asks the client, with the error, to come back after this time.
    #[must_use]
    pub fn retry_after(mut self, time: Duration) -> Self {
        if let Some(error) = &mut self.error {
            error.retry_after_ms = Some(millis(time));
        }
        self
    }

    /// The role's credentials expire when the call arrives.
    #[must_use]
    pub fn expire_credentials(mut self) -> Self {
        self.expire_credentials = true;
        self
    }

    /// Does this to the connection.
    #[must_use]
    pub fn connection(mut self, fault: ConnectionFault) -> Self {
        self.connection = Some(fault);
        self
    }

    /// Sends the client elsewhere.
    #[must_use]
    pub fn redirect(mut self, location: impl Into<String>) -> Self {
        self.redirect = Some(location.into());
        self
    }

    /// Whether it happens in call `number` of `action`.
    pub(crate) fn happens_in(&self, action: &str, number: u32) -> bool {
        let named = match self.action.as_str() {
            "*" => !action.starts_with("metadata:"),
            "metadata:*" => action.starts_with("metadata:"),
            name => name == action,
        };
        let end = self.calls.map_or(u32::MAX, |calls| self.first_call.saturating_add(calls));
        named && (self.first_call..end).contains(&number)
    }

    /// A few words for the log.
    pub(crate) fn summary(&self) -> String {
        let mut words = Vec::new();
        if self.delay_before_ms > 0 {
            words.push(format!("{} ms before", self.delay_before_ms));
        }
        if self.delay_after_ms > 0 {
            words.push(format!("{} ms after", self.delay_after_ms));
        }
        if self.expire_credentials {
            words.push("credentials expire".to_owned());
        }
        words.extend(self.error.as_ref().map(|error| error.code.clone()));
        words.extend(self.redirect.as_ref().map(|_| "redirect".to_owned()));
        words.extend(self.connection.map(|connection| format!("{connection:?}")));
        words.join(", ")
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
