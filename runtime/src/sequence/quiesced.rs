//! Applications are quiesced; production may be waiting for us. The only exits are the freeze and
//! the release.

use std::time::Duration;

use crate::failpoint::reach_step;
use crate::manifest::{StepRecord, StepResult};
use crate::time::{Deadline, monotonic_ns};

use super::{Failure, Frozen, Rehearsed, Step};

/// How long the provider may look after its connection while applications are waiting.
const LAST_LOOK: Duration = Duration::from_secs(3);

/// Applications are quiesced, nothing is frozen.
#[derive(Debug)]
#[must_use = "applications are waiting"]
pub struct Quiesced {
    pub(super) held: Rehearsed,
}

impl Quiesced {
    /// Freezes every file system of the plan, stacked first.
    ///
    /// # Errors
    /// If the provider has lost its connection, or one cannot be frozen: those that were are thawed, and applications released, by then.
    pub async fn freeze(mut self) -> Result<Frozen, Failure> {
        let ready = self.held.group.about_to_freeze(Deadline::after(LAST_LOOK)).await;
        if let Err(error) = ready {
            return Err(self.held.abort(Step::Freeze, error).await);
        }
        let window = Deadline::after(self.held.run.request.deadlines.freeze);
        let began_ns = monotonic_ns();
        let nothing_to_freeze = self.held.plan.file_systems.is_empty();
        let Some(guard) = self.held.guard.take_if(|_| !nothing_to_freeze) else {
            return Ok(Frozen { quiesced: self, freeze: None, window });
        };
        reach_step!(Step::Freeze, "before");
        let frozen = guard.freeze().await;
        reach_step!(Step::Freeze, "after");
        match frozen {
            Ok(freeze) => Ok(Frozen { quiesced: self, freeze: Some(freeze), window }),
            Err((guard, error)) => {
                self.held.guard = Some(guard);
                self.held.run.recorder.push(StepRecord {
                    step: Step::Freeze.to_string(),
                    subject: None,
                    began_ns,
                    ended_ns: monotonic_ns(),
                    result: StepResult::Failed,
                    detail: Some(error.to_string()),
                });
                Err(self.held.abort(Step::Freeze, error).await)
            }
        }
    }
}
