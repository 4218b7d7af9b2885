//! A script as text, in the form that people write.

use std::fmt::Write as _;

use toml::Value as Toml;

use super::values::written;
use super::{Pattern, Script, Scripted, ScriptedReply, Times};
use crate::capability::process::{Output, ProcessError};
use crate::capability::sql::{Answer, Flavour, SqlError, Value};

/// The whole text.
pub(super) fn text(script: &Script, title: &str) -> String {
    let mut out = format!("# {title}\n");
    if !script.settings.is_empty() {
        out.push_str("\n[settings]\n");
        for (key, value) in &script.settings {
            let _ = writeln!(out, "{} = {value}", quoted_key(key));
        }
    }
    for (name, stand) in &script.connections {
        let server = match stand.flavour {
            Flavour::Mariadb => "mariadb",
            Flavour::Mysql => "mysql",
            Flavour::Postgresql => "postgresql",
            Flavour::Redis => "redis",
        };
        let _ = writeln!(out, "\n[connections.{}]", quoted_key(name));
        entry(&mut out, "server", server.into());
        entry(&mut out, "version", stand.version.as_str().into());
    }
    let mut phase = None;
    for call in &script.calls {
        if call.phase != phase {
            phase = call.phase;
            if let Some(phase) = phase {
                let _ = writeln!(out, "\n# {phase}");
            }
        }
        out.push_str("\n[[calls]]\n");
        one(&mut out, call);
    }
    out
}

fn one(out: &mut String, call: &Scripted) {
    if let Some(phase) = call.phase {
        entry(out, "phase", phase.to_string().into());
    }
    match &call.call {
        Pattern::Open { connection } => entry(out, "open", connection.as_str().into()),
        Pattern::Ping { connection } => entry(out, "on", connection.as_str().into()),
        Pattern::Run { connection, statement, params } => {
            entry(out, "on", connection.as_str().into());
            entry(out, "sql", statement.as_str().into());
            if let Some(params) = params.as_ref().filter(|params| !params.is_empty()) {
                entry(out, "params", list(params));
            }
        }
        Pattern::Program { command, arguments, stdin } => {
            entry(out, "program", command.as_str().into());
            if let Some(arguments) = arguments {
                entry(out, "arguments", arguments.clone().into());
            }
            if let Some(stdin) = stdin.as_ref().filter(|stdin| !stdin.is_empty()) {
                entry(out, "stdin", lossy(stdin));
            }
        }
    }
    match call.times {
        Times::Exactly(1) => {}
        Times::Exactly(times) => entry(out, "times", i64::from(times).into()),
        Times::Any => entry(out, "times", "any".into()),
    }
    if let Some(delay) = call.delay {
        entry(out, "delay", format!("{}ms", delay.as_millis()).into());
    }
    reply(out, &call.reply);
}

fn reply(out: &mut String, reply: &ScriptedReply) {
    match reply {
        ScriptedReply::Opened { id } => {
            if let Some(id) = id.and_then(|id| i64::try_from(id).ok()) {
                entry(out, "id", id.into());
            }
        }
        ScriptedReply::Answer(answer) => rows(out, answer),
        ScriptedReply::Alive(alive) => entry(out, "alive", (*alive).into()),
        ScriptedReply::Output(output) => program(out, output),
        ScriptedReply::Error(error) => sql_error(out, error),
        ScriptedReply::Lost(why) => entry(out, "lost", why.as_str().into()),
        ScriptedReply::ProgramError(error) => program_error(out, error),
        ScriptedReply::Silence => entry(out, "silent", true.into()),
    }
}

fn rows(out: &mut String, answer: &Answer) {
    if !answer.columns.is_empty() {
        let columns = answer.columns.iter().map(|column| match column.db_type.as_str() {
            "" => Toml::from(column.name.as_str()),
            db_type => Toml::Table(
                [("name", column.name.as_str()), ("type", db_type)]
                    .into_iter()
                    .map(|(key, text)| (key.to_owned(), text.into()))
                    .collect(),
            ),
        });
        entry(out, "columns", Toml::Array(columns.collect()));
        match answer.rows.as_slice() {
            [] => {}
            [row] => entry(out, "rows", Toml::Array(vec![list(row)])),
            rows => {
                out.push_str("rows = [\n");
                for row in rows {
                    let _ = writeln!(out, "    {},", list(row));
                }
                out.push_str("]\n");
            }
        }
    }
    if answer.affected != 0 {
        entry(out, "affected", i64::try_from(answer.affected).unwrap_or(i64::MAX).into());
    }
    if answer.truncated {
        entry(out, "truncated", true.into());
    }
}

fn program(out: &mut String, output: &Output) {
    if let Some(code) = output.exit_code {
        entry(out, "exit-code", i64::from(code).into());
    }
    if let Some(signal) = output.signal {
        entry(out, "signal", i64::from(signal).into());
    }
    for (key, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
        if !bytes.is_empty() {
            entry(out, key, lossy(bytes));
        }
    }
    if output.truncated {
        entry(out, "truncated", true.into());
    }
}

fn sql_error(out: &mut String, error: &SqlError) {
    let (kind, words) = match error {
        SqlError::Database { sqlstate, vendor_code, message } => {
            let mut table = toml::Table::new();
            table.insert("code".into(), i64::from(*vendor_code).into());
            table.insert("state".into(), sqlstate.as_str().into());
            table.insert("message".into(), message.as_str().into());
            return entry(out, "error", Toml::Table(table));
        }
        SqlError::Timeout => return entry(out, "silent", true.into()),
        SqlError::ConnectionLost(why) => return entry(out, "lost", why.as_str().into()),
        SqlError::Denied(words) => ("denied", words),
        SqlError::Unavailable(words) => ("unavailable", words),
        SqlError::Limit(words) => ("limit", words),
        SqlError::Unsupported(words) => ("unsupported", words),
        SqlError::Other(words) => ("other", words),
    };
    error_of(out, kind, words);
}

fn program_error(out: &mut String, error: &ProcessError) {
    match error {
        ProcessError::Denied(words) => error_of(out, "denied", words),
        ProcessError::NotFound(words) => error_of(out, "not-found", words),
        ProcessError::Failed(words) => error_of(out, "failed", words),
        ProcessError::Other(words) => error_of(out, "other", words),
        ProcessError::Timeout(_) => entry(out, "silent", true.into()),
    }
}

fn error_of(out: &mut String, kind: &str, words: &str) {
    let table = [(kind.to_owned(), words.into())].into_iter().collect();
    entry(out, "error", Toml::Table(table));
}

fn list(values: &[Value]) -> Toml {
    Toml::Array(values.iter().map(written).collect())
}

fn lossy(bytes: &[u8]) -> Toml {
    Toml::String(String::from_utf8_lossy(bytes).into_owned())
}

fn entry(out: &mut String, key: &str, value: Toml) {
    let _ = writeln!(out, "{key} = {value}");
}

fn quoted_key(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    match !key.is_empty() && key.chars().all(bare) {
        true => key.to_owned(),
        false => Toml::String(key.to_owned()).to_string(),
    }
}
