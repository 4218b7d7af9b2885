//! What no SDK shows: how connections end, when a request takes effect, what is written down.
//! Requests are written by hand, over plain TCP.

#![expect(clippy::expect_used, reason = "the functions here are parts of tests")]

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use base64::Engine;
use ecs_emulator::{AccessKey, ConnectionFault, Disk, Emulator, Fault, Scenario};
use hmac::{Hmac, KeyInit, Mac};
use uuid::Uuid;

const KEY_ID: &str = "LTAIbehaviour";
const SECRET: &str = "behaviour-secret";
const PATIENCE: Duration = Duration::from_secs(20);

fn emulator(faults: impl IntoIterator<Item = Fault>) -> Emulator {
    let mut scenario = Scenario::with_disks([Disk::at("d-one", "/dev/loop1")]);
    scenario.access_keys = vec![AccessKey { id: KEY_ID.to_owned(), secret: SECRET.to_owned() }];
    scenario.faults = faults.into_iter().collect();
    Emulator::start(scenario).expect("a port")
}

/// A signed GET, as it goes over the wire. Values need no encoding but for `:` in the time stamp.
fn request(action: &str, parameters: &[(&str, &str)]) -> String {
    let timestamp = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let timestamp = timestamp.replace(':', "%3A");
    let nonce = Uuid::new_v4().to_string();
    let mut pairs = vec![
        ("Action", action),
        ("AccessKeyId", KEY_ID),
        ("Format", "JSON"),
        ("RegionId", "cn-hangzhou"),
        ("SignatureMethod", "HMAC-SHA1"),
        ("SignatureNonce", &nonce),
        ("SignatureVersion", "1.0"),
        ("Timestamp", &timestamp),
        ("Version", "2014-05-26"),
    ];
    pairs.extend(parameters);
    pairs.sort_unstable();
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let query = pairs.join("&");
    let encoded = query.replace('%', "%25").replace('=', "%3D").replace('&', "%26");
    let mut mac = Hmac::<sha1::Sha1>::new_from_slice(format!("{SECRET}&").as_bytes()).expect("key");
    mac.update(format!("GET&%2F&{encoded}").as_bytes());
    let signature = base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes());
    let signature = signature.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    format!(
        "GET /?{query}&Signature={signature} HTTP/1.1\r\nhost: ecs\r\nconnection: close\r\n\r\n"
    )
}

fn connect(emulator: &Emulator) -> TcpStream {
    let address = emulator.ecs_url.trim_start_matches("http://");
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    stream
}

/// Sends a request; everything that comes back, and how it ended.
fn exchange(emulator: &Emulator, request: &str) -> (String, Option<ErrorKind>) {
    let mut stream = connect(emulator);
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    let end = stream.read_to_end(&mut answer).err().map(|error| error.kind());
    (String::from_utf8_lossy(&answer).into_owned(), end)
}

fn create() -> String {
    request("CreateSnapshotGroup", &[("DiskId.1", "d-one"), ("ClientToken", "token")])
}

fn wait_until(what: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !what() {
        assert!(Instant::now() < deadline, "not in time");
        std::thread::yield_now();
    }
}

#[test]
fn a_request_is_answered_and_a_nonce_is_good_once() {
    let emulator = emulator([]);
    let request = create();
    let (answer, end) = exchange(&emulator, &request);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("ssg-"), "{answer}");
    assert_eq!(end, None);
    let (answer, _) = exchange(&emulator, &request);
    assert!(answer.contains("SignatureNonceUsed"), "{answer}");
    assert_eq!(emulator.groups().len(), 1);
}

#[test]
fn each_way_to_end_a_connection_is_what_it_says() {
    use ConnectionFault::{CloseAfter, CloseBefore, ResetAfter, ResetBefore, Truncate};
    for (fault, end, groups) in [
        (ResetBefore, Some(ErrorKind::ConnectionReset), 0),
        (ResetAfter, Some(ErrorKind::ConnectionReset), 1),
        (CloseBefore, None, 0),
        (CloseAfter, None, 1),
        (Truncate, None, 1),
    ] {
        let emulator = emulator([Fault::on("CreateSnapshotGroup").connection(fault)]);
        let (answer, ended) = exchange(&emulator, &create());
        assert_eq!(ended, end, "{fault:?}: {answer}");
        assert_eq!(emulator.groups().len(), groups, "{fault:?}");
        if fault == Truncate {
            let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.expect("a length").parse().expect("a number");
            assert_eq!(body.len(), length / 2, "half of the body");
        } else {
            assert_eq!(answer, "", "{fault:?}");
        }
        assert_eq!(emulator.calls("CreateSnapshotGroup")[0].answered_ns, None, "{fault:?}");
    }
}

