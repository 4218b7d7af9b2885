//! What the scripts of an agent that died have left: a pre-freeze script that still runs, a client of
//! it that holds a lock, an application that nobody resumes.

use super::cgroup::{self, Cgroup, Part};
use super::{LEFTOVER_GRACE, ScriptPair, ScriptSettings};
use crate::hook::{Hook as _, HookFailure, Outcome};
use crate::time::Deadline;

/// What was found, and done about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// In words, one thing in each.
    pub lines: Vec<String>,
    /// The application was resumed: the journal's record of it is not needed any more.
    pub undone: bool,
}

/// Undoes what a run did that died between its pre-freeze and its post-thaw script: ends what the
/// first has left, then runs the second, as after any failure. Called when the journal has a hook
/// [`super::NAME`] that was not released; the scripts' hold is tied to no session that could have
/// ended by itself.
pub async fn recover(settings: &ScriptSettings, deadline: Deadline) -> Recovered {
    let mut recovered = Recovered { lines: end_remains().await, undone: false };
    let undone = match ScriptPair::check(settings) {
        Ok(Some(mut pair)) => {
            run_post(&mut pair, deadline).await.map_err(|failure| failure.to_string())
        }
        Ok(None) => Err(format!("{} is not there any more", settings.post.display())),
        Err(problem) => Err(format!("{problem}; {}", problem.hint())),
    };
    recovered.undone = undone.is_ok();
    recovered.lines.push(match undone {
        Ok(()) => format!("{} was run to resume the application", settings.post.display()),
        Err(why) => format!("the application may still be paused: {why}"),
    });
    recovered
}

/// Ends what the scripts of dead agents have left, and says what that was.
pub(super) async fn end_remains() -> Vec<String> {
    let mut lines = Vec::new();
    for (part, remains) in cgroup::remains() {
        lines.extend(end(part, &remains).await);
    }
    lines
}

async fn end(part: Part, remains: &Cgroup) -> Option<String> {
    match part {
        Part::Pre => {
            let processes = remains.members().len();
            let survivors = remains.kill(Deadline::after(LEFTOVER_GRACE)).await;
            let left = match survivors.as_slice() {
                [] => String::new(),
                some => format!("; cannot be killed yet: {}", super::in_words(some)),
            };
            (processes > 0)
                .then(|| format!("{processes} processes of its pre-freeze script were ended{left}"))
        }
        // What it started is what resumes the application.
        Part::Post => {
            remains.release_members();
            None
        }
    }
}

async fn run_post(pair: &mut ScriptPair, deadline: Deadline) -> Result<(), HookFailure> {
    pair.prepare(deadline).await?;
    pair.post_thaw(Outcome::Aborted, deadline).await?;
    pair.finish(deadline).await
}
