//! The laws that every run of a hook is held to, whatever went wrong in it.
//!
//! | | |
//! |---|---|
//! | it comes back | the host never has to stop it |
//! | it tells the truth | what it calls `application` was quiesced until `confirm` |
//! | it gives back | an error leaves nothing held; nor does `post-thaw`, and nor does `finish` |
//! | it can be called again | `finish`, and a second run |

use super::super::cycle::{Gave, Played, Step};
use super::super::holds::{LivesIn, Meaning};
use super::super::report::{Finding, Severity};
use super::super::tape::{Taped, What};
use super::super::text::short;
use super::super::world::{Fault, Held, World};
use super::scenarios::{Family, Scenario};
use crate::consistency::Level;
use crate::hook::{HookFailureKind, Phase};

/// What is known of the hook from the run in which nothing went wrong.
pub(super) struct Judge {
    /// What it held when its state was confirmed.
    holds: Vec<Held>,
}

impl Judge {
    pub(super) fn new(clean: &Played) -> Self {
        let held = clean.step(Phase::PreFreeze).map(|step| step.held.clone()).unwrap_or_default();
        Self { holds: held }
    }

    /// The run in which nothing goes wrong.
    pub(super) fn clean(&self, clean: &Played, world: &World) -> Vec<Finding> {
        let scenario = Scenario::clean();
        let mut findings = self.scenario(&scenario, clean);
        for step in clean.steps.iter().filter(|step| !step.stopped) {
            if let Err(failure) = &step.result
                && failure.kind != HookFailureKind::InstanceGone
            {
                let words = format!("{} fails without a fault: {}", step.phase, failure.message);
                findings.push(fails("runs", words, &scenario));
            }
        }
        let asked = |taped: &&Taped| !matches!(taped.what, What::State { .. });
        let sent = |phase: Phase| {
            clean.tape.iter().filter(asked).filter(move |taped| taped.phase == phase)
        };
        if self.holds.is_empty() {
            findings.extend(self.unknown_hold(clean, world));
        }
        if sent(Phase::Confirm).next().is_none()
            && clean.claimed().is_some_and(|it| it.level == Level::Application)
        {
            findings.push(look(
                "tells the truth",
                "confirm asks nobody: how does it know that the application was quiesced until then?".into(),
                &scenario,
            ));
        }
        findings
    }

    /// Something was changed before the freeze that nobody knows as a lock, and afterwards the session
    /// that did it is neither used nor closed.
    fn unknown_hold(&self, clean: &Played, world: &World) -> Vec<Finding> {
        let scenario = Scenario::clean();
        let open = clean.step(Phase::PostThaw).map(|step| step.open.as_slice()).unwrap_or_default();
        let changed = clean.tape.iter().filter(|taped| {
            taped.phase == Phase::PreFreeze
                && taped.statement().is_some_and(|it| world.meaning(it) == Meaning::Changes)
        });
        let mut findings = Vec::new();
        for taped in changed {
            let undone = clean.tape.iter().any(|later| {
                later.phase == Phase::PostThaw
                    && matches!(later.what, What::Run { .. })
                    && later.statement().is_some_and(|it| world.meaning(it) != Meaning::Looks)
            });
            if !undone && taped.session.is_some_and(|session| open.contains(&session)) {
                findings.push(fails(
                    "releases",
                    format!(
                        "does not release: after post-thaw, what {} did in pre-freeze is not undone, and its session is still open",
                        taped.what
                    ),
                    &scenario,
                ));
            }
        }
        findings
    }

    /// Any run.
    pub(super) fn scenario(&self, scenario: &Scenario, played: &Played) -> Vec<Finding> {
        let mut findings = Vec::new();
        for step in &played.steps {
            findings.extend(comes_back(scenario, step));
            findings.extend(gives_back(scenario, step));
        }
        findings.extend(takes_early(scenario, played));
        findings.extend(self.tells_the_truth(scenario, played));
        findings.extend(leaves_nothing(scenario, played));
        findings
    }

