//! A build without the feature `failpoints`, as every release is, has nothing of them.

#![cfg(not(feature = "failpoints"))]

use stillpoint::failpoint::{ALL, BREAKS, VARIABLE};

#[test]
fn a_build_without_the_feature_has_no_failpoint_and_no_way_to_arm_one() {
    let program = std::fs::read(env!("CARGO_BIN_EXE_stillpoint")).unwrap();
    // As text: the standard library's search is optimised in a debug build, too.
    let program = String::from_utf8_lossy(&program);
    let has = |text: &str| program.contains(text);
    assert!(has("stillpoint-guard"), "this is not the program");
    let steps = ALL.iter().map(|name| name.split_once('.').unwrap().1);
    for name in ALL.iter().copied().chain(steps).chain(BREAKS.iter().copied()).chain([VARIABLE]) {
        assert!(!has(name), "{name} is in the program");
    }
}
