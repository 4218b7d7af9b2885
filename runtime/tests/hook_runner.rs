//! One hook in one run: its phases, its time-outs, its traps, its words. No database.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::{Duration, Instant};

use common::{Installation, plenty, quiesced, results, run, within};
use stillpoint::consistency::Level;
use stillpoint::hook::{
    CancelSource, Hook, HookFailure, HookFailureKind, HookLoadError, Outcome, Phase, RunContext,
};

/// What a phase's name in the puppet's script is.
const PHASES: [(Phase, &str); 5] = [
    (Phase::Prepare, "prepare"),
    (Phase::PreFreeze, "pre-freeze"),
    (Phase::Confirm, "confirm"),
    (Phase::PostThaw, "post-thaw"),
    (Phase::Finish, "finish"),
];

/// Plays a hook up to and with one phase, which has `milliseconds`; the others have plenty.
async fn play(hook: &mut dyn Hook, last: Phase, milliseconds: u64) -> Result<(), HookFailure> {
    let by = |phase| if phase == last { within(milliseconds) } else { plenty() };
    for (phase, _) in PHASES {
        let result = match phase {
            Phase::Prepare => hook.prepare(by(phase)).await.map(drop),
            Phase::PreFreeze => hook.pre_freeze(by(phase)).await.map(drop),
            Phase::Confirm => hook.confirm(by(phase)).await,
            Phase::PostThaw => hook.post_thaw(Outcome::Captured, by(phase)).await.map(drop),
            _ => hook.finish(by(phase)).await,
        };
        if phase == last {
            return result;
        }
        result.unwrap();
    }
    Ok(())
}

#[tokio::test]
async fn an_instance_keeps_its_state_from_prepare_to_finish() {
    let (installation, digest) = Installation::with_puppet().await;
    let script: &[(&str, &[&str])] = &[("pre-freeze", &["run-info"]), ("post-thaw", &["run-info"])];
    let mut hook = installation.hook(&digest, script, &run()).await;

    let prepared = hook.prepare(plenty()).await.unwrap();
    assert_eq!(prepared.paths, [std::path::PathBuf::from("/")]);
    let frozen = hook.pre_freeze(plenty()).await.unwrap();
    assert_eq!(frozen.level, Level::Application);
    let said = results(&frozen.metadata);
    assert!(said[0].contains("run-1") && said[0].contains("Phase::PreFreeze"), "{said:?}");
    hook.confirm(plenty()).await.unwrap();
    let said = results(&hook.post_thaw(Outcome::Captured, plenty()).await.unwrap());
    assert!(said[0].contains("Phase::PostThaw"), "{said:?}");
    hook.finish(plenty()).await.unwrap();

    assert_eq!((hook.name(), hook.version()), ("puppet", Some("0.1.0")));
    assert_eq!(hook.digest().unwrap(), digest.to_string());
}

#[tokio::test]
async fn a_hook_may_say_that_it_reached_less() {
    let (installation, digest) = Installation::with_puppet().await;
    let mut hook = installation.hook(&digest, &[("pre-freeze", &["level crash"])], &run()).await;
    hook.prepare(plenty()).await.unwrap();
    assert_eq!(hook.pre_freeze(plenty()).await.unwrap().level, Level::Crash);
}

#[tokio::test]
async fn every_error_of_a_guest_keeps_its_kind_and_bears_its_name_in_every_phase() {
    let (installation, digest) = Installation::with_puppet().await;
    for (phase, name) in PHASES {
        for (kind, expected) in [
            ("busy", HookFailureKind::Busy),
            ("not-applicable", HookFailureKind::NotApplicable),
            ("application", HookFailureKind::Application),
            ("internal", HookFailureKind::Internal),
        ] {
            let command = format!("fail {kind} no\u{1b}[31m luck");
            let mut hook = installation.hook(&digest, &[(name, &[&command])], &run()).await;
            let failure = play(&mut *hook, phase, 30_000).await.unwrap_err();
            assert_eq!((failure.kind, failure.phase), (expected, phase));
            let text = failure.to_string();
            assert!(text.starts_with(&format!("hook puppet 0.1.0: {name}: no luck")), "{text}");
        }
    }
}

