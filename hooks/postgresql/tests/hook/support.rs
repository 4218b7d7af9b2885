//! A small server behind the fake host: it knows its version, who may what, which session is in a base
//! backup, and can be told to answer any statement otherwise.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use stillpoint_hook::sql::Engine;
use stillpoint_hook::testing::{Answer, FakeHost, Statement};
use stillpoint_hook::{Frozen, Hook, HookError, MetaValue, MetadataEntry, Phase, Plan};
use stillpoint_hook_postgresql::Postgresql;
use stillpoint_hook_postgresql::statements as s;

/// What the server is told, and what it knows.
pub struct State {
    pub major: u32,
    pub settings: BTreeMap<&'static str, &'static str>,
    pub may_checkpoint: bool,
    pub may_backup: bool,
    pub standby: bool,
    pub started: &'static str,
    pub timeline: i64,
    pub exclusive: bool,
    pub archiver_fails: bool,
    pub prepared: Vec<&'static str>,
    /// Whose commits are asynchronous.
    pub asynchronous: Vec<[&'static str; 2]>,
    /// What a copy would have to redo; a checkpoint makes it 0.
    pub redo_bytes: i64,
    /// The session that is in a base backup.
    pub in_backup: Option<u32>,
    told: BTreeMap<&'static str, VecDeque<Answer>>,
}

/// A fake host with that server behind its connection `main`.
pub struct Lab {
    pub host: FakeHost,
    pub state: Rc<RefCell<State>>,
    pub hook: Postgresql,
}

impl Lab {
    pub fn new(major: u32) -> Self {
        let settings = BTreeMap::from([
            ("archive_mode", "on"),
            ("data_directory", "/var/lib/postgresql/15/main"),
            ("fsync", "on"),
            ("full_page_writes", "on"),
            ("synchronous_commit", "on"),
            ("wal_level", "replica"),
        ]);
        let state = Rc::new(RefCell::new(State {
            major,
            settings,
            may_checkpoint: true,
            may_backup: true,
            standby: false,
            started: "2026-11-20 10:00:00+00",
            timeline: 1,
            exclusive: false,
            archiver_fails: false,
            prepared: Vec::new(),
            asynchronous: Vec::new(),
            redo_bytes: 4096,
            in_backup: None,
            told: BTreeMap::new(),
        }));
        let host = FakeHost::new();
        host.connection("main", Engine::Postgresql, &format!("{major}.3 (Debian)"));
        let server = Rc::clone(&state);
        host.serve(move |statement, open| Some(server.borrow_mut().answer(statement, open)));
        Lab { host, state, hook: Postgresql::default() }
    }

    /// The same with something changed.
    pub fn with(self, change: impl FnOnce(&mut State)) -> Self {
        change(&mut self.state.borrow_mut());
        self
    }

    /// The next answer to a statement, in place of the server's own.
    pub fn tell(&self, statement: &'static str, answer: Answer) {
        self.state.borrow_mut().told.entry(statement).or_default().push_back(answer);
    }

    pub fn prepare(&mut self, settings: &str) -> Result<Plan, HookError> {
        self.host.begin(Phase::Prepare, Duration::from_secs(30));
        self.hook.prepare(settings)
    }

    pub fn pre_freeze(&mut self) -> Result<Frozen, HookError> {
        self.host.clear_order();
        self.host.begin(Phase::PreFreeze, Duration::from_secs(20));
        self.hook.pre_freeze()
    }

    pub fn confirm(&mut self) -> Result<(), HookError> {
        self.host.clear_order();
        self.host.begin(Phase::Confirm, Duration::from_secs(10));
        self.hook.confirm()
    }

    /// Ready for the window.
    pub fn prepared(self, settings: &str) -> Self {
        let mut lab = self;
        lab.prepare(settings).unwrap();
        lab
    }

    /// In the window.
    pub fn quiesced(self, settings: &str) -> (Self, Frozen) {
        let mut lab = self.prepared(settings);
        let frozen = lab.pre_freeze().unwrap();
        (lab, frozen)
    }

    /// How often a statement was sent.
    pub fn count(&self, statement: &str) -> usize {
        self.host.statements().iter().filter(|sent| sent.text == statement).count()
    }

    /// Whether a base backup runs: one ends with its session.
    pub fn backup_runs(&self) -> bool {
        let session = self.state.borrow().in_backup;
        session.is_some_and(|session| self.host.open_sessions().contains(&session))
    }
}

/// The text under a key.
pub fn text<'a>(entries: &'a [MetadataEntry], key: &str) -> &'a str {
    let found = entries.iter().find(|entry| entry.key == key);
    match found.map(|entry| &entry.value) {
        Some(MetaValue::Text(text)) => text,
        other => panic!("{key}: {other:?} in {entries:?}"),
    }
}

