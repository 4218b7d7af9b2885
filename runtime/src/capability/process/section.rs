//! `[[program]]` for a grant file, printed from what a hook asks for.

use std::path::{Path, PathBuf};

use super::file::ProgramFile;
use crate::capability::template::quoted;
use crate::config::grants::DEFAULT_USER;
use crate::config::grants::ProgramLimits;
use crate::hook::text::clean;

/// Where programs are looked for.
const DIRECTORIES: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// What a hook asks for: one program of its `describe`.
#[derive(Clone, Copy, Debug)]
pub struct ProgramAsk<'a> {
    /// The name by which it will ask.
    pub command: &'a str,
    /// Its argument lists.
    pub arguments: &'a [Vec<String>],
    /// Its texts for standard input.
    pub stdin: &'a [String],
    /// Why.
    pub reason: &'a str,
    /// It cannot work without.
    pub required: bool,
}

/// The file of a command in the usual directories, if it could be granted: links followed, rules kept.
#[must_use]
pub fn find_program(command: &str) -> Option<PathBuf> {
    if !crate::config::grants::is_command_name(command) {
        return None;
    }
    DIRECTORIES.iter().find_map(|directory| {
        let real = std::fs::canonicalize(Path::new(directory).join(command)).ok()?;
        ProgramFile::open(&real).ok().flatten().map(|_| real)
    })
}

/// A ready section: everything that is asked for, for the operator to read and to shorten. Without a
/// file all of it is a comment, because nothing could be run. Pure.
#[must_use]
pub fn grant_section(ask: &ProgramAsk<'_>, file: Option<&Path>) -> String {
    let needed = if ask.required { "required" } else { "optional" };
    let mut text = format!("# {} ({needed})\n", clean(ask.reason, 500));
    let mut body = format!("[[program]]\ncommand = {}\n", quoted(ask.command));
    match file {
        Some(file) => body.push_str(&format!("path = {}\n", quoted(&file.to_string_lossy()))),
        None => {
            text.push_str("# It was not found here: write its path, and take the `# ` away.\n");
            body.push_str("path = \"/…\"\n");
        }
    }
    body.push_str("# digest = \"sha256:…\"         # this very file and no other\n");
    body.push_str("arguments = [\n");
    for words in ask.arguments {
        body.push_str(&format!("    {}\n", argument_line(words)));
    }
    body.push_str("]\n");
    if !ask.stdin.is_empty() {
        body.push_str("stdin = [\n");
        for script in ask.stdin {
            body.push_str(&format!("    {},\n", quoted(script)));
        }
        body.push_str("]\n");
    }
    let limits = ProgramLimits::default();
    body.push_str(&format!(
        "user = {}\ngroups = []\n# environment = {{ ORACLE_SID = \"…\" }}\n# writable = [\"/…\"]           # it may write nowhere else\n[program.limits]\nseconds = {}\nmemory-bytes = {}\nprocesses = {}\ncpu = {:?}\noutput-bytes = {}\n",
        quoted(DEFAULT_USER),
        limits.seconds,
        limits.memory_bytes,
        limits.processes,
        limits.cpu,
        limits.output_bytes,
    ));
    match file {
        Some(_) => text.push_str(&body),
        None => text.extend(body.lines().map(|line| format!("# {line}\n"))),
    }
    text
}

/// One line of `arguments`.
pub(crate) fn argument_line<S: AsRef<str>>(words: &[S]) -> String {
    let words: Vec<String> = words.iter().map(|word| quoted(word.as_ref())).collect();
    format!("[{}],", words.join(", "))
}
