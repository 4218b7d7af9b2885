//! What a hook keeps, and `finish` after its agent has died: on a fresh instance, with the grant as it
//! is then.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::{Installation, plenty, quiesced, run};
use stillpoint::hook::{Digest, Hook};
use stillpoint::journal::{BegunHook, RunLock, RunRecord};
use stillpoint::script::ScriptSettings;
use stillpoint::sequence::{Aftermath, Recovered, recover};

const KV: &str = "[kv]\nbytes = 1024\n";

/// A puppet that may keep something, as it is loaded for one run.
async fn hook(
    installation: &Installation,
    digest: &Digest,
    script: &[(&str, &[&str])],
) -> Box<dyn Hook> {
    installation.grant("puppet", digest, script, KV);
    installation.load("puppet", &run()).await.unwrap()
}

/// What is kept under a key now.
async fn kept(installation: &Installation, digest: &Digest, key: &str) -> String {
    let command = format!("kv-get {key}");
    let mut hook = hook(installation, digest, &[("pre-freeze", &[&command])]).await;
    hook.prepare(plenty()).await.unwrap();
    quiesced(hook.pre_freeze(plenty()).await).remove(0)
}

/// A run in which a hook kept what is to be undone, and whose agent then died.
async fn dies(installation: &Installation, digest: &Digest, undo: &str) {
    let keep = format!("kv-set undo {undo}");
    let mut hook = hook(installation, digest, &[("prepare", &[&keep])]).await;
    let mut lock = RunLock::acquire(&installation.paths.run(), "run-that-died").unwrap();
    lock.hook_begun(BegunHook {
        name: "puppet".into(),
        module: hook.digest(),
        grant: hook.grant_file().map(Into::into),
    })
    .unwrap();
    hook.prepare(plenty()).await.unwrap();
    // No finish, and nothing more in the journal.
}

async fn recovered(installation: &Installation, asked: bool) -> Recovered {
    let mut lock = RunLock::acquire(&installation.paths.run(), "next").unwrap();
    let aftermath = Aftermath {
        paths: &installation.paths,
        scripts: &ScriptSettings::default(),
        finish: Duration::from_secs(20),
        asked,
    };
    recover(&mut lock, &aftermath).await.unwrap()
}

fn journal(installation: &Installation) -> Option<RunRecord> {
    RunRecord::load(&installation.paths.run()).unwrap()
}

#[tokio::test]
async fn what_a_hook_keeps_is_there_in_the_next_run_and_not_in_validate() {
    let (installation, digest) = Installation::with_puppet().await;
    let script: &[(&str, &[&str])] = &[("prepare", &["kv-set a one", "kv-set b two", "kv-del b"])];
    hook(&installation, &digest, script).await.prepare(plenty()).await.unwrap();
    assert_eq!(kept(&installation, &digest, "a").await, "one");
    assert_eq!(kept(&installation, &digest, "b").await, "nothing");

    installation.grant("puppet", &digest, &[("validate", &["kv-get a"])], KV);
    let error = installation.load("puppet", &run()).await.unwrap_err();
    assert!(error.to_string().contains("validate: durable state"), "{error}");
    assert!(error.hint().unwrap().contains("in validate"), "{error:?}");

    installation.grant("puppet", &digest, &[("prepare", &["kv-set a two"])], "");
    let mut denied = installation.load("puppet", &run()).await.unwrap();
    let failure = denied.prepare(plenty()).await.unwrap_err();
    assert!(failure.hint.unwrap().contains("hooks.d/puppet.toml: [kv] bytes = 1024"));
    assert_eq!(kept(&installation, &digest, "a").await, "one");
}

#[tokio::test]
async fn finish_of_a_hook_whose_agent_died_runs_at_the_next_start_once() {
    let (installation, digest) = Installation::with_puppet().await;
    dies(&installation, &digest, "kv-set undone by-the-next").await;
    assert_eq!(journal(&installation).unwrap().left_hooks()[0].hook.name, "puppet");

    let recovered_now = recovered(&installation, false).await;
    assert_eq!(recovered_now.left, [""; 0]);
    let said = &recovered_now.done;
    assert!(said.len() == 1 && said[0].contains("run run-that-died: hook puppet"), "{said:?}");
    assert_eq!(kept(&installation, &digest, "undone").await, "by-the-next");
    assert_eq!(kept(&installation, &digest, "undo").await, "nothing");
    assert_eq!(journal(&installation), None);
    assert_eq!(recovered(&installation, true).await, Recovered::default(), "twice is harmless");
}

#[tokio::test]
async fn a_finish_that_fails_is_told_and_tried_again_a_bounded_number_of_times() {
    let (installation, digest) = Installation::with_puppet().await;
    dies(&installation, &digest, "fail busy not yet").await;
    for try_number in 1..=5 {
        let left = recovered(&installation, false).await.left;
        assert!(left[0].contains(&format!("(try {try_number})")), "{left:?}");
        assert!(left[0].contains("finish: not yet"), "{left:?}");
        assert_eq!(journal(&installation).unwrap().left_hooks()[0].tries, try_number);
    }
    for _ in 0..2 {
        let left = recovered(&installation, false).await.left;
        assert!(left[0].contains("not tried again by itself after 5 tries"), "{left:?}");
    }
    let asked = recovered(&installation, true).await.left;
    assert!(asked[0].contains("finish: not yet"), "an operator's word counts: {asked:?}");

    let script: &[(&str, &[&str])] = &[("prepare", &["kv-set undo log free again"])];
    hook(&installation, &digest, script).await.prepare(plenty()).await.unwrap();
    assert_eq!(recovered(&installation, true).await.left, [""; 0]);
    assert_eq!(journal(&installation), None);
}

#[tokio::test]
async fn a_finish_that_never_ends_costs_its_deadline_and_is_told() {
    let (installation, digest) = Installation::with_puppet().await;
    dies(&installation, &digest, "sleep 60000;loop").await;
    let mut lock = RunLock::acquire(&installation.paths.run(), "next").unwrap();
    let aftermath = Aftermath {
        paths: &installation.paths,
        scripts: &ScriptSettings::default(),
        finish: Duration::from_millis(200),
        asked: false,
    };
    let began = std::time::Instant::now();
    let left = recover(&mut lock, &aftermath).await.unwrap().left;
    assert!(left[0].contains("still computing at its deadline"), "{left:?}");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

#[tokio::test]
async fn without_its_grant_or_its_component_what_cannot_be_undone_is_said_and_kept() {
    let (installation, digest) = Installation::with_puppet().await;
    dies(&installation, &digest, "log undone").await;
    let grant = installation.paths.grants().join("puppet.toml");
    let text = std::fs::read(&grant).unwrap();
    std::fs::remove_file(&grant).unwrap();
    let left = recovered(&installation, true).await.left;
    for word in ["its grant file", "puppet.toml is gone", &digest.to_string(), "recover"] {
        assert!(left[0].contains(word), "{left:?}");
    }
    assert!(journal(&installation).is_some());

    std::fs::write(&grant, text).unwrap();
    let record = installation.paths.hooks().join(format!("{}.json", digest.hex()));
    let kept_record = std::fs::read(&record).unwrap();
    std::fs::remove_file(&record).unwrap();
    let left = recovered(&installation, true).await.left;
    assert!(left[0].contains(&format!("its component is gone ({digest})")), "{left:?}");

    std::fs::write(&record, kept_record).unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(&record, std::fs::Permissions::from_mode(0o600)).unwrap();
    let recovered = recovered(&installation, true).await;
    assert!(recovered.left.is_empty() && recovered.done.len() == 1, "{recovered:?}");
}
