//! Reading files that root trusts: opened once, checked by descriptor, bounded in size; and TOML
//! whose errors say in which file, line and column the wrong value is.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;
use serde::de::DeserializeOwned;

/// The longest configuration file that is read, in bytes.
const LONGEST_CONFIGURATION: u64 = 1 << 20;

/// Permission bits that others may not have on a file whose content we act on.
pub(crate) const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Permission bits that others may not have on a file that holds a secret.
pub(crate) const OPEN_TO_OTHERS: u32 = 0o077;

/// A place in a configuration file. Lines and columns count from 1; columns count characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The file.
    pub path: PathBuf,
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.path.display(), self.line, self.column)
    }
}

/// Why a configuration file, or a file that it names, cannot be used. Nothing has been touched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be opened or read.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Somebody other than root could have written it, or can read the secret in it.
    #[error("{} is not trusted: {problem}", path.display())]
    Untrusted {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// The next step.
        hint: String,
    },
    /// Its content is wrong.
    #[error("{location}: {message}")]
    Invalid {
        /// Where.
        location: Location,
        /// What is wrong; names the value.
        message: String,
        /// The next step, where there is one.
        hint: Option<String>,
    },
}

impl ConfigError {
    /// What the operator can do next.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            ConfigError::Unreadable { .. } => None,
            ConfigError::Untrusted { hint, .. } => Some(hint.clone()),
            ConfigError::Invalid { hint, .. } => hint.clone(),
        }
    }

    /// The same error with the next step.
    #[must_use]
    pub fn with_hint(mut self, next: impl Into<String>) -> Self {
        if let ConfigError::Invalid { hint, .. } = &mut self {
            *hint = Some(next.into());
        }
        self
    }

    /// True if the file is not there at all.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, ConfigError::Unreadable { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// A configuration file's text, kept so that later errors can say where.
#[derive(Clone, Debug)]
pub struct Document {
    path: PathBuf,
    text: String,
}

impl Document {
    /// Reads a file that root owns and nobody else can write.
    ///
    /// # Errors
    /// If it is not there, not such a file, longer than 1 MiB, or not UTF-8.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let bytes = read_trusted(path, WRITABLE_BY_OTHERS, LONGEST_CONFIGURATION)?;
        let text = String::from_utf8(bytes).map_err(|error| ConfigError::Unreadable {
            path: path.to_owned(),
            source: io::Error::new(io::ErrorKind::InvalidData, error.utf8_error()),
        })?;
        Ok(Self { path: path.to_owned(), text })
    }

    /// A text that is there already, and that nothing is done with as root on its word alone: `path` is
    /// for messages.
    pub(crate) fn of(path: &Path, text: String) -> Self {
        Self { path: path.to_owned(), text }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its content.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its content as a `T`.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with line and column of the first thing that does not fit.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        toml::from_str(&self.text).map_err(|error| {
            let span = error.span().unwrap_or(0..0);
            let message = error.message().trim().replace('\n', ", ");
            match self.text.get(span.clone()).map(first_line).filter(|value| !value.is_empty()) {
                Some(value) if !message.contains(value) => {
                    self.invalid(span, format!("{message} (at `{value}`)"))
                }
                _ => self.invalid(span, message),
            }
        })
    }

    /// Where a span of a [`toml::Spanned`] value is.
    #[must_use]
    pub fn location(&self, span: &Range<usize>) -> Location {
        let before = self.text.get(..span.start).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Location {
            path: self.path.clone(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }

    /// An error about the value at `span`.
    #[must_use]
    pub fn invalid(&self, span: Range<usize>, message: impl Into<String>) -> ConfigError {
        ConfigError::Invalid { location: self.location(&span), message: message.into(), hint: None }
    }
}

/// Reads a TOML file that root owns and nobody else can write.
///
/// # Errors
/// As [`Document::read`] and [`Document::parse`].
pub fn read_toml<T: DeserializeOwned>(path: &Path) -> Result<(Document, T), ConfigError> {
    let document = Document::read(path)?;
    let value = document.parse()?;
    Ok((document, value))
}

/// A duration as people write it: `5s`, `500ms`, `1m 30s`.
///
/// # Errors
/// In words, if it is not one or is not longer than zero.
pub fn parse_duration(text: &str) -> Result<std::time::Duration, String> {
    let parsed: jiff::SignedDuration = text
        .parse()
        .map_err(|_| format!("`{text}` is not a duration; write it like `5s` or `500ms`"))?;
    match std::time::Duration::try_from(parsed) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err(format!("`{text}` is not longer than zero")),
    }
}

