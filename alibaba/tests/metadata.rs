//! The metadata service and the credentials, against the emulator.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ecs_emulator::{Addresses, Emulator, Fault, Metadata as Service, Scenario};
use stillpoint_alibaba::credentials::CredentialsError;
use stillpoint_alibaba::{CredentialSource, Metadata, MetadataError, MetadataOptions};
use support::{client, emulator, fake, http, metadata, plenty, two_disks};

/// A service that gives a token, and then this for everything.
fn serving(body: impl Into<String>) -> String {
    let body = body.into();
    fake(move |number| http("200 OK", if number == 0 { "a-token" } else { &body }))
}

fn service(plain: bool, hardened: bool) -> Emulator {
    emulator(Scenario { metadata: Service { plain, hardened }, ..two_disks() })
}

#[tokio::test]
async fn the_hardened_mode_is_tried_first_and_its_token_used_again() {
    let emulator = service(false, true);
    let metadata = metadata(&emulator.imds_url);
    assert_eq!(metadata.instance_id().await.unwrap(), "i-bp1emulator0000001");
    assert_eq!(metadata.region_id().await.unwrap(), "cn-hangzhou");
    assert_eq!(metadata.role().await.unwrap(), "AppSnapshotRoleName");
    assert_eq!(emulator.calls("metadata:token").len(), 1);
}

#[tokio::test]
async fn where_there_is_no_token_the_plain_mode_is_used() {
    let emulator = service(true, false);
    let metadata = metadata(&emulator.imds_url);
    assert_eq!(metadata.region_id().await.unwrap(), "cn-hangzhou");
    metadata.instance_id().await.unwrap();
    assert_eq!(emulator.calls("metadata:token").len(), 1, "asked for once, not each time");
}

#[tokio::test]
async fn the_plain_mode_can_be_switched_off() {
    let emulator = service(true, false);
    let options = MetadataOptions { endpoint: emulator.imds_url.clone(), plain_disabled: true };
    let error = Metadata::new(options).unwrap().region_id().await.unwrap_err();
    assert!(matches!(error, MetadataError::NoToken(_)), "{error}");
    assert!(emulator.calls("metadata:region-id").is_empty());
}

#[tokio::test]
async fn a_token_that_could_not_be_had_for_a_moment_is_asked_for_again() {
    let emulator = service(false, true);
    emulator.faults([Fault::on("metadata:token").error_with_status("busy", 503).call(1)]);
    assert_eq!(metadata(&emulator.imds_url).region_id().await.unwrap(), "cn-hangzhou");
}

#[tokio::test]
async fn an_instance_without_a_role_has_no_role() {
    let emulator = emulator(two_disks());
    emulator.change(|scenario| scenario.role.name = None);
    let metadata = Arc::new(metadata(&emulator.imds_url));
    let error = CredentialSource::connect(Arc::clone(&metadata), None).await.unwrap_err();
    assert!(error.is_no_role(), "{error}");
    let error = CredentialSource::connect(metadata, Some("Mine")).await.unwrap_err();
    assert!(error.is_no_role(), "{error}");
}

#[tokio::test]
async fn a_role_that_is_not_attached_is_named() {
    let emulator = emulator(two_disks());
    let error = metadata(&emulator.imds_url).role_credentials("Other").await.unwrap_err();
    assert_eq!(error.to_string(), "the RAM role Other is not attached to this instance");
}

