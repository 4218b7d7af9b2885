//! The two signatures that the service accepts, verified as strictly as it does. Written from the
//! vendor's description, and on purpose not with the product's code: each judges the other.

mod acs3;
mod encoding;
mod rpc1;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::api::error::ApiError;

/// How far a client's clock may be off.
const TOLERANCE_S: i64 = 15 * 60;

/// A request as it came off the wire.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// `POST`, …
    pub method: String,
    /// Without the query.
    pub path: String,
    /// What came after `?`, as it was.
    pub query: String,
    /// Names in lower case, in the order in which they came.
    pub headers: Vec<(String, String)>,
    /// All of it.
    pub body: Vec<u8>,
}

impl Received {
    /// The value of a header; the first if there are several.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Query and form together, decoded.
    ///
    /// # Errors
    /// If something is not UTF-8, or given twice.
    pub(crate) fn parameters(&self) -> Result<BTreeMap<String, String>, ApiError> {
        let mut pairs = encoding::pairs(&self.query)?;
        let form = self
            .header("content-type")
            .is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
        if form && !self.body.is_empty() {
            let body = std::str::from_utf8(&self.body)
                .map_err(|_| ApiError::invalid("the form", "it is not UTF-8"))?;
            pairs.extend(encoding::pairs(body)?);
        }
        let mut parameters = BTreeMap::new();
        for (name, value) in pairs {
            if parameters.contains_key(&name) {
                return Err(ApiError::invalid(&name, "it is given twice"));
            }
            parameters.insert(name, value);
        }
        Ok(parameters)
    }
}

/// The two versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum SignatureVersion {
    /// ACS3-HMAC-SHA256, in headers.
    #[serde(rename = "ACS3-HMAC-SHA256")]
    Acs3,
    /// HMAC-SHA1 version 1.0, in parameters.
    #[serde(rename = "HMAC-SHA1")]
    Rpc1,
}

/// What a request claims, before its signature is verified.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Which version it is signed by.
    pub signature: SignatureVersion,
    /// What it calls.
    pub action: String,
    /// Of the API.
    pub api_version: String,
    /// Who calls.
    pub access_key_id: String,
    /// Of temporary credentials.
    pub security_token: Option<String>,
    /// Never used twice.
    pub nonce: String,
    /// The client's clock.
    pub date: Timestamp,
    /// Query and form.
    pub parameters: BTreeMap<String, String>,
    /// What is signed.
    string_to_sign: String,
    given: String,
}

impl Claim {
    /// Reads a request and checks its form.
    ///
    /// # Errors
    /// If something that must be there is not, or is not signed that must be.
    pub fn read(request: &Received) -> Result<Self, ApiError> {
        match request.header("authorization") {
            Some(authorization) => acs3::read(request, authorization),
            None => rpc1::read(request),
        }
    }

    /// Verifies signature and date.
    ///
    /// # Errors
    /// If the signature is not that of `secret`, or the date is off by more than a quarter of an
    /// hour.
    pub fn verify(&self, secret: &str, now: Timestamp) -> Result<(), ApiError> {
        if (now.as_second() - self.date.as_second()).abs() > TOLERANCE_S {
            return Err(ApiError::documented("InvalidTimeStamp.Expired"));
        }
        let matches = match self.signature {
            SignatureVersion::Acs3 => acs3::matches(secret, &self.string_to_sign, &self.given),
            SignatureVersion::Rpc1 => rpc1::matches(secret, &self.string_to_sign, &self.given),
        };
        if matches { Ok(()) } else { Err(self.mismatch()) }
    }

    /// The service shows what it would have signed; clients use that to tell a wrong secret from a
    /// wrong text.
    fn mismatch(&self) -> ApiError {
        let text = format!(
            "Specified signature does not match our calculation. server string to sign is:{}",
            self.string_to_sign
        );
        ApiError::new(400, "SignatureDoesNotMatch", text)
    }
}

/// `2026-11-20T08:00:00Z`, and nothing else.
fn date(text: &str) -> Result<Timestamp, ApiError> {
    let malformed = || ApiError::documented("InvalidTimeStamp.Format");
    let shape = text.len() == 20
        && text.bytes().zip(*b"0000-00-00T00:00:00Z").all(|(byte, shape)| match shape {
            b'0' => byte.is_ascii_digit(),
            sign => byte == sign,
        });
    if !shape {
        return Err(malformed());
    }
    text.parse().map_err(|_| malformed())
}

fn incomplete(why: &str) -> ApiError {
    let text = format!("The request signature does not conform to Aliyun standards: {why}.");
    ApiError::new(400, "IncompleteSignature", text)
}
