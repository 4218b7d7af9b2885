#![doc = include_str!("../README.md")]

// The generated code names this crate by its outside name.
extern crate self as stillpoint_hook;

#[doc(hidden)]
pub mod bindings;
mod error;
mod export;
mod hook;
mod host;
#[cfg(target_arch = "wasm32")]
mod imports;
pub mod kv;
pub mod log;
pub mod process;
pub mod run;
pub mod sql;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

pub use hook::{
    AppError, CapabilityNeed, Consistency, Description, Frozen, HELD_BEFORE_FREEZE, Hook,
    HookError, KvNeed, MetaValue, MetadataEntry, Outcome, Phase, Plan, ProgramNeed, SettingsError,
    SqlNeed,
};
#[doc(hidden)]
pub use wit_bindgen::rt;