#[tokio::test]
async fn a_loop_in_any_phase_ends_at_its_deadline_and_finish_runs_on_a_fresh_instance() {
    let (installation, digest) = Installation::with_puppet().await;
    for (phase, name) in PHASES {
        let run = run();
        let mut hook = installation.hook(&digest, &[(name, &["loop"])], &run).await;
        let began = Instant::now();
        let failure = play(&mut *hook, phase, 100).await.unwrap_err();
        let took = began.elapsed();
        assert_eq!(failure.kind, HookFailureKind::Timeout, "{failure}");
        assert!(failure.message.starts_with("it was still computing at its deadline"), "{failure}");
        assert!(took < Duration::from_secs(2), "{name} took {took:?}");

        let gone = hook.confirm(plenty()).await.unwrap_err();
        assert_eq!(gone.kind, HookFailureKind::InstanceGone);
        let _ = run.logs.drain();
        hook.finish(plenty()).await.unwrap();
        let logged = run.logs.drain().lines;
        assert_eq!(logged[0].message, "finish", "finish ran after a loop in {name}");
    }
}

#[tokio::test]
async fn a_trap_in_any_phase_takes_the_instance_and_nothing_else() {
    let (installation, digest) = Installation::with_puppet().await;
    for (phase, name) in PHASES {
        let mut hook = installation.hook(&digest, &[(name, &["trap"])], &run()).await;
        let failure = play(&mut *hook, phase, 30_000).await.unwrap_err();
        assert_eq!(failure.kind, HookFailureKind::Trapped, "{failure}");
        assert!(failure.message.starts_with("it trapped"), "{failure}");
        let gone = hook.post_thaw(Outcome::Aborted, plenty()).await.unwrap_err();
        assert_eq!(gone.kind, HookFailureKind::InstanceGone);
        hook.finish(plenty()).await.unwrap();
    }
}

#[tokio::test]
async fn memory_is_bounded_in_any_phase_and_the_bound_is_named() {
    let (installation, digest) = Installation::with_puppet().await;
    for (phase, name) in PHASES {
        let mut hook = installation.hook(&digest, &[(name, &["eat"])], &run()).await;
        let failure = play(&mut *hook, phase, 30_000).await.unwrap_err();
        assert_eq!(failure.kind, HookFailureKind::Limit, "{failure}");
        assert!(failure.message.contains("memory"), "{failure}");
        assert!(failure.hint.unwrap().contains("`memory-bytes`"));
        hook.finish(plenty()).await.unwrap();
    }
}

#[tokio::test]
async fn a_sleeping_guest_comes_back_by_itself_at_the_deadline() {
    let (installation, digest) = Installation::with_puppet().await;
    let script: &[(&str, &[&str])] = &[("pre-freeze", &["sleep 60000"])];
    let mut hook = installation.hook(&digest, script, &run()).await;
    hook.prepare(plenty()).await.unwrap();
    let began = Instant::now();
    hook.pre_freeze(within(100)).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(2));
    hook.confirm(plenty()).await.unwrap();
}

#[tokio::test]
async fn a_cancelled_run_wakes_a_sleeping_guest() {
    let (installation, digest) = Installation::with_puppet().await;
    let source = CancelSource::new();
    let run = RunContext::new("run-1", false, source.token());
    let script: &[(&str, &[&str])] = &[("pre-freeze", &["sleep 60000"])];
    let mut hook = installation.hook(&digest, script, &run).await;
    hook.prepare(plenty()).await.unwrap();
    let (frozen, ()) = tokio::join!(hook.pre_freeze(plenty()), async { source.cancel() });
    assert_eq!(quiesced(frozen), ["cancelled: true"]);
}

#[tokio::test]
async fn programs_and_durable_state_are_denied_in_words() {
    let (installation, digest) = Installation::with_puppet().await;
    let script: &[(&str, &[&str])] = &[("pre-freeze", &["program /bin/sh", "kv", "granted"])];
    let mut hook = installation.hook(&digest, script, &run()).await;
    hook.prepare(plenty()).await.unwrap();
    let said = quiesced(hook.pre_freeze(plenty()).await);
    assert!(said[0].contains("program `/bin/sh` is not granted"), "{said:?}");
    assert!(said[1].contains("Denied"), "{said:?}");
    assert_eq!(said[2], "");
}

