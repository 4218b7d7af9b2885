//! A small Redis behind the fake host: it knows its configuration, who paused it and until when, and can be
//! told to fail at any command.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use stillpoint_hook::sql::{Engine, Value};
use stillpoint_hook::testing::{Answer, FakeHost, Statement};
use stillpoint_hook::{Hook, HookError, Phase};
use stillpoint_hook_redis::Redis;
use stillpoint_hook_redis::statements as s;

pub const V6: &str = "6.2.14";
pub const V7: &str = "7.0.15";
pub const V72: &str = "7.2.4";
pub const V8: &str = "8.0.1";

/// What the server is told, and what it knows.
pub struct State {
    pub fields: BTreeMap<&'static str, String>,
    pub config: BTreeMap<&'static str, String>,
    /// Answers that come before the server's own, by statement; used up in turn.
    told: BTreeMap<&'static str, VecDeque<Answer>>,
    /// By the server's clock, in milliseconds; of this hook or of somebody else.
    pub paused_until: u64,
    pub clock: u64,
    pub rewrite_at: u64,
    /// After how many more looks a save that runs has ended.
    pub saving_for: Option<u32>,
    /// After how many looks a save has ended.
    pub save_looks: u32,
    /// After how many more looks the AOF's buffer is empty.
    pub draining_for: u32,
    /// A save begins by itself together with the pause, so often.
    pub saves_begin: u32,
    /// So many `INFO` are refused from the pause on.
    pub refused_looks: u32,
}

/// A fake host with that server behind its connection `main`.
pub struct Lab {
    pub host: FakeHost,
    pub state: Rc<RefCell<State>>,
    pub hook: Redis,
}

impl Lab {
    /// A master with an AOF.
    pub fn new(version: &str) -> Self {
        let fields = [
            ("redis_version", version),
            ("run_id", "run-1"),
            ("role", "master"),
            ("master_replid", "replid-1"),
            ("master_repl_offset", "0"),
            ("cluster_enabled", "0"),
            ("loading", "0"),
            ("aof_enabled", "1"),
            ("aof_rewrite_in_progress", "0"),
            ("aof_rewrite_scheduled", "0"),
            ("aof_last_write_status", "ok"),
            ("aof_current_size", "1000"),
            ("aof_base_size", "900"),
            ("rdb_changes_since_last_save", "5"),
            ("rdb_last_save_time", "1700000000"),
            ("rdb_last_bgsave_status", "ok"),
            ("rdb_last_bgsave_time_sec", "0"),
            ("db0", "keys=3,expires=0,avg_ttl=0"),
        ];
        let config = [
            ("dir", "/var/lib/redis"),
            ("dbfilename", "dump.rdb"),
            ("save", "3600 1"),
            ("appendfilename", "appendonly.aof"),
            ("appendfsync", "everysec"),
        ];
        let own = |pairs: &[(&'static str, &str)]| {
            pairs.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
        };
        let mut state = State {
            fields: own(&fields),
            config: own(&config),
            told: BTreeMap::new(),
            paused_until: 0,
            clock: 1_700_000_100_000,
            rewrite_at: 100,
            saving_for: None,
            save_looks: 3,
            draining_for: 0,
            saves_begin: 0,
            refused_looks: 0,
        };
        if version >= V7 {
            state.config.insert("appenddirname", "appendonlydir".into());
        }
        let state = Rc::new(RefCell::new(state));
        let host = FakeHost::new();
        host.connection("main", Engine::Other, &["Redis ", version].concat());
        let server = Rc::clone(&state);
        host.serve(move |statement, _| Some(server.borrow_mut().answer(statement)));
        Lab { host, state, hook: Redis::default() }
    }

    /// With another field of INFO.
    pub fn field(self, name: &'static str, value: &str) -> Self {
        self.set(name, value);
        self
    }

    /// With RDB files only.
    pub fn rdb(self) -> Self {
        self.field("aof_enabled", "0")
    }

    pub fn config(self, name: &'static str, value: &str) -> Self {
        self.state.borrow_mut().config.insert(name, value.into());
        self
    }

    pub fn set(&self, name: &'static str, value: &str) {
        self.state.borrow_mut().fields.insert(name, value.into());
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
        self.host.begin(Phase::Confirm, Duration::from_secs(5));
        self.hook.confirm()
    }

    /// Ready to pause.
    pub fn prepared(self, settings: &str) -> Self {
        let mut lab = self;
        lab.prepare(settings).unwrap();
        lab
    }

    /// Paused.
    pub fn held(self) -> Self {
        let mut lab = self.prepared("{}");
        lab.pre_freeze().unwrap();
        lab
    }

    /// The agent died: what was kept is all that is left.
    pub fn reborn(&mut self) {
        self.hook = Redis::default();
    }

    /// Writes are paused now.
    pub fn is_paused(&self) -> bool {
        let state = self.state.borrow();
        state.paused_until > state.clock
    }

    pub fn rewrite_at(&self) -> u64 {
        self.state.borrow().rewrite_at
    }
}

impl State {
    fn version(&self) -> &str {
        &self.fields["redis_version"]
    }

