//! `stillpoint hook new`: a project with a hook that works, in one of several languages. Templates and
//! SDKs are in the binary, so that nothing has to be fetched to begin.

use std::io;
use std::path::{Path, PathBuf};

use crate::config::grants::is_hook_name;

mod languages;
mod embedded {
    include!(concat!(env!("OUT_DIR"), "/scaffold.rs"));
}
#[cfg(test)]
mod tests;

pub use languages::{LANGUAGES, Language};

/// Why no project was made. Nothing was written, but in the case of [`ScaffoldError::Write`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScaffoldError {
    /// There is no template of that language.
    #[error("there is no template in `{given}`")]
    Language {
        /// What was asked for.
        given: String,
    },
    /// No hook can have that name.
    #[error(
        "`{given}` is no name for a hook: it has lower-case letters, digits and `-`, begins with a letter, and has at most 64 characters"
    )]
    Name {
        /// What was asked for.
        given: String,
    },
    /// Something is there already.
    #[error("{} exists already, and is not an empty directory", path.display())]
    Exists {
        /// Where.
        path: PathBuf,
    },
    /// A file cannot be written; those before it were.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl ScaffoldError {
    /// What to type next.
    #[must_use]
    pub fn hint(&self) -> String {
        let names =
            || LANGUAGES.iter().map(|language| language.name).collect::<Vec<_>>().join(", ");
        match self {
            ScaffoldError::Language { .. } => {
                format!("stillpoint hook new my-hook --lang rust (there are: {})", names())
            }
            ScaffoldError::Name { .. } => "stillpoint hook new my-database --lang rust".into(),
            ScaffoldError::Exists { .. } => {
                "choose another name, or another place with --path DIRECTORY".into()
            }
            ScaffoldError::Write { path, .. } => {
                format!("remove what was begun ({}), and try again", path.display())
            }
        }
    }
}

/// The language of that name.
///
/// # Errors
/// If there is no template in it.
pub fn language(name: &str) -> Result<&'static Language, ScaffoldError> {
    let found = LANGUAGES.iter().find(|language| language.name == name);
    found.ok_or_else(|| ScaffoldError::Language { given: name.into() })
}

/// Writes a project for a hook `name` into `directory`, which does not exist yet or is empty. Gives the
/// files, relative to it, in order.
///
/// # Errors
/// See [`ScaffoldError`].
pub fn create(
    language: &Language,
    name: &str,
    directory: &Path,
) -> Result<Vec<PathBuf>, ScaffoldError> {
    check_name(name)?;
    refuse_what_is_there(directory)?;
    let files = project(language, name);
    for (path, text) in &files {
        write(&directory.join(path), text)?;
    }
    Ok(files.into_iter().map(|(path, _)| path).collect())
}

/// A name for a hook that is one for a package in each language, too.
fn check_name(name: &str) -> Result<(), ScaffoldError> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    match is_hook_name(name) && first && name.bytes().all(plain) && !name.ends_with('-') {
        true => Ok(()),
        false => Err(ScaffoldError::Name { given: name.into() }),
    }
}

fn refuse_what_is_there(directory: &Path) -> Result<(), ScaffoldError> {
    let there = match std::fs::read_dir(directory) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    };
    match there {
        true => Err(ScaffoldError::Exists { path: directory.to_owned() }),
        false => Ok(()),
    }
}

/// The files of a project and what is in them.
fn project(language: &Language, name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for (path, text) in embedded::TEMPLATES {
        if let Some(path) = below(path, language.name) {
            files.push((PathBuf::from(visible(path)), filled(text, name)));
        }
    }
    for (from, to) in language.sdk {
        for (path, text) in embedded::SDKS {
            if path == from {
                files.push((PathBuf::from(to), text.to_vec()));
            } else if let Some(path) = below(path, from) {
                files.push((Path::new(to).join(path), text.to_vec()));
            }
        }
    }
    files.sort();
    files
}

fn below<'a>(path: &'a str, directory: &str) -> Option<&'a str> {
    path.strip_prefix(directory)?.strip_prefix('/')
}

/// A template's `gitignore` is not to count in the repository that it is kept in.
fn visible(path: &str) -> &str {
    if path == "gitignore" { ".gitignore" } else { path }
}

/// A template's text with the blanks filled in; a file that is no text stays as it is.
fn filled(template: &[u8], name: &str) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(template) else { return template.to_vec() };
    text.replace("{{name}}", name)
        .replace("{{name_}}", &name.replace('-', "_"))
        .replace("{{stillpoint}}", env!("CARGO_PKG_VERSION"))
        .into_bytes()
}

fn write(path: &Path, text: &[u8]) -> Result<(), ScaffoldError> {
    let parent = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent)
        .and_then(|()| std::fs::write(path, text))
        .map_err(|source| ScaffoldError::Write { path: path.to_owned(), source })
}
