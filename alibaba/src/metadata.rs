//! The metadata service of the instance: hardened mode first, then plain. Link-local, so never
//! through a proxy, never redirected, and a second is long.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use reqwest::header::HeaderValue;
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use tokio::sync::Mutex;

use crate::credentials::{Credentials, Secret};
use crate::http::{self, BodyError, BoxedError};

/// Where it is on every instance.
pub const ENDPOINT: &str = "http://100.100.100.200";
/// Another place, for tests.
pub const ENDPOINT_VARIABLE: &str = "ALIBABA_CLOUD_ECS_METADATA_SERVICE_ENDPOINT";
/// `true`: the plain mode is never used.
pub const PLAIN_DISABLED_VARIABLE: &str = "ALIBABA_CLOUD_IMDSV1_DISABLED";

/// For connecting, and for an answer.
const TIMEOUT: Duration = Duration::from_secs(1);
/// How long a token of the hardened mode lives, in seconds; 1 to 21600 are allowed.
const TOKEN_TTL: u64 = 21_600;
/// A token is used for less than it lives.
const TOKEN_USE: Duration = Duration::from_secs(TOKEN_TTL - 300);
/// The longest answer that is read.
const LONGEST: usize = 64 << 10;

/// Which metadata service, and how.
#[derive(Clone, Debug)]
pub struct MetadataOptions {
    /// `http://host[:port]`.
    pub endpoint: String,
    /// Never fall back to the plain mode.
    pub plain_disabled: bool,
}

impl Default for MetadataOptions {
    /// The instance's own service.
    fn default() -> Self {
        Self { endpoint: ENDPOINT.to_owned(), plain_disabled: false }
    }
}

/// What the metadata service did not give.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataError {
    /// Nobody answers.
    #[error("the metadata service at {endpoint} does not answer")]
    Unreachable {
        /// Where.
        endpoint: String,
        /// Why.
        #[source]
        source: BoxedError,
    },
    /// It refuses.
    #[error("the metadata service answered HTTP {status} for {path}")]
    Refused {
        /// What was asked for.
        path: String,
        /// HTTP status.
        status: u16,
    },
    /// No role is attached to the instance, or not this one.
    #[error("{}", no_role(role.as_deref()))]
    NoRole {
        /// The role that was asked for, if one was.
        role: Option<String>,
    },
    /// It has no credentials for the role: `Code` is not `Success`.
    #[error("the metadata service has no credentials for role {role}: {code}")]
    NoCredentials {
        /// The role.
        role: String,
        /// What it says.
        code: String,
    },
    /// Its answer is not what it should be.
    #[error("the metadata service's answer for {path} is not usable: {problem}")]
    Malformed {
        /// What was asked for.
        path: String,
        /// What is wrong with the answer.
        problem: String,
    },
    /// It gives no token, and the plain mode is switched off.
    #[error("the metadata service gives no token, and {PLAIN_DISABLED_VARIABLE} is set")]
    NoToken(#[source] BoxedError),
    /// The HTTP client cannot be made.
    #[error("cannot make an HTTP client for the metadata service at {endpoint}")]
    Client {
        /// Where.
        endpoint: String,
        /// Why.
        #[source]
        source: BoxedError,
    },
}

fn no_role(role: Option<&str>) -> String {
    match role {
        Some(role) => format!("the RAM role {role} is not attached to this instance"),
        None => "no RAM role is attached to this instance".to_owned(),
    }
}

impl MetadataError {
    /// The cause, for whoever says the rest in words of his own.
    #[must_use]
    pub fn into_source(self) -> Option<BoxedError> {
        match self {
            MetadataError::Unreachable { source, .. }
            | MetadataError::Client { source, .. }
            | MetadataError::NoToken(source) => Some(source),
            _ => None,
        }
    }

