//! A hook for tests. Its settings are JSON: for each phase a list of commands, done in order.
//! What the commands give is returned as metadata by `pre-freeze` and `post-thaw`.
//!
//! `open A main` · `query A SELECT 1` · `query-ms A 50 SELECT SLEEP(9)` · `uint A 5 SET … = ?` ·
//! `text A five SET … = ?` · `alive A` · `id A` · `info A` · `close A` · `log words` · `sleep 50` ·
//! `program [50ms] perl -e @ verb … [< text]` · `run …` (as `program`, and fails
//! if it fails; `@` is [`PROBE`]) · `granted` · `run-info` · `kv` · `kv-set key value` · `kv-get key` ·
//! `kv-del key` · `burn 50` (ms of processor time) · `chat 50` (calls of the host) · `fail kind words` ·
//! `trap` · `loop` · `eat` ·
//! `level crash` · `try <command>` (an error is a result).
//!
//! What is kept under the key `undo` is done by `finish`, command by command, and then forgotten: also
//! by an instance that knows nothing else, after its agent has died.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hint::black_box;

wit_bindgen::generate!({ path: "../../../hooks-sdk/wit/since_v0_1_0", world: "hook" });

use exports::stillpoint::hook::lifecycle::{
    CapabilityNeed, Description, Frozen, Guest, KvNeed, Outcome, Plan, ProgramNeed, SqlNeed,
};
use stillpoint::hook::types::{
    AppError, Consistency, HookError, MetaValue, MetadataEntry, SettingsError,
};
use stillpoint::hook::{kv, log, process, run, sql};

/// Tests overwrite what follows the `=` in the finished component: with a way to misbehave, or a version.
static DESCRIBE: [u8; 24] = *b"PUPPET-DESCRIBE=honest  ";

/// What it asks for on `main`.
const STATEMENTS: &[&str] = &[
    "SELECT 1",
    "SELECT CONNECTION_ID()",
    "SELECT SLEEP(30)",
    "SELECT 'a  b'",
    "SELECT seq FROM mysql.seq_1_to_1000",
    "SELECT REPEAT('x', 1000) FROM mysql.seq_1_to_1000",
    "SELECT 1, -1, 1.5, 2.5e0, 'text', x'00ff', DATE'2026-11-20', NULL, CAST(7 AS UNSIGNED)",
    "SET SESSION lock_wait_timeout = ?",
    "SET SESSION wait_timeout = ?",
    "SELECT ?, 1.5, TIMESTAMP'2026-11-20 10:11:12'",
    "FLUSH TABLES WITH READ LOCK",
    "UNLOCK TABLES",
    "SELEKT 1",
    "INSERT INTO puppet.holds VALUES (1)",
    "DELETE FROM puppet.holds",
    "asked but never granted",
];

/// What it asks for on `cache`.
const COMMANDS: &[&str] = &[
    "PING",
    "INFO server",
    "CLIENT ID",
    "CONFIG GET dir",
    "CONFIG GET nothing-of-that-name",
    "SET a ?",
    "GET a",
    "GET b",
    "INCRBY n ?",
    "RPUSH l ?",
    "LRANGE l 0 -1",
    "GETRANGE long 0 -1",
    "COMMAND INFO get",
    "NO SUCH COMMAND",
    "BLPOP nothing 0",
    "CLIENT PAUSE ? WRITE",
    "asked but never granted",
];

/// What it has `perl` do, by the verb that follows: what it sees, what it may, how it ends.
const PROBE: &str = r#"
use POSIX; use IO::Handle;
$| = 1;
my $verb = shift;
sub flood { my $x = 'x' x 65536; print $x for 1 .. shift }
if ($verb eq 'environment') { print map { "$_=$ENV{$_}\n" } sort keys %ENV }
elsif ($verb eq 'status') { open F, '/proc/self/status'; print <F> }
elsif ($verb eq 'arguments') { print join '|', @ARGV }
elsif ($verb eq 'copy') { print <STDIN> }
elsif ($verb eq 'fail') { print STDERR "no luck\n"; exit shift }
elsif ($verb eq 'write') { open F, '>', $ENV{PROBE_FILE} or die "$!\n"; print F 'x'; close F or die "$!\n"; print 'wrote' }
elsif ($verb eq 'flood') { flood 1600 }
elsif ($verb eq 'sleep') { print "begun\n"; sleep 1000 }
elsif ($verb eq 'leave') { if (!fork) { setsid; while (1) { open F, '>>', $ENV{PROBE_FILE}; print F 'x'; close F } } select undef, undef, undef, 0.2; print 'left' }
elsif ($verb eq 'hold') {
    $SIG{$_} = 'IGNORE' for qw(TERM HUP INT PIPE);
    for (1 .. 3) { if (!fork) { setsid; fork; open F, '>>', $ENV{PROBE_FILE}; F->autoflush(1); print F 'x' while 1 } }
    if (!fork) { setsid; sleep 1000 }
    flood 1e9;
}
"#;

