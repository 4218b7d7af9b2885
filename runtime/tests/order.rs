//! The order of a run, as a log of words: what is done, and what is undone when a step fails. Every
//! place where a run can fail is tried, from a list; the law is the same for all. No file system is
//! frozen here: tests/guard does that.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use stillpoint::config::grants::OnFailure;
use stillpoint::consistency::{Level, ReasonCode};
use stillpoint::exit_code::ExitCode;
use stillpoint::hook::{
    CancelSource, Hook, HookFailure, HookFailureKind, Outcome, Phase, Prepared, Quiesced,
    RunContext,
};
use stillpoint::manifest::{Manifest, MetadataEntry};
use stillpoint::plan::DevId;
use stillpoint::provider::{
    CreatedGroup, Disk, GroupRequest, Member, PreparedGroup, Provider, ProviderError,
};
use stillpoint::sequence::{self, Failure, PlannedHook, Report, Request, SnapshotState};
use stillpoint::time::Deadline;

/// What happened, in order, and where to fail.
#[derive(Clone, Debug, Default)]
struct Script {
    log: Arc<Mutex<Vec<String>>>,
    fail_at: Option<String>,
    kind: Option<HookFailureKind>,
    cancel_at: Option<(String, Arc<CancelSource>)>,
    /// What hook `a` names as its data.
    paths: Vec<PathBuf>,
    /// The disk that `/` is on is in the snapshot, in place of one that nothing is on.
    with_root: bool,
    /// The first word is not over before the second has been said, or the phase's deadline has passed.
    waits: Vec<(&'static str, &'static str)>,
}

