//! A hook for tests that imports the minimal part of WASI. Its one setting, `commands`, is what it
//! does in `pre-freeze`; what the commands give is returned as metadata.
//!
//! `now` · `wall` · `random 8` · `environment` · `stdin` · `stdout words` · `stderr words` ·
//! `part words` (no line's end) · `sleep 50` · `until 50` · `poll 50` · `flood 1000` · `streams 10` ·
//! `exit`

use std::cell::RefCell;

wit_bindgen::generate!({
    path: ["../../../hooks-sdk/wit/since_v0_1_0", "wit"],
    world: "stillpoint:test-wasi/guest",
    generate_all,
});

use exports::stillpoint::hook::lifecycle::{Description, Frozen, Guest, Outcome, Plan};
use stillpoint::hook::types::{Consistency, HookError, MetaValue, MetadataEntry};
use wasi::cli::{environment, exit, stderr, stdin, stdout};
use wasi::clocks::{monotonic_clock, wall_clock};
use wasi::io::poll::poll;
use wasi::io::streams::OutputStream;
use wasi::random::random;

thread_local!(static COMMANDS: RefCell<Vec<String>> = RefCell::default());

struct Wasi;
export!(Wasi);

impl Guest for Wasi {
    fn describe() -> Description {
        Description {
            name: "wasi".into(),
            version: "0.1.0".into(),
            summary: "asks WASI for everything".into(),
            settings_schema: String::new(),
            needs: Vec::new(),
            freeze_budget_ms: 100,
        }
    }

    fn validate(_settings: String) -> Result<(), HookError> {
        Ok(())
    }

    fn prepare(settings: String) -> Result<Plan, HookError> {
        let wrong = |error: serde_json::Error| HookError::Internal(error.to_string());
        let settings: serde_json::Value = serde_json::from_str(&settings).map_err(wrong)?;
        let commands = settings["commands"].as_array().into_iter().flatten();
        let commands = commands.filter_map(|command| command.as_str().map(str::to_owned));
        COMMANDS.set(commands.collect());
        Ok(Plan { paths: Vec::new(), summary: String::new() })
    }

    fn pre_freeze() -> Result<Frozen, HookError> {
        let commands = COMMANDS.with_borrow(Clone::clone);
        let results = commands.iter().map(|command| act(command)).enumerate();
        let metadata = results.map(|(at, text)| MetadataEntry {
            key: format!("result-{at}"),
            value: MetaValue::Text(text),
        });
        Ok(Frozen { consistency: Consistency::Application, metadata: metadata.collect() })
    }

    fn confirm() -> Result<(), HookError> {
        Ok(())
    }

    fn post_thaw(_outcome: Outcome) -> Result<Vec<MetadataEntry>, HookError> {
        Ok(Vec::new())
    }

    fn finish() -> Result<(), HookError> {
        Ok(())
    }
}

fn act(command: &str) -> String {
    let (verb, rest) = command.split_once(' ').unwrap_or((command, ""));
    let number = rest.parse::<u64>().unwrap_or(0);
    match verb {
        "now" => (monotonic_clock::now() <= monotonic_clock::now()).to_string(),
        "wall" => wall_clock::now().seconds.to_string(),
        "random" => format!("{} bytes", random::get_random_bytes(number).len()),
        "environment" => format!(
            "{:?} {:?} {:?}",
            environment::get_environment(),
            environment::get_arguments(),
            environment::initial_cwd()
        ),
        "stdin" => format!("{:?}", stdin::get_stdin().blocking_read(1)),
        "stdout" => write(&stdout::get_stdout(), &format!("{rest}\n")),
        "stderr" => write(&stderr::get_stderr(), &format!("{rest}\n")),
        "part" => write(&stdout::get_stdout(), rest),
        "sleep" => {
            monotonic_clock::subscribe_duration(number * 1_000_000).block();
            "slept".into()
        }
        "until" => {
            monotonic_clock::subscribe_instant(monotonic_clock::now() + number * 1_000_000).block();
            "slept".into()
        }
        "poll" => {
            let waits: Vec<_> = (1..=3_u64)
                .map(|turn| monotonic_clock::subscribe_duration(turn * number * 1_000_000))
                .collect();
            format!("{:?}", poll(&waits.iter().collect::<Vec<_>>()))
        }
        "flood" => {
            let out = stdout::get_stdout();
            (0..number).for_each(|line| drop(write(&out, &format!("{line:0>99}\n"))));
            "flooded".into()
        }
        "streams" => {
            let all: Vec<_> = (0..number).map(|_| stdout::get_stdout()).collect();
            format!("{} streams", all.len())
        }
        "exit" => {
            exit::exit(Err(()));
            "came back".into()
        }
        other => format!("no such command: {other}"),
    }
}

fn write(stream: &OutputStream, text: &str) -> String {
    format!("{:?}", stream.blocking_write_and_flush(text.as_bytes()))
}
