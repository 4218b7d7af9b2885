//! Compiled images: native code that is mapped into this process as it is. The one thing that makes
//! this safe is where the bytes come from, so the check and the load are one function.

use wasmtime::Engine;
use wasmtime::component::Component;

use crate::hook::digest::Digest;

/// Turns the bytes of an image that this machine compiled into a component.
///
/// `recorded` is the digest that was written when the image was compiled, read from a record that
/// only root can write. `None` if the bytes are not those.
pub(crate) fn load(
    engine: &Engine,
    bytes: &[u8],
    recorded: Digest,
) -> Option<wasmtime::Result<Component>> {
    if Digest::of(bytes) != recorded {
        return None;
    }
    // SAFETY: `deserialize` runs whatever native code is in `bytes`, so they must be what
    // `Engine::precompile_component` gave. Their SHA-256 has just been compared with the one that
    // was recorded at that moment in a file that only root can write, and they are a private copy in
    // memory that nobody can change between the comparison and the call.
    Some(unsafe { Component::deserialize(engine, bytes) })
}
