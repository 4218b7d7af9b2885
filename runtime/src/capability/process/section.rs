//! `[[program]]` for a grant file, printed from what a hook asks for.

use std::path::{Path, PathBuf};

use super::file::ProgramFile;
use crate::capability::template::quoted;
use crate::config::grants::{DEFAULT_USER, ProgramLimits, is_command_name};
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

/// A program that is there and could be granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundProgram {
    /// Its file, links followed.
    pub path: PathBuf,
    /// In hexadecimal.
    pub sha256: String,
}

/// The file of a command in the usual directories, if it keeps the rules.
#[must_use]
pub fn find_program(command: &str) -> Option<FoundProgram> {
    if !is_command_name(command) {
        return None;
    }
    DIRECTORIES.iter().find_map(|directory| {
        let path = std::fs::canonicalize(Path::new(directory).join(command)).ok()?;
        let file = ProgramFile::open(&path).ok().flatten()?;
        Some(FoundProgram { sha256: file.sha256().ok()?, path })
    })
}

/// A ready section: everything that is asked for, for the operator to read and to shorten. Without a
/// file all of it is a comment, because nothing could be run. Pure.
#[must_use]
pub fn grant_section(ask: &ProgramAsk<'_>, found: Option<&FoundProgram>) -> String {
    let needed = if ask.required { "required" } else { "optional" };
    let mut text = format!("# {} ({needed})\n", clean(ask.reason, 500));
    let mut body = format!("[[program]]\ncommand = {}\n", quoted(ask.command));
    let (path, sha256) = match found {
        Some(found) => (found.path.to_string_lossy().into_owned(), found.sha256.as_str()),
        None => {
            text.push_str("# It was not found here: write its path, and take the `# ` away.\n");
            ("/…".to_owned(), "…")
        }
    };
    body.push_str(&format!("path = {}\n", quoted(&path)));
    body.push_str(&format!("# digest = \"sha256:{sha256}\"  # this very file and no other\n"));
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
        "user = {}\ngroups = []\n# environment = {{ NAME = \"…\" }}  # beside PATH\n# writable = [\"/…\"]           # it may write nowhere else\n[program.limits]\nseconds = {}\nmemory-bytes = {}\nprocesses = {}\ncpu = {:?}\noutput-bytes = {}\n",
        quoted(DEFAULT_USER),
        limits.seconds,
        limits.memory_bytes,
        limits.processes,
        limits.cpu,
        limits.output_bytes,
    ));
    match found {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::connections::Connections;
    use crate::config::grants::HookGrant;
    use crate::paths::Paths;

    const MODULE: &str =
        "module = \"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"\n";

    fn read(section: &str) -> HookGrant {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        std::fs::create_dir_all(paths.grants()).unwrap();
        let file = paths.grants().join("db.toml");
        std::fs::write(&file, format!("{MODULE}{section}")).unwrap();
        HookGrant::load(&file, &Connections::load(&paths).unwrap()).unwrap()
    }

    fn ask<'a>(
        command: &'a str,
        arguments: &'a [Vec<String>],
        stdin: &'a [String],
    ) -> ProgramAsk<'a> {
        ProgramAsk { command, arguments, stdin, reason: "to hold\nstill", required: true }
    }

    #[test]
    fn a_section_of_a_program_that_is_here_grants_what_is_asked_and_no_more() {
        let arguments = [vec!["-e".into(), "print \"a\\n\"\n".into()], vec!["--sid={name}".into()]];
        let stdin = ["one\ntwo\u{202e}".to_owned()];
        let found = find_program("perl").unwrap();
        let section = grant_section(&ask("perl", &arguments, &stdin), Some(&found));
        assert!(section.starts_with("# to hold still (required)\n[[program]]\n"), "{section}");
        assert!(section.contains(&format!("# digest = \"sha256:{}\"", found.sha256)), "{section}");
        assert!(!section.contains('\u{202e}'), "{section}");
        let grant = &read(&section).programs["perl"];
        assert_eq!(grant.path, found.path);
        assert_eq!(grant.arguments.len(), 2);
        assert!(grant.arguments[0].matches(&arguments[0]));
        assert!(grant.arguments[1].matches(&["--sid=ORCL".into()]));
        assert_eq!(grant.stdin.iter().collect::<Vec<_>>(), [&stdin[0]]);
        assert_eq!(
            (grant.user.name.as_str(), grant.limits),
            (DEFAULT_USER, ProgramLimits::default())
        );
        // As it would be with the digest.
        let pinned = section.replace("# digest", "digest");
        assert_eq!(read(&pinned).programs["perl"].digest.unwrap().hex(), found.sha256);
    }

    #[test]
    fn a_section_of_a_program_that_is_not_here_grants_nothing() {
        let arguments = [vec!["a\nb".into()]];
        assert_eq!(find_program("no-such-program"), None);
        for name in ["../bin/perl", "", "a/b"] {
            assert_eq!(find_program(name), None);
        }
        let section = grant_section(&ask("no-such-program", &arguments, &[]), None);
        assert!(section.lines().all(|line| line.starts_with('#')), "{section}");
        assert!(read(&section).programs.is_empty());
        let by_hand: String = section
            .lines()
            .filter_map(|line| {
                line.strip_prefix("# ")
                    .filter(|line| !line.starts_with("to hold") && !line.starts_with("It was"))
            })
            .map(|line| format!("{}\n", line.replace("/…", "/usr/bin/perl")))
            .collect();
        assert_eq!(read(&by_hand).programs.len(), 1);
    }
}