/// Reads a regular file, at most `longest` bytes, that root owns and that gives nobody else any of
/// the `forbidden` permission bits. All checks are on the descriptor that is read.
///
/// # Errors
/// [`ConfigError::Unreadable`] or [`ConfigError::Untrusted`].
pub(crate) fn read_trusted(
    path: &Path,
    forbidden: u32,
    longest: u64,
) -> Result<Vec<u8>, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let file = open_trusted(path, forbidden)?;
    let mut bytes = Vec::new();
    file.take(longest + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > longest {
        return Err(unreadable(io::Error::other(format!("it is longer than {longest} bytes"))));
    }
    Ok(bytes)
}

/// Opens a file without following a link and without waiting (a FIFO would), then checks by the
/// descriptor what was opened.
fn open_trusted(path: &Path, forbidden: u32) -> Result<File, ConfigError> {
    let untrusted = |problem: String, hint: String| ConfigError::Untrusted {
        path: path.to_owned(),
        problem,
        hint,
    };
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(|source| match source.raw_os_error() {
            Some(libc::ELOOP) => untrusted(
                "it is a symbolic link".into(),
                format!("put the file itself at {}", path.display()),
            ),
            _ => ConfigError::Unreadable { path: path.to_owned(), source },
        })?;
    let metadata = file
        .metadata()
        .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    if !metadata.is_file() {
        return Err(untrusted(
            "it is not a regular file".into(),
            format!("put a regular file at {}", path.display()),
        ));
    }
    if metadata.uid() != 0 {
        return Err(untrusted(
            format!("it belongs to user {}, not to root", metadata.uid()),
            format!("chown root: {}", path.display()),
        ));
    }
    if metadata.mode() & forbidden != 0 {
        let mode = metadata.mode() & 0o7777;
        return Err(untrusted(
            format!("its mode is {mode:04o}, which lets others in"),
            format!("chmod {:04o} {}", mode & !forbidden & 0o777, path.display()),
        ));
    }
    Ok(file)
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only parsed")]
    struct Sample {
        port: u16,
    }

    fn written(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sample.toml");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        (dir, path)
    }

    #[test]
    fn an_unknown_key_is_an_error_with_line_and_column() {
        let (_dir, path) = written("port = 1\n  prot = 2\n", 0o644);
        let error = read_toml::<Sample>(&path).unwrap_err().to_string();
        assert!(
            error.ends_with("sample.toml:2:3: unknown field `prot`, expected `port`"),
            "{error}"
        );
    }

    #[test]
    fn a_wrong_value_is_named() {
        let (_dir, path) = written("port = \"http\"\n", 0o644);
        let error = read_toml::<Sample>(&path).unwrap_err().to_string();
        assert!(error.contains(":1:8: ") && error.contains("http"), "{error}");
    }

    #[test]
    fn a_file_that_others_can_write_is_refused_with_the_command_that_mends_it() {
        let (_dir, path) = written("port = 1", 0o666);
        let error = read_toml::<Sample>(&path).unwrap_err();
        assert!(error.to_string().contains("mode is 0666"), "{error}");
        assert_eq!(error.hint().unwrap(), format!("chmod 0644 {}", path.display()));
    }

    #[test]
    fn a_symbolic_link_is_refused() {
        let (dir, path) = written("port = 1", 0o644);
        let link = dir.path().join("link.toml");
        std::os::unix::fs::symlink(path, &link).unwrap();
        let error = read_toml::<Sample>(&link).unwrap_err().to_string();
        assert!(error.contains("symbolic link"), "{error}");
    }

    #[test]
    fn durations_are_written_as_people_do() {
        assert_eq!(parse_duration("500ms"), Ok(std::time::Duration::from_millis(500)));
        assert!(parse_duration("0s").unwrap_err().contains("zero"));
        assert!(parse_duration("soon").unwrap_err().contains("`soon`"));
    }
}