#[test]
fn a_request_takes_effect_though_its_client_has_left() {
    let delay = Duration::from_millis(200);
    let emulator = emulator([Fault::on("CreateSnapshotGroup").delay_before(delay)]);
    let mut stream = connect(&emulator);
    stream.write_all(create().as_bytes()).expect("sent");
    wait_until(|| !emulator.log().is_empty());
    assert!(emulator.groups().is_empty(), "too early");
    drop(stream);
    wait_until(|| !emulator.groups().is_empty());
}

#[test]
fn a_token_whose_first_request_is_in_process_gives_no_second_group() {
    let delay = Duration::from_millis(500);
    let fault = Fault::on("CreateSnapshotGroup").call(1).delay_before(delay);
    let emulator = emulator([fault]);
    let mut first = connect(&emulator);
    first.write_all(create().as_bytes()).expect("sent");
    wait_until(|| !emulator.log().is_empty());
    let (answer, _) = exchange(&emulator, &create());
    assert!(answer.contains("LastTokenProcessing"), "{answer}");
    let mut text = String::new();
    first.read_to_string(&mut text).expect("an answer");
    let id = &emulator.groups()[0].id;
    assert!(text.contains(id), "{text}");
    let (answer, _) = exchange(&emulator, &create());
    assert!(answer.contains(id), "{answer}");
    assert_eq!(emulator.groups().len(), 1);
}

#[test]
fn a_test_is_told_at_the_point_in_time() {
    let delay = Duration::from_millis(100);
    let emulator = emulator([Fault::on("CreateSnapshotGroup").delay_after(delay)]);
    let (sender, receiver) = mpsc::channel();
    emulator.on_create(move |creation| {
        sender.send(creation.clone()).expect("the test listens");
    });
    exchange(&emulator, &create());
    let creation = receiver.try_recv().expect("told before the answer");
    assert_eq!(
        (creation.disks, creation.devices),
        (vec!["d-one".into()], vec!["/dev/loop1".into()])
    );
    let logged = &emulator.calls("CreateSnapshotGroup")[0];
    let (effect, answered) =
        (logged.effect_ns.expect("effect"), logged.answered_ns.expect("answer"));
    assert!(logged.received_ns <= effect && effect + 100_000_000 <= answered, "{logged:?}");
}

#[test]
fn neither_the_log_nor_the_scenario_shows_a_secret() {
    let emulator = emulator([]);
    exchange(&emulator, &create());
    let metadata = emulator.imds_url.trim_start_matches("http://");
    let path = "/latest/meta-data/ram/security-credentials/AppSnapshotRoleName";
    let mut stream = TcpStream::connect(metadata).expect("a connection");
    let text = format!("GET {path} HTTP/1.1\r\nhost: metadata\r\nconnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let secrets = emulator.secrets();
    assert_eq!(secrets.len(), 3, "a key's secret, a role's secret and token");
    assert!(secrets[..2].iter().all(|secret| answer.contains(secret)), "{answer}");
    for what in ["log", "scenario", "groups"] {
        let text =
            format!("GET /_control/{what} HTTP/1.1\r\nhost: ecs\r\nconnection: close\r\n\r\n");
        let (answer, _) = exchange(&emulator, &text);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        for secret in &secrets {
            assert!(!answer.contains(secret), "{what}: {answer}");
        }
        assert!(!answer.contains("Signature\""), "{what}: {answer}");
    }
}

#[test]
fn it_is_gone_when_it_is_dropped() {
    let emulator = emulator([Fault::on("*").connection(ConnectionFault::HangAfter)]);
    let mut stream = connect(&emulator);
    stream.write_all(create().as_bytes()).expect("sent");
    wait_until(|| !emulator.groups().is_empty());
    let address = emulator.ecs_url.trim_start_matches("http://").to_owned();
    drop(emulator);
    assert_eq!(stream.read(&mut [0]).map_err(|error| error.kind()).unwrap_or(0), 0);
    assert!(TcpStream::connect(address).is_err());
}
