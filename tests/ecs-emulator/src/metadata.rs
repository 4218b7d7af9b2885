//! The metadata service: what an instance is told about itself, and its role's credentials.
//!
//! Which status the real service answers a missing or bad token with is not documented; 403 for a
//! missing one, 401 for a bad one and 400 for a bad request are what other clouds do.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use uuid::Uuid;

use crate::answer::{Answer, Arrival};
use crate::ecs::wait;
use crate::log::{Logged, now_ns};
use crate::signature::Received;
use crate::world::{Shared, World};

const TOKEN: &str = "/latest/api/token";
const ITEMS: &str = "/latest/meta-data/";
const ROLES: &str = "/latest/meta-data/ram/security-credentials/";
const DOCUMENT: &str = "/latest/dynamic/instance-identity/document";

const TTL_HEADER: &str = "x-aliyun-ecs-metadata-token-ttl-seconds";
const TOKEN_HEADER: &str = "x-aliyun-ecs-metadata-token";

/// HTTP status and text.
type Text = (u16, String);

/// Answers a request.
pub(crate) async fn serve(shared: &Shared, request: &Received, arrival: Arrival) -> Answer {
    let action = action(request);
    let (number, fault) = {
        let mut world = shared.lock();
        let fault = world.arrive(&action);
        let number = world.begin(Logged {
            connection: arrival.connection,
            received_ns: arrival.received_ns,
            action,
            method: request.method.clone(),
            path: request.path.clone(),
            host: request.header("host").unwrap_or_default().to_owned(),
            header_names: request.headers.iter().map(|(name, _)| name.clone()).collect(),
            fault: Some(fault.summary()).filter(|summary| !summary.is_empty()),
            ..Logged::default()
        });
        (number, fault)
    };
    wait(fault.delay_before_ms).await;
    let (status, text) = match &fault.error {
        Some(error) => (error.status.unwrap_or(500), error.code.clone()),
        None => look_up(&mut shared.lock(), request),
    };
    wait(fault.delay_after_ms).await;
    let answer = Answer::new(status, "text/plain", text).with(&fault);
    shared.lock().amend(number, |logged| {
        if answer.is_sent() {
            logged.status = Some(answer.status);
            logged.answered_ns = Some(now_ns());
        }
    });
    answer
}

/// The name by which faults and the log know a request.
fn action(request: &Received) -> String {
    let name = match request.path.as_str() {
        TOKEN => "token",
        ROLES => "roles",
        path if path.starts_with(ROLES) => "role",
        path => path.strip_prefix(ITEMS).unwrap_or(path),
    };
    format!("metadata:{name}")
}

fn look_up(world: &mut World, request: &Received) -> Text {
    if request.path == TOKEN {
        return issue_token(world, request);
    }
    if request.method != "GET" {
        return (405, "Method Not Allowed".to_owned());
    }
    if let Err(refused) = check_token(world, request) {
        return refused;
    }
    let scenario = &world.scenario;
    let known = |text: &str| (200, text.to_owned());
    match request.path.strip_prefix(ITEMS) {
        Some("instance-id") => known(&scenario.instance.id),
        Some("region-id") => known(&scenario.region),
        Some("zone-id") => known(&scenario.instance.zone),
        Some("instance/instance-type") => known(&scenario.instance.instance_type),
        Some("owner-account-id") => known("1234567890123456"),
        Some("network-type") => known("vpc"),
        Some(_) if request.path.starts_with(ROLES) => role(world, &request.path),
        None if request.path == DOCUMENT => document(world),
        _ => not_found(),
    }
}

fn issue_token(world: &mut World, request: &Received) -> Text {
    if !world.scenario.metadata.hardened {
        return not_found();
    }
    if request.method != "PUT" {
        return (405, "Method Not Allowed".to_owned());
    }
    if request.header("x-forwarded-for").is_some() {
        return (403, "Forbidden: X-Forwarded-For".to_owned());
    }
    let ttl = request.header(TTL_HEADER).and_then(|ttl| ttl.parse::<i64>().ok());
    let Some(ttl) = ttl.filter(|ttl| (1..=21600).contains(ttl)) else {
        return (400, format!("Bad Request: {TTL_HEADER} must be from 1 to 21600"));
    };
    let token = format!("canary-metadata-{}==", Uuid::new_v4().simple());
    let now = world.now();
    let expires = now.checked_add(SignedDuration::from_secs(ttl)).unwrap_or(now);
    world.metadata_tokens.insert(token.clone(), expires);
    (200, token)
}

fn check_token(world: &World, request: &Received) -> Result<(), Text> {
    let now = world.now();
    let good = |expires: &Timestamp| *expires > now;
    match request.header(TOKEN_HEADER) {
        Some(token) if world.metadata_tokens.get(token).is_some_and(good) => Ok(()),
        Some(_) => Err((401, "Unauthorized".to_owned())),
        None if world.scenario.metadata.plain => Ok(()),
        None => Err((403, "Forbidden".to_owned())),
    }
}

fn role(world: &mut World, path: &str) -> Text {
    let asked = path.strip_prefix(ROLES).unwrap_or_default();
    match world.scenario.role.name.clone() {
        Some(name) if asked.is_empty() => (200, name),
        Some(name) if asked == name => credentials(world),
        _ => not_found(),
    }
}

fn credentials(world: &mut World) -> Text {
    let code = world.scenario.role.code.clone();
    if code != "Success" {
        return (200, json!({ "Code": code }).to_string());
    }
    let now = world.now();
    let session = world.credentials.current(world.scenario.role.lifetime_s, now);
    let body = json!({
        "AccessKeyId": session.access_key_id,
        "AccessKeySecret": session.secret,
        "SecurityToken": session.token,
        "Expiration": session.expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "LastUpdated": session.issued.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "Code": "Success",
    });
    (200, body.to_string())
}

fn document(world: &World) -> Text {
    let scenario = &world.scenario;
    let body = json!({
        "instance-id": scenario.instance.id,
        "instance-type": scenario.instance.instance_type,
        "region-id": scenario.region,
        "zone-id": scenario.instance.zone,
        "owner-account-id": "1234567890123456",
    });
    (200, body.to_string())
}

fn not_found() -> Text {
    (404, "Not Found".to_owned())
}
