//! Running the tools of a language, and saying how one is installed that is missing.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use super::BuildError;

/// A tool: how it is started, and how it gets onto a machine.
#[derive(Clone, Debug)]
pub(super) struct Tool {
    /// The program, and arguments that belong to its name (`python3 -m ziglang`).
    command: Vec<String>,
    /// What is typed to install it.
    install: &'static str,
    needed_for: Option<&'static str>,
}

impl Tool {
    pub(super) fn new(program: &str, install: &'static str) -> Self {
        Self::of(&[program], install)
    }

    pub(super) fn of(command: &[&str], install: &'static str) -> Self {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        Self { command, install, needed_for: None }
    }

    pub(super) fn needed_for(self, what: &'static str) -> Self {
        Self { needed_for: Some(what), ..self }
    }

    /// As it is typed.
    pub(super) fn name(&self) -> String {
        self.command.join(" ")
    }

    /// What is missing, and how it is installed.
    pub(super) fn missing(&self) -> BuildError {
        BuildError::NoTool {
            tool: self.name(),
            needed_for: self.needed_for,
            install: self.install.to_owned(),
        }
    }

    fn command(&self, directory: &Path) -> Command {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).current_dir(directory).stdin(Stdio::null());
        command
    }

    fn not_started(&self, source: io::Error) -> BuildError {
        match source.kind() {
            io::ErrorKind::NotFound => self.missing(),
            _ => BuildError::Start { tool: self.name(), source },
        }
    }

    /// Runs it in the project; what it says goes to the author, on standard error. Gives what it wrote to
    /// standard output if that is `wanted`.
    ///
    /// # Errors
    /// If it is not there, or fails.
    pub(super) fn run<S: AsRef<OsStr>>(
        &self,
        directory: &Path,
        arguments: &[S],
        wanted: bool,
    ) -> Result<Vec<u8>, BuildError> {
        let mut command = self.command(directory);
        command.args(arguments).stderr(Stdio::inherit());
        match wanted {
            true => command.stdout(Stdio::piped()),
            false => command.stdout(io::stderr()),
        };
        let output = command.output().map_err(|error| self.not_started(error))?;
        match output.status.success() {
            true => Ok(output.stdout),
            false => Err(BuildError::Failed {
                command: self.typed(arguments),
                status: output.status.to_string(),
                hint: format!(
                    "its own messages are above: put right what they say, then: stillpoint hook build {}",
                    directory.display()
                ),
            }),
        }
    }

    /// The command line, for messages.
    pub(super) fn typed<S: AsRef<OsStr>>(&self, arguments: &[S]) -> String {
        let arguments = arguments.iter().map(|argument| argument.as_ref().to_string_lossy());
        [self.name()]
            .into_iter()
            .chain(arguments.map(Into::into))
            .collect::<Vec<String>>()
            .join(" ")
    }

    /// The first line that it prints when asked for its version, without its own name in front; nothing
    /// if it cannot be asked.
    pub(super) fn version(&self, directory: &Path, argument: &str) -> String {
        let answer = self.command(directory).arg(argument).stderr(Stdio::null()).output();
        let Ok(answer) = answer else { return String::new() };
        let text = String::from_utf8_lossy(&answer.stdout);
        let line = text.lines().next().unwrap_or_default().trim();
        let name = Path::new(&self.command[0]).file_name().unwrap_or_default().to_string_lossy();
        line.strip_prefix(&*name).unwrap_or(line).trim().to_owned()
    }

    /// Whether it can be started and says that it is well.
    pub(super) fn answers(&self, directory: &Path, argument: &str) -> bool {
        let mut command = self.command(directory);
        let ended = command.arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status();
        ended.is_ok_and(|status| status.success())
    }
}
