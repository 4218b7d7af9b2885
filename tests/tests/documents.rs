//! What the documents of the project promise by name.

use anyhow::{Context, Result, ensure};
use stillpoint_tests::stillpoint::workspace;

/// Documents whose lines name the tests that enforce them, and how many tests they name at least.
const CLAIMING: [(&str, usize); 2] = [("THREAT-MODEL.md", 30), ("PROMISES.md", 20)];

#[test]
fn every_test_that_a_document_names_exists() -> Result<()> {
    for (document, at_least) in CLAIMING {
        let text = std::fs::read_to_string(workspace().join(document))?;
        let named: Vec<(&str, &str)> =
            text.split('`').filter_map(|word| word.split_once(".rs::")).collect();
        ensure!(named.len() >= at_least, "{document} names only {} tests", named.len());
        for (file, test) in named {
            let path = workspace().join(format!("{file}.rs"));
            let source =
                std::fs::read_to_string(&path).with_context(|| format!("{file}.rs::{test}"))?;
            // A function, or a case of a suite that has a main of its own.
            let exists =
                source.contains(&format!("fn {test}(")) || source.contains(&format!("\"{test}\""));
            ensure!(exists, "{document} names {file}.rs::{test}, which does not exist");
        }
    }
    Ok(())
}

#[test]
fn every_line_of_the_threat_model_names_its_test_or_says_that_there_is_none() -> Result<()> {
    let text = std::fs::read_to_string(workspace().join("THREAT-MODEL.md"))?;
    let claims = text.lines().filter(|line| {
        let row = line.starts_with("| ") && !line.contains("| test |");
        row || line.starts_with("- **")
    });
    for line in claims {
        ensure!(line.contains(".rs::") || line.contains("no test yet"), "no test is named: {line}");
    }
    Ok(())
}

#[test]
fn every_promise_names_its_test_or_says_that_it_is_pending() -> Result<()> {
    let text = std::fs::read_to_string(workspace().join("PROMISES.md"))?;
    let promises: Vec<&str> = text.lines().filter(|line| line.starts_with("| I")).collect();
    ensure!(promises.len() == 15, "there are {} promises", promises.len());
    for line in promises {
        ensure!(line.contains(".rs::") || line.contains("test pending"), "no test: {line}");
    }
    Ok(())
}
