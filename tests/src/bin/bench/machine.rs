//! What the figures were made on.

use std::fmt;
use std::fs;

use anyhow::{Context, Result};
use serde::Serialize;
use stillpoint_tests::command::run;
use stillpoint_tests::peers::qemu_ga;

/// The machine, and how busy it was beside the benchmark.
#[derive(Debug, Serialize)]
pub struct Machine {
    kernel: String,
    cpus: usize,
    cpu: String,
    memory_gib: u64,
    guest_agent: String,
    /// As `/proc/loadavg` has it: 1, 5 and 15 minutes.
    load_at_start: String,
    load_at_end: String,
    /// The build that was measured is one without optimisation.
    debug_build: bool,
}

impl Machine {
    pub fn now() -> Result<Self> {
        let cpus = std::thread::available_parallelism().context("how many CPUs?")?.get();
        let kibibytes: u64 = field("/proc/meminfo", "MemTotal").parse().unwrap_or(0);
        Ok(Self {
            kernel: run("uname", ["-srm"])?.trim().to_owned(),
            cpus,
            cpu: field("/proc/cpuinfo", "model name"),
            memory_gib: kibibytes.div_ceil(1 << 20),
            guest_agent: qemu_ga::version().unwrap_or_else(|_| "no QEMU guest agent".into()),
            load_at_start: load()?,
            load_at_end: String::new(),
            debug_build: cfg!(debug_assertions),
        })
    }

    pub fn end(&mut self) -> Result<()> {
        self.load_at_end = load()?;
        Ok(())
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, cpus, cpu, memory_gib, guest_agent, .. } = self;
        let Self { load_at_start, load_at_end, .. } = self;
        write!(f, "{kernel}, {cpus} × {cpu}, {memory_gib} GiB; {guest_agent}; ")?;
        write!(f, "load {load_at_start} at the start, {load_at_end} at the end.")?;
        if self.debug_build {
            write!(f, " A build without optimisation.")?;
        }
        Ok(())
    }
}

/// The first word, or the words, after `name:`.
fn field(file: &str, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.split_once(':'));
    let value = line.map_or("unknown", |(_, value)| value.trim());
    value.strip_suffix(" kB").unwrap_or(value).to_owned()
}

fn load() -> Result<String> {
    let text = fs::read_to_string("/proc/loadavg").context("/proc/loadavg")?;
    Ok(text.split_whitespace().take(3).collect::<Vec<_>>().join(" "))
}
