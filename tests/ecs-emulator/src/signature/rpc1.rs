//! Version 1.0 of the RPC style: everything in parameters, HMAC-SHA1 with the secret and `&`.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

use super::{Claim, Received, SignatureVersion, date, encoding, incomplete};
use crate::api::error::ApiError;

pub(super) fn read(request: &Received) -> Result<Claim, ApiError> {
    let parameters = request.parameters()?;
    let needed = |name: &str| {
        parameters
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| ApiError::missing(name))
    };
    if needed("SignatureMethod")? != "HMAC-SHA1" || needed("SignatureVersion")? != "1.0" {
        return Err(incomplete("neither HMAC-SHA1 version 1.0 nor ACS3-HMAC-SHA256"));
    }
    Ok(Claim {
        signature: SignatureVersion::Rpc1,
        action: needed("Action")?.to_owned(),
        api_version: needed("Version")?.to_owned(),
        access_key_id: needed("AccessKeyId")?.to_owned(),
        security_token: parameters.get("SecurityToken").cloned(),
        nonce: needed("SignatureNonce")?.to_owned(),
        date: date(needed("Timestamp")?)?,
        string_to_sign: string_to_sign(&request.method, &parameters),
        given: needed("Signature")?.to_owned(),
        parameters,
    })
}

pub(super) fn matches(secret: &str, string_to_sign: &str, given: &str) -> bool {
    let key = format!("{secret}&");
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(key.as_bytes()) else { return false };
    mac.update(string_to_sign.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes()) == given
}

fn string_to_sign(method: &str, parameters: &BTreeMap<String, String>) -> String {
    let signed = parameters.iter().filter(|(name, _)| *name != "Signature");
    format!("{method}&%2F&{}", encoding::encode(&encoding::join(signed)))
}
