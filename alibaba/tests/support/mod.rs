//! Clients for the emulator, and a server that answers whatever a test says.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ecs_emulator::{Disk, Emulator, Scenario};
use stillpoint_alibaba::{
    CredentialSource, EcsClient, Endpoint, Metadata, MetadataOptions, SignatureVersion,
};

/// A time that only a hang would need.
pub fn plenty() -> Instant {
    within(20_000)
}

pub fn within(milliseconds: u64) -> Instant {
    Instant::now() + Duration::from_millis(milliseconds)
}

/// Two ESSDs.
pub fn two_disks() -> Scenario {
    Scenario::with_disks([Disk::at("d-1", "/dev/loop1"), Disk::at("d-2", "/dev/loop2")])
}

pub fn emulator(scenario: Scenario) -> Emulator {
    Emulator::start(scenario).unwrap()
}

pub fn metadata(url: &str) -> Metadata {
    Metadata::new(MetadataOptions { endpoint: url.to_owned(), plain_disabled: false }).unwrap()
}

pub async fn credentials(imds: &str) -> Arc<CredentialSource> {
    Arc::new(CredentialSource::connect(Arc::new(metadata(imds)), None).await.unwrap())
}

pub async fn client(emulator: &Emulator) -> EcsClient {
    signing(emulator, SignatureVersion::Acs3).await
}

pub async fn signing(emulator: &Emulator, version: SignatureVersion) -> EcsClient {
    to(&emulator.ecs_url, &emulator.imds_url, version).await
}

/// A client for the ECS at `url`, with credentials of the metadata service at `imds`.
pub async fn to(url: &str, imds: &str, version: SignatureVersion) -> EcsClient {
    let endpoint = Endpoint::named(url).unwrap();
    EcsClient::new(endpoint, "cn-hangzhou", version, credentials(imds).await).await.unwrap()
}

/// Serves each request, on a connection of its own, what `answer` gives for its number.
pub fn fake(answer: impl Fn(usize) -> String + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for (number, connection) in listener.incoming().enumerate() {
            let mut connection = connection.unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && connection.read(&mut byte).unwrap_or(0) == 1 {
                head.push(byte[0]);
            }
            // A client that has seen enough may be gone.
            let _ = connection.write_all(answer(number).as_bytes());
        }
    });
    url
}

/// An answer of HTTP with this status and body.
pub fn http(status: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
}
