//! A run that was played, as a script.

use std::collections::BTreeMap;

use super::super::bench::Bench;
use super::super::cycle::Played;
use super::super::tape::{Reply, Taped, What};
use super::{Expected, Pattern, Script, Scripted, ScriptedReply, Stand, Times};
use crate::capability::process::ProcessError;
use crate::capability::sql::SqlError;

impl Script {
    /// What was asked and answered, call by call, and how each phase ended.
    pub(in super::super) fn recorded(bench: &Bench, played: &Played) -> Self {
        let mut connections = BTreeMap::new();
        for taped in &played.tape {
            if let (What::Open { connection }, Some(Reply::Opened { info, .. })) =
                (&taped.what, &taped.reply)
            {
                let stand = Stand { flavour: info.flavour, version: info.version.clone() };
                connections.insert(connection.clone(), stand);
            }
        }
        let failed = played.steps.iter().filter(|step| !step.fresh).filter_map(|step| {
            let failure = step.result.as_ref().err()?;
            Some((step.phase, Expected { fails: Some(failure.kind), ..Expected::default() }))
        });
        Self {
            settings: toml::Table::try_from(bench.settings()).unwrap_or_default(),
            connections,
            expects: failed.collect(),
            calls: played.tape.iter().filter_map(call).collect(),
            ..Self::default()
        }
    }
}

/// Its line in a script; none for state, which is no server's.
fn call(taped: &Taped) -> Option<Scripted> {
    let pattern = match taped.what.clone() {
        What::Open { connection } => Pattern::Open { connection },
        What::Run { connection, statement, params } => {
            Pattern::Run { connection, statement, params: Some(params) }
        }
        What::Ping { connection } => Pattern::Ping { connection },
        What::Program { command, arguments, stdin } => {
            Pattern::Program { command, arguments: Some(arguments), stdin: Some(stdin) }
        }
        What::State { .. } => return None,
    };
    let reply = match taped.reply.clone() {
        None
        | Some(Reply::Refused(SqlError::Timeout))
        | Some(Reply::NoOutput(ProcessError::Timeout(_))) => ScriptedReply::Silence,
        Some(Reply::Opened { id, .. }) => ScriptedReply::Opened { id: Some(id) },
        Some(Reply::Answer(answer)) => ScriptedReply::Answer(answer),
        Some(Reply::Alive(alive)) => ScriptedReply::Alive(alive),
        Some(Reply::Output(output)) => ScriptedReply::Output(output),
        Some(Reply::Refused(SqlError::ConnectionLost(why))) => ScriptedReply::Lost(why),
        Some(Reply::Refused(error)) => ScriptedReply::Error(error),
        Some(Reply::NoOutput(error)) => ScriptedReply::ProgramError(error),
        Some(Reply::Kept | Reply::NotKept(_)) => return None,
    };
    Some(Scripted {
        line: 0,
        phase: Some(taped.phase),
        call: pattern,
        times: Times::Exactly(1),
        delay: None,
        reply,
    })
}
