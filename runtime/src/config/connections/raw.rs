//! The text of `connections.toml`, and what is wrong with it: every error has its line and column.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::{Connection, Endpoint, Engine, PasswordSource, Tls};
use crate::config::read::{ConfigError, Document, parse_duration};

const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What the name of a PostgreSQL server's socket begins with; its port follows.
const POSTGRESQL_SOCKET: &str = ".s.PGSQL.";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFile {
    #[serde(default)]
    pub(super) connections: BTreeMap<Spanned<String>, RawConnection>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawConnection {
    engine: Engine,
    socket: Option<Spanned<PathBuf>>,
    host: Option<Spanned<String>>,
    port: Option<Spanned<u16>>,
    tls: Option<Spanned<RawTls>>,
    user: Option<Spanned<String>>,
    database: Option<Spanned<String>>,
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
    pub(super) fn validated(
        self,
        name: Spanned<String>,
        at: &Document,
    ) -> Result<Connection, ConfigError> {
        let described_at = at.location(&name.span());
        let endpoint = self.endpoint(&name, at)?;
        let password = self.password(at)?;
        let connect_timeout = match &self.connect_timeout {
            None => DEFAULT_CONNECT_TIMEOUT,
            Some(text) => {
                parse_duration(text.get_ref()).map_err(|why| at.invalid(text.span(), why))?
            }
        };
        self.check_user(&name, at)?;
        self.check_database(at)?;
        Ok(Connection {
            name: name.into_inner(),
            engine: self.engine,
            endpoint,
            user: self.user.map(Spanned::into_inner),
            database: self.database.map(Spanned::into_inner),
            password,
            connect_timeout,
            described_at,
        })
    }

    /// Redis alone has a user that needs no name.
    fn check_user(&self, name: &Spanned<String>, at: &Document) -> Result<(), ConfigError> {
        match &self.user {
            Some(user) if user.get_ref().is_empty() => {
                Err(at.invalid(user.span(), "`user` is empty"))
            }
            None if self.engine != Engine::Redis => Err(at
                .invalid(name.span(), format!("connection `{}` needs `user`", name.get_ref()))
                .with_hint(format!("add user = \"…\" to [connections.{}]", name.get_ref()))),
            _ => Ok(()),
        }
    }

    fn check_database(&self, at: &Document) -> Result<(), ConfigError> {
        match &self.database {
            Some(database) if self.engine != Engine::Postgresql => Err(at.invalid(
                database.span(),
                format!("`database` has no meaning for a {} server", self.engine),
            )),
            Some(database) if database.get_ref().is_empty() => {
                Err(at.invalid(database.span(), "`database` is empty"))
            }
            _ => Ok(()),
        }
    }

    fn endpoint(&self, name: &Spanned<String>, at: &Document) -> Result<Endpoint, ConfigError> {
        match (&self.socket, &self.host) {
            (Some(socket), None) => self.socket_endpoint(socket, at),
            (None, Some(host)) => Ok(Endpoint::Tcp {
                host: host.get_ref().clone(),
                port: self.port(),
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

    fn port(&self) -> u16 {
        self.port.as_ref().map_or_else(|| self.engine.default_port(), |port| *port.get_ref())
    }

    fn socket_endpoint(
        &self,
        socket: &Spanned<PathBuf>,
        at: &Document,
    ) -> Result<Endpoint, ConfigError> {
        let path = absolute(socket, "socket", at)?;
        // PostgreSQL's users know the directory and the port; the socket's name is made of the port.
        let is_directory = self.engine == Engine::Postgresql && !is_postgresql_socket(&path);
        if let Some(port) = self.port.as_ref().filter(|_| !is_directory) {
            return Err(at.invalid(port.span(), "`port` has no meaning with `socket`"));
        }
        if let Some(tls) = &self.tls {
            return Err(at.invalid(tls.span(), "`tls` has no meaning with `socket`"));
        }
        let socket = match is_directory {
            true => path.join(format!("{POSTGRESQL_SOCKET}{}", self.port())),
            false => path,
        };
        Ok(Endpoint::Socket(socket))
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

/// Whether a path is a PostgreSQL socket by its name, and not the directory that it is in.
fn is_postgresql_socket(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(POSTGRESQL_SOCKET))
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
