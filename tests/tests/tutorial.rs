//! docs/writing-hooks.md, tried as a new user would, word by word: every block that begins with `sh` or
//! `diff`, in order. Two things are put in place of what the text says, because no test touches this
//! machine's own: where stillpoint's configuration is, and where the server's socket is.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use stillpoint_tests::command::describe;
use stillpoint_tests::example_hooks::built;
use stillpoint_tests::rig::Rig;
use stillpoint_tests::stillpoint::workspace;

const LONGEST: Duration = Duration::from_secs(600);

/// The blocks that a reader types or applies, with the line that each begins in.
#[derive(Debug)]
struct Block {
    line: usize,
    language: String,
    text: String,
}

fn blocks(document: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in document.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(language), None) => {
                let language = language.to_owned();
                open = Some(Block { line: number + 1, language, text: String::new() });
            }
            (None, Some(block)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}

/// Somebody at a terminal, in a directory of their own.
struct Reader {
    home: PathBuf,
    directory: PathBuf,
    programs: PathBuf,
}

impl Reader {
    /// `stillpoint` and `mariadb` are those of the rig.
    fn of(rig: &Rig) -> Result<Self> {
        let home = rig.lab.directory().join("reader");
        let programs = home.join("bin");
        fs::create_dir_all(&programs)?;
        let (binary, root) = (rig.stillpoint.binary(), rig.stillpoint.root());
        let lab = rig.lab.directory();
        let stillpoint = format!(
            "STILLPOINT_LAB='{}' exec '{}' --root '{}' \"$@\"",
            lab.display(),
            binary.display(),
            root.display()
        );
        let socket = rig.server.socket().display();
        let mariadb = format!("exec /usr/bin/mariadb --no-defaults -u root -S '{socket}' \"$@\"");
        for (name, command) in [("stillpoint", stillpoint), ("mariadb", mariadb)] {
            let path = programs.join(name);
            fs::write(&path, format!("#!/bin/sh\n{command}\n"))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        Ok(Self { directory: home.clone(), home, programs })
    }

    /// Types a block, and stays where it went to.
    fn types(&mut self, script: &str) -> Result<()> {
        let place = self.home.join("place");
        let whole = format!("set -euo pipefail\n{script}\npwd >'{}'\n", place.display());
        let path = std::env::var("PATH").unwrap_or_default();
        let mut shell = Command::new("bash");
        shell.args(["-c", &whole]).current_dir(&self.directory);
        shell.env("PATH", format!("{}:{path}", self.programs.display()));
        let output = shell.output()?;
        ensure!(output.status.success(), "{}", describe(&shell, &output));
        self.directory = PathBuf::from(fs::read_to_string(place)?.trim());
        Ok(())
    }

    /// Applies a change, as an editor would: it must fit exactly.
    fn applies(&self, change: &str) -> Result<()> {
        let file = self.home.join("change.diff");
        fs::write(&file, change)?;
        let mut patch = Command::new("patch");
        patch.args(["-p1", "--fuzz=0", "-i"]).arg(&file).current_dir(&self.directory);
        let output = patch.output()?;
        ensure!(output.status.success(), "{}", describe(&patch, &output));
        Ok(())
    }
}

#[test]
fn the_tutorial_works_word_by_word() -> Result<()> {
    if built("javascript")?.is_none() {
        return Ok(());
    }
    let rig = Rig::without_hook(LONGEST)?;
    let document = fs::read_to_string(workspace().join("docs/writing-hooks.md"))?;
    let mut reader = Reader::of(&rig)?;
    let mut tried = 0;
    for block in blocks(&document) {
        let began = Instant::now();
        let done = match block.language.as_str() {
            "sh" => reader.types(&placed(&block.text, &rig)),
            "diff" => reader.applies(&block.text),
            _ => continue,
        };
        done.with_context(|| format!("docs/writing-hooks.md:{}\n{}", block.line, block.text))?;
        println!("line {}: {:.1} s", block.line, began.elapsed().as_secs_f64());
        tried += 1;
    }
    ensure!(tried >= 10, "only {tried} blocks");

    let manifest = rig.stillpoint.listed_manifest("first")?;
    ensure!(manifest.level()? == "application");
    ensure!(manifest.saved("my-database", "gtid")?.is_some(), "the change is not in what was run");
    rig.stillpoint.delete(manifest.group()?)?;
    rig.finish()
}

fn placed(text: &str, rig: &Rig) -> String {
    let configuration = rig.stillpoint.root().join("etc/stillpoint").display().to_string();
    text.replace("/etc/stillpoint", &configuration)
        .replace("/run/mysqld/mysqld.sock", &rig.server.socket().display().to_string())
}

/// What the tutorial says of the other languages: each command is in that language's own README.
#[test]
fn the_commands_of_the_other_languages_are_those_of_their_readmes() -> Result<()> {
    let document = fs::read_to_string(workspace().join("docs/writing-hooks.md"))?;
    let columns = ["javascript", "typescript", "python", "rust", "c", "zig"];
    for row in ["tools", "tests", "component", "documentation"] {
        let line = document.lines().find(|line| line.starts_with(&format!("| {row} |")));
        let line = line.with_context(|| format!("no row {row}"))?;
        for (language, cell) in columns.iter().zip(line.split('|').skip(2)) {
            let readme = readme(language)?;
            for command in cell.trim().trim_matches('`').split(" && ") {
                let command = command.replace("my-database", "mariadb-lock");
                ensure!(readme.contains(&command), "{language}: `{command}` is not in its README");
            }
        }
    }
    Ok(())
}

fn readme(language: &str) -> Result<String> {
    let path: &Path = &workspace().join("examples/hooks").join(language).join("README.md");
    fs::read_to_string(path).with_context(|| path.display().to_string())
}
