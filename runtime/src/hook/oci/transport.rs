//! One registry, spoken to: every request has a deadline, every answer a bound, credentials go only
//! to the registry itself and to the token service that it names, and never in clear off this machine.

use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION,
};
use reqwest::{Body, Certificate, Client, Method, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::challenge::{Challenge, challenge};
use super::credentials::{Login, Looked, secret};
use super::error::OciError;
use super::reference::Reference;
use super::{Transfer, Watch};
use crate::hook::digest::Digest;
use crate::hook::text::clean;

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// To connect.
    pub(super) connect: Duration,
    /// Without a byte from the other side.
    pub(super) stall: Duration,
    /// A document, from request to end.
    pub(super) document: Duration,
    /// A module, from request to end.
    pub(super) blob: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            document: Duration::from_secs(30),
            blob: Duration::from_secs(600),
        }
    }
}

/// The longest manifest, index or token that is taken, in bytes: what registries themselves take.
pub(super) const LONGEST_DOCUMENT: u64 = 4 << 20;

/// How much is read of an answer that says no.
const LONGEST_REFUSAL: u64 = 8 << 10;

const MOST_REDIRECTS: usize = 5;

/// Bytes that are sent, and told of, at once.
const CHUNK: usize = 64 << 10;

/// What a token is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    Pull,
    Push,
}

/// A registry, and what we know of it.
pub(super) struct Transport {
    http: Client,
    base: Url,
    reference: Reference,
    right: Right,
    login: Option<Login>,
    looked: Looked,
    authorization: Option<HeaderValue>,
    limits: Limits,
}

/// A request that can be made again, with credentials.
pub(super) struct Request<'a> {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Option<Upload<'a>>,
    timeout: Duration,
    /// What it does, for errors: "reading the manifest".
    doing: &'a str,
}

struct Upload<'a> {
    bytes: &'a Arc<[u8]>,
    watch: Option<(&'static str, Watch)>,
}

impl Transport {
    /// A client for the registry of `reference`. On this machine the registry may speak plain http;
    /// elsewhere only if `plain_http` says so.
    pub(super) async fn connect(
        reference: &Reference,
        right: Right,
        credentials: (Option<Login>, Looked),
        (plain_http, ca_file): (bool, Option<&Path>),
        limits: Limits,
    ) -> Result<Self, OciError> {
        let (login, looked) = credentials;
        let may_be_plain = reference.is_loopback() && ca_file.is_none() && !plain_http;
        let mut own = Self {
            http: client(reference, plain_http || may_be_plain, ca_file, limits)?,
            base: base(reference, if plain_http { "http" } else { "https" })?,
            reference: reference.clone(),
            right,
            login,
            looked,
            authorization: None,
            limits,
        };
        if may_be_plain {
            match own.speaks_tls().await? {
                true => own.http = client(reference, false, None, limits)?,
                false => own.base = base(reference, "http")?,
            }
        }
        Ok(own)
    }

