//! Names and passwords for registries, from where `docker login` puts them: `config.json` in
//! `$DOCKER_CONFIG`, else in `~/.docker`.
//!
//! Credential helpers are not run: a file that names a program for root to run is a way to become
//! root. What they would have known is asked for in the error, if the registry wants it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::libc;
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use super::error::OciError;
use crate::config::read::WRITABLE_BY_OTHERS;

const LONGEST_FILE: u64 = 1 << 20;

/// A name and a password. Neither is ever printed.
pub(super) struct Login {
    pub(super) user: String,
    pub(super) password: Zeroizing<String>,
}

impl Login {
    /// As HTTP's Basic scheme has it.
    pub(super) fn basic(&self) -> Zeroizing<String> {
        let plain = Zeroizing::new(format!("{}:{}", self.user, *self.password));
        let encoded = Zeroizing::new(STANDARD.encode(plain.as_bytes()));
        Zeroizing::new(format!("Basic {}", *encoded))
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login")
    }
}

/// Where credentials were looked for, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Looked {
    /// There is no such file.
    NoFile(PathBuf),
    /// The file has nothing for this registry.
    NoEntry(PathBuf),
    /// The file says that a helper program knows them; helpers are not run.
    Helper(PathBuf, String),
    /// The file has an identity token, which is not a name and password.
    IdentityToken(PathBuf),
    /// They were found there.
    Found(PathBuf),
}

impl Looked {
    /// For an error: where was looked, and what was there.
    pub(super) fn told(&self) -> String {
        match self {
            Looked::NoFile(file) => format!("{} is not there", file.display()),
            Looked::NoEntry(file) => format!("{} has none for it", file.display()),
            Looked::Helper(file, helper) => format!(
                "{} leaves it to the helper docker-credential-{helper}, and helpers are not run",
                file.display()
            ),
            Looked::IdentityToken(file) => {
                format!("{} has an identity token for it, which is not supported", file.display())
            }
            Looked::Found(file) => format!("those of {} were used", file.display()),
        }
    }
}

/// The parts of docker's config.json that are read.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct File {
    auths: BTreeMap<String, Entry>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    #[serde(deserialize_with = "secret")]
    auth: Option<Zeroizing<String>>,
    username: Option<String>,
    #[serde(deserialize_with = "secret")]
    password: Option<Zeroizing<String>>,
    #[serde(deserialize_with = "secret")]
    identitytoken: Option<Zeroizing<String>>,
}

/// Text that is wiped when it is dropped.
pub(super) fn secret<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<Zeroizing<String>>, D::Error> {
    Ok(Option::<String>::deserialize(from)?.map(Zeroizing::new))
}

/// `config.json` where docker has it.
pub(super) fn usual_file() -> PathBuf {
    if let Some(directory) = std::env::var_os("DOCKER_CONFIG").filter(|text| !text.is_empty()) {
        return PathBuf::from(directory).join("config.json");
    }
    let home = std::env::var_os("HOME").filter(|text| !text.is_empty()).map(PathBuf::from);
    let home = home.or_else(|| {
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok()??;
        Some(user.dir)
    });
    home.unwrap_or_else(|| "/root".into()).join(".docker/config.json")
}

/// The credentials of `file` for `registry`, if there are any. A missing file is not an error: many
/// registries want none.
pub(super) fn look_up(file: &Path, registry: &str) -> Result<(Option<Login>, Looked), OciError> {
    let unusable = |problem: String, hint: String| OciError::Credentials {
        path: file.to_owned(),
        problem,
        hint,
    };
    let text = match read(file) {
        Ok(text) => text,
        Err(Unread::Missing) => return Ok((None, Looked::NoFile(file.to_owned()))),
        Err(Unread::Refused(problem, hint)) => return Err(unusable(problem, hint)),
    };
    let parsed: File = serde_json::from_slice(&text).map_err(|error| {
        // The error's own words may quote a password; where it is says enough.
        let (line, column) = (error.line(), error.column());
        unusable(
            format!("line {line}, column {column} is not docker's JSON"),
            "run `docker login` again".into(),
        )
    })?;
    let found = Looked::Found(file.to_owned());
    let Some(entry) = entry_of(&parsed.auths, registry).filter(|entry| entry.says_something())
    else {
        return Ok((None, parsed.who_else(file, registry)));
    };
    match entry.login() {
        Ok(Some(login)) => Ok((Some(login), found)),
        Ok(None) => Ok((None, Looked::IdentityToken(file.to_owned()))),
        Err(problem) => Err(unusable(
            format!("its `auth` for {registry} {problem}"),
            format!("run `docker login {registry}` again"),
        )),
    }
}

