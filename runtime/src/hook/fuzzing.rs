//! For `fuzz/fuzz_targets/component.rs` alone; not there in any other build.

use std::sync::OnceLock;
use std::time::Duration;

use super::component::{NotAHook, compile, wasi_imports};
use super::engine::HookEngine;
use super::since_v0_1_0::Ready;
use super::wasm::describe;
use crate::time::Deadline;

/// Longer than a description of a few bytes takes, shorter than a fuzzer's patience.
const DESCRIBE: Duration = Duration::from_millis(500);

/// Checks and compiles a component, and asks it what it is.
///
/// # Errors
/// In the words that the operator would read.
pub fn load(bytes: &[u8]) -> Result<(), String> {
    static ENGINE: OnceLock<HookEngine> = OnceLock::new();
    let engine = match ENGINE.get() {
        Some(engine) => engine,
        None => {
            let engine = HookEngine::start().map_err(|error| error.to_string())?;
            ENGINE.get_or_init(|| engine)
        }
    };
    let words = |NotAHook { problem, hint }| format!("{problem}; {hint}");
    let component = compile(engine.engine(), bytes).map_err(words)?;
    let wasi = !wasi_imports(engine.engine(), &component).is_empty();
    let ready = Ready::new(engine.engine(), &component, wasi)
        .map_err(|_| "it does not fit the contract")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let described = runtime.block_on(describe(engine, &ready, Deadline::after(DESCRIBE)));
    described.map(drop).map_err(|(problem, _)| format!("its `describe` failed: {problem}"))
}
