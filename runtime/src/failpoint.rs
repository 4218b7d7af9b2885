//! Named places, before and after each step, at which a test can kill, stop or fail the process.
//!
//! They are there only with the cargo feature `failpoints`, which no release has: without it nothing
//! but [`ALL`] is compiled, and that is in no program. They are armed by the environment,
//! `STILLPOINT_FAILPOINTS="NAME=[N:][M*]ACTION[+ACTION…];…"`, which guard and sentinel inherit: from the
//! N-th time on that the place is reached, M times; all the actions, one after the other.
//!
//! | action | what the thread that reaches the place does |
//! |---|---|
//! | `kill`, `stop` | SIGKILL, SIGSTOP for its own process |
//! | `segv`, `abort` | a write to an address that is not mapped; `abort(3)` |
//! | `panic`, `exit` | a panic; the process ends with status 77 |
//! | `deadlock` | waits for ever for a lock that it holds itself |
//! | `spin` | computes for ever |
//! | `oom` | uses memory until somebody ends it; for a cgroup with a limit |
//! | `late(MS)` | sleeps |
//! | `pause(DIR)` | writes its pid into the FIFO `DIR/NAME.at`, then waits until `DIR/NAME.go` is written to; once |
//! | `error(ERRNO)` | fails there, where the place can fail: `error(EIO)` |
//! | `skip` | leaves out what the place stands for: only those in [`BREAKS`] |

/// Every place: `<process>.<step>.<before|after>`. Tests are generated from this list.
///
/// `freeze`, `rehearse`, `sync` and `thaw` of guard and sentinel are per file system, around the
/// system call; those of the agent are the steps of the run. `journal` is every record written.
pub const ALL: &[&str] = &[
    "agent.plan.before",
    "agent.plan.after",
    "agent.prepare.before",
    "agent.prepare.after",
    "agent.flush.before",
    "agent.flush.after",
    "agent.arm.before",
    "agent.arm.after",
    "agent.sync.before",
    "agent.sync.after",
    "agent.rehearse.before",
    "agent.rehearse.after",
    "agent.quiesce.before",
    "agent.quiesce.after",
    "agent.freeze.before",
    "agent.freeze.after",
    "agent.snapshot.before",
    "agent.snapshot.after",
    "agent.thaw.before",
    "agent.thaw.after",
    "agent.confirm.before",
    "agent.confirm.after",
    "agent.release.before",
    "agent.release.after",
    "agent.disarm.before",
    "agent.disarm.after",
    "agent.settle.before",
    "agent.settle.after",
    "agent.journal.before",
    "agent.journal.after",
    "guard.arm.before",
    "guard.arm.after",
    "guard.sync.before",
    "guard.sync.after",
    "guard.announce.before",
    "guard.announce.after",
    "guard.rehearse.before",
    "guard.rehearse.after",
    "guard.freeze.before",
    "guard.freeze.after",
    "guard.thaw.before",
    "guard.thaw.after",
    "guard.withdraw.before",
    "guard.withdraw.after",
    "guard.journal.before",
    "guard.journal.after",
    "guard.disarm.before",
    "guard.disarm.after",
    "sentinel.arm.before",
    "sentinel.arm.after",
    "sentinel.watch.before",
    "sentinel.watch.after",
    "sentinel.thaw.before",
    "sentinel.thaw.after",
    "sentinel.undo.before",
    "sentinel.undo.after",
];

/// What can be left out with `skip`, to see that the fault suites notice.
///
/// * `guard.sweep`: the guard thaws once and goes, instead of thawing until nothing is in flight.
/// * `guard.announce`: file systems are frozen before the journal says so.
/// * `guard.withdraw`: the journal says that nothing is frozen before it is thawed.
/// * `agent.confirm`: hooks are believed without being asked.
pub const BREAKS: &[&str] = &["guard.sweep", "guard.announce", "guard.withdraw", "agent.confirm"];

/// The variable of the environment that arms them.
pub const VARIABLE: &str = "STILLPOINT_FAILPOINTS";