impl State {
    fn answer(&mut self, statement: &Statement, open: &[u32]) -> Answer {
        assert!(s::ALL.contains(&statement.text.as_str()), "not asked for: {}", statement.text);
        if self.lacks(&statement.text) {
            return Answer::error(0, "42883", "function does not exist");
        }
        let told = self.told.get_mut(statement.text.as_str()).and_then(VecDeque::pop_front);
        told.unwrap_or_else(|| self.own_answer(statement, open))
    }

    /// Whether the server has a statement at all.
    fn lacks(&self, statement: &str) -> bool {
        match statement {
            s::PRIVILEGES_15 | s::BACKUP_START_15 | s::BACKUP_STOP_15 => self.major < 15,
            s::PRIVILEGES_13 | s::BACKUP_START_13 | s::BACKUP_STOP_13 | s::EXCLUSIVE_13 => {
                self.major >= 15
            }
            s::IDLE_TIMEOUT_14 => self.major < 14,
            _ => false,
        }
    }

    fn own_answer(&mut self, statement: &Statement, open: &[u32]) -> Answer {
        let session = statement.session;
        match statement.text.as_str() {
            s::IDENTITY => Answer::rows(
                &["pid", "started", "standby", "system", "timeline"],
                [[
                    i64::from(100 + session).into(),
                    self.started.into(),
                    self.standby.into(),
                    "7574000000000000001".into(),
                    self.timeline.into(),
                ]],
            ),
            s::SETTINGS => {
                let rows =
                    self.settings.iter().map(|(name, value)| [(*name).into(), (*value).into()]);
                Answer::rows(&["name", "setting"], rows)
            }
            s::ASYNCHRONOUS => Answer::rows(
                &["database", "role"],
                self.asynchronous
                    .iter()
                    .map(|[database, role]| [(*database).into(), (*role).into()]),
            ),
            s::PRIVILEGES_15 | s::PRIVILEGES_13 => Answer::rows(
                &["role", "checkpoint", "backup"],
                [["stillpoint".into(), self.may_checkpoint.into(), self.may_backup.into()]],
            ),
            s::TABLESPACES => Answer::rows(
                &["oid", "name", "location"],
                [[16_400_u64.into(), "fast".into(), "/fast/pg".into()]],
            ),
            s::PREPARED => Answer::rows(
                &["gid", "seconds"],
                self.prepared.iter().map(|gid| [(*gid).into(), 90_i64.into()]),
            ),
            s::BASE_BACKUPS => Answer::rows(&["count"], [[1_i64.into()]]),
            s::EXCLUSIVE_13 => Answer::rows(&["exclusive"], [[self.exclusive.into()]]),
            s::ARCHIVER => Answer::rows(
                &["last_archived", "last_failed", "failing"],
                [["".into(), "000000010000000000000007".into(), self.archiver_fails.into()]],
            ),
            s::STANDBY => Answer::rows(
                &["received", "replayed"],
                [["0/5000000".into(), "2026-11-20 10:00:01+00".into()]],
            ),
            s::STATEMENT_TIMEOUT | s::IDLE_TIMEOUT_14 => {
                Answer::rows(&["set_config"], [[statement.params[0].clone()]])
            }
            s::CHECKPOINT => {
                self.redo_bytes = 0;
                Answer::affected(0).after(Duration::from_millis(300))
            }
            s::POSITION => Answer::rows(
                &["lsn", "checkpoint", "redo", "file", "bytes"],
                [[
                    "0/3000148".into(),
                    "0/30000D8".into(),
                    "0/30000A0".into(),
                    "000000010000000000000003".into(),
                    self.redo_bytes.into(),
                ]],
            ),
            s::BACKUP_START_15 | s::BACKUP_START_13 => {
                self.in_backup = Some(session);
                Answer::rows(&["lsn"], [["0/4000028".into()]])
            }
            s::BACKUP_STOP_15 | s::BACKUP_STOP_13 => {
                let own = self.in_backup.take().filter(|running| open.contains(running));
                assert_eq!(own, Some(session), "another session's backup was ended");
                Answer::rows(
                    &["lsn", "labelfile", "spcmapfile"],
                    [[
                        "0/4000138".into(),
                        "START WAL LOCATION: 0/4000028\n".into(),
                        "16400 /fast/pg\n".into(),
                    ]],
                )
            }
            other => panic!("no answer to {other}"),
        }
    }
}
