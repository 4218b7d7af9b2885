//! A document as a table for people.

use std::fmt::Write as _;

use super::document::{BenchDocument, Place, Ratio, Set};
use crate::output::human::duration;

/// What a reader sees on a terminal: a table for each measure and load, then where it was measured.
#[must_use]
pub fn table(document: &BenchDocument) -> String {
    let mut out = String::new();
    let mut heading = None;
    for set in &document.sets {
        let own = (set.load, set.measure);
        if heading != Some(own) {
            heading = Some(own);
            let _ = writeln!(
                out,
                "{}{}, {}\n  {:>3}  {:<36} {:>4} {:>9} {:>9} {:>9}{}",
                if out.is_empty() { "" } else { "\n" },
                set.measure.name(),
                set.load.name(),
                "fs",
                "how",
                "n",
                "median",
                "p99",
                "max",
                if document.ratios.is_empty() { "" } else { "  as stillpoint's" }
            );
        }
        let _ = writeln!(out, "{}", line(set, ratio_of(document, set)).trim_end());
    }
    out.push('\n');
    out.push_str(&circumstances(document));
    out
}

fn line(set: &Set, ratio: Option<&Ratio>) -> String {
    // Of fewer than 100 values it would be the greatest.
    let p99 = set.p99_ns.map_or_else(|| "-".to_owned(), duration);
    format!(
        "  {:>3}  {:<36} {:>4} {:>9} {:>9} {:>9}  {}",
        set.file_systems,
        set.method.name(),
        set.n,
        duration(set.median_ns),
        p99,
        duration(set.max_ns),
        ratio.map(times).unwrap_or_default()
    )
}

/// `12.3 times (10.8 to 14.1)`.
pub(super) fn times(ratio: &Ratio) -> String {
    let digits = |value: f64| match value {
        v if v < 10.0 => format!("{v:.2}"),
        v if v < 100.0 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    };
    format!("{} times ({} to {})", digits(ratio.ratio), digits(ratio.low), digits(ratio.high))
}

pub(super) fn ratio_of<'a>(document: &'a BenchDocument, set: &Set) -> Option<&'a Ratio> {
    document.ratios.iter().find(|ratio| {
        ratio.measure == set.measure
            && ratio.method == set.method
            && ratio.load == set.load
            && ratio.file_systems == set.file_systems
    })
}

fn circumstances(document: &BenchDocument) -> String {
    let mut out = String::new();
    for line in about(document) {
        let _ = writeln!(out, "{line}");
    }
    if document.place == Place::Lab {
        let _ = writeln!(out, "seed: {}", document.seed);
    }
    out
}

/// On what it was measured, a line for each thing.
pub(super) fn about(document: &BenchDocument) -> Vec<String> {
    let machine = &document.machine;
    let mut lines = vec![format!(
        "machine: {}, {}, {} CPUs{}, {} MiB of memory, rcu_expedited {}",
        machine.host,
        machine.kernel,
        machine.cpus,
        if machine.cpu_model.is_empty() {
            String::new()
        } else {
            format!(" ({})", machine.cpu_model)
        },
        machine.memory_bytes >> 20,
        machine.rcu_expedited.as_deref().unwrap_or("not there"),
    )];
    lines.extend(images(document));
    let few = document.sets.iter().any(|set| set.p99_ns.is_none());
    if few {
        lines
            .push("p99: only of 100 values and more; of fewer it would be the maximum.".to_owned());
    }
    if !document.ratios.is_empty() {
        lines.push(
            "ratios: of medians; between the brackets 95 of 100 ratios of rounds drawn anew."
                .to_owned(),
        );
    }
    lines.extend(document.notes.iter().cloned());
    lines
}

fn images(document: &BenchDocument) -> Option<String> {
    let first = document.file_systems.first()?;
    if document.place == Place::Here {
        let names: Vec<&str> = document.file_systems.iter().map(|fs| fs.name.as_str()).collect();
        return Some(format!("file systems: {}", names.join(", ")));
    }
    let image = first.image.as_ref()?;
    let range = |of: fn(&super::document::Image) -> Option<u32>| {
        let counts: Vec<u32> =
            document.file_systems.iter().filter_map(|fs| of(fs.image.as_ref()?)).collect();
        match (counts.iter().min(), counts.iter().max()) {
            (Some(least), Some(most)) if least == most => least.to_string(),
            (Some(least), Some(most)) => format!("{least} to {most}"),
            _ => "not told".to_owned(),
        }
    };
    Some(format!(
        "file systems: {} {} in images on {}, loop devices {} direct I/O; extents of an image: {} \
         before, {} after",
        document.file_systems.len(),
        first.fs_type,
        image.on,
        if image.direct_io { "with" } else { "without" },
        range(|image| image.extents_before),
        range(|image| image.extents_after),
    ))
}