enum Unread {
    Missing,
    Refused(String, String),
}

/// Reads it without following surprises: bounded, without waiting, and only if nobody else could
/// have written it.
fn read(file: &Path) -> Result<Zeroizing<Vec<u8>>, Unread> {
    let refused = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Unread::Missing,
        _ => Unread::Refused(format!("it cannot be read: {error}"), "see who owns it".into()),
    };
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(file)
        .map_err(refused)?;
    let metadata = opened.metadata().map_err(refused)?;
    let own = nix::unistd::geteuid().as_raw();
    if !metadata.is_file() {
        return Err(Unread::Refused("it is not a regular file".into(), "put a file there".into()));
    }
    if metadata.uid() != 0 && metadata.uid() != own {
        return Err(Unread::Refused(
            format!("it belongs to user {}", metadata.uid()),
            "log in as the user who runs stillpoint, or set DOCKER_CONFIG to a directory of root's"
                .into(),
        ));
    }
    if metadata.mode() & WRITABLE_BY_OTHERS != 0 {
        return Err(Unread::Refused(
            format!("its mode is {:04o}: others may write it", metadata.mode() & 0o7777),
            format!("chmod 0600 {}", file.display()),
        ));
    }
    if metadata.mode() & 0o077 != 0 {
        tracing::warn!("{} holds passwords and others may read it: chmod 0600", file.display());
    }
    let mut bytes = Zeroizing::new(Vec::new());
    opened.take(LONGEST_FILE + 1).read_to_end(&mut bytes).map_err(refused)?;
    if bytes.len() as u64 > LONGEST_FILE {
        let longer = format!("it is longer than {LONGEST_FILE} bytes");
        return Err(Unread::Refused(longer, "this is not docker's file".into()));
    }
    Ok(bytes)
}

impl File {
    /// Who would know what `auths` does not.
    fn who_else(&self, file: &Path, registry: &str) -> Looked {
        let helper = entry_of(&self.cred_helpers, registry).or(self.creds_store.as_ref());
        match helper.filter(|name| !name.is_empty()) {
            Some(helper) => Looked::Helper(file.to_owned(), crate::hook::text::clean(helper, 40)),
            None => Looked::NoEntry(file.to_owned()),
        }
    }
}

impl Entry {
    /// With a helper, docker leaves an empty entry.
    fn says_something(&self) -> bool {
        self.auth.as_ref().is_some_and(|auth| !auth.is_empty())
            || self.username.is_some()
            || self.identitytoken.is_some()
    }

    /// None if it has an identity token instead.
    fn login(&self) -> Result<Option<Login>, &'static str> {
        if self.identitytoken.as_ref().is_some_and(|token| !token.is_empty()) {
            return Ok(None);
        }
        if let Some(auth) = self.auth.as_ref().filter(|auth| !auth.is_empty()) {
            return decoded(auth).map(Some);
        }
        let user = self.username.clone().unwrap_or_default();
        let password = self.password.clone().unwrap_or_default();
        Ok(Some(Login { user, password }))
    }
}

