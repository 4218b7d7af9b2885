//! The cells, generated from lists: places, faults, processes, file systems.

use nix::sys::signal::Signal;
use stillpoint::failpoint::ALL;

use super::cell::{Cell, Fault, HookFault, Kind, Own, World};
use super::processes::Who;
use crate::lab::FsType;
use crate::random::Random;

/// Types of file systems.
const TYPES: [FsType; 3] = [FsType::Ext4, FsType::Xfs, FsType::Btrfs];
/// How many at once.
const COUNTS: [usize; 3] = [1, 4, 16];

/// Who is killed together, from outside.
const SETS: [&[Who]; 7] = [
    &[Who::Agent],
    &[Who::Guard],
    &[Who::Sentinel],
    &[Who::Agent, Who::Guard],
    &[Who::Agent, Who::Sentinel],
    &[Who::Guard, Who::Sentinel],
    &[Who::Agent, Who::Guard, Who::Sentinel],
];

/// Signals beside SIGKILL.
const SIGNALS: [Signal; 6] = [
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGSEGV,
    Signal::SIGABRT,
    Signal::SIGBUS,
    Signal::SIGSTOP,
];

/// Places at which those are sent.
const KEY_PLACES: [&str; 8] = [
    "agent.rehearse.before",
    "agent.quiesce.after",
    "guard.freeze.before",
    "guard.freeze.after",
    "agent.snapshot.before",
    "guard.thaw.before",
    "guard.thaw.after",
    "agent.release.before",
];

/// Errors that a place can return.
const ERRORS: [(&str, &str, u32); 16] = [
    ("guard.freeze.before", "EBUSY", 1),
    ("guard.freeze.before", "EIO", 1),
    ("guard.freeze.before", "EPERM", 1),
    ("guard.freeze.before", "EOPNOTSUPP", 1),
    ("guard.freeze.before", "ENOMEM", 0),
    ("guard.rehearse.before", "EBUSY", 1),
    ("guard.rehearse.before", "EIO", 0),
    ("guard.rehearse.before", "EPERM", 0),
    ("guard.sync.before", "EIO", 1),
    ("guard.sync.before", "ENOSPC", 0),
    ("guard.thaw.before", "EIO", 3),
    ("guard.thaw.before", "EINTR", 1),
    ("guard.journal.before", "ENOSPC", 1),
    ("guard.journal.before", "ENOSPC", 0),
    ("agent.journal.before", "ENOSPC", 0),
    ("agent.journal.before", "EMFILE", 1),
];

/// What others do, and the place at which they do it.
const WORLD: [(&str, World); 16] = [
    ("", World::FrozenBefore),
    ("agent.quiesce.after", World::FrozenByOther),
    ("agent.snapshot.before", World::ThawedByOther),
    ("agent.snapshot.before", World::LazyUnmount),
    ("agent.snapshot.before", World::RemountReadOnly),
    ("", World::WriteInFlightEarly),
    ("agent.quiesce.after", World::WriteInFlight),
    ("agent.quiesce.after", World::WriteInFlightAlone),
    ("agent.quiesce.after", World::OuterFrozen),
    ("", World::DirtyData),
    ("", World::Writers),
    ("", World::MappedWriters),
    ("", World::JournalFull),
    ("", World::StateFull),
    ("agent.quiesce.after", World::Starved),
    ("agent.snapshot.before", World::CgroupFrozen),
];

/// Limits of the run, on one kind of file systems.
const LIMITS: [World; 14] = [
    World::Descriptors(8),
    World::Descriptors(12),
    World::Descriptors(16),
    World::Descriptors(20),
    World::Descriptors(24),
    World::Descriptors(28),
    World::Descriptors(32),
    World::Descriptors(40),
    World::AddressSpace(64),
    World::AddressSpace(256),
    World::AddressSpace(1024),
    World::Memory(8),
    World::Memory(24),
    World::Memory(48),
];

const PHASES: [&str; 5] = ["prepare", "pre-freeze", "confirm", "post-thaw", "finish"];
const HOOK_FAULTS: [&str; 5] = ["fail application words", "trap", "loop", "eat", "sleep 60000"];

