//! Random plans against the laws of a run: any hooks that wait for each other in any way, any of
//! them failing, hanging or absent at any place, with any answer to a failure, the provider failing
//! or silent, a stop at any word. What fails is shrunk to the smallest plan; the seed is printed.
//! No file system is frozen here: `tests/guard` and the sweeps do that.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use stillpoint::config::Deadlines;
use stillpoint::config::grants::OnFailure;
use stillpoint::consistency::Level;
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

/// As many as there is time for: each looks at the machine's disks and mounts, as a run does.
const PLANS: u32 = 600;
const TIME: Duration = Duration::from_secs(15);
/// Fewer prove nothing.
const FEWEST: usize = 25;
static FAILED: AtomicBool = AtomicBool::new(false);
const HOOKS: [&str; 4] = ["a", "b", "c", "d"];
const PHASES: [Phase; 5] =
    [Phase::Prepare, Phase::PreFreeze, Phase::Confirm, Phase::PostThaw, Phase::Finish];
const OF_PROVIDER: [&str; 5] = ["provider.prepare", "create", "settle", "record", "discard"];
/// Every deadline. What hangs, hangs until then.
const SOON: Duration = Duration::from_millis(25);

/// What happens at one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Fails(HookFailureKind),
    Hangs,
}

impl Fault {
    fn kind(self) -> HookFailureKind {
        match self {
            Fault::Fails(kind) => kind,
            Fault::Hangs => HookFailureKind::Timeout,
        }
    }
}

#[derive(Clone, Debug)]
struct HookPlan {
    /// Indexes of hooks before it in the list.
    after: Vec<usize>,
    on_failure: OnFailure,
    level: Level,
}

/// A run that is to be tried.
#[derive(Clone, Debug)]
struct Plan {
    hooks: Vec<HookPlan>,
    faults: BTreeMap<String, Fault>,
    cancel_at: Option<String>,
    fixed: bool,
    require: Option<Level>,
}

fn words(hooks: usize) -> Vec<String> {
    let of_hooks = HOOKS.iter().take(hooks).flat_map(|name| PHASES.map(|p| format!("{name}.{p}")));
    of_hooks.chain(OF_PROVIDER.map(str::to_owned)).collect()
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        4 => Just(Fault::Fails(HookFailureKind::Application)),
        2 => Just(Fault::Fails(HookFailureKind::NotApplicable)),
        1 => Just(Fault::Fails(HookFailureKind::InstanceGone)),
        1 => Just(Fault::Hangs),
    ]
}

fn hook(index: usize) -> impl Strategy<Value = HookPlan> {
    let on_failure =
        prop_oneof![Just(OnFailure::Abort), Just(OnFailure::Lower), Just(OnFailure::Skip)];
    let level = prop_oneof![6 => Just(Level::Application), 1 => Just(Level::FileSystem)];
    let before: Vec<usize> = (0..index).collect();
    let after = proptest::sample::subsequence(before, 0..=index);
    (after, on_failure, level).prop_map(|(after, on_failure, level)| HookPlan {
        after,
        on_failure,
        level,
    })
}

fn plan() -> impl Strategy<Value = Plan> {
    let hooks = (0..=HOOKS.len()).prop_flat_map(|n| (0..n).map(hook).collect::<Vec<_>>());
    hooks.prop_flat_map(|hooks| {
        let words = words(hooks.len());
        let faults =
            proptest::collection::btree_map(proptest::sample::select(words.clone()), fault(), 0..4);
        let cancel = proptest::option::weighted(0.2, proptest::sample::select(words));
        let level = prop_oneof![Just(Level::FileSystem), Just(Level::Application)];
        let require = proptest::option::weighted(0.2, level);
        let fixed = proptest::bool::weighted(0.9);
        (Just(hooks), faults, cancel, fixed, require).prop_map(
            |(hooks, faults, cancel_at, fixed, require)| Plan {
                hooks,
                faults,
                cancel_at,
                fixed,
                require,
            },
        )
    })
}

/// What is played: each word is said at its begin and at its end.
#[derive(Clone, Debug)]
struct Stage {
    plan: Arc<Plan>,
    log: Arc<Mutex<Vec<String>>>,
    cancel: Arc<CancelSource>,
}

impl Stage {
    async fn play(&self, word: &str, deadline: Option<Deadline>) -> Option<Fault> {
        self.log.lock().unwrap().push(format!("begin {word}"));
        if self.plan.cancel_at.as_deref() == Some(word) {
            self.cancel.cancel();
        }
        let fault = self.plan.faults.get(word).copied();
        if fault == Some(Fault::Hangs) {
            match deadline {
                Some(deadline) => tokio::time::sleep(deadline.remaining()).await,
                None => tokio::time::sleep(SOON).await,
            }
        }
        self.log.lock().unwrap().push(format!("end {word}"));
        fault
    }
}