    /// The second of two runs is as the first.
    pub(super) fn twice(&self, [first, second]: &[Played; 2]) -> Vec<Finding> {
        let scenario = Scenario { told: "in the second of two runs".into(), ..Scenario::clean() };
        let mut findings = self.scenario(&scenario, second);
        for step in &second.steps {
            let before = first.step(step.phase).is_some_and(|before| before.result.is_ok());
            if let (true, Err(failure)) = (before, &step.result) {
                let words = format!("{} fails: {}", step.phase, failure.message);
                findings.push(fails("can be run twice", words, &scenario));
            }
        }
        findings
    }

    /// `finish` when there is nothing to be done.
    pub(super) fn idle(&self, steps: &[Step; 2]) -> Vec<Finding> {
        let scenario = Scenario {
            told: "on a fresh instance, with nothing begun".into(),
            ..Scenario::clean()
        };
        let mut findings = Vec::new();
        for step in steps {
            findings.extend(comes_back(&scenario, step));
            if let (false, Err(failure)) = (step.stopped, &step.result) {
                findings.push(fails(
                    "finish is idempotent",
                    format!("finish fails: {}", failure.message),
                    &scenario,
                ));
            }
        }
        findings
    }

    /// What a hook calls `application` was quiesced until its `confirm`.
    fn tells_the_truth(&self, scenario: &Scenario, played: &Played) -> Vec<Finding> {
        if played.claimed().is_none_or(|claim| claim.level != Level::Application) {
            return Vec::new();
        }
        let Some(confirmed) = played.step(Phase::Confirm) else { return Vec::new() };
        // Some prove it by giving back: only what is still held can be (`pg_backup_stop`).
        let until_then = || confirmed.held.iter().chain(&confirmed.given);
        let missing = self
            .holds
            .iter()
            .find(|wanted| !until_then().any(|held| held.statement == wanted.statement));
        if let Some(missing) = missing {
            return vec![fails("tells the truth", untrue(scenario, missing), scenario)];
        }
        let Some(at) = scenario.at.as_ref().filter(|_| played.fired) else { return Vec::new() };
        let went_wrong =
            matches!(scenario.family, Family::Refused | Family::Lost | Family::Silence);
        if !went_wrong || at.phase > Phase::Confirm || done_later(at, played) {
            return Vec::new();
        }
        let words = format!("goes on without {} ({}), and claims `application`", at.what, at.phase);
        match &at.what {
            // Before the freeze a hook may ask for what it can do without.
            What::Run { .. } if at.phase == Phase::Prepare => vec![],
            What::Open { .. } => vec![],
            // To read what an earlier run may have left is worth a try; what was to be kept is another matter.
            What::State { call } if call.starts_with("kv.get") || call == "kv.keys" => vec![],
            What::Run { statement, .. } if is_change(statement) => {
                vec![fails("tells the truth", format!("ignores errors: {words}"), scenario)]
            }
            What::Program { .. } if at.phase != Phase::Prepare => {
                vec![fails("tells the truth", format!("ignores errors: {words}"), scenario)]
            }
            What::Ping { .. } => {
                vec![fails("tells the truth", format!("ignores errors: {words}"), scenario)]
            }
            _ => vec![look("tells the truth", words, scenario)],
        }
    }
}

/// The same was tried again, and then worked.
fn done_later(at: &Taped, played: &Played) -> bool {
    let failed = played.tape.iter().position(|it| (it.phase, it.nth) == (at.phase, at.nth));
    let later = failed.and_then(|failed| played.tape.get(failed + 1..)).unwrap_or_default();
    later.iter().any(|again| again.what == at.what && again.is_good())
}

fn is_change(statement: &str) -> bool {
    !matches!(super::super::holds::Holds::with(&[]).meaning(statement), Meaning::Looks)
}

fn untrue(scenario: &Scenario, missing: &Held) -> String {
    let lock = short(&missing.statement);
    let refused = scenario.at.as_ref().and_then(|at| at.statement()) == Some(&missing.statement);
    match (scenario.family, scenario.planned.map(|planned| planned.fault)) {
        (_, Some(Fault::Refused)) if refused => format!(
            "ignores errors: the server refused `{lock}`, and the hook claims `application` all the same"
        ),
        (Family::LostWhileFrozen, _) => format!(
            "ignores errors: the session that held `{lock}` was lost while file systems were frozen, and confirm does not notice; ask `is-alive`, or run a statement on that session"
        ),
        (_, Some(Fault::Lost | Fault::Silence)) => format!(
            "ignores errors: the session that held `{lock}` was lost, and the hook claims `application` all the same"
        ),
        _ => {
            format!("`{lock}` is not held any more, and the hook claims `application` all the same")
        }
    }
}

