//! A **stand-in** for Oracle's `sqlplus`, for the tests of the hook `oracle`: see
//! `stillpoint_tests::sqlplus`. It is not Oracle's, and it reads nothing but the hook's scripts.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use stillpoint_tests::sqlplus::model::{Database, Ending, World};
use stillpoint_tests::sqlplus::{STATE_VARIABLE, StateFile};

struct Here {
    file: StateFile,
    failed: Option<anyhow::Error>,
}

impl World for Here {
    fn now(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_secs()).unwrap_or_default()
    }

    fn pause(&mut self, milliseconds: u64) {
        std::thread::sleep(Duration::from_millis(milliseconds));
    }

    fn keep(&mut self, database: &Database) {
        self.failed = self.file.write(database).err().or(self.failed.take());
    }

    fn print(&mut self, text: &str) {
        let mut stdout = std::io::stdout().lock();
        // Nobody may be reading any more.
        let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    }
}

fn main() -> Result<()> {
    let path = std::env::var_os(STATE_VARIABLE).context("no STAND_IN_DATABASE")?;
    let file = StateFile::at(PathBuf::from(path));
    let mut script = String::new();
    std::io::stdin().read_to_string(&mut script)?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut database = file.read()?;
    let mut here = Here { file, failed: None };
    let ending = database.run(&arguments, &script, &mut here);
    here.keep(&database);
    if let Some(error) = here.failed {
        return Err(error);
    }
    match ending {
        Ending::Exit(code) => std::process::exit(code),
        Ending::Hang => loop {
            std::thread::park();
        },
        Ending::Signal(signal) => {
            nix::sys::signal::raise(nix::sys::signal::Signal::try_from(signal)?)?;
            Ok(())
        }
    }
}