impl Script {
    async fn wait_at(&self, word: &str, deadline: Deadline) -> bool {
        for (_, until) in self.waits.iter().filter(|(at, _)| *at == word) {
            while !self.words().iter().any(|said| said == until) {
                if deadline.remaining().is_zero() {
                    return false;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        true
    }

    /// True if this is the place to fail.
    fn say(&self, word: &str) -> bool {
        self.log.lock().unwrap().push(word.to_owned());
        if let Some((at, source)) = &self.cancel_at
            && at == word
        {
            source.cancel();
        }
        self.fail_at.as_deref() == Some(word)
    }

    fn words(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

#[derive(Debug)]
struct FakeHook {
    name: &'static str,
    script: Script,
}

impl FakeHook {
    async fn act(&self, phase: Phase, deadline: Deadline) -> Result<(), HookFailure> {
        let word = format!("{}.{phase}", self.name);
        let told_to = self.script.say(&word).then_some(HookFailureKind::Application);
        let in_time = self.script.wait_at(&word, deadline).await;
        let late = (!in_time).then_some(HookFailureKind::Timeout);
        match told_to.or(late) {
            None => Ok(()),
            Some(kind) => Err(HookFailure {
                hook: self.name.into(),
                version: None,
                phase,
                kind: self.script.kind.unwrap_or(kind),
                message: "told to fail".into(),
                hint: None,
            }),
        }
    }
}

#[async_trait]
impl Hook for FakeHook {
    fn name(&self) -> &str {
        self.name
    }
    fn version(&self) -> Option<&str> {
        None
    }
    fn digest(&self) -> Option<String> {
        None
    }
    async fn prepare(&mut self, by: Deadline) -> Result<Prepared, HookFailure> {
        self.act(Phase::Prepare, by).await?;
        let paths = if self.name == "a" { self.script.paths.clone() } else { Vec::new() };
        Ok(Prepared { paths, ..Prepared::default() })
    }
    async fn pre_freeze(&mut self, by: Deadline) -> Result<Quiesced, HookFailure> {
        self.act(Phase::PreFreeze, by)
            .await
            .map(|()| Quiesced { level: Level::Application, metadata: Vec::new() })
    }
    async fn confirm(&mut self, by: Deadline) -> Result<(), HookFailure> {
        self.act(Phase::Confirm, by).await
    }
    async fn post_thaw(
        &mut self,
        _: Outcome,
        by: Deadline,
    ) -> Result<Vec<MetadataEntry>, HookFailure> {
        self.act(Phase::PostThaw, by).await.map(|()| Vec::new())
    }
    async fn finish(&mut self, by: Deadline) -> Result<(), HookFailure> {
        self.act(Phase::Finish, by).await
    }
}

#[derive(Debug)]
struct FakeProvider {
    script: Script,
    hangs: bool,
    fixed: bool,
}

#[derive(Debug)]
struct FakeGroup {
    script: Script,
    hangs: bool,
    fixed: bool,
}

fn refused(word: &str) -> ProviderError {
    ProviderError::new("fake", ExitCode::CreateFailed, format!("{word} was told to fail"))
}

impl FakeGroup {
    fn act(&self, word: &str) -> Result<(), ProviderError> {
        if self.script.say(word) { Err(refused(word)) } else { Ok(()) }
    }
}

#[async_trait]
impl Provider for FakeProvider {
    fn name(&self) -> &str {
        "fake"
    }
    async fn disks(&self) -> Result<Vec<Disk>, ProviderError> {
        // A device that nothing is mounted from: nothing is to be frozen.
        let nothing = DevId { major: 251, minor: 9_999 };
        let device = if self.script.with_root { device_of_root() } else { nothing };
        Ok(vec![Disk { id: "d".into(), device, node: "/dev/fake".into(), warnings: vec![] }])
    }
    async fn prepare(
        &self,
        _: GroupRequest,
        _: Deadline,
    ) -> Result<Box<dyn PreparedGroup>, ProviderError> {
        if self.script.say("provider.prepare") {
            return Err(refused("provider.prepare"));
        }
        let Self { script, hangs, fixed } = self;
        Ok(Box::new(FakeGroup { script: script.clone(), hangs: *hangs, fixed: *fixed }))
    }
}

#[async_trait]
impl PreparedGroup for FakeGroup {
    async fn create(&mut self, _: Deadline) -> Result<CreatedGroup, ProviderError> {
        self.act("create")?;
        if self.hangs {
            std::future::pending::<()>().await;
        }
        Ok(CreatedGroup { id: "g".into(), point_in_time_fixed: self.fixed })
    }
    async fn settle(&mut self, _: Deadline) -> Result<Vec<Member>, ProviderError> {
        self.act("settle").map(|()| Vec::new())
    }
    async fn record(&mut self, _: &Manifest) -> Result<(), ProviderError> {
        self.act("record")
    }
    async fn discard(&mut self) -> Result<(), ProviderError> {
        self.act("discard")
    }
}

fn device_of_root() -> DevId {
    let device = std::fs::metadata("/").unwrap().dev();
    DevId {
        major: u32::try_from(nix::sys::stat::major(device)).unwrap(),
        minor: u32::try_from(nix::sys::stat::minor(device)).unwrap(),
    }
}

/// Everything that a run says when nothing fails: the list from which the faults are made.
const HAPPY: [&str; 14] = [
    "a.prepare",
    "b.prepare",
    "provider.prepare",
    "a.pre-freeze",
    "b.pre-freeze",
    "create",
    "b.confirm",
    "b.post-thaw",
    "b.finish",
    "a.confirm",
    "a.post-thaw",
    "a.finish",
    "settle",
    "record",
];

/// What hooks have for a phase here. Who is kept waiting when he need not be waits for so long.
const LONG: Duration = Duration::from_secs(4);

struct Case {
    script: Script,
    hangs: bool,
    fixed: bool,
    on_failure: OnFailure,
    require: Option<Level>,
    /// Neither names the other: they are quiesced at the same time.
    independent: bool,
}

impl Case {
    fn new(fail_at: Option<&str>) -> Self {
        let script = Script { fail_at: fail_at.map(str::to_owned), ..Script::default() };
        Self {
            script,
            hangs: false,
            fixed: true,
            on_failure: OnFailure::Abort,
            require: None,
            independent: false,
        }
    }

    /// Two that do not name each other, one of which waits.
    fn independent(fail_at: Option<&str>, waits: &[(&'static str, &'static str)]) -> Self {
        let mut case = Self { independent: true, ..Self::new(fail_at) };
        case.script.waits = waits.to_vec();
        case
    }

    /// Hook `b` is quiesced after hook `a`, and released before it.
    async fn run(self) -> (Result<Report, Failure>, Vec<String>) {
        let Self { script, hangs, fixed, on_failure, require, independent } = self;
        let run_dir = tempfile::tempdir().unwrap();
        let provider = FakeProvider { script: script.clone(), hangs, fixed };
        let mut request = Request::new("order", Arc::new(provider));
        request.run_dir = run_dir.path().join("run");
        request.require = require;
        // `/` is never frozen by a test.
        request.scope.freeze = !script.with_root;
        request.deadlines.freeze = Duration::from_millis(300);
        request.deadlines.quiesce = LONG;
        request.deadlines.confirm = LONG;
        request.deadlines.release = LONG;
        if let Some((_, source)) = &script.cancel_at {
            request.context = RunContext::new("order", false, source.token());
        }
        for (name, after) in [("b", vec!["a".to_owned()]), ("a", vec![])] {
            let after = if independent { Vec::new() } else { after };
            let hook = Box::new(FakeHook { name, script: script.clone() });
            request.hooks.push(PlannedHook::component(hook, on_failure, after));
        }
        let result = sequence::run(request).await;
        (result, script.words())
    }
}

/// The law: whoever was asked to quiesce is released, in reverse, each before the other's turn, and
/// `finish` is the last word of every hook that was prepared; a group that is not kept is removed.
fn check_law(result: &Result<Report, Failure>, words: &[String], about: &str) {
    let at = |word: &str| words.iter().position(|other| other == word);
    let context = || format!("{about}: {words:?}");
    for hook in ["a", "b"] {
        let asked = at(&format!("{hook}.pre-freeze"));
        let released = at(&format!("{hook}.post-thaw"));
        let finished = at(&format!("{hook}.finish"));
        assert_eq!(asked.is_some(), released.is_some(), "asked and released: {}", context());
        assert!(asked < released || asked.is_none(), "released after: {}", context());
        assert!(finished.is_some() && released < finished, "finish is last: {}", context());
        let times = words.iter().filter(|word| **word == format!("{hook}.finish")).count();
        assert_eq!(times, 1, "finished once: {}", context());
    }
    let ordered = !about.starts_with("independent");
    if let (true, Some(a), Some(b)) = (ordered, at("a.post-thaw"), at("b.post-thaw")) {
        assert!(b < a, "in reverse: {}", context());
    }
    if let Err(failure) = result {
        assert!(failure.state.maybe_frozen.is_empty(), "{}", context());
        if at("provider.prepare").is_some() && about != "provider.prepare" {
            assert!(at("discard").is_some(), "removed: {}", context());
        }
        assert_ne!(failure.state.snapshot, SnapshotState::Kept("g".into()), "{}", context());
        assert_ne!(failure.exit_code(), ExitCode::Ok, "{}", context());
    }
}

#[tokio::test]
async fn a_run_goes_in_the_order_of_its_story() {
    let (result, words) = Case::new(None).run().await;
    let report = result.unwrap();
    assert_eq!(words, HAPPY);
    assert_eq!(report.exit_code, ExitCode::Ok);
    assert_eq!(report.manifest.level, Level::Application);
    assert_eq!(report.state.to_string(), "file systems running, 2 hooks released, snapshot g kept");
}

#[tokio::test]
async fn wherever_a_run_fails_what_was_done_is_undone_in_reverse() {
    for place in HAPPY {
        let (result, words) = Case::new(Some(place)).run().await;
        check_law(&result, &words, place);
        let code = match &result {
            Ok(report) => report.exit_code,
            Err(failure) => failure.exit_code(),
        };
        let expected = match place {
            "a.prepare" | "b.prepare" | "a.pre-freeze" | "b.pre-freeze" => ExitCode::PreFreeze,
            "provider.prepare" | "create" | "settle" => ExitCode::CreateFailed,
            "record" => ExitCode::Tags,
            _ => ExitCode::PostThaw,
        };
        assert_eq!(code, expected, "{place}");
        let kept = matches!(
            place,
            "record"
                | "a.confirm"
                | "b.confirm"
                | "a.post-thaw"
                | "b.post-thaw"
                | "a.finish"
                | "b.finish"
        );
        assert_eq!(result.is_ok(), kept, "{place}: {words:?}");
    }
}

#[tokio::test]
async fn wherever_a_run_is_stopped_what_was_done_is_undone_in_reverse() {
    for place in HAPPY {
        let mut case = Case::new(None);
        case.script.cancel_at = Some((place.to_owned(), Arc::new(CancelSource::new())));
        let (result, words) = case.run().await;
        check_law(&result, &words, place);
        // Once the point in time is fixed, the quickest way to the end is on.
        let before = HAPPY.iter().position(|word| *word == place) < Some(5);
        assert_eq!(result.is_err(), before, "{place}: {words:?}");
    }
}

#[tokio::test]
async fn a_failed_confirmation_lowers_the_level_and_is_told() {
    let (result, _) = Case::new(Some("b.confirm")).run().await;
    let report = result.unwrap();
    assert_eq!(report.manifest.level, Level::FileSystem);
    assert_eq!(report.manifest.reasons[0].code, ReasonCode::NotConfirmed);
    assert!(report.manifest.hooks[0].confirmed && !report.manifest.hooks[1].confirmed);
}

#[tokio::test]
async fn a_failed_release_does_not_touch_the_level() {
    let (result, _) = Case::new(Some("a.post-thaw")).run().await;
    let report = result.unwrap();
    assert_eq!(report.manifest.level, Level::Application);
    assert_eq!(report.exit_code, ExitCode::PostThaw);
    assert!(report.state.to_string().contains("release reported trouble"));
}

#[tokio::test]
async fn a_hook_that_may_fail_is_released_at_once_and_lowers_the_level() {
    for place in ["a.prepare", "b.pre-freeze"] {
        let mut case = Case::new(Some(place));
        case.on_failure = OnFailure::Lower;
        let (result, words) = case.run().await;
        check_law(&result, &words, place);
        let report = result.unwrap();
        assert_eq!(report.manifest.level, Level::FileSystem, "{place}");
        assert_eq!(report.manifest.reasons[0].code, ReasonCode::HookFailed, "{place}");
        let release = words.iter().position(|word| word == "b.post-thaw");
        let create = words.iter().position(|word| word == "create");
        assert_eq!(release < create, place == "b.pre-freeze", "{place}: {words:?}");
    }
}

#[tokio::test]
async fn a_hook_that_may_be_left_out_lowers_nothing_if_its_application_is_absent() {
    for (kind, ok) in
        [(HookFailureKind::NotApplicable, true), (HookFailureKind::Application, false)]
    {
        let mut case = Case::new(Some("a.prepare"));
        case.script.kind = Some(kind);
        case.on_failure = OnFailure::Skip;
        let (result, _) = case.run().await;
        let level = result.as_ref().ok().map(|report| report.manifest.level);
        assert_eq!(level, ok.then_some(Level::Application));
    }
}

#[tokio::test]
async fn a_level_that_is_required_and_not_reached_leaves_no_snapshot() {
    for place in ["b.pre-freeze", "b.confirm"] {
        let mut case = Case::new(Some(place));
        case.on_failure = OnFailure::Lower;
        case.require = Some(Level::Application);
        let (result, words) = case.run().await;
        check_law(&result, &words, place);
        assert_eq!(result.unwrap_err().exit_code(), ExitCode::Precondition, "{place}");
        let asked = words.iter().any(|word| word == "create");
        assert_eq!(asked, place == "b.confirm", "known early, not asked for: {words:?}");
    }
}

#[tokio::test]
async fn a_provider_that_never_answers_is_not_waited_for_beyond_the_window() {
    let mut case = Case::new(None);
    case.hangs = true;
    let (result, words) = case.run().await;
    check_law(&result, &words, "hang");
    assert_eq!(result.unwrap_err().exit_code(), ExitCode::GroupTimedOut);
}

#[tokio::test]
async fn a_provider_that_cannot_say_when_the_point_was_fixed_lowers_the_level() {
    let mut case = Case::new(None);
    case.fixed = false;
    let report = case.run().await.0.unwrap();
    assert_eq!(report.manifest.level, Level::Crash);
    assert_eq!(report.manifest.reasons[0].code, ReasonCode::PointInTimeUnknown);
}

#[tokio::test]
async fn an_instance_that_is_gone_counts_as_released() {
    let mut case = Case::new(Some("a.post-thaw"));
    case.script.kind = Some(HookFailureKind::InstanceGone);
    let report = case.run().await.0.unwrap();
    assert_eq!(report.exit_code, ExitCode::Ok);
}

#[tokio::test]
async fn a_run_without_hooks_is_never_called_application() {
    let run_dir = tempfile::tempdir().unwrap();
    let provider = FakeProvider { script: Script::default(), hangs: false, fixed: true };
    let mut request = Request::new("alone", Arc::new(provider));
    request.run_dir = run_dir.path().join("run");
    let report = sequence::run(request).await.unwrap();
    assert_eq!(report.manifest.level, Level::FileSystem);
    assert_eq!(report.manifest.reasons[0].code, ReasonCode::NoHook);
}

#[tokio::test]
async fn a_second_run_at_the_same_time_is_refused_and_named() {
    let run_dir = tempfile::tempdir().unwrap();
    let run_dir = run_dir.path().join("run");
    let first = stillpoint::journal::RunLock::acquire(&run_dir, "the-first").unwrap();
    let script = Script::default();
    let provider = FakeProvider { script: script.clone(), hangs: false, fixed: true };
    let mut request = Request::new("second", Arc::new(provider));
    request.run_dir = run_dir;
    let failure = sequence::run(request).await.unwrap_err();
    drop(first);
    assert_eq!(failure.exit_code(), ExitCode::InProgress);
    assert!(failure.cause.to_string().contains("the-first"), "{}", failure.cause);
    assert!(script.words().is_empty(), "nothing was touched");
}

#[tokio::test]
async fn hooks_that_wait_for_each_other_are_refused_before_anything_is_touched() {
    let script = Script::default();
    let provider = FakeProvider { script: script.clone(), hangs: false, fixed: true };
    let run_dir = tempfile::tempdir().unwrap();
    for after in [[("a", "b"), ("b", "a")], [("a", "a"), ("b", "a")], [("a", "zzz"), ("b", "a")]] {
        let provider = FakeProvider { script: provider.script.clone(), ..provider };
        let mut request = Request::new("circle", Arc::new(provider));
        request.run_dir = run_dir.path().join("run");
        for (name, before) in after {
            let hook = Box::new(FakeHook { name, script: script.clone() });
            let after = vec![before.to_owned()];
            request.hooks.push(PlannedHook::component(hook, OnFailure::Abort, after));
        }
        let failure = sequence::run(request).await.unwrap_err();
        assert_eq!(failure.exit_code(), ExitCode::Parameters);
        assert!(script.words().is_empty(), "nothing was touched");
    }
}

/// Runs it, and says how long that took.
async fn timed(case: Case) -> (Result<Report, Failure>, Vec<String>, Duration) {
    let began = std::time::Instant::now();
    let (result, words) = case.run().await;
    (result, words, began.elapsed())
}

#[tokio::test]
async fn independent_hooks_are_quiesced_confirmed_and_released_at_the_same_time() {
    for phase in ["prepare", "pre-freeze", "confirm", "post-thaw"] {
        // Each waits for the other: one after the other, the first would wait until its deadline.
        let [a, b] = ["a", "b"].map(|hook| &*format!("{hook}.{phase}").leak());
        let (result, words) = Case::independent(None, &[(a, b), (b, a)]).run().await;
        check_law(&result, &words, "independent");
        let report = result.unwrap();
        assert_eq!(report.exit_code, ExitCode::Ok, "{phase}: {words:?}");
        assert_eq!(report.manifest.level, Level::Application, "{phase}");
    }
}

#[tokio::test]
async fn one_that_fails_has_the_others_given_up_and_released_at_once() {
    for (fails, waits) in [("b.pre-freeze", "a.pre-freeze"), ("a.pre-freeze", "b.pre-freeze")] {
        let case = Case::independent(Some(fails), &[(waits, "never")]);
        let (result, words, took) = timed(case).await;
        check_law(&result, &words, "independent");
        let failure = result.unwrap_err();
        assert_eq!(failure.exit_code(), ExitCode::PreFreeze);
        assert!(took < LONG / 2, "{fails}: the other was waited for: {took:?}");
        let given_up = failure.steps.iter().filter_map(|step| step.detail.as_deref());
        assert!(given_up.into_iter().any(|detail| detail.starts_with("given up, because")));
    }
}

#[tokio::test]
async fn nobody_stays_locked_because_another_cannot_be_released_whose_quiescing_failed() {
    // `b` comes after `a`, and so is to be released before it; but it hangs until `a` is.
    let mut case = Case::new(Some("b.pre-freeze"));
    case.script.waits = vec![("b.post-thaw", "a.finish")];
    let (result, words, took) = timed(case).await;
    check_law(&result, &words, "b.pre-freeze");
    assert!(took < LONG / 2, "{took:?}: {words:?}");
}

#[tokio::test]
async fn the_declared_order_of_release_is_kept_though_the_first_takes_its_time() {
    let mut case = Case::new(None);
    // `a` would have to be released for `b` to be: order is order, to the deadline.
    case.script.waits = vec![("b.post-thaw", "a.post-thaw")];
    let (result, words, took) = timed(case).await;
    check_law(&result, &words, "slow release");
    assert_eq!(result.unwrap().exit_code, ExitCode::PostThaw);
    assert!(took >= LONG, "{took:?}: {words:?}");
}

#[tokio::test]
async fn nobody_stays_locked_because_another_cannot_prove_that_it_was() {
    for (hangs, until) in [("a.confirm", "b.finish"), ("b.confirm", "a.finish")] {
        let (result, words, took) = timed(Case::independent(None, &[(hangs, until)])).await;
        check_law(&result, &words, "independent");
        assert_eq!(result.unwrap().exit_code, ExitCode::Ok, "{words:?}");
        assert!(took < LONG / 2, "{took:?}: {words:?}");
    }
}

#[tokio::test]
async fn one_that_the_run_can_do_without_is_released_while_the_others_are_still_quiesced() {
    let mut case = Case::independent(Some("b.pre-freeze"), &[("a.pre-freeze", "b.finish")]);
    case.on_failure = OnFailure::Lower;
    let (result, words, took) = timed(case).await;
    check_law(&result, &words, "independent");
    assert_eq!(result.unwrap().manifest.level, Level::FileSystem);
    assert!(took < LONG / 2, "{took:?}: {words:?}");
}

#[tokio::test]
async fn an_application_that_was_held_because_another_hook_was_slow_is_told_of() {
    let mut case = Case::independent(Some("b.pre-freeze"), &[("b.pre-freeze", "never")]);
    case.on_failure = OnFailure::Lower;
    let (result, _) = case.run().await;
    let report = result.unwrap();
    let told = |warning: &String| warning.contains("after = [\"b\"] in hooks.d/a.toml");
    assert!(report.manifest.warnings.iter().any(told), "{:?}", report.manifest.warnings);
}

/// What a server calls by a path that is not here is in another machine's files, or behind mounts of its
/// own: that `/` is in the snapshot says nothing of it.
#[tokio::test]
async fn data_that_is_not_where_a_hook_says_is_not_covered_by_the_root() {
    let with = async |path: &str| {
        let mut case = Case::new(None);
        case.script.with_root = true;
        case.script.paths = vec![path.into()];
        case.run().await
    };
    let (result, words) = with("/etc").await;
    if matches!(&result, Err(failure) if failure.exit_code() == ExitCode::Parameters) {
        // The root of a container is on no disk: nothing could cover it.
        return;
    }
    result.unwrap();
    assert!(words.contains(&"create".to_owned()), "{words:?}");

    let (result, words) = with("/etc/not-of-this-machine/data").await;
    let failure = result.unwrap_err();
    assert_eq!(failure.exit_code(), ExitCode::Precondition, "{failure:?}");
    let text = failure.cause.to_string();
    for part in ["hook a", "/etc/not-of-this-machine/data", "other files than this machine has"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(
        !words.iter().any(|word| word.ends_with("pre-freeze") || word == "create"),
        "{words:?}"
    );
}
