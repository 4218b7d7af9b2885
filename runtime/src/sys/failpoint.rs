//! A real segmentation fault, for tests.

/// Writes where nothing is mapped.
pub(crate) fn write_to_nowhere() {
    let nowhere = std::ptr::without_provenance_mut::<u8>(64);
    // SAFETY: it is not, and that is its purpose: the kernel answers with SIGSEGV, for the lowest
    // page is never mapped.
    unsafe { nowhere.write_volatile(1) }
}