    /// What the operator can do next.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            MetadataError::Unreachable { .. } => {
                "is this an ECS instance, and is 100.100.100.200 not blocked by a firewall rule?"
            }
            MetadataError::Refused { status: 401 | 403, .. } => {
                "does a proxy or a firewall rule stand between this process and the service?"
            }
            MetadataError::NoRole { .. } => {
                "attach a RAM role to the instance (console: Instance, More, Bind/Unbind RAM \
                 Role) and name it as RamRoleName, or as `role` in stillpoint.toml"
            }
            MetadataError::NoCredentials { .. } => {
                "a role that was attached a moment ago needs a few seconds; is it a role that ECS \
                 is trusted to assume?"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

/// How the service wants to be asked.
#[derive(Debug, Default)]
enum Mode {
    #[default]
    Unknown,
    Hardened {
        token: Secret,
        until: Instant,
    },
    Plain,
}

/// The metadata service of this instance.
#[derive(Debug)]
pub struct Metadata {
    http: reqwest::Client,
    options: MetadataOptions,
    mode: Mutex<Mode>,
}

/// The credentials of a role, as the service writes them.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RoleDocument {
    code: Option<String>,
    access_key_id: Option<String>,
    access_key_secret: Option<String>,
    security_token: Option<String>,
    expiration: Option<String>,
}

impl Metadata {
    /// A client. Asks nothing yet.
    ///
    /// # Errors
    /// If the HTTP client cannot be made.
    pub fn new(mut options: MetadataOptions) -> Result<Self, MetadataError> {
        if !options.endpoint.contains("://") {
            options.endpoint.insert_str(0, "http://");
        }
        options.endpoint.truncate(options.endpoint.trim_end_matches('/').len());
        let failed = |source| MetadataError::Client { endpoint: options.endpoint.clone(), source };
        let http = http::builder()
            .tls_backend_preconfigured(http::no_tls().map_err(failed)?)
            .no_proxy()
            .connect_timeout(TIMEOUT)
            .timeout(TIMEOUT)
            .build()
            .map_err(|error| failed(http::anonymous(error)))?;
        Ok(Self { http, options, mode: Mutex::default() })
    }

    /// The id of this instance, `i-…`.
    ///
    /// # Errors
    /// If the service does not give it.
    pub async fn instance_id(&self) -> Result<String, MetadataError> {
        self.name("instance-id").await
    }

    /// The region of this instance, `cn-hangzhou`.
    ///
    /// # Errors
    /// If the service does not give it.
    pub async fn region_id(&self) -> Result<String, MetadataError> {
        self.name("region-id").await
    }

    /// The role that is attached to this instance.
    ///
    /// # Errors
    /// [`MetadataError::NoRole`] if there is none.
    pub async fn role(&self) -> Result<String, MetadataError> {
        let path = "ram/security-credentials/";
        let text = match self.get(path).await {
            Err(MetadataError::Refused { status: 404, .. }) => String::new(),
            other => other?,
        };
        match text.lines().map(str::trim).find(|line| !line.is_empty()) {
            Some(role) => check_name(path, role),
            None => Err(MetadataError::NoRole { role: None }),
        }
    }

    /// The credentials of a role.
    ///
    /// # Errors
    /// [`MetadataError::NoRole`] if it is not attached to this instance.
    pub async fn role_credentials(&self, role: &str) -> Result<Credentials, MetadataError> {
        let path = format!("ram/security-credentials/{}", crate::sign::encode(role));
        let text = match self.get(&path).await {
            Err(MetadataError::Refused { status: 404, .. }) => {
                return Err(MetadataError::NoRole { role: Some(role.to_owned()) });
            }
            other => zeroize::Zeroizing::new(other?),
        };
        let malformed = |problem: String| MetadataError::Malformed { path: path.clone(), problem };
        // The error of the JSON parser names a place, never a value; still only the place is kept.
        let document: RoleDocument = serde_json::from_str(&text)
            .map_err(|error| malformed(format!("not JSON, at column {}", error.column())))?;
        let code = document.code.unwrap_or_default();
        if code != "Success" {
            let code = if code.is_empty() { "it gives no Code".to_owned() } else { plain(&code) };
            return Err(MetadataError::NoCredentials { role: role.to_owned(), code });
        }
        let need = |value: Option<String>, name: &str| {
            value.filter(|it| !it.is_empty()).ok_or_else(|| malformed(format!("no {name}")))
        };
        let expiration = need(document.expiration, "Expiration")?;
        let expires: Timestamp =
            expiration.parse().map_err(|_| malformed("Expiration is not a time".to_owned()))?;
        Ok(Credentials {
            key_id: need(document.access_key_id, "AccessKeyId")?,
            secret: Secret::new(need(document.access_key_secret, "AccessKeySecret")?),
            token: Some(Secret::new(need(document.security_token, "SecurityToken")?)),
            expires: Some(expires),
        })
    }

