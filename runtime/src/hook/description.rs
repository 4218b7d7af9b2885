//! What a component says about itself, in words that do not depend on the contract's version.

use serde::{Deserialize, Serialize};

use super::schema::SettingsSchema;
use super::text::{clean, is_hidden, visible};
use crate::capability::process::Arguments;
use crate::config::grants::{is_command_name, is_hook_name};

/// More than this nobody reads, in bytes of text; and a record has to stay readable.
const MOST_TEXT: usize = 512 << 10;

/// Needs, statements, arguments and scripts together.
const MOST_TEXTS: usize = 2000;

/// What a component says about itself. Names and version are checked, free text is cleaned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// The component's own name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// One line for people.
    pub summary: String,
    /// JSON Schema (2020-12) of its settings, as text; may be empty.
    pub settings_schema: String,
    /// What it asks for.
    pub needs: Vec<Need>,
    /// How long it would like a phase to be at most, in milliseconds.
    pub freeze_budget_ms: u32,
}

/// One thing that a component asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Need {
    /// Statements on a connection.
    Sql {
        /// The name by which it will ask for the connection.
        connection: String,
        /// The servers that it knows; any if empty.
        engines: Vec<String>,
        /// Whole statements.
        statements: Vec<String>,
        /// Why.
        reason: String,
        /// It cannot work without.
        required: bool,
    },
    /// A program.
    Program {
        /// The name by which it will ask for the program.
        command: String,
        /// The argument lists that it will give.
        arguments: Vec<Vec<String>>,
        /// The scripts that it will give on standard input.
        stdin_scripts: Vec<String>,
        /// Why.
        reason: String,
        /// It cannot work without.
        required: bool,
    },
    /// Small durable state.
    Kv {
        /// How much, in bytes.
        bytes: u32,
        /// Why.
        reason: String,
        /// It cannot work without.
        required: bool,
    },
    /// The minimal part of WASI. Not said by `describe`: its imports say it.
    Wasi {
        /// What it imports of it.
        imports: Vec<String>,
    },
    /// Something that this version does not know.
    Other {
        /// What it is called.
        what: String,
    },
}

impl Description {
    /// Checks name and version, and cleans what is free text.
    ///
    /// # Errors
    /// In words for the hook's author.
    pub(crate) fn checked(mut self) -> Result<Self, String> {
        self.check_size()?;
        if !is_hook_name(&self.name) {
            return Err(format!(
                "it calls itself `{}`; a name has lower-case letters, digits, `-`, `_` and `.`, and at most 64 of them",
                shown(&self.name)
            ));
        }
        let in_version = |c: char| c.is_ascii_alphanumeric() || ".-+".contains(c);
        if self.version.is_empty()
            || self.version.len() > 64
            || !self.version.chars().all(in_version)
        {
            return Err(format!(
                "its version is `{}`; a version has letters, digits, `.`, `-` and `+`, and at most 64 of them",
                shown(&self.version)
            ));
        }
        SettingsSchema::compile(&self.settings_schema)
            .map_err(|why| format!("its settings schema cannot be used: {why}"))?;
        self.summary = clean(&self.summary, 200);
        for need in &mut self.needs {
            need.check()?;
            need.clean();
        }
        Ok(self)
    }

    fn check_size(&self) -> Result<(), String> {
        let texts: Vec<&str> = self.needs.iter().flat_map(Need::texts).collect();
        let own = [&self.name, &self.version, &self.summary, &self.settings_schema];
        let bytes = own.map(String::len).into_iter().chain(texts.iter().map(|text| text.len()));
        let bytes: usize = bytes.sum();
        if texts.len() > MOST_TEXTS || bytes > MOST_TEXT {
            return Err(format!(
                "it says {} texts of {bytes} bytes about itself; {MOST_TEXTS} and {MOST_TEXT} are the most",
                texts.len() + own.len()
            ));
        }
        Ok(())
    }
}

/// A text that may have anything in it, to be shown in an error.
fn shown(text: &str) -> String {
    clean(&visible(text), 200)
}

