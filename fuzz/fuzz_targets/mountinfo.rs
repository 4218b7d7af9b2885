//! `/proc/self/mountinfo`: mount points and sources are anybody's text. One mount for each line, or an
//! error that names the line; paths are absolute.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stillpoint::plan::{MountTable, parse_mountinfo};

fuzz_target!(|text: &[u8]| {
    let lines = text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).count();
    match parse_mountinfo(text) {
        Ok(mounts) => {
            assert_eq!(mounts.len(), lines);
            let table = MountTable::new(&mounts);
            for mount in mounts.iter().take(50) {
                let _ = table.resolve(&mount.mount_point);
                let _ = table.is_reachable(mount);
            }
        }
        Err(error) => assert!(error.line >= 1 && !error.to_string().is_empty()),
    }
});
