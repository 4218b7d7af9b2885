//! The guard process: waits for requests, freezes, thaws, and thaws in any case.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, Shutdown, shutdown};
use nix::sys::time::{TimeSpec, TimeValLike};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::board::{Abort, Board, PEER_SILENCE, State, boottime_ns};
use super::cgroup;
use super::harden::harden;
use super::mounts::ReadOnly;
use super::protocol::{
    Arm, Failure, FailureKind, Reply, Request, receive_arm, receive_from, send_to,
};
use super::rcu;
use super::watched::{Watched, poll_or_pause};
use super::worker::{Job, Workers};
use crate::capability::process;
use crate::failpoint::{reach, skips};
use crate::journal::{FreezeRecord, FrozenEntry, JournalError, boot_id};

/// How often to look whether agent and sentinel hang in the kernel, killed, while something is
/// frozen: an end that no descriptor tells of.
const TICK: Duration = Duration::from_millis(20);
/// How long a thaw may take before the agent is told that it is not done. It goes on afterwards.
const THAW_LIMIT: Duration = Duration::from_secs(2);
/// How long an agent that has closed its socket may take to end.
const AGENT_END: Duration = Duration::from_secs(2);
/// Pause between two rounds that keep superblocks warm. Warm is what the next freeze finds for about
/// 10 ms after a thaw, less if a grace period happens to end sooner.
const WARM_PAUSE: Duration = Duration::from_millis(4);
/// A round that holds one file system's writers up for longer than this does not pay: keeping warm
/// would then take more than a quarter of their time. One such round may be chance, two end it.
const WARM_ROUND_LIMIT: Duration = Duration::from_micros(1500);
/// After this, keeping warm has cost more than it can save; a later freeze is a cold one.
const WARM_LIMIT: Duration = Duration::from_secs(2);

/// Runs the guard until there is nothing left to guard.
pub(crate) fn run(socket: OwnedFd) -> io::Result<()> {
    let warnings = harden(c"stillpoint-guard");
    let _ = reach!("arm.before");
    let (arm, fds) = receive_arm(&socket)?;
    let mut guard = match Guard::new(&socket, arm, fds) {
        Ok(guard) => guard,
        Err(error) => {
            let failure = Failure::new(FailureKind::Protocol, Vec::new()).detail(error);
            return send_to(&socket, &Reply::Failed(failure));
        }
    };
    guard.arm(warnings);
    guard.serve();
    guard.leave();
    Ok(())
}

struct Guard<'socket> {
    socket: &'socket OwnedFd,
    plan: Arm,
    board: Arc<Board>,
    agent: Watched,
    sentinel: Watched,
    workers: Workers,
    timer: TimerFd,
    journal: FreezeRecord,
    was_read_only: ReadOnly,
    warm: Option<Warm>,
    /// The run is given up, and everything was told to thaw.
    given_up: bool,
    /// The agent knows that.
    told: bool,
    /// The agent says nothing more.
    agent_lost: bool,
    /// What had a call of ours in the kernel when the run was given up.
    late: Vec<usize>,
}

/// The rounds that keep superblocks warm.
#[derive(Clone, Copy, Debug)]
struct Warm {
    next: Instant,
    until: Instant,
    /// The last round was too slow.
    slow: bool,
}

/// What the agent said, or that it says nothing more.
enum Event {
    Request(Request),
    End,
    Nothing,
}