#[tokio::test]
async fn nothing_may_be_contacted_while_settings_are_checked() {
    let (installation, digest) = Installation::with_puppet().await;
    installation.grant("puppet", &digest, &[("validate", &["open a main"])], "");
    let error = installation.load("puppet", &run()).await.unwrap_err();
    let HookLoadError::Invalid(failure) = error else { panic!("{error}") };
    assert_eq!(failure.kind, HookFailureKind::Denied);
    assert!(failure.message.contains("nothing may be contacted in validate"), "{failure}");
}

#[tokio::test]
async fn wrong_settings_are_found_before_the_run_and_name_the_file() {
    let (installation, digest) = Installation::with_puppet().await;
    installation.grant("puppet", &digest, &[], "prepare = 7\n");
    let error = installation.load("puppet", &run()).await.unwrap_err();
    let said = error.to_string();
    assert!(said.starts_with("hook puppet: /"), "{error}");
    let place = "hooks.d/puppet.toml:3:1: setting /prepare: 7 is not of type \"array\"";
    assert!(said.ends_with(place), "{error}");
    assert!(error.hint().unwrap().contains("hooks.d/puppet.toml"), "{error}");
}

#[tokio::test]
async fn settings_that_do_not_fit_never_reach_the_hook() {
    let (installation, digest) = Installation::with_puppet().await;
    let script: &[(&str, &[&str])] = &[("validate", &["trap"])];
    installation.grant("puppet", &digest, script, "prepare = [\"log a\", 7]\nfinish = {}\n");
    let error = installation.load("puppet", &run()).await.unwrap_err();
    let HookLoadError::Settings { problems, .. } = &error else { panic!("{error}") };
    assert!(problems[0].contains("puppet.toml:4:21: setting /prepare/1: 7 is not"), "{problems:?}");
    assert!(
        problems[1].contains("puppet.toml:5:1: setting /finish: the table is not"),
        "{problems:?}"
    );

    installation.grant("puppet", &digest, script, "prepare = [\"log a\"]\n");
    let error = installation.load("puppet", &run()).await.unwrap_err();
    let HookLoadError::Invalid(failure) = error else { panic!("{error}") };
    assert_eq!(failure.kind, HookFailureKind::Trapped, "with settings that fit, it is asked");
}

#[tokio::test]
async fn a_setting_that_the_hook_refuses_is_named_with_line_and_column() {
    let (installation, digest) = Installation::with_puppet().await;
    let script: &[(&str, &[&str])] = &[("validate", &["fail invalid-settings too short"])];
    installation.grant("puppet", &digest, script, "");
    let error = installation.load("puppet", &run()).await.unwrap_err().to_string();
    assert!(error.contains("hooks.d/puppet.toml:3:1: setting /validate: too short"), "{error}");
}

#[tokio::test]
async fn what_a_hook_logs_is_kept_in_memory_and_bounded() {
    let (installation, digest) = Installation::with_puppet().await;
    let commands = vec!["log 0123456789\u{1b}[2J"; 100];
    let run = run();
    installation.grant(
        "puppet",
        &digest,
        &[("pre-freeze", &commands)],
        "[limits]\nlog-bytes = 50\n",
    );
    let mut hook = installation.load("puppet", &run).await.unwrap();
    hook.prepare(plenty()).await.unwrap();
    hook.pre_freeze(plenty()).await.unwrap();
    let drained = run.logs.drain();
    assert_eq!(drained.lines.len(), 5);
    assert_eq!(drained.lines[0].message, "0123456789");
    assert_eq!(drained.dropped_bytes, 950);
}

#[tokio::test]
async fn a_phase_without_an_instance_says_so() {
    let (installation, digest) = Installation::with_puppet().await;
    let mut hook = installation.hook(&digest, &[], &run()).await;
    let failure = hook.pre_freeze(plenty()).await.unwrap_err();
    assert_eq!(failure.kind, HookFailureKind::InstanceGone);
    hook.finish(plenty()).await.unwrap();
}
