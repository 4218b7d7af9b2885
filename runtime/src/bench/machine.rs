//! What a bench runs on: figures without it mean nothing.

use std::fs;

use super::document::Machine;

/// Asks the machine. What it does not say is empty.
pub(super) fn this_machine() -> Machine {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let uname = nix::sys::utsname::uname().ok();
    let word = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
    Machine {
        host: uname.as_ref().map(|it| word(it.nodename())).unwrap_or_default(),
        kernel: uname
            .as_ref()
            .map(|it| format!("{} {}", word(it.sysname()), word(it.release())))
            .unwrap_or_default(),
        cpus: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        cpu_model: value_of(&read("/proc/cpuinfo"), "model name").unwrap_or_default(),
        memory_bytes: value_of(&read("/proc/meminfo"), "MemTotal")
            .and_then(|value| value.split(' ').next()?.parse::<u64>().ok())
            .map_or(0, |kib| kib * 1024),
        rcu_expedited: fs::read_to_string("/sys/kernel/rcu_expedited")
            .ok()
            .map(|value| value.trim().to_owned()),
    }
}

/// What stands after `key` and a colon in the first line that has it.
fn value_of(text: &str, key: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| value.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_tells_what_it_is() {
        let machine = this_machine();
        assert!(machine.cpus > 0 && machine.memory_bytes > 1 << 20, "{machine:?}");
        assert!(machine.kernel.starts_with("Linux "), "{machine:?}");
    }

    #[test]
    fn a_key_is_found_whole() {
        let text = "MemTotalX: 1 kB\nMemTotal:  24105 kB\n";
        assert_eq!(value_of(text, "MemTotal").unwrap(), "24105 kB");
        assert_eq!(value_of(text, "Mem"), None);
    }
}
