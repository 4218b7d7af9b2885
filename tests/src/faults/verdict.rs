//! What is asked when a cell is over: of the oracle, of what the run printed, of what it kept.

use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use super::bed::{WINDOW, needs_a_dead_guard};
use super::cell::{Fault, Own, World};
use super::processes::Who;
use super::run::{Outcome, PROMISE, Trial};
use super::secret;
use super::witness::{Question, Testimony};
use crate::lab::FsType;

impl Trial<'_> {
    /// The last questions: to the oracle, to what the run printed, to what it kept.
    pub(super) fn judge(mut self) -> Result<Outcome> {
        self.nothing_is_frozen("everybody is done")?;
        let status = self.started.agent.wait()?;
        self.outcome.exit_code = status.code();
        let said = std::fs::read_to_string(self.started.output.join("output"))?;
        let errors = std::fs::read_to_string(self.started.output.join("errors"))?;
        for place in secret::written_below(&self.bed.lab.root(), &[&self.started.output])? {
            self.problem(format!("a secret stands in {}", place.display()));
        }
        let document = serde_json::from_str(&said).unwrap_or(Value::Null);
        let (sent_ns, fixed_ns) = span_of(&document, "snapshot").unwrap_or((u64::MAX, 0));
        let all = self.bed.witness.ask(Question::All { sent_ns, fixed_ns })?;
        self.outcome.longest_ns = all.iter().map(|fs| fs.longest_ns).max().unwrap_or(0);
        self.file_systems_run(&all, &document);
        self.report_is_true(&document, &all, status.code());
        if !self.outcome.problems.is_empty() {
            let text = format!("{}{}", said.trim(), errors.trim());
            self.outcome.notes.push(text.chars().take(1500).collect());
        }
        Ok(self.outcome)
    }

    fn file_systems_run(&mut self, all: &[Testimony], document: &Value) {
        let excused = self.read_only_is_nobodys_fault();
        for fs in all {
            let mount = fs.mount.display();
            if fs.read_only && !excused {
                self.outcome.problems.push(format!("{mount} turned read-only"));
            } else if fs.read_only {
                self.outcome.notes.push(format!("{mount} turned read-only: the guard was killed"));
            }
            if !fs.mounted {
                self.outcome.problems.push(format!("{mount} is not mounted"));
            }
            if let Some(error) = fs.error.as_ref().filter(|_| !excused && !self.fills_up()) {
                self.outcome.problems.push(format!("{mount}: a write failed: {error}"));
            }
        }
        // Before anything is frozen, writers wait for what is flushed: for theirs and everybody's.
        let flush = self.fills_up().then(|| span_of(document, "sync")).flatten();
        let flush = flush.map(|(began, ended)| Duration::from_nanos(ended.saturating_sub(began)));
        let limit = WINDOW + PROMISE + flush.unwrap_or_default();
        let longest = Duration::from_nanos(self.outcome.longest_ns);
        if longest > limit && !self.held_by_others() && !self.everybody_killed() {
            self.problem(format!("a write took {longest:.1?}: longer than the window"));
        }
    }

    fn fills_up(&self) -> bool {
        matches!(
            self.cell.fault,
            Fault::World(World::DirtyData | World::Writers | World::MappedWriters)
        )
    }

    /// A freeze of somebody else's, or a write that does not end, is not in our hands.
    fn held_by_others(&self) -> bool {
        matches!(
            self.cell.fault,
            Fault::World(
                World::FrozenBefore
                    | World::FrozenByOther
                    | World::WriteInFlight
                    | World::WriteInFlightAlone
                    | World::WriteInFlightEarly
                    | World::OuterFrozen
            )
        )
    }

    /// A btrfs whose guard is killed inside FITHAW turns read-only: documented, and nobody's to help.
    pub(super) fn read_only_is_nobodys_fault(&self) -> bool {
        let guard =
            self.cell.victims().contains(&Who::Guard) || needs_a_dead_guard(self.cell.place);
        let agent = Who::of(self.cell.place) == Who::Sentinel;
        self.cell.kind.fs_type == FsType::Btrfs && (guard || agent)
    }

    fn report_is_true(&mut self, document: &Value, all: &[Testimony], code: Option<i32>) {
        const DOCUMENTED: [i32; 18] =
            [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 255];
        let level = document.pointer("/manifest/level").and_then(Value::as_str);
        self.outcome.level = level.map(str::to_owned);
        let own_end = matches!(self.cell.fault, Fault::Own(Own::Exit | Own::Panic));
        match code {
            Some(code) if !DOCUMENTED.contains(&code) && !own_end => {
                self.problem(format!("exit code {code} is not documented"));
            }
            Some(0) if level.is_none() => self.problem("exit code 0 without a manifest"),
            Some(code) if document.is_null() && !own_end && code != 2 => {
                self.problem(format!("exit code {code}, and no document"));
            }
            _ => {}
        }
        if level == Some("application")
            && let Some(why) = self.why_not_application(all)
        {
            self.outcome.false_application = true;
            self.problem(format!("application, but {why}"));
        }
        // A run that died has promised nothing: no manifest of it may say otherwise.
        let kept = self.bed.kept();
        let finished = self.cell.place.starts_with("agent.settle.after") || code.is_some();
        if kept.iter().any(|(name, level)| *name == self.started.name && level == "application")
            && !finished
        {
            self.problem("a manifest was kept by a run that did not end");
        }
    }

    fn why_not_application(&self, all: &[Testimony]) -> Option<String> {
        if let Some(fs) = all.iter().find(|fs| fs.writes_inside > 0) {
            return Some(format!("{} was written to meanwhile", fs.mount.display()));
        }
        let lost = self.cell.victims().iter().any(|who| *who != Who::Agent);
        if lost && self.cell.is_in_window() {
            return Some("guard or sentinel was lost in the window".to_owned());
        }
        match &self.cell.fault {
            Fault::World(World::ThawedByOther | World::FrozenByOther | World::FrozenBefore) => {
                Some("somebody else froze or thawed".to_owned())
            }
            Fault::World(World::SessionsCut) if self.cell.place != "agent.release.before" => {
                (self.cell.place != "agent.quiesce.before")
                    .then(|| "the hook's sessions were cut".to_owned())
            }
            // A sleep ends with the deadline, by contract, and then the hook goes on.
            Fault::Hook(hook) if hook.command == "sleep 60000" => None,
            Fault::Hook(hook) if hook.phase == "confirm" => {
                Some("the hook did not confirm".to_owned())
            }
            Fault::Hook(hook) if hook.phase == "pre-freeze" => {
                Some("the hook was never quiesced".to_owned())
            }
            _ => None,
        }
    }
}

/// When a step began and ended: of `snapshot`, when the provider was asked and had answered.
fn span_of(document: &Value, name: &str) -> Option<(u64, u64)> {
    let steps = document.pointer("/manifest/steps")?.as_array()?;
    let step = steps.iter().find(|step| step.get("step").and_then(Value::as_str) == Some(name))?;
    Some((step.get("began_ns")?.as_u64()?, step.get("ended_ns")?.as_u64()?))
}
