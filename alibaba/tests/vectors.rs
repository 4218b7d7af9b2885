//! Both signatures against vectors: requests captured from the vendor's SDKs, and the worked
//! examples of its documents. `SIGNING_VECTORS` names another file of the same form.

use std::path::PathBuf;

use serde_json::{Map, Value};
use stillpoint_alibaba::sign::{API_VERSION, acs3, canonical_query, rpc};

type Pairs = Vec<(String, String)>;

fn file() -> PathBuf {
    std::env::var_os("SIGNING_VECTORS").map_or_else(
        || concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/alibaba-signing.json").into(),
        PathBuf::from,
    )
}

/// A field as text; absent, null and empty are the same to whoever left it out.
fn text(vector: &Value, field: &str) -> Option<String> {
    match &vector[field] {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

fn need(vector: &Value, field: &str) -> String {
    text(vector, field).unwrap_or_else(|| panic!("{}: no field {field}", vector["name"]))
}

/// An object as names and values; what is null is not sent.
fn pairs(object: &Value) -> Pairs {
    let none = Map::new();
    let members = object.as_object().unwrap_or(&none).iter();
    let sent = members.filter(|(_, value)| !value.is_null());
    sent.map(|(name, value)| match value {
        Value::String(text) => (name.clone(), text.clone()),
        other => (name.clone(), other.to_string()),
    })
    .collect()
}

/// The body's bytes: text as it is, an object as a form.
fn body(vector: &Value) -> Vec<u8> {
    match &vector["body"] {
        Value::Null => Vec::new(),
        Value::String(text) => text.clone().into_bytes(),
        form => canonical_query(&pairs(form)).into_bytes(),
    }
}

/// Compares one intermediate result, if the vector has it.
fn compare(vector: &Value, field: &str, ours: &str, wrong: &mut Vec<String>) {
    if let Some(theirs) = text(vector, field)
        && theirs != ours
    {
        wrong.push(format!("{}: {field}\n  theirs {theirs}\n  ours   {ours}", vector["name"]));
    }
}

fn check_acs3(vector: &Value, wrong: &mut Vec<String>) {
    let headers: Pairs = pairs(&vector["headers"])
        .into_iter()
        .filter(|(name, _)| !name.eq_ignore_ascii_case("authorization"))
        .collect();
    let given = |wanted: &str| {
        let mut headers = headers.iter();
        headers.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.clone())
    };
    let listed = text(vector, "signed_headers");
    let listed: Option<Vec<&str>> = listed.as_deref().map(|names| names.split(';').collect());
    let is_signed = |name: &str| match &listed {
        Some(listed) => listed.iter().any(|other| other.eq_ignore_ascii_case(name)),
        None => true,
    };
    let signed: Pairs = headers.iter().filter(|(name, _)| is_signed(name)).cloned().collect();
    let hashed_body = acs3::hash(&body(vector));
    compare(vector, "hashed_payload", &hashed_body, wrong);
    let query = pairs(&vector["query"]);
    compare(vector, "canonical_query", &canonical_query(&query), wrong);
    let path = text(vector, "pathname").unwrap_or_else(|| "/".into());
    let request = acs3::Request {
        method: &need(vector, "method"),
        path: &path,
        query: &query,
        headers: &signed,
        hashed_body: &hashed_body,
    };
    let key_id = need(vector, "access_key_id");
    let secret = need(vector, "access_key_secret");
    let ours = acs3::sign(&request, &key_id, &secret);
    compare(vector, "canonical_request", &ours.canonical_request, wrong);
    compare(vector, "string_to_sign", &ours.string_to_sign, wrong);
    let theirs = text(vector, "authorization").or_else(|| {
        pairs(&vector["headers"]).into_iter().find(|(n, _)| n == "Authorization").map(|it| it.1)
    });
    assert_eq!(Some(&ours.authorization), theirs.as_ref(), "{}", vector["name"]);

    // What the client itself sends with this date and nonce is what the vector has of it.
    if given("x-acs-version").as_deref() != Some(API_VERSION) {
        return;
    }
    let (Some(host), Some(action)) = (given("host"), given("x-acs-action")) else { return };
    let (Some(date), Some(nonce)) = (text(vector, "date"), text(vector, "nonce")) else { return };
    let token = text(vector, "security_token").filter(|token| !token.is_empty());
    for (name, value) in
        acs3::headers(&host, &action, &date, &nonce, &hashed_body, token.as_deref())
    {
        let theirs = given(&name);
        if theirs.as_deref() != Some(value.as_str()) {
            wrong.push(format!("{}: header {name}: {theirs:?}, ours {value}", vector["name"]));
        }
    }
}

fn check_rpc(vector: &Value, wrong: &mut Vec<String>) {
    let mut params = pairs(&vector["params"]);
    params.extend(pairs(&vector["query"]));
    params.extend(pairs(&vector["body"]));
    params.retain(|(name, _)| name != "Signature");
    let secret = need(vector, "access_key_secret");
    let ours = rpc::sign(&need(vector, "method"), &params, &secret);
    compare(vector, "string_to_sign", &ours.string_to_sign, wrong);
    assert_eq!(ours.signature, need(vector, "signature"), "{}", vector["name"]);

    let param = |wanted: &str| params.iter().find(|(name, _)| name == wanted).map(|it| &it.1);
    if param("Version").map(String::as_str) != Some(API_VERSION) {
        return;
    }
    let (Some(action), Some(time)) = (param("Action"), param("Timestamp")) else { return };
    let (Some(nonce), Some(key)) = (param("SignatureNonce"), param("AccessKeyId")) else { return };
    let token = param("SecurityToken").map(String::as_str);
    for (name, value) in rpc::common_params(action, time, nonce, key, token) {
        // The documents' example asks for XML.
        if name != "Format" && param(&name) != Some(&value) {
            wrong.push(format!("{}: {name}: {:?}, ours {value}", vector["name"], param(&name)));
        }
    }
}

#[test]
fn every_vector_is_signed_as_the_vendor_signs_it() {
    let path = file();
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file: Value = serde_json::from_str(&text).unwrap();
    let vectors = file["vectors"].as_array().or(file.as_array()).unwrap();
    assert!(!vectors.is_empty(), "{} has no vectors", path.display());
    let mut wrong = Vec::new();
    for vector in vectors {
        let algorithm = vector["algorithm"].as_str().unwrap_or_default();
        if algorithm.starts_with("ACS3") {
            check_acs3(vector, &mut wrong);
        } else {
            check_rpc(vector, &mut wrong);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{} vectors of {} pass", vectors.len(), path.display());
}
