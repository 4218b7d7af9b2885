//! `connections.toml`: the databases that the operator names. Addresses and passwords stay on this
//! side; a hook only ever gives a name.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{env, fmt};

use serde::Deserialize;
use toml::Spanned;
use zeroize::Zeroizing;

use super::read::{
    ConfigError, Document, Location, OPEN_TO_OTHERS, WRITABLE_BY_OTHERS, parse_duration,
    read_trusted,
};
use crate::paths::Paths;

const DEFAULT_PORT: u16 = 3306;
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
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
    /// As whom.
    pub user: String,
    /// Where the password is; none for the `unix_socket` plugin.
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
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A unix socket.
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
        let raw: RawFile = document.parse()?;
        let by_name = raw
            .connections
            .into_iter()
            .map(|(name, raw)| {
                let connection = raw.validated(name, &document)?;
                Ok((connection.name.clone(), Arc::new(connection)))
            })
            .collect::<Result<_, ConfigError>>()?;
        Ok(Self { path, by_name })
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    connections: BTreeMap<Spanned<String>, RawConnection>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawConnection {
    engine: Engine,
    socket: Option<Spanned<PathBuf>>,
    host: Option<Spanned<String>>,
    port: Option<Spanned<u16>>,
    tls: Option<Spanned<RawTls>>,
    user: Spanned<String>,
    password_file: Option<Spanned<PathBuf>>,
    credential: Option<Spanned<String>>,
    connect_timeout: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawTls {
    mode: Option<RawTlsMode>,
    ca_file: Option<Spanned<PathBuf>>,
    server_name: Option<Spanned<String>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RawTlsMode {
    Verify,
    Required,
    Off,
}

impl RawConnection {
    fn validated(self, name: Spanned<String>, at: &Document) -> Result<Connection, ConfigError> {
        let described_at = at.location(&name.span());
        let endpoint = self.endpoint(&name, at)?;
        let password = self.password(at)?;
        let connect_timeout = match &self.connect_timeout {
            None => DEFAULT_CONNECT_TIMEOUT,
            Some(text) => {
                parse_duration(text.get_ref()).map_err(|why| at.invalid(text.span(), why))?
            }
        };
        if self.user.get_ref().is_empty() {
            return Err(at.invalid(self.user.span(), "`user` is empty"));
        }
        Ok(Connection {
            name: name.into_inner(),
            engine: self.engine,
            endpoint,
            user: self.user.into_inner(),
            password,
            connect_timeout,
            described_at,
        })
    }

    fn endpoint(&self, name: &Spanned<String>, at: &Document) -> Result<Endpoint, ConfigError> {
        match (&self.socket, &self.host) {
            (Some(socket), None) => self.socket_endpoint(socket, at),
            (None, Some(host)) => Ok(Endpoint::Tcp {
                host: host.get_ref().clone(),
                port: self.port.as_ref().map_or(DEFAULT_PORT, |port| *port.get_ref()),
                tls: self.tls(host, at)?,
            }),
            (Some(_), Some(host)) => {
                Err(at.invalid(host.span(), "`socket` and `host` exclude each other"))
            }
            (None, None) => Err(at.invalid(
                name.span(),
                format!("connection `{}` needs `socket` or `host`", name.get_ref()),
            )),
        }
    }

    fn socket_endpoint(
        &self,
        socket: &Spanned<PathBuf>,
        at: &Document,
    ) -> Result<Endpoint, ConfigError> {
        if let Some(port) = &self.port {
            return Err(at.invalid(port.span(), "`port` has no meaning with `socket`"));
        }
        if let Some(tls) = &self.tls {
            return Err(at.invalid(tls.span(), "`tls` has no meaning with `socket`"));
        }
        Ok(Endpoint::Socket(absolute(socket, "socket", at)?))
    }

    fn tls(&self, host: &Spanned<String>, at: &Document) -> Result<Tls, ConfigError> {
        let Some(tls) = &self.tls else {
            if is_loopback(host.get_ref()) {
                return Ok(Tls::Off);
            }
            return Err(at
                .invalid(
                    host.span(),
                    format!("`{}` is not this machine, and TLS is not set", host.get_ref()),
                )
                .with_hint(
                    "add a [connections.<name>.tls] table with ca-file; mode = \"off\" sends everything in the clear",
                ));
        };
        let raw = tls.get_ref();
        let mode = raw.mode.unwrap_or(RawTlsMode::Verify);
        if mode != RawTlsMode::Verify {
            let extra = raw.ca_file.as_ref().map(|file| ("ca-file", file.span()));
            let extra = extra.or(raw.server_name.as_ref().map(|name| ("server-name", name.span())));
            if let Some((key, span)) = extra {
                return Err(at.invalid(span, format!("`{key}` needs mode = \"verify\"")));
            }
        }
        Ok(match mode {
            RawTlsMode::Off => Tls::Off,
            RawTlsMode::Required => Tls::Required,
            RawTlsMode::Verify => Tls::Verify {
                ca_file: raw
                    .ca_file
                    .as_ref()
                    .map(|file| absolute(file, "ca-file", at))
                    .transpose()?,
                server_name: raw.server_name.as_ref().map(|name| name.get_ref().clone()),
            },
        })
    }

    fn password(&self, at: &Document) -> Result<Option<PasswordSource>, ConfigError> {
        match (&self.password_file, &self.credential) {
            (None, None) => Ok(None),
            (Some(file), None) => {
                Ok(Some(PasswordSource::File(absolute(file, "password-file", at)?)))
            }
            (None, Some(name)) => {
                let text = name.get_ref();
                if text.is_empty() || text.contains('/') || text.starts_with('.') {
                    return Err(at.invalid(
                        name.span(),
                        format!("`{text}` is not the name of a systemd credential"),
                    ));
                }
                Ok(Some(PasswordSource::Credential(text.clone())))
            }
            (Some(_), Some(name)) => {
                Err(at.invalid(name.span(), "`password-file` and `credential` exclude each other"))
            }
        }
    }
}

fn absolute(path: &Spanned<PathBuf>, key: &str, at: &Document) -> Result<PathBuf, ConfigError> {
    if path.get_ref().is_absolute() {
        return Ok(path.get_ref().clone());
    }
    Err(at.invalid(
        path.span(),
        format!("`{key}` must be an absolute path, not `{}`", path.get_ref().display()),
    ))
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(text: &str) -> Result<Connections, ConfigError> {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        std::fs::create_dir_all(paths.config()).unwrap();
        std::fs::write(paths.config().join("connections.toml"), text).unwrap();
        Connections::load(&paths)
    }

    fn refusal(text: &str) -> String {
        loaded(text).unwrap_err().to_string()
    }

    #[test]
    fn a_socket_connection_needs_a_socket_and_a_user() {
        let all = loaded(
            "[connections.main]\nengine = \"mysql\"\nsocket = \"/run/m.sock\"\nuser = \"s\"\n",
        );
        let all = all.unwrap();
        let main = all.get("main").unwrap();
        assert_eq!(main.endpoint, Endpoint::Socket("/run/m.sock".into()));
        assert_eq!(main.described_at.line, 1);
        assert!(main.secret().unwrap().is_none());
    }

    #[test]
    fn tcp_to_another_machine_without_tls_is_refused() {
        let error =
            refusal("[connections.a]\nengine = \"mysql\"\nhost = \"db.example\"\nuser = \"s\"\n");
        assert!(
            error.contains("connections.toml:3:8: `db.example` is not this machine"),
            "{error}"
        );
    }

    #[test]
    fn tcp_in_the_clear_must_be_said() {
        let text = "[connections.a]\nengine = \"mysql\"\nhost = \"db.example\"\nuser = \"s\"\n[connections.a.tls]\nmode = \"off\"\n";
        let endpoint = loaded(text).unwrap().get("a").unwrap().endpoint.clone();
        assert_eq!(
            endpoint,
            Endpoint::Tcp { host: "db.example".into(), port: 3306, tls: Tls::Off }
        );
    }

    #[test]
    fn an_unknown_engine_is_named_with_what_there_is() {
        let error =
            refusal("[connections.a]\nengine = \"mongodb\"\nsocket = \"/s\"\nuser = \"s\"\n");
        assert!(error.contains(":2:10: unknown variant `mongodb`"), "{error}");
        assert!(error.contains("mysql"), "{error}");
    }

    #[test]
    fn a_password_file_that_others_can_read_is_refused_and_the_password_is_in_no_text() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        std::fs::create_dir_all(paths.config()).unwrap();
        let file = root.path().join("password");
        std::fs::write(&file, "geheim\n").unwrap();
        let text = format!(
            "[connections.a]\nengine = \"mysql\"\nsocket = \"/s\"\nuser = \"s\"\npassword-file = {file:?}\n"
        );
        std::fs::write(paths.config().join("connections.toml"), text).unwrap();
        let connections = Connections::load(&paths).unwrap();
        let connection = connections.get("a").unwrap();

        let error = connection.secret().unwrap_err();
        assert!(error.to_string().contains("mode is 0644"), "{error}");
        assert_eq!(error.hint().unwrap(), format!("chmod 0600 {}", file.display()));

        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let secret = connection.secret().unwrap().unwrap();
        assert_eq!(secret.expose(), "geheim");
        assert_eq!(format!("{secret:?}"), "***");
        assert!(!format!("{connections:?}").contains("geheim"));
    }
}
