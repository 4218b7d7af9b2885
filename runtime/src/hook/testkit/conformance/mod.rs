//! Conformance: everything that can go wrong in a run is made to go wrong, one at a time, at every call
//! that the hook makes; and after each it is asked whether the hook came back, told the truth, and gave
//! back what it took.

mod laws;
mod scenarios;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;

use super::answers::Strictness;
use super::bench::Bench;
use super::cycle::{Played, play};
use super::error::TestError;
use super::holds::Holds;
use super::report::{Check, Conformance, Finding, Severity};
use super::world::World;
use laws::Judge;
pub(super) use scenarios::Family;
use scenarios::Scenario;

/// Runs side by side against a script; a real server has one run at a time.
const SIDE_BY_SIDE: usize = 8;

/// On a machine that has no time for it, a guest that unwinds looks as if it looped: only one that has to
/// be stopped so often in a row is said to.
const TRIES: usize = 5;

/// A scenario and what came of it.
struct Outcome {
    scenario: Scenario,
    findings: Vec<Finding>,
    reached: bool,
}

impl Bench {
    /// Runs the hook through every scenario.
    ///
    /// # Errors
    /// If it cannot be loaded. What it does wrong is in the report.
    pub async fn conformance(&self) -> Result<Conformance, TestError> {
        let clean = self.played(&Scenario::clean(), None, 0).await?;
        let judge = Judge::new(&clean);
        let mut findings = judge.clean(&clean, &self.world(None));
        let is_broken = findings.iter().any(|finding| finding.severity == Severity::Fails);
        let mut checks = vec![Check::new(Family::Clean, 1, 0, &findings)];
        // A hook that does not get through a run without faults has nothing to be tested further.
        if clean.claimed().is_some() || !is_broken {
            for (family, outcomes) in self.all(&clean, &judge).await? {
                let found: Vec<Finding> =
                    outcomes.iter().flat_map(|outcome| outcome.findings.clone()).collect();
                let missed = outcomes.iter().filter(|outcome| !outcome.reached).count();
                checks.push(Check::new(family, outcomes.len(), missed, &found));
                findings.extend(found);
            }
        }
        Ok(Conformance::new(self, &clean, checks, findings))
    }

    async fn all(
        &self,
        clean: &Played,
        judge: &Judge,
    ) -> Result<BTreeMap<Family, Vec<Outcome>>, TestError> {
        let scenarios = scenarios::all(clean);
        let at_once = if self.script().is_some() { SIDE_BY_SIDE } else { 1 };
        let runs = scenarios.into_iter().map(|scenario| self.judged(scenario, clean, judge));
        let done: Vec<_> = stream::iter(runs).buffered(at_once).collect().await;
        let mut families: BTreeMap<Family, Vec<Outcome>> = BTreeMap::new();
        for outcome in done {
            let outcome = outcome?;
            families.entry(outcome.scenario.family).or_default().push(outcome);
        }
        Ok(families)
    }

    async fn judged(
        &self,
        scenario: Scenario,
        clean: &Played,
        judge: &Judge,
    ) -> Result<Outcome, TestError> {
        let (findings, reached) = match scenario.family {
            Family::Twice => (judge.twice(&self.twice(&scenario).await?), true),
            Family::Idle => (judge.idle(&self.idle(&scenario).await?), true),
            _ => {
                let played = self.tried(&scenario, clean).await?;
                (judge.scenario(&scenario, &played), scenario.planned.is_none() || played.fired)
            }
        };
        Ok(Outcome { scenario, findings, reached })
    }

    /// The scenario, again if it was too short to get where it goes wrong, or to be sure.
    async fn tried(&self, scenario: &Scenario, clean: &Played) -> Result<Played, TestError> {
        let Some(short) = scenario.deadline(clean) else {
            return self.played(scenario, None, 0).await;
        };
        let mut deadline = Some(short);
        let mut played = self.played(scenario, deadline, 0).await?;
        for again in 1..TRIES {
            if !played.fired {
                // It keeps more time than that in reserve, and began nothing.
                deadline = None;
            } else if !played.steps.iter().any(|step| step.stopped) {
                break;
            }
            played = self.played(scenario, deadline, again).await?;
        }
        Ok(played)
    }

    async fn played(
        &self,
        scenario: &Scenario,
        deadline: Option<Duration>,
        again: usize,
    ) -> Result<Played, TestError> {
        let name = format!("{}-{again}", scenario.name);
        let mut plan = scenario.plan.clone();
        plan.deadline = scenario.planned.map(|it| it.phase).zip(deadline);
        play(self, &self.place(&name), &self.world(Some(scenario)), &plan).await
    }

    /// Two runs, the second with what the first one kept.
    async fn twice(&self, scenario: &Scenario) -> Result<[Played; 2], TestError> {
        let place = self.place(&scenario.name);
        let first = play(self, &place, &self.world(None), &scenario.plan).await?;
        let second = play(self, &place, &self.world(None), &scenario.plan).await?;
        Ok([first, second])
    }

    /// `finish` on instances that never did anything, twice.
    async fn idle(&self, scenario: &Scenario) -> Result<[super::cycle::Step; 2], TestError> {
        let (place, world) = (self.place(&scenario.name), self.world(None));
        let first = super::cycle::next_start(self, &place, &world).await?;
        let second = super::cycle::next_start(self, &place, &world).await?;
        Ok([first, second])
    }

    fn world(&self, scenario: Option<&Scenario>) -> Arc<World> {
        let told = self.script().map(|script| script.holds.as_slice()).unwrap_or_default();
        let script = self.script().map(|script| (Arc::clone(script), Strictness::Lenient));
        let planned = scenario.and_then(|scenario| scenario.planned);
        Arc::new(World::new(Holds::with(told), script, planned))
    }
}
