//! The WebAssembly engine: one configuration for compiling and running, and a ticker that always
//! runs, so that no guest can loop for ever.

use std::hash::{Hash, Hasher};
use std::time::Duration;
use std::{fmt, io, thread};

use sha2::{Digest as _, Sha256};
use wasmtime::{Config, Engine, OptLevel};

use super::digest::hex;

/// How often a guest is looked at. A guest's loop ends at most this long after its deadline.
const TICK: Duration = Duration::from_millis(2);

/// The guest's stack, in bytes; enough for interpreters (CPython, JavaScript).
const GUEST_STACK: usize = 512 << 10;

/// Guest and host functions share this stack, in bytes.
const CALL_STACK: usize = 2 << 20;

/// An engine with its ticker. Clones are the same engine.
#[derive(Clone)]
pub(crate) struct HookEngine {
    engine: Engine,
    hash: String,
}

impl fmt::Debug for HookEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HookEngine").field("hash", &self.hash).finish_non_exhaustive()
    }
}

/// The engine could not be started.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// WebAssembly cannot run on this machine.
    #[error("the WebAssembly engine does not start: {0}")]
    Engine(String),
    /// No thread for the ticker.
    #[error("the ticker thread does not start")]
    Ticker(#[source] io::Error),
}

impl HookEngine {
    /// Starts an engine. Its ticker ends with the last clone.
    pub(crate) fn start() -> Result<Self, EngineError> {
        let engine =
            Engine::new(&config()).map_err(|error| EngineError::Engine(format!("{error:#}")))?;
        let hash = compatibility_hash(&engine);
        start_ticker(&engine).map_err(EngineError::Ticker)?;
        Ok(Self { engine, hash })
    }

    /// The engine.
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Names every setting that an image depends on, in 16 hexadecimal digits: an image runs only in
    /// an engine with the same.
    pub(crate) fn hash(&self) -> &str {
        &self.hash
    }
}

/// The one configuration, for the engine that compiles and the engine that runs. No WASI, no fuel:
/// time is bounded by epochs, memory by the store's limiter. No threads: a guest that waits for a
/// notification of another thread blocks ours, which no epoch interrupts.
fn config() -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .wasm_threads(false)
        .epoch_interruption(true)
        .consume_fuel(false)
        .cranelift_opt_level(OptLevel::Speed)
        .max_wasm_stack(GUEST_STACK)
        .async_stack_size(CALL_STACK);
    config
}

/// Advances the epoch as long as the engine is used. Always running: a store whose deadline is
/// never looked at would be a guest that is never stopped.
fn start_ticker(engine: &Engine) -> io::Result<()> {
    let weak = engine.weak();
    thread::Builder::new().name("hook-ticker".into()).spawn(move || {
        while let Some(engine) = weak.upgrade() {
            engine.increment_epoch();
            drop(engine);
            thread::sleep(TICK);
        }
    })?;
    Ok(())
}

/// The standard hasher may change between Rust versions, and the result is kept in file names.
fn compatibility_hash(engine: &Engine) -> String {
    struct Stable(Sha256);
    impl Hasher for Stable {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
        fn finish(&self) -> u64 {
            0
        }
    }
    let mut hasher = Stable(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hex(&hasher.0.finalize()[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_engines_of_one_configuration_share_images() {
        let (one, other) = (HookEngine::start().unwrap(), HookEngine::start().unwrap());
        assert_eq!(one.hash(), other.hash());
        assert_eq!(one.hash().len(), 16);
    }
}
