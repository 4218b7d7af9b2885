//! What the sentinel does after an agent has died and everything is thawed: it has the applications
//! released that the agent left. It does so by a process of its own, never itself: hooks wait for
//! databases, and whoever waits for a database cannot watch.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use serde::{Deserialize, Serialize};

use super::board::Board;
use super::cgroup;
use super::protocol::{Arm, RECOVERY_NAME, send_to};
use super::spawn::start_with;
use super::watched::{Watched, poll_or_pause};
use crate::journal::{LeftHook, RunRecord};
use crate::sys::guardproc::pidfd_send_signal;

/// How often it looks whether the run is over, while the agent lives on without a guard.
const TICK: Duration = Duration::from_millis(100);
/// What a recovery may take beside the hooks and the scripts: their components, sessions, processes.
const GRACE: Duration = Duration::from_secs(30);
/// How long a recovery that was killed may take to end.
const END_LIMIT: Duration = Duration::from_secs(2);

/// What the process that recovers is told. It comes as the first message on its standard input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RecoveryOrder {
    /// The run that died.
    pub(crate) run_id: String,
    pub(crate) run_dir: std::path::PathBuf,
    pub(crate) aftercare: super::Aftercare,
}

/// Waits until the agent has released everything, or is gone; if it is gone and hooks or scripts
/// of its run are not finished, has them finished. Called when the guard is gone.
pub(super) fn after_the_run(plan: &Arm, board: &Board, agent: &Watched) {
    let Some(aftercare) = &plan.aftercare else { return };
    if !board.all_idle() || !agent_left_something(plan, board, agent) {
        return;
    }
    let left = left_behind(plan);
    let (run_id, run_dir) = (plan.run_id.clone(), plan.run_dir.clone());
    let order = RecoveryOrder { run_id, run_dir, aftercare: aftercare.clone() };
    // What it cannot do stays in the journal, for the next start.
    let _ = recover_by_a_process(&order, limit(&left, aftercare));
}

/// True if the agent is gone without having released everything. One that lives on without a guard
/// still releases what it holds; an embedding program may live for long after that.
fn agent_left_something(plan: &Arm, board: &Board, agent: &Watched) -> bool {
    while !board.is_released() && !left_behind(plan).is_empty() {
        if agent.is_gone_within(TICK) {
            return !left_behind(plan).is_empty();
        }
    }
    false
}

/// What the journal says is not finished; nothing if another run has taken the journal over.
fn left_behind(plan: &Arm) -> Vec<LeftHook> {
    match RunRecord::load(&plan.run_dir) {
        Ok(Some(record)) if record.run_id == plan.run_id => record.left_hooks(),
        _ => Vec::new(),
    }
}

/// How long all of it may take: each has its own deadline, so this is for what hangs beside them.
pub(super) fn limit(left: &[LeftHook], aftercare: &super::Aftercare) -> Duration {
    let each = left.iter().map(|hook| match &hook.scripts {
        Some(scripts) => scripts.timeout + GRACE,
        None => 2 * aftercare.finish,
    });
    each.sum::<Duration>() + GRACE
}

/// Starts the process and waits for its end. One that hangs is killed: it thaws nothing.
pub(super) fn recover_by_a_process(order: &RecoveryOrder, limit: Duration) -> io::Result<()> {
    let credentials = order.aftercare.credentials.iter();
    let environment = credentials.map(|directory| ("CREDENTIALS_DIRECTORY", directory.as_path()));
    let recovery = start_with(RECOVERY_NAME, environment)?;
    send_to(&recovery.socket, order)?;
    if !ends_within(&recovery.pidfd, limit) {
        pidfd_send_signal(&recovery.pidfd, libc::SIGKILL)?;
        ends_within(&recovery.pidfd, END_LIMIT);
    }
    cgroup::remove_stale();
    Ok(())
}

fn ends_within(pidfd: &OwnedFd, limit: Duration) -> bool {
    let until = Instant::now() + limit;
    loop {
        let rest = until.saturating_duration_since(Instant::now());
        let millis = u16::try_from(rest.as_millis()).unwrap_or(u16::MAX);
        let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        poll_or_pause(&mut fds, PollTimeout::from(millis));
        if fds[0].any().unwrap_or(false) {
            return true;
        }
        if rest.is_zero() {
            return false;
        }
    }
}
