//! The text of a script, and what is wrong with it: every error has its line and column.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::super::holds::{HoldRule, LivesIn};
use super::values;
use super::{Expected, Pattern, Script, Scripted, ScriptedReply, Stand, Times};
use crate::capability::process::{Output, ProcessError};
use crate::capability::sql::{Answer, Column, Flavour, SqlError, Value};
use crate::config::read::{ConfigError, Document, parse_duration};
use crate::hook::{HookFailureKind, Outcome, Phase};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawScript {
    #[serde(default)]
    settings: toml::Table,
    #[serde(default)]
    connections: BTreeMap<String, RawStand>,
    outcome: Option<RawOutcome>,
    #[serde(default)]
    deadlines: BTreeMap<RawPhase, Spanned<String>>,
    #[serde(default)]
    expect: BTreeMap<RawPhase, RawExpected>,
    #[serde(default)]
    holds: Vec<RawHold>,
    #[serde(default)]
    calls: Vec<Spanned<RawCall>>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RawPhase {
    Prepare,
    PreFreeze,
    Confirm,
    PostThaw,
    Finish,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RawOutcome {
    Captured,
    Failed,
    Aborted,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStand {
    server: RawServer,
    version: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RawServer {
    Mariadb,
    Mysql,
    Postgresql,
    Redis,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawExpected {
    fails: Option<RawKind>,
    says: Option<String>,
    #[serde(default)]
    saves: BTreeMap<String, toml::Value>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RawKind {
    InvalidSettings,
    NotApplicable,
    Denied,
    Busy,
    Timeout,
    Application,
    Internal,
    Limit,
    Trapped,
    InstanceGone,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawHold {
    begin: String,
    end: Vec<String>,
    #[serde(default)]
    lives_in: RawLivesIn,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RawLivesIn {
    #[default]
    Session,
    Server,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawCall {
    phase: Option<RawPhase>,
    // Which call.
    open: Option<String>,
    on: Option<String>,
    sql: Option<String>,
    params: Option<Vec<toml::Value>>,
    program: Option<String>,
    arguments: Option<Vec<String>>,
    stdin: Option<String>,
    // How often, and when.
    times: Option<RawTimes>,
    delay: Option<Spanned<String>>,
    // What is answered.
    id: Option<u64>,
    columns: Option<Vec<RawColumn>>,
    rows: Option<Vec<Vec<toml::Value>>>,
    #[serde(default)]
    truncated: bool,
    affected: Option<u64>,
    alive: Option<bool>,
    exit_code: Option<i32>,
    signal: Option<i32>,
    stdout: Option<String>,
    stderr: Option<String>,
    error: Option<RawError>,
    lost: Option<String>,
    #[serde(default)]
    silent: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawTimes {
    Number(u32),
    Word(String),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawColumn {
    Name(String),
    Typed { name: String, r#type: String },
}

/// `{ code = 1205, state = "HY000", message = "…" }`, or another kind by its name: `{ unavailable = "…" }`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawError {
    code: Option<i32>,
    #[serde(default)]
    state: String,
    message: Option<String>,
    denied: Option<String>,
    unavailable: Option<String>,
    limit: Option<String>,
    unsupported: Option<String>,
    other: Option<String>,
    #[serde(rename = "not-found")]
    not_found: Option<String>,
    failed: Option<String>,
}

/// # Errors
/// With line and column.
pub(super) fn parse(document: &Document) -> Result<Script, ConfigError> {
    let raw: RawScript = document.parse()?;
    let deadlines = raw.deadlines.into_iter().map(|(phase, text)| {
        let time =
            parse_duration(text.get_ref()).map_err(|why| document.invalid(text.span(), why))?;
        Ok((phase.into(), time))
    });
    let calls = raw.calls.into_iter().map(|call| {
        let span = call.span();
        let line = document.location(&span).line;
        scripted(call.into_inner(), line, document).map_err(|wrong| match wrong {
            Wrong::Config(error) => error,
            Wrong::Words(words) => document.invalid(span, words),
        })
    });
    Ok(Script {
        settings: raw.settings,
        connections: raw.connections.into_iter().map(|(name, raw)| (name, raw.into())).collect(),
        outcome: raw.outcome.map(Into::into),
        deadlines: deadlines.collect::<Result<_, ConfigError>>()?,
        expects: raw.expect.into_iter().map(|(phase, raw)| (phase.into(), raw.into())).collect(),
        holds: raw.holds.into_iter().map(Into::into).collect(),
        calls: calls.collect::<Result<_, ConfigError>>()?,
    })
}

enum Wrong {
    Config(ConfigError),
    Words(String),
}

impl From<String> for Wrong {
    fn from(words: String) -> Self {
        Wrong::Words(words)
    }
}

impl From<&str> for Wrong {
    fn from(words: &str) -> Self {
        Wrong::Words(words.to_owned())
    }
}

fn scripted(raw: RawCall, line: usize, document: &Document) -> Result<Scripted, Wrong> {
    let call = pattern(&raw)?;
    let delay = match &raw.delay {
        None => None,
        Some(text) => Some(
            parse_duration(text.get_ref())
                .map_err(|why| Wrong::Config(document.invalid(text.span(), why)))?,
        ),
    };
    let times = match &raw.times {
        None => Times::Exactly(1),
        Some(RawTimes::Number(number)) => Times::Exactly(*number),
        Some(RawTimes::Word(word)) if word == "any" => Times::Any,
        Some(RawTimes::Word(word)) => {
            return Err(format!("times = \"{word}\" is neither a number nor \"any\"").into());
        }
    };
    let reply = reply(&call, &raw)?;
    Ok(Scripted { line, phase: raw.phase.map(Into::into), call, times, delay, reply })
}

fn pattern(raw: &RawCall) -> Result<Pattern, Wrong> {
    match (&raw.open, &raw.on, &raw.sql, &raw.program) {
        (Some(connection), None, None, None) => {
            Ok(Pattern::Open { connection: connection.clone() })
        }
        (None, Some(connection), Some(statement), None) => Ok(Pattern::Run {
            connection: connection.clone(),
            statement: statement.clone(),
            params: raw.params.as_ref().map(|params| all(params)).transpose()?,
        }),
        (None, Some(connection), None, None) if raw.alive.is_some() => {
            Ok(Pattern::Ping { connection: connection.clone() })
        }
        (None, None, None, Some(command)) => Ok(Pattern::Program {
            command: command.clone(),
            arguments: raw.arguments.clone(),
            stdin: raw.stdin.as_ref().map(|text| text.clone().into_bytes()),
        }),
        _ => Err("it is not one call: write open = \"CONNECTION\", or on = \"CONNECTION\" with sql = \"…\" or alive = true, or program = \"COMMAND\"".into()),
    }
}

fn all(values: &[toml::Value]) -> Result<Vec<Value>, Wrong> {
    Ok(values.iter().map(values::read).collect::<Result<_, String>>()?)
}

fn reply(call: &Pattern, raw: &RawCall) -> Result<ScriptedReply, Wrong> {
    if raw.silent {
        return Ok(ScriptedReply::Silence);
    }
    if let Some(why) = &raw.lost {
        return Ok(ScriptedReply::Lost(why.clone()));
    }
    if let Some(error) = &raw.error {
        return Ok(match call {
            Pattern::Program { .. } => ScriptedReply::ProgramError(program_error(error)?),
            _ => ScriptedReply::Error(sql_error(error)?),
        });
    }
    Ok(match call {
        Pattern::Open { .. } => ScriptedReply::Opened { id: raw.id },
        Pattern::Ping { .. } => ScriptedReply::Alive(raw.alive.unwrap_or(true)),
        Pattern::Run { .. } => ScriptedReply::Answer(answer(raw)?),
        Pattern::Program { .. } => ScriptedReply::Output(Output {
            exit_code: raw.exit_code.or_else(|| raw.signal.is_none().then_some(0)),
            signal: raw.signal,
            stdout: raw.stdout.clone().unwrap_or_default().into_bytes(),
            stderr: raw.stderr.clone().unwrap_or_default().into_bytes(),
            truncated: raw.truncated,
        }),
    })
}

fn answer(raw: &RawCall) -> Result<Answer, Wrong> {
    let columns: Vec<Column> = raw
        .columns
        .iter()
        .flatten()
        .map(|column| match column {
            RawColumn::Name(name) => Column { name: name.clone(), db_type: String::new() },
            RawColumn::Typed { name, r#type } => {
                Column { name: name.clone(), db_type: r#type.clone() }
            }
        })
        .collect();
    let rows = raw.rows.iter().flatten().map(|row| {
        let row = all(row)?;
        match row.len() == columns.len() {
            true => Ok(row),
            false => Err(Wrong::from(format!(
                "a row has {} values, and there are {} columns",
                row.len(),
                columns.len()
            ))),
        }
    });
    Ok(Answer {
        rows: rows.collect::<Result<_, Wrong>>()?,
        columns,
        truncated: raw.truncated,
        affected: raw.affected.unwrap_or(0),
    })
}

fn sql_error(raw: &RawError) -> Result<SqlError, Wrong> {
    let said = |text: &Option<String>| text.clone();
    if let Some(code) = raw.code {
        return Ok(SqlError::Database {
            sqlstate: raw.state.clone(),
            vendor_code: code,
            message: said(&raw.message).unwrap_or_else(|| "the script says so".into()),
        });
    }
    None.or_else(|| said(&raw.denied).map(SqlError::Denied))
        .or_else(|| said(&raw.unavailable).map(SqlError::Unavailable))
        .or_else(|| said(&raw.limit).map(SqlError::Limit))
        .or_else(|| said(&raw.unsupported).map(SqlError::Unsupported))
        .or_else(|| said(&raw.other).map(SqlError::Other))
        .or_else(|| {
            let (sqlstate, message) = (raw.state.clone(), said(&raw.message)?);
            Some(SqlError::Database { sqlstate, vendor_code: 0, message })
        })
        .ok_or_else(|| "error says nothing: write { code = 1205, state = \"HY000\", message = \"…\" }, or one of unavailable, denied, limit, unsupported, other".into())
}

fn program_error(raw: &RawError) -> Result<ProcessError, Wrong> {
    let said = |text: &Option<String>| text.clone();
    None.or_else(|| said(&raw.denied).map(ProcessError::Denied))
        .or_else(|| said(&raw.not_found).map(ProcessError::NotFound))
        .or_else(|| said(&raw.failed).map(ProcessError::Failed))
        .or_else(|| said(&raw.other).map(ProcessError::Other))
        .ok_or_else(|| "error says nothing: write one of not-found, failed, denied, other".into())
}

impl From<RawPhase> for Phase {
    fn from(raw: RawPhase) -> Self {
        match raw {
            RawPhase::Prepare => Phase::Prepare,
            RawPhase::PreFreeze => Phase::PreFreeze,
            RawPhase::Confirm => Phase::Confirm,
            RawPhase::PostThaw => Phase::PostThaw,
            RawPhase::Finish => Phase::Finish,
        }
    }
}

impl From<RawOutcome> for Outcome {
    fn from(raw: RawOutcome) -> Self {
        match raw {
            RawOutcome::Captured => Outcome::Captured,
            RawOutcome::Failed => Outcome::Failed,
            RawOutcome::Aborted => Outcome::Aborted,
        }
    }
}

impl From<RawStand> for Stand {
    fn from(raw: RawStand) -> Self {
        let flavour = match raw.server {
            RawServer::Mariadb => Flavour::Mariadb,
            RawServer::Mysql => Flavour::Mysql,
            RawServer::Postgresql => Flavour::Postgresql,
            RawServer::Redis => Flavour::Redis,
        };
        let version =
            raw.version.unwrap_or_else(|| super::super::world::usual_version(flavour).into());
        Self { flavour, version }
    }
}

impl From<RawExpected> for Expected {
    fn from(raw: RawExpected) -> Self {
        let fails = raw.fails.map(|kind| match kind {
            RawKind::InvalidSettings => HookFailureKind::InvalidSettings,
            RawKind::NotApplicable => HookFailureKind::NotApplicable,
            RawKind::Denied => HookFailureKind::Denied,
            RawKind::Busy => HookFailureKind::Busy,
            RawKind::Timeout => HookFailureKind::Timeout,
            RawKind::Application => HookFailureKind::Application,
            RawKind::Internal => HookFailureKind::Internal,
            RawKind::Limit => HookFailureKind::Limit,
            RawKind::Trapped => HookFailureKind::Trapped,
            RawKind::InstanceGone => HookFailureKind::InstanceGone,
        });
        Self { fails, says: raw.says, saves: raw.saves }
    }
}

impl From<RawHold> for HoldRule {
    fn from(raw: RawHold) -> Self {
        let lives_in = match raw.lives_in {
            RawLivesIn::Session => LivesIn::Session,
            RawLivesIn::Server => LivesIn::Server,
        };
        Self { begin: raw.begin, end: raw.end, lives_in }
    }
}
