//! What programs of an agent that died have left. The programs themselves died with their agent; what
//! they had started did not.

use super::run::PURPOSE;
use crate::cgroup;
use crate::time::Deadline;

/// Kills what programs of dead agents have left. For whoever outlives the agent, and thaws first.
pub(crate) fn kill_remains() {
    // Dropping a cgroup kills what is in it.
    drop(cgroup::remains(PURPOSE));
}

/// Ends what programs of dead agents have left, and says what that was, one thing in each line.
pub(crate) async fn end_remains(deadline: Deadline) -> Vec<String> {
    let mut lines = Vec::new();
    for (_, remains) in cgroup::remains(PURPOSE) {
        let processes = remains.members().len();
        let survivors = remains.kill(deadline).await;
        let left = match survivors.as_slice() {
            [] => String::new(),
            some => format!("; cannot be killed yet: {}", super::in_words(some)),
        };
        if processes > 0 {
            lines.push(format!("{processes} processes of its hooks' programs were ended{left}"));
        }
    }
    lines
}
