//! RPC signatures, version 1 (`HMAC-SHA1`): everything is a parameter, the signature too.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

use super::{API_VERSION, canonical_query, encode};

/// A signature, and what it was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// What is signed.
    pub string_to_sign: String,
    /// The parameter `Signature`, not encoded.
    pub signature: String,
}

/// The parameters that every request has, but for `Signature`. `timestamp` is UTC,
/// `2026-11-20T08:00:00Z`; `nonce` is never used twice.
#[must_use]
pub fn common_params(
    action: &str,
    timestamp: &str,
    nonce: &str,
    key_id: &str,
    security_token: Option<&str>,
) -> Vec<(String, String)> {
    let mut params = vec![
        ("Action", action),
        ("Version", API_VERSION),
        ("Format", "JSON"),
        ("AccessKeyId", key_id),
        ("SignatureMethod", "HMAC-SHA1"),
        ("SignatureVersion", "1.0"),
        ("SignatureNonce", nonce),
        ("Timestamp", timestamp),
    ];
    params.extend(security_token.map(|token| ("SecurityToken", token)));
    params.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Signs the parameters of a request: those of its query and those of its form, together.
#[must_use]
pub fn sign(method: &str, params: &[(String, String)], secret: &str) -> Signed {
    let string_to_sign = format!("{method}&{}&{}", encode("/"), encode(&canonical_query(params)));
    let key = zeroize::Zeroizing::new(format!("{secret}&"));
    #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
    let mut mac = Hmac::<Sha1>::new_from_slice(key.as_bytes()).expect("a key of any length");
    mac.update(string_to_sign.as_bytes());
    Signed { signature: STANDARD.encode(mac.finalize().into_bytes()), string_to_sign }
}
