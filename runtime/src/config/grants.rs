//! `hooks.d/<name>.toml`: what the operator grants to one hook, and how it is run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::de::{MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use super::connections::Connections;
use super::read::{ConfigError, Document, Location};
use crate::capability::statement::{Folded, GrantedStatement, ParamType, fold, placeholders};
use crate::hook::digest::Digest;
use crate::paths::Paths;

/// What the operator says about one hook. The file's name is the hook's name.
#[derive(Clone, Debug, PartialEq)]
pub struct HookGrant {
    /// The operator's name for the hook: the grant file's name without `.toml`.
    pub name: String,
    /// The grant file.
    pub file: PathBuf,
    /// The component that runs.
    pub module: Digest,
    /// What a failure does to the run.
    pub on_failure: OnFailure,
    /// Hooks that must be quiesced before this one.
    pub after: Vec<String>,
    /// Given to the hook as JSON.
    pub settings: serde_json::Value,
    /// Where each setting is, by its key.
    pub settings_at: BTreeMap<String, Location>,
    /// Granted connections, by the name that the hook asks for.
    pub sql: BTreeMap<String, SqlGrant>,
    /// Bounds.
    pub limits: Limits,
}

/// What a hook's failure before the freeze does to the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// No snapshot.
    #[default]
    Abort,
    /// A snapshot at a lower level.
    Lower,
    /// As if the hook were not there, if its application is not there; any other failure aborts.
    Skip,
}

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

/// Bounds for one hook in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Limits {
    /// Memory of an instance, in bytes; default 64 MiB.
    pub memory_bytes: usize,
    /// Rows of one answer; default 10 000. More are cut off, and the hook is told.
    pub rows: usize,
    /// Bytes of one answer; default 1 MiB.
    pub answer_bytes: usize,
    /// Sessions open at the same time; default 4.
    pub connections: usize,
    /// Statements in one run; default 10 000.
    pub statements: usize,
    /// Bytes of log kept in memory; default 64 KiB.
    pub log_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 64 << 20,
            rows: 10_000,
            answer_bytes: 1 << 20,
            connections: 4,
            statements: 10_000,
            log_bytes: 64 << 10,
        }
    }
}

/// Reads every grant file, and checks each against the connections and the others.
///
/// # Errors
/// The first thing that is wrong, with file, line and column.
pub fn load_grants(
    paths: &Paths,
    connections: &Connections,
) -> Result<Vec<HookGrant>, ConfigError> {
    let mut grants = Vec::new();
    let mut documents = Vec::new();
    for file in grant_files(paths)? {
        let document = Document::read(&file)?;
        let (grant, after) = HookGrant::parse(&document, connections)?;
        documents.push((document, after));
        grants.push(grant);
    }
    check_order(&grants, &documents)?;
    Ok(grants)
}

/// Every `*.toml` in `hooks.d`, sorted; none if there is no such directory.
///
/// # Errors
/// If the directory cannot be read.
pub(crate) fn grant_files(paths: &Paths) -> Result<Vec<PathBuf>, ConfigError> {
    let directory = paths.grants();
    let unreadable = |source| ConfigError::Unreadable { path: directory.clone(), source };
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(unreadable)?,
    };
    let mut files = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(unreadable)?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    Ok(files)
}

impl HookGrant {
    /// Reads one grant file and checks it against the connections.
    ///
    /// # Errors
    /// With file, line and column.
    pub fn load(file: &Path, connections: &Connections) -> Result<Self, ConfigError> {
        Ok(Self::parse(&Document::read(file)?, connections)?.0)
    }

    fn parse(
        document: &Document,
        connections: &Connections,
    ) -> Result<(Self, Vec<Spanned<String>>), ConfigError> {
        let raw: RawGrant = document.parse()?;
        let name = hook_name(document)?;
        let module = raw
            .module
            .get_ref()
            .parse()
            .map_err(|why: String| document.invalid(raw.module.span(), why))?;
        let mut sql = BTreeMap::new();
        for section in raw.sql {
            let asked = section.connection.clone();
            let grant = section.validated(document, connections)?;
            if sql.insert(asked.get_ref().clone(), grant).is_some() {
                return Err(document.invalid(
                    asked.span(),
                    format!("connection `{}` is granted twice", asked.get_ref()),
                ));
            }
        }
        check_limits(&raw.limits, document)?;
        let settings_at = raw
            .settings
            .keys()
            .map(|key| (key.get_ref().clone(), document.location(&key.span())))
            .collect();
        let settings = raw.settings.into_iter();
        let settings = settings.map(|(key, value)| (key.into_inner(), settings_as_json(value)));
        let grant = Self {
            name,
            file: document.path().to_owned(),
            module,
            on_failure: raw.on_failure,
            after: raw.after.iter().map(|name| name.get_ref().clone()).collect(),
            settings: settings.collect(),
            settings_at,
            sql,
            limits: raw.limits.into_inner(),
        };
        Ok((grant, raw.after))
    }
}

