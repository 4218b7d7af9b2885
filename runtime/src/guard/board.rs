//! The board: memory that agent, guard and sentinel share, so that each knows at any moment, also
//! when another has just been killed, what is frozen by us. Nothing has to be sent or asked.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use nix::errno::Errno;
use nix::time::{ClockId, clock_gettime};

use super::{Break, FileSystemTimes};
use crate::sys::guardproc_page::SharedWords;

/// A guard or a sentinel that has not said for this long that it is at work counts as lost. While
/// something is frozen each says so every 20 ms.
pub(crate) const PEER_SILENCE: Duration = Duration::from_secs(1);

/// Words before the first slot.
const HEADER: usize = 8;
/// Words of one file system.
const SLOT: usize = 8;

/// Where one file system stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Not frozen by us.
    Idle,
    /// FIFREEZE is about to be called or is in flight.
    Freezing,
    /// FIFREEZE has returned 0 and no FITHAW has ended it.
    Frozen,
}

impl State {
    fn from_word(word: u64) -> Self {
        match word {
            1 => State::Freezing,
            2 => State::Frozen,
            _ => State::Idle,
        }
    }
}

/// Why everything is thawed and nothing is frozen any more in this run. The first reason stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Abort {
    /// The deadline passed.
    DeadlinePassed,
    /// The guard is gone, or does not answer.
    GuardLost,
    /// The sentinel is gone, or does not answer.
    SentinelLost,
    /// The agent is gone.
    AgentLost,
}

impl Abort {
    const ALL: [Self; 4] =
        [Self::DeadlinePassed, Self::GuardLost, Self::SentinelLost, Self::AgentLost];

    fn word(self) -> u64 {
        Self::ALL.iter().zip(1..).find(|(abort, _)| **abort == self).map_or(0, |(_, word)| word)
    }

    fn from_word(word: u64) -> Option<Self> {
        Self::ALL.into_iter().zip(1..).find(|(_, w)| *w == word).map(|(abort, _)| abort)
    }

    /// How the agent, if it is still there, calls it.
    pub(crate) fn as_break(self) -> Break {
        match self {
            Abort::DeadlinePassed => Break::DeadlinePassed,
            Abort::SentinelLost => Break::SentinelLost,
            Abort::GuardLost | Abort::AgentLost => Break::GuardLost,
        }
    }
}

/// The board itself.
#[derive(Debug)]
pub(crate) struct Board(SharedWords);

impl Board {
    /// A board for `file_systems` file systems, all idle.
    pub(crate) fn create(file_systems: usize) -> io::Result<Self> {
        SharedWords::create(HEADER + file_systems * SLOT).map(Self)
    }

    /// The board that another process sent.
    pub(crate) fn open(fd: OwnedFd) -> io::Result<Self> {
        let words = SharedWords::map(fd)?;
        if words.len() < HEADER || !(words.len() - HEADER).is_multiple_of(SLOT) {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        Ok(Self(words))
    }

    /// How many file systems it is for.
    pub(crate) fn len(&self) -> usize {
        (self.0.len() - HEADER) / SLOT
    }

    /// One file system.
    pub(crate) fn slot(&self, index: usize) -> Slot<'_> {
        Slot(&self.0.words()[HEADER + index * SLOT..][..SLOT])
    }

