//! What the guest tries while it runs: time, memory, words, floods, things that it was not granted. No
//! database; `tests/tests/hostile.rs` has one.

use std::time::Instant;

use stillpoint::manifest::MetadataValue;

use super::{PHASES, Played, Refused, Table, play, run, with_guest};

const ENDLESS: &str = "endless and fatal things in every export";
const FLOODS: &str = "floods";
const WORDS: &str = "escapes in what a hook says";
const POWERS: &str = "things that were not granted";

/// What ends an instance, or its patience, wherever it is tried; and words of the refusal.
const FATAL: &[(&[&str], &str)] = &[
    (&["loop"], "instance was stopped"),
    (&["recurse"], "trapped"),
    (&["eat"], "memory"),
    (&["panic"], "trapped"),
    (&["unreachable"], "unreachable"),
    (&["ask-forever"], "instance was stopped"),
    (&["sleep-forever"], "instance was stopped"),
    (&["log-flood", "forever", "0"], "instance was stopped"),
    (&["log-flood", "forever", "1000"], "instance was stopped"),
];

/// What is too much at once.
const TOO_MUCH: &[(&str, &[&str], &str)] = &[
    ("pre-freeze", &["metadata-flood", "300", "1"], "metadata entries"),
    ("pre-freeze", &["metadata-flood", "20000", "1"], ""),
    ("post-thaw", &["metadata-flood", "300", "1"], "metadata entries"),
    ("pre-freeze", &["metadata", "key", LONG], "metadata `key`"),
    ("pre-freeze", &["metadata-bytes", "9000"], "metadata `bytes`"),
    ("pre-freeze", &["metadata-bytes", "30000000"], ""),
    ("prepare", &["path-flood", "2000", "/x"], "paths"),
    ("prepare", &["path-flood", "1000000", "/x"], ""),
    ("prepare", &["long-path", "5000"], "path"),
    ("prepare", &["long-path", "30000000"], ""),
    ("confirm", &["long-failure", "30000000"], ""),
    ("confirm", &["long-log", "30000000"], ""),
    ("confirm", &["log-fields", "1000000"], ""),
    ("confirm", &["kv-long-key", "20000000"], ""),
];

/// Longer than a value of metadata may be.
const LONG: &str = "LONG";

/// Paths that are none, or that hide something.
const PATHS: &[&str] = &[
    "",
    ".",
    "..",
    "relative",
    "../../etc",
    "~",
    "file:///etc",
    "C:\\",
    "/a\nb",
    "/a\0b",
    "/\u{1b}[2J",
    "/\u{202e}gpj",
    "/a\u{200b}",
    "\u{2044}etc",
];

/// Words that a terminal would act on.
const TRICK: &str = "a\u{1b}[2J\u{1b}]0;x\u{7}\u{9b}31m\r\u{8}\u{202e}\u{200b}\u{feff}\u{e0041}\nstate: all is well\u{0}";

/// Attacks that are answered by the host and leave the instance alive.
const NOT_GRANTED: &[&[&str]] = &[
    &["open", "A", "main"],
    &["open", "A", ""],
    &["open", "A", "../main"],
    &["open", "A", "main\0"],
    &["open", "A", "MAIN"],
    &["open", "A", "main "],
    &["open", "A", "m\u{430}in"],
    &["open", "A", "main\", statements = [\"DROP TABLE t\"] #"],
    &["open", "A", "\u{1b}[2J"],
    &["run", "/bin/sh", "-c", "id"],
    &["run", "tool", "--version"],
    &["run", "", ""],
    &["kv-set", "key", "1"],
    &["kv-get", "key"],
    &["kv-get", "../../../../etc/shadow"],
];

pub async fn attack(table: &mut Table) {
    for (_, phase) in PHASES {
        for (words, expected) in FATAL {
            let name = format!("{} in {phase}", words.join(" "));
            table.attack(ENDLESS, name, expected, tried(phase, words)).await;
        }
    }
    for (phase, words, expected) in TOO_MUCH {
        let long = "x".repeat(20_000);
        let words: Vec<&str> =
            words.iter().map(|word| if *word == LONG { long.as_str() } else { word }).collect();
        let name = format!("{} in {phase}", words[..2].join(" "));
        table.attack(FLOODS, name, expected, tried(phase, &words)).await;
    }
    for path in PATHS {
        let name = format!("the path {path:?}");
        table.attack("paths that lie", name, "it named", tried("prepare", &["path", path])).await;
    }
    words(table).await;
    powers(table).await;
    table.count(FLOODS, "log lines by the hundred thousand", log_stays_bounded().await);
    table.count(FLOODS, "sleep beyond the deadline", sleep_ends().await);
}