    async fn name(&self, path: &str) -> Result<String, MetadataError> {
        let text = self.get(path).await?;
        check_name(path, text.trim())
    }

    /// One item. A token that is not accepted any more is renewed once.
    async fn get(&self, path: &str) -> Result<String, MetadataError> {
        match self.try_get(path).await {
            Err(MetadataError::Refused { status: 401 | 403, .. }) => {
                *self.mode.lock().await = Mode::Unknown;
                self.try_get(path).await
            }
            other => other,
        }
    }

    async fn try_get(&self, path: &str) -> Result<String, MetadataError> {
        let token = self.token().await?;
        let url = format!("{}/latest/meta-data/{path}", self.options.endpoint);
        let mut request = self.http.get(url);
        if let Some(token) = token {
            request = request.header("X-aliyun-ecs-metadata-token", sensitive(&token, path)?);
        }
        let (status, text) = self.send(request).await?;
        if status == StatusCode::OK {
            return Ok(text);
        }
        Err(MetadataError::Refused { path: path.to_owned(), status: status.as_u16() })
    }

    /// The token of the hardened mode; `None` if the service has only the plain one.
    async fn token(&self) -> Result<Option<Secret>, MetadataError> {
        let mut mode = self.mode.lock().await;
        match &*mode {
            Mode::Hardened { token, until } if Instant::now() < *until => {
                return Ok(Some(token.clone()));
            }
            Mode::Plain => return Ok(None),
            _ => {}
        }
        match self.fetch_token().await {
            Ok(token) => {
                let until = Instant::now() + TOKEN_USE;
                *mode = Mode::Hardened { token: token.clone(), until };
                Ok(Some(token))
            }
            Err(error) if self.options.plain_disabled => {
                Err(MetadataError::NoToken(Box::new(error)))
            }
            Err(error) => {
                tracing::debug!("metadata service: plain mode, because {error}");
                *mode = Mode::Plain;
                Ok(None)
            }
        }
    }

    async fn fetch_token(&self) -> Result<Secret, MetadataError> {
        let path = "api/token";
        let url = format!("{}/latest/{path}", self.options.endpoint);
        let request = self.http.request(Method::PUT, url);
        let request = request.header("X-aliyun-ecs-metadata-token-ttl-seconds", TOKEN_TTL);
        let (status, text) = self.send(request).await?;
        let token = text.trim();
        if status != StatusCode::OK {
            return Err(MetadataError::Refused { path: path.to_owned(), status: status.as_u16() });
        }
        if token.is_empty() {
            let problem = "the token is empty".to_owned();
            return Err(MetadataError::Malformed { path: path.to_owned(), problem });
        }
        Ok(Secret::new(token))
    }

    async fn send(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<(StatusCode, String), MetadataError> {
        let unreachable = |error: reqwest::Error| MetadataError::Unreachable {
            endpoint: self.options.endpoint.clone(),
            source: http::anonymous(error),
        };
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let malformed =
            |problem: String| MetadataError::Malformed { path: "a request".to_owned(), problem };
        let bytes = http::body(response, LONGEST).await.map_err(|error| match error {
            BodyError::Lost(error) => unreachable(error),
            BodyError::TooLong(longest) => malformed(format!("longer than {longest} bytes")),
        })?;
        let text = String::from_utf8(bytes).map_err(|_| malformed("it is not UTF-8".to_owned()))?;
        Ok((status, text))
    }
}

/// A header that no debug output shows.
fn sensitive(secret: &Secret, path: &str) -> Result<HeaderValue, MetadataError> {
    let mut value = HeaderValue::from_str(secret.reveal()).map_err(|_| {
        let problem = "the token is not text".to_owned();
        MetadataError::Malformed { path: path.to_owned(), problem }
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// Ids and names become parts of host names and paths: what does not look like one is none.
fn check_name(path: &str, name: &str) -> Result<String, MetadataError> {
    let fits = |character: char| character.is_ascii_alphanumeric() || "-_.@".contains(character);
    if !name.is_empty() && name.len() <= 128 && name.chars().all(fits) {
        return Ok(name.to_owned());
    }
    let problem = if name.is_empty() { "it is empty" } else { "it is not a name" }.to_owned();
    Err(MetadataError::Malformed { path: path.to_owned(), problem })
}

/// Text from outside, for a terminal: short, without control characters.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(400).collect()
}
