//! What a test found, for reviewers: what the hook is and asks for, what it did in a run, what was held
//! from when to when, which laws it broke and when.

use schemars::JsonSchema;
use serde::Serialize;

use super::bench::Bench;
use super::conformance::Family;
use super::cycle::{Gave, Played};
use super::tape::Taped;
use crate::hook::{HookFailure, Need, Phase, Tool};
use crate::output::json::SCHEMA_VERSION;

/// What `stillpoint hook test --conformance --json` prints.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Conformance {
    /// See [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// What was tested.
    pub hook: Tested,
    /// No law was broken.
    pub passed: bool,
    /// The run in which nothing went wrong.
    pub run: Vec<PhaseTold>,
    /// What was tried, in families.
    pub checks: Vec<Check>,
    /// What was found: laws that were broken, and what a reviewer should look at.
    pub findings: Vec<Finding>,
}

/// What `stillpoint hook test --json` prints.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunReport {
    /// See [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// What was tested.
    pub hook: Tested,
    /// Every phase came to what was expected, and every call was one of the script's.
    pub passed: bool,
    /// The run.
    pub run: Vec<PhaseTold>,
    /// What was not as expected.
    pub problems: Vec<String>,
    /// What the hook logged.
    pub log: Vec<String>,
    /// Where the calls were written to.
    pub recorded: Option<std::path::PathBuf>,
}

/// The component that was tested.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tested {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// One line about it.
    pub summary: String,
    /// Its digest.
    pub digest: String,
    /// Its size, in bytes.
    pub bytes: u64,
    /// The version of the contract that it was built for.
    pub contract: String,
    /// What it was made with, as it says.
    pub toolchain: Vec<Tool>,
    /// What it asks for: one line for each need, and below it each statement, program or script.
    pub asks: Vec<Ask>,
    /// What answered: `script`, or `real servers`.
    pub against: String,
}

/// One need.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// `connection main`, `program /usr/bin/x`, `durable state`.
    pub what: String,
    /// Why, in the hook's words.
    pub reason: String,
    /// It cannot work without.
    pub required: bool,
    /// Statements or command lines, and whether the run made use of each.
    pub items: Vec<AskItem>,
}

/// One statement or command line that a hook asks for.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AskItem {
    /// Its text.
    pub text: String,
    /// It was used in the run.
    pub used: bool,
}

/// What a phase did.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PhaseTold {
    /// Which.
    pub phase: String,
    /// How long it took, in nanoseconds.
    pub took_ns: u64,
    /// What it said, if it failed.
    pub failed: Option<String>,
    /// What it gave: a plan, a level, metadata.
    pub gave: Vec<String>,
    /// What it asked of the world, and the answer.
    pub calls: Vec<CallTold>,
    /// What is held after it.
    pub holds: Vec<String>,
}

/// One call.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CallTold {
    /// What was asked.
    pub what: String,
    /// In which session of the run, counted from 1.
    pub session: Option<u32>,
    /// What was answered; nothing, if no answer came.
    pub answer: Option<String>,
    /// How long that took, in nanoseconds.
    pub took_ns: u64,
}

/// One kind of scenario.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// What was tried.
    pub what: String,
    /// How often.
    pub runs: usize,
    /// Runs in which the place where it should go wrong was not reached.
    pub missed: usize,
    /// No law was broken in any of them.
    pub passed: bool,
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// A law is broken.
    Fails,
    /// A reviewer should look at it.
    Look,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// The law that it is about.
    pub law: &'static str,
    /// What it is.
    pub words: String,
    /// In which scenario it was seen first.
    pub when: String,
    /// In how many scenarios.
    pub times: usize,
}

impl Check {
    pub(super) fn new(family: Family, runs: usize, missed: usize, findings: &[Finding]) -> Self {
        let passed = findings.iter().all(|finding| finding.severity != Severity::Fails);
        Self { what: family.to_string(), runs, missed, passed }
    }
}

impl Conformance {
    pub(super) fn new(
        bench: &Bench,
        clean: &Played,
        checks: Vec<Check>,
        findings: Vec<Finding>,
    ) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            hook: Tested::new(bench, &clean.tape),
            passed: checks.iter().all(|check| check.passed),
            run: told(clean),
            checks,
            findings: merged(findings),
        }
    }
}