    /// Whether the other side, on this machine, speaks TLS. A certificate that is not trusted is TLS.
    async fn speaks_tls(&self) -> Result<bool, OciError> {
        let request = self.get("", "asking for its version")?;
        match self.attempt(&request, &request.url, true).await {
            Ok(_) | Err(OciError::Tls { .. }) => Ok(true),
            Err(OciError::NotTls { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) fn registry(&self) -> String {
        self.reference.registry().to_owned()
    }

    /// `/v2/` and then `rest`.
    fn url(&self, rest: &str) -> Result<Url, OciError> {
        self.base.join(rest).map_err(|error| OciError::Document {
            what: format!("an address of {}", self.registry()),
            problem: error.to_string(),
        })
    }

    /// A request for `rest` of this repository.
    pub(super) fn get<'a>(&self, rest: &str, doing: &'a str) -> Result<Request<'a>, OciError> {
        self.request(Method::GET, rest, doing)
    }

    pub(super) fn request<'a>(
        &self,
        method: Method,
        rest: &str,
        doing: &'a str,
    ) -> Result<Request<'a>, OciError> {
        let url = if rest.is_empty() {
            self.base.clone()
        } else {
            self.url(&format!("{}/{rest}", self.reference.repository()))?
        };
        let timeout = self.limits.document;
        Ok(Request { method, url, headers: HeaderMap::new(), body: None, timeout, doing })
    }

    /// A request for an address that the registry gave out for an upload.
    pub(super) fn at<'a>(
        &self,
        method: Method,
        url: Url,
        doing: &'a str,
    ) -> Result<Request<'a>, OciError> {
        self.may_go_to(&url, doing)?;
        let timeout = self.limits.document;
        Ok(Request { method, url, headers: HeaderMap::new(), body: None, timeout, doing })
    }

    /// How long a module may take.
    pub(super) fn blob_limit(&self) -> Duration {
        self.limits.blob
    }

    /// Makes the request; if the registry wants to know who we are, tells it and asks again.
    pub(super) async fn send(&mut self, request: &Request<'_>) -> Result<Response, OciError> {
        let response = self.follow(request).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let Some(asked) = challenge(response.headers()) else {
            return Err(self.unauthorized(request.doing, response).await);
        };
        if !self.authorize(asked, request.doing).await? {
            return Err(self.unauthorized(request.doing, response).await);
        }
        let response = self.follow(request).await?;
        match response.status() {
            StatusCode::UNAUTHORIZED => Err(self.unauthorized(request.doing, response).await),
            _ => Ok(response),
        }
    }

    /// Follows redirects of what is only read: to https, or within this registry.
    async fn follow(&self, request: &Request<'_>) -> Result<Response, OciError> {
        let mut url = request.url.clone();
        for _ in 0..=MOST_REDIRECTS {
            let ours = same_origin(&url, &self.base);
            let response = self.attempt(request, &url, ours).await?;
            let moves = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            if !moves || request.method != Method::GET {
                return Ok(response);
            }
            url = self.location(&response, &url, request.doing)?;
        }
        Err(self.redirect(&url, request.doing, "it does so again and again"))
    }

    /// Where an answer sends us, if we may go there.
    pub(super) fn location(
        &self,
        response: &Response,
        from: &Url,
        doing: &str,
    ) -> Result<Url, OciError> {
        let to = response
            .headers()
            .get(LOCATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|text| from.join(text).ok())
            .ok_or_else(|| OciError::Document {
                what: format!("the answer of {}", self.registry()),
                problem: format!("it has no address to go on with while {doing}"),
            })?;
        self.may_go_to(&to, doing)?;
        Ok(to)
    }

    /// Https anywhere; plain http only to the registry itself, if that is spoken to so.
    fn may_go_to(&self, to: &Url, doing: &str) -> Result<(), OciError> {
        if !to.username().is_empty() || to.password().is_some() {
            return Err(self.redirect(to, doing, "its address has credentials in it"));
        }
        match to.scheme() {
            "https" => Ok(()),
            "http" if same_origin(to, &self.base) => Ok(()),
            "http" => Err(self.redirect(
                to,
                doing,
                "that is plain http, where anybody could change what is sent",
            )),
            _ => Err(self.redirect(to, doing, "that is neither https nor http")),
        }
    }

    fn redirect(&self, to: &Url, doing: &str, problem: &'static str) -> OciError {
        let to = clean(&without_query(to), 200);
        OciError::Redirect { registry: self.registry(), doing: doing.into(), to, problem }
    }

    /// One request to one address. Credentials only if it is the registry's own.
    async fn attempt(
        &self,
        request: &Request<'_>,
        url: &Url,
        ours: bool,
    ) -> Result<Response, OciError> {
        let mut builder = self
            .http
            .request(request.method.clone(), url.clone())
            .headers(request.headers.clone())
            .timeout(request.timeout);
        if let Some(authorization) = self.authorization.as_ref().filter(|_| ours) {
            builder = builder.header(AUTHORIZATION, authorization.clone());
        }
        if let Some(upload) = &request.body {
            builder = upload.attach(builder);
        }
        let began = Instant::now();
        builder.send().await.map_err(|error| self.failed(error, request.doing, began))
    }

    /// Gets what the registry asks for. False if we have nothing to give.
    async fn authorize(&mut self, asked: Challenge, doing: &str) -> Result<bool, OciError> {
        let again = self.authorization.take().is_some();
        let header = match asked {
            // The same name and password again would be refused again.
            Challenge::Basic if again => return Ok(false),
            Challenge::Basic => match self.basic()? {
                None => return Ok(false),
                Some(header) => header,
            },
            Challenge::Bearer { realm, service } => self.token(&realm, service, doing).await?,
            Challenge::Other(scheme) => {
                let problem = format!("scheme {}", clean(&scheme, 40));
                return Err(OciError::Challenge { registry: self.registry(), problem });
            }
        };
        self.authorization = Some(header);
        Ok(true)
    }

    /// Name and password as a header, if we have them and nobody can listen.
    fn basic(&self) -> Result<Option<HeaderValue>, OciError> {
        let Some(login) = &self.login else { return Ok(None) };
        if self.base.scheme() != "https" && !self.reference.is_loopback() {
            return Err(OciError::PlainCredentials { registry: self.registry() });
        }
        self.secret(login.basic()).map(Some)
    }

    fn secret(&self, text: Zeroizing<String>) -> Result<HeaderValue, OciError> {
        let mut header = HeaderValue::from_str(&text).map_err(|_| OciError::Challenge {
            registry: self.registry(),
            problem: "its token has characters that no header has".into(),
        })?;
        header.set_sensitive(true);
        Ok(header)
    }

    /// A token from the service that the registry names, for this repository and this act alone.
    async fn token(
        &self,
        realm: &str,
        service: Option<String>,
        doing: &str,
    ) -> Result<HeaderValue, OciError> {
        let cannot = |problem: String| OciError::Challenge { registry: self.registry(), problem };
        let mut url = Url::parse(realm)
            .map_err(|error| cannot(format!("its realm is no address: {error}")))?;
        self.may_ask_for_token(&url, doing)?;
        let act = if self.right == Right::Push { "pull,push" } else { "pull" };
        if let Some(service) = service {
            url.query_pairs_mut().append_pair("service", &service);
        }
        let scope = format!("repository:{}:{act}", self.reference.repository());
        url.query_pairs_mut().append_pair("scope", &scope);
        let mut request = self.http.get(url).timeout(self.limits.document);
        if let Some(header) = self.basic()? {
            request = request.header(AUTHORIZATION, header);
        }
        let (doing, began) = ("asking for a token", Instant::now());
        let sent = request.send().await;
        let response = sent.map_err(|error| self.failed(error, doing, began))?;
        if !response.status().is_success() {
            return Err(self.refused(doing, response).await);
        }
        let bytes = self.body(response, LONGEST_DOCUMENT, "the token", |_| {}).await?;
        let bytes = Zeroizing::new(bytes);
        let token: Token = serde_json::from_slice(&bytes)
            .map_err(|_| cannot("what its token service sent is not a token".into()))?;
        let token = token.token.or(token.access_token).unwrap_or_default();
        if token.is_empty() {
            return Err(cannot("its token service sent no token".into()));
        }
        self.secret(Zeroizing::new(format!("Bearer {}", *token)))
    }

    /// Https; or, if the registry is on this machine and speaks plain http, on this machine as well.
    fn may_ask_for_token(&self, url: &Url, doing: &str) -> Result<(), OciError> {
        let here = url.host_str().is_some_and(|host| {
            format!("oci://{host}/a:1").parse::<Reference>().is_ok_and(|r| r.is_loopback())
        });
        if url.scheme() == "http" && here && self.reference.is_loopback() {
            return Ok(());
        }
        self.may_go_to(url, doing)
    }

    /// The whole body of an answer, at most `most` bytes of it.
    pub(super) async fn body(
        &self,
        mut response: Response,
        most: u64,
        what: &str,
        mut told: impl FnMut(u64),
    ) -> Result<Vec<u8>, OciError> {
        let too_long = || OciError::TooLong { what: what.into(), limit: most };
        if response.content_length().is_some_and(|length| length > most) {
            return Err(too_long());
        }
        let (mut bytes, began) = (Vec::new(), Instant::now());
        loop {
            let chunk = response.chunk().await;
            let chunk =
                chunk.map_err(|error| self.failed(error, &format!("reading {what}"), began))?;
            let Some(chunk) = chunk else { return Ok(bytes) };
            if bytes.len() as u64 + chunk.len() as u64 > most {
                return Err(too_long());
            }
            bytes.extend_from_slice(&chunk);
            told(bytes.len() as u64);
        }
    }

    /// What an answer means that is not the one that was hoped for.
    pub(super) async fn refused(&self, doing: &str, response: Response) -> OciError {
        let status = response.status();
        if matches!(status.as_u16(), 401 | 403) {
            return self.unauthorized(doing, response).await;
        }
        let said = said(response).await;
        OciError::Refused {
            registry: self.registry(),
            doing: doing.into(),
            status: status.as_u16(),
            said,
        }
    }

    async fn unauthorized(&self, doing: &str, response: Response) -> OciError {
        let (registry, looked) = (self.registry(), self.looked.clone());
        OciError::Unauthorized { registry, doing: doing.into(), looked, said: said(response).await }
    }

    /// What kind of failure of the transport it was.
    fn failed(&self, error: reqwest::Error, doing: &str, began: Instant) -> OciError {
        let registry = self.registry();
        let error = error.without_url();
        match tls_error(&error) {
            Some(rustls::Error::InvalidCertificate(_)) => {
                return OciError::Tls { registry, source: innermost(&error).into() };
            }
            Some(rustls::Error::InvalidMessage(_)) if error.is_connect() => {
                return OciError::NotTls { registry };
            }
            _ => {}
        }
        if error.is_timeout() {
            return OciError::Timeout { registry, doing: doing.into(), after: began.elapsed() };
        }
        match error.is_connect() {
            true => OciError::Connect { registry, source: innermost(&error).into() },
            false => {
                let source = innermost(&error).into();
                OciError::Interrupted { registry, doing: doing.into(), source }
            }
        }
    }
}