/// What it asks for on `cluster`.
const POSTGRESQL: &[&str] = &[
    "SELECT 1",
    "SELECT pg_backend_pid()",
    "SELECT pg_sleep(30)",
    "SELECT 'a  b'",
    "SELECT * FROM generate_series(1, 1000)",
    "SELECT repeat('x', 1000) FROM generate_series(1, 1000)",
    "SELECT 1::int2, -1, 9::bigint, 7::oid, 1.50, 2.5::float8, 'text', true, NULL",
    "SELECT '\\x00ff'::bytea, DATE '2026-11-20', TIMESTAMPTZ '2026-11-20 10:11:12.5+01', '16/B374D848'::pg_lsn, 'red'::lab_colour",
    "SELECT ARRAY[1, 2]",
    "SELECT $1 + 1, $2::text",
    "SELECT set_config('statement_timeout', $1::text, false)",
    "SELECT set_config('idle_session_timeout', $1::text, false)",
    "INSERT INTO t VALUES (1), (2)",
    "SELECT 1; SELECT 2",
    "SELEKT 1",
    "SELECT * FROM secrets",
    "LOCK TABLE t",
    "BEGIN",
    "asked but never granted",
];

/// What it asks to feed to it.
const SCRIPT: &str = "SELECT 1;\nEXIT\n";

#[derive(Default)]
struct State {
    script: BTreeMap<String, Vec<String>>,
    sessions: BTreeMap<String, sql::Connection>,
    results: Vec<String>,
    level: Option<Consistency>,
}

thread_local!(static STATE: RefCell<State> = RefCell::default());

struct Puppet;
export!(Puppet);

impl Guest for Puppet {
    fn describe() -> Description {
        let mode = String::from_utf8_lossy(&black_box(DESCRIBE)[16..]).into_owned();
        match mode.trim() {
            "trap" => panic!("described to death"),
            "loop" => spin(),
            "eat" => eat(),
            _ => {}
        }
        Description {
            name: if mode.trim() == "badname" { "../puppet".into() } else { "puppet".into() },
            version: if mode.starts_with(|c: char| c.is_ascii_digit()) { mode.trim().into() } else { "0.1.0".into() },
            summary: "does what its settings say".into(),
            settings_schema: match mode.trim() {
                "noschema" => r#"{"type":"integr"}"#.into(),
                _ => r#"{"type":"object","additionalProperties":{"type":"array","items":{"type":"string"}}}"#.into(),
            },
            needs: vec![
                CapabilityNeed::Sql(SqlNeed {
                    connection: "main".into(),
                    engines: vec![sql::Engine::Mysql, sql::Engine::Mariadb],
                    statements: STATEMENTS.iter().map(|text| text.to_string()).collect(),
                    reason: "to be tested".into(),
                    required: false,
                }),
                CapabilityNeed::Sql(SqlNeed {
                    connection: "cache".into(),
                    engines: vec![sql::Engine::Other],
                    statements: COMMANDS.iter().map(|text| text.to_string()).collect(),
                    reason: "to be tested".into(),
                    required: false,
                }),
                CapabilityNeed::Sql(SqlNeed {
                    connection: "cluster".into(),
                    engines: vec![sql::Engine::Postgresql],
                    statements: POSTGRESQL.iter().map(|text| text.to_string()).collect(),
                    reason: "to be tested".into(),
                    required: false,
                }),
                CapabilityNeed::Program(ProgramNeed {
                    command: "perl".into(),
                    arguments: [&["{name}"][..], &["{name}", "{uint}"], &["{name}", "{name}"]]
                        .iter()
                        .map(|rest| [&["-e", PROBE], *rest].concat())
                        .map(|words| words.iter().map(|word| word.to_string()).collect())
                        .collect(),
                    stdin_scripts: vec![SCRIPT.into()],
                    reason: "to be tested".into(),
                    required: false,
                }),
                CapabilityNeed::Kv(KvNeed {
                    bytes: 1024,
                    reason: "to undo what it did".into(),
                    required: false,
                }),
            ],
            freeze_budget_ms: 100,
        }
    }

    fn validate(settings: String) -> Result<(), HookError> {
        remember(&settings)?;
        play("validate")
    }

    fn prepare(settings: String) -> Result<Plan, HookError> {
        remember(&settings)?;
        play("prepare")?;
        // `paths` is no phase, but what must be in the snapshot.
        let paths = STATE.with_borrow(|state| state.script.get("paths").cloned());
        let paths = paths.unwrap_or_else(|| vec!["/".into()]);
        Ok(Plan { paths, summary: results().join("; ") })
    }