/// The same words are said once, with the first scenario and the number of them; what fails comes first.
fn merged(findings: Vec<Finding>) -> Vec<Finding> {
    let mut merged: Vec<Finding> = Vec::new();
    for finding in findings {
        match merged.iter_mut().find(|it| it.words == finding.words) {
            Some(known) => known.times += 1,
            None => merged.push(finding),
        }
    }
    merged.sort_by_key(|finding| finding.severity);
    merged
}

impl Tested {
    pub(super) fn new(bench: &Bench, tape: &[Taped]) -> Self {
        let installed = bench.installed();
        let description = &installed.description;
        let against = if bench.script().is_some() { "a script" } else { "real servers" };
        Self {
            name: description.name.clone(),
            version: description.version.clone(),
            summary: description.summary.clone(),
            digest: installed.digest.to_string(),
            bytes: installed.bytes,
            contract: installed.contract.clone(),
            toolchain: installed.toolchain.clone(),
            asks: description.needs.iter().map(|need| ask(need, tape)).collect(),
            against: against.into(),
        }
    }
}

fn ask(need: &Need, tape: &[Taped]) -> Ask {
    let sent = |text: &str| {
        let folded = crate::capability::statement::fold(text);
        let mut statements = tape.iter().filter_map(Taped::statement);
        statements.any(|sent| crate::capability::statement::fold(sent) == folded)
    };
    match need {
        Need::Sql { connection, statements, reason, required, .. } => Ask {
            what: format!("connection {connection}"),
            reason: reason.clone(),
            required: *required,
            items: statements
                .iter()
                .map(|text| AskItem { text: text.clone(), used: sent(text) })
                .collect(),
        },
        Need::Program { command, arguments, reason, required, .. } => Ask {
            what: format!("program {command}"),
            reason: reason.clone(),
            required: *required,
            items: arguments
                .iter()
                .map(|words| AskItem { text: words.join(" "), used: false })
                .collect(),
        },
        Need::Kv { bytes, reason, required } => Ask {
            what: format!("durable state, {bytes} bytes"),
            reason: reason.clone(),
            required: *required,
            items: Vec::new(),
        },
        Need::Wasi { imports } => Ask {
            what: "WASI".into(),
            reason: imports.join(", "),
            required: true,
            items: Vec::new(),
        },
        Need::Other { what } => {
            Ask { what: what.clone(), reason: String::new(), required: false, items: Vec::new() }
        }
    }
}

/// A run, phase by phase.
pub(super) fn told(played: &Played) -> Vec<PhaseTold> {
    let step = |step: &super::cycle::Step| PhaseTold {
        phase: match step.fresh {
            true => format!("{} on a fresh instance", step.phase),
            false => step.phase.to_string(),
        },
        took_ns: nanoseconds(step.took),
        failed: step.result.as_ref().err().map(words),
        gave: step.result.as_ref().map(gave).unwrap_or_default(),
        calls: calls(&played.tape, step.phase, step.fresh),
        holds: step.held.iter().map(|held| super::text::short(&held.statement)).collect(),
    };
    played.steps.iter().map(step).collect()
}

fn calls(tape: &[Taped], phase: Phase, fresh: bool) -> Vec<CallTold> {
    let of_phase = tape.iter().filter(|taped| taped.phase == phase && !fresh);
    of_phase
        .map(|taped| CallTold {
            what: taped.what.to_string(),
            session: taped.session,
            answer: taped.reply.as_ref().map(ToString::to_string),
            took_ns: nanoseconds(taped.took),
        })
        .collect()
}

fn gave(gave: &Gave) -> Vec<String> {
    let entry = |entry: &crate::manifest::MetadataEntry| {
        format!("saves {} = {}", entry.key, super::verify::value_text(&entry.value))
    };
    match gave {
        Gave::Nothing => Vec::new(),
        Gave::Prepared(prepared) => {
            let paths = prepared.paths.iter().map(|path| format!("path {}", path.display()));
            let summary = Some(prepared.summary.clone()).filter(|text| !text.is_empty());
            summary.into_iter().chain(paths).collect()
        }
        Gave::Quiesced(quiesced) => {
            let level = format!("level {}", quiesced.level);
            std::iter::once(level).chain(quiesced.metadata.iter().map(entry)).collect()
        }
        Gave::Released(metadata) => metadata.iter().map(entry).collect(),
    }
}

/// What a phase said, with what the operator would be told to do.
fn words(failure: &HookFailure) -> String {
    match &failure.hint {
        Some(hint) => format!("{} ({hint})", failure.message),
        None => failure.message.clone(),
    }
}

fn nanoseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
