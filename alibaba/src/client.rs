//! One signed call over one warm connection, repeated where that is safe.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use reqwest::header::{AUTHORIZATION, DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Response, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::{sleep, timeout_at};

use crate::credentials::{CredentialSource, Credentials};
use crate::endpoint::Endpoint;
use crate::error::{ApiError, EcsError};
use crate::http::{self, BodyError, BoxedError};
use crate::metadata::plain;
use crate::retry;
use crate::sign::{acs3, rpc};

/// For DNS, route and TLS of a new connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long one attempt of a read may take; a hanging connection is given up then.
const ONE_READ: Duration = Duration::from_secs(10);
/// The longest answer that is read.
const LONGEST: usize = 8 << 20;
/// The parameters of a call.
pub(crate) type Params = Vec<(String, String)>;

/// How requests are signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SignatureVersion {
    /// `ACS3-HMAC-SHA256`, as today's SDKs do.
    #[default]
    Acs3,
    /// RPC version 1, `HMAC-SHA1`, for private deployments that know nothing newer.
    RpcV1,
}

/// ECS of one region.
#[derive(Clone, Debug)]
pub struct EcsClient {
    http: reqwest::Client,
    endpoint: Endpoint,
    region: String,
    signature: SignatureVersion,
    credentials: Arc<CredentialSource>,
}

/// One call: what is asked, and how patiently.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) action: &'static str,
    pub(crate) params: Params,
    pub(crate) patience: Patience,
}

/// How long an attempt waits for its answer, and whether there is another one.
#[derive(Debug)]
pub(crate) enum Patience {
    /// An attempt that hangs is given up, and made again on another connection.
    Read,
    /// The answer is waited for, whatever else has ended: it says what there is now. No attempt is
    /// begun once `stop` is set.
    Answer { until: Instant, stop: Arc<AtomicBool> },
}

impl Patience {
    fn attempt_until(&self, deadline: Instant) -> Instant {
        match self {
            Patience::Read => deadline.min(Instant::now() + ONE_READ),
            Patience::Answer { until, .. } => *until,
        }
    }

    fn is_over(&self) -> bool {
        match self {
            Patience::Read => false,
            Patience::Answer { stop, .. } => stop.load(Ordering::SeqCst),
        }
    }
}

/// An error's document.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ErrorDocument {
    code: Option<String>,
    message: Option<String>,
    request_id: Option<String>,
}

