//! A fake host, so that a hook's logic is tested natively with `cargo test`.
//!
//! Answers are scripted statement by statement, on a fake clock; the order of what the hook did is
//! recorded in words. The hook's code is the same as in wasm.
//!
//! ```
//! use std::time::Duration;
//! use stillpoint_hook::sql::{Connection, Error};
//! use stillpoint_hook::testing::{Answer, FakeHost};
//!
//! let host = FakeHost::new();
//! host.on("FLUSH TABLES WITH READ LOCK")
//!     .answers(Answer::error(1205, "HY000", "Lock wait timeout exceeded").after(Duration::from_secs(5)));
//! host.on("UNLOCK TABLES").answers(Answer::affected(0));
//!
//! let session = Connection::open("main")?;
//! let refused = session.execute("FLUSH TABLES WITH READ LOCK", &[], None);
//! assert_eq!(refused.unwrap_err().vendor_code(), Some(1205));
//! session.execute("UNLOCK TABLES", &[], None)?;
//! drop(session);
//!
//! assert_eq!(host.clock(), Duration::from_secs(5));
//! assert_eq!(host.order(), ["open 1 main", "1 FLUSH TABLES WITH READ LOCK", "1 UNLOCK TABLES", "close 1"]);
//! # Ok::<(), Error>(())
//! ```

mod answer;
mod scripted;
mod state;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

pub use answer::{Answer, ProgramRun, Statement};
pub(crate) use scripted::Scripted;
use state::State;

use crate::hook::Phase;
use crate::log::Level;
use crate::sql::{Engine, Value};

thread_local! {
    static INSTALLED: RefCell<Option<Rc<RefCell<State>>>> = const { RefCell::new(None) };
}

/// A line that the hook wrote.
#[derive(Clone, Debug, PartialEq)]
pub struct LogLine {
    /// Its level.
    pub level: Level,
    /// Its text.
    pub message: String,
    /// Its structured values.
    pub fields: Vec<(String, String)>,
}

/// The host of the hooks on this thread, as long as it lives.
///
/// At the start: one connection `main` to a MariaDB, phase `pre-freeze` with 60 s left, no program
/// granted, 64 KiB of key-value state. A statement that has no answer is `denied`, as one that is
/// not granted.
pub struct FakeHost {
    state: Rc<RefCell<State>>,
}

impl std::fmt::Debug for FakeHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeHost").field("order", &self.order()).finish_non_exhaustive()
    }
}

impl FakeHost {
    /// Installs a host on this thread, in place of one that was there.
    #[must_use]
    pub fn new() -> Self {
        let state = Rc::new(RefCell::new(State::new()));
        INSTALLED.with(|installed| *installed.borrow_mut() = Some(Rc::clone(&state)));
        FakeHost { state }
    }

    /// Grants a connection, or changes what kind of server is behind one.
    pub fn connection(&self, name: &str, engine: Engine, version: &str) {
        self.state.borrow_mut().set_connection(name, engine, version);
    }

    /// From now on `open` fails for this connection, as when its server is down.
    pub fn refuse(&self, name: &str, why: &str) {
        self.state.borrow_mut().refuse(name, why);
    }

