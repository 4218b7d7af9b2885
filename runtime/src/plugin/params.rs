//! The plug-in's parameters: those of the original, by its names and rules, and a few of our own in
//! the same style. Pure: words in, [`Params`] out, nothing is looked at.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::LONGEST_WINDOW;
use crate::consistency::Level;
use crate::exit_code::ExitCode;

use super::flags::{Flag, FlagError, Given, Kind, Value};

/// Seconds that a window may last where nothing is said: the original's default.
const DEFAULT_TIMEOUT: i64 = 30;

/// Seconds that each script may take where nothing is said: the original's default.
pub const DEFAULT_SCRIPT_TIMEOUT: i64 = 1800;

/// The longest time for a script, in seconds: a day.
const LONGEST_SCRIPT_TIMEOUT: i64 = 86_400;

/// Characters that a name, and a description, may have at most.
const LONGEST_NAME: usize = 128;
const LONGEST_DESCRIPTION: usize = 256;

/// What is defined. The first nine are the original's.
pub const FLAGS: [Flag; 13] = [
    flag("RamRoleName", Kind::Text, "name of the RAM role attached to the instance (required)"),
    flag("Name", Kind::Text, "name of the snapshot-consistent group (required)"),
    flag("Description", Kind::Text, "description of the snapshot-consistent group"),
    flag(
        "ExcludeDiskId",
        Kind::Text,
        "disks to leave out: ids, separated by comma, space or semicolon",
    ),
    flag(
        "PreScriptPath",
        Kind::Text,
        "script that runs before the freeze (default: [scripts] pre in stillpoint.toml, else /tmp/prescript.sh; \"\" is none)",
    ),
    flag(
        "PostScriptPath",
        Kind::Text,
        "script that runs after the thaw (default: [scripts] post in stillpoint.toml, else /tmp/postscript.sh; \"\" is none)",
    ),
    flag("EnableFsFreeze", Kind::Boolean, "freeze file systems (default true)"),
    flag(
        "TimeoutInSeconds",
        Kind::Integer,
        "file systems are frozen no longer than this (default 30, which is also the most)",
    ),
    flag(
        "ScriptTimeoutInSeconds",
        Kind::Integer,
        "each script may take this long (default 1800, at most 86400)",
    ),
    flag(
        "Hooks",
        Kind::Text,
        "what quiesces applications: auto (hooks of hooks.d if there are any, else the scripts), scripts, both, none (default auto)",
    ),
    flag(
        "Require",
        Kind::Text,
        "fail, and leave no snapshot, rather than reach less: application, file-system, crash",
    ),
    flag(
        "Root",
        Kind::Text,
        "directory that stands for / in the paths of configuration, hooks and run files (default /)",
    ),
    flag(
        "LogFile",
        Kind::Text,
        "where the details go (default: log/ beside the plug-in, if that is not frozen; else /run/stillpoint/log)",
    ),
];

const fn flag(name: &'static str, kind: Kind, usage: &'static str) -> Flag {
    Flag { name, kind, usage }
}

/// What quiesces applications.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HookChoice {
    /// The hooks of `hooks.d` if there are any; else the scripts.
    #[default]
    Auto,
    /// The scripts, whatever is in `hooks.d`.
    Scripts,
    /// The scripts first, then the hooks; released in reverse.
    Both,
    /// Nothing: file systems are frozen and no application is asked.
    None,
}

/// What the caller asked for, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    /// The RAM role attached to this instance.
    pub role: String,
    /// The name of the group.
    pub name: String,
    /// Free text, perhaps none.
    pub description: String,
    /// Ids of disks that are not in the snapshot, and whose file systems are not frozen.
    pub exclude_disks: Vec<String>,
    /// The script before the freeze; `None` where nothing was said, an empty path for "none".
    pub pre_script: Option<PathBuf>,
    /// The script after the thaw, likewise.
    pub post_script: Option<PathBuf>,
    /// Freeze file systems.
    pub freeze: bool,
    /// How long file systems may be frozen, as it was asked for, in seconds, 1 or more; see
    /// [`Params::window`].
    pub timeout_seconds: u64,
    /// How long each script may take.
    pub script_timeout: Duration,
    /// What quiesces applications.
    pub hooks: HookChoice,
    /// Fail rather than reach less.
    pub require: Option<Level>,
    /// What stands for `/` in our paths.
    pub root: Option<PathBuf>,
    /// Where the details go.
    pub log_file: Option<PathBuf>,
}

