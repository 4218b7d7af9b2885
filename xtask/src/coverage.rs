//! What LLVM's coverage export says of some files: whether every branch was taken both ways, and which
//! regions of code were never executed; tests themselves left out.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// A place in a file: line and column of its begin, then of its end.
type Span = (u64, u64, u64, u64);

/// What was counted in one file.
#[derive(Debug, Default)]
struct Counts {
    regions: BTreeMap<Span, u64>,
    branches: BTreeMap<Span, (u64, u64)>,
}

/// A table of the files in `export`, and whether every branch of all of them was taken both ways. What
/// was never executed is listed, too; mostly it is the way out of an error that no test can cause.
/// `source` gives a file's text: the tests at its end are not counted.
///
/// # Errors
/// If the export is not one, or does not have a file.
pub fn judge(
    export: &str,
    files: &[String],
    source: impl Fn(&str) -> Result<String>,
) -> Result<(String, bool)> {
    let export: Value = serde_json::from_str(export).context("the export is not JSON")?;
    let all = counts(&export);
    let mut table = format!("{:<48} {:>14} {:>14}\n", "file", "regions", "branches");
    let mut unreached = String::new();
    let mut missing = String::new();
    for file in files {
        let found = all.iter().find(|(name, _)| name.ends_with(file.as_str()));
        let (_, counts) = found.with_context(|| format!("nothing of {file} was measured"))?;
        let text = source(file)?;
        let lines: Vec<&str> = text.lines().collect();
        let tests =
            lines.windows(2).position(|two| two[0] == "#[cfg(test)]" && two[1].ends_with('{'));
        let last = tests.map_or(u64::MAX, |line| line as u64 + 1);
        let regions: Vec<_> = counts.regions.iter().filter(|(span, _)| span.0 < last).collect();
        let branches: Vec<_> = counts.branches.iter().filter(|(span, _)| span.0 < last).collect();
        let reached = regions.iter().filter(|(_, count)| **count > 0).count();
        let ways =
            branches.iter().map(|(_, (yes, no))| usize::from(*yes > 0) + usize::from(*no > 0));
        let taken: usize = ways.sum();
        ensure!(!regions.is_empty(), "nothing of {file} was measured");
        let _ = writeln!(
            table,
            "{file:<48} {:>14} {:>14}",
            format!("{reached}/{}", regions.len()),
            format!("{taken}/{}", 2 * branches.len())
        );
        for (span, _) in regions.iter().filter(|(_, count)| **count == 0) {
            let _ = writeln!(unreached, "{file}:{}:{}: never executed", span.0, span.1);
        }
        for (span, (yes, no)) in &branches {
            for (way, count) in [("true", yes), ("false", no)] {
                if *count == 0 {
                    let _ = writeln!(missing, "{file}:{}:{}: never {way}", span.0, span.1);
                }
            }
        }
    }
    table.push_str(&unreached);
    table.push_str(&missing);
    Ok((table, missing.is_empty()))
}

/// Regions and branches by file; of several instances of one function, each counts.
fn counts(export: &Value) -> BTreeMap<String, Counts> {
    let mut all: BTreeMap<String, Counts> = BTreeMap::new();
    let functions = export.pointer("/data/0/functions").and_then(Value::as_array);
    for function in functions.into_iter().flatten() {
        let names = function.get("filenames").and_then(Value::as_array);
        let names: Vec<&str> = names.into_iter().flatten().filter_map(Value::as_str).collect();
        for region in numbers(function, "regions") {
            // Begin, end, count, file, expanded file, kind: code is 0.
            let [a, b, c, d, count, file, _, 0] = region[..] else { continue };
            if let Some(name) = names.get(file as usize) {
                let known = all.entry((*name).to_owned()).or_default();
                *known.regions.entry((a, b, c, d)).or_default() += count;
            }
        }
        for branch in numbers(function, "branches") {
            let [a, b, c, d, yes, no, file, ..] = branch[..] else { continue };
            if let Some(name) = names.get(file as usize) {
                let known = all.entry((*name).to_owned()).or_default();
                let counted = known.branches.entry((a, b, c, d)).or_default();
                *counted = (counted.0 + yes, counted.1 + no);
            }
        }
    }
    all
}

fn numbers(function: &Value, key: &str) -> Vec<Vec<u64>> {
    let lists = function.get(key).and_then(Value::as_array);
    let numbers = |list: &Value| {
        list.as_array().map(|list| list.iter().filter_map(Value::as_u64).collect::<Vec<u64>>())
    };
    lists.into_iter().flatten().filter_map(numbers).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn export(region: u64, no: u64) -> String {
        serde_json::json!({"data": [{"functions": [{
            "filenames": ["/x/a.rs"],
            "regions": [[1, 1, 2, 1, region, 0, 0, 0], [9, 1, 9, 5, 0, 0, 0, 0]],
            "branches": [[1, 4, 1, 6, 3, no, 0, 0, 4]],
        }]}]})
        .to_string()
    }

    fn judged(export: &str) -> (String, bool) {
        let source = |_: &str| Ok("fn a() {}\n#[cfg(test)]\nmod tests {\n}\n".to_owned());
        judge(export, &["a.rs".to_owned()], source).unwrap()
    }

    #[test]
    fn what_is_reached_whole_is_enough_and_tests_do_not_count() {
        let (table, enough) = judged(&export(1, 1));
        assert!(enough && table.contains("1/1") && table.contains("2/2"), "{table}");
    }

    #[test]
    fn a_branch_taken_one_way_and_a_region_never_executed_are_named() {
        let (table, enough) = judged(&export(0, 0));
        assert!(!enough);
        assert!(table.contains("a.rs:1:1: never executed"), "{table}");
        assert!(table.contains("a.rs:1:4: never false"), "{table}");
    }

    #[test]
    fn a_file_that_was_not_measured_is_an_error() {
        assert!(judge(&export(1, 1), &["b.rs".to_owned()], |_| Ok(String::new())).is_err());
    }
}