    fn pre_freeze() -> Result<Frozen, HookError> {
        play("pre-freeze")?;
        let level = STATE.with_borrow(|state| state.level);
        Ok(Frozen { consistency: level.unwrap_or(Consistency::Application), metadata: metadata() })
    }

    fn confirm() -> Result<(), HookError> {
        play("confirm")
    }

    fn post_thaw(_outcome: Outcome) -> Result<Vec<MetadataEntry>, HookError> {
        play("post-thaw")?;
        Ok(metadata())
    }

    fn finish() -> Result<(), HookError> {
        log::write(log::Level::Info, "finish", &[]);
        play("finish")?;
        undo()
    }
}

/// What an earlier instance has left to be undone, if it may keep anything.
fn undo() -> Result<(), HookError> {
    let Ok(Some(commands)) = kv::get("undo") else { return Ok(()) };
    for command in String::from_utf8_lossy(&commands).split(';') {
        act(command.trim())?;
    }
    kv::delete("undo").map_err(not_kept)
}

fn not_kept(error: kv::Error) -> HookError {
    match error {
        kv::Error::Denied => HookError::Denied("durable state".into()),
        other => HookError::Internal(format!("{other:?}")),
    }
}

fn remember(settings: &str) -> Result<(), HookError> {
    let script = serde_json::from_str(settings).map_err(|error| {
        HookError::InvalidSettings(SettingsError {
            pointer: "/".into(),
            message: error.to_string(),
        })
    })?;
    STATE.with_borrow_mut(|state| state.script = script);
    Ok(())
}

fn play(phase: &str) -> Result<(), HookError> {
    let commands = STATE.with_borrow(|state| state.script.get(phase).cloned());
    commands.unwrap_or_default().iter().try_for_each(|command| {
        let result = act(command)?;
        STATE.with_borrow_mut(|state| state.results.push(result));
        Ok(())
    })
}

fn act(command: &str) -> Result<String, HookError> {
    let (verb, rest) = command.split_once(' ').unwrap_or((command, ""));
    let (first, second) = rest.split_once(' ').unwrap_or((rest, ""));
    match verb {
        "try" => Ok(act(rest).unwrap_or_else(|error| format!("{error:?}"))),
        "open" => {
            let session = sql::open(second).map_err(failed)?;
            STATE.with_borrow_mut(|state| state.sessions.insert(first.into(), session));
            Ok("opened".into())
        }
        "close" => Ok(format!("{}", STATE.with_borrow_mut(|s| s.sessions.remove(first).is_some()))),
        "query" => query(first, second, &[], None),
        "query-ms" => {
            let (ms, text) = second.split_once(' ').unwrap_or_default();
            query(first, text, &[], Some(ms.parse::<u64>().unwrap_or(0) * 1_000_000))
        }
        "uint" => {
            let (value, text) = second.split_once(' ').unwrap_or_default();
            query(first, text, &[sql::Value::Uint64(value.parse().unwrap_or(0))], None)
        }
        "text" => {
            let (value, text) = second.split_once(' ').unwrap_or_default();
            query(first, text, &[sql::Value::Text(value.into())], None)
        }
        "alive" => Ok(on(first, |session| session.is_alive()).to_string()),
        "id" => on(first, |session| session.session_id()).map_err(failed),
        "info" => Ok(format!("{:?}", on(first, |session| session.info()))),
        "log" => {
            log::write(log::Level::Warn, rest, &[]);
            Ok("logged".into())
        }
        "sleep" => {
            run::sleep(rest.parse::<u64>().unwrap_or(0) * 1_000_000);
            Ok(format!("cancelled: {}", run::cancelled()))
        }
        "granted" => Ok(sql::granted().join(",")),
        "run-info" => Ok(format!("{:?} {:?}", run::get_info(), run::current_phase())),
        "kv-set" => {
            kv::set(first, second.as_bytes()).map_err(not_kept)?;
            Ok("kept".into())
        }
        "kv-get" => {
            let kept = kv::get(first).map_err(not_kept)?;
            Ok(kept.map_or("nothing".into(), |value| String::from_utf8_lossy(&value).into_owned()))
        }
        "kv-del" => {
            kv::delete(first).map_err(not_kept)?;
            Ok("forgotten".into())
        }
        "burn" => {
            let until =
                run::remaining().saturating_sub(rest.parse::<u64>().unwrap_or(0) * 1_000_000);
            while run::remaining() > until {
                for turn in 0..100_000_u32 {
                    black_box(turn);
                }
            }
            Ok("burnt".into())
        }
        "chat" => {
            for _ in 0..rest.parse::<u64>().unwrap_or(0) {
                black_box(run::cancelled());
            }
            Ok("chatted".into())
        }
        "kv" => Ok(format!("{:?}", kv::get("key"))),
        "program" => Ok(match run_program(rest) {
            Ok(output) => ended(&output),
            Err(process::Error::Timeout(output)) => format!("timeout, {}", ended(&output)),
            Err(error) => format!("{error:?}"),
        }),
        "run" => run_program(rest).map(|output| ended(&output)).map_err(not_run),
        "level" => {
            let level = if rest == "crash" { Consistency::Crash } else { Consistency::Application };
            STATE.with_borrow_mut(|state| state.level = Some(level));
            Ok("set".into())
        }
        "fail" => Err(failure(first, second)),
        "trap" => panic!("told to trap"),
        "loop" => spin(),
        "eat" => eat(),
        other => Err(HookError::Internal(format!("no such command: {other}"))),
    }
}

