//! What a hook asked of the world in one run, call by call, and what it was answered.

use std::fmt;
use std::time::Duration;

use super::text::short;
use crate::capability::process::{Output, ProcessError};
use crate::capability::sql::{Answer, ServerInfo, SqlError, Value};
use crate::capability::stage::SessionNumber;
use crate::hook::Phase;

/// One call.
#[derive(Clone, Debug)]
pub(super) struct Taped {
    pub(super) phase: Phase,
    /// Which call of its phase, from 0.
    pub(super) nth: usize,
    pub(super) session: Option<SessionNumber>,
    pub(super) what: What,
    /// None while nothing was answered, or if nothing was.
    pub(super) reply: Option<Reply>,
    pub(super) took: Duration,
}

/// What is asked. Connections are called what the hook calls them.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum What {
    Open {
        connection: String,
    },
    Run {
        connection: String,
        statement: String,
        params: Vec<Value>,
    },
    Ping {
        connection: String,
    },
    Program {
        command: String,
        arguments: Vec<String>,
        stdin: Vec<u8>,
    },
    /// Of the hook's state: `kv.set begun`.
    State {
        call: String,
    },
}

/// What is answered.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    Opened {
        id: u64,
        info: ServerInfo,
    },
    Answer(Answer),
    Alive(bool),
    Output(Output),
    Refused(SqlError),
    NoOutput(ProcessError),
    /// State was read or kept.
    Kept,
    /// It was not.
    NotKept(String),
}

impl Reply {
    /// Nothing went wrong.
    pub(super) fn is_good(&self) -> bool {
        match self {
            Reply::Opened { .. } | Reply::Answer(_) | Reply::Kept => true,
            Reply::Alive(alive) => *alive,
            Reply::Output(output) => output.exit_code == Some(0),
            Reply::Refused(_) | Reply::NoOutput(_) | Reply::NotKept(_) => false,
        }
    }
}

impl Taped {
    pub(super) fn is_good(&self) -> bool {
        self.reply.as_ref().is_some_and(Reply::is_good)
    }

    /// What may take something or give it back, as one text: a statement, or a program with its arguments
    /// and the script that it reads, since the same command line may run another script each time.
    pub(super) fn deed(&self) -> Option<String> {
        match &self.what {
            What::Run { statement, .. } => Some(statement.clone()),
            What::Program { command, arguments, stdin } => {
                let line = command_line(command, arguments);
                Some(match stdin.as_slice() {
                    [] => line,
                    script => format!("{line}\n{}", String::from_utf8_lossy(script)),
                })
            }
            _ => None,
        }
    }

    /// The deed for people, who know it by what it `takes` if it is one of many lines of a script.
    pub(super) fn told(&self, takes: &str) -> String {
        match &self.what {
            What::Program { command, arguments, stdin } if !stdin.is_empty() => {
                format!("{}: {takes}", command_line(command, arguments))
            }
            _ => self.deed().unwrap_or_default(),
        }
    }

    /// The statement, if it is one.
    pub(super) fn statement(&self) -> Option<&str> {
        match &self.what {
            What::Run { statement, .. } => Some(statement),
            _ => None,
        }
    }
}

fn command_line(command: &str, arguments: &[String]) -> String {
    [command].into_iter().chain(arguments.iter().map(String::as_str)).collect::<Vec<_>>().join(" ")
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Open { connection } => write!(f, "open `{connection}`"),
            What::Run { statement, .. } => write!(f, "`{}`", short(statement)),
            What::Ping { connection } => write!(f, "is-alive on `{connection}`"),
            What::Program { command, arguments, .. } => {
                write!(f, "program `{}`", short(&command_line(command, arguments)))
            }
            What::State { call } => write!(f, "`{}`", short(call)),
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reply::Opened { id, info } => write!(f, "session {id} of {}", info.version),
            Reply::Answer(answer) if answer.columns.is_empty() => f.write_str("done"),
            Reply::Answer(answer) => match answer.rows.len() {
                1 => f.write_str("1 row"),
                rows => write!(f, "{rows} rows"),
            },
            Reply::Alive(alive) => write!(f, "{alive}"),
            Reply::Output(Output { exit_code: Some(code), .. }) => write!(f, "exit code {code}"),
            Reply::Output(output) => write!(f, "signal {}", output.signal.unwrap_or_default()),
            Reply::Refused(error) => write!(f, "{}", short(&error.to_string())),
            Reply::NoOutput(error) => write!(f, "{}", short(&error.to_string())),
            Reply::Kept => f.write_str("done"),
            Reply::NotKept(why) => f.write_str(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::holds::{HoldRule, Holds, LivesIn, Meaning};
    use super::*;

    /// One command line for everything, as `sqlplus` has it: only its script says what it does.
    fn fed(script: &str) -> Taped {
        let what = What::Program {
            command: "sqlplus".into(),
            arguments: vec!["/".into()],
            stdin: script.into(),
        };
        let (phase, took) = (Phase::PreFreeze, Duration::ZERO);
        Taped { phase, nth: 0, session: None, what, reply: None, took }
    }

    #[test]
    fn what_a_program_takes_is_known_by_the_script_that_it_reads() {
        let rule = HoldRule {
            begin: "alter database begin backup".into(),
            end: vec!["alter database end backup".into()],
            lives_in: LivesIn::Server,
        };
        let holds = Holds::with(&[rule]);
        let meaning = |script| holds.meaning(&fed(script).deed().unwrap_or_default());
        assert_eq!(meaning("SET ECHO OFF\nALTER DATABASE BEGIN BACKUP;\n"), Meaning::Takes(0));
        assert_eq!(meaning("SET ECHO OFF\nALTER DATABASE END BACKUP;\n"), Meaning::Gives(vec![0]));
        assert_eq!(meaning("SELECT '<sp:begin>' FROM v$instance;\n"), Meaning::Changes);

        let told = fed("SET ECHO OFF\nALTER DATABASE BEGIN BACKUP;\n").told("BEGIN BACKUP");
        assert_eq!(told, "sqlplus /: BEGIN BACKUP");
        assert_eq!(fed("").told("BEGIN BACKUP"), "sqlplus /");
    }
}