#[tokio::test]
async fn credentials_are_taken_only_if_they_are_whole() {
    let whole = r#"{"Code":"Success","AccessKeyId":"STS.1","AccessKeySecret":"s",
        "SecurityToken":"t","Expiration":"2099-01-01T00:00:00Z","LastUpdated":"x"}"#;
    let read = async |body: String| metadata(&serving(body)).role_credentials("R").await;
    read(whole.to_owned()).await.unwrap();
    for (part, instead) in [
        (r#""Code":"Success""#, r#""Code":"Failed""#),
        (r#""Code":"Success","#, ""),
        (r#""STS.1""#, r#""""#),
        (r#""AccessKeySecret":"s","#, ""),
        (r#""t""#, "null"),
        ("2099-01-01T00:00:00Z", "soon"),
        ("}", ""),
    ] {
        read(whole.replace(part, instead)).await.unwrap_err();
    }
}

#[tokio::test]
async fn a_region_that_is_no_name_is_refused() {
    for region in ["evil.example/", "a b", "", "x\u{1b}[31m"] {
        let error = metadata(&serving(region)).region_id().await.unwrap_err();
        assert!(matches!(error, MetadataError::Malformed { .. }), "{region:?}: {error}");
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = service(true, true);
    let fault = Fault::on("metadata:*").redirect(&elsewhere.imds_url);
    let emulator = emulator(two_disks().fault(fault));
    metadata(&emulator.imds_url).region_id().await.unwrap_err();
    assert!(elsewhere.log().is_empty());
}

#[tokio::test]
async fn a_service_that_does_not_answer_is_given_up_after_a_second_each() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let began = Instant::now();
    let error = metadata(&url).region_id().await.unwrap_err();
    assert!(matches!(error, MetadataError::Unreachable { .. }), "{error}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test]
async fn credentials_that_expire_soon_are_renewed_before_they_are_needed() {
    let emulator = emulator(two_disks());
    emulator.change(|scenario| scenario.role.lifetime_s = 800);
    let source = support::credentials(&emulator.imds_url).await;
    source.current().await.unwrap();
    assert_eq!(emulator.calls("metadata:role").len(), 1, "valid ones are used without a call");
    source.ready_for(Duration::ZERO).await.unwrap();
    assert_eq!(emulator.calls("metadata:role").len(), 2, "less than 15 minutes are left");

    emulator.faults([Fault::on("metadata:*").error_with_status("gone", 500)]);
    source.ready_for(Duration::ZERO).await.expect("those at hand are still valid");
}

#[tokio::test]
async fn credentials_that_are_expired_already_are_none() {
    let body = r#"{"Code":"Success","AccessKeyId":"STS.1","AccessKeySecret":"s",
        "SecurityToken":"t","Expiration":"2020-01-01T00:00:00Z"}"#;
    let metadata = Arc::new(metadata(&serving(body)));
    let connected = CredentialSource::connect(metadata, Some("R")).await;
    assert!(matches!(connected, Err(CredentialsError::Expired { .. })), "{connected:?}");
}

/// Runs the ignored test `name` of this binary with an environment of its own.
fn run_with(name: &str, environment: &[(&str, &str)]) -> bool {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--ignored", "--quiet"]);
    command.envs(environment.iter().copied()).output().unwrap().status.success()
}

#[test]
fn a_proxy_of_the_environment_is_not_asked_for_metadata_nor_for_loopback() {
    let emulator = emulator(two_disks());
    // Nobody listens there: a request through this proxy fails.
    let proxy = "http://127.0.0.1:9";
    let environment = [
        ("HTTP_PROXY", proxy),
        ("http_proxy", proxy),
        ("HTTPS_PROXY", proxy),
        ("ALL_PROXY", proxy),
        ("ECS", &emulator.ecs_url),
        ("IMDS", &emulator.imds_url),
    ];
    assert!(run_with("disks_are_listed", &environment));
}

#[test]
fn a_certificate_is_believed_only_if_the_system_trusts_its_authority() {
    let addresses = Addresses { tls: true, ..Addresses::default() };
    let emulator = Emulator::start_at(two_disks(), addresses).unwrap();
    let authority = tempfile();
    std::fs::write(&authority, emulator.authority_pem.as_ref().unwrap()).unwrap();
    let places = [("ECS", emulator.ecs_url.as_str()), ("IMDS", emulator.imds_url.as_str())];
    let trusted = [&places[..], &[("SSL_CERT_FILE", authority.to_str().unwrap())]].concat();
    assert!(run_with("disks_are_listed", &trusted));
    assert!(!run_with("disks_are_listed", &places));
    std::fs::remove_file(authority).unwrap();
}

fn tempfile() -> std::path::PathBuf {
    let name = format!("authority-{}.pem", std::process::id());
    std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

#[tokio::test]
#[ignore = "a part of other tests, run by them with an environment of its own"]
async fn disks_are_listed() {
    let place = |name: &str| std::env::var(name).unwrap();
    let acs3 = stillpoint_alibaba::SignatureVersion::Acs3;
    let ecs = support::to(&place("ECS"), &place("IMDS"), acs3).await;
    assert_eq!(ecs.describe_disks("i-bp1emulator0000001", plenty()).await.unwrap().len(), 2);
}

#[tokio::test]
async fn what_the_emulator_handed_out_is_not_shown() {
    let emulator = emulator(two_disks());
    let shown = format!("{:?}", client(&emulator).await);
    for secret in emulator.secrets() {
        assert!(!shown.contains(&secret), "{shown}");
    }
}
