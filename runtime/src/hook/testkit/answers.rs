//! What a script answers.

use std::sync::Arc;

use super::script::{Pattern, Script, Scripted, ScriptedReply, Times};
use super::tape::What;
use crate::capability::process::Output;
use crate::capability::sql::Answer;
use crate::hook::Phase;

/// How closely the calls must be those of the script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strictness {
    /// Each in its place, and nothing else.
    Exact,
    /// Whatever is asked is answered as the script answers such a call, in any order; what the script
    /// does not have succeeds, and gives no rows. For runs that go wrong on purpose.
    Lenient,
}

/// The place in a script.
#[derive(Debug)]
pub(super) struct Answers {
    script: Arc<Script>,
    strictness: Strictness,
    /// How often each call of the script was made.
    made: Vec<u32>,
    mismatches: Vec<String>,
}

/// What is answered, and after how long.
pub(super) struct Answered {
    pub(super) reply: ScriptedReply,
    pub(super) delay: Option<std::time::Duration>,
}

impl Answers {
    pub(super) fn new(script: Arc<Script>, strictness: Strictness) -> Self {
        let made = vec![0; script.calls.len()];
        Self { script, strictness, made, mismatches: Vec::new() }
    }

    /// None of its calls was made yet.
    pub(super) fn rewound(&self) -> Self {
        Self::new(Arc::clone(&self.script), self.strictness)
    }

    pub(super) fn script(&self) -> &Script {
        &self.script
    }

    pub(super) fn to(&mut self, phase: Phase, what: &What) -> Answered {
        let found = match self.strictness {
            Strictness::Exact => self.exact(phase, what),
            Strictness::Lenient => self.lenient(phase, what),
        };
        match found {
            Some(index) => {
                self.made[index] += 1;
                let Scripted { reply, delay, .. } = &self.script.calls[index];
                Answered { reply: reply.clone(), delay: *delay }
            }
            None => Answered { reply: usual(what), delay: None },
        }
    }

    /// What was not as the script says: calls that it does not have, and calls that were not made.
    pub(super) fn mismatches(&self) -> Vec<String> {
        let mut all = self.mismatches.clone();
        if self.strictness == Strictness::Exact {
            let missing = self.script.calls.iter().enumerate().filter(|(at, _)| self.is_due(*at));
            all.extend(missing.map(|(_, call)| {
                format!("{} was expected{}, and did not come", described(call), at_line(call))
            }));
        }
        all
    }

    fn is_due(&self, at: usize) -> bool {
        match self.script.calls[at].times {
            Times::Exactly(times) => self.made[at] < times,
            Times::Any => false,
        }
    }

    /// The next one that is due, or one that may come at any time. Sessions may be opened, and asked
    /// whether they are alive, without a word in the script.
    fn exact(&mut self, phase: Phase, what: &What) -> Option<usize> {
        let calls = &self.script.calls;
        let fits = |call: &Scripted| {
            call.call.is_of(what) && call.phase.is_none_or(|wanted| wanted == phase)
        };
        let due = (0..calls.len()).find(|at| self.is_due(*at));
        if let Some(due) = due.filter(|due| fits(&calls[*due])) {
            return Some(due);
        }
        let any = calls.iter().position(|call| call.times == Times::Any && fits(call));
        if any.is_some() {
            return any;
        }
        let scripted = |pattern: fn(&Pattern) -> bool| calls.iter().any(|call| pattern(&call.call));
        let may_be_left_out = match what {
            What::Open { .. } => !scripted(|call| matches!(call, Pattern::Open { .. })),
            What::Ping { .. } => !scripted(|call| matches!(call, Pattern::Ping { .. })),
            _ => false,
        };
        if !may_be_left_out {
            let expected = match due.map(|due| &calls[due]) {
                Some(call) => format!("{}{} was expected", described(call), at_line(call)),
                None => "nothing more was expected".into(),
            };
            self.mismatches.push(format!("{phase}: {what} came where {expected}"));
        }
        None
    }

    /// The first such call that was not made yet, best in the same phase; else the last such call.
    fn lenient(&self, phase: Phase, what: &What) -> Option<usize> {
        let calls = &self.script.calls;
        let such = || {
            (0..calls.len())
                .filter(|at| calls[*at].call.is_of(what) && calls[*at].times != Times::Exactly(0))
        };
        let here = |at: &usize| calls[*at].phase.is_none_or(|wanted| wanted == phase);
        let left = |at: &usize| calls[*at].times == Times::Any || self.is_due(*at);
        such()
            .find(|at| here(at) && left(at))
            .or_else(|| such().rfind(here))
            .or_else(|| such().find(left))
            .or_else(|| such().next_back())
    }
}

/// The answer to what no script speaks of.
fn usual(what: &What) -> ScriptedReply {
    match what {
        What::Open { .. } => ScriptedReply::Opened { id: None },
        // Nobody asks a script for state.
        What::Run { .. } | What::State { .. } => ScriptedReply::Answer(Answer::default()),
        What::Ping { .. } => ScriptedReply::Alive(true),
        What::Program { .. } => {
            ScriptedReply::Output(Output { exit_code: Some(0), ..Output::default() })
        }
    }
}

fn described(call: &Scripted) -> String {
    let phase = call.phase.map_or(String::new(), |phase| format!("{phase}: "));
    let what = match &call.call {
        Pattern::Open { connection } => What::Open { connection: connection.clone() },
        Pattern::Ping { connection } => What::Ping { connection: connection.clone() },
        Pattern::Run { connection, statement, .. } => What::Run {
            connection: connection.clone(),
            statement: statement.clone(),
            params: Vec::new(),
        },
        Pattern::Program { command, arguments, .. } => What::Program {
            command: command.clone(),
            arguments: arguments.clone().unwrap_or_default(),
            stdin: Vec::new(),
        },
    };
    format!("{phase}{what}")
}

fn at_line(call: &Scripted) -> String {
    match call.line {
        0 => String::new(),
        line => format!(" (line {line})"),
    }
}
