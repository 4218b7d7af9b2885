//! A small server behind the fake host: it knows who holds the read lock, blocks nobody, and can be
//! told to fail at any statement.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use stillpoint_hook::sql::{Engine, Value};
use stillpoint_hook::testing::{Answer, FakeHost, Statement};
use stillpoint_hook::{Hook, HookError, Phase};
use stillpoint_hook_mysql::Mysql;
use stillpoint_hook_mysql::dialect::{Dialect, Flavour, Version};
use stillpoint_hook_mysql::statements as s;

pub const MARIADB: &str = "10.11.19-MariaDB-0+deb12u1-log";
pub const MYSQL: &str = "8.4.5";

/// What the server is told, and what it knows.
pub struct State {
    version: String,
    dialect: Dialect,
    variables: BTreeMap<&'static str, &'static str>,
    /// SHOW GLOBAL STATUS.
    pub status: BTreeMap<&'static str, String>,
    /// It replicates from another one.
    pub replica: bool,
    /// Temporary tables that its applier has open at each lock, in turn; then none.
    pub temporary_tables: VecDeque<u64>,
    /// Answers that come before the server's own, by statement; used up in turn.
    told: BTreeMap<&'static str, VecDeque<Answer>>,
    /// Transactions that are open at each lock, in turn; then none.
    pub open_transactions: VecDeque<usize>,
    /// How often InnoDB answers from before the lock.
    pub stale: usize,
    /// Where the binary log is.
    pub position: u64,
    tables_locked: BTreeSet<u32>,
    instance_locked: BTreeSet<u32>,
    unlocks: BTreeMap<u32, u64>,
    marked: BTreeSet<u32>,
    canary: Option<u32>,
}

/// A fake host with that server behind its connection `main`.
pub struct Lab {
    pub host: FakeHost,
    pub state: Rc<RefCell<State>>,
    pub hook: Mysql,
}

impl Lab {
    pub fn new(version: &str) -> Self {
        let engine = if version.contains("MariaDB") { Engine::Mariadb } else { Engine::Mysql };
        let dialect = Dialect::of(engine, version).unwrap();
        let mut variables = BTreeMap::from([
            ("datadir", "/var/lib/mysql/"),
            ("innodb_data_file_path", "ibdata1:12M:autoextend"),
            ("innodb_log_group_home_dir", "./"),
            ("innodb_flush_log_at_trx_commit", "1"),
            ("log_bin", "ON"),
            ("log_bin_basename", "/binlog/mysql-bin"),
            ("log_bin_index", "/binlog/mysql-bin.index"),
            ("sync_binlog", "1"),
        ]);
        if dialect.flavour == Flavour::MariaDb {
            variables.insert("innodb_log_checkpoint_now", "OFF");
        }
        let state = Rc::new(RefCell::new(State {
            version: version.into(),
            dialect,
            variables,
            status: BTreeMap::new(),
            replica: false,
            temporary_tables: VecDeque::new(),
            told: BTreeMap::new(),
            open_transactions: VecDeque::new(),
            stale: 0,
            position: 328,
            tables_locked: BTreeSet::new(),
            instance_locked: BTreeSet::new(),
            unlocks: BTreeMap::new(),
            marked: BTreeSet::new(),
            canary: None,
        }));
        let host = FakeHost::new();
        host.connection("main", engine, version);
        let server = Rc::clone(&state);
        host.serve(move |statement, open| Some(server.borrow_mut().answer(statement, open)));
        Lab { host, state, hook: Mysql::default() }
    }

    /// With a variable of the server.
    pub fn variable(self, name: &'static str, value: &'static str) -> Self {
        self.state.borrow_mut().variables.insert(name, value);
        self
    }

    /// With a counter of the server.
    pub fn status(self, name: &'static str, value: &str) -> Self {
        self.state.borrow_mut().status.insert(name, value.into());
        self
    }

    /// The next answer to a statement, in place of the server's own.
    pub fn tell(&self, statement: &'static str, answer: Answer) {
        let mut state = self.state.borrow_mut();
        state.told.entry(statement).or_default().push_back(answer);
    }

    pub fn prepare(&mut self, settings: &str) -> Result<stillpoint_hook::Plan, HookError> {
        self.host.begin(Phase::Prepare, Duration::from_secs(60));
        self.hook.prepare(settings)
    }

