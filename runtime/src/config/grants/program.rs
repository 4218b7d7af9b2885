//! `[[program]]`: one granted program: which file, with which arguments, as whom, within which
//! bounds. Here is what can be said of the section by itself; the file is looked at when the hook is
//! loaded.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use nix::unistd::{Group, User};
use serde::Deserialize;
use toml::Spanned;

use crate::capability::process::Arguments;
use crate::config::read::{ConfigError, Document, Location};
use crate::hook::digest::Digest;

/// Who a program runs as, unless the grant says somebody else.
pub const DEFAULT_USER: &str = "nobody";

/// The longest text that a program may read, in bytes: what a pipe holds, so that giving it waits
/// for nobody.
pub const LONGEST_STDIN: usize = 64 << 10;

/// The longest argument or value of a variable, in bytes.
const LONGEST_WORD: usize = 32 << 10;

/// Shells, by the names of their files. What a hook may run is a program with its arguments, never a
/// text that is interpreted.
const SHELLS: &[&str] = &[
    "sh", "bash", "rbash", "dash", "ash", "ksh", "ksh93", "mksh", "zsh", "csh", "tcsh", "fish",
    "busybox",
];

/// Variables that make a program load code, read other files than it says, or behave as another.
/// With a `*`, all that begin so.
const REFUSED_VARIABLES: &[&str] = &[
    "PATH",
    "LD_*",
    "GLIBC_*",
    "MALLOC_*",
    "GCONV_PATH",
    "LOCPATH",
    "NLSPATH",
    "HOSTALIASES",
    "LOCALDOMAIN",
    "RES_OPTIONS",
    "RESOLV_HOST_CONF",
    "GETCONF_DIR",
    "TZDIR",
    "IFS",
    "ENV",
    "BASH_*",
    "SHELLOPTS",
    "BASHOPTS",
    "PS4",
    "PROMPT_COMMAND",
    "PYTHON*",
    "PERL*",
    "RUBY*",
    "NODE_*",
    "LUA_*",
    "JAVA_TOOL_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "_JAVA_OPTIONS",
    "CLASSPATH",
];

/// One granted program.
#[derive(Clone, Debug, PartialEq)]
pub struct ProgramGrant {
    /// The name that the hook asks for.
    pub command: String,
    /// The file: absolute, without `.`, `..` and links.
    pub path: PathBuf,
    /// Where the grant names the file.
    pub path_at: Location,
    /// This very content and no other.
    pub digest: Option<Digest>,
    /// The argument lists that may be given.
    pub arguments: Vec<Arguments>,
    /// The whole texts that it may read on standard input, beside an empty one.
    pub stdin: BTreeSet<String>,
    /// Who it runs as.
    pub user: Account,
    /// Variables beside `PATH`; there are no others.
    pub environment: BTreeMap<String, String>,
    /// Where it may write; nowhere else.
    pub writable: Vec<PathBuf>,
    /// Where the grant says so.
    pub writable_at: Location,
    /// Bounds.
    pub limits: ProgramLimits,
}

/// Who a program runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The user's name.
    pub name: String,
    /// The user's id.
    pub uid: u32,
    /// The user's own group.
    pub gid: u32,
    /// Further groups, as granted: those that the user has in the system are not added.
    pub groups: Vec<u32>,
}

/// Bounds for one run of a program.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ProgramLimits {
    /// How long it may run, in seconds; default 60. The phase's deadline counts as well.
    pub seconds: u64,
    /// Memory of all its processes together, in bytes; default 256 MiB.
    pub memory_bytes: u64,
    /// Processes and threads at the same time; default 64.
    pub processes: u64,
    /// CPUs that all its processes may use together; default 1.
    pub cpu: f64,
    /// Bytes kept of each of its two streams; default 64 KiB. The rest is read and thrown away.
    pub output_bytes: usize,
    /// The longest file that it may write, in bytes; default 64 MiB.
    pub file_bytes: u64,
}