const OK: &str = "exit 0";
/// Scripts: a name, what runs before the freeze, what runs after the thaw.
const SCRIPTS: [(&str, &str, &str); 12] = [
    ("pre-exit-1", "exit 1", OK),
    ("pre-exit-137", "exit 137", OK),
    ("pre-hangs", "sleep 100", OK),
    ("pre-ignores-term", "trap '' TERM INT HUP; sleep 100", OK),
    (
        "pre-forks",
        "f() { sleep 100 & f; }; for i in 1 2 3 4 5 6 7 8; do sleep 100 & done; sleep 100",
        OK,
    ),
    ("pre-setsid", "setsid sleep 100 & setsid sh -c 'sleep 100' & exit 0", OK),
    ("pre-floods", "yes | head -c 100000000; exit 0", OK),
    ("pre-closes-output", "exec >&- 2>&-; exit 0", OK),
    ("pre-writes-frozen", "(while :; do date >@MOUNT@/script; done) & exit 0", OK),
    ("post-exit-1", OK, "exit 1"),
    ("post-hangs", OK, "sleep 100"),
    ("post-floods", OK, "yes | head -c 100000000; exit 0"),
];

/// Everything, in the order of a seed, kind after kind.
#[must_use]
pub fn full(seed: u64) -> Vec<Cell> {
    let mut random = Random::new(seed);
    let kinds = kinds();
    let mut cells = Vec::new();
    // Cheap, and the promise with a number: SIGKILL at every place, on every kind.
    for kind in &kinds {
        for place in ALL {
            cells.push(cell(*kind, place, &mut random, Fault::Own(Own::Kill)));
        }
    }
    // Every other fault at every place, on kinds that go round.
    let mut round = Round::new(&kinds, &mut random);
    for place in ALL {
        for own in Own::ALL.into_iter().filter(|own| *own != Own::Kill) {
            cells.push(cell(round.next(), place, &mut random, Fault::Own(own)));
        }
        if all_are_there(place) {
            for set in SETS {
                let fault = Fault::Signal(set.to_vec(), Signal::SIGKILL);
                cells.push(cell(round.next(), place, &mut random, fault));
            }
            cells.push(cell(round.next(), place, &mut random, Fault::CgroupKill));
        }
    }
    for place in KEY_PLACES {
        for who in [Who::Agent, Who::Guard, Who::Sentinel] {
            for signal in SIGNALS {
                let fault = Fault::Signal(vec![who], signal);
                cells.push(cell(round.next(), place, &mut random, fault));
            }
        }
    }
    for kind in &kinds {
        for (place, errno, times) in ERRORS {
            cells.push(cell(*kind, place, &mut random, Fault::Error(errno, times)));
        }
        for (place, world) in WORLD {
            cells.push(cell(*kind, place, &mut random, Fault::World(world)));
        }
        // What only the journal and the next start can undo.
        for place in ["agent.snapshot.before", "guard.thaw.before"] {
            let everybody = vec![Who::Agent, Who::Guard, Who::Sentinel];
            let fault = Fault::Signal(everybody, Signal::SIGKILL);
            cells.push(cell(*kind, place, &mut random, fault));
        }
    }
    cells.extend(once_each(&mut round, &mut random));
    cells.extend(locks(&mut random));
    in_order(cells, &kinds, &mut random)
}

/// With a database: killed at every place, its sessions cut at those at which they count.
fn locks(random: &mut Random) -> Vec<Cell> {
    let kind = Kind { fs_type: FsType::Ext4, count: 2, server: true };
    let mut cells = Vec::new();
    for place in ALL {
        cells.push(cell(kind, place, random, Fault::Own(Own::Kill)));
        if all_are_there(place) {
            for set in SETS {
                let fault = Fault::Signal(set.to_vec(), Signal::SIGKILL);
                cells.push(cell(kind, place, random, fault));
            }
        }
    }
    for place in [
        "agent.quiesce.before",
        "agent.quiesce.after",
        "agent.snapshot.before",
        "agent.confirm.before",
        "agent.release.before",
    ] {
        cells.push(cell(kind, place, random, Fault::World(World::SessionsCut)));
    }
    // An agent that is stuck and lives keeps its session: the server ends that.
    for (place, own) in [
        ("agent.quiesce.after", Own::Stop),
        ("agent.snapshot.before", Own::Deadlock),
        ("agent.confirm.before", Own::Spin),
        ("agent.release.before", Own::Stop),
    ] {
        cells.push(cell(kind, place, random, Fault::Own(own)));
    }
    cells
}