    pub fn pre_freeze(&mut self) -> Result<stillpoint_hook::Frozen, HookError> {
        self.host.clear_order();
        self.host.begin(Phase::PreFreeze, Duration::from_secs(20));
        self.hook.pre_freeze()
    }

    pub fn confirm(&mut self) -> Result<(), HookError> {
        self.host.clear_order();
        self.host.begin(Phase::Confirm, Duration::from_secs(5));
        self.hook.confirm()
    }

    /// Ready to lock.
    pub fn prepared(version: &str, settings: &str) -> Self {
        let mut lab = Lab::new(version);
        lab.prepare(settings).unwrap();
        lab
    }

    /// Locked.
    pub fn quiesced(version: &str) -> Self {
        let mut lab = Lab::prepared(version, "{}");
        lab.pre_freeze().unwrap();
        lab
    }

    /// The sessions that hold anything: what a session held ends with it.
    pub fn holders(&self) -> Vec<u32> {
        let open: BTreeSet<u32> = self.host.open_sessions().into_iter().collect();
        let state = self.state.borrow();
        let holders = state.tables_locked.union(&state.instance_locked);
        holders.copied().filter(|session| open.contains(session)).collect()
    }
}

impl State {
    fn answer(&mut self, statement: &Statement, open: &[u32]) -> Answer {
        assert!(s::ALL.contains(&statement.text.as_str()), "not asked for: {}", statement.text);
        let told = self.told.get_mut(statement.text.as_str()).and_then(VecDeque::pop_front);
        if let Some(answer) = told {
            self.leave_behind(statement);
            return answer;
        }
        self.own_answer(statement, open)
    }

    /// Whatever the answer is, the statement may have taken something: a read lock that failed leaves
    /// a part of it in the session of a MySQL 9.7, for one.
    fn leave_behind(&mut self, statement: &Statement) {
        let session = statement.session;
        match statement.text.as_str() {
            s::SESSION => self.marked.insert(session),
            s::LOCK_TABLES => self.tables_locked.insert(session),
            s::LOCK_INSTANCE => self.instance_locked.insert(session),
            _ => false,
        };
    }