impl EcsClient {
    /// A client for `endpoint`. Reads the trusted certificates and resolves the host now; the
    /// connection is opened by the first call, and stays.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub async fn new(
        endpoint: Endpoint,
        region: impl Into<String>,
        signature: SignatureVersion,
        credentials: Arc<CredentialSource>,
    ) -> Result<Self, EcsError> {
        let endpoint = endpoint.pinned().await;
        let tls = if endpoint.is_plain() { http::no_tls() } else { http::system_tls() };
        let mut builder = http::builder()
            .tls_backend_preconfigured(tls.map_err(EcsError::Tls)?)
            .connect_timeout(CONNECT)
            .tcp_keepalive(Duration::from_secs(15));
        if !endpoint.addresses().is_empty() {
            builder = builder.resolve_to_addrs(endpoint.domain(), endpoint.addresses());
        }
        if !endpoint.is_proxied() {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|error| EcsError::Tls(http::anonymous(error)))?;
        Ok(Self { http, endpoint, region: region.into(), signature, credentials })
    }

    /// The region.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.region
    }

    /// Where requests go.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The credentials that requests are signed with.
    #[must_use]
    pub fn credentials(&self) -> &CredentialSource {
        &self.credentials
    }

    /// Makes a call, again where its error allows it; no attempt is begun after `deadline`. The parameters, and
    /// with them a token, stay the same; each attempt has a time stamp and a nonce of its own.
    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        mut call: Call,
        deadline: Instant,
    ) -> Result<T, EcsError> {
        call.params.push(("RegionId".to_owned(), self.region.clone()));
        let mut renewed = false;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let error = match self.attempt(&call, deadline).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if !renewed && error.api().is_some_and(ApiError::is_expired_token) {
                renewed = true;
                let fresh = self.credentials.renew().await.is_ok();
                if fresh && Instant::now() < deadline && !call.patience.is_over() {
                    continue;
                }
            }
            if call.patience.is_over() {
                return Err(error);
            }
            let remaining = deadline.saturating_duration_since(Instant::now());
            let spread = uuid::Uuid::new_v4().as_bytes()[0];
            let Some(wait) = retry::wait(&error, attempt, remaining, spread) else {
                return Err(error);
            };
            tracing::debug!("attempt {attempt} failed, once more in {wait:?}: {error}");
            sleep(wait).await;
            if call.patience.is_over() {
                return Err(error);
            }
        }
    }

    async fn attempt<T: DeserializeOwned>(
        &self,
        call: &Call,
        deadline: Instant,
    ) -> Result<T, EcsError> {
        let began = Instant::now();
        let until = call.patience.attempt_until(deadline);
        match timeout_at(until.into(), self.send(call)).await {
            Ok(answer) => answer,
            Err(_) => Err(EcsError::TimedOut { action: call.action, waited: began.elapsed() }),
        }
    }

    async fn send<T: DeserializeOwned>(&self, call: &Call) -> Result<T, EcsError> {
        let action = call.action;
        let credentials = self.credentials.current().await;
        let credentials = credentials.map_err(|source| EcsError::Credentials { action, source })?;
        let date = timestamp(Timestamp::now());
        let nonce = uuid::Uuid::new_v4().simple().to_string();
        let request = match self.signature {
            SignatureVersion::Acs3 => self.acs3(call, &credentials, &date, &nonce),
            SignatureVersion::RpcV1 => self.rpc(call, &credentials, &date, &nonce),
        };
        let response = request.send().await.map_err(|error| self.no_answer(action, error))?;
        self.understand(action, &credentials, response).await
    }

    /// Parameters in the query, all else in headers.
    fn acs3(
        &self,
        call: &Call,
        credentials: &Credentials,
        date: &str,
        nonce: &str,
    ) -> reqwest::RequestBuilder {
        let hashed_body = acs3::hash(b"");
        let token = credentials.token.as_ref().map(|token| token.reveal());
        let headers =
            acs3::headers(&self.endpoint.host(), call.action, date, nonce, &hashed_body, token);
        let request = acs3::Request {
            method: "POST",
            path: "/",
            query: &call.params,
            headers: &headers,
            hashed_body: &hashed_body,
        };
        let signed = acs3::sign(&request, &credentials.key_id, credentials.secret.reveal());
        let mut url: Url = self.endpoint.url().clone();
        url.set_query(Some(&crate::sign::canonical_query(&call.params)));
        let mut sent = HeaderMap::new();
        let authorization = (AUTHORIZATION.to_string(), signed.authorization);
        for (name, value) in headers.into_iter().chain([authorization]) {
            let name = HeaderName::from_bytes(name.as_bytes());
            let value = HeaderValue::from_str(&value);
            // What does not fit into a header was not a value; ECS then says what is missing.
            let (Ok(name), Ok(mut value)) = (name, value) else { continue };
            value.set_sensitive(true);
            sent.insert(name, value);
        }
        self.http.post(url).headers(sent)
    }

    /// Everything in a form: a query would be in the logs of whoever stands in between.
    fn rpc(
        &self,
        call: &Call,
        credentials: &Credentials,
        date: &str,
        nonce: &str,
    ) -> reqwest::RequestBuilder {
        let token = credentials.token.as_ref().map(|token| token.reveal());
        let mut params = rpc::common_params(call.action, date, nonce, &credentials.key_id, token);
        params.extend(call.params.iter().cloned());
        let signed = rpc::sign("POST", &params, credentials.secret.reveal());
        params.push(("Signature".to_owned(), signed.signature));
        self.http
            .post(self.endpoint.url().clone())
            .header("content-type", "application/x-www-form-urlencoded")
            .body(crate::sign::canonical_query(&params))
    }

    fn no_answer(&self, action: &'static str, error: reqwest::Error) -> EcsError {
        let host = self.endpoint.host();
        let connecting = error.is_connect();
        let source: BoxedError = http::anonymous(error);
        if connecting {
            EcsError::Connect { action, host, source }
        } else {
            EcsError::NoAnswer { action, host, source }
        }
    }

    async fn understand<T: DeserializeOwned>(
        &self,
        action: &'static str,
        credentials: &Credentials,
        response: Response,
    ) -> Result<T, EcsError> {
        let status = response.status();
        let headers = response.headers().clone();
        let not_an_answer = |problem: String| EcsError::NotAnAnswer {
            action,
            host: self.endpoint.host(),
            status: status.as_u16(),
            problem,
        };
        if status.is_redirection() {
            return Err(not_an_answer("it sends us elsewhere, which ECS never does".to_owned()));
        }
        let body = http::body(response, LONGEST).await.map_err(|error| match error {
            BodyError::Lost(error) => self.no_answer(action, error),
            BodyError::TooLong(longest) => {
                not_an_answer(format!("it is longer than {longest} bytes"))
            }
        })?;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| {
                not_an_answer(format!(
                    "line {}, column {} of its JSON is not as documented",
                    error.line(),
                    error.column()
                ))
            });
        }
        let document = serde_json::from_slice::<ErrorDocument>(&body).ok();
        let Some(ErrorDocument { code: Some(code), message, request_id }) = document else {
            return Err(not_an_answer("it has no error code".to_owned()));
        };
        let error = ApiError {
            status: status.as_u16(),
            code: plain(&code),
            message: harmless(&message.unwrap_or_default(), credentials),
            request_id: request_id.map(|id| plain(&id)),
            retry_after: retry_after(&headers),
            clock_ahead: clock_ahead(&headers),
        };
        Err(EcsError::Api { action, error: Box::new(error) })
    }
}