impl<'a> Request<'a> {
    /// Types of documents that are understood.
    pub(super) fn accept(mut self, types: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(types) {
            self.headers.insert(ACCEPT, value);
        }
        self
    }

    pub(super) fn within(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// What is sent with it.
    pub(super) fn body(
        mut self,
        content_type: &'static str,
        bytes: &'a Arc<[u8]>,
        watch: Option<(&'static str, Watch)>,
    ) -> Self {
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        self.body = Some(Upload { bytes, watch });
        self
    }
}

impl Upload<'_> {
    /// In chunks, so that it can be told how far it is.
    fn attach(&self, builder: RequestBuilder) -> RequestBuilder {
        let (bytes, watch) = (self.bytes.clone(), self.watch.clone());
        let total = bytes.len();
        let chunks = (0..total.div_ceil(CHUNK)).map(move |index| {
            let end = total.min((index + 1) * CHUNK);
            if let Some((what, watch)) = &watch {
                watch.tell(Transfer { what, done: end as u64, total: total as u64 });
            }
            Ok::<_, io::Error>(bytes[index * CHUNK..end].to_vec())
        });
        builder
            .header(CONTENT_LENGTH, total)
            .body(Body::wrap_stream(futures_util::stream::iter(chunks)))
    }
}

/// What a token service answers.
#[derive(Deserialize)]
struct Token {
    #[serde(default, deserialize_with = "secret")]
    token: Option<Zeroizing<String>>,
    #[serde(default, deserialize_with = "secret")]
    access_token: Option<Zeroizing<String>>,
}

/// What a registry says when it says no.
#[derive(Deserialize)]
struct Refusal {
    errors: Vec<Reason>,
}

#[derive(Deserialize)]
struct Reason {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// Its reasons, cleaned and short, behind a separator; empty if it gives none that is one.
async fn said(mut response: Response) -> String {
    let mut bytes = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        bytes.extend_from_slice(&chunk);
        if bytes.len() as u64 > LONGEST_REFUSAL {
            return String::new();
        }
    }
    let Ok(refusal) = serde_json::from_slice::<Refusal>(&bytes) else { return String::new() };
    let reasons = refusal.errors.iter().take(3).map(|reason| {
        let (code, message) = (clean(&reason.code, 40), clean(&reason.message, 200));
        if message.is_empty() { code } else { format!("{message} ({code})") }
    });
    match reasons.collect::<Vec<_>>().join("; ") {
        none if none.is_empty() => none,
        reasons => format!("; it says: {reasons}"),
    }
}

/// One client for one registry. Redirects are followed by us, not by it.
fn client(
    reference: &Reference,
    plain: bool,
    ca_file: Option<&Path>,
    limits: Limits,
) -> Result<Client, OciError> {
    // Process-wide, and the same for whoever is first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .user_agent(concat!("stillpoint/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(limits.connect)
        .read_timeout(limits.stall);
    if reference.is_loopback() {
        builder = builder.no_proxy();
    }
    if let Some(path) = ca_file {
        builder = builder.tls_certs_merge(authorities(path)?);
    } else if plain {
        // Nothing here is spoken to by TLS, and a machine without authorities is one, too.
        builder = builder.tls_certs_only([]);
    }
    builder.build().map_err(|error| OciError::Client {
        registry: reference.registry().into(),
        source: error.into(),
    })
}

fn authorities(path: &Path) -> Result<Vec<Certificate>, OciError> {
    let unusable = |source| OciError::Authority { path: path.to_owned(), source };
    let pem = std::fs::read(path).map_err(|error| unusable(error.into()))?;
    let found = Certificate::from_pem_bundle(&pem).map_err(|error| unusable(error.into()))?;
    if found.is_empty() {
        return Err(unusable("there is no BEGIN CERTIFICATE in it".into()));
    }
    Ok(found)
}

fn base(reference: &Reference, scheme: &str) -> Result<Url, OciError> {
    Url::parse(&format!("{scheme}://{}/v2/", reference.host())).map_err(|error| {
        OciError::Reference { text: reference.to_string(), problem: error.to_string() }
    })
}

fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme()
        && a.host_str() == b.host_str()
        && a.port_or_known_default() == b.port_or_known_default()
}