/// Every place and every fault at least once, on three kinds; a few minutes.
#[must_use]
pub fn bounded(seed: u64) -> Vec<Cell> {
    let mut random = Random::new(seed);
    let kinds = [(FsType::Ext4, 4), (FsType::Xfs, 1), (FsType::Btrfs, 4)]
        .map(|(fs_type, count)| Kind { fs_type, count, server: false });
    let mut round = Round::new(&kinds, &mut random);
    let mut cells = Vec::new();
    // Those that wait for a deadline are few: there are as many of them as of the others otherwise.
    let mut faults = Own::ALL.into_iter().cycle();
    for (number, place) in ALL.iter().enumerate() {
        let own = if number % 2 == 0 { Own::Kill } else { faults.next().unwrap_or(Own::Kill) };
        cells.push(cell(round.next(), place, &mut random, Fault::Own(own)));
    }
    for (set, place) in SETS.iter().zip(KEY_PLACES.iter().cycle().skip(1)) {
        let fault = Fault::Signal(set.to_vec(), Signal::SIGKILL);
        cells.push(cell(round.next(), place, &mut random, fault));
    }
    cells.push(cell(round.next(), "agent.snapshot.before", &mut random, Fault::CgroupKill));
    for (signal, place) in SIGNALS.iter().zip(KEY_PLACES.iter().cycle()) {
        let who = [Who::Agent, Who::Guard, Who::Sentinel][random.below(3)];
        let fault = Fault::Signal(vec![who], *signal);
        cells.push(cell(round.next(), place, &mut random, fault));
    }
    for (place, errno, times) in ERRORS {
        cells.push(cell(round.next(), place, &mut random, Fault::Error(errno, times)));
    }
    for (place, world) in WORLD {
        cells.push(cell(round.next(), place, &mut random, Fault::World(world)));
    }
    let mut others = once_each(&mut round, &mut random);
    random.shuffle(&mut others);
    others.truncate(20);
    cells.extend(others);
    let mut locks = locks(&mut random);
    random.shuffle(&mut locks);
    let (cut, mut killed): (Vec<_>, Vec<_>) =
        locks.into_iter().partition(|cell| match cell.fault {
            Fault::World(World::SessionsCut) => true,
            Fault::Own(own) => own.sticks(),
            _ => false,
        });
    killed.truncate(15);
    cells.extend(cut.into_iter().chain(killed));
    in_order(cells, &kinds, &mut random)
}

fn once_each(round: &mut Round, random: &mut Random) -> Vec<Cell> {
    let limits = LIMITS.map(Fault::World).into_iter();
    let hooks = PHASES
        .into_iter()
        .flat_map(|phase| HOOK_FAULTS.map(|command| Fault::Hook(HookFault { phase, command })));
    let scripts = SCRIPTS.map(|(name, pre, post)| Fault::Script(name, pre, post));
    limits.chain(hooks).chain(scripts).map(|fault| cell(round.next(), "", random, fault)).collect()
}

fn kinds() -> Vec<Kind> {
    let of = |fs_type| COUNTS.map(|count| Kind { fs_type, count, server: false });
    TYPES.into_iter().flat_map(of).collect()
}

