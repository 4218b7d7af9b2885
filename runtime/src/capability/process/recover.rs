//! What programs of an agent that died have left. The programs themselves died with their agent; what
//! they had started did not.

use super::run::PURPOSE;
use crate::cgroup;
use crate::time::Deadline;

/// Ends what programs of dead agents have left, and says what that was, one thing in each line.
pub(crate) async fn end_remains(deadline: Deadline) -> Vec<String> {
    let mut lines = Vec::new();
    for (_, remains) in cgroup::remains(PURPOSE) {
        let processes = remains.members().len();
        let survivors = remains.kill(deadline).await;
        let each = |survivor: &cgroup::Survivor| {
            format!("{} {} (state {})", survivor.command, survivor.pid, survivor.state)
        };
        let left = match survivors.iter().map(each).collect::<Vec<_>>() {
            some if some.is_empty() => String::new(),
            some => format!("; cannot be killed yet: {}", some.join(", ")),
        };
        if processes > 0 {
            lines.push(format!("{processes} processes of its hooks' programs were ended{left}"));
        }
    }
    lines
}