/// One attack in one phase, on a fresh installation.
async fn tried(phase: &str, words: &[&str]) -> Result<Played, Refused> {
    let (installation, digest) = with_guest().await;
    let run = run();
    let script = format!("{phase} = {}\n", serde_json::to_string(&[words]).unwrap());
    installation.grant("attacker", &digest, &[], &script);
    let mut hook = installation.load("attacker", &run).await?;
    play(&mut *hook, &run).await
}

/// Escapes, in everything that a guest can say that reaches an operator.
async fn words(table: &mut Table) {
    for kind in [
        "invalid-settings",
        "not-applicable",
        "denied",
        "busy",
        "timeout",
        "application",
        "internal",
    ] {
        for (_, phase) in PHASES {
            let name = format!("a failure ({kind}) in {phase}");
            table.attack(WORDS, name, "", tried(phase, &["fail", kind, TRICK])).await;
        }
    }
    table
        .attack(WORDS, "a metadata key", "metadata", tried("pre-freeze", &["metadata", TRICK, "x"]))
        .await;
    let value = tried("pre-freeze", &["metadata", "key", TRICK]);
    table.attack(WORDS, "a metadata value", "metadata", value).await;
    let verdict = match tried("prepare", &["say", TRICK]).await {
        Ok(played) if played.summary.chars().any(super::table::is_hidden) => Err(played.summary),
        Ok(_) => Ok(()),
        Err(refused) => Err(refused.words),
    };
    table.count(WORDS, "a summary", verdict);
    let verdict = logged(&["log", TRICK]).await.and_then(|lines| {
        match lines.iter().find(|line| line.chars().any(super::table::is_hidden)) {
            Some(line) => Err(format!("{line:?}")),
            None => Ok(()),
        }
    });
    table.count(WORDS, "a log line", verdict);
}

async fn powers(table: &mut Table) {
    for words in NOT_GRANTED {
        let verdict = match tried("pre-freeze", words).await {
            Ok(played) => match &played.metadata[0].value {
                MetadataValue::Text(text) if text.starts_with("refused") => Ok(()),
                other => Err(format!("{other:?}")),
            },
            Err(refused) => Err(refused.words),
        };
        table.count(POWERS, words.join(" ").escape_debug(), verdict);
    }
}

/// The lines that are kept of what the guest logs in `prepare`.
async fn logged(words: &[&str]) -> Result<Vec<String>, String> {
    let (installation, digest) = with_guest().await;
    let run = run();
    let script = format!("prepare = {}\n", serde_json::to_string(&[words]).unwrap());
    installation.grant("attacker", &digest, &[], &script);
    let mut hook = installation.load("attacker", &run).await.map_err(|error| error.to_string())?;
    hook.prepare(super::plenty()).await.map_err(|failure| failure.to_string())?;
    Ok(run.logs.drain().lines.into_iter().map(|line| line.message).collect())
}

/// However long or short the lines: a bounded number of bytes, and of lines.
async fn log_stays_bounded() -> Result<(), String> {
    for size in ["0", "1", "100", "100000"] {
        let count = if size.len() > 3 { "200" } else { "100000" };
        let lines = logged(&["log-flood", count, size]).await?;
        let bytes: usize = lines.iter().map(String::len).sum();
        if bytes > 64 << 10 || lines.len() > 10_000 {
            return Err(format!("lines of {size}: {} lines, {bytes} bytes are kept", lines.len()));
        }
    }
    Ok(())
}

/// A guest that sleeps comes back at its deadline by itself, and is not refused: it cannot do better.
async fn sleep_ends() -> Result<(), String> {
    let began = Instant::now();
    tried("pre-freeze", &["sleep", "99999999999999999"]).await.map_err(|refused| refused.words)?;
    let took = began.elapsed();
    if took.as_millis() < u128::from(super::DEADLINE) || took.as_secs() > 5 {
        return Err(format!("it took {took:?}"));
    }
    Ok(())
}