    /// Scripts the answers to a statement, in order; the last one is repeated. Scripting it again
    /// starts anew. White space is folded, as the real host does.
    pub fn on(&self, statement: &str) -> Script<'_> {
        let statement = state::fold(statement);
        self.state.borrow_mut().answers.insert(statement.clone(), Vec::new());
        Script { host: self, statement }
    }

    /// Puts a server behind all connections: it is asked first, and what it gives no answer to is
    /// answered by the script. For a server with a state of its own: who holds which lock. It is given
    /// the statement, and the numbers of the sessions that are open.
    pub fn serve(&self, server: impl FnMut(&Statement, &[u32]) -> Option<Answer> + 'static) {
        self.state.borrow_mut().server = Some(Box::new(server));
    }

    /// Grants a program: what it does is the closure's. It may give [`exited`], or an error such as
    /// `process::Error::Timeout`. As with the real host, none runs in `describe` and `validate`.
    pub fn program(
        &self,
        command: &str,
        run: impl FnMut(&ProgramRun) -> Result<crate::process::Output, crate::process::Error> + 'static,
    ) {
        let mut state = self.state.borrow_mut();
        state.programs.insert(command.into(), Box::new(run));
    }

    /// Begins a phase with this much time.
    pub fn begin(&self, phase: Phase, budget: Duration) {
        self.state.borrow_mut().begin(phase, budget);
    }

    /// Lets time pass outside the hook, as between `pre-freeze` and `confirm`.
    pub fn advance(&self, time: Duration) {
        self.state.borrow_mut().clock += time;
    }

    /// Ends a session from outside, as the server's `wait_timeout` or a `KILL` does. Sessions are
    /// numbered from 1, in the order of opening.
    pub fn kill(&self, session: u32) {
        self.state.borrow_mut().kill(session);
    }

    /// The operator asks to stop when the fake clock shows this.
    pub fn cancel_at(&self, clock: Duration) {
        self.state.borrow_mut().cancel_at = Some(clock);
    }

    /// What the fake clock shows: zero at the start; delays and sleeps move it.
    #[must_use]
    pub fn clock(&self) -> Duration {
        self.state.borrow().clock
    }

    /// What the hook did, in words: `open 1 main`, `1 UNLOCK TABLES`, `close 1`, `sleep 50ms`,
    /// `run mongosh --quiet`; and `killed 1` when a session was lost or timed out.
    #[must_use]
    pub fn order(&self) -> Vec<String> {
        self.state.borrow().order.clone()
    }

    /// Forgets the order so far.
    pub fn clear_order(&self) {
        self.state.borrow_mut().order.clear();
    }

    /// The statements so far, with the session's number and their parameters.
    #[must_use]
    pub fn statements(&self) -> Vec<Statement> {
        self.state.borrow().statements.clone()
    }

    /// The numbers of the sessions that are open now.
    #[must_use]
    pub fn open_sessions(&self) -> Vec<u32> {
        self.state.borrow().open_sessions()
    }

    /// The lines that the hook wrote.
    #[must_use]
    pub fn log(&self) -> Vec<LogLine> {
        self.state.borrow().log.clone()
    }

    /// The key-value state.
    #[must_use]
    pub fn kv(&self) -> BTreeMap<String, Vec<u8>> {
        self.state.borrow().kv.clone()
    }

    /// How many bytes of keys and values are granted.
    pub fn kv_limit(&self, bytes: usize) {
        self.state.borrow_mut().kv_limit = bytes;
    }
}

impl Default for FakeHost {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for FakeHost {
    fn drop(&mut self) {
        INSTALLED.with(|installed| {
            let mut installed = installed.borrow_mut();
            if installed.as_ref().is_some_and(|it| Rc::ptr_eq(it, &self.state)) {
                *installed = None;
            }
        });
    }
}

/// The script of one statement.
#[derive(Debug)]
pub struct Script<'a> {
    host: &'a FakeHost,
    statement: String,
}

impl Script<'_> {
    /// The next answer; the last one is repeated.
    #[expect(clippy::return_self_not_must_use, reason = "a script of one answer ends here")]
    pub fn answers(self, answer: Answer) -> Self {
        let mut state = self.host.state.borrow_mut();
        let answers = state.answers.entry(self.statement.clone()).or_default();
        answers.push(answer);
        drop(state);
        self
    }
}

/// A text value, for scripted rows.
#[must_use]
pub fn text(text: &str) -> Value {
    text.into()
}

/// How a program ended, for [`FakeHost::program`]: by itself, with this exit code and standard output.
#[must_use]
pub fn exited(code: i32, stdout: &str) -> crate::process::Output {
    crate::process::Output {
        exit_code: Some(code),
        signal: None,
        stdout: stdout.into(),
        stderr: Vec::new(),
        truncated: false,
    }
}
