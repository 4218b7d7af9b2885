//! What was tried, and what came of it: each attack is refused in clean words and in bounded time and
//! memory, or it got through.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use stillpoint::hook::{HookFailure, HookLoadError, StoreError};

/// More than this may no attack make the process grow, in bytes: the guest's 64 MiB, what the host
/// copies, and a compiler at work.
const MOST_GROWTH: u64 = 320 << 20;

/// Longer than this may nothing take, a compiler's child that is given up included: what takes longer
/// has no bound. Not a measure of speed: tests run beside each other on slow machines.
const LONGEST: Duration = Duration::from_secs(150);

/// A refusal that names nothing is none.
const SHORTEST_WORDS: usize = 12;
const LONGEST_WORDS: usize = 8_000;

/// How an attack was refused.
#[derive(Debug)]
pub struct Refused {
    /// Everything that the operator would read.
    pub words: String,
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self { words: with_hint(chain(&error), error.hint()) }
    }
}

impl From<HookLoadError> for Refused {
    fn from(error: HookLoadError) -> Self {
        Self { words: with_hint(chain(&error), error.hint()) }
    }
}

impl From<HookFailure> for Refused {
    fn from(failure: HookFailure) -> Self {
        Self { words: with_hint(failure.to_string(), failure.hint) }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, "; {error}");
        cause = error.source();
    }
    text
}

fn with_hint(text: String, hint: Option<String>) -> String {
    match hint {
        Some(hint) => format!("{text}; hint: {hint}"),
        None => text,
    }
}

/// What every attack came to, by family.
#[derive(Debug, Default)]
pub struct Table {
    families: BTreeMap<&'static str, (usize, usize)>,
    through: Vec<String>,
}

impl Table {
    /// Makes an attack, and judges what comes of it. `expected` is in the words of its refusal.
    pub async fn attack<T: std::fmt::Debug>(
        &mut self,
        family: &'static str,
        name: impl std::fmt::Display,
        expected: &str,
        attempt: impl Future<Output = Result<T, Refused>>,
    ) {
        forget_peak();
        let (before, began) = (resident(), Instant::now());
        let outcome = attempt.await;
        let (took, grown) = (began.elapsed(), peak().saturating_sub(before));
        let verdict = match outcome {
            Err(refused) => judge(&refused.words, expected),
            Ok(reached) => Err(format!("it was not refused: {}", short(&format!("{reached:?}")))),
        };
        let verdict = verdict.and_then(|words| match (took > LONGEST, grown > MOST_GROWTH) {
            (true, _) => Err(format!("it took {took:.1?}")),
            (_, true) => Err(format!("the agent grew by {} MiB", grown >> 20)),
            _ => Ok(words),
        });
        if std::env::var_os("STILLPOINT_HOSTILE_VERBOSE").is_some() {
            println!("{family}: {name}: {took:.1?}, {} MiB: {verdict:?}", grown >> 20);
        }
        self.count(family, name, verdict.map(drop));
    }

    /// Counts what was judged elsewhere.
    pub fn count(
        &mut self,
        family: &'static str,
        name: impl std::fmt::Display,
        verdict: Result<(), String>,
    ) {
        let (tried, refused) = self.families.entry(family).or_default();
        *tried += 1;
        match verdict {
            Ok(()) => *refused += 1,
            Err(why) => self.through.push(format!("{family}: {name}: {why}")),
        }
    }

    /// Prints the table.
    ///
    /// # Panics
    /// If anything got through.
    pub fn finish(self) {
        println!("{:<44} {:>6} {:>8} {:>12}", "attacks", "tried", "refused", "got through");
        let mut all = (0, 0);
        for (family, (tried, refused)) in &self.families {
            println!("{family:<44} {tried:>6} {refused:>8} {:>12}", tried - refused);
            all = (all.0 + tried, all.1 + refused);
        }
        println!("{:<44} {:>6} {:>8} {:>12}", "all", all.0, all.1, all.0 - all.1);
        assert!(self.through.is_empty(), "got through:\n{}", self.through.join("\n"));
    }
}

/// Typed and worded: something that can be acted on, on clean lines, and what was expected.
fn judge(words: &str, expected: &str) -> Result<String, String> {
    if let Some(odd) = words.chars().find(|&c| is_hidden(c)) {
        return Err(format!("{odd:?} reaches the operator's terminal: {}", short(words)));
    }
    let length = words.chars().count();
    if !(SHORTEST_WORDS..=LONGEST_WORDS).contains(&length) {
        return Err(format!("a refusal of {length} characters: {}", short(words)));
    }
    if !words.contains(expected) {
        return Err(format!("refused, but not as expected ({expected}): {}", short(words)));
    }
    Ok(short(words))
}

/// What a terminal would act on, or not show.
pub fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{e0000}'..='\u{e0fff}')
}

fn short(text: &str) -> String {
    text.chars().take(300).flat_map(char::escape_debug).collect()
}

fn status(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_start_matches(':').trim().split(' ').next().unwrap().parse::<u64>().unwrap() << 10
}

fn resident() -> u64 {
    status("VmRSS")
}

fn peak() -> u64 {
    status("VmHWM")
}

fn forget_peak() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}