fn on<T>(name: &str, call: impl FnOnce(&sql::Connection) -> T) -> T {
    STATE.with_borrow(|state| call(&state.sessions[name]))
}

fn query(
    name: &str,
    text: &str,
    params: &[sql::Value],
    timeout: Option<u64>,
) -> Result<String, HookError> {
    let answer = on(name, |session| session.query(text, params, timeout)).map_err(failed)?;
    let more = if answer.truncated { " and more" } else { "" };
    Ok(match answer.rows.len() {
        0 => format!("no rows{more}"),
        1 => format!("{:?}{more}", answer.rows[0]),
        count => format!("{count} rows{more}"),
    })
}

fn run_program(words: &str) -> Result<process::Output, process::Error> {
    let (words, stdin) = match words.split_once(" < ") {
        Some((words, "@")) => (words, Some(SCRIPT)),
        Some((words, text)) => (words, Some(text)),
        None => (words, None),
    };
    let mut words = words.split(' ').map(|word| if word == "@" { PROBE } else { word }).peekable();
    let timeout = words.peek().and_then(|word| word.strip_suffix("ms")?.parse::<u64>().ok());
    if timeout.is_some() {
        words.next();
    }
    let command = words.next().unwrap_or_default();
    let args: Vec<String> = words.map(str::to_owned).collect();
    let stdin = stdin.map(str::as_bytes);
    process::run(command, &args, stdin, timeout.map(|milliseconds| milliseconds * 1_000_000))
}

/// The beginning of what it wrote, and all of how it ended.
fn ended(output: &process::Output) -> String {
    let text =
        |bytes: &[u8]| String::from_utf8_lossy(bytes.get(..2000).unwrap_or(bytes)).into_owned();
    format!(
        "exit {:?} signal {:?} truncated {} bytes {} {}\nstdout {}\nstderr {}",
        output.exit_code,
        output.signal,
        output.truncated,
        output.stdout.len(),
        output.stderr.len(),
        text(&output.stdout),
        text(&output.stderr)
    )
}

fn not_run(error: process::Error) -> HookError {
    match error {
        process::Error::Denied(what) => HookError::Denied(what),
        process::Error::Timeout(output) => {
            HookError::Timeout(format!("killed after it wrote {} bytes", output.stdout.len()))
        }
        other => HookError::Internal(format!("{other:?}")),
    }
}

fn failed(error: sql::Error) -> HookError {
    match error {
        sql::Error::Denied(what) => HookError::Denied(what),
        sql::Error::Timeout => HookError::Timeout("the server did not answer".into()),
        sql::Error::Database(error) => HookError::Application(AppError {
            code: error.vendor_code.to_string(),
            message: error.message,
            retryable: false,
        }),
        other => HookError::Internal(format!("{other:?}")),
    }
}

fn failure(kind: &str, words: &str) -> HookError {
    let words = words.to_owned();
    match kind {
        "invalid-settings" => HookError::InvalidSettings(SettingsError {
            pointer: "/validate".into(),
            message: words,
        }),
        "not-applicable" => HookError::NotApplicable(words),
        "denied" => HookError::Denied(words),
        "busy" => HookError::Busy(words),
        "timeout" => HookError::Timeout(words),
        "application" => {
            HookError::Application(AppError { code: "42".into(), message: words, retryable: false })
        }
        _ => HookError::Internal(words),
    }
}

fn results() -> Vec<String> {
    STATE.with_borrow_mut(|state| std::mem::take(&mut state.results))
}

fn metadata() -> Vec<MetadataEntry> {
    let numbered = results().into_iter().enumerate();
    numbered
        .map(|(at, text)| MetadataEntry {
            key: format!("result-{at}"),
            value: MetaValue::Text(text),
        })
        .collect()
}

fn spin() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

fn eat() -> ! {
    let mut eaten = Vec::new();
    loop {
        eaten.push(black_box(vec![1_u8; 1 << 20]));
    }
}