    fn answer(&mut self, statement: &Statement) -> Answer {
        let text = statement.text.as_str();
        assert!(s::ALL.contains(&text), "not asked for: {text}");
        assert!(!self.lacks(text), "{} has no {text}", self.version());
        let told = self.told.get_mut(text).and_then(VecDeque::pop_front);
        let own = self.own_answer(statement);
        // Whatever the answer is, the command may have been run.
        told.unwrap_or(own)
    }

    fn own_answer(&mut self, statement: &Statement) -> Answer {
        let ok = || Answer::rows(&["value"], [["OK".into()]]);
        let number = || match statement.params.as_slice() {
            [Value::Uint64(number)] => *number,
            other => panic!("{other:?}"),
        };
        match statement.text.as_str() {
            s::INFO if self.refused_looks > 0 && self.paused_until > self.clock => {
                self.refused_looks -= 1;
                Answer::error(0, "", "ERR the server refuses it")
            }
            s::INFO => Answer::rows(&["value"], [[self.info().into()]]),
            s::PROBE if self.paused_until > self.clock => Answer::never(),
            s::PROBE => Answer::error(0, "", "NOSCRIPT No matching script."),
            s::REWRITE_AT => {
                let row =
                    ["auto-aof-rewrite-percentage".into(), self.rewrite_at.to_string().into()];
                Answer::rows(&["name", "value"], [row])
            }
            s::SET_REWRITE_AT => {
                self.rewrite_at = number();
                ok()
            }
            s::PAUSE => {
                if number() > 0 {
                    self.paused_until = self.paused_until.max(self.clock + number());
                    if self.saves_begin > 0 {
                        self.saves_begin -= 1;
                        self.saving_for = Some(3);
                    }
                }
                ok()
            }
            s::UNPAUSE => {
                self.paused_until = 0;
                ok()
            }
            s::SAVE => {
                assert!(self.paused_until > self.clock, "saved while writes go on");
                self.saving_for = Some(self.save_looks);
                ok()
            }
            s::TRY_SAVE => Answer::error(0, "", "ERR syntax error"),
            s::WAIT_FOR_SYNC => Answer::rows(&["value"], [[1_i64.into()], [0_i64.into()]]),
            get => {
                let name = get.strip_prefix("CONFIG GET ").unwrap();
                let row = self.config.get(name).map(|value| [name.into(), value.as_str().into()]);
                Answer::rows(&["name", "value"], row)
            }
        }
    }

    fn info(&mut self) -> String {
        let saving = match &mut self.saving_for {
            None => false,
            Some(0) => {
                self.saving_for = None;
                self.fields.insert("rdb_changes_since_last_save", "0".into());
                self.fields.insert("rdb_last_save_time", "1700000101".into());
                false
            }
            Some(looks) => {
                *looks -= 1;
                true
            }
        };
        let buffer = if self.draining_for > 0 { 77 } else { 0 };
        self.draining_for = self.draining_for.saturating_sub(1);
        let mut text = format!(
            "# Server\r\nserver_time_usec:{}\r\nrdb_bgsave_in_progress:{}\r\naof_buffer_length:{buffer}\r\n",
            self.clock * 1000,
            u8::from(saving)
        );
        if self.version() >= V8 {
            let left = self.paused_until.saturating_sub(self.clock);
            let reason = if left > 0 { "client_pause" } else { "none" };
            text += &format!("paused_reason:{reason}\r\npaused_timeout_milliseconds:{left}\r\n");
        }
        for (name, value) in &self.fields {
            text += &format!("{name}:{value}\r\n");
        }
        text
    }

    /// Whether the server lacks a command.
    fn lacks(&self, statement: &str) -> bool {
        match statement {
            s::WAIT_FOR_SYNC => self.version() < V72,
            _ => false,
        }
    }
}
