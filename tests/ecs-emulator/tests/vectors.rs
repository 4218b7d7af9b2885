//! The emulator's verifier against requests that the vendor's SDKs signed, and the vendor's own
//! worked examples: each is accepted, and refused as soon as one byte of it is another.

#![expect(clippy::expect_used, reason = "the functions here are parts of tests")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use ecs_emulator::signature::{Claim, Received};
use serde::Deserialize;

#[derive(Deserialize)]
struct Vectors {
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    name: String,
    access_key_id: String,
    access_key_secret: String,
    method: String,
    // ACS3
    #[serde(default)]
    date: Option<String>,
    #[serde(default)]
    pathname: Option<String>,
    #[serde(default)]
    query: BTreeMap<String, String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    authorization: Option<String>,
    // RPC
    #[serde(default)]
    params: BTreeMap<String, String>,
    #[serde(default)]
    signature: Option<String>,
}

/// `SIGNING_VECTORS`, or those of the client's tests.
fn vectors() -> Vec<Vector> {
    let file = std::env::var_os("SIGNING_VECTORS").map_or_else(
        || {
            PathBuf::from(env!("CARGO_MANIFEST_DIR"))
                .join("../../alibaba/tests/vectors/alibaba-signing.json")
        },
        PathBuf::from,
    );
    let text = std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let vectors: Vectors = serde_json::from_slice(&text).expect("a file of vectors");
    assert!(!vectors.vectors.is_empty());
    vectors.vectors
}

impl Vector {
    fn request(&self) -> Received {
        let mut headers: Vec<(String, String)> = self
            .headers
            .iter()
            .map(|(name, value)| (name.to_lowercase(), value.clone()))
            .filter(|(name, _)| name != "authorization")
            .collect();
        headers.extend(self.authorization.clone().map(|text| ("authorization".to_owned(), text)));
        let signature = self.signature.clone().map(|text| ("Signature".to_owned(), text));
        let parameters = self.query.clone().into_iter().chain(self.params.clone());
        Received {
            method: self.method.clone(),
            path: self.pathname.clone().unwrap_or_else(|| "/".to_owned()),
            query: encode(parameters.chain(signature)),
            headers,
            body: self.body.clone().unwrap_or_default().into_bytes(),
        }
    }

    /// What the emulator does with a request, at the time of the vector.
    fn is_accepted(&self, request: &Received) -> bool {
        let date = self.date.as_ref().or_else(|| self.params.get("Timestamp"));
        let now = date.expect("a date").parse().expect("a date");
        Claim::read(request).is_ok_and(|claim| {
            claim.access_key_id == self.access_key_id
                && claim.verify(&self.access_key_secret, now).is_ok()
        })
    }
}

fn encode(parameters: impl Iterator<Item = (String, String)>) -> String {
    let encode = |text: &str| {
        let byte = |byte: u8| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        };
        text.bytes().map(byte).collect::<String>()
    };
    let pair = |(name, value): (String, String)| format!("{}={}", encode(&name), encode(&value));
    parameters.map(pair).collect::<Vec<_>>().join("&")
}

/// `text` with another byte at each place in turn.
fn mutations(text: &str) -> impl Iterator<Item = String> + '_ {
    (0..text.len()).filter(|place| text.as_bytes()[*place].is_ascii()).map(|place| {
        let mut bytes = text.as_bytes().to_vec();
        bytes[place] = if bytes[place] == b'x' { b'y' } else { b'x' };
        String::from_utf8(bytes).expect("ASCII for ASCII")
    })
}

/// The request with one byte changed, in each place where there is one.
fn one_byte_changed(request: &Received) -> Vec<Received> {
    let mut changed = Vec::new();
    let mut with = |change: &dyn Fn(&mut Received)| {
        let mut request = request.clone();
        change(&mut request);
        changed.push(request);
    };
    mutations(&request.method).for_each(|text| with(&|request| request.method = text.clone()));
    mutations(&request.path).for_each(|text| with(&|request| request.path = text.clone()));
    mutations(&request.query).for_each(|text| with(&|request| request.query = text.clone()));
    let body = String::from_utf8(request.body.clone()).expect("a text");
    mutations(&body).for_each(|text| with(&|request| request.body = text.clone().into_bytes()));
    for place in 0..request.headers.len() {
        let value = &request.headers[place].1;
        mutations(value).for_each(|text| with(&|request| request.headers[place].1 = text.clone()));
    }
    changed
}

#[test]
fn every_vector_is_accepted() {
    for vector in vectors() {
        let request = vector.request();
        assert!(vector.is_accepted(&request), "{}: {:?}", vector.name, Claim::read(&request));
    }
}

#[test]
fn a_vector_with_one_other_byte_is_refused() {
    let mut refused = 0;
    for vector in vectors() {
        for request in one_byte_changed(&vector.request()) {
            // Version 1.0 signs `/`, whatever the path is; the service has no other path.
            if request.path != vector.request().path && vector.signature.is_some() {
                continue;
            }
            assert!(!vector.is_accepted(&request), "{}: accepted {request:?}", vector.name);
            refused += 1;
        }
    }
    assert!(refused > 1000, "only {refused} tried");
}

#[test]
fn a_clock_that_is_off_by_more_than_a_quarter_of_an_hour_is_refused() {
    for vector in vectors() {
        let date = vector.date.clone().or_else(|| vector.params.get("Timestamp").cloned());
        let date: jiff::Timestamp = date.expect("a date").parse().expect("a date");
        let claim = Claim::read(&vector.request()).expect(&vector.name);
        let at = |seconds: i64| date + jiff::SignedDuration::from_secs(seconds);
        for good in [-900, 0, 900] {
            claim.verify(&vector.access_key_secret, at(good)).expect(&vector.name);
        }
        for bad in [-901, 901] {
            let error = claim.verify(&vector.access_key_secret, at(bad)).expect_err(&vector.name);
            assert_eq!(error.code, "InvalidTimeStamp.Expired");
        }
    }
}

#[test]
fn headers_that_must_be_signed_cannot_be_slipped_in() {
    for vector in vectors().iter().filter(|vector| vector.authorization.is_some()) {
        for name in ["x-acs-anything", "content-type"] {
            let mut request = vector.request();
            if request.header(name).is_some() {
                continue;
            }
            request.headers.push((name.to_owned(), "text/plain".to_owned()));
            let error = Claim::read(&request).expect_err(&vector.name);
            assert_eq!(error.code, "IncompleteSignature");
        }
        // Anything else may be added on the way, by a proxy for example.
        let mut request = vector.request();
        request.headers.push(("via".to_owned(), "1.1 proxy".to_owned()));
        assert!(vector.is_accepted(&request), "{}", vector.name);
    }
}
