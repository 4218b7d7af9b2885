//! The host of a component: each call is an import.

use crate::bindings::stillpoint::hook::{kv, log, process, run, sql, types};
use crate::host::{Host, Session};

/// The imports of this component.
pub(crate) struct Imports;

impl Host for Imports {
    type Session = sql::Connection;

    fn open(name: &str) -> Result<sql::Connection, sql::Error> {
        sql::open(name)
    }
    fn granted() -> Vec<String> {
        sql::granted()
    }

    fn run_program(
        command: &str,
        args: &[String],
        stdin: Option<&[u8]>,
        timeout: Option<u64>,
    ) -> Result<process::Output, process::Error> {
        process::run(command, args, stdin, timeout)
    }

    fn kv_get(key: &str) -> Result<Option<Vec<u8>>, kv::Error> {
        kv::get(key)
    }
    fn kv_set(key: &str, value: &[u8]) -> Result<(), kv::Error> {
        kv::set(key, value)
    }
    fn kv_delete(key: &str) -> Result<(), kv::Error> {
        kv::delete(key)
    }
    fn kv_keys() -> Result<Vec<String>, kv::Error> {
        kv::keys()
    }

    fn info() -> run::Info {
        run::get_info()
    }
    fn phase() -> types::Phase {
        run::current_phase()
    }
    fn remaining() -> u64 {
        run::remaining()
    }
    fn cancelled() -> bool {
        run::cancelled()
    }
    fn sleep(nanoseconds: u64) {
        run::sleep(nanoseconds);
    }

    fn log(level: log::Level, message: &str, fields: &[(String, String)]) {
        log::write(level, message, fields);
    }
}

impl Session for sql::Connection {
    fn info(&self) -> sql::ServerInfo {
        self.info()
    }
    fn query(
        &self,
        statement: &str,
        params: &[sql::Value],
        timeout: Option<u64>,
    ) -> Result<sql::RowSet, sql::Error> {
        self.query(statement, params, timeout)
    }
    fn execute(
        &self,
        statement: &str,
        params: &[sql::Value],
        timeout: Option<u64>,
    ) -> Result<u64, sql::Error> {
        self.execute(statement, params, timeout)
    }
    fn session_id(&self) -> Result<String, sql::Error> {
        self.session_id()
    }
    fn is_alive(&self) -> bool {
        self.is_alive()
    }
}
