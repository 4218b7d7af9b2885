//! Version 3: `Authorization: ACS3-HMAC-SHA256 Credential=…,SignedHeaders=…,Signature=…`.

use std::collections::BTreeMap;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::{Claim, Received, SignatureVersion, date, encoding, incomplete};
use crate::api::error::ApiError;

const ALGORITHM: &str = "ACS3-HMAC-SHA256";

struct Authorization<'a> {
    credential: &'a str,
    signed_headers: Vec<&'a str>,
    signature: &'a str,
}

pub(super) fn read(request: &Received, authorization: &str) -> Result<Claim, ApiError> {
    let authorization = parse(authorization)?;
    check_signed_headers(request, &authorization.signed_headers)?;
    let needed = |name: &str| request.header(name).ok_or_else(|| ApiError::missing(name));
    let content_sha256 = needed("x-acs-content-sha256")?;
    if content_sha256 != hex(&Sha256::digest(&request.body)) {
        return Err(ApiError::new(
            400,
            "SignatureDoesNotMatch",
            "The specified x-acs-content-sha256 is not that of the body.",
        ));
    }
    let parameters = request.parameters()?;
    Ok(Claim {
        signature: SignatureVersion::Acs3,
        action: needed("x-acs-action")?.to_owned(),
        api_version: needed("x-acs-version")?.to_owned(),
        access_key_id: authorization.credential.to_owned(),
        security_token: request.header("x-acs-security-token").map(str::to_owned),
        nonce: needed("x-acs-signature-nonce")?.to_owned(),
        date: date(needed("x-acs-date")?)?,
        string_to_sign: string_to_sign(request, &authorization.signed_headers, content_sha256)?,
        given: authorization.signature.to_owned(),
        parameters,
    })
}

pub(super) fn matches(secret: &str, string_to_sign: &str, given: &str) -> bool {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return false };
    mac.update(string_to_sign.as_bytes());
    hex(&mac.finalize().into_bytes()) == given
}

/// Exactly the three fields, each once, in any order, without spaces.
fn parse(text: &str) -> Result<Authorization<'_>, ApiError> {
    let fields = text
        .strip_prefix(ALGORITHM)
        .and_then(|rest| rest.strip_prefix(' '))
        .ok_or_else(|| incomplete("the Authorization header does not begin with the algorithm"))?;
    let mut known: BTreeMap<&str, &str> = BTreeMap::new();
    for field in fields.split(',') {
        let (name, value) =
            field.split_once('=').ok_or_else(|| incomplete("a field has no value"))?;
        if !["Credential", "SignedHeaders", "Signature"].contains(&name)
            || known.insert(name, value).is_some()
        {
            return Err(incomplete(&format!("the field {name} is unknown or there twice")));
        }
    }
    let field =
        |name| known.get(name).copied().ok_or_else(|| incomplete(&format!("{name} is missing")));
    Ok(Authorization {
        credential: field("Credential")?,
        signed_headers: field("SignedHeaders")?.split(';').collect(),
        signature: field("Signature")?,
    })
}

/// Every `x-acs-*`, `host` and `content-type` that is there must be signed; what is signed must be
/// there; the list must be sorted, in lower case, without doubles.
fn check_signed_headers(request: &Received, signed: &[&str]) -> Result<(), ApiError> {
    if signed.windows(2).any(|pair| matches!(pair, [first, second] if first >= second)) {
        return Err(incomplete("SignedHeaders is not sorted"));
    }
    if let Some(name) = signed.iter().find(|name| request.header(name).is_none()) {
        return Err(incomplete(&format!("the signed header {name:?} is not there")));
    }
    let must = |name: &str| name.starts_with("x-acs-") || name == "host" || name == "content-type";
    match request.headers.iter().find(|(name, _)| must(name) && !signed.contains(&name.as_str())) {
        Some((name, _)) => Err(incomplete(&format!("the header {name} is not signed"))),
        None if signed.contains(&"host") => Ok(()),
        None => Err(incomplete("host is not signed")),
    }
}

fn string_to_sign(
    request: &Received,
    signed: &[&str],
    content_sha256: &str,
) -> Result<String, ApiError> {
    let query: BTreeMap<String, String> = encoding::pairs(&request.query)?.into_iter().collect();
    let header = |name: &&str| {
        let values = request.headers.iter().filter(|(known, _)| known == name);
        let values: Vec<&str> = values.map(|(_, value)| value.trim()).collect();
        format!("{name}:{}\n", values.join(","))
    };
    let canonical = [
        request.method.as_str(),
        &request.path,
        &encoding::join(&query),
        &signed.iter().map(header).collect::<String>(),
        &signed.join(";"),
        content_sha256,
    ]
    .join("\n");
    Ok(format!("{ALGORITHM}\n{}", hex(&Sha256::digest(canonical.as_bytes()))))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
