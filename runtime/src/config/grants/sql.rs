//! `[[sql]]`: one granted connection, and what may be sent over it.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use crate::capability::redis::command;
use crate::capability::statement::{Folded, GrantedStatement, ParamType, fold, placeholders};
use crate::config::connections::{Connections, Engine};
use crate::config::read::{ConfigError, Document, Location};

/// One granted connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlGrant {
    /// The connection of `connections.toml`.
    pub target: String,
    /// Where the grant names it.
    pub granted_at: Location,
    /// What may be sent, by folded form.
    pub statements: BTreeMap<Folded, GrantedStatement>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawSqlGrant {
    pub(super) connection: Spanned<String>,
    target: Option<Spanned<String>>,
    statements: Vec<Spanned<RawStatement>>,
}

impl RawSqlGrant {
    pub(super) fn validated(
        self,
        document: &Document,
        connections: &Connections,
    ) -> Result<SqlGrant, ConfigError> {
        let target = self.target.unwrap_or(self.connection);
        let Some(connection) = connections.get(target.get_ref()) else {
            return Err(unknown_connection(&target, document, connections));
        };
        let engine = connection.engine;
        let statements = self
            .statements
            .into_iter()
            .map(|statement| {
                let granted = checked_statement(statement, engine, document)?;
                Ok((fold(&granted.text), granted))
            })
            .collect::<Result<_, ConfigError>>()?;
        Ok(SqlGrant {
            granted_at: document.location(&target.span()),
            target: target.into_inner(),
            statements,
        })
    }
}

fn unknown_connection(
    target: &Spanned<String>,
    document: &Document,
    connections: &Connections,
) -> ConfigError {
    let name = target.get_ref();
    let known: Vec<_> = connections.names().collect();
    let there_are = if known.is_empty() {
        "there are none".into()
    } else {
        format!("there are: {}", known.join(", "))
    };
    document
        .invalid(target.span(), format!("connection `{name}` does not exist; {there_are}"))
        .with_hint(format!(
            "describe [connections.{name}] in {}, or set `target` to one that exists",
            connections.path().display()
        ))
}

fn checked_statement(
    statement: Spanned<RawStatement>,
    engine: Engine,
    document: &Document,
) -> Result<GrantedStatement, ConfigError> {
    let span = statement.span();
    let RawStatement(granted) = statement.into_inner();
    let style = engine.placeholder();
    let wanted = placeholders(&granted.text, style);
    if granted.text.trim().is_empty() {
        return Err(document.invalid(span, "a statement is empty"));
    }
    if engine == Engine::Redis {
        command::check(&granted.text, &granted.params)
            .map_err(|why| document.invalid(span.clone(), why))?;
    }
    if wanted != granted.params.len() {
        return Err(document
            .invalid(
                span,
                format!(
                    "the statement has {wanted} `{style}`, but `params` gives {} types: {}",
                    granted.params.len(),
                    granted.text
                ),
            )
            .with_hint("write { text = \"…\", params = [\"uint\"] } with one type for each parameter: null, bool, int, uint, float, text, binary"));
    }
    Ok(granted)
}

/// A statement in a grant file: a text, or a table with `text` and `params`.
struct RawStatement(GrantedStatement);

impl<'de> Deserialize<'de> for RawStatement {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StatementVisitor)
    }
}

struct StatementVisitor;

impl<'de> Visitor<'de> for StatementVisitor {
    type Value = RawStatement;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a statement, or { text = \"…\", params = [\"…\"] }")
    }

    fn visit_str<E>(self, text: &str) -> Result<RawStatement, E> {
        Ok(RawStatement(GrantedStatement { text: text.to_owned(), params: Vec::new() }))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawStatement, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct WithParams {
            text: String,
            #[serde(default)]
            params: Vec<ParamType>,
        }
        let WithParams { text, params } = WithParams::deserialize(MapAccessDeserializer::new(map))?;
        Ok(RawStatement(GrantedStatement { text, params }))
    }
}
