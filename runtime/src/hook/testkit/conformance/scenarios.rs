//! What is made to go wrong: made from the calls of a run in which nothing does.

use std::fmt;
use std::time::Duration;

use super::super::cycle::{Plan, Played};
use super::super::tape::{Taped, What};
use super::super::world::{Fault, Planned};
use crate::hook::{Outcome, Phase};

/// For an answer that never comes, the phase is made as short as this; but it has several times as long
/// as it took without the fault.
const SHORT: Duration = Duration::from_millis(700);

/// A kind of scenario; in the order in which they are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) enum Family {
    Clean,
    Ends,
    Twice,
    Idle,
    Refused,
    Lost,
    LostWhileFrozen,
    Silence,
    Cancelled,
    GivenUp,
    Died,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::Clean => "a run in which nothing goes wrong",
            Family::Ends => "snapshot failed, run given up, dry run",
            Family::Twice => "run twice",
            Family::Idle => "finish on a fresh instance, nothing begun, twice",
            Family::Refused => "an error at each call",
            Family::Lost => "the session lost at each call",
            Family::LostWhileFrozen => "the session lost while frozen",
            Family::Silence => "no answer by the deadline, at each call",
            Family::Cancelled => "asked to stop at each call",
            Family::GivenUp => "phase interrupted at each call",
            Family::Died => "killed at each call, finish on a fresh instance",
        })
    }
}

/// One run.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) family: Family,
    /// Unique; also the name of a directory.
    pub(super) name: String,
    /// For people: what goes wrong where.
    pub(super) told: String,
    pub(super) plan: Plan,
    pub(super) planned: Option<Planned>,
    /// At which call.
    pub(super) at: Option<Taped>,
}

impl Scenario {
    pub(super) fn clean() -> Self {
        Self::of(Family::Clean, "clean", "without a fault", Plan::default())
    }

    fn of(family: Family, name: &str, told: &str, plan: Plan) -> Self {
        let (name, told) = (name.to_owned(), told.to_owned());
        Self { family, name, told, plan, planned: None, at: None }
    }

    /// A shorter deadline for the phase whose answer never comes.
    pub(super) fn deadline(&self, clean: &Played) -> Option<Duration> {
        let planned = self.planned.filter(|planned| planned.fault == Fault::Silence)?;
        let usual = clean.step(planned.phase).map_or(Duration::ZERO, |step| step.took);
        Some(SHORT.max(usual * 5 + SHORT / 2))
    }
}

/// Everything that can go wrong in a run that makes these calls.
pub(super) fn all(clean: &Played) -> Vec<Scenario> {
    let mut all = ends();
    all.push(Scenario::of(Family::Twice, "twice", "in the second of two runs", Plan::default()));
    all.push(Scenario::of(Family::Idle, "idle", "when nothing was begun", Plan::default()));
    let calls = || clean.tape.iter().filter(|taped| taped.phase >= Phase::Prepare);
    for family in [Family::Refused, Family::Lost, Family::Silence, Family::Cancelled] {
        all.extend(calls().filter(|at| applies(family, at)).map(|at| at_call(family, at)));
    }
    for family in [Family::GivenUp, Family::Died] {
        all.extend(calls().filter(|at| applies(family, at)).map(|at| at_call(family, at)));
    }
    all.extend(while_frozen(clean));
    all
}

fn ends() -> Vec<Scenario> {
    let plan = Plan::default;
    let of = |name: &str, told: &str, plan: Plan| Scenario::of(Family::Ends, name, told, plan);
    vec![
        of("failed", "when the snapshot failed", Plan { outcome: Outcome::Failed, ..plan() }),
        of(
            "given-up-prepared",
            "when the run is given up after prepare",
            Plan { gives_up_after: Some(Phase::Prepare), ..plan() },
        ),
        of(
            "given-up-quiesced",
            "when the run is given up after pre-freeze",
            Plan { gives_up_after: Some(Phase::PreFreeze), ..plan() },
        ),
        of(
            "dry-run",
            "in a dry run",
            Plan { dry_run: true, gives_up_after: Some(Phase::Prepare), ..plan() },
        ),
    ]
}

fn applies(family: Family, at: &Taped) -> bool {
    match family {
        // There is no session yet to be lost; a program has none.
        Family::Lost => matches!(at.what, What::Run { .. } | What::Ping { .. }),
        // Only before the freeze does anybody give up a hook that is still at work.
        Family::GivenUp => at.phase <= Phase::PreFreeze,
        Family::Cancelled => at.phase <= Phase::PreFreeze,
        _ => true,
    }
}

fn at_call(family: Family, at: &Taped) -> Scenario {
    let (fault, word, told) = match family {
        Family::Refused => (Fault::Refused, "refused", "when the server refuses"),
        Family::Lost => (Fault::Lost, "lost", "when the session is lost at"),
        Family::Silence => (Fault::Silence, "silence", "when no answer comes to"),
        Family::Cancelled => (Fault::Cancelled, "cancelled", "when asked to stop at"),
        Family::Died => (Fault::Dropped, "died", "when the agent dies at"),
        _ => (Fault::Dropped, "given-up", "when the phase is interrupted at"),
    };
    let plan = Plan { dies: family == Family::Died, ..Plan::default() };
    Scenario {
        family,
        name: format!("{word}-{}-{}", at.phase, at.nth),
        told: format!("{told} {} in {}", at.what, at.phase),
        plan,
        planned: Some(Planned { phase: at.phase, nth: at.nth, fault }),
        at: Some(at.clone()),
    }
}

/// Each session that is open when everything freezes.
fn while_frozen(clean: &Played) -> Vec<Scenario> {
    let open = clean.step(Phase::PreFreeze).map(|step| step.open.clone()).unwrap_or_default();
    let scenario = |session| {
        let plan = Plan { loses_while_frozen: Some(session), ..Plan::default() };
        let told = format!("when session {session} is lost while file systems are frozen");
        Scenario::of(Family::LostWhileFrozen, &format!("frozen-{session}"), &told, plan)
    };
    open.into_iter().map(scenario).collect()
}
