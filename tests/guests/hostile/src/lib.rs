//! A hook that attacks. Its settings are JSON: for each phase a list of attacks, tried in order; what
//! came of each is returned as metadata of `pre-freeze` and `post-thaw`, and as the summary of
//! `prepare`. An attack is a list of words, the first of which names it; see [`attack`].
//!
//! What Rust cannot say (lies about the binary interface, forged handles, bombs in the module itself)
//! is in `runtime/tests/hostile`, as text.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::hint::black_box;

wit_bindgen::generate!({ path: "../../../hooks-sdk/wit/since_v0_1_0", world: "hook" });

mod asks;

use exports::stillpoint::hook::lifecycle::{Description, Frozen, Guest, Outcome, Plan};
use stillpoint::hook::types::{
    AppError, Consistency, HookError, MetaValue, MetadataEntry, SettingsError,
};
use stillpoint::hook::{kv, log, process, run, sql};

/// What one phase tries.
type Attacks = Vec<Vec<String>>;

#[derive(Default)]
struct State {
    script: BTreeMap<String, Attacks>,
    sessions: BTreeMap<String, sql::Connection>,
    hoard: Vec<sql::Connection>,
    paths: Vec<String>,
    results: Vec<String>,
    metadata: Vec<MetadataEntry>,
}

thread_local!(static STATE: RefCell<State> = RefCell::default());
// Another instance, or another call, sees another number.
thread_local!(static CALLS: Cell<u32> = const { Cell::new(0) });

struct Hostile;
export!(Hostile);

impl Guest for Hostile {
    fn describe() -> Description {
        CALLS.set(CALLS.get() + 1);
        asks::description()
    }

    fn validate(settings: String) -> Result<(), HookError> {
        remember(&settings)?;
        play("validate")
    }

    fn prepare(settings: String) -> Result<Plan, HookError> {
        remember(&settings)?;
        play("prepare")?;
        let paths = STATE.with_borrow_mut(|state| std::mem::take(&mut state.paths));
        Ok(Plan { paths, summary: results().join("; ") })
    }

    fn pre_freeze() -> Result<Frozen, HookError> {
        play("pre-freeze")?;
        Ok(Frozen { consistency: Consistency::Application, metadata: metadata() })
    }

    fn confirm() -> Result<(), HookError> {
        play("confirm")
    }

    fn post_thaw(_outcome: Outcome) -> Result<Vec<MetadataEntry>, HookError> {
        play("post-thaw")?;
        Ok(metadata())
    }

    fn finish() -> Result<(), HookError> {
        play("finish")
    }
}

fn remember(settings: &str) -> Result<(), HookError> {
    let script = serde_json::from_str(settings).map_err(|error| {
        HookError::InvalidSettings(SettingsError { pointer: "".into(), message: error.to_string() })
    })?;
    STATE.with_borrow_mut(|state| state.script = script);
    Ok(())
}

fn play(phase: &str) -> Result<(), HookError> {
    let attacks = STATE.with_borrow(|state| state.script.get(phase).cloned());
    for words in attacks.unwrap_or_default() {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let result = attack(&words)?;
        STATE.with_borrow_mut(|state| state.results.push(result));
    }
    Ok(())
}