#[derive(Debug)]
struct FakeHook {
    name: &'static str,
    level: Level,
    stage: Stage,
}

impl FakeHook {
    async fn act(&self, phase: Phase, deadline: Deadline) -> Result<(), HookFailure> {
        match self.stage.play(&format!("{}.{phase}", self.name), Some(deadline)).await {
            None => Ok(()),
            Some(fault) => Err(HookFailure {
                hook: self.name.into(),
                version: None,
                phase,
                kind: fault.kind(),
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
        self.act(Phase::Prepare, by).await.map(|()| Prepared::default())
    }
    async fn pre_freeze(&mut self, by: Deadline) -> Result<Quiesced, HookFailure> {
        let level = self.level;
        self.act(Phase::PreFreeze, by).await.map(|()| Quiesced { level, metadata: Vec::new() })
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
struct FakeProvider(Stage);

#[derive(Debug)]
struct FakeGroup(Stage);

async fn play(stage: &Stage, word: &str, by: Option<Deadline>) -> Result<(), ProviderError> {
    match stage.play(word, by).await {
        None => Ok(()),
        Some(_) => Err(ProviderError::new("fake", ExitCode::CreateFailed, "told to fail")),
    }
}

#[async_trait]
impl Provider for FakeProvider {
    fn name(&self) -> &str {
        "fake"
    }
    async fn disks(&self) -> Result<Vec<Disk>, ProviderError> {
        // A device that nothing is mounted from: nothing is to be frozen.
        let device = DevId { major: 251, minor: 9_999 };
        Ok(vec![Disk { id: "d".into(), device, node: "/dev/fake".into(), warnings: vec![] }])
    }
    async fn prepare(
        &self,
        _: GroupRequest,
        by: Deadline,
    ) -> Result<Box<dyn PreparedGroup>, ProviderError> {
        play(&self.0, "provider.prepare", Some(by)).await?;
        Ok(Box::new(FakeGroup(self.0.clone())))
    }
}

#[async_trait]
impl PreparedGroup for FakeGroup {
    async fn create(&mut self, by: Deadline) -> Result<CreatedGroup, ProviderError> {
        play(&self.0, "create", Some(by)).await?;
        Ok(CreatedGroup { id: "g".into(), point_in_time_fixed: self.0.plan.fixed })
    }
    async fn settle(&mut self, by: Deadline) -> Result<Vec<Member>, ProviderError> {
        play(&self.0, "settle", Some(by)).await.map(|()| Vec::new())
    }
    async fn record(&mut self, _: &Manifest) -> Result<(), ProviderError> {
        play(&self.0, "record", None).await
    }
    async fn discard(&mut self) -> Result<(), ProviderError> {
        play(&self.0, "discard", None).await
    }
}

/// What was said, and how the run ended.
struct Played {
    plan: Arc<Plan>,
    log: Vec<String>,
    result: Result<Report, Failure>,
}

async fn run(plan: Plan) -> Played {
    let plan = Arc::new(plan);
    let cancel = Arc::new(CancelSource::new());
    let stage = Stage { plan: Arc::clone(&plan), log: Arc::default(), cancel: Arc::clone(&cancel) };
    let run_dir = tempfile::tempdir().unwrap();
    let mut request = Request::new("random", Arc::new(FakeProvider(stage.clone())));
    request.run_dir = run_dir.path().join("run");
    request.require = plan.require;
    request.deadlines = Deadlines {
        prepare: SOON,
        flush: SOON,
        sync: SOON,
        quiesce: SOON,
        freeze: SOON,
        confirm: SOON,
        release: SOON,
        settle: SOON,
    };
    request.context = RunContext::new("random", false, cancel.token());
    for (name, of) in HOOKS.into_iter().zip(&plan.hooks) {
        let hook = FakeHook { name, level: of.level, stage: stage.clone() };
        let after = of.after.iter().map(|index| HOOKS[*index].to_owned()).collect();
        request.hooks.push(PlannedHook::component(Box::new(hook), of.on_failure, after));
    }
    let result = sequence::run(request).await;
    let log = stage.log.lock().unwrap().clone();
    Played { plan, log, result }
}

impl Played {
    fn hooks(&self) -> impl Iterator<Item = (&'static str, &HookPlan)> {
        HOOKS.into_iter().zip(&self.plan.hooks)
    }

    fn times(&self, word: &str) -> usize {
        self.log.iter().filter(|said| **said == format!("begin {word}")).count()
    }

    fn first(&self, said: &str) -> Option<usize> {
        self.log.iter().position(|other| other == said)
    }

    fn last(&self, said: &str) -> Option<usize> {
        self.log.iter().rposition(|other| other == said)
    }

    fn fault(&self, word: &str) -> Option<Fault> {
        self.plan.faults.get(word).copied().filter(|_| self.times(word) > 0)
    }

    /// Its `prepare` failed, and the run went on without it.
    fn was_left_out(&self, name: &str) -> bool {
        self.fault(&format!("{name}.prepare")).is_some()
    }

    fn check(&self) -> Result<(), TestCaseError> {
        self.every_begin_has_its_end()?;
        self.released_in_reverse()?;
        self.nothing_after_a_stop()?;
        match &self.result {
            Ok(report) => self.kept(report),
            Err(failure) => self.undone(failure),
        }
    }

    /// Who was asked to quiesce is released; who was prepared is finished, as its last word.
    fn every_begin_has_its_end(&self) -> Result<(), TestCaseError> {
        for (name, _) in self.hooks() {
            let asked = self.times(&format!("{name}.pre-freeze"));
            let released = self.times(&format!("{name}.post-thaw"));
            prop_assert!(asked <= 1, "{name} was asked {asked} times");
            prop_assert!(asked == 0 || released > 0, "{name} was asked, and not released");
            // It was about to be asked when another one failed: releasing it is on the safe side.
            let given_up = self.result.is_err()
                && self
                    .hooks()
                    .any(|(other, _)| self.fault(&format!("{other}.pre-freeze")).is_some());
            prop_assert!(asked > 0 || released == 0 || given_up, "{name} was released alone");
            // Once more only if it failed.
            let again = ["post-thaw", "finish"].map(|p| self.fault(&format!("{name}.{p}")));
            prop_assert!(released <= 1 || again.iter().any(Option::is_some), "{name} again");
            let finish = self.last(&format!("begin {name}.finish"));
            let prepared = self.times(&format!("{name}.prepare")) > 0;
            prop_assert_eq!(
                prepared,
                finish.is_some(),
                "{} was prepared, or finished, alone",
                name
            );
            let other =
                PHASES.iter().take(4).filter_map(|p| self.last(&format!("begin {name}.{p}")));
            prop_assert!(other.max() < finish || !prepared, "{name}: finish is not its last word");
        }
        Ok(())
    }

    /// A hook that comes after another is asked when that holds, and released before it.
    fn released_in_reverse(&self) -> Result<(), TestCaseError> {
        for (name, of) in self.hooks() {
            for before in of.after.iter().map(|index| HOOKS[*index]) {
                let asked = self.first(&format!("begin {name}.pre-freeze"));
                let held = self.first(&format!("end {before}.pre-freeze"));
                if self.times(&format!("{before}.pre-freeze")) == 0 || asked.is_none() {
                    continue;
                }
                prop_assert!(held.is_some() && held < asked, "{name} before {before} held");
                // One that failed was released at once, and nobody waits for it: nothing of it is in order.
                let failed = |name| self.fault(&format!("{name}.pre-freeze")).is_some();
                if !failed(before) && !failed(name) {
                    let released = self.first(&format!("end {name}.post-thaw"));
                    let next = self.first(&format!("begin {before}.post-thaw"));
                    prop_assert!(released < next, "{before} was released before {name}");
                }
            }
        }
        Ok(())
    }

    /// The provider is asked when all hold; a stop before that keeps it from being asked at all.
    fn nothing_after_a_stop(&self) -> Result<(), TestCaseError> {
        let Some(create) = self.first("begin create") else { return Ok(()) };
        for (name, _) in self.hooks() {
            let word = |phase: &str| format!("begin {name}.{phase}");
            prop_assert!(self.last(&word("pre-freeze")) < Some(create), "asked too late: {name}");
            let confirm = self.first(&word("confirm"));
            prop_assert!(confirm.is_none_or(|at| at > create), "confirmed too early: {name}");
            let failed = self.fault(&format!("{name}.pre-freeze")).is_some();
            let released = self.first(&word("post-thaw"));
            prop_assert!(failed || released.is_none_or(|at| at > create), "{name} was let go");
        }
        if let Some(word) = &self.plan.cancel_at {
            let stopped = self.first(&format!("begin {word}"));
            prop_assert!(stopped.is_none_or(|at| at >= create), "asked though stopped at {word}");
        }
        Ok(())
    }

    /// The level is the one deserved, no higher and no lower, and the exit code says what went wrong.
    fn kept(&self, report: &Report) -> Result<(), TestCaseError> {
        let mut deserved = Level::Application;
        if self.plan.hooks.is_empty() {
            deserved = Level::FileSystem;
        }
        let mut trouble = false;
        for (name, of) in self.hooks() {
            let fault = |phase: &str| self.fault(&format!("{name}.{phase}"));
            for failure in [fault("prepare"), fault("pre-freeze")].into_iter().flatten() {
                let absent = failure.kind() == HookFailureKind::NotApplicable;
                match of.on_failure {
                    OnFailure::Lower => deserved = deserved.min(Level::FileSystem),
                    OnFailure::Skip if absent => {}
                    _ => prop_assert!(false, "{name} failed, and the run went on"),
                }
            }
            let quiesced =
                self.times(&format!("{name}.pre-freeze")) > 0 && fault("pre-freeze").is_none();
            if quiesced {
                deserved = deserved.min(of.level);
            }
            if fault("confirm").is_some() {
                deserved = deserved.min(Level::FileSystem);
                trouble = true;
            }
            let gone = Some(HookFailureKind::InstanceGone);
            let not_released = fault("post-thaw").map(Fault::kind).is_some_and(|k| Some(k) != gone);
            if !self.was_left_out(name) && (not_released || fault("finish").is_some()) {
                trouble = true;
            }
        }
        if !self.plan.fixed {
            deserved = Level::Crash;
        }
        prop_assert_eq!(report.manifest.level, deserved, "the level");
        prop_assert!(self.plan.require.is_none_or(|level| level <= deserved), "less than required");
        let expected = match (self.fault("record"), trouble) {
            (Some(_), _) => ExitCode::Tags,
            (None, true) => ExitCode::PostThaw,
            (None, false) => ExitCode::Ok,
        };
        prop_assert_eq!(report.exit_code, expected, "the exit code");
        prop_assert_eq!(&report.state.snapshot, &SnapshotState::Kept("g".into()));
        prop_assert!(self.times("discard") == 0, "kept and discarded");
        prop_assert!(expected == ExitCode::Ok || !report.problems.is_empty(), "no word of it");
        Ok(())
    }

    /// Nothing is frozen, nothing is called a snapshot, and there was a reason.
    fn undone(&self, failure: &Failure) -> Result<(), TestCaseError> {
        prop_assert!(failure.exit_code() != ExitCode::Ok, "failed with exit code 0");
        prop_assert!(failure.state.maybe_frozen.is_empty());
        let kept = matches!(failure.state.snapshot, SnapshotState::Kept(_));
        prop_assert!(!kept, "failed, but kept");
        let grouped = self.first("end provider.prepare").is_some()
            && self.fault("provider.prepare").is_none();
        prop_assert!(!grouped || self.times("discard") > 0, "the group was not removed");
        let plan = &self.plan;
        let reason = !plan.faults.is_empty()
            || plan.cancel_at.is_some()
            || plan.require.is_some_and(|level| level > Level::Crash);
        prop_assert!(reason, "failed without a reason: {}", failure.cause);
        prop_assert!(!failure.cause.to_string().is_empty());
        Ok(())
    }
}

#[test]
fn whatever_is_planned_and_whatever_fails_the_laws_of_a_run_hold() {
    let mut runner = TestRunner::new(Config { cases: PLANS, ..Config::default() });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (began, tried) = (Instant::now(), Cell::new(0));
    let held = runner.run(&plan(), |plan| {
        // Shrinking, after a failure, may take the time that it needs.
        if began.elapsed() > TIME && !FAILED.load(Relaxed) {
            return Ok(());
        }
        tried.set(tried.get() + 1);
        let played = runtime.block_on(run(plan));
        let log = played.log.join(", ");
        let checked = played.check();
        FAILED.fetch_or(checked.is_err(), Relaxed);
        checked.map_err(|error| match error {
            TestCaseError::Fail(why) => {
                let ended = match &played.result {
                    Ok(report) => format!("exit {:?}", report.exit_code),
                    Err(failure) => format!("{failure}: {}", failure.cause),
                };
                TestCaseError::fail(format!("{why}\nended: {ended}\nlog: {log}"))
            }
            rejected => rejected,
        })
    });
    if let Err(error) = held {
        panic!("{error}\n{runner}");
    }
    println!("{} plans", tried.get());
    assert!(tried.get() >= FEWEST, "only {} plans in {TIME:?}", tried.get());
}
