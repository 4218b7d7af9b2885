//! Hooks as their authors make them: `hook new`, `hook build`, `hook test`, with the tools of each language.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::example_hooks::{project, ran};
use crate::stillpoint::{binary, workspace};

/// The languages whose compilers make modules.
pub const COMPILED: [&str; 4] = ["c", "zig", "rust", "go"];

/// What the author of a hook has at hand.
#[derive(Debug)]
pub struct Tools {
    path: String,
}

impl Tools {
    /// Those that a script of ours installs. Absent only if they cannot be had, and
    /// `STILLPOINT_OFFLINE=1` says that this is to be expected.
    ///
    /// # Errors
    /// If they cannot be installed.
    pub fn installed() -> Result<Option<Self>> {
        let Some(bin) = ran("scripts/setup-languages", &[])? else { return Ok(None) };
        let path = std::env::var("PATH").unwrap_or_default();
        Ok(Some(Self { path: format!("{}:{path}", bin.trim()) }))
    }

    /// None at all.
    #[must_use]
    pub fn none() -> Self {
        Self { path: String::new() }
    }

    /// A command with the tools in its path, and with what they keep in `target/`.
    pub fn command(&self, program: impl AsRef<OsStr>, directory: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(directory)
            .env("PATH", &self.path)
            .env("CARGO_TARGET_DIR", workspace().join("target/languages"))
            .env("GOCACHE", workspace().join("target/languages/go"))
            .env("GOTOOLCHAIN", "local")
            .env("ZIG_GLOBAL_CACHE_DIR", workspace().join("target/languages/zig"));
        command
    }

    /// `stillpoint --json ARGUMENTS`
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn stillpoint(&self, directory: &Path, arguments: &[&str]) -> Result<Ended> {
        Ended::of(self.command(binary()?, directory).arg("--json").args(arguments))
    }

    /// A new project of that name. In languages with an interpreter it has the tools of the example, which
    /// must be there already: [`ran`]`("scripts/example-hooks", …)`.
    ///
    /// # Errors
    /// If it is not made.
    pub fn new_project(&self, directory: &Path, name: &str, language: &str) -> Result<PathBuf> {
        self.stillpoint(directory, &["hook", "new", name, "--lang", language])?.succeeded()?;
        let made = directory.join(name);
        match language {
            "python" => symlink(project(language).join(".venv"), made.join(".venv"))?,
            "javascript" | "typescript" => link_packages(&project(language), &made)?,
            _ => {}
        }
        Ok(made)
    }

    /// Everything goes wrong for the hook, one at a time, against the server of its template's script.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn conforms(&self, project: &Path, name: &str) -> Result<Ended> {
        self.conforms_with(project, name, &[])
    }

    /// The same, with more options.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn conforms_with(&self, project: &Path, name: &str, more: &[&str]) -> Result<Ended> {
        let component = format!("{name}.wasm");
        let line = ["hook", "test", &component, "--script", "fake.toml", "--conformance"];
        self.stillpoint(project, &[&line, more].concat())
    }
}

/// What npm has installed for the example, and the SDK of this project: as `npm ci` would.
fn link_packages(example: &Path, project: &Path) -> Result<()> {
    let packages = project.join("node_modules");
    fs::create_dir(&packages)?;
    let Ok(entries) = fs::read_dir(example.join("node_modules")) else { return Ok(()) };
    for entry in entries {
        let (name, from) = entry.map(|entry| (entry.file_name(), entry.path()))?;
        let to = packages.join(&name);
        if name == "stillpoint-hook" { symlink("../sdk", to)? } else { symlink(from, to)? }
    }
    Ok(())
}

/// What became of a command.
#[derive(Debug)]
pub struct Ended {
    /// It exited with 0.
    pub ok: bool,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Ended {
    /// Runs it to its end.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn of(command: &mut Command) -> Result<Self> {
        let output = command.output().with_context(|| format!("{command:?}"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Self {
            ok: output.status.success(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        })
    }

    /// The document that it printed.
    ///
    /// # Errors
    /// If it failed.
    pub fn succeeded(&self) -> Result<Value> {
        ensure!(self.ok, "it failed:\n{}\n{}", self.stdout, self.stderr);
        Ok(serde_json::from_str(&self.stdout).unwrap_or(Value::Null))
    }

    /// Message and hint of a failure.
    ///
    /// # Errors
    /// If it succeeded.
    pub fn refused(&self) -> Result<(String, String)> {
        ensure!(!self.ok, "it succeeded:\n{}", self.stdout);
        let document: Value = serde_json::from_str(&self.stdout)
            .with_context(|| format!("{}\n{}", self.stdout, self.stderr))?;
        let text = |key: &str| document["error"][key].as_str().unwrap_or_default().to_owned();
        Ok((text("message"), text("hint")))
    }

    /// Checks for a failure that says this, and whose hint has this command in it.
    ///
    /// # Errors
    /// If it is another one.
    pub fn says(&self, what: &str, next: &str) -> Result<()> {
        let (message, hint) = self.refused()?;
        ensure!(message.contains(what), "not `{what}`: {message}\n{hint}\n{}", self.stderr);
        ensure!(hint.contains(next), "not `{next}`: {hint}");
        Ok(())
    }
}

/// A change of a source by which the author gets something wrong.
///
/// # Errors
/// If the text to be replaced is not there exactly once: then the template has changed.
pub fn replaced(source: &str, good: &str, bad: &str) -> Result<String> {
    let found = source.matches(good).count();
    ensure!(found == 1, "{found} times in the template, and not once: {good}");
    Ok(source.replacen(good, bad, 1))
}

/// The same, in a file.
///
/// # Errors
/// If the text to be replaced is not there exactly once.
pub fn replace_in(file: &Path, changes: &[(&str, &str)]) -> Result<()> {
    let mut text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    for (good, bad) in changes {
        text = replaced(&text, good, bad).with_context(|| file.display().to_string())?;
    }
    Ok(fs::write(file, text)?)
}
