//! An application for the tests of the hook `exec`: `stand_in_application WORD NAME`. The file `held` in
//! the directory that `STAND_IN_APPLICATION` names says whether it is quiesced, `log` which words it was
//! called with, and the lines of `told` how it misbehaves: `WORD before|after hang|CODE TIMES`.

#![expect(clippy::exit, reason = "its exit codes are what it is for")]
#![expect(clippy::print_stdout, reason = "what it writes goes to the hook's log")]

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};

fn main() -> Result<()> {
    let directory = std::env::var_os("STAND_IN_APPLICATION").context("no STAND_IN_APPLICATION")?;
    let directory = PathBuf::from(directory);
    let words: Vec<String> = std::env::args().skip(1).collect();
    let word = words.first().context("no word")?;
    let note = |text: String| -> Result<()> {
        let log = OpenOptions::new().append(true).create(true).open(directory.join("log"));
        Ok(writeln!(log?, "{text}")?)
    };
    note(words.join(" "))?;
    println!("{word} was called");
    misbehave(&directory, word, "before")?;
    let held = directory.join("held");
    match word.as_str() {
        "quiesce" => fs::write(&held, "")?,
        "release" if held.exists() => fs::remove_file(&held)?,
        "confirm" if !held.exists() => std::process::exit(1),
        _ => {}
    }
    misbehave(&directory, word, "after")?;
    note(format!("{word}: done"))
}

fn misbehave(directory: &std::path::Path, word: &str, when: &str) -> Result<()> {
    let path = directory.join("told");
    let told = fs::read_to_string(&path).unwrap_or_default();
    let mut lines: Vec<String> = told.lines().map(str::to_owned).collect();
    let begin = format!("{word} {when} ");
    let Some(line) = lines.iter_mut().find(|line| line.starts_with(&begin)) else { return Ok(()) };
    let rest = line.trim_start_matches(&begin).to_owned();
    let (what, times) = rest.split_once(' ').context("no number of times")?;
    let left = times.parse::<u32>()?.saturating_sub(1);
    *line = format!("{begin}{what} {left}");
    lines.retain(|line| !line.ends_with(" 0"));
    fs::write(&path, lines.join("\n"))?;
    if what != "hang" {
        std::process::exit(what.parse()?);
    }
    fs::write(directory.join("hangs"), word)?;
    loop {
        std::thread::park();
    }
}