/// What is reached several times in a run, for each file system and in rehearsal and freeze, is met
/// the first or a later time.
fn cell(kind: Kind, place: &'static str, random: &mut Random, fault: Fault) -> Cell {
    let times = match place {
        "guard.thaw.before" | "guard.thaw.after" => 2 * kind.count,
        "guard.journal.before" | "guard.journal.after" => 3,
        "guard.sync.before"
        | "guard.sync.after"
        | "guard.rehearse.before"
        | "guard.rehearse.after"
        | "guard.freeze.before"
        | "guard.freeze.after" => kind.count,
        _ => 1,
    };
    let nth = match fault {
        Fault::Error(..) if place == "guard.thaw.before" => kind.count + 1,
        Fault::Error(..) => 1,
        // The thaw itself, not that of the rehearsal.
        Fault::Signal(..) if place.starts_with("guard.thaw") => {
            kind.count + 1 + random.below(kind.count)
        }
        _ => 1 + random.below(times),
    };
    Cell { kind, place, nth, fault }
}

/// Agent, guard and sentinel are all running when this place is reached.
fn all_are_there(place: &str) -> bool {
    let armed = ["sync", "rehearse", "quiesce", "freeze", "snapshot", "thaw", "confirm", "release"];
    match place.split('.').collect::<Vec<_>>()[..] {
        ["agent", step, _] => armed.contains(&step) || place == "agent.arm.after",
        ["guard", step, _] => step != "arm" && place != "guard.disarm.after",
        _ => place == "sentinel.watch.before",
    }
}

fn in_order(mut cells: Vec<Cell>, kinds: &[Kind], random: &mut Random) -> Vec<Cell> {
    random.shuffle(&mut cells);
    // Those with a server come last.
    cells.sort_by_key(|cell| {
        kinds.iter().position(|kind| *kind == cell.kind).unwrap_or(kinds.len())
    });
    let mut seen = std::collections::BTreeSet::new();
    cells.retain(|cell| seen.insert(cell.id()));
    cells
}

/// Kinds, one after the other, beginning anywhere; the largest one less often, for it takes longer.
#[derive(Debug)]
struct Round {
    kinds: Vec<Kind>,
    next: usize,
}

impl Round {
    fn new(kinds: &[Kind], random: &mut Random) -> Self {
        let small = kinds.iter().filter(|kind| kind.count < 16);
        let kinds: Vec<_> = small.clone().chain(small).chain(kinds).copied().collect();
        let next = random.below(kinds.len());
        Self { kinds, next }
    }

    fn next(&mut self) -> Kind {
        self.next += 1;
        self.kinds[self.next % self.kinds.len()]
    }
}

/// What cannot be done on a machine like this one, and where it is done.
pub const NOT_RUNNABLE: &[(&str, &str)] = &[
    ("dead-storage", "needs device mapper (dm-flakey, dm-suspend): make test-vm"),
    ("lvm", "needs device mapper: make test-vm"),
    (
        "clock-jump",
        "the clock is the machine's, and a time namespace cannot be moved once it runs: make test-vm",
    ),
    ("root-frozen", "the root file system is never frozen here: make test-vm"),
    ("power-cut", "needs a machine of its own: make test-vm"),
    ("unit-stop-restart", "needs systemd as PID 1: make test-vm"),
    ("machine-suspended", "needs a machine of its own: make test-vm"),
];

#[cfg(test)]
mod tests {
    use super::{ALL, Own, bounded, full};
    use crate::faults::cell::Fault;

    #[test]
    fn the_same_seed_gives_the_same_cells() {
        assert_eq!(full(7), full(7));
        assert_ne!(full(7), full(8));
    }

    #[test]
    fn every_place_meets_every_fault_of_a_process_and_the_bounded_part_has_each_once() {
        let full = full(1);
        for place in ALL {
            for own in Own::ALL {
                let met = full.iter().any(|c| c.place == *place && c.fault == Fault::Own(own));
                assert!(met, "{place} {own:?}");
            }
        }
        let bounded = bounded(1);
        assert!(ALL.iter().all(|place| bounded.iter().any(|cell| cell.place == *place)));
        let has = |own| bounded.iter().any(|cell| cell.fault == Fault::Own(own));
        assert!(Own::ALL.into_iter().all(has));
    }
}
