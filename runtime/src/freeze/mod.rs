//! Thaw by hand, recovery after a crash, and the probe that tells whether a file system is frozen.

pub(crate) fn touch_stdin() -> i32 {
    0
}
