//! `connections.toml`: the databases that the operator names. Addresses and passwords stay on this
//! side; a hook only ever gives a name.

mod raw;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{env, fmt};

use serde::Deserialize;
use zeroize::Zeroizing;

use super::read::{
    ConfigError, Document, Location, OPEN_TO_OTHERS, WRITABLE_BY_OTHERS, read_trusted,
};
use crate::capability::statement::Placeholder;
use crate::paths::Paths;
use raw::RawFile;

const LONGEST_PASSWORD_FILE: u64 = 4096;
const LONGEST_CA_FILE: u64 = 4 << 20;

/// The connections of `connections.toml`, by name.
#[derive(Clone, Debug, Default)]
pub struct Connections {
    path: PathBuf,
    by_name: BTreeMap<String, Arc<Connection>>,
}

/// One connection, as the operator describes it.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The operator's name for it.
    pub name: String,
    /// What answers there.
    pub engine: Engine,
    /// Where.
    pub endpoint: Endpoint,
    /// As whom; only Redis may have none.
    pub user: Option<String>,
    /// PostgreSQL: which database of the server; default `postgres`.
    pub database: Option<String>,
    /// Where the password is; none where the socket says who asks (`unix_socket`, `peer`).
    pub password: Option<PasswordSource>,
    /// How long opening may take; default 5 s.
    pub connect_timeout: Duration,
    /// Where in `connections.toml` it is described.
    pub described_at: Location,
}

/// What answers at a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// MySQL, MariaDB, Percona Server.
    Mysql,
    /// PostgreSQL.
    Postgresql,
    /// Redis.
    Redis,
}

impl Engine {
    /// The port that its servers have if nobody says otherwise.
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Engine::Mysql => 3306,
            Engine::Postgresql => 5432,
            Engine::Redis => 6379,
        }
    }

    /// How its texts write a parameter.
    #[must_use]
    pub fn placeholder(self) -> Placeholder {
        match self {
            Engine::Mysql | Engine::Redis => Placeholder::Question,
            Engine::Postgresql => Placeholder::Numbered,
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Engine::Mysql => "mysql",
            Engine::Postgresql => "postgresql",
            Engine::Redis => "redis",
        })
    }
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A unix socket: the path of the socket itself.
    Socket(PathBuf),
    /// TCP.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
        /// Encryption.
        tls: Tls,
    },
}

/// Encryption of a TCP connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tls {
    /// None: loopback, or said explicitly.
    Off,
    /// Encrypted, but whoever answers is believed.
    Required,
    /// Encrypted, and the server's certificate is checked.
    Verify {
        /// PEM file of the authorities to believe; the public ones if none is given.
        ca_file: Option<PathBuf>,
        /// The name in the certificate, if it is not the host.
        server_name: Option<String>,
    },
}

/// Where a password is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PasswordSource {
    /// A file of root, mode 0600 or less.
    File(PathBuf),
    /// A systemd credential of the service.
    Credential(String),
}

/// A secret. It never shows in `Debug`, and its memory is wiped when it is dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// The secret itself. Only ever given to the database client.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Connections {
    /// Reads `connections.toml`. Without the file there are no connections.
    ///
    /// # Errors
    /// If the file is not trusted or its content is wrong.
    pub fn load(paths: &Paths) -> Result<Self, ConfigError> {
        let path = paths.config().join("connections.toml");
        let document = match Document::read(&path) {
            Err(error) if error.is_not_found() => return Ok(Self { path, ..Self::default() }),
            other => other?,
        };
        Self::of(&document)
    }

    /// Reads connections that are in memory.
    pub(crate) fn of(document: &Document) -> Result<Self, ConfigError> {
        let raw: RawFile = document.parse()?;
        let by_name = raw
            .connections
            .into_iter()
            .map(|(name, raw)| {
                let connection = raw.validated(name, document)?;
                Ok((connection.name.clone(), Arc::new(connection)))
            })
            .collect::<Result<_, ConfigError>>()?;
        Ok(Self { path: document.path().to_owned(), by_name })
    }

    /// The connection of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Connection>> {
        self.by_name.get(name)
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Connection {
    /// Reads the password, if there is one. The file is opened once and checked by descriptor.
    ///
    /// # Errors
    /// If it cannot be read, or others could read it too. The secret is in no error text.
    pub fn secret(&self) -> Result<Option<Secret>, ConfigError> {
        let path = match &self.password {
            None => return Ok(None),
            Some(PasswordSource::File(path)) => path.clone(),
            Some(PasswordSource::Credential(name)) => self.credential_path(name)?,
        };
        let bytes = Zeroizing::new(read_trusted(&path, OPEN_TO_OTHERS, LONGEST_PASSWORD_FILE)?);
        let text = std::str::from_utf8(&bytes).map_err(|_| ConfigError::Untrusted {
            path: path.clone(),
            problem: "it is not UTF-8".into(),
            hint: "write the password as UTF-8 text, on one line".into(),
        })?;
        let password = text.strip_suffix('\n').unwrap_or(text);
        let password = password.strip_suffix('\r').unwrap_or(password);
        Ok(Some(Secret(Zeroizing::new(password.to_owned()))))
    }

    /// Reads the authorities' certificates, if the connection names a file of them. Links are
    /// followed, because distributions use them there; what they lead to must be root's.
    ///
    /// # Errors
    /// If the file cannot be read, or others could have written it.
    pub(crate) fn authorities(&self) -> Result<Option<Vec<u8>>, ConfigError> {
        let Endpoint::Tcp { tls: Tls::Verify { ca_file: Some(path), .. }, .. } = &self.endpoint
        else {
            return Ok(None);
        };
        let path = path
            .canonicalize()
            .map_err(|source| ConfigError::Unreadable { path: path.clone(), source })?;
        read_trusted(&path, WRITABLE_BY_OTHERS, LONGEST_CA_FILE).map(Some)
    }

    fn credential_path(&self, name: &str) -> Result<PathBuf, ConfigError> {
        let directory =
            env::var_os("CREDENTIALS_DIRECTORY").ok_or_else(|| ConfigError::Invalid {
                location: self.described_at.clone(),
                message: format!(
                    "credential `{name}` is not available: CREDENTIALS_DIRECTORY is not set"
                ),
                hint: Some(format!(
                    "run stillpoint as a systemd service with LoadCredential={name}:…, or use password-file"
                )),
            })?;
        Ok(Path::new(&directory).join(name))
    }

    /// Where it is, for people; without the password.
    #[must_use]
    pub fn address(&self) -> String {
        match &self.endpoint {
            Endpoint::Socket(path) => format!("socket {}", path.display()),
            Endpoint::Tcp { host, port, .. } => format!("{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests;