/// Gets to a place of [`ALL`] (without its process): an error if a test wants one there.
#[cfg(not(feature = "failpoints"))]
macro_rules! reach {
    ($place:expr) => {
        Ok::<(), nix::errno::Errno>(())
    };
}

/// Gets to a place of [`ALL`] (without its process): an error if a test wants one there.
#[cfg(feature = "failpoints")]
macro_rules! reach {
    ($place:expr) => {
        $crate::failpoint::armed::reach($place)
    };
}

/// True if a test wants this one of [`BREAKS`] (without its process) left out.
#[cfg(not(feature = "failpoints"))]
macro_rules! skips {
    ($what:expr) => {
        false
    };
}

/// True if a test wants this one of [`BREAKS`] (without its process) left out.
#[cfg(feature = "failpoints")]
macro_rules! skips {
    ($what:expr) => {
        $crate::failpoint::armed::skips($what)
    };
}

/// A step of the agent begins, or has ended.
#[cfg(not(feature = "failpoints"))]
macro_rules! reach_step {
    ($step:expr, $edge:literal) => {};
}

/// A step of the agent begins, or has ended.
#[cfg(feature = "failpoints")]
macro_rules! reach_step {
    ($step:expr, $edge:literal) => {
        $crate::failpoint::armed::reach_step($step, $edge)
    };
}

pub(crate) use {reach, reach_step, skips};

#[cfg(feature = "failpoints")]
pub(crate) mod armed {
    //! What there is of it in test builds.

