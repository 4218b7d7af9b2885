//! A file that says it is a hook: checked, compiled and asked what it is, in this process; the agent does
//! it in a child. It is refused in words, or it describes itself as its record could.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // Only there with libFuzzer's compiler: see `fuzz/rustc`.
    #[cfg(fuzzing)]
    if let Err(words) = stillpoint::hook::fuzzing::load(bytes) {
        assert!(words.len() > 10 && !words.chars().any(char::is_control), "{words:?}");
    }
    #[cfg(not(fuzzing))]
    let _ = bytes;
});
