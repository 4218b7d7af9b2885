//! How much of this machine's memory waits to be written: `/proc/meminfo`.

/// Of all file systems together, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// Changed, and not yet on its way.
    pub(super) dirty: u64,
    /// On its way to a disk.
    pub(super) in_flight: u64,
}

/// Zero where it cannot be read: then there is nothing to do.
pub(super) fn now() -> Memory {
    parse(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default())
}

fn parse(text: &str) -> Memory {
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = line?.trim().strip_suffix("kB")?.trim_end().parse::<u64>().ok()?;
        kib.checked_mul(1024)
    };
    Memory {
        dirty: of("Dirty").unwrap_or_default(),
        in_flight: of("Writeback").unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Memory, parse};

    #[test]
    fn both_figures_are_read_and_others_of_similar_names_are_not() {
        let text = "MemTotal: 100 kB\nDirty:               128 kB\nWriteback:             4 kB\n\
                    WritebackTmp:          9 kB\n";
        assert_eq!(parse(text), Memory { dirty: 131_072, in_flight: 4096 });
    }

    #[test]
    fn what_is_not_understood_is_nothing() {
        for text in ["", "Dirty: many kB", "Dirty: 1", "Dirty", "Dirty: 99999999999999999999 kB"] {
            assert_eq!(parse(text), Memory::default(), "{text}");
        }
    }
}