impl<'socket> Guard<'socket> {
    fn new(socket: &'socket OwnedFd, plan: Arm, fds: Vec<OwnedFd>) -> io::Result<Self> {
        let mut fds = fds.into_iter();
        let mut next = || fds.next().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData));
        let board = Arc::new(Board::open(next()?)?);
        let agent = Watched::new(next()?, plan.agent.pid)?;
        let sentinel = Watched::new(next()?, plan.sentinel.pid)?;
        let workers = Workers::start(Arc::clone(&board), fds.collect())?;
        if workers.len() != plan.file_systems.len() || board.len() != workers.len() {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, flags)?;
        let journal = new_record(&plan).map_err(io::Error::other)?;
        let was_read_only = ReadOnly::now(&plan.file_systems)?;
        Ok(Self {
            socket,
            plan,
            board,
            agent,
            sentinel,
            workers,
            timer,
            journal,
            was_read_only,
            warm: None,
            given_up: false,
            told: false,
            agent_lost: false,
            late: Vec::new(),
        })
    }

    /// Writes the journal, raises `rcu_expedited`, and says that it is armed.
    fn arm(&mut self, mut warnings: Vec<String>) {
        if let Err(error) = self.journal.save(&self.plan.run_dir) {
            self.reply(&Reply::Failed(journal_failure(&error)));
            return;
        }
        if self.plan.expedite_rcu
            && let Err(error) = self.raise_rcu()
        {
            warnings.push(format!("rcu_expedited is left as it is: {error}"));
        }
        self.reply(&Reply::Armed { cgroup: None, warnings });
        let _ = reach!("arm.after");
    }

    fn raise_rcu(&mut self) -> io::Result<()> {
        let Some(before) = rcu::value_to_raise()? else { return Ok(()) };
        self.journal.rcu_expedited_before = Some(before);
        self.journal.save(&self.plan.run_dir).map_err(io::Error::other)?;
        self.board.set_rcu_before(Some(before));
        rcu::raise().inspect_err(|_| self.board.set_rcu_before(None))
    }

    /// Answers requests until the agent has no more of them, or is gone.
    fn serve(&mut self) {
        loop {
            match self.next_event() {
                Event::Request(Request::Disarm) => return,
                Event::Request(request) => {
                    let reply = self.answer(request).unwrap_or_else(Reply::Failed);
                    self.reply(&reply);
                    self.withdraw_after(&reply);
                }
                Event::End => {
                    self.agent_lost = true;
                    self.give_up(Abort::AgentLost);
                    return;
                }
                Event::Nothing => {}
            }
            self.tell_if_broken();
        }
    }

    fn answer(&mut self, request: Request) -> Result<Reply, Failure> {
        match request {
            Request::Sync { budget_ms } => self.sync(Duration::from_millis(budget_ms)),
            Request::Rehearse => self.rehearse(),
            Request::Freeze => self.freeze(),
            Request::Thaw => self.thaw(),
            Request::Disarm => Ok(Reply::Done),
        }
    }

    /// `syncfs` everywhere at once. What has not returned in time goes on by itself.
    fn sync(&mut self, budget: Duration) -> Result<Reply, Failure> {
        self.refuse_if_unfit()?;
        let all = 0..self.workers.len();
        all.clone().for_each(|index| self.workers.begin(index, Job::Sync));
        let until = Instant::now() + budget;
        self.wait(Some(until), |guard| !all.clone().any(|index| guard.workers.is_busy(index)))
            .map_err(|abort| self.broken(abort))?;
        let late = self.busy();
        if !late.is_empty() {
            return Err(Failure::new(FailureKind::SyncTimedOut, late));
        }
        match all.into_iter().find_map(|index| Some((index, self.workers.sync_error(index)?))) {
            Some((index, errno)) => Err(Failure::new(FailureKind::Sync, vec![index]).errno(errno)),
            None => Ok(Reply::Done),
        }
    }

    /// Freezes and thaws each file system once, and begins to keep them warm. Where grace periods
    /// are expedited that is left out: measured with 1, 4 and 16 ext4, idle and busy, the windows
    /// with and without it are the same to 0.2 ms, and writers are spared the rounds.
    fn rehearse(&mut self) -> Result<Reply, Failure> {
        self.warm = None;
        self.refuse_if_unfit()?;
        self.announce()?;
        self.cycle()?;
        if self.plan.keep_warm && !rcu::is_in_force() {
            let now = Instant::now();
            self.warm = Some(Warm { next: now + WARM_PAUSE, until: now + WARM_LIMIT, slow: false });
        }
        Ok(Reply::Done)
    }

    /// Freezes and thaws; how long the writers of the slowest file system had to wait.
    fn cycle(&mut self) -> Result<Duration, Failure> {
        self.run_waves(Job::Cycle)?;
        self.close_window();
        let times = self.board.slots().map(|slot| slot.times(0));
        let longest =
            times.map(|times| times.thawed_ns.saturating_sub(times.freeze_began_ns)).max();
        Ok(Duration::from_nanos(longest.unwrap_or(0)))
    }

    /// One more round. If it fails, the freeze will fail the same way, and say so.
    fn keep_warm(&mut self, warm: Warm) {
        self.warm = self.cycle().ok().and_then(|took| {
            let (next, slow) = (Instant::now() + WARM_PAUSE, took > WARM_ROUND_LIMIT);
            let goes_on = next < warm.until && !(slow && warm.slow);
            goes_on.then_some(Warm { next, slow, ..warm })
        });
        self.told = false;
    }

    fn freeze(&mut self) -> Result<Reply, Failure> {
        self.warm = None;
        self.refuse_if_unfit()?;
        self.announce()?;
        self.run_waves(Job::Freeze)?;
        Ok(Reply::Done)
    }

    /// Runs a job on every file system, wave after wave, under a deadline of its own. If one fails,
    /// everything that was frozen is thawed at once.
    fn run_waves(&mut self, job: Job) -> Result<(), Failure> {
        self.open_window().map_err(|errno| {
            Failure::new(FailureKind::Freeze, Vec::new()).errno(errno).detail("timer")
        })?;
        let last = self.plan.file_systems.iter().map(|fs| fs.wave).max();
        for wave in 0..=last.unwrap_or(0) {
            let members = |guard: &Self| -> Vec<usize> {
                let all = guard.plan.file_systems.iter().enumerate();
                all.filter(|(_, fs)| fs.wave == wave).map(|(index, _)| index).collect()
            };
            let members = members(self);
            members.iter().for_each(|index| self.workers.begin(*index, job));
            let waited = self.wait(None, |guard| {
                !members.iter().any(|index| guard.workers.is_busy(*index))
                    || guard.failed(&members).next().is_some()
            });
            waited.map_err(|abort| self.broken(abort))?;
            if let Some(failure) = self.first_failure(&members) {
                self.thaw_everything(THAW_LIMIT);
                self.close_window();
                return Err(failure);
            }
        }
        Ok(())
    }

    fn failed<'a>(&'a self, members: &'a [usize]) -> impl Iterator<Item = (usize, Errno)> + 'a {
        let done = members.iter().filter(|index| !self.workers.is_busy(**index));
        done.filter_map(|index| Some((*index, self.board.slot(*index).freeze_error()?)))
    }

    /// The first error, and every file system that has the same one.
    fn first_failure(&self, members: &[usize]) -> Option<Failure> {
        let (_, errno) = self.failed(members).next()?;
        let same = self.failed(members).filter(|(_, e)| *e == errno).map(|(index, _)| index);
        Some(Failure::new(FailureKind::Freeze, same.collect()).errno(errno))
    }

    fn thaw(&mut self) -> Result<Reply, Failure> {
        if skips!("withdraw") {
            let _ = self.set_ours(false);
        }
        let left = self.thaw_everything(THAW_LIMIT);
        self.close_window();
        if !left.is_empty() {
            return Err(Failure::new(FailureKind::NotThawed, left));
        }
        let now = ReadOnly::now(&self.plan.file_systems);
        let turned_read_only = now.map_or_else(
            // Cannot be said to be all right if it cannot be seen.
            |_| (0..self.workers.len()).collect(),
            |now| now.turned_since(&self.was_read_only),
        );
        Ok(Reply::Thawed { turned_read_only })
    }

    /// Thaws all that is or may become frozen by us; gives back what is not thawed by `limit`,
    /// where the threads go on trying.
    fn thaw_everything(&mut self, limit: Duration) -> Vec<usize> {
        self.workers.thaw_all();
        let until = Instant::now() + limit;
        while self.anything_frozen() && Instant::now() < until {
            self.wait_for_progress(until.saturating_duration_since(Instant::now()));
        }
        (0..self.workers.len()).filter(|index| self.workers.may_be_frozen(*index)).collect()
    }

    fn anything_frozen(&self) -> bool {
        (0..self.workers.len()).any(|index| self.workers.may_be_frozen(index))
    }

    /// Gives the run up: nothing is frozen any more, what is frozen is thawed.
    fn give_up(&mut self, why: Abort) -> Abort {
        self.board.abort(why);
        self.warm = None;
        self.given_up = true;
        self.late = self.busy();
        // A timer that has run out would wake every wait from now on.
        let _ = self.timer.unset();
        self.thaw_everything(last_thaw_limit());
        self.close_window();
        self.board.aborted().unwrap_or(why)
    }

    fn broken(&mut self, abort: Abort) -> Failure {
        self.told = true;
        Failure::new(FailureKind::Broken, self.late.clone()).detail(format!("{abort:?}"))
    }

    fn busy(&self) -> Vec<usize> {
        (0..self.workers.len()).filter(|index| self.workers.is_busy(*index)).collect()
    }

    fn tell_if_broken(&mut self) {
        if self.board.aborted().is_some() && !self.told {
            self.told = true;
            self.reply(&Reply::Broken);
        }
    }

    /// No new job on a file system that has one, and none in a run that is given up.
    fn refuse_if_unfit(&mut self) -> Result<(), Failure> {
        if self.board.sentinel_silent_for() > PEER_SILENCE {
            self.give_up(Abort::SentinelLost);
        }
        if let Some(abort) = self.board.aborted() {
            return Err(self.broken(abort));
        }
        let unfit = |index: &usize| {
            self.workers.is_busy(*index) || self.board.slot(*index).state() != State::Idle
        };
        let unfit: Vec<_> = (0..self.workers.len()).filter(unfit).collect();
        if unfit.is_empty() { Ok(()) } else { Err(Failure::new(FailureKind::Busy, unfit)) }
    }

    /// Writes down that everything may be frozen by us. Nothing is to be written if that is so
    /// already, which after a rehearsal takes the journal out of the time that applications wait.
    fn announce(&mut self) -> Result<(), Failure> {
        if skips!("announce") {
            return Ok(());
        }
        let _ = reach!("announce.before");
        self.set_ours(true).map_err(|error| journal_failure(&error))?;
        let _ = reach!("announce.after");
        Ok(())
    }

    /// Writes down that nothing of ours is frozen; after the answer, because applications wait for
    /// that. If it cannot be written, a later recovery thaws once more than it needs to.
    fn withdraw_after(&mut self, reply: &Reply) {
        if matches!(reply, Reply::Thawed { .. } | Reply::Failed(_)) && !self.anything_frozen() {
            let _ = reach!("withdraw.before");
            let _ = self.set_ours(false);
            let _ = reach!("withdraw.after");
        }
    }

    fn set_ours(&mut self, ours: bool) -> Result<(), JournalError> {
        if self.journal.file_systems.iter().all(|entry| entry.ours == ours) {
            return Ok(());
        }
        self.journal.file_systems.iter_mut().for_each(|entry| entry.ours = ours);
        self.journal.save(&self.plan.run_dir)
    }

    /// Starts the deadline, before the first FIFREEZE.
    fn open_window(&mut self) -> Result<(), Errno> {
        let window = Duration::from_millis(self.plan.window_ms);
        let nanoseconds = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
        let deadline = boottime_ns().saturating_add(nanoseconds);
        let absolute = TimeSpec::nanoseconds(i64::try_from(deadline).unwrap_or(i64::MAX));
        self.timer.set(Expiration::OneShot(absolute), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
        self.board.set_deadline_ns(Some(deadline));
        self.workers.allow_freezing();
        Ok(())
    }

    fn close_window(&mut self) {
        if !self.anything_frozen() {
            self.board.set_deadline_ns(None);
            let _ = self.timer.unset();
        }
    }

    /// The agent's next request, or what else happens. Returns soon while something is frozen.
    fn next_event(&mut self) -> Event {
        if let Some(warm) = self.warm.filter(|warm| warm.next <= Instant::now()) {
            self.keep_warm(warm);
        }
        let rest = if self.board.all_idle() { Duration::from_secs(1) } else { TICK };
        let until_round = self.warm.map(|warm| warm.next.saturating_duration_since(Instant::now()));
        let readable = self.poll(PollFlags::POLLIN, until_round.unwrap_or(rest).min(rest));
        if let Some(abort) = self.lost() {
            self.give_up(abort);
            return if abort == Abort::AgentLost { Event::End } else { Event::Nothing };
        }
        if !readable {
            return Event::Nothing;
        }
        match receive_from(self.socket, MsgFlags::MSG_DONTWAIT) {
            Ok(Some(request)) => Event::Request(request),
            Err(error) if is_for_later(&error) => Event::Nothing,
            Ok(None) | Err(_) => Event::End,
        }
    }

    /// Waits until something is so, or until `until`; breaks off if the run must be given up.
    fn wait(
        &mut self,
        until: Option<Instant>,
        reached: impl Fn(&Self) -> bool,
    ) -> Result<(), Abort> {
        while !reached(self) {
            let rest = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return Ok(()),
                Some(rest) => rest.min(TICK),
                None => TICK,
            };
            // No request is expected now: only the end of the conversation counts.
            self.poll(PollFlags::empty(), rest);
            if let Some(abort) = self.lost() {
                return Err(self.give_up(abort));
            }
        }
        Ok(())
    }

    fn wait_for_progress(&self, limit: Duration) {
        self.board.guard_works();
        let mut fds = [PollFd::new(self.workers.progress().as_fd(), PollFlags::POLLIN)];
        poll_or_pause(&mut fds, timeout(limit.min(TICK)));
        let _ = self.workers.progress().read();
    }

    /// Sleeps until anything happens; true if the socket says something.
    fn poll(&self, on_socket: PollFlags, limit: Duration) -> bool {
        self.board.guard_works();
        let input = PollFlags::POLLIN;
        let progress = self.workers.progress().as_fd();
        // A sentinel that is gone is no news twice: its pidfd stays readable.
        let sentinel = if self.given_up { progress } else { self.sentinel.as_fd() };
        let mut fds = [
            PollFd::new(self.socket.as_fd(), on_socket),
            PollFd::new(self.agent.as_fd(), input),
            PollFd::new(sentinel, input),
            PollFd::new(self.timer.as_fd(), input),
            PollFd::new(progress, input),
        ];
        let looked = poll_or_pause(&mut fds, timeout(limit));
        // Where `poll` fails, the socket itself is asked.
        let said = !looked || fds[0].any().unwrap_or(false);
        let _ = self.workers.progress().read();
        said
    }

    /// Why the run must be given up now, if it must and is not yet.
    fn lost(&self) -> Option<Abort> {
        let passed = || self.board.deadline_ns().is_some_and(|at| at <= boottime_ns());
        if self.agent_is_gone() {
            Some(Abort::AgentLost)
        } else if self.given_up {
            None
        } else if let Some(by_another) = self.board.aborted() {
            Some(by_another)
        } else if passed() {
            Some(Abort::DeadlinePassed)
        } else if self.sentinel.is_gone() || self.sentinel_fails() {
            Some(Abort::SentinelLost)
        } else {
            None
        }
    }

    /// While something is frozen, a sentinel that was stopped or starves is as good as none.
    fn sentinel_fails(&self) -> bool {
        !self.board.all_idle()
            && (self.sentinel.is_lost() || self.board.sentinel_silent_for() > PEER_SILENCE)
    }

    fn agent_is_gone(&self) -> bool {
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::empty())];
        let hung_up = matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1..));
        hung_up || self.agent.is_gone() || (!self.board.all_idle() && self.agent.is_dying())
    }

    /// Undoes everything and goes, however long it takes: as long as a freeze is in flight, nobody
    /// else can thaw what it will leave.
    fn leave(&mut self) {
        let _ = reach!("disarm.before");
        let mut told = false;
        while !self.thaw_everything(last_thaw_limit()).is_empty() && !skips!("sweep") {
            if !told {
                let left =
                    (0..self.workers.len()).filter(|i| self.workers.may_be_frozen(*i)).collect();
                self.reply(&Reply::Failed(Failure::new(FailureKind::NotThawed, left)));
                told = true;
            }
        }
        if let Some(before) = self.board.rcu_before()
            && rcu::restore(before).is_ok()
        {
            self.board.set_rcu_before(None);
        }
        if self.agent_lost && self.agent.is_gone_within(AGENT_END) {
            // What they hold is tied to them, as a session is to the agent.
            process::kill_remains();
        }
        // One that it cannot remove, the sentinel may.
        if FreezeRecord::remove(&self.plan.run_dir).is_ok() {
            self.board.set_disarmed();
        }
        self.sentinel.continue_if_stopped();
        // One that is killed at this moment is in its cgroup until its last thread has ended.
        if (self.sentinel.is_gone()
            || (self.sentinel.is_dying() && self.sentinel.is_gone_within(AGENT_END)))
            && let Some(cgroup) = &self.plan.sentinel_cgroup
        {
            cgroup::remove(cgroup);
        }
        self.reply(&Reply::Done);
        let _ = reach!("disarm.after");
    }

    fn reply(&self, reply: &Reply) {
        if send_to(self.socket, reply).is_err() {
            // An agent that cannot be told is gone, or would wait for this answer until its deadline:
            // the end of the conversation it hears.
            let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Both);
        }
    }
}