    /// All file systems.
    pub(crate) fn slots(&self) -> impl Iterator<Item = Slot<'_>> {
        (0..self.len()).map(|index| self.slot(index))
    }

    /// True if no file system is frozen or being frozen by us.
    pub(crate) fn all_idle(&self) -> bool {
        self.slots().all(|slot| slot.state() == State::Idle)
    }

    fn header(&self, word: usize) -> &AtomicU64 {
        &self.0.words()[word]
    }

    /// Why the run is given up, if it is.
    pub(crate) fn aborted(&self) -> Option<Abort> {
        Abort::from_word(self.header(0).load(SeqCst))
    }

    /// Gives the run up. From now on whoever finishes a FIFREEZE undoes it at once.
    pub(crate) fn abort(&self, why: Abort) {
        let _ = self.header(0).compare_exchange(0, why.word(), SeqCst, SeqCst);
    }

    /// When everything must be thawed, `CLOCK_BOOTTIME` ns; `None` outside a window.
    pub(crate) fn deadline_ns(&self) -> Option<u64> {
        Some(self.header(1).load(SeqCst)).filter(|ns| *ns != 0)
    }

    pub(crate) fn set_deadline_ns(&self, deadline: Option<u64>) {
        self.header(1).store(deadline.unwrap_or(0), SeqCst);
    }

    /// True once the guard has undone everything and needs no sentinel any more.
    pub(crate) fn disarmed(&self) -> bool {
        self.header(2).load(SeqCst) != 0
    }

    pub(crate) fn set_disarmed(&self) {
        self.header(2).store(1, SeqCst);
    }

    /// How long ago the sentinel last said that it watches.
    pub(crate) fn sentinel_silent_for(&self) -> Duration {
        Duration::from_nanos(boottime_ns().saturating_sub(self.header(3).load(SeqCst)))
    }

    pub(crate) fn sentinel_watches(&self) {
        self.header(3).store(boottime_ns(), SeqCst);
    }

    /// `rcu_expedited` before we raised it, if we did.
    pub(crate) fn rcu_before(&self) -> Option<u32> {
        let word = self.header(4).load(SeqCst);
        word.checked_sub(1).and_then(|value| u32::try_from(value).ok())
    }

    /// The agent has released everything, and needs neither guard nor sentinel any more.
    pub(crate) fn is_released(&self) -> bool {
        self.header(5).load(SeqCst) != 0
    }

    pub(crate) fn set_released(&self) {
        self.header(5).store(1, SeqCst);
    }

    /// How long ago the guard last said that it is at work.
    pub(crate) fn guard_silent_for(&self) -> Duration {
        Duration::from_nanos(boottime_ns().saturating_sub(self.header(6).load(SeqCst)))
    }

    pub(crate) fn guard_works(&self) {
        self.header(6).store(boottime_ns(), SeqCst);
    }

    pub(crate) fn set_rcu_before(&self, value: Option<u32>) {
        self.header(4).store(value.map_or(0, |value| u64::from(value) + 1), SeqCst);
    }
}

impl AsFd for Board {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// One file system's place on the board.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot<'board>(&'board [AtomicU64]);

impl Slot<'_> {
    const STATE: usize = 0;
    const FREEZE_BEGAN: usize = 1;
    const FROZEN: usize = 2;
    const THAW_BEGAN: usize = 3;
    const THAWED: usize = 4;
    const THAWS: usize = 5;
    const FREEZE_ERRNO: usize = 6;
    const THAW_ERRNO: usize = 7;

    pub(crate) fn state(self) -> State {
        State::from_word(self.0[Self::STATE].load(SeqCst))
    }

    fn get(self, word: usize) -> u64 {
        self.0[word].load(SeqCst)
    }

    /// Announces a FIFREEZE: from here on the file system counts as ours.
    pub(crate) fn freeze_begins(self, now_ns: u64) {
        for word in &self.0[1..] {
            word.store(0, SeqCst);
        }
        self.0[Self::FREEZE_BEGAN].store(now_ns, SeqCst);
        self.0[Self::STATE].store(1, SeqCst);
    }

    /// Writes down how that FIFREEZE ended.
    pub(crate) fn freeze_ended(self, now_ns: u64, result: Result<(), Errno>) {
        match result {
            Ok(()) => {
                self.0[Self::FROZEN].store(now_ns, SeqCst);
                self.0[Self::STATE].store(2, SeqCst);
            }
            Err(errno) => {
                self.0[Self::FREEZE_ERRNO].store(errno as u64, SeqCst);
                self.0[Self::STATE].store(0, SeqCst);
            }
        }
    }

    pub(crate) fn thaw_begins(self, now_ns: u64) {
        let _ = self.0[Self::THAW_BEGAN].compare_exchange(0, now_ns, SeqCst, SeqCst);
    }

    /// Writes down how a FITHAW ended. EINVAL on a frozen file system: somebody else, or another
    /// process of ours, thawed it. EINVAL while a FIFREEZE is in flight says nothing.
    pub(crate) fn thaw_ended(self, now_ns: u64, result: Result<(), Errno>) {
        match result {
            Ok(()) => {
                self.0[Self::THAWS].fetch_add(1, SeqCst);
                self.0[Self::THAWED].store(now_ns, SeqCst);
                self.frozen_to_idle();
            }
            Err(Errno::EINVAL) if self.state() == State::Frozen => {
                let _ = self.0[Self::THAWED].compare_exchange(0, now_ns, SeqCst, SeqCst);
                self.frozen_to_idle();
            }
            Err(Errno::EINVAL) => {}
            Err(errno) => self.0[Self::THAW_ERRNO].store(errno as u64, SeqCst),
        }
    }

