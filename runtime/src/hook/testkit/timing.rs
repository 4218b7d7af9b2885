//! What a hook costs: runs against its script, whose answers are there at once, each on the clock as a whole.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::answers::Strictness;
use super::bench::Bench;
use super::error::TestError;
use super::holds::Holds;
use super::world::World;
use crate::hook::{Hook, HookFailure, Outcome, Phase};
use crate::time::Deadline;

/// How long sessions may take to be closed, after the clock has stopped.
const CLOSING: Duration = Duration::from_secs(1);

/// Runs of a hook that was loaded once, timed.
#[derive(Clone, Debug)]
pub struct Cycles {
    /// Reading the grant and the compiled image, before anything of the hook runs.
    pub loading: Duration,
    /// Each run, from the new instance to its end: `prepare`, `pre-freeze`, `confirm`, `post-thaw`, `finish`,
    /// with every check of the host, and with the scripted answers, which take a few microseconds each. In
    /// the first one the image's pages are also read.
    pub runs: Vec<Duration>,
    /// How many sessions were opened, statements sent and programs run, in one run.
    pub calls: usize,
}

impl Bench {
    /// Plays that many runs against the script, each call in its place, and times them. Nothing is kept
    /// of them.
    ///
    /// # Errors
    /// If the hook cannot be loaded, fails, or calls anything else than the script says: then there is
    /// nothing to be timed.
    pub async fn cycles(&self, times: usize) -> Result<Cycles, TestError> {
        let script = self.script().map(|script| (Arc::clone(script), Strictness::Exact));
        let holds = Holds::with(self.script().map_or(&[], |script| &script.holds));
        let world = Arc::new(World::new(holds, script, None));
        let began = Instant::now();
        let (mut hook, run) = self.load(&self.place("cycles"), &world, false).await?;
        let mut cycles = Cycles { loading: began.elapsed(), runs: Vec::new(), calls: 0 };
        for _ in 0..times {
            world.rewind();
            let began = Instant::now();
            self.cycle(hook.as_mut(), &world).await?;
            cycles.runs.push(began.elapsed());
            run.sessions.settled(hook.name(), CLOSING).await;
            cycles.calls = world.tape().len();
            if let Some(mismatch) = world.mismatches().into_iter().next() {
                return Err(nothing_to_time(mismatch));
            }
        }
        Ok(cycles)
    }

    async fn cycle(&self, hook: &mut dyn Hook, world: &World) -> Result<(), TestError> {
        let enter = |phase| {
            world.enter(phase);
            Deadline::after(self.deadline(phase))
        };
        hook.prepare(enter(Phase::Prepare)).await.map_err(failed(Phase::Prepare))?;
        hook.pre_freeze(enter(Phase::PreFreeze)).await.map_err(failed(Phase::PreFreeze))?;
        hook.confirm(enter(Phase::Confirm)).await.map_err(failed(Phase::Confirm))?;
        let released = hook.post_thaw(Outcome::Captured, enter(Phase::PostThaw)).await;
        released.map_err(failed(Phase::PostThaw))?;
        hook.finish(enter(Phase::Finish)).await.map_err(failed(Phase::Finish))
    }
}

fn failed(phase: Phase) -> impl FnOnce(HookFailure) -> TestError {
    move |failure| nothing_to_time(format!("{phase} failed: {}", failure.message))
}

fn nothing_to_time(what: String) -> TestError {
    let hint = "stillpoint hook test COMPONENT --script FILE shows the run call by call".into();
    TestError::Setup { what, hint }
}