/// Tries one thing. `Ok` has what came of it; what was refused begins with `refused`.
fn attack(words: &[&str]) -> Result<String, HookError> {
    let number = |at: usize| words.get(at).and_then(|word| word.parse::<usize>().ok()).unwrap_or(0);
    match words {
        // Databases.
        ["open", name, connection] => Ok(match sql::open(connection) {
            Ok(session) => {
                STATE.with_borrow_mut(|state| state.sessions.insert((*name).into(), session));
                "open".into()
            }
            Err(error) => refused(&error),
        }),
        ["close", name] => {
            Ok(format!("{}", STATE.with_borrow_mut(|s| s.sessions.remove(*name).is_some())))
        }
        ["sql", name, text] => Ok(on(name, |session| told(session.query(text, &[], None)))),
        ["sql-with", name, text, value] => {
            let value = [sql::Value::Text((*value).into())];
            Ok(on(name, |session| told(session.query(text, &value, None))))
        }
        ["sql-ms", name, text, _] => {
            let limit = number(3) as u64 * 1_000_000;
            Ok(on(name, |session| told(session.query(text, &[], Some(limit)))))
        }
        ["long-sql", name, _] => {
            let text = "SELECT 1 ".repeat(number(2) / 9);
            Ok(on(name, |session| told(session.query(&text, &[], None))))
        }
        ["many-parameters", name, text, _] => {
            let values = vec![sql::Value::Null; number(3)];
            Ok(on(name, |session| told(session.query(text, &values, None))))
        }
        ["hoard", connection] => Ok(hoard(connection)),
        ["churn", connection, text, _] => Ok(churn(connection, text, number(3))),
        // Programs and state.
        ["run", command, arguments @ ..] => Ok(program(command, arguments, None)),
        ["run-with", command, script, arguments @ ..] => {
            Ok(program(command, arguments, Some(script.as_bytes())))
        }
        ["kv-set", key, _] => Ok(told(kv::set(key, &vec![b'x'; number(2)]))),
        ["kv-get", key] => Ok(told(kv::get(key))),
        ["kv-fill", _] => Ok(kv_fill(number(1))),
        ["kv-long-key", _] => Ok(told(kv::set(&"k".repeat(number(1)), b"x"))),
        // Words.
        ["log", text] => {
            log::write(log::Level::Error, text, &[]);
            Ok("logged".into())
        }
        ["log-fields", _] => {
            let fields: Vec<_> = (0..number(1)).map(|n| (format!("f{n}"), "x".into())).collect();
            log::write(log::Level::Error, "fields", &fields);
            Ok("logged".into())
        }
        ["log-flood", count, _] => {
            let text = "x".repeat(number(2));
            match *count {
                "forever" => loop {
                    log::write(log::Level::Error, &text, &[]);
                },
                _ => (0..number(1)).for_each(|_| log::write(log::Level::Error, &text, &[])),
            }
            Ok("logged".into())
        }
        ["long-log", _] => {
            log::write(log::Level::Error, &"x".repeat(number(1)), &[]);
            Ok("logged".into())
        }
        ["fail", kind, text] => Err(failure(kind, text)),
        ["long-failure", _] => Err(HookError::Internal("x".repeat(number(1)))),
        ["say", text] => Ok((*text).into()),
        // What is kept and planned.
        ["metadata", key, value] => {
            keep(key, MetaValue::Text((*value).into()));
            Ok("kept".into())
        }
        ["metadata-flood", _, _] => {
            (0..number(1))
                .for_each(|n| keep(&format!("k{n}"), MetaValue::Text("x".repeat(number(2)))));
            Ok("kept".into())
        }
        ["metadata-bytes", _] => {
            keep("bytes", MetaValue::Bytes(vec![0xff; number(1)]));
            Ok("kept".into())
        }
        ["held", nanoseconds] => {
            keep("held-before-freeze-ns", MetaValue::Integer(nanoseconds.parse().unwrap_or(0)));
            Ok("kept".into())
        }
        ["path", path] => {
            STATE.with_borrow_mut(|state| state.paths.push((*path).into()));
            Ok("named".into())
        }
        ["path-flood", _, path] => {
            STATE.with_borrow_mut(|state| {
                (0..number(1)).for_each(|n| state.paths.push(format!("{path}{n}")));
            });
            Ok("named".into())
        }
        ["long-path", _] => {
            STATE.with_borrow_mut(|state| state.paths.push(format!("/{}", "x".repeat(number(1)))));
            Ok("named".into())
        }
        // Time and memory.
        ["sleep", milliseconds] => {
            run::sleep(milliseconds.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(1_000_000));
            Ok("slept".into())
        }
        ["sleep-forever"] => loop {
            run::sleep(u64::MAX);
        },
        ["ask-forever"] => loop {
            black_box(run::remaining());
        },
        ["loop"] => spin(),
        ["recurse"] => Ok(recurse(1).to_string()),
        ["eat"] => eat(),
        ["panic"] => panic!("told to \u{1b}[31mpanic"),
        ["unreachable"] => std::process::abort(),
        // What it may know.
        ["granted"] => Ok(sql::granted().join(",")),
        ["calls"] => Ok(CALLS.get().to_string()),
        other => Err(HookError::Internal(format!("no such attack: {other:?}"))),
    }
}

