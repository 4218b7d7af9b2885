//! Hooks written to attack, in this process: each attack is refused, typed and in words, in bounded
//! time and memory, and afterwards a well-behaved hook runs as ever. `tests/tests/hostile.rs` has the
//! same against a real server, real file systems and the real binary.
//!
//! `STILLPOINT_HOSTILE_VERBOSE=1` prints each attack with the words of its refusal.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/mariadb.rs"]
#[expect(dead_code, reason = "each test binary uses a part")]
mod mariadb;

mod abi;
mod bombs;
mod describe;
mod files;
mod module;
mod mutated;
mod phases;
mod table;
mod versions;

use std::sync::OnceLock;

use common::{Installation, plenty, request, run, within};
use stillpoint::hook::{Digest, Hook, Outcome, Phase, RunContext};
use stillpoint::manifest::MetadataEntry;
use table::{Refused, Table};

/// How long a phase of an attacked hook has, in milliseconds.
const DEADLINE: u64 = 300;

const PHASES: [(Phase, &str); 6] = [
    (Phase::Validate, "validate"),
    (Phase::Prepare, "prepare"),
    (Phase::PreFreeze, "pre-freeze"),
    (Phase::Confirm, "confirm"),
    (Phase::PostThaw, "post-thaw"),
    (Phase::Finish, "finish"),
];

/// What a whole run of a hook gives, if nothing of it is refused.
#[derive(Debug, Default)]
struct Played {
    summary: String,
    metadata: Vec<MetadataEntry>,
}

/// Runs every phase of a hook, up to the first that is refused. `finish` comes always, on a fresh
/// instance if need be, and no session is open afterwards.
async fn play(hook: &mut dyn Hook, run: &RunContext) -> Result<Played, Refused> {
    let played = phases_of(hook).await;
    let finished = hook.finish(within(DEADLINE)).await;
    assert_eq!(run.sessions.open_sessions(hook.name()), 0, "a session outlives its hook");
    let played = played?;
    finished?;
    Ok(played)
}

async fn phases_of(hook: &mut dyn Hook) -> Result<Played, Refused> {
    let prepared = hook.prepare(within(DEADLINE)).await?;
    let mut quiesced = hook.pre_freeze(within(DEADLINE)).await?;
    hook.confirm(within(DEADLINE)).await?;
    let more = hook.post_thaw(Outcome::Captured, within(DEADLINE)).await?;
    quiesced.metadata.extend(more);
    Ok(Played { summary: prepared.summary, metadata: quiesced.metadata })
}

/// Installs a component, grants it nothing but its limits, loads it and plays it.
async fn whole_life(bytes: &[u8]) -> Result<Played, Refused> {
    let installation = Installation::new();
    let file = installation.file("hook.wasm", bytes);
    let digest = installation.store.install(request(&file)).await?.digest;
    installation.grant("attacker", &digest, &[], "");
    let run = run();
    let mut hook = installation.load("attacker", &run).await?;
    play(&mut *hook, &run).await
}

/// The guest of `tests/guests/hostile`. Built once.
fn guest() -> &'static [u8] {
    static GUEST: OnceLock<Vec<u8>> = OnceLock::new();
    GUEST.get_or_init(|| common::guest("hostile"))
}

/// The guest whose `describe` does what `mode` says.
fn guest_that_describes(mode: &str) -> Vec<u8> {
    let marker = b"HOSTILE-DESCRIBE=";
    let mut bytes = guest().to_vec();
    let at = bytes.windows(marker.len()).position(|window| window == marker).unwrap();
    let value = &mut bytes[at + marker.len()..][..24];
    value.fill(b' ');
    value[..mode.len()].copy_from_slice(mode.as_bytes());
    bytes
}

/// An installation with the guest, compiled once for all.
async fn with_guest() -> (Installation, Digest) {
    Installation::with("hostile", guest()).await
}

/// A hook that behaves still works, in the same process.
async fn others_are_unaffected() {
    let (installation, digest) = with_guest().await;
    let run = run();
    installation.grant("honest", &digest, &[], "");
    let mut hook = installation.load("honest", &run).await.unwrap();
    hook.prepare(plenty()).await.unwrap();
    hook.pre_freeze(plenty()).await.unwrap();
    hook.confirm(plenty()).await.unwrap();
    hook.post_thaw(Outcome::Captured, plenty()).await.unwrap();
    hook.finish(plenty()).await.unwrap();
}

#[tokio::test]
async fn every_attack_of_a_component_is_refused_in_words() {
    let mut table = Table::default();
    files::attack(&mut table).await;
    others_are_unaffected().await;
    describe::attack(&mut table).await;
    others_are_unaffected().await;
    abi::attack(&mut table).await;
    others_are_unaffected().await;
    bombs::attack(&mut table).await;
    others_are_unaffected().await;
    phases::attack(&mut table).await;
    others_are_unaffected().await;
    mutated::attack(&mut table).await;
    others_are_unaffected().await;
    table.finish();
}

/// The seed of `fuzz/fuzz_targets/component.rs`.
#[test]
#[ignore = "writes into the tree"]
fn the_seed_of_the_fuzz_target_is_written() {
    let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/component");
    std::fs::write(seeds.join("hook"), mutated::small()).unwrap();
}