fn without_query(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

/// What TLS says, however deep it is wrapped.
fn tls_error(error: &reqwest::Error) -> Option<&rustls::Error> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

/// What it comes from, without the layers on the way, which name themselves and say nothing.
fn innermost(error: &reqwest::Error) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    let first: &(dyn Error + 'static) = error;
    std::iter::successors(Some(first), |&error| {
        // What is inside an I/O error is not its source: its source is the source of that.
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => error.source(),
        }
    })
}

/// The digest that a registry says its answer has, if it says one of ours.
pub(super) fn said_digest(response: &Response) -> Option<Digest> {
    response.headers().get("Docker-Content-Digest")?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_password_goes_over_the_network_in_clear() {
        let login = || {
            let (user, password) = ("me".into(), Zeroizing::new("geheim".into()));
            (Some(Login { user, password }), Looked::Found("config.json".into()))
        };
        let reference: Reference = "oci://registry.example.com/mysql:1".parse().unwrap();
        let (plain, tls) = ((true, None), (false, None));
        let limits = Limits::default();
        let own = Transport::connect(&reference, Right::Pull, login(), plain, limits).await;
        let error = own.unwrap().basic().unwrap_err();
        assert!(matches!(error, OciError::PlainCredentials { .. }), "{error}");
        let own = Transport::connect(&reference, Right::Pull, login(), tls, limits).await;
        assert!(own.unwrap().basic().unwrap().is_some_and(|header| header.is_sensitive()));
    }
}
