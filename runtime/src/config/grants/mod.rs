//! `hooks.d/<name>.toml`: what the operator grants to one hook, and how it is run.

mod limits;
mod order;
mod program;
mod settings;
mod sql;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::connections::Connections;
use super::read::{ConfigError, Document};
use crate::hook::digest::Digest;
use crate::paths::Paths;

pub use limits::Limits;
pub(crate) use program::is_command_name;
pub use program::{Account, DEFAULT_USER, LONGEST_STDIN, ProgramGrant, ProgramLimits};
pub use settings::SettingPlaces;
pub(crate) use settings::escaped;
pub use sql::SqlGrant;
pub use state::{KvGrant, MOST_KV_BYTES};

use limits::RawLimits;
use program::RawProgramGrant;
use sql::RawSqlGrant;
use state::RawKvGrant;

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
    /// Where each setting is.
    pub settings_at: SettingPlaces,
    /// Granted connections, by the name that the hook asks for.
    pub sql: BTreeMap<String, SqlGrant>,
    /// Granted programs, by the name that the hook asks for.
    pub programs: BTreeMap<String, ProgramGrant>,
    /// Durable state, if it is granted.
    pub kv: Option<KvGrant>,
    /// What of WASI is linked.
    pub wasi: Wasi,
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

/// What of WASI a hook gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wasi {
    /// Nothing: a component that imports it cannot run.
    #[default]
    None,
    /// Clocks, random numbers, standard output and error into the hook's log, an empty environment,
    /// exit. No files, no sockets.
    Minimal,
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
    order::check(&grants, &documents)?;
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
        Self::of(&Document::read(file)?, connections)
    }

    /// Reads a grant that is in memory, and checks it against the connections.
    pub(crate) fn of(document: &Document, connections: &Connections) -> Result<Self, ConfigError> {
        Ok(Self::parse(document, connections)?.0)
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
        let mut programs = BTreeMap::new();
        for section in raw.program {
            let asked = section.command.clone();
            let grant = section.validated(document)?;
            if programs.insert(asked.get_ref().clone(), grant).is_some() {
                return Err(document.invalid(
                    asked.span(),
                    format!("program `{}` is granted twice", asked.get_ref()),
                ));
            }
        }
        let settings = raw.settings.into_iter();
        let settings = settings.map(|(key, value)| (key, settings::as_json(value)));
        let grant = Self {
            name,
            file: document.path().to_owned(),
            module,
            on_failure: raw.on_failure,
            after: raw.after.iter().map(|name| name.get_ref().clone()).collect(),
            settings: settings.collect(),
            settings_at: SettingPlaces::of(document),
            sql,
            programs,
            kv: raw.kv.map(|kv| kv.validated(document)).transpose()?,
            wasi: raw.wasi,
            limits: raw.limits.validated(document)?,
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawGrant {
    module: Spanned<String>,
    #[serde(default)]
    on_failure: OnFailure,
    #[serde(default)]
    after: Vec<Spanned<String>>,
    #[serde(default)]
    settings: BTreeMap<String, toml::Value>,
    #[serde(default)]
    sql: Vec<RawSqlGrant>,
    #[serde(default)]
    program: Vec<RawProgramGrant>,
    kv: Option<RawKvGrant>,
    #[serde(default)]
    wasi: Wasi,
    #[serde(default)]
    limits: RawLimits,
}