    fn own_answer(&mut self, statement: &Statement, open: &[u32]) -> Answer {
        let session = statement.session;
        match statement.text.as_str() {
            s::VERSION => {
                let row = [self.version.as_str().into(), "sp@localhost".into()];
                Answer::rows(&["VERSION()", "CURRENT_USER()"], [row])
            }
            s::VARIABLES => {
                let rows =
                    self.variables.iter().map(|(name, value)| [(*name).into(), (*value).into()]);
                Answer::rows(&["Variable_name", "Value"], rows)
            }
            s::STATUS => {
                let mut status = self.status.clone();
                if !self.tables_locked.is_empty() {
                    let open = self.temporary_tables.pop_front().unwrap_or(0);
                    status.insert("Slave_open_temp_tables", open.to_string());
                }
                let rows =
                    status.iter().map(|(name, value)| [(*name).into(), value.as_str().into()]);
                Answer::rows(&["Variable_name", "Value"], rows)
            }
            s::REPLICA_MARIADB | s::REPLICA_OLD | s::REPLICA_MYSQL if self.replica => {
                let old = statement.text != s::REPLICA_MYSQL;
                let names = if old {
                    ["Connection_name", "Relay_Master_Log_File", "Exec_Master_Log_Pos"]
                } else {
                    ["Channel_Name", "Relay_Source_Log_File", "Exec_Source_Log_Pos"]
                };
                Answer::rows(&names, [["east".into(), "source-bin.000007".into(), 4242_u64.into()]])
            }
            s::SESSION => {
                self.marked.insert(session);
                Answer::affected(0)
            }
            s::LOCK_TABLES => {
                assert!(self.marked.contains(&session), "locked without time-outs");
                self.tables_locked.insert(session);
                Answer::affected(0).after(Duration::from_millis(3))
            }
            s::LOCK_INSTANCE => {
                self.instance_locked.insert(session);
                Answer::affected(0)
            }
            s::UNLOCK_TABLES => {
                *self.unlocks.entry(session).or_default() += 1;
                self.tables_locked.remove(&session);
                Answer::affected(0)
            }
            s::UNLOCK_INSTANCE => {
                self.instance_locked.remove(&session);
                Answer::affected(0)
            }
            s::CANARY => {
                assert!(self.tables_locked.contains(&session), "looked before the lock");
                self.canary = Some(session);
                Answer::affected(0)
            }
            s::OPEN_TRANSACTIONS => self.transactions(),
            s::END_CANARY | s::FLUSH_LOGS | s::TRY_CHECKPOINT => Answer::affected(0),
            s::CHECKPOINT => {
                assert!(!self.tables_locked.is_empty(), "checkpoint outside the lock");
                Answer::affected(0).after(Duration::from_millis(40))
            }
            s::BINLOG_STATUS_OLD | s::BINLOG_STATUS_MYSQL => {
                let row = ["mysql-bin.000004".into(), self.position.into()];
                Answer::rows(&["File", "Position"], [row])
            }
            s::GTID_MARIADB => Answer::rows(
                &["gtid-binlog-pos", "gtid-current-pos", "gtid-slave-pos"],
                [["0-1-5".into(), "0-1-5".into(), "".into()]],
            ),
            // It breaks long sets into lines.
            s::GTID_MYSQL => {
                Answer::rows(&["gtid-executed"], [["3e11fa47:1-5,\n4f22ab58:1-9".into()]])
            }
            s::LSN_MARIADB => Answer::rows(
                &["Variable_name", "Value"],
                [["Innodb_lsn_current".into(), "46837".into()]],
            ),
            s::LSN_MYSQL => Answer::rows(
                &["STORAGE_ENGINES"],
                [[r#"{"InnoDB": {"LSN": 21, "LSN_checkpoint": 20}}"#.into()]],
            ),
            s::SAME_SESSION => {
                let id = u64::from(100 + session);
                let mark = self.marked.contains(&session).then_some(id);
                Answer::rows(&["id", "mark"], [[id.into(), mark.into()]])
            }
            s::UNLOCKS => {
                let unlocks = self.unlocks.get(&session).copied().unwrap_or(0).to_string();
                Answer::rows(
                    &["Variable_name", "Value"],
                    [["Com_unlock_tables".into(), unlocks.into()]],
                )
            }
            s::SESSION_COUNT => {
                let there = open
                    .iter()
                    .any(|open| statement.params == [Value::Int64(100 + i64::from(*open))]);
                Answer::rows(&["COUNT(*)"], [[i64::from(there).into()]])
            }
            // Nothing in the way, nothing prepared, no replica, no far files.
            _ => Answer::rows(&["a", "b"], []),
        }
    }

    fn transactions(&mut self) -> Answer {
        let own = self.canary.map_or(0, |session| i64::from(100 + session));
        let mut rows: Vec<[Value; 3]> = vec![[own.into(), 1_i64.into(), 0_i64.into()]];
        if self.stale > 0 {
            self.stale -= 1;
            rows.clear();
        }
        let open = self.open_transactions.pop_front().unwrap_or(0);
        for other in 0..open {
            let id = 500 + i64::try_from(other).unwrap();
            rows.push([id.into(), 0_i64.into(), 4_i64.into()]);
        }
        Answer::rows(&["id", "own", "time"], rows)
    }

    /// Whether the server has a statement at all.
    pub fn lacks(&self, statement: &str) -> bool {
        let mariadb = self.dialect.flavour == Flavour::MariaDb;
        let before = |version| !mariadb && self.dialect.version < version;
        match statement {
            s::LOCK_INSTANCE | s::UNLOCK_INSTANCE | s::LSN_MYSQL | s::FAR_FILES_MYSQL => {
                mariadb || before(Version(8, 0, 0))
            }
            s::REPLICA_MYSQL => mariadb || before(Version(8, 0, 22)),
            s::BINLOG_STATUS_MYSQL => mariadb || before(Version(8, 2, 0)),
            s::GTID_MYSQL => mariadb,
            s::BINLOG_STATUS_OLD => !mariadb && !before(Version(8, 4, 0)),
            s::REPLICA_OLD => !mariadb && !before(Version(8, 4, 0)),
            s::CHECKPOINT
            | s::TRY_CHECKPOINT
            | s::LSN_MARIADB
            | s::GTID_MARIADB
            | s::REPLICA_MARIADB => !mariadb,
            s::FAR_FILES_OLD => mariadb && self.dialect.version >= Version(10, 6, 0),
            _ => false,
        }
    }
}