/// The file's name without `.toml`, which names the hook everywhere.
fn hook_name(document: &Document) -> Result<String, ConfigError> {
    let name = document.path().file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    if is_hook_name(name) {
        return Ok(name.to_owned());
    }
    Err(document.invalid(0..0, format!("`{name}` cannot be a hook's name")).with_hint(
        "name the file with lower-case letters, digits, `-`, `_` and `.`, at most 64 of them",
    ))
}

/// Lower-case letters, digits, `-`, `_`, `.`; begins with a letter or digit; at most 64 characters.
pub(crate) fn is_hook_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    name.len() <= 64
        && name.chars().all(allowed)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
}

fn check_limits(limits: &Spanned<Limits>, document: &Document) -> Result<(), ConfigError> {
    let Limits { memory_bytes, rows, answer_bytes, connections, .. } = *limits.get_ref();
    for (name, value, most) in [
        ("memory-bytes", memory_bytes, 1 << 30),
        ("rows", rows, 1_000_000),
        ("answer-bytes", answer_bytes, 64 << 20),
        ("connections", connections, 64),
    ] {
        if value == 0 || value > most {
            return Err(document
                .invalid(limits.span(), format!("`{name} = {value}` is not from 1 to {most}")));
        }
    }
    Ok(())
}

fn check_order(
    grants: &[HookGrant],
    documents: &[(Document, Vec<Spanned<String>>)],
) -> Result<(), ConfigError> {
    let names: BTreeSet<&str> = grants.iter().map(|grant| grant.name.as_str()).collect();
    for (document, after) in documents {
        if let Some(unknown) = after.iter().find(|name| !names.contains(name.get_ref().as_str())) {
            let known = names.iter().copied().collect::<Vec<_>>().join(", ");
            return Err(document.invalid(
                unknown.span(),
                format!("there is no hook `{}`; there are: {known}", unknown.get_ref()),
            ));
        }
    }
    let mut ordered: BTreeSet<&str> = BTreeSet::new();
    loop {
        let ready =
            |grant: &&HookGrant| grant.after.iter().all(|name| ordered.contains(name.as_str()));
        let next: Vec<&str> = grants
            .iter()
            .filter(|grant| !ordered.contains(grant.name.as_str()))
            .filter(ready)
            .map(|grant| grant.name.as_str())
            .collect();
        if next.is_empty() {
            break;
        }
        ordered.extend(next);
    }
    let stuck = grants.iter().position(|grant| !ordered.contains(grant.name.as_str()));
    match stuck.and_then(|at| documents.get(at)) {
        None => Ok(()),
        Some((document, after)) => {
            let span = after.first().map_or(0..0, Spanned::span);
            let circle: Vec<_> = names.difference(&ordered).copied().collect();
            Err(document.invalid(span, format!("hooks wait for each other: {}", circle.join(", "))))
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawGrant {
    module: Spanned<String>,
    #[serde(default)]
    on_failure: OnFailure,
    #[serde(default)]
    after: Vec<Spanned<String>>,
    #[serde(default)]
    settings: BTreeMap<Spanned<String>, toml::Value>,
    #[serde(default)]
    sql: Vec<RawSqlGrant>,
    #[serde(default = "no_limits_said")]
    limits: Spanned<Limits>,
}

fn no_limits_said() -> Spanned<Limits> {
    Spanned::new(0..0, Limits::default())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawSqlGrant {
    connection: Spanned<String>,
    target: Option<Spanned<String>>,
    statements: Vec<Spanned<RawStatement>>,
}

impl RawSqlGrant {
    fn validated(
        self,
        document: &Document,
        connections: &Connections,
    ) -> Result<SqlGrant, ConfigError> {
        let target = self.target.unwrap_or(self.connection);
        if connections.get(target.get_ref()).is_none() {
            return Err(unknown_connection(&target, document, connections));
        }
        let statements = self
            .statements
            .into_iter()
            .map(|statement| {
                let granted = checked_statement(statement, document)?;
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
    document: &Document,
) -> Result<GrantedStatement, ConfigError> {
    let span = statement.span();
    let RawStatement(granted) = statement.into_inner();
    let wanted = placeholders(&granted.text);
    if granted.text.trim().is_empty() {
        return Err(document.invalid(span, "a statement is empty"));
    }
    if wanted != granted.params.len() {
        return Err(document
            .invalid(
                span,
                format!(
                    "the statement has {wanted} `?`, but `params` gives {} types: {}",
                    granted.params.len(),
                    granted.text
                ),
            )
            .with_hint("write { text = \"…\", params = [\"uint\"] } with one type for each `?`: null, bool, int, uint, float, text, binary"));
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

/// TOML as JSON; dates and times become text.
fn settings_as_json(value: toml::Value) -> serde_json::Value {
    match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => number.into(),
        toml::Value::Boolean(flag) => flag.into(),
        toml::Value::Datetime(moment) => moment.to_string().into(),
        toml::Value::Array(items) => items.into_iter().map(settings_as_json).collect(),
        toml::Value::Table(table) => {
            table.into_iter().map(|(key, value)| (key, settings_as_json(value))).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    /// An installation with a connection `main` and the given grant files.
    fn loaded(files: &[(&str, &str)]) -> Result<Vec<HookGrant>, ConfigError> {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        fs::create_dir_all(paths.grants()).unwrap();
        let connections = "[connections.main]\nengine = \"mysql\"\nsocket = \"/s\"\nuser = \"u\"\n";
        fs::write(paths.config().join("connections.toml"), connections).unwrap();
        for (name, text) in files {
            let text = text.replace("DIGEST", DIGEST);
            fs::write(paths.grants().join(format!("{name}.toml")), text).unwrap();
        }
        load_grants(&paths, &Connections::load(&paths)?)
    }

    fn refusal(text: &str) -> String {
        loaded(&[("db", text)]).unwrap_err().to_string()
    }

    #[test]
    fn a_whole_grant_is_read() {
        let grants = loaded(&[(
            "db",
            r#"
            module = "DIGEST"
            on-failure = "lower"
            [settings]
            deep = true
            [[sql]]
            connection = "main"
            statements = [
                "FLUSH  TABLES WITH READ LOCK",
                { text = "SET SESSION lock_wait_timeout = ?", params = ["uint"] },
            ]
            [limits]
            rows = 5
            "#,
        )])
        .unwrap();
        let grant = &grants[0];
        assert_eq!(grant.name, "db");
        assert_eq!(grant.on_failure, OnFailure::Lower);
        assert_eq!(grant.settings, serde_json::json!({"deep": true}));
        assert_eq!(grant.limits, Limits { rows: 5, ..Limits::default() });
        let sql = &grant.sql["main"];
        assert_eq!(sql.target, "main");
        assert_eq!(
            sql.statements[&fold("FLUSH TABLES WITH READ LOCK")].text,
            "FLUSH  TABLES WITH READ LOCK"
        );
    }

    #[test]
    fn a_grant_for_a_connection_that_does_not_exist_names_line_and_the_ones_there_are() {
        let error =
            refusal("module = \"DIGEST\"\n[[sql]]\nconnection = \"prod\"\nstatements = []\n");
        assert!(
            error.contains("db.toml:3:14: connection `prod` does not exist; there are: main"),
            "{error}"
        );
    }

    #[test]
    fn a_missing_parameter_type_is_an_error_at_its_statement() {
        let error = refusal(
            "module = \"DIGEST\"\n[[sql]]\nconnection = \"main\"\nstatements = [\"KILL ?\"]\n",
        );
        assert!(
            error.contains(":4:15: the statement has 1 `?`, but `params` gives 0 types"),
            "{error}"
        );
    }

    #[test]
    fn an_unknown_key_is_an_error_wherever_it_is() {
        for (text, at) in [
            ("module = \"DIGEST\"\nmodul = 1\n", ":2:1: unknown field `modul`"),
            ("module = \"DIGEST\"\n[limits]\nrow = 1\n", ":3:1: unknown field `row`"),
            (
                "module = \"DIGEST\"\n[[sql]]\nconnection = \"main\"\nstatements = [{ text = \"A\", param = [] }]\n",
                "unknown field `param`",
            ),
        ] {
            let error = refusal(text);
            assert!(error.contains(at), "{error}");
        }
    }

    #[test]
    fn a_digest_that_is_none_is_named() {
        let error = refusal("module = \"latest\"\n");
        assert!(error.contains(":1:10: `latest` is not a digest"), "{error}");
    }

    #[test]
    fn hooks_that_wait_for_each_other_or_for_nobody_are_refused() {
        let unknown = loaded(&[("a", "module = \"DIGEST\"\nafter = [\"b\"]\n")]).unwrap_err();
        assert!(unknown.to_string().contains("a.toml:2:10: there is no hook `b`"), "{unknown}");
        let circle = loaded(&[
            ("a", "module = \"DIGEST\"\nafter = [\"b\"]\n"),
            ("b", "module = \"DIGEST\"\nafter = [\"a\"]\n"),
        ])
        .unwrap_err();
        assert!(circle.to_string().contains("hooks wait for each other: a, b"), "{circle}");
    }
}
