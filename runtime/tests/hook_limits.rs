//! The limits of a grant, each with a twin that stays below it; and the minimal WASI, granted and not.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use common::{Installation, guest, plenty, quiesced, run, within};
use stillpoint::capability::grant_template;
use stillpoint::hook::{
    Digest, Hook, HookFailure, HookFailureKind, HookLoadError, HookLogs, LogLevel, Need, RunContext,
};

/// A puppet that does something in `pre-freeze`, with limits.
async fn puppet(commands: &[&str], limits: &str) -> Box<dyn Hook> {
    let (installation, digest) = Installation::with_puppet().await;
    let limits = format!("[limits]\n{limits}\n");
    installation.grant("puppet", &digest, &[("pre-freeze", commands)], &limits);
    let mut hook = installation.load("puppet", &run()).await.unwrap();
    hook.prepare(plenty()).await.unwrap();
    hook
}

async fn stopped(mut hook: Box<dyn Hook>) -> HookFailure {
    let failure = hook.pre_freeze(plenty()).await.unwrap_err();
    assert_eq!(failure.kind, HookFailureKind::Limit, "{failure}");
    hook.finish(plenty()).await.unwrap();
    failure
}

#[tokio::test]
async fn computing_is_bounded_by_processor_time_and_waiting_costs_none() {
    let limit = "cpu-time = \"200ms\"";
    let loops = puppet(&["loop"], limit).await;
    let began = Instant::now();
    let failure = stopped(loops).await;
    assert!(failure.message.starts_with("it used more than 200ms of processor time"), "{failure}");
    assert!(failure.hint.unwrap().contains("`cpu-time` under [limits]"));
    assert!(began.elapsed() < Duration::from_secs(20), "long before its deadline");

    let mut waits = puppet(&["sleep 600", "burn 10"], limit).await;
    assert_eq!(quiesced(waits.pre_freeze(plenty()).await)[1], "burnt");
}

#[tokio::test]
async fn processor_time_is_counted_anew_in_each_phase() {
    let (installation, digest) = Installation::with_puppet().await;
    let burn: &[&str] = &["burn 150"];
    let script = [("prepare", burn), ("pre-freeze", burn), ("confirm", burn)];
    installation.grant("puppet", &digest, &script, "[limits]\ncpu-time = \"300ms\"\n");
    let mut hook = installation.load("puppet", &run()).await.unwrap();
    hook.prepare(plenty()).await.unwrap();
    hook.pre_freeze(plenty()).await.unwrap();
    hook.confirm(plenty()).await.unwrap();
}

#[tokio::test]
async fn calls_of_the_host_are_bounded_in_each_phase() {
    let failure = stopped(puppet(&["chat 200"], "calls = 100").await).await;
    let said = "it made more than 100 calls of the host in one phase";
    assert!(failure.message.starts_with(said), "{failure}");
    assert!(failure.hint.unwrap().contains("`calls` under [limits]"));

    let (installation, digest) = Installation::with_puppet().await;
    let chat: &[&str] = &["chat 90"];
    let script = [("prepare", chat), ("pre-freeze", chat), ("confirm", chat)];
    installation.grant("puppet", &digest, &script, "[limits]\ncalls = 100\n");
    let mut hook = installation.load("puppet", &run()).await.unwrap();
    hook.prepare(plenty()).await.unwrap();
    hook.pre_freeze(plenty()).await.unwrap();
    hook.confirm(plenty()).await.unwrap();
}

#[tokio::test]
async fn memory_is_bounded_by_the_grant() {
    let failure = stopped(puppet(&["eat"], "memory-bytes = 4194304").await).await;
    assert!(failure.message.starts_with("it wanted more memory than it may have"), "{failure}");
    assert!(failure.hint.unwrap().contains("`memory-bytes` under [limits]"));
    let mut small = puppet(&["log small"], "memory-bytes = 4194304").await;
    small.pre_freeze(plenty()).await.unwrap();
}

/// The hook that imports WASI, installed.
async fn wasi() -> (Installation, Digest) {
    static GUEST: OnceLock<Vec<u8>> = OnceLock::new();
    let installation = Installation::new();
    let digest = installation.install(GUEST.get_or_init(|| guest("wasi"))).await;
    (installation, digest)
}

async fn granted(commands: &[&str], more: &str, run: &RunContext) -> Box<dyn Hook> {
    let (installation, digest) = wasi().await;
    let text = format!(
        "module = \"{digest}\"\nwasi = \"minimal\"\n[settings]\ncommands = {}\n{more}",
        serde_json::to_string(commands).unwrap()
    );
    std::fs::write(installation.paths.grants().join("wasi.toml"), text).unwrap();
    let mut hook = installation.load("wasi", run).await.unwrap();
    hook.prepare(plenty()).await.unwrap();
    hook
}

