//! The sentinel: does for the guard what the guard does for the agent. It freezes nothing, and thaws
//! only when the guard is gone, stopped, or past its deadline. When the agent has died, and everything
//! is thawed, it has the applications released, too.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout};

use super::board::{Abort, Board, PEER_SILENCE, boottime_ns};
use super::harden::harden;
use super::protocol::{Arm, Failure, FailureKind, Reply, SENTINEL_NAME, receive_arm, send_to};
use super::watched::{Watched, poll_or_pause};
use super::worker::Workers;
use super::{aftercare, cgroup, rcu};
use crate::capability::process;
use crate::failpoint::reach;
use crate::journal::{FreezeRecord, boot_id};

/// How often it looks, beside being woken by the guard's end.
const TICK_MS: u16 = 20;
/// How long after the deadline it leaves the thaw to the guard. A thaw takes about 1 ms.
const MARGIN: Duration = Duration::from_millis(100);
/// How long an agent that is killed together with the guard may end after it.
const AGENT_END: Duration = Duration::from_millis(500);
/// How long it goes on trying to thaw when a FITHAW fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the sentinel until the guard needs none any more, or is gone.
pub(crate) fn run(socket: OwnedFd) -> io::Result<()> {
    // First: in a limited cgroup of an old kernel, nobody gets real-time priority.
    cgroup::leave_limits();
    let warnings = harden(c"stillpoint-sentinel");
    let _ = reach!("arm.before");
    let (plan, fds) = receive_arm(&socket)?;
    let own = cgroup::enter_own(SENTINEL_NAME);
    if let Err(error) = &own
        && cgroup::is_shared_with(plan.agent.pid)
    {
        let failure = Failure::new(FailureKind::SharedCgroup, Vec::new()).detail(error);
        return send_to(&socket, &Reply::Failed(failure));
    }
    let cgroup = own.as_ref().ok().map(|own| own.path().to_owned());
    attend(&socket, plan, fds, cgroup, warnings)
}

/// Attends one run, from its arming to its end, and to that of what has to be done after it.
pub(super) fn attend(
    socket: &OwnedFd,
    plan: Arm,
    fds: Vec<OwnedFd>,
    cgroup: Option<PathBuf>,
    warnings: Vec<String>,
) -> io::Result<()> {
    let mut sentinel = match Sentinel::new(plan, fds) {
        Ok(sentinel) => sentinel,
        Err(error) => {
            let failure = Failure::new(FailureKind::Protocol, Vec::new()).detail(error);
            return send_to(socket, &Reply::Failed(failure));
        }
    };
    sentinel.board.sentinel_watches();
    // An agent that cannot be told is gone; then the guard is going, too.
    let _ = send_to(socket, &Reply::Armed { cgroup, warnings });
    let _ = reach!("arm.after");
    let _ = reach!("watch.before");
    sentinel.watch();
    let _ = reach!("watch.after");
    sentinel.undo_the_rest();
    sentinel.care();
    Ok(())
}

/// Attends a run further that another sentinel attended, which was cut off. Without a journal of that
/// run and this boot nothing of it is frozen.
pub(super) fn resume(plan: Arm, board: OwnedFd, mounts: Vec<OwnedFd>) -> io::Result<()> {
    let agent = Watched::of(plan.agent)?;
    let guard = Watched::of(plan.guard)?;
    let mut sentinel = Sentinel::with(plan, board, agent, guard, mounts)?;
    if sentinel.journal_is_there() {
        sentinel.watch();
        sentinel.undo_the_rest();
    }
    sentinel.care();
    Ok(())
}

struct Sentinel {
    plan: Arm,
    board: Arc<Board>,
    agent: Watched,
    guard: Watched,
    workers: Workers,
    /// Since when the agent is gone with something frozen and the guard has done nothing.
    guard_idle_since: Option<u64>,
}