/// `base64(name:password)`.
fn decoded(auth: &str) -> Result<Login, &'static str> {
    let bytes = Zeroizing::new(STANDARD.decode(auth.trim()).map_err(|_| "is not base64")?);
    let text = std::str::from_utf8(&bytes).map_err(|_| "is not UTF-8")?;
    let (user, password) = text.split_once(':').ok_or("is not name:password")?;
    let password = Zeroizing::new(password.trim_end_matches('\0').to_owned());
    Ok(Login { user: user.to_owned(), password })
}

/// The entry for a registry: by its name, or by an address of it, as older dockers wrote.
fn entry_of<'a, T>(entries: &'a BTreeMap<String, T>, registry: &str) -> Option<&'a T> {
    let alike = |host: &str| match host {
        "docker.io" | "registry-1.docker.io" => "index.docker.io".to_owned(),
        other => other.to_ascii_lowercase(),
    };
    entries.get(registry).or_else(|| {
        entries.iter().find_map(|(key, entry)| {
            let key = key.strip_prefix("https://").or(key.strip_prefix("http://")).unwrap_or(key);
            let host = key.split('/').next().unwrap_or_default();
            (alike(host) == alike(registry)).then_some(entry)
        })
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        (directory, path)
    }

    fn basic(user: &str, password: &str) -> String {
        STANDARD.encode(format!("{user}:{password}"))
    }

    #[test]
    fn what_docker_login_writes_is_found_by_registry() {
        let text = format!(
            r#"{{"auths": {{"a.example.com:5000": {{"auth": "{}"}}, "https://index.docker.io/v1/": {{"auth": "{}"}}}}}}"#,
            basic("me", "pass:word"),
            basic("hub", "pw"),
        );
        let (_directory, path) = file(&text);
        let login = look_up(&path, "a.example.com:5000").unwrap().0.unwrap();
        assert_eq!((login.user.as_str(), login.password.as_str()), ("me", "pass:word"));
        assert_eq!(look_up(&path, "docker.io").unwrap().0.unwrap().user, "hub");
        let (login, looked) = look_up(&path, "a.example.com").unwrap();
        assert!(login.is_none(), "another port is another registry");
        assert_eq!(looked, Looked::NoEntry(path));
    }

    #[test]
    fn a_helper_is_named_and_not_run() {
        let (_directory, path) = file(
            r#"{"auths": {"a": {}}, "credsStore": "desktop", "credHelpers": {"b": "ecr-login"}}"#,
        );
        assert_eq!(look_up(&path, "a").unwrap().1, Looked::Helper(path.clone(), "desktop".into()));
        assert_eq!(
            look_up(&path, "b").unwrap().1,
            Looked::Helper(path.clone(), "ecr-login".into())
        );
    }

    #[test]
    fn no_error_repeats_a_password() {
        for text in [
            r#"{"auths": {"a": {"auth": "geheim!"}}}"#,
            r#"{"auths": {"a": {"auth": "Z2VoZWlt"}}}"#, // "geheim", without a colon
            r#"{"auths": {"a": {"auth": 1, "password": "geheim"}}}"#,
            r#"{"auths": {"a": {"password": geheim"#,
        ] {
            let (_directory, path) = file(text);
            let error = look_up(&path, "a").map(|_| ()).unwrap_err();
            let told = format!("{error} {error:?} {:?}", error.hint());
            assert!(!told.contains("geheim") && !told.contains("Z2Vo"), "{told}");
            assert!(told.contains("config.json"), "{told}");
        }
    }

    #[test]
    fn a_file_that_others_may_write_is_refused() {
        let (_directory, path) = file("{}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o622)).unwrap();
        let error = look_up(&path, "a").map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("0622"), "{error}");
        assert!(error.hint().unwrap().contains("chmod 0600"), "{:?}", error.hint());
    }

    #[test]
    fn no_file_is_no_error_and_a_fifo_does_not_hang() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("config.json");
        assert_eq!(look_up(&missing, "a").unwrap().1, Looked::NoFile(missing.clone()));
        nix::unistd::mkfifo(&missing, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        assert!(look_up(&missing, "a").is_err());
    }
}