/// The host does not have to stop it.
fn comes_back(scenario: &Scenario, step: &Step) -> Option<Finding> {
    let failure = step.result.as_ref().err().filter(|_| step.stopped)?;
    let phase = step.phase;
    let why = failure.message.split(';').next().unwrap_or(&failure.message);
    let words = match failure.kind {
        HookFailureKind::Timeout => format!("loops: in {phase}, {why}, and had to be stopped"),
        HookFailureKind::Limit if why.contains("memory") => {
            format!("eats memory: in {phase}, {why}")
        }
        HookFailureKind::Limit => format!("loops: in {phase}, {why}, and had to be stopped"),
        _ => format!("traps: in {phase}, {why}; an error is to be returned instead"),
    };
    Some(fails("comes back", words, scenario))
}

/// After an error of `prepare` or `pre-freeze`, and after `post-thaw`, nothing is held. What no session
/// gives back may be left to `finish`, if the hook could not know that it was done.
fn gives_back(scenario: &Scenario, step: &Step) -> Option<Finding> {
    let knew = !matches!(scenario.family, Family::Lost | Family::Silence) || step.result.is_ok();
    let held = step.held.iter().find(|held| held.lives_in == LivesIn::Session || knew)?;
    let lock = short(&held.statement);
    let phase = step.phase;
    let words = match (phase, &step.result) {
        _ if step.dropped || step.stopped => return None,
        (Phase::Prepare | Phase::PreFreeze, Err(_)) => {
            format!("does not release: {phase} failed, and `{lock}` is still held when it returns")
        }
        (Phase::PostThaw, Ok(Gave::Released(_))) => format!(
            "does not release: post-thaw succeeded, and `{lock}` is still held{}",
            session_of(held)
        ),
        _ => return None,
    };
    Some(fails("releases", words, scenario))
}

fn session_of(held: &Held) -> String {
    match (held.lives_in, held.session) {
        (LivesIn::Session, Some(session)) => {
            format!(
                " by session {session}, which is still open: give it back, or close the session"
            )
        }
        _ => ": no session's end gives that back".into(),
    }
}

/// `prepare` takes no lock; a dry run changes nothing.
fn takes_early(scenario: &Scenario, played: &Played) -> Option<Finding> {
    let prepared = played.step(Phase::Prepare)?;
    let held = prepared.held.first()?;
    let lock = short(&held.statement);
    let words = match scenario.plan.dry_run {
        true => format!("takes `{lock}` in a dry run, which only looks"),
        false => {
            format!("takes `{lock}` in prepare, which takes no lock: it belongs into pre-freeze")
        }
    };
    Some(fails("takes late", words, scenario))
}

/// When all has been said and done, `finish` on a fresh instance included, nothing is left.
fn leaves_nothing(scenario: &Scenario, played: &Played) -> Option<Finding> {
    let last = played.steps.last()?;
    if let (true, Err(failure), false) = (last.fresh, &last.result, last.stopped) {
        let words = format!("finish fails on a fresh instance: {}", failure.message);
        return Some(fails("finish undoes", words, scenario));
    }
    let held = last.held.first()?;
    let words = format!(
        "leaves `{}` behind: after finish{} it is still in force, and no session's end gives it back; keep what is begun in `kv` before it is done, and undo it in finish",
        short(&held.statement),
        if last.fresh { " on a fresh instance" } else { "" }
    );
    Some(fails("finish undoes", words, scenario))
}

fn fails(law: &'static str, words: String, scenario: &Scenario) -> Finding {
    Finding { severity: Severity::Fails, law, words, when: scenario.told.clone(), times: 1 }
}

fn look(law: &'static str, words: String, scenario: &Scenario) -> Finding {
    Finding { severity: Severity::Look, law, words, when: scenario.told.clone(), times: 1 }
}
