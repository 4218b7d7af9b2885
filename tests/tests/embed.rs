//! The runtime embedded by another program, with a provider of its own: `examples/embed`.

use std::time::Duration;

use anyhow::{Result, ensure};
use stillpoint_tests::command::output_of;
use stillpoint_tests::lab::{FsSpec, FsType, Lab};
use stillpoint_tests::stillpoint::workspace;

#[test]
fn a_program_of_sixty_lines_freezes_with_a_provider_of_its_own() -> Result<()> {
    let lab = Lab::new(&[FsSpec::new("a", FsType::Ext4, 64)], Duration::from_secs(60))?;
    let source = std::fs::read_to_string(workspace().join("examples/embed/src/main.rs"))?;
    ensure!(source.lines().count() < 60, "it has {} lines", source.lines().count());
    let said = output_of(lab.command("cargo").current_dir(workspace()).args([
        "run",
        "--quiet",
        "-p",
        "embed",
        "--",
        lab.mount("a").to_str().unwrap_or_default(),
    ]))?;
    ensure!(said.starts_with("level file-system, "), "{said}");
    std::fs::write(lab.mount("a").join("after"), "writable")?;
    lab.finish()
}
