//! The vendor's own SDKs, of both generations, drive the emulator. They were written by people who
//! have the real service: what they sign is accepted, what they parse is what we answer, and the
//! errors that they raise are those that their users know.

#![expect(clippy::expect_used, reason = "the functions here are parts of tests")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use ecs_emulator::{AccessKey, Disk, Emulator, Logged, Scenario, Tag, Timeline};

/// As in `sdk/common.py`.
const KEY_ID: &str = "LTAI5tSdkSuite0000000001";
const SECRET: &str = "sdk/Suite+Secret=0123456789";

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sdk")
}

/// The Python that has the SDKs. Absent only if they cannot be had, and `STILLPOINT_OFFLINE=1` says
/// that this is to be expected.
fn python() -> Option<PathBuf> {
    let setup = Command::new(directory().join("setup")).output().expect("sdk/setup can be run");
    if setup.status.success() {
        return Some(PathBuf::from(String::from_utf8_lossy(&setup.stdout).trim()));
    }
    let why = String::from_utf8_lossy(&setup.stderr);
    assert!(
        std::env::var_os("STILLPOINT_OFFLINE").is_some_and(|value| value == "1"),
        "the vendor's SDKs cannot be installed (STILLPOINT_OFFLINE=1 leaves them out):\n{why}"
    );
    // Not `eprintln`: what a test prints with that is not shown when it passes.
    let _ = writeln!(
        std::io::stderr(),
        "LEFT OUT, because of STILLPOINT_OFFLINE=1: the suite of the vendor's SDKs\n{why}"
    );
    None
}

fn emulator() -> Emulator {
    let disk = |number: usize| Disk {
        serial: Some(format!("sdk{number:02}")),
        tags: vec![Tag { key: "disk tag".to_owned(), value: String::new() }],
        ..Disk::at(format!("d-sdk{number:02}"), format!("/dev/loop{}", 100 + number))
    };
    let key = AccessKey { id: KEY_ID.to_owned(), secret: SECRET.to_owned() };
    let scenario = Scenario {
        disks: (0..12).map(disk).collect(),
        access_keys: vec![key],
        // As the real service was seen: the first three looks show nothing.
        group: Timeline { hidden_looks: 3, ..Timeline::default() },
        ..Scenario::default()
    };
    Emulator::start(scenario).expect("a port")
}

/// Runs a script to its end, and gives the requests that it made.
fn run(python: &Path, script: &str, arguments: &[&str]) -> Vec<Logged> {
    let emulator = emulator();
    let output = Command::new(python)
        .arg(directory().join(script))
        .args(arguments)
        .env("EMULATOR_ECS", &emulator.ecs_url)
        .env_remove("http_proxy")
        .output()
        .expect("Python");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{script}: {}\n{stdout}\n{stderr}", output.status);
    emulator.log()
}

/// Everything that was signed was signed in this way, and no parameter was unknown to us.
fn check(log: &[Logged], signature: &str) {
    let signed: Vec<_> = log.iter().filter(|logged| logged.signature.is_some()).collect();
    assert!(signed.len() > 20, "only {} requests", signed.len());
    for logged in signed {
        let version = serde_json::to_value(logged.signature).expect("a name");
        assert_eq!(version, signature, "{logged:?}");
        assert!(logged.unknown_parameters.is_empty(), "{logged:?}");
    }
}

#[test]
fn the_sdk_of_today_is_served_by_version_3() {
    let Some(python) = python() else { return };
    check(&run(&python, "new_generation.py", &[]), "ACS3-HMAC-SHA256");
}

#[test]
fn the_sdk_of_today_is_served_by_version_1() {
    let Some(python) = python() else { return };
    check(&run(&python, "new_generation.py", &["rpc"]), "HMAC-SHA1");
}

#[test]
fn the_sdk_of_the_old_generation_is_served() {
    let Some(python) = python() else { return };
    let log = run(&python, "old_generation.py", &[]);
    check(&log, "HMAC-SHA1");
}

/// The providers have 100.100.100.200 built in: a network namespace has it on its loopback, and is
/// gone with the process.
#[test]
fn the_vendors_credentials_providers_are_served_by_the_metadata_service() {
    let Some(python) = python() else { return };
    let namespace = "ip link set lo up && ip addr add 100.100.100.200/32 dev lo && exec \"$@\"";
    let output = Command::new("unshare")
        .args(["--net", "sh", "-c", namespace, "sh"])
        .arg(&python)
        .arg(directory().join("credentials.py"))
        .env("EMULATOR", env!("CARGO_BIN_EXE_ecs-emulator"))
        .env_remove("http_proxy")
        .output()
        .expect("unshare");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "credentials.py: {}\n{stdout}\n{stderr}", output.status);
}
