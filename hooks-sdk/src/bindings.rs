//! The generated side of the contract: types for every target, imports and exports for wasm.
//!
//! The only place with `unsafe` in this crate, and all of it is generated: the canonical ABI passes
//! strings and lists as raw pointers into linear memory. Nothing here is for authors; what they
//! use is re-exported one name at a time, by the modules beside this one. No lint expectation is needed:
//! the lints do not look into what an outside macro expands to, and an `expect` would be unfulfilled.

wit_bindgen::generate!({
    path: "wit/since_v0_1_1",
    world: "hook",
    additional_derives: [PartialEq],
    pub_export_macro: true,
    export_macro_name: "__export_hook_world",
    default_bindings_module: "stillpoint_hook::bindings",
    runtime_path: "::stillpoint_hook::rt",
});