/// Why the parameters cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParamError {
    /// The words are not flags as they are defined.
    #[error(transparent)]
    Flag(#[from] FlagError),
    /// A required one is not there, or empty.
    #[error("-{name} is required")]
    Missing {
        /// Its name.
        name: &'static str,
    },
    /// Words were left that belong to no parameter.
    #[error("{} to no parameter: {}", belong(.words), quoted(.words))]
    LeftOver {
        /// All of them.
        words: Vec<String>,
        /// The last parameter before them.
        after: Option<&'static str>,
    },
    /// A value that is out of its range, or none of those there are.
    #[error("invalid value {value:?} for flag -{name}: {expected}")]
    Invalid {
        /// Its name.
        name: &'static str,
        /// What was given.
        value: String,
        /// What could be given.
        expected: &'static str,
    },
    /// The name of the group breaks a rule of the cloud's.
    #[error("the snapshot name {name:?} is invalid: {rule}")]
    Name {
        /// The name.
        name: String,
        /// The rule.
        rule: &'static str,
    },
    /// The description breaks one.
    #[error("the description is invalid: {rule}")]
    Description {
        /// The rule.
        rule: &'static str,
    },
}

/// Reads the plug-in's parameters.
///
/// # Errors
/// The first thing that is wrong, with the exit code that it leads to; [`FlagError::HelpRequested`]
/// for `-h` and `-help`.
pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Params, ParamError> {
    let given = Given::parse(&FLAGS, words)?;
    if !given.rest.is_empty() {
        let after = given.flags.last().map(|(name, _)| *name);
        return Err(ParamError::LeftOver { words: given.rest, after });
    }
    let params = Params {
        role: required(&given, "RamRoleName")?,
        name: text(&given, "Name").ok_or(ParamError::Missing { name: "Name" })?,
        description: text(&given, "Description").unwrap_or_default(),
        exclude_disks: disks(&text(&given, "ExcludeDiskId").unwrap_or_default()),
        pre_script: text(&given, "PreScriptPath").map(PathBuf::from),
        post_script: text(&given, "PostScriptPath").map(PathBuf::from),
        freeze: !matches!(given.value("EnableFsFreeze"), Some(Value::Boolean(false))),
        timeout_seconds: seconds(&given, "TimeoutInSeconds", DEFAULT_TIMEOUT, i64::MAX)?,
        script_timeout: Duration::from_secs(seconds(
            &given,
            "ScriptTimeoutInSeconds",
            DEFAULT_SCRIPT_TIMEOUT,
            LONGEST_SCRIPT_TIMEOUT,
        )?),
        hooks: hooks(&given)?,
        require: require(&given)?,
        root: absolute(&given, "Root")?,
        log_file: absolute(&given, "LogFile")?,
    };
    check_name(&params.name)?;
    check_description(&params.description)?;
    Ok(params)
}

impl Params {
    /// How long file systems may be frozen: what was asked for, and never longer than
    /// [`LONGEST_WINDOW`].
    #[must_use]
    pub fn window(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds).min(LONGEST_WINDOW)
    }
}

impl ParamError {
    /// The exit code that this leads to. A name or a description that the cloud would refuse is a
    /// condition that is not met, as the vendor's table has it; `-h` is no error.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            ParamError::Flag(FlagError::HelpRequested) => ExitCode::Ok,
            ParamError::Name { .. } | ParamError::Description { .. } => ExitCode::Precondition,
            _ => ExitCode::Parameters,
        }
    }

    /// What the caller can do next.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            ParamError::LeftOver { words, after } => left_over_hint(words, *after),
            ParamError::Flag(FlagError::NotDefined { name }) => similar(name).map_or_else(
                || "-h lists the parameters there are".to_owned(),
                |known| format!("is -{known} meant?"),
            ),
            ParamError::Missing { name } => format!("add -{name}=…; -h lists all parameters"),
            ParamError::Name { .. } => {
                "choose a name of 2 to 128 characters that begins with a letter".to_owned()
            }
            ParamError::Description { .. } => {
                "leave -Description out, or give it 2 to 256 characters".to_owned()
            }
            _ => "-h lists all parameters".to_owned(),
        }
    }
}

/// What `-h` prints, in the form of Go's package.
#[must_use]
pub fn usage() -> String {
    let mut text = "Usage of app-snapshot-plugin (stillpoint):\n".to_owned();
    for Flag { name, kind, usage } in FLAGS {
        let kind = match kind {
            Kind::Text => " string",
            Kind::Boolean => "",
            Kind::Integer => " int",
        };
        let _ = writeln!(text, "  -{name}{kind}\n        {usage}");
    }
    text
}

fn text(given: &Given, name: &str) -> Option<String> {
    match given.value(name) {
        Some(Value::Text(text)) => Some(text.clone()),
        _ => None,
    }
}

fn required(given: &Given, name: &'static str) -> Result<String, ParamError> {
    text(given, name).filter(|text| !text.is_empty()).ok_or(ParamError::Missing { name })
}

