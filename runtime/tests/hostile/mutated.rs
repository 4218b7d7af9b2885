//! Components that were cut short or changed: refused, or as harmless as any. Nothing may bring the
//! process down, take long, or grow it. Seeds are printed with what went wrong.

use std::time::{Duration, Instant};

use super::module::{Module, sections};
use super::{Refused, Table, guest, whole_life};

const CUT: &str = "truncated components";
const CHANGED: &str = "mutated components";

/// Mutants of the small component, and of the guest, which takes the compiler longer.
const SMALL: u64 = 200;
const LARGE: u64 = 10;

/// Reproduces the corpus.
const SEED: u64 = 0x5717_11e5_0003_0007;

pub async fn attack(table: &mut Table) {
    let small = small();
    for cut in cuts(&small, 1).chain(cuts(guest(), 12)) {
        let bytes = if cut.1 { guest() } else { &small };
        let name = format!("cut at {} of {}", cut.0, bytes.len());
        table.attack(CUT, name, "not a hook", whole_life(&bytes[..cut.0])).await;
    }
    println!("mutants: seed {SEED:#x}, {SMALL} small and {LARGE} large");
    for (bytes, count) in [(small.as_slice(), SMALL), (guest(), LARGE)] {
        for number in 0..count {
            let mutant = mutated(bytes, SEED ^ number);
            table.count(CHANGED, format!("mutant {number}"), harmless(&mutant, number).await);
        }
    }
}

/// A component that uses most of the format: imports, memory, tables, data, code.
pub fn small() -> Vec<u8> {
    Module::new()
        .imports("(import \"stillpoint:hook/log@0.1.0\" \"write\" (func $log (param i32 i32 i32 i32 i32)))")
        .items("(table 4 funcref) (elem (i32.const 0) $realloc)")
        .body("pre-freeze", "i32.const 2 i32.const 60 i32.const 7 i32.const 0 i32.const 0 call $log i32.const 1024")
        .component()
}

/// Places to cut: around each section's beginning, and every so often between.
fn cuts(bytes: &[u8], every: usize) -> impl Iterator<Item = (usize, bool)> {
    let is_large = bytes.len() > 10_000;
    let mut at: Vec<usize> = sections(bytes).flat_map(|(_, at)| [at, at + 1, at + 2]).collect();
    let step = if is_large { bytes.len() / every } else { 97 };
    at.extend((0..bytes.len()).step_by(step));
    at.sort_unstable();
    at.dedup();
    let most = bytes.len();
    // What is cut exactly between two sections can be a whole, smaller component.
    let boundaries: Vec<usize> = sections(bytes).map(|(_, at)| at).collect();
    at.into_iter()
        .filter(move |at| *at < most && !boundaries.contains(at))
        .map(move |at| (at, is_large))
}

/// One to eight changes: bits, bytes, interesting numbers, pieces removed, doubled and moved.
fn mutated(bytes: &[u8], seed: u64) -> Vec<u8> {
    let mut random = Random(seed | 1);
    let mut bytes = bytes.to_vec();
    for _ in 0..=random.below(8) {
        let at = 8 + random.below(bytes.len() - 8);
        let length = 1 + random.below(32).min(bytes.len() - at - 1);
        match random.below(6) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = u8::try_from(random.below(256)).unwrap(),
            2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff, 0x0b][random.below(6)],
            3 => drop(bytes.drain(at..at + length)),
            4 => {
                let piece = bytes[at..at + length].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => {
                let from = 8 + random.below(bytes.len() - 8);
                let piece = bytes[from..(from + length).min(bytes.len())].to_vec();
                let end = (at + piece.len()).min(bytes.len());
                bytes.splice(at..end, piece);
            }
        }
    }
    bytes
}

/// Whatever a mutant does, it ends in time; if it is refused, in words.
async fn harmless(mutant: &[u8], number: u64) -> Result<(), String> {
    let began = Instant::now();
    let outcome = whole_life(mutant).await;
    let took = began.elapsed();
    if took > Duration::from_secs(150) {
        return Err(format!("seed {SEED:#x}, mutant {number} took {took:?}"));
    }
    match outcome {
        Err(Refused { words })
            if words.is_empty() || words.chars().any(super::table::is_hidden) =>
        {
            Err(format!("seed {SEED:#x}, mutant {number}: {words:?}"))
        }
        _ => Ok(()),
    }
}

/// A generator that is the same everywhere (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d);
        usize::try_from(number % most as u64).unwrap()
    }
}
