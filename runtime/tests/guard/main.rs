//! Guard, sentinel, journal and probe on real file systems: loop images that are really frozen.
//! Needs root. `/` is never frozen, and a watchdog process thaws and cleans up whatever happens.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it talks to its other processes")]

mod agent;
mod cases;
mod faults;
mod lab;
mod measure;
mod watchdog;

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    stillpoint::guard::enter();
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some(agent::MODE) => return agent::run(),
        Some(watchdog::MODE) => return watchdog::run(&arguments[2..]),
        _ => {}
    }
    let mut arguments = Arguments::from_args();
    // Each case looks at processes and at a number of the whole machine.
    arguments.test_threads = Some(1);
    if !arguments.list && !nix::unistd::geteuid().is_root() {
        eprintln!("these tests freeze real file systems: run them as root");
        return ExitCode::FAILURE;
    }
    libtest_mimic::run(&arguments, cases::all()).exit_code()
}