/// The manager's splitting turns commas into spaces, also between quotes, so every separator that
/// can arrive is one.
fn disks(list: &str) -> Vec<String> {
    let mut disks: Vec<String> = Vec::new();
    let separator = |c: char| c == ',' || c == ';' || c.is_whitespace();
    for disk in list.split(separator).filter(|disk| !disk.is_empty()) {
        if !disks.iter().any(|known| known == disk) {
            disks.push(disk.to_owned());
        }
    }
    disks
}

fn seconds(given: &Given, name: &'static str, default: i64, most: i64) -> Result<u64, ParamError> {
    let seconds = match given.value(name) {
        Some(Value::Integer(seconds)) => *seconds,
        _ => default,
    };
    let expected = if most == i64::MAX { "1 or more" } else { "1 to 86400" };
    let invalid = || ParamError::Invalid { name, value: seconds.to_string(), expected };
    u64::try_from(seconds).ok().filter(|_| (1..=most).contains(&seconds)).ok_or_else(invalid)
}

fn hooks(given: &Given) -> Result<HookChoice, ParamError> {
    let value = text(given, "Hooks").unwrap_or_default();
    match value.as_str() {
        "" | "auto" => Ok(HookChoice::Auto),
        "scripts" => Ok(HookChoice::Scripts),
        "both" => Ok(HookChoice::Both),
        "none" => Ok(HookChoice::None),
        _ => {
            let expected = "auto, scripts, both or none";
            Err(ParamError::Invalid { name: "Hooks", value, expected })
        }
    }
}

fn require(given: &Given) -> Result<Option<Level>, ParamError> {
    let value = text(given, "Require").unwrap_or_default();
    match value.as_str() {
        "" => Ok(None),
        "application" => Ok(Some(Level::Application)),
        "file-system" => Ok(Some(Level::FileSystem)),
        "crash" => Ok(Some(Level::Crash)),
        _ => {
            let expected = "application, file-system or crash";
            Err(ParamError::Invalid { name: "Require", value, expected })
        }
    }
}

fn absolute(given: &Given, name: &'static str) -> Result<Option<PathBuf>, ParamError> {
    let Some(value) = text(given, name).filter(|value| !value.is_empty()) else { return Ok(None) };
    if !value.starts_with('/') {
        return Err(ParamError::Invalid { name, value, expected: "an absolute path" });
    }
    Ok(Some(PathBuf::from(value)))
}

/// The rules of `CreateSnapshotGroup`, so that a name that the cloud would refuse is refused before
/// anything is locked.
fn check_name(name: &str) -> Result<(), ParamError> {
    let rule = if !(2..=LONGEST_NAME).contains(&name.chars().count()) {
        "it must have 2 to 128 characters"
    } else if is_url(name) {
        "it must not begin with http:// or https://"
    } else if !name.starts_with(char::is_alphabetic) {
        "it must begin with a letter"
    } else if !name.chars().all(|c| c.is_alphanumeric() || "._-:".contains(c)) {
        "only letters, digits, `.`, `_`, `-` and `:` are allowed"
    } else {
        return Ok(());
    };
    Err(ParamError::Name { name: name.to_owned(), rule })
}

fn check_description(description: &str) -> Result<(), ParamError> {
    let length = description.chars().count();
    let rule = if length == 1 || length > LONGEST_DESCRIPTION {
        "it must have 2 to 256 characters"
    } else if is_url(description) {
        "it must not begin with http:// or https://"
    } else {
        return Ok(());
    };
    Err(ParamError::Description { rule })
}

fn is_url(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

fn belong(words: &[String]) -> &'static str {
    if words.len() == 1 { "a word belongs" } else { "words belong" }
}

fn quoted(words: &[String]) -> String {
    words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" ")
}

/// The manager tears a value with a comma or a space apart, unless quotes inside `--params` keep it
/// together; and a boolean takes no word after it.
fn left_over_hint(words: &[String], after: Option<&'static str>) -> String {
    let first = words.first().map(String::as_str).unwrap_or_default();
    match after {
        Some("ExcludeDiskId") => {
            "separate disks with a semicolon, and quote them for the shell: --params='…,-ExcludeDiskId=d-1;d-2'"
                .to_owned()
        }
        Some("EnableFsFreeze") if matches!(first, "true" | "false") => {
            format!("a boolean takes its value after an equals sign: -EnableFsFreeze={first}")
        }
        Some(name) => format!(
            "the plug-in manager takes commas for spaces and splits at spaces; quote the whole value of -{name} inside --params: --params='-{name}=\"…\"'"
        ),
        None => "parameters look like -Name=value; -h lists all".to_owned(),
    }
}

/// A parameter whose name differs only in case, or in dashes.
fn similar(name: &str) -> Option<&'static str> {
    let plain = name.replace(['-', '_'], "");
    FLAGS.iter().map(|flag| flag.name).find(|known| known.eq_ignore_ascii_case(&plain))
}

#[cfg(test)]
#[path = "params_tests.rs"]
mod tests;
