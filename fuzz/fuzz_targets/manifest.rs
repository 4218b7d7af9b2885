//! A manifest that somebody changed: it is read as it was written, or refused; what is shown of it has
//! nothing that a terminal acts on.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stillpoint::manifest::Manifest;
use stillpoint::output::{human, json};

fuzz_target!(|text: &[u8]| {
    let Ok(manifest) = serde_json::from_slice::<Manifest>(text) else { return };
    let written = json::text(&manifest).unwrap_or_default();
    let again: Result<Manifest, _> = serde_json::from_str(&written);
    assert_eq!(again.ok().as_ref(), Some(&manifest));
    let shown = human::visible(&human::manifest(&manifest));
    let odd = |c: char| c != '\n' && (c.is_control() || ('\u{200b}'..='\u{200f}').contains(&c));
    assert!(!shown.contains(odd) && !written.contains(odd), "{shown}");
});