impl Default for ProgramLimits {
    fn default() -> Self {
        Self {
            seconds: 60,
            memory_bytes: 256 << 20,
            processes: 64,
            cpu: 1.0,
            output_bytes: 64 << 10,
            file_bytes: 64 << 20,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawProgramGrant {
    pub(super) command: Spanned<String>,
    path: Spanned<String>,
    digest: Option<Spanned<String>>,
    arguments: Vec<Spanned<Vec<String>>>,
    #[serde(default)]
    stdin: Vec<Spanned<String>>,
    user: Option<Spanned<String>>,
    #[serde(default)]
    groups: Vec<Spanned<String>>,
    #[serde(default)]
    environment: BTreeMap<Spanned<String>, Spanned<String>>,
    #[serde(default)]
    writable: Vec<Spanned<String>>,
    #[serde(default = "no_limits_said")]
    limits: Spanned<ProgramLimits>,
}

fn no_limits_said() -> Spanned<ProgramLimits> {
    Spanned::new(0..0, ProgramLimits::default())
}

impl RawProgramGrant {
    pub(super) fn validated(self, document: &Document) -> Result<ProgramGrant, ConfigError> {
        check_command(&self.command, document)?;
        check_limits(&self.limits, document)?;
        let at = |span| document.location(&span);
        let writable_at = self.writable.first().map_or(0..0, Spanned::span);
        Ok(ProgramGrant {
            path_at: at(self.path.span()),
            path: program_path(&self.path, document)?,
            digest: self.digest.map(|digest| read_digest(&digest, document)).transpose()?,
            arguments: all(self.arguments, |words| arguments(&words, document))?,
            stdin: self
                .stdin
                .into_iter()
                .map(|text| stdin_text(text, document))
                .collect::<Result<_, _>>()?,
            user: account(self.user.as_ref(), &self.groups, &self.command, document)?,
            environment: self
                .environment
                .into_iter()
                .map(|(name, value)| variable(name, value, document))
                .collect::<Result<_, _>>()?,
            writable: all(self.writable, |path| writable_path(&path, document))?,
            writable_at: at(writable_at),
            limits: self.limits.into_inner(),
            command: self.command.into_inner(),
        })
    }
}

fn all<A, B>(
    items: Vec<A>,
    check: impl FnMut(A) -> Result<B, ConfigError>,
) -> Result<Vec<B>, ConfigError> {
    items.into_iter().map(check).collect()
}

/// Letters, digits, `-`, `_`, `.`, `+`; begins with a letter or digit; at most 64 characters.
pub(crate) fn is_command_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
    name.len() <= 64
        && name.chars().all(allowed)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
}

fn check_command(command: &Spanned<String>, document: &Document) -> Result<(), ConfigError> {
    let name = command.get_ref();
    if is_command_name(name) {
        return Ok(());
    }
    Err(document
        .invalid(command.span(), format!("`{name}` cannot be a program's name"))
        .with_hint("`command` is the name that the hook asks for: letters, digits, `-`, `_`, `.` and `+`; the file goes into `path`"))
}

/// Absolute and in its only form: what is opened later follows no link.
fn plain_path(path: &Spanned<String>, document: &Document) -> Result<PathBuf, ConfigError> {
    let text = path.get_ref();
    let parts = Path::new(text).components().skip(1);
    let plain: PathBuf = std::iter::once(Component::RootDir).chain(parts).collect();
    let is_plain = plain.as_os_str() == text.as_str()
        && !plain.components().any(|part| part == Component::ParentDir)
        && !text.chars().any(char::is_control);
    if is_plain {
        return Ok(plain);
    }
    Err(document
        .invalid(path.span(), format!("`{}` is not a plain absolute path", text.escape_debug()))
        .with_hint(
            "write the whole path, without `.`, `..`, doubled slashes and a slash at its end",
        ))
}

fn program_path(path: &Spanned<String>, document: &Document) -> Result<PathBuf, ConfigError> {
    let plain = plain_path(path, document)?;
    let name = plain.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if SHELLS.contains(&name) {
        return Err(document
            .invalid(path.span(), format!("`{}` is a shell, and no shell is run for a hook", plain.display()))
            .with_hint("grant the program itself, with its exact arguments; a script of your own belongs to [scripts] in stillpoint.toml"));
    }
    Ok(plain)
}

fn writable_path(path: &Spanned<String>, document: &Document) -> Result<PathBuf, ConfigError> {
    let plain = plain_path(path, document)?;
    if plain == Path::new("/") {
        return Err(document
            .invalid(path.span(), "`/` would let the program write everywhere")
            .with_hint("name the directory or file that it must write to"));
    }
    Ok(plain)
}

fn read_digest(digest: &Spanned<String>, document: &Document) -> Result<Digest, ConfigError> {
    digest.get_ref().parse().map_err(|why: String| document.invalid(digest.span(), why))
}

fn arguments(words: &Spanned<Vec<String>>, document: &Document) -> Result<Arguments, ConfigError> {
    if words.get_ref().iter().any(|word| word.len() > LONGEST_WORD) {
        let message = format!("an argument is longer than {LONGEST_WORD} bytes");
        return Err(document.invalid(words.span(), message));
    }
    Arguments::parse(words.get_ref()).map_err(|why| document.invalid(words.span(), why))
}

fn stdin_text(text: Spanned<String>, document: &Document) -> Result<String, ConfigError> {
    if text.get_ref().len() > LONGEST_STDIN {
        let message = format!("a text for standard input is longer than {LONGEST_STDIN} bytes");
        return Err(document.invalid(text.span(), message));
    }
    Ok(text.into_inner())
}

fn account(
    user: Option<&Spanned<String>>,
    groups: &[Spanned<String>],
    command: &Spanned<String>,
    document: &Document,
) -> Result<Account, ConfigError> {
    let (name, span) = match user {
        Some(user) => (user.get_ref().as_str(), user.span()),
        None => (DEFAULT_USER, command.span()),
    };
    let unknown = |what: &str, name: &str| format!("there is no {what} `{name}` on this machine");
    let found = User::from_name(name).ok().flatten().ok_or_else(|| {
        document.invalid(span, unknown("user", name)).with_hint(format!(
            "set `user` of [[program]] command = \"{}\" to a user that is there (getent passwd)",
            command.get_ref()
        ))
    })?;
    let groups = groups
        .iter()
        .map(|group| {
            let found = Group::from_name(group.get_ref()).ok().flatten();
            found.map(|found| found.gid.as_raw()).ok_or_else(|| {
                document
                    .invalid(group.span(), unknown("group", group.get_ref()))
                    .with_hint("name a group that is there (getent group), or remove it")
            })
        })
        .collect::<Result<_, _>>()?;
    Ok(Account { name: name.to_owned(), uid: found.uid.as_raw(), gid: found.gid.as_raw(), groups })
}

fn variable(
    name: Spanned<String>,
    value: Spanned<String>,
    document: &Document,
) -> Result<(String, String), ConfigError> {
    let text = name.get_ref();
    let in_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if text.is_empty()
        || !text.chars().all(in_name)
        || text.starts_with(|c: char| c.is_ascii_digit())
    {
        let message = format!("`{}` cannot be a variable's name", text.escape_debug());
        return Err(document
            .invalid(name.span(), message)
            .with_hint("a name has letters, digits and `_`, and does not begin with a digit"));
    }
    if is_refused(text) {
        let message = format!("the variable `{text}` changes what a program is, and is never set");
        return Err(document
            .invalid(name.span(), message)
            .with_hint("give the program what it needs by an argument or a file of its own"));
    }
    if value.get_ref().len() > LONGEST_WORD || value.get_ref().contains('\0') {
        let message = format!("the value of `{text}` is too long, or has a NUL character");
        return Err(document.invalid(value.span(), message));
    }
    Ok((name.into_inner(), value.into_inner()))
}

fn is_refused(variable: &str) -> bool {
    let upper = variable.to_ascii_uppercase();
    REFUSED_VARIABLES.iter().any(|refused| match refused.strip_suffix('*') {
        Some(begin) => upper.starts_with(begin),
        None => upper == *refused,
    })
}

fn check_limits(limits: &Spanned<ProgramLimits>, document: &Document) -> Result<(), ConfigError> {
    let ProgramLimits { seconds, memory_bytes, processes, cpu, output_bytes, file_bytes } =
        *limits.get_ref();
    let output_bytes = output_bytes as u64;
    for (name, value, least, most) in [
        ("seconds", seconds, 1, 24 * 3600),
        ("memory-bytes", memory_bytes, 1 << 20, 1 << 42),
        ("processes", processes, 1, 1 << 16),
        ("output-bytes", output_bytes, 1, 16 << 20),
        ("file-bytes", file_bytes, 0, 1 << 42),
    ] {
        if !(least..=most).contains(&value) {
            let message = format!("`{name} = {value}` is not from {least} to {most}");
            return Err(document.invalid(limits.span(), message));
        }
    }
    if !(0.01..=1024.0).contains(&cpu) {
        let message = format!("`cpu = {cpu}` is not from 0.01 to 1024");
        return Err(document.invalid(limits.span(), message));
    }
    Ok(())
}

#[cfg(test)]
impl ProgramGrant {
    /// A grant of a program called `probe`, to be run as nobody.
    pub(crate) fn of_test(path: &str, arguments: &[&[&str]]) -> Self {
        let location = Location { path: "hooks.d/db.toml".into(), line: 1, column: 1 };
        let nobody = User::from_name(DEFAULT_USER).unwrap().unwrap();
        Self {
            command: "probe".into(),
            path: path.into(),
            path_at: location.clone(),
            digest: None,
            arguments: arguments.iter().map(|words| Arguments::parse(words).unwrap()).collect(),
            stdin: BTreeSet::new(),
            user: Account {
                name: DEFAULT_USER.into(),
                uid: nobody.uid.as_raw(),
                gid: nobody.gid.as_raw(),
                groups: Vec::new(),
            },
            environment: BTreeMap::new(),
            writable: Vec::new(),
            writable_at: location,
            limits: ProgramLimits::default(),
        }
    }
}

#[cfg(test)]
#[path = "program_tests.rs"]
mod tests;
