//! `rcu_expedited`: with it raised, a first freeze of a superblock waits about 2 ms for the grace
//! periods in `percpu_rwsem` instead of 17–27 ms. It is one number for the whole machine, so it is
//! raised for a run only, journalled before, and put back by whoever of us is left.

use std::fs;
use std::io;
use std::path::Path;

const EXPEDITED: &str = "/sys/kernel/rcu_expedited";
/// When set, it overrides `rcu_expedited` (real-time machines): then we leave both alone.
const NORMAL: &str = "/sys/kernel/rcu_normal";
/// What we write.
const OURS: u32 = 1;

/// The value to put back later, if there is anything to raise.
pub(crate) fn value_to_raise() -> io::Result<Option<u32>> {
    let raised_already = read(EXPEDITED)? != 0;
    let overridden = read(NORMAL)? != 0;
    Ok((!raised_already && !overridden).then_some(0))
}

/// Grace periods are expedited now, by us or by whoever set it before.
pub(crate) fn is_in_force() -> bool {
    matches!((read(EXPEDITED), read(NORMAL)), (Ok(1..), Ok(0)))
}

/// Raises it.
pub(crate) fn raise() -> io::Result<()> {
    fs::write(EXPEDITED, OURS.to_string())
}

/// Puts `before` back, unless somebody else has changed it in the meantime.
pub(crate) fn restore(before: u32) -> io::Result<()> {
    if read(EXPEDITED)? == OURS { fs::write(EXPEDITED, before.to_string()) } else { Ok(()) }
}

fn read(path: impl AsRef<Path>) -> io::Result<u32> {
    fs::read_to_string(path)?
        .trim()
        .parse()
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}
