//! One run against a script or a recording: was every phase what was expected, and every call?

use std::path::Path;
use std::sync::Arc;

use super::answers::Strictness;
use super::bench::Bench;
use super::cycle::{Gave, Plan, Played, play};
use super::error::TestError;
use super::holds::Holds;
use super::report::{RunReport, Tested, told};
use super::script::{Expected, Script};
use super::world::World;
use crate::hook::Phase;
use crate::manifest::{MetadataEntry, MetadataValue};
use crate::output::json::SCHEMA_VERSION;

/// The phases of a run, in their order.
const PHASES: [Phase; 5] =
    [Phase::Prepare, Phase::PreFreeze, Phase::Confirm, Phase::PostThaw, Phase::Finish];

impl Bench {
    /// Plays one run: against the script, each call of which must come in its place; or against the real
    /// servers, and then writes what was asked and answered to `record`, if that is given.
    ///
    /// # Errors
    /// If the hook cannot be loaded, or the recording not written. What it does wrong is in the report.
    pub async fn run(&self, record: Option<&Path>) -> Result<RunReport, TestError> {
        let script = self.script().map(|script| (Arc::clone(script), Strictness::Exact));
        let holds = Holds::with(self.script().map_or(&[], |script| &script.holds));
        let world = Arc::new(World::new(holds, script, None));
        let outcome = self.script().and_then(|script| script.outcome);
        let plan = Plan { outcome: outcome.unwrap_or(Plan::default().outcome), ..Plan::default() };
        let played = play(self, &self.place("run"), &world, &plan).await?;
        let mut problems = self.problems(&played);
        problems.extend(world.mismatches());
        if let Some(path) = record {
            let text = Script::recorded(self, &played).to_text(&format!(
                "{} {}: the calls of one run, recorded by `stillpoint hook test --record`",
                self.installed().description.name,
                self.installed().description.version
            ));
            std::fs::write(path, text)
                .map_err(|source| TestError::Write { path: path.to_owned(), source })?;
        }
        Ok(RunReport {
            schema_version: SCHEMA_VERSION,
            hook: Tested::new(self, &played.tape),
            passed: problems.is_empty(),
            run: told(&played),
            problems,
            log: played
                .logs
                .lines
                .iter()
                .map(|line| format!("{}: {}", line.phase, line.message))
                .collect(),
            recorded: record.map(Path::to_owned),
        })
    }

    fn problems(&self, played: &Played) -> Vec<String> {
        let nothing = Expected::default();
        let mut problems = Vec::new();
        for phase in PHASES {
            let told = self.script().and_then(|script| script.expects.get(&phase));
            let expected = told.unwrap_or(&nothing);
            match played.step(phase) {
                Some(step) => problems.extend(judged(phase, expected, &step.result)),
                None if told.is_some() => problems.push(format!("{phase} was not reached")),
                None => {}
            }
        }
        problems
    }
}

fn judged(
    phase: Phase,
    expected: &Expected,
    result: &Result<Gave, crate::hook::HookFailure>,
) -> Vec<String> {
    let mut problems = Vec::new();
    match (result, expected.fails) {
        (Ok(_), Some(kind)) => {
            problems.push(format!("{phase} was expected to fail ({kind:?}), and succeeded"));
        }
        (Err(failure), None) => problems.push(format!("{phase} failed: {}", failure.message)),
        (Err(failure), Some(kind)) if failure.kind != kind => problems.push(format!(
            "{phase} was expected to fail as {kind:?}, and failed as {:?}: {}",
            failure.kind, failure.message
        )),
        _ => {}
    }
    if let (Err(failure), Some(says)) = (result, &expected.says)
        && !failure.message.contains(says.as_str())
    {
        problems
            .push(format!("{phase} was expected to say `{says}`, and said: {}", failure.message));
    }
    if let Ok(gave) = result {
        let saved: &[MetadataEntry] = match gave {
            Gave::Quiesced(quiesced) => &quiesced.metadata,
            Gave::Released(metadata) => metadata,
            _ => &[],
        };
        for (key, wanted) in &expected.saves {
            let wanted = wanted.as_str().map_or_else(|| wanted.to_string(), str::to_owned);
            let found =
                saved.iter().find(|entry| entry.key == *key).map(|it| value_text(&it.value));
            match found {
                Some(found) if found == wanted => {}
                Some(found) => {
                    problems.push(format!("{phase} saved {key} = {found}, not {wanted}"))
                }
                None => problems.push(format!("{phase} did not save {key}")),
            }
        }
    }
    problems
}

/// A saved value, for people.
pub(super) fn value_text(value: &MetadataValue) -> String {
    match value {
        MetadataValue::Text(text) | MetadataValue::Bytes(text) => text.clone(),
        MetadataValue::Integer(number) => number.to_string(),
        MetadataValue::Boolean(flag) => flag.to_string(),
    }
}