impl Sentinel {
    fn new(plan: Arm, fds: Vec<OwnedFd>) -> io::Result<Self> {
        let mut fds = fds.into_iter();
        let mut next = || fds.next().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData));
        let board = next()?;
        let agent = Watched::new(next()?, plan.agent.pid)?;
        let guard = Watched::new(next()?, plan.guard.pid)?;
        Self::with(plan, board, agent, guard, fds.collect())
    }

    fn with(
        plan: Arm,
        board: OwnedFd,
        agent: Watched,
        guard: Watched,
        mounts: Vec<OwnedFd>,
    ) -> io::Result<Self> {
        let board = Arc::new(Board::open(board)?);
        let workers = Workers::start_thawing(Arc::clone(&board), mounts)?;
        if workers.len() != board.len() {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        Ok(Self { plan, board, agent, guard, workers, guard_idle_since: None })
    }

    fn journal_is_there(&self) -> bool {
        let record = FreezeRecord::load(&self.plan.run_dir).ok().flatten();
        record.is_some_and(|record| {
            record.run_id == self.plan.run_id && boot_id().is_ok_and(|boot| boot == record.boot_id)
        })
    }

    /// Has applications released that a dead agent left.
    fn care(&self) {
        aftercare::after_the_run(&self.plan, &self.board, &self.agent);
    }

    /// Watches until the guard is gone. A guard that goes without having undone everything leaves
    /// that to us.
    fn watch(&mut self) {
        while !self.guard.is_gone() {
            self.board.sentinel_watches();
            if let Some(why) = self.guard_fails() {
                self.board.abort(why);
                self.workers.thaw_all();
            } else if self.board.all_idle() && self.agent.is_gone() {
                self.guard.continue_if_stopped();
            }
            let mut fds = [PollFd::new(self.guard.as_fd(), PollFlags::POLLIN)];
            poll_or_pause(&mut fds, PollTimeout::from(TICK_MS));
        }
        if !self.board.disarmed() {
            self.board.abort(Abort::GuardLost);
        }
        self.workers.no_freeze_is_in_flight();
        self.workers.thaw_all();
        self.wait_until_thawed();
    }

    /// What a guard does after its last thaw, if it could not.
    fn undo_the_rest(&self) {
        if self.board.disarmed() {
            return;
        }
        let _ = reach!("undo.before");
        undo_the_rest(&self.board, &self.plan);
        let _ = reach!("undo.after");
        if self.agent.is_gone_within(AGENT_END) {
            process::kill_remains();
        }
    }

    /// Waits for the thawing threads. If storage is dead they cannot succeed; then the journal
    /// stays, for `stillpoint thaw`.
    fn wait_until_thawed(&self) {
        let began = Instant::now();
        while !self.board.all_idle() && began.elapsed() < PATIENCE {
            let mut fds = [PollFd::new(self.workers.progress().as_fd(), PollFlags::POLLIN)];
            poll_or_pause(&mut fds, PollTimeout::from(TICK_MS));
            let _ = self.workers.progress().read();
        }
    }

    /// Why the guard, which is still there, must be helped out.
    fn guard_fails(&mut self) -> Option<Abort> {
        if self.board.all_idle() {
            self.guard_idle_since = None;
            return None;
        }
        let now = boottime_ns();
        let margin = u64::try_from(MARGIN.as_nanos()).unwrap_or(u64::MAX);
        if let Some(given_up) = self.board.aborted() {
            // The guard thaws in the same moment; helping does no harm.
            return Some(given_up);
        }
        if self.board.deadline_ns().is_some_and(|at| at.saturating_add(margin) <= now) {
            return Some(Abort::DeadlinePassed);
        }
        if self.guard.is_lost() || self.board.guard_silent_for() > PEER_SILENCE {
            return Some(Abort::GuardLost);
        }
        if self.agent.is_gone() || self.agent.is_dying() {
            let since = *self.guard_idle_since.get_or_insert(now);
            return (since.saturating_add(margin) <= now).then_some(Abort::AgentLost);
        }
        None
    }
}

/// What remains to be undone when a guard was lost and every file system is thawed: `rcu_expedited`
/// and the journal. If a thaw failed, the journal stays, for `stillpoint thaw`.
pub(crate) fn undo_the_rest(board: &Board, plan: &Arm) {
    if let Some(before) = board.rcu_before()
        && rcu::restore(before).is_ok()
    {
        board.set_rcu_before(None);
    }
    if board.all_idle() {
        let _ = FreezeRecord::remove(&plan.run_dir);
        board.set_disarmed();
    }
}
