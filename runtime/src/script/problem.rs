//! What keeps a pair of scripts from being run: which file, which rule, what was found, what to do.

use std::fmt;
use std::path::{Path, PathBuf};

/// Which of the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Runs before the freeze.
    Pre,
    /// Runs after the thaw, and as the undo of a pre-freeze script that failed.
    Post,
}

impl Role {
    /// Where its path is said.
    fn named(self) -> &'static str {
        match self {
            Role::Pre => "under [scripts] in stillpoint.toml (the plug-in: -PreScriptPath)",
            Role::Post => "under [scripts] in stillpoint.toml (the plug-in: -PostScriptPath)",
        }
    }

    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Role::Pre => Role::Post,
            Role::Post => Role::Pre,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Pre => "pre-freeze script",
            Role::Post => "post-thaw script",
        })
    }
}

/// A script that breaks a rule. None of the pair is run then.
#[derive(Debug, thiserror::Error)]
#[error("{role} {}: {violation}", path.display())]
pub struct ScriptProblem {
    /// Which of the pair.
    pub role: Role,
    /// Its path, as configured.
    pub path: PathBuf,
    /// The rule, and what was found.
    #[source]
    pub violation: Violation,
}

impl ScriptProblem {
    /// What the operator can do.
    #[must_use]
    pub fn hint(&self) -> String {
        let path = self.path.display();
        match &self.violation {
            Violation::Missing => {
                format!("scripts come in pairs: create {path}, or remove the {}", self.role.other())
            }
            Violation::NotAbsolute => {
                format!("give the whole path, without `..`, {}", self.role.named())
            }
            Violation::Symlink { component } => {
                format!("name the real place of {} {}", component.display(), self.role.named())
            }
            Violation::NotRegular { .. } | Violation::HardLinks { .. } => {
                format!(
                    "remove {path} and install the script anew: install -m 0700 -o root -g root <script> {path}"
                )
            }
            Violation::Owner { .. } => {
                format!("read {path} first: somebody else wrote it; then chown root:root {path}")
            }
            Violation::Mode { .. } => format!("chmod 0700 {path}"),
            Violation::TooLarge { .. } => {
                "keep the script small and let it call a program".to_owned()
            }
            Violation::OpenWriter => {
                format!("find who writes to it (fuser -v {path}) and end that")
            }
            Violation::Directory { directory, .. } => format!(
                "chown root {0} and chmod 1777 {0} (or 0755), or keep the scripts in /etc/stillpoint",
                directory.display()
            ),
            Violation::NoExec => {
                format!(
                    "keep the scripts in a directory such as /etc/stillpoint/scripts, and name them {}",
                    self.role.named()
                )
            }
            Violation::NoInterpreterLine => {
                format!("make the first line of {path} `#!/bin/sh`")
            }
            Violation::CarriageReturn => format!("sed -i 's/\\r$//' {path}"),
            Violation::InterpreterNotAbsolute { .. } => {
                "write the whole path: `#!/bin/sh`, or `#!/usr/bin/env python3`".to_owned()
            }
            Violation::Interpreter { interpreter, .. } => format!(
                "install {}, or name another interpreter in the first line of {path}",
                interpreter.display()
            ),
            Violation::Unreadable { .. } => format!("look at {path} as root: ls -ld {path}"),
        }
    }
}

/// The rule that is broken, and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// It is not there, but the other one of the pair is.
    #[error("is missing, although its counterpart is there")]
    Missing,
    /// Relative, or with `..` in it.
    #[error("is not an absolute path without `..`")]
    NotAbsolute,
    /// A symbolic link, on the way to it or itself.
    #[error("{} is a symbolic link", component.display())]
    Symlink {
        /// The link.
        component: PathBuf,
    },
    /// A FIFO, a device, a directory.
    #[error("is {found}, not a regular file")]
    NotRegular {
        /// What it is.
        found: &'static str,
    },
    /// Not root's.
    #[error("belongs to uid {uid}, not to root")]
    Owner {
        /// Whose it is.
        uid: u32,
    },
    /// Not exactly 0700.
    #[error("has mode {mode:04o}, not 0700")]
    Mode {
        /// All twelve bits.
        mode: u32,
    },
    /// It has other names.
    #[error("has {links} hard links, not one")]
    HardLinks {
        /// How many.
        links: u64,
    },
    /// Beyond [`super::SIZE_LIMIT`].
    #[error("is {size} bytes long, more than {limit}")]
    TooLarge {
        /// How long it is.
        size: u64,
        /// How long it may be.
        limit: u64,
    },
    /// Somebody has it open for writing, perhaps since before it became root's.
    #[error("is open for writing in some process")]
    OpenWriter,
    /// Somebody other than root can put another file in its place.
    #[error("directory {} {found}", directory.display())]
    Directory {
        /// The directory, at any height above it.
        directory: PathBuf,
        /// What is wrong with it.
        found: String,
    },
    /// Its file system is mounted `noexec`.
    #[error("is on a file system that is mounted noexec")]
    NoExec,
    /// No `#!` in the first line, or too long a line for the kernel.
    #[error("does not begin with a line `#!/path/of/interpreter`")]
    NoInterpreterLine,
    /// The interpreter's line ends in CR LF, as from a Windows editor.
    #[error("has Windows line ends: its first line ends in CR LF")]
    CarriageReturn,
    /// `#!sh`.
    #[error("its interpreter `{interpreter}` is not an absolute path")]
    InterpreterNotAbsolute {
        /// As it is written there.
        interpreter: String,
    },
    /// The interpreter is absent, or not fit to be run as root.
    #[error("its interpreter {} {found}", interpreter.display())]
    Interpreter {
        /// As it is written there.
        interpreter: PathBuf,
        /// What is wrong with it.
        found: String,
    },
    /// A system call failed.
    #[error("cannot be checked ({action})")]
    Unreadable {
        /// Which step.
        action: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Violation {
    pub(super) fn at(self, role: Role, path: &Path) -> ScriptProblem {
        ScriptProblem { role, path: path.to_owned(), violation: self }
    }
}