    use std::fs;
    use std::io::{Read, Write};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Mutex, OnceLock, PoisonError};
    use std::thread;
    use std::time::Duration;

    use nix::errno::Errno;
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    use super::{ALL, BREAKS, VARIABLE};
    use crate::sequence::Step;

    /// The `oom` action ends by itself after this much: it was not in a cgroup with a limit.
    const MOST_MEMORY: usize = 1 << 30;
    /// Exit status of the `exit` action.
    const EXIT_STATUS: i32 = 77;

    /// Looked at before anything else: a process that nobody armed does no more than this.
    static ARMED: AtomicBool = AtomicBool::new(false);
    static PROCESS: OnceLock<&'static str> = OnceLock::new();

    /// Arms this process, which is the `agent`, a `guard` or a `sentinel`, from its environment.
    #[expect(clippy::print_stderr, clippy::exit, reason = "a test that is written wrong ends here")]
    pub(crate) fn begin(process: &'static str) {
        let Ok(plan) = std::env::var(VARIABLE) else { return };
        let _ = PROCESS.set(process);
        for entry in plan.split(';').map(str::trim).filter(|entry| !entry.is_empty()) {
            if let Err(problem) = arm(entry) {
                eprintln!("{VARIABLE}: {entry}: {problem}");
                std::process::exit(2);
            }
        }
        ARMED.store(true, Ordering::SeqCst);
    }

    fn arm(entry: &str) -> Result<(), String> {
        let (name, action) = entry.split_once('=').ok_or("not NAME=ACTION")?;
        if !ALL.contains(&name) && !BREAKS.contains(&name) {
            return Err("no such place".to_owned());
        }
        let (earlier, action) = match action.split_once(':') {
            Some((n, action)) => (n.parse::<usize>().map_err(|e| e.to_string())?, action),
            None => (1, action),
        };
        let (times, action) = match action.split_once('*') {
            Some((times, action)) => (format!("{times}*"), action),
            None if action.starts_with("pause") => ("1*".to_owned(), action),
            None => (String::new(), action),
        };
        // `fail` counts; what is done is ours.
        let earlier = if earlier > 1 { format!("{}*off->", earlier - 1) } else { String::new() };
        let argument = action.replace('(', " ").replace(')', "");
        fail::cfg(name, &format!("{earlier}{times}return({argument})"))
    }

    pub(crate) fn reach(place: &str) -> Result<(), Errno> {
        if !ARMED.load(Ordering::Relaxed) {
            return Ok(());
        }
        let name = format!("{}.{place}", PROCESS.get().copied().unwrap_or("agent"));
        match action_at(&name) {
            Some(actions) => actions.split('+').try_for_each(|action| act(&name, action)),
            None => Ok(()),
        }
    }

    pub(crate) fn reach_step(step: Step, edge: &str) {
        if ARMED.load(Ordering::Relaxed) {
            // A step of the agent that fails does so for reasons of its own.
            let _ = reach(&format!("{step}.{edge}"));
        }
    }

    pub(crate) fn skips(what: &str) -> bool {
        ARMED.load(Ordering::Relaxed)
            && action_at(&format!("{}.{what}", PROCESS.get().copied().unwrap_or("agent")))
                .is_some_and(|action| action == "skip")
    }

    fn action_at(name: &str) -> Option<String> {
        fail::fail_point!(name, |action| action);
        None
    }

    #[expect(clippy::panic, clippy::exit, reason = "that is what was asked for")]
    fn act(name: &str, action: &str) -> Result<(), Errno> {
        let (what, argument) = action.split_once(' ').unwrap_or((action, ""));
        match what {
            "kill" => signal(Signal::SIGKILL),
            "stop" => signal(Signal::SIGSTOP),
            "segv" => crate::sys::failpoint::write_to_nowhere(),
            "abort" => std::process::abort(),
            "panic" => panic!("failpoint {name}"),
            "exit" => std::process::exit(EXIT_STATUS),
            "deadlock" => deadlock(),
            "spin" => spin(),
            "oom" => use_memory(),
            "late" => thread::sleep(Duration::from_millis(argument.parse().unwrap_or(0))),
            "pause" => pause(name, argument),
            "error" => return Err(errno_named(argument)),
            _ => {}
        }
        Ok(())
    }

    fn signal(signal: Signal) {
        let _ = kill(Pid::this(), signal);
        // It may take a moment to arrive at this thread.
        thread::sleep(Duration::from_millis(100));
    }

    fn deadlock() {
        static LOCK: Mutex<()> = Mutex::new(());
        let _held = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            thread::park();
        }
    }

    fn spin() {
        loop {
            std::hint::spin_loop();
        }
    }

    fn use_memory() {
        let mut all: Vec<Vec<u8>> = Vec::new();
        while all.len() << 20 < MOST_MEMORY {
            all.push(vec![1; 1 << 20]);
        }
        deadlock();
    }

    /// Synchronises with whoever made the two FIFOs.
    fn pause(name: &str, directory: &str) {
        let at = fs::OpenOptions::new().write(true).open(format!("{directory}/{name}.at"));
        if let Ok(mut at) = at {
            let _ = writeln!(at, "{}", std::process::id());
        }
        if let Ok(mut go) = fs::File::open(format!("{directory}/{name}.go")) {
            let _ = go.read(&mut [0]);
        }
    }

    fn errno_named(name: &str) -> Errno {
        match name {
            "ENOSPC" => Errno::ENOSPC,
            "EBUSY" => Errno::EBUSY,
            "EPERM" => Errno::EPERM,
            "EMFILE" => Errno::EMFILE,
            "ENOMEM" => Errno::ENOMEM,
            "EINVAL" => Errno::EINVAL,
            "EOPNOTSUPP" => Errno::EOPNOTSUPP,
            "EINTR" => Errno::EINTR,
            _ => Errno::EIO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ALL, BREAKS};
    use crate::sequence::Step;

    #[test]
    fn every_step_has_a_place_before_and_after_it() {
        for step in Step::ALL {
            for edge in ["before", "after"] {
                let name = format!("agent.{step}.{edge}");
                assert!(ALL.contains(&name.as_str()), "{name}");
            }
        }
    }

    #[test]
    fn every_place_has_its_other_edge_and_no_name_is_there_twice() {
        for name in ALL {
            let other = match name.strip_suffix("before") {
                Some(step) => format!("{step}after"),
                None => name.replace(".after", ".before"),
            };
            assert!(ALL.contains(&other.as_str()), "{other}");
            assert_eq!(ALL.iter().chain(BREAKS).filter(|n| *n == name).count(), 1, "{name}");
        }
    }
}