fn refused(error: &impl std::fmt::Debug) -> String {
    format!("refused: {error:?}")
}

fn told<T: std::fmt::Debug, E: std::fmt::Debug>(result: Result<T, E>) -> String {
    match result {
        Ok(value) => format!("through: {value:?}"),
        Err(error) => refused(&error),
    }
}

fn on(name: &str, call: impl FnOnce(&sql::Connection) -> String) -> String {
    STATE.with_borrow(|state| call(&state.sessions[name]))
}

/// Opens sessions until it is stopped, and keeps them all.
fn hoard(connection: &str) -> String {
    loop {
        match sql::open(connection) {
            Ok(session) => STATE.with_borrow_mut(|state| state.hoard.push(session)),
            Err(error) => {
                let count = STATE.with_borrow(|state| state.hoard.len());
                return format!("refused after {count}: {error:?}");
            }
        }
    }
}

/// Opens a session, leaves it in the middle of a statement, and opens the next.
fn churn(connection: &str, text: &str, times: usize) -> String {
    let mut opened = 0;
    for _ in 0..times {
        match sql::open(connection) {
            Ok(session) => {
                opened += 1;
                let _ = session.query(text, &[], Some(1_000_000));
            }
            Err(error) => return format!("refused after {opened}: {error:?}"),
        }
    }
    format!("opened {opened}")
}

fn program(command: &str, arguments: &[&str], script: Option<&[u8]>) -> String {
    let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
    told(process::run(command, &arguments, script, None))
}

/// Fills the state with small keys until it is stopped.
fn kv_fill(size: usize) -> String {
    let value = vec![b'x'; size];
    let mut kept = 0;
    loop {
        match kv::set(&format!("key-{kept}"), &value) {
            Ok(()) => kept += 1,
            Err(error) => return format!("refused after {kept}: {error:?}"),
        }
    }
}

fn failure(kind: &str, words: &str) -> HookError {
    let words = words.to_owned();
    match kind {
        "invalid-settings" => {
            HookError::InvalidSettings(SettingsError { pointer: words.clone(), message: words })
        }
        "not-applicable" => HookError::NotApplicable(words),
        "denied" => HookError::Denied(words),
        "busy" => HookError::Busy(words),
        "timeout" => HookError::Timeout(words),
        "application" => HookError::Application(AppError {
            code: words.clone(),
            message: words,
            retryable: false,
        }),
        _ => HookError::Internal(words),
    }
}

fn keep(key: &str, value: MetaValue) {
    let entry = MetadataEntry { key: key.into(), value };
    STATE.with_borrow_mut(|state| state.metadata.push(entry));
}

fn results() -> Vec<String> {
    STATE.with_borrow_mut(|state| std::mem::take(&mut state.results))
}

fn metadata() -> Vec<MetadataEntry> {
    let numbered = results().into_iter().enumerate();
    let said = numbered.map(|(at, text)| MetadataEntry {
        key: format!("result-{at}"),
        value: MetaValue::Text(text.chars().take(4000).collect()),
    });
    let kept = STATE.with_borrow_mut(|state| std::mem::take(&mut state.metadata));
    said.chain(kept).collect()
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

fn recurse(depth: u64) -> u64 {
    if black_box(depth) == u64::MAX {
        return 0;
    }
    let frame = black_box([depth; 64]);
    recurse(depth + 1) + frame[(depth % 64) as usize]
}
