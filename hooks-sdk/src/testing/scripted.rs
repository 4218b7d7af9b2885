//! The native host: what is installed on this thread.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::answer::{ProgramRun, Rows, Statement};
use super::state::{State, fold};
use super::{INSTALLED, LogLine};
use crate::hook::Phase;
use crate::host::{Host, Session, nanoseconds};
use crate::{kv, log, process, run, sql};

const NO_HOST: &str = "no FakeHost on this thread: make one first, and keep it";

/// The native host.
pub(crate) struct Scripted;

/// A session at a fake server. It keeps its host, so that it may outlive the [`super::FakeHost`].
#[derive(Debug)]
pub(crate) struct FakeSession {
    state: HostState,
    number: u32,
}

struct HostState(Rc<RefCell<State>>);

impl std::fmt::Debug for HostState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FakeHost")
    }
}

fn installed() -> Option<Rc<RefCell<State>>> {
    INSTALLED.with(|installed| installed.borrow().clone())
}

fn with<T>(call: impl FnOnce(&mut State) -> T) -> Option<T> {
    installed().map(|state| call(&mut state.borrow_mut()))
}

impl Host for Scripted {
    type Session = FakeSession;

    fn open(name: &str) -> Result<FakeSession, sql::Error> {
        let Some(state) = installed() else {
            return Err(sql::Error::Unavailable(NO_HOST.into()));
        };
        let number = state.borrow_mut().open(name)?;
        Ok(FakeSession { state: HostState(state), number })
    }

    fn granted() -> Vec<String> {
        with(|state| state.granted()).unwrap_or_default()
    }

    fn run_program(
        command: &str,
        args: &[String],
        stdin: Option<&[u8]>,
        timeout: Option<u64>,
    ) -> Result<process::Output, process::Error> {
        let Some(state) = installed() else {
            return Err(process::Error::Failed(NO_HOST.into()));
        };
        let program = {
            let mut state = state.borrow_mut();
            if matches!(state.phase, Phase::Describe | Phase::Validate) {
                let text = "no program may run in this phase";
                return Err(process::Error::Denied(text.into()));
            }
            let words = [&[command.to_owned()], args].concat().join(" ");
            state.order.push(format!("run {words}"));
            state.programs.remove(command)
        };
        // Out of the state while it runs, so that it may use the host itself.
        let Some(mut program) = program else {
            let text = format!("program {command} is not granted");
            return Err(process::Error::Denied(text));
        };
        let output = program(&ProgramRun {
            args: args.to_vec(),
            stdin: stdin.map(Into::into),
            timeout: timeout.map(Duration::from_nanos),
        });
        let mut state = state.borrow_mut();
        state.programs.entry(command.into()).or_insert(program);
        output
    }

    fn kv_get(key: &str) -> Result<Option<Vec<u8>>, kv::Error> {
        check_key(key)?;
        with(|state| state.kv.get(key).cloned()).ok_or(kv::Error::Io(NO_HOST.into()))
    }

    fn kv_set(key: &str, value: &[u8]) -> Result<(), kv::Error> {
        check_key(key)?;
        with(|state| {
            if state.kv_bytes_with(key, value) > state.kv_limit {
                return Err(kv::Error::TooLarge);
            }
            state.kv.insert(key.into(), value.into());
            Ok(())
        })
        .ok_or(kv::Error::Io(NO_HOST.into()))?
    }

    fn kv_delete(key: &str) -> Result<(), kv::Error> {
        check_key(key)?;
        with(|state| drop(state.kv.remove(key))).ok_or(kv::Error::Io(NO_HOST.into()))
    }

    fn kv_keys() -> Result<Vec<String>, kv::Error> {
        with(|state| state.kv.keys().cloned().collect()).ok_or(kv::Error::Io(NO_HOST.into()))
    }

    fn info() -> run::Info {
        run::Info { run_id: "test-run".into(), hook_name: "test-hook".into(), dry_run: false }
    }

    fn phase() -> Phase {
        with(|state| state.phase).unwrap_or(Phase::Describe)
    }

    fn remaining() -> u64 {
        with(|state| nanoseconds(state.remaining())).unwrap_or(0)
    }

    fn cancelled() -> bool {
        with(|state| state.cancelled()).unwrap_or(false)
    }

    fn sleep(nanoseconds: u64) {
        with(|state| state.sleep(Duration::from_nanos(nanoseconds)));
    }

    fn log(level: log::Level, message: &str, fields: &[(String, String)]) {
        with(|state| {
            state.log.push(LogLine { level, message: message.into(), fields: fields.to_vec() });
        });
    }
}

impl FakeSession {
    fn run(
        &self,
        statement: &str,
        params: &[sql::Value],
        timeout: Option<u64>,
    ) -> Result<Rows, sql::Error> {
        let statement = Statement {
            session: self.number,
            text: fold(statement),
            params: params.to_vec(),
            timeout: timeout.map(Duration::from_nanos),
        };
        let state = &self.state.0;
        state.borrow_mut().begin_statement(&statement)?;
        // Out of the state while it answers, so that it may use the host itself.
        let server = state.borrow_mut().server.take();
        let mut answer = None;
        if let Some(mut server) = server {
            let open = state.borrow().open_sessions();
            answer = server(&statement, &open);
            state.borrow_mut().server.get_or_insert(server);
        }
        let mut state = state.borrow_mut();
        let answer = answer.or_else(|| state.scripted(&statement.text));
        state.end_statement(&statement, answer)
    }
}

impl Session for FakeSession {
    fn info(&self) -> sql::ServerInfo {
        self.state.0.borrow().session_info(self.number)
    }

    fn query(
        &self,
        statement: &str,
        params: &[sql::Value],
        timeout: Option<u64>,
    ) -> Result<sql::RowSet, sql::Error> {
        self.run(statement, params, timeout).map(|rows| rows.set)
    }

    fn execute(
        &self,
        statement: &str,
        params: &[sql::Value],
        timeout: Option<u64>,
    ) -> Result<u64, sql::Error> {
        self.run(statement, params, timeout).map(|rows| rows.affected)
    }

    /// 100 + the session's number.
    fn session_id(&self) -> Result<String, sql::Error> {
        Ok((100 + self.number).to_string())
    }

    fn is_alive(&self) -> bool {
        self.state.0.borrow().is_open(self.number)
    }
}

impl Drop for FakeSession {
    fn drop(&mut self) {
        self.state.0.borrow_mut().close(self.number);
    }
}

/// As the host: a key has 1 to 128 bytes.
fn check_key(key: &str) -> Result<(), kv::Error> {
    if (1..=128).contains(&key.len()) {
        return Ok(());
    }
    Err(kv::Error::Other(format!("a key has 1 to 128 bytes, not {}", key.len())))
}
