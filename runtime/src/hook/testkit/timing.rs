//! What a hook costs: one run against its script, whose answers are there at once, on the clock as a whole.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::answers::Strictness;
use super::bench::Bench;
use super::error::TestError;
use super::holds::Holds;
use super::world::World;
use crate::hook::{HookFailure, Outcome, Phase};
use crate::time::Deadline;

/// How long sessions may take to be closed, after the clock has stopped.
const CLOSING: Duration = Duration::from_secs(1);

/// One run of a hook, timed.
#[derive(Clone, Copy, Debug)]
pub struct Cycle {
    /// Reading the grant and the compiled image, before anything of the hook runs.
    pub loading: Duration,
    /// From the new instance to its end: `prepare`, `pre-freeze`, `confirm`, `post-thaw`, `finish`, with
    /// every check of the host, and with the scripted answers, which take about a microsecond each.
    pub phases: Duration,
    /// How many sessions were opened, statements sent and programs run.
    pub calls: usize,
}

impl Bench {
    /// Plays one run against the script, each call in its place, and times it. Nothing is kept of it.
    ///
    /// # Errors
    /// If the hook cannot be loaded, fails, or calls anything else than the script says: then there is
    /// nothing to be timed.
    pub async fn cycle(&self) -> Result<Cycle, TestError> {
        let script = self.script().map(|script| (Arc::clone(script), Strictness::Exact));
        let holds = Holds::with(self.script().map_or(&[], |script| &script.holds));
        let world = Arc::new(World::new(holds, script, None));
        let began = Instant::now();
        let (mut hook, run) = self.load(&self.place("cycle"), &world, false).await?;
        let name = hook.name().to_owned();
        let loaded = Instant::now();
        let enter = |phase| {
            world.enter(phase);
            Deadline::after(self.deadline(phase))
        };
        hook.prepare(enter(Phase::Prepare)).await.map_err(failed(Phase::Prepare))?;
        hook.pre_freeze(enter(Phase::PreFreeze)).await.map_err(failed(Phase::PreFreeze))?;
        hook.confirm(enter(Phase::Confirm)).await.map_err(failed(Phase::Confirm))?;
        let released = hook.post_thaw(Outcome::Captured, enter(Phase::PostThaw)).await;
        released.map_err(failed(Phase::PostThaw))?;
        hook.finish(enter(Phase::Finish)).await.map_err(failed(Phase::Finish))?;
        drop(hook);
        let phases = loaded.elapsed();
        run.sessions.settled(&name, CLOSING).await;
        match world.mismatches().into_iter().next() {
            Some(mismatch) => Err(nothing_to_time(mismatch)),
            None => Ok(Cycle { loading: loaded - began, phases, calls: world.tape().len() }),
        }
    }
}

fn failed(phase: Phase) -> impl FnOnce(HookFailure) -> TestError {
    move |failure| nothing_to_time(format!("{phase} failed: {}", failure.message))
}

fn nothing_to_time(what: String) -> TestError {
    let hint = "stillpoint hook test COMPONENT --script FILE shows the run call by call".into();
    TestError::Setup { what, hint }
}
