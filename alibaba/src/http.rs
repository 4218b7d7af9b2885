//! What both clients need of HTTP: TLS that is rustls with ring, bodies that have a bound.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{ClientBuilder, Response, redirect};
use rustls::ClientConfig;
use rustls::crypto::ring;

pub(crate) type BoxedError = Box<dyn std::error::Error + Send + Sync>;

/// Settings that every client here has: HTTP/1.1 on one connection that stays, no redirect, no
/// repeats but our own.
pub(crate) fn builder() -> ClientBuilder {
    reqwest::Client::builder()
        .user_agent(concat!("stillpoint/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .http1_only()
        .tcp_nodelay(true)
        .pool_max_idle_per_host(1)
        .pool_idle_timeout(Duration::from_secs(90))
}

/// TLS with the certificates that this system trusts (or those of `SSL_CERT_FILE`), read now.
pub(crate) fn system_tls() -> Result<ClientConfig, BoxedError> {
    let provider = Arc::new(ring::default_provider());
    let verifier = rustls_platform_verifier::Verifier::new(Arc::clone(&provider))?;
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

/// TLS that trusts nobody, for clients that speak plain HTTP alone.
pub(crate) fn no_tls() -> Result<ClientConfig, BoxedError> {
    Ok(ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth())
}

/// Why there is no body.
#[derive(Debug)]
pub(crate) enum BodyError {
    TooLong(usize),
    Lost(reqwest::Error),
}

/// The body, at most `longest` bytes of it.
pub(crate) async fn body(mut response: Response, longest: usize) -> Result<Vec<u8>, BodyError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(BodyError::Lost)? {
        if bytes.len() + chunk.len() > longest {
            return Err(BodyError::TooLong(longest));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// An error of reqwest without the URL, which has the query in it.
pub(crate) fn anonymous(error: reqwest::Error) -> BoxedError {
    Box::new(error.without_url())
}