/// Level and text of each line.
fn lines(logs: &HookLogs) -> Vec<(LogLevel, String)> {
    logs.drain().lines.into_iter().map(|line| (line.level, line.message)).collect()
}

#[tokio::test]
async fn a_hook_that_imports_wasi_is_installed_says_so_and_runs_only_if_that_is_granted() {
    let (installation, digest) = wasi().await;
    let inspection = installation.store.inspect("wasi").await.unwrap();
    let needs = &inspection.description.needs;
    let imports = needs.iter().find_map(|need| match need {
        Need::Wasi { imports } => Some(imports.clone()),
        _ => None,
    });
    assert!(imports.unwrap().contains(&"wasi:cli/stdout@0.2.0".to_owned()), "{needs:?}");
    let template = grant_template(&inspection.description, &digest, &[]);
    assert!(template.contains("\nwasi = \"minimal\"\n"), "{template}");

    installation.grant("wasi", &digest, &[], "");
    let error = installation.load("wasi", &run()).await.unwrap_err();
    assert!(matches!(error, HookLoadError::NotGranted { .. }), "{error}");
    assert!(error.to_string().contains("wasi:clocks/monotonic-clock@0.2.0"), "{error}");
    let hint = error.hint().unwrap();
    for remedy in ["`wasi = \"minimal\"`", "hooks.d/wasi.toml", "--stub-wasi"] {
        assert!(hint.contains(remedy), "{hint}");
    }

    std::fs::write(installation.paths.grants().join("wasi.toml"), template).unwrap();
    installation.load("wasi", &run()).await.unwrap().prepare(plenty()).await.unwrap();
}

#[tokio::test]
async fn the_minimal_wasi_has_clocks_random_numbers_output_and_nothing_of_this_machine() {
    let run = run();
    let commands = &[
        "now",
        "wall",
        "random 8",
        "environment",
        "stdin",
        "stdout hello",
        "stderr \u{1b}[2Joh",
        "part no line's end",
        "streams 20",
    ];
    let mut hook = granted(commands, "", &run).await;
    let said = quiesced(hook.pre_freeze(plenty()).await);
    assert_eq!(said[0], "true");
    assert!(said[1].parse::<u64>().unwrap() > 1_700_000_000, "{said:?}");
    assert_eq!(said[2], "8 bytes");
    assert_eq!(said[3], "[] [] None");
    assert!(said[4].contains("Closed"), "{said:?}");
    assert_eq!(said[8], "20 streams");
    hook.confirm(plenty()).await.unwrap();
    let expected = [
        (LogLevel::Info, "hello".to_owned()),
        (LogLevel::Warn, "oh".to_owned()),
        (LogLevel::Info, "no line's end".to_owned()),
    ];
    assert_eq!(lines(&run.logs), expected);
}

#[tokio::test]
async fn waiting_by_wasi_ends_with_the_phase_and_the_guest_goes_on() {
    for command in ["sleep 60000", "until 60000", "poll 60000"] {
        let mut hook = granted(&[command], "", &run()).await;
        let began = Instant::now();
        let said = quiesced(hook.pre_freeze(within(150)).await);
        assert!(!said[0].is_empty(), "{command}");
        assert!(began.elapsed() < Duration::from_secs(5), "{command}: {:?}", began.elapsed());
        hook.confirm(plenty()).await.unwrap();
    }
    let mut hook = granted(&["sleep 1", "poll 1"], "", &run()).await;
    assert_eq!(quiesced(hook.pre_freeze(plenty()).await), ["slept", "[0]"]);
}

#[tokio::test]
async fn output_by_wasi_is_bounded_as_any_log_is() {
    let run = run();
    let mut hook = granted(&["flood 5000"], "[limits]\nlog-bytes = 1000\n", &run).await;
    hook.pre_freeze(plenty()).await.unwrap();
    let drained = run.logs.drain();
    assert_eq!(drained.lines.len(), 10);
    assert_eq!(drained.dropped_bytes, 4990 * 99);
}

#[tokio::test]
async fn a_guest_that_exits_or_asks_for_too_much_is_stopped_and_told() {
    for (command, said) in [
        ("exit", "it ended itself by exit(1)"),
        ("random 1000000", "it was stopped: requested len 1000000 exceeds limit"),
        ("streams 1000", "it was stopped: "),
    ] {
        let mut hook = granted(&[command], "", &run()).await;
        let failure = hook.pre_freeze(plenty()).await.unwrap_err();
        assert_eq!(failure.kind, HookFailureKind::Trapped, "{failure}");
        assert!(failure.message.starts_with(said), "{failure}");
        hook.finish(plenty()).await.unwrap();
    }
}