/// As both signatures want it.
fn timestamp(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A server's message without what nobody should read: where a signature is wrong, ECS shows what
/// it has signed, and the token is in that.
fn harmless(message: &str, credentials: &Credentials) -> String {
    let lower = message.to_ascii_lowercase();
    let end = ["server string to sign", "string to sign", "canonicalrequest", "canonical request"]
        .iter()
        .filter_map(|mark| lower.find(mark))
        .min()
        .unwrap_or(message.len());
    let mut text = message.get(..end).unwrap_or_default().to_owned();
    let token = credentials.token.as_ref().map(|token| token.reveal());
    let secrets = [Some(credentials.secret.reveal()), token, Some(credentials.key_id.as_str())];
    for secret in secrets.into_iter().flatten().filter(|secret| !secret.is_empty()) {
        text = text.replace(secret, "…").replace(&crate::sign::encode(secret), "…");
    }
    plain(text.trim_end().trim_end_matches(['.', ':']))
}

/// `x-acs-retry-after` is in milliseconds, `retry-after` in seconds.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
    let milliseconds = number("x-acs-retry-after").map(Duration::from_millis);
    milliseconds.or_else(|| number(RETRY_AFTER.as_str()).map(Duration::from_secs))
}

/// How far this machine's clock is ahead of the server's, as its answer says.
fn clock_ahead(headers: &HeaderMap) -> Option<SignedDuration> {
    let date = headers.get(DATE)?.to_str().ok()?;
    let theirs = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).ok()?;
    Some(Timestamp::now().duration_since(theirs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::Secret;

    fn credentials() -> Credentials {
        Credentials {
            key_id: "STS.key".into(),
            secret: Secret::new("se/cret"),
            token: Some(Secret::new("to+ken==")),
            expires: None,
        }
    }

    #[test]
    fn a_message_loses_what_the_server_signed_and_every_secret() {
        let message = "Specified signature is not matched with our calculation. \
                       server string to sign is:POST&%2F&AccessKeyId%3DSTS.key";
        assert_eq!(
            harmless(message, &credentials()),
            "Specified signature is not matched with our calculation"
        );
        let message = "STS.key to+ken== to%2Bken%3D%3D se/cret se%2Fcret\u{1b}[31m";
        assert_eq!(harmless(message, &credentials()), "… … … … … [31m");
    }

    #[test]
    fn a_time_is_written_as_ecs_reads_it() {
        let time: Timestamp = "2026-11-20T08:00:00.987Z".parse().unwrap();
        assert_eq!(timestamp(time), "2026-11-20T08:00:00Z");
    }

    #[test]
    fn the_servers_clock_is_read_from_its_answer() {
        let mut headers = HeaderMap::new();
        headers.insert(DATE, HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT"));
        assert!(clock_ahead(&headers).unwrap() > SignedDuration::from_hours(24 * 365 * 25));
    }
}