/// A test may want a guard that thaws once and goes, to see that this is noticed.
fn last_thaw_limit() -> Duration {
    if skips!("sweep") { TICK } else { THAW_LIMIT }
}

/// Nothing was said, or nothing could be heard just now.
fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn timeout(limit: Duration) -> PollTimeout {
    // Rounded up: a pause of 0 ms before a deadline would spin.
    let millis = u16::try_from(limit.as_micros().div_ceil(1000)).unwrap_or(u16::MAX);
    PollTimeout::from(millis)
}

fn journal_failure(error: &JournalError) -> Failure {
    let source = std::error::Error::source(error).map(|s| format!(": {s}")).unwrap_or_default();
    Failure::new(FailureKind::Journal, Vec::new()).detail(format!("{error}{source}"))
}

fn new_record(plan: &Arm) -> Result<FreezeRecord, JournalError> {
    Ok(FreezeRecord {
        run_id: plan.run_id.clone(),
        boot_id: boot_id()?,
        agent: plan.agent,
        guard: plan.guard,
        sentinel: plan.sentinel,
        sentinel_cgroup: plan.sentinel_cgroup.clone(),
        window_ms: plan.window_ms,
        rcu_expedited_before: None,
        file_systems: plan
            .file_systems
            .iter()
            .map(|fs| FrozenEntry {
                superblock: fs.superblock,
                mount_point: fs.mount_point.clone(),
                mount_id: fs.mount_id,
                fs_type: fs.fs_type.clone(),
                ours: false,
            })
            .collect(),
    })
}
