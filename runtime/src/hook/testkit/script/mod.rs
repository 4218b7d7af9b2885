//! A script: what a hook is given in a test, which calls are expected of it, and what is answered. One
//! form for what people write and for what a recording is: docs/hook-test.md has it in full.

mod raw;
mod recorded;
mod values;
mod write;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::holds::HoldRule;
use super::tape::What;
use crate::capability::process::Output;
use crate::capability::process::ProcessError;
use crate::capability::sql::{Answer, Flavour, SqlError, Value};
use crate::capability::statement::fold;
use crate::config::read::{ConfigError, Document};
use crate::hook::{HookFailureKind, Outcome, Phase};

/// What a script file says.
#[derive(Clone, Debug, Default)]
pub struct Script {
    pub(super) settings: toml::Table,
    pub(super) connections: BTreeMap<String, Stand>,
    pub(super) outcome: Option<Outcome>,
    pub(super) deadlines: BTreeMap<Phase, Duration>,
    pub(super) expects: BTreeMap<Phase, Expected>,
    pub(super) holds: Vec<HoldRule>,
    pub(super) calls: Vec<Scripted>,
}

/// What stands in for a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stand {
    pub(super) flavour: Flavour,
    pub(super) version: String,
}

/// What a phase must come to; without one it must succeed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Expected {
    /// It fails, and so.
    pub(super) fails: Option<HookFailureKind>,
    /// Its words contain this.
    pub(super) says: Option<String>,
    /// It saves at least this.
    pub(super) saves: BTreeMap<String, toml::Value>,
}

/// One call and what is answered.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scripted {
    /// The line of the file; 0 if there is none.
    pub(super) line: usize,
    pub(super) phase: Option<Phase>,
    pub(super) call: Pattern,
    pub(super) times: Times,
    pub(super) delay: Option<Duration>,
    pub(super) reply: ScriptedReply,
}

/// How often a call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Times {
    /// So often, in its place in the order.
    Exactly(u32),
    /// As often as the hook likes, at any time.
    Any,
}

/// Which call is meant.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Pattern {
    Open { connection: String },
    Run { connection: String, statement: String, params: Option<Vec<Value>> },
    Ping { connection: String },
    Program { command: String, arguments: Option<Vec<String>>, stdin: Option<Vec<u8>> },
}

/// What is answered.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ScriptedReply {
    /// Let in, as this session of the server.
    Opened {
        id: Option<u64>,
    },
    Answer(Answer),
    Alive(bool),
    Output(Output),
    /// An error; a session stays as it is.
    Error(SqlError),
    /// The session is gone.
    Lost(String),
    /// The program gives no result.
    ProgramError(ProcessError),
    /// Nothing, until somebody gives up.
    Silence,
}

impl Script {
    /// Reads a script. Anybody's file will do: it only says what is answered in a test.
    ///
    /// # Errors
    /// With file, line and column.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        raw::parse(&Document::of(path, text))
    }

    /// The same script as text, for [`Script::read`].
    #[must_use]
    pub fn to_text(&self, title: &str) -> String {
        write::text(self, title)
    }
}

impl Pattern {
    pub(super) fn is_of(&self, what: &What) -> bool {
        match (self, what) {
            (Pattern::Open { connection }, What::Open { connection: asked })
            | (Pattern::Ping { connection }, What::Ping { connection: asked }) => {
                connection == asked
            }
            (
                Pattern::Run { connection, statement, params },
                What::Run { connection: asked, statement: said, params: given },
            ) => {
                connection == asked
                    && (statement == said || fold(statement) == fold(said))
                    && params.as_ref().is_none_or(|params| params == given)
            }
            (
                Pattern::Program { command, arguments, stdin },
                What::Program { command: asked, arguments: given, stdin: fed },
            ) => {
                command == asked
                    && arguments.as_ref().is_none_or(|arguments| arguments == given)
                    && stdin.as_ref().is_none_or(|stdin| stdin == fed)
            }
            _ => false,
        }
    }
}
