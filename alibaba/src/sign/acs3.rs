//! `ACS3-HMAC-SHA256`: parameters in the query, everything else in headers, all of it signed.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::{API_VERSION, canonical_query, hex};

/// The name of the algorithm.
pub const ALGORITHM: &str = "ACS3-HMAC-SHA256";

/// A request as it is signed.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// `GET` or `POST`.
    pub method: &'a str,
    /// `/` for every action of ECS.
    pub path: &'a str,
    /// Names and values, not encoded, in any order.
    pub query: &'a [(String, String)],
    /// Every header that is to be signed: at least `host` and all `x-acs-*`, among them
    /// `x-acs-content-sha256`.
    pub headers: &'a [(String, String)],
    /// The hash of the body, see [`hash`].
    pub hashed_body: &'a str,
}

/// A signature, and what it was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The request in the form that is hashed.
    pub canonical_request: String,
    /// What is signed.
    pub string_to_sign: String,
    /// The header `Authorization`.
    pub authorization: String,
}

/// SHA-256 in hexadecimal.
#[must_use]
pub fn hash(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The headers that a request needs at least, but for `Authorization`. `date` is UTC,
/// `2026-11-20T08:00:00Z`; `nonce` is never used twice.
#[must_use]
pub fn headers(
    host: &str,
    action: &str,
    date: &str,
    nonce: &str,
    hashed_body: &str,
    security_token: Option<&str>,
) -> Vec<(String, String)> {
    let mut headers = vec![
        ("host", host),
        ("x-acs-action", action),
        ("x-acs-version", API_VERSION),
        ("x-acs-date", date),
        ("x-acs-signature-nonce", nonce),
        ("x-acs-content-sha256", hashed_body),
    ];
    headers.extend(security_token.map(|token| ("x-acs-security-token", token)));
    headers.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Signs a request.
#[must_use]
pub fn sign(request: &Request<'_>, key_id: &str, secret: &str) -> Signed {
    let mut headers: Vec<(String, &str)> = request
        .headers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim()))
        .collect();
    headers.sort();
    let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
    let names = names.join(";");
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let canonical_request = format!(
        "{}\n{}\n{}\n{lines}\n{names}\n{}",
        request.method,
        request.path,
        canonical_query(request.query),
        request.hashed_body
    );
    let string_to_sign = format!("{ALGORITHM}\n{}", hash(canonical_request.as_bytes()));
    let signature = hex(&hmac(secret.as_bytes(), string_to_sign.as_bytes()));
    let authorization =
        format!("{ALGORITHM} Credential={key_id},SignedHeaders={names},Signature={signature}");
    Signed { canonical_request, string_to_sign, authorization }
}

fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}