    fn frozen_to_idle(self) {
        let _ = self.0[Self::STATE].compare_exchange(2, 0, SeqCst, SeqCst);
    }

    /// Whoever freezes is gone, and a last FITHAW was done: nothing can be in flight.
    pub(crate) fn settle(self) {
        self.0[Self::STATE].store(0, SeqCst);
    }

    /// Our FITHAW succeeded, exactly once.
    pub(crate) fn thawed_by_us(self) -> bool {
        self.get(Self::THAWS) == 1
    }

    pub(crate) fn thaw_has_begun(self) -> bool {
        self.get(Self::THAW_BEGAN) != 0
    }

    pub(crate) fn freeze_error(self) -> Option<Errno> {
        Self::errno(self.get(Self::FREEZE_ERRNO))
    }

    pub(crate) fn thaw_error(self) -> Option<Errno> {
        Self::errno(self.get(Self::THAW_ERRNO))
    }

    fn errno(word: u64) -> Option<Errno> {
        i32::try_from(word).ok().filter(|errno| *errno != 0).map(Errno::from_raw)
    }

    pub(crate) fn times(self, index: usize) -> FileSystemTimes {
        FileSystemTimes {
            index,
            freeze_began_ns: self.get(Self::FREEZE_BEGAN),
            frozen_ns: self.get(Self::FROZEN),
            thaw_began_ns: self.get(Self::THAW_BEGAN),
            thawed_ns: self.get(Self::THAWED),
        }
    }
}

/// Nanoseconds on `CLOCK_BOOTTIME`, which goes on while the machine sleeps.
pub(crate) fn boottime_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frozen(board: &Board) -> Slot<'_> {
        let slot = board.slot(0);
        slot.freeze_begins(1);
        slot.freeze_ended(2, Ok(()));
        slot
    }

    #[test]
    fn einval_on_a_frozen_file_system_means_that_somebody_else_thawed_it() {
        let board = Board::create(1).unwrap();
        let slot = frozen(&board);
        slot.thaw_ended(3, Err(Errno::EINVAL));
        assert_eq!(slot.state(), State::Idle);
        assert!(!slot.thawed_by_us());
    }

    #[test]
    fn einval_while_a_freeze_is_in_flight_does_not_mean_safe() {
        let board = Board::create(1).unwrap();
        let slot = board.slot(0);
        slot.freeze_begins(1);
        slot.thaw_ended(2, Err(Errno::EINVAL));
        assert_eq!(slot.state(), State::Freezing);
    }

    #[test]
    fn a_thaw_that_overtakes_the_news_of_the_freeze_is_still_ours() {
        let board = Board::create(1).unwrap();
        let slot = board.slot(0);
        slot.freeze_begins(1);
        slot.thaw_ended(2, Ok(()));
        slot.freeze_ended(3, Ok(()));
        slot.thaw_ended(4, Err(Errno::EINVAL));
        assert_eq!(slot.state(), State::Idle);
        assert!(slot.thawed_by_us());
    }

    #[test]
    fn a_thaw_that_fails_leaves_the_file_system_ours() {
        let board = Board::create(1).unwrap();
        let slot = frozen(&board);
        slot.thaw_ended(3, Err(Errno::EIO));
        assert_eq!(slot.state(), State::Frozen);
        assert_eq!(slot.thaw_error(), Some(Errno::EIO));
    }

    #[test]
    fn the_first_reason_to_give_up_stays() {
        let board = Board::create(0).unwrap();
        board.abort(Abort::SentinelLost);
        board.abort(Abort::DeadlinePassed);
        assert_eq!(board.aborted(), Some(Abort::SentinelLost));
    }

    #[test]
    fn another_freeze_starts_from_a_clean_slot() {
        let board = Board::create(1).unwrap();
        let slot = frozen(&board);
        slot.thaw_ended(3, Ok(()));
        let slot = frozen(&board);
        assert_eq!(slot.times(0).thawed_ns, 0);
        slot.thaw_ended(5, Ok(()));
        assert!(slot.thawed_by_us());
    }
}
