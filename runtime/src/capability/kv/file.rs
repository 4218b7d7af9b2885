//! A state file: one line that says what it is and what the rest's digest is, then JSON, whole.
//! People can read it; nobody can change it without the checksum saying so.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::config::grants::MOST_KV_BYTES;
use crate::config::read::{ConfigError, OPEN_TO_OTHERS, read_trusted};
use crate::durable;
use crate::hook::digest::Digest;
use crate::journal::{JournalError, prepare_directory};

/// The first words of every state file.
const MAGIC: &str = "stillpoint-kv 1";

/// The longest file that is read: Base64 and escapes make a state longer than its quota.
const LONGEST: u64 = 8 * MOST_KV_BYTES as u64;

/// What a hook keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    /// Counts changes: of two files, the one with the higher number is newer.
    pub(super) generation: u64,
    /// Keys and values.
    pub(super) entries: BTreeMap<String, Vec<u8>>,
}

impl Content {
    /// Bytes of keys and values together.
    pub(super) fn bytes(&self) -> usize {
        self.entries.iter().map(|(key, value)| key.len() + value.len()).sum()
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    hook: String,
    generation: u64,
    entries: BTreeMap<String, String>,
}

/// Why a state file was not read, or not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    #[error(transparent)]
    File(#[from] ConfigError),
    #[error(transparent)]
    Directory(#[from] JournalError),
    #[error("{}: {problem}", path.display())]
    Damaged { path: PathBuf, problem: String },
    #[error("{} cannot be written", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl StateError {
    /// The cause and its causes, on one line.
    pub(super) fn words(&self) -> String {
        let mut words = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            words.push_str(&format!(": {error}"));
            cause = error.source();
        }
        words
    }

    /// What the operator can do next.
    pub(super) fn hint(&self) -> Option<String> {
        match self {
            StateError::File(error) => error.hint(),
            StateError::Directory(error) => error.hint(),
            StateError::Damaged { path, .. } => Some(format!(
                "find out what changed it; then move {} away: the hook goes on without what it remembered",
                path.display()
            )),
            StateError::Write { .. } => None,
        }
    }
}

/// The file of a hook in a directory.
pub(super) fn path_of(directory: &Path, hook: &str) -> PathBuf {
    directory.join(format!("{hook}.kv"))
}

/// Reads a hook's file; `None` if there is none.
pub(super) fn read(path: &Path, hook: &str) -> Result<Option<Content>, StateError> {
    let bytes = match read_trusted(path, OPEN_TO_OTHERS, LONGEST) {
        Err(error) if error.is_not_found() => return Ok(None),
        other => other?,
    };
    decode(&bytes, hook)
        .map(Some)
        .map_err(|problem| StateError::Damaged { path: path.to_owned(), problem })
}

/// Writes a hook's file: it is there as it was, or as it shall be, whenever this is cut off.
pub(super) fn write(path: &Path, hook: &str, content: &Content) -> Result<(), StateError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let fresh = !directory.exists();
    prepare_directory(directory)?;
    let new = new_name(directory, hook);
    let bytes = encode(hook, content);
    let put = || -> io::Result<()> {
        // Nobody else writes here, so one name for what is not finished will do.
        durable::write_whole(&new, path, &bytes)?;
        // A new directory is durable only with those that it is in.
        let above = if fresh { 2 } else { 0 };
        directory.ancestors().skip(1).take(above).try_for_each(durable::sync_directory)
    };
    put().map_err(|source| StateError::Write { path: path.to_owned(), source })
}

pub(super) fn remove(path: &Path) -> Result<(), StateError> {
    durable::remove_if_there(path)
        .map_err(|source| StateError::Write { path: path.to_owned(), source })
}

/// No hook's name begins with a dot, so this is no hook's file.
fn new_name(directory: &Path, hook: &str) -> PathBuf {
    directory.join(format!(".{hook}.new"))
}

pub(super) fn encode(hook: &str, content: &Content) -> Vec<u8> {
    let entries = content.entries.iter();
    let stored = Stored {
        hook: hook.to_owned(),
        generation: content.generation,
        entries: entries.map(|(key, value)| (key.clone(), STANDARD.encode(value))).collect(),
    };
    // Strings and numbers: there is nothing in it that JSON cannot say.
    let json = serde_json::to_string(&stored).unwrap_or_default();
    format!("{MAGIC} {}\n{json}\n", Digest::of(json.as_bytes())).into_bytes()
}

pub(super) fn decode(bytes: &[u8], hook: &str) -> Result<Content, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not a state file of ours")?;
    let (head, json) = text.split_once('\n').ok_or("it is cut short, or not a state file")?;
    let digest = head.strip_prefix(MAGIC).and_then(|rest| rest.strip_prefix(' '));
    let digest = digest.ok_or("it is not a state file of this stillpoint")?;
    let json = json.strip_suffix('\n').ok_or("it is cut short")?;
    if digest != Digest::of(json.as_bytes()).to_string() {
        return Err("its checksum does not fit: it is torn, or was changed".into());
    }
    let stored: Stored = serde_json::from_str(json).map_err(|error| error.to_string())?;
    if stored.hook != hook {
        return Err(format!("it is the state of hook `{}`", super::super::clean(&stored.hook, 64)));
    }
    let value = |(key, value): (String, String)| Ok((key, STANDARD.decode(value)?));
    let entries = stored.entries.into_iter().map(value).collect::<Result<_, base64::DecodeError>>();
    let entries = entries.map_err(|error| error.to_string())?;
    Ok(Content { generation: stored.generation, entries })
}