impl Need {
    /// Statements and arguments are compared, so they are kept as they are or refused; they are
    /// also printed, so what could steer a terminal is refused.
    fn check(&self) -> Result<(), String> {
        let texts: Vec<&String> = match self {
            Need::Sql { connection, statements, .. } => {
                if !is_hook_name(connection) {
                    return Err(format!(
                        "it asks for a connection `{}`; a name has lower-case letters, digits, `-`, `_` and `.`",
                        shown(connection)
                    ));
                }
                statements.iter().collect()
            }
            Need::Program { command, arguments, stdin_scripts, .. } => {
                if !is_command_name(command) {
                    return Err(format!(
                        "it asks for a program `{}`; a name has letters, digits, `-`, `_`, `.` and `+`",
                        shown(command)
                    ));
                }
                for words in arguments {
                    Arguments::parse(words)
                        .map_err(|why| format!("it asks for the program `{command}`: {why}"))?;
                }
                let arguments = arguments.iter().flatten();
                arguments.chain(stdin_scripts).chain([command]).collect()
            }
            Need::Kv { .. } | Need::Wasi { .. } | Need::Other { .. } => Vec::new(),
        };
        let is_odd = |text: &&String| text.chars().any(|c| is_hidden(c) && !"\n\t".contains(c));
        match texts.into_iter().find(is_odd) {
            None => Ok(()),
            Some(odd) => Err(format!("it asks for `{}`, which has hidden characters", shown(odd))),
        }
    }

    /// Every text of it.
    fn texts(&self) -> Vec<&str> {
        match self {
            Need::Sql { connection, engines, statements, reason, .. } => {
                let lists = engines.iter().chain(statements).map(String::as_str);
                lists.chain([connection.as_str(), reason]).collect()
            }
            Need::Program { command, arguments, stdin_scripts, reason, .. } => {
                let lists = arguments.iter().flatten().chain(stdin_scripts).map(String::as_str);
                lists.chain([command.as_str(), reason]).collect()
            }
            Need::Kv { reason, .. } => vec![reason],
            Need::Wasi { imports } => imports.iter().map(String::as_str).collect(),
            Need::Other { what } => vec![what],
        }
    }

    /// Free text.
    fn clean(&mut self) {
        match self {
            Need::Sql { reason, .. } | Need::Program { reason, .. } | Need::Kv { reason, .. } => {
                *reason = clean(reason, 500);
            }
            Need::Other { what } => *what = clean(what, 200),
            // Names of interfaces: ASCII, checked when the component was compiled.
            Need::Wasi { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Need {
        fn sql(connection: &str, statement: &str) -> Self {
            Need::Sql {
                connection: connection.into(),
                engines: Vec::new(),
                statements: vec![statement.into()],
                reason: String::new(),
                required: false,
            }
        }
    }

    fn named(name: &str, version: &str) -> Result<Description, String> {
        Description {
            name: name.into(),
            version: version.into(),
            summary: "a\u{1b}[31mb\nc".into(),
            settings_schema: String::new(),
            needs: Vec::new(),
            freeze_budget_ms: 0,
        }
        .checked()
    }

    #[test]
    fn a_program_that_could_not_be_granted_is_refused() {
        let asked = |command: &str, word: &str| Need::Program {
            command: command.into(),
            arguments: vec![vec![word.into()]],
            stdin_scripts: vec!["EXIT\n".into()],
            reason: String::new(),
            required: false,
        };
        for (command, word) in [
            ("/bin/sh", "x"),
            ("", "x"),
            ("-x", "x"),
            ("a b", "x"),
            ("tool", "{unit}"),
            ("tool", "-{name}"),
            ("tool", "\u{1b}[2J"),
        ] {
            assert!(asked(command, word).check().is_err(), "{command:?} {word:?}");
        }
        for (command, word) in
            [("pg_ctl", "--mode={name}"), ("tool", "line\n\tline"), ("RMAN", "/")]
        {
            assert!(asked(command, word).check().is_ok(), "{command:?} {word:?}");
        }
    }

    #[test]
    fn names_that_could_be_paths_or_escapes_are_refused() {
        for name in ["", "../x", "a/b", "A", ".hidden", "a b", "\u{1b}[31m", &"a".repeat(65)] {
            assert!(named(name, "1.0").is_err(), "{name:?}");
        }
        assert!(named("mysql", "1.0\n").is_err());
        assert!(Need::sql("main", "SELECT 1\n, '\u{1b}[2J'").check().is_err());
        assert!(Need::sql("../main", "SELECT 1").check().is_err());
        assert!(Need::sql("main", "SELECT 1,\n\t2").check().is_ok());
        assert_eq!(named("mysql-8.4", "1.0.0-rc+1").unwrap().summary, "ab c");
    }
}
