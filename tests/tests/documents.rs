//! What the documents of the project promise by name.

use anyhow::{Context, Result, ensure};
use stillpoint_tests::stillpoint::workspace;

#[test]
fn every_test_that_the_threat_model_names_exists() -> Result<()> {
    let text = std::fs::read_to_string(workspace().join("THREAT-MODEL.md"))?;
    let named: Vec<(&str, &str)> =
        text.split('`').filter_map(|word| word.split_once(".rs::")).collect();
    ensure!(named.len() > 30, "only {} tests are named", named.len());
    for (file, test) in named {
        let path = workspace().join(format!("{file}.rs"));
        let source =
            std::fs::read_to_string(&path).with_context(|| format!("{file}.rs::{test}"))?;
        // A function, or a case of the suite that has a main of its own.
        let exists =
            source.contains(&format!("fn {test}(")) || source.contains(&format!("\"{test}\""));
        ensure!(exists, "THREAT-MODEL.md names {file}.rs::{test}, which does not exist");
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
