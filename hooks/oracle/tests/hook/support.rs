//! A fake host with the modelled database behind its program `sqlplus`.

#[path = "../../../../tests/src/sqlplus/model.rs"]
pub mod model;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use stillpoint_hook::process::{Error, Output};
use stillpoint_hook::testing::FakeHost;
use stillpoint_hook::{Frozen, Hook, HookError, MetadataEntry, Outcome, Phase, Plan};
use stillpoint_hook_oracle::Oracle;

pub use model::{BEGIN_BACKUP, Database, END_BACKUP, Ending, Fault, What};

/// A host, a database, and the hook between them.
pub struct Lab {
    pub host: FakeHost,
    pub database: Rc<RefCell<Database>>,
    pub now: Rc<Cell<i64>>,
    pub hook: Oracle,
}

/// What the stand-in printed, and the clock that it sees.
struct World {
    printed: String,
    now: i64,
    paused: u64,
}

impl model::World for World {
    fn now(&self) -> i64 {
        self.now
    }
    fn pause(&mut self, milliseconds: u64) {
        self.paused += milliseconds;
    }
    fn keep(&mut self, _database: &Database) {}
    fn print(&mut self, text: &str) {
        self.printed.push_str(text);
    }
}

pub fn database() -> Database {
    Database::new("ORCL", "/data", "/redo", "/archive")
}

impl Lab {
    pub fn new(database: Database) -> Self {
        let database = Rc::new(RefCell::new(database));
        let now = Rc::new(Cell::new(1_700_000_500));
        let host = FakeHost::new();
        let (server, clock) = (Rc::clone(&database), Rc::clone(&now));
        host.program("sqlplus", move |run| {
            let script = String::from_utf8(run.stdin.clone().unwrap_or_default()).unwrap();
            let mut world = World { printed: String::new(), now: clock.get(), paused: 0 };
            let ending = server.borrow_mut().run(&run.args, &script, &mut world);
            let late = Duration::from_millis(world.paused) > run.timeout.unwrap_or(Duration::MAX);
            let output = |exit_code, signal| Output {
                exit_code,
                signal,
                stdout: world.printed.clone().into_bytes(),
                stderr: Vec::new(),
                truncated: false,
            };
            match ending {
                Ending::Hang => Err(Error::Timeout(output(None, None))),
                _ if late => Err(Error::Timeout(output(None, None))),
                Ending::Exit(code) => Ok(output(Some(code), None)),
                Ending::Signal(signal) => Ok(output(None, Some(signal))),
            }
        });
        Lab { host, database, now, hook: Oracle::default() }
    }

    pub fn fault(&self, at: &str, after: bool, what: What, times: u32) {
        let fault = Fault { at: at.into(), after, what, skip: 0, times };
        self.database.borrow_mut().faults.push(fault);
    }

    pub fn prepare(&mut self, settings: &str) -> Result<Plan, HookError> {
        self.host.begin(Phase::Prepare, Duration::from_secs(30));
        self.hook.prepare(settings)
    }

    pub fn pre_freeze(&mut self) -> Result<Frozen, HookError> {
        self.host.begin(Phase::PreFreeze, Duration::from_secs(20));
        self.hook.pre_freeze()
    }

    pub fn confirm(&mut self) -> Result<(), HookError> {
        self.host.begin(Phase::Confirm, Duration::from_secs(5));
        self.hook.confirm()
    }

    pub fn post_thaw(&mut self, outcome: Outcome) -> Result<Vec<MetadataEntry>, HookError> {
        self.host.begin(Phase::PostThaw, Duration::from_secs(10));
        self.hook.post_thaw(outcome)
    }

    pub fn finish(&mut self) -> Result<(), HookError> {
        self.host.begin(Phase::Finish, Duration::from_secs(10));
        self.hook.finish()
    }

    /// The instance is gone, as after the death of the agent; what is in kv is there.
    pub fn die(&mut self) {
        self.hook = Oracle::default();
    }

    /// Statements that changed something, with what came of them.
    pub fn log(&self) -> Vec<String> {
        self.database.borrow().log.clone()
    }

    pub fn in_backup_mode(&self) -> bool {
        self.database.borrow().in_backup_mode()
    }

    pub fn done(&self, statement: &str) -> usize {
        self.database.borrow().done(statement)
    }
}

/// Ready to begin.
pub fn prepared() -> Lab {
    let mut lab = Lab::new(database());
    lab.prepare("{}").unwrap();
    lab
}

/// In backup mode.
pub fn held() -> Lab {
    let mut lab = prepared();
    lab.pre_freeze().unwrap();
    lab
}

pub fn code(error: &HookError) -> &str {
    match error {
        HookError::Application(error) => &error.code,
        HookError::Busy(_) => "busy",
        HookError::Timeout(_) => "timeout",
        HookError::Denied(_) => "denied",
        HookError::InvalidSettings(error) => &error.pointer,
        HookError::NotApplicable(_) => "not-applicable",
        HookError::Internal(_) => "internal",
    }
}
