//! `keys.d`: whom the operator trusts. `<name>.pub` is minisign's public key; `<name>.toml` beside it
//! says which hooks it may sign, and until when.
//!
//! ```toml
//! hooks = ["mysql", "acme-*"]
//! expires = 2027-01-31        # optional; from that day (UTC) on nothing is installed with it
//! ```

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::civil::Date;
use serde::Deserialize;
use toml::Spanned;

use super::signature::{KeyId, PublicKey};
use crate::config::grants::is_hook_name;
use crate::config::read::{ConfigError, Document, WRITABLE_BY_OTHERS};
use crate::hook::store::Signer;

/// Every trusted key.
#[derive(Clone, Debug)]
pub struct TrustedKeys {
    directory: PathBuf,
    keys: Vec<TrustedKey>,
}

/// A key that the operator trusts for some hooks, for some time.
#[derive(Clone, Debug)]
pub struct TrustedKey {
    name: String,
    public: PublicKey,
    hooks: Vec<Scope>,
    expires: Option<Date>,
}

/// Names of hooks that a key may sign.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Scope {
    /// This one.
    Exactly(String),
    /// All that begin with this.
    Beginning(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawKey {
    hooks: Spanned<Vec<Spanned<String>>>,
    expires: Option<Spanned<toml::value::Datetime>>,
}

impl TrustedKeys {
    /// Reads a directory; none are trusted if it is not there.
    ///
    /// # Errors
    /// If the directory or a file in it could have been written by others, or is wrong: one bad file
    /// is an error for all, because nobody knows what it was to say.
    pub fn load(directory: &Path) -> Result<Self, ConfigError> {
        let mut keys = Vec::new();
        for file in key_files(directory)? {
            keys.push(TrustedKey::load(&file)?);
        }
        Ok(Self { directory: directory.to_owned(), keys })
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Each of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &TrustedKey> {
        self.keys.iter()
    }

    pub(super) fn with_id(&self, id: KeyId) -> impl Iterator<Item = &TrustedKey> {
        self.keys.iter().filter(move |key| key.id() == id)
    }
}

impl TrustedKey {
    fn load(file: &Path) -> Result<Self, ConfigError> {
        let document = Document::read(file)?;
        let name = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if !is_hook_name(name) {
            return Err(document.invalid(0..0, format!("`{name}` cannot be a key's name")).with_hint(
                "name the file with lower-case letters, digits, `-`, `_` and `.`, at most 64 of them",
            ));
        }
        let public = PublicKey::parse(document.text())
            .map_err(|why| document.invalid(second_line(document.text()), why))?;
        let (hooks, expires) = limits(&file.with_extension("toml"))?;
        Ok(Self { name: name.to_owned(), public, hooks, expires })
    }

    /// The operator's name for it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.public.id()
    }

    /// The day from which on nothing is installed with it.
    #[must_use]
    pub fn expires(&self) -> Option<String> {
        self.expires.map(|day| day.to_string())
    }

    /// Which hooks it may sign, as the operator wrote it.
    #[must_use]
    pub fn hooks(&self) -> Vec<String> {
        self.hooks.iter().map(Scope::to_string).collect()
    }

    pub(super) fn public(&self) -> &PublicKey {
        &self.public
    }

    pub(super) fn signer(&self) -> Signer {
        Signer { name: self.name.clone(), id: self.id().to_string(), expires: self.expires() }
    }

    /// May it sign on this day? Else, why not.
    pub(super) fn in_time(&self, today: Date) -> Result<(), String> {
        match self.expires {
            Some(day) if today >= day => {
                Err(format!("the key `{}` that signed it expired on {day}", self.name))
            }
            _ => Ok(()),
        }
    }

    /// May it sign a hook of this name? Else, why not.
    pub(super) fn in_scope(&self, hook: &str) -> Result<(), String> {
        if self.hooks.iter().any(|scope| scope.has(hook)) {
            return Ok(());
        }
        let (key, hooks) = (&self.name, self.hooks().join(", "));
        Err(format!("the key `{key}` that signed it may sign {hooks}, and this is `{hook}`"))
    }
}

impl Scope {
    /// A hook's name, or the beginning of names and `*`.
    fn parse(text: &str) -> Option<Self> {
        match text.strip_suffix('*') {
            None => is_hook_name(text).then(|| Scope::Exactly(text.to_owned())),
            Some(beginning) => (beginning.is_empty() || is_hook_name(beginning))
                .then(|| Scope::Beginning(beginning.to_owned())),
        }
    }

    fn has(&self, hook: &str) -> bool {
        match self {
            Scope::Exactly(name) => hook == name,
            Scope::Beginning(beginning) => hook.starts_with(beginning.as_str()),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Exactly(name) => f.write_str(name),
            Scope::Beginning(beginning) => write!(f, "{beginning}*"),
        }
    }
}

/// Every `*.pub` of a directory that nobody but root can put files into.
fn key_files(directory: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(unreadable)?,
    };
    let metadata = fs::metadata(directory).map_err(unreadable)?;
    if metadata.uid() != 0 || metadata.mode() & WRITABLE_BY_OTHERS != 0 {
        return Err(ConfigError::Untrusted {
            path: directory.to_owned(),
            problem: "others than root may put keys there".into(),
            hint: format!("chown root: {0} && chmod 0755 {0}", directory.display()),
        });
    }
    let mut files = Vec::new();
    for entry in entries {
        files.push(entry.map_err(unreadable)?.path());
    }
    files.retain(|path| path.extension().is_some_and(|extension| extension == "pub"));
    files.sort();
    Ok(files)
}

/// What a key may sign, and until when.
fn limits(file: &Path) -> Result<(Vec<Scope>, Option<Date>), ConfigError> {
    let document = Document::read(file).map_err(|error| missing(error, file))?;
    let raw: RawKey = document.parse()?;
    if raw.hooks.get_ref().is_empty() {
        return Err(document.invalid(raw.hooks.span(), "the key may sign no hook"));
    }
    let mut hooks = Vec::new();
    for text in raw.hooks.into_inner() {
        let scope = Scope::parse(text.get_ref()).ok_or_else(|| {
            let message = format!(
                "`{}` is not a hook's name, or the beginning of one and `*`",
                text.get_ref()
            );
            document.invalid(text.span(), message)
        })?;
        hooks.push(scope);
    }
    let expires = match raw.expires {
        None => None,
        Some(day) => Some(
            day.get_ref()
                .to_string()
                .parse::<Date>()
                .ok()
                .filter(|_| is_day(day.get_ref()))
                .ok_or_else(|| {
                    document.invalid(
                        day.span(),
                        format!("`{}` is not a day; write it like 2027-01-31", day.get_ref()),
                    )
                })?,
        ),
    };
    Ok((hooks, expires))
}

fn is_day(when: &toml::value::Datetime) -> bool {
    when.date.is_some() && when.time.is_none() && when.offset.is_none()
}

/// A key without limits is not trusted for everything, but for nothing.
fn missing(error: ConfigError, file: &Path) -> ConfigError {
    if !error.is_not_found() {
        return error;
    }
    ConfigError::Untrusted {
        path: file.with_extension("pub"),
        problem: format!("{} is missing, which says what the key may sign", file.display()),
        hint: format!(
            "write there the names of the hooks: hooks = [\"mysql\"], and the day it ends: expires = {}",
            super::today().saturating_add(jiff::Span::new().years(1))
        ),
    }
}

fn second_line(text: &str) -> std::ops::Range<usize> {
    let start = text.find('\n').map_or(0, |newline| newline + 1);
    start..start
}
