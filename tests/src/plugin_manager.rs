//! Cloud Assistant's plug-in manager, as its source has it (`aliyun_assist_client`, `acspluginmanager`
//! of February 2024): how it takes `--params` apart, what it wants of a package, how it runs what is
//! in it, and how it ends what takes too long.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// What the manager makes of the words of its own command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagerCall {
    /// `--plugin`.
    pub plugin: String,
    /// What the plug-in is called with.
    pub words: Vec<String>,
}

impl ManagerCall {
    /// Reads the manager's command line, its own name left out.
    ///
    /// # Errors
    /// If no plug-in is named.
    pub fn read(line: &[String]) -> Result<Self> {
        let value = |flag: &str| -> Option<String> {
            let at = line
                .iter()
                .position(|word| word.split(['=', ':']).next() == Some(&format!("--{flag}")))?;
            // Behind the first `=` or `:`, or else the next word.
            match line[at].split_once(['=', ':']) {
                Some((_, value)) => Some(value.to_owned()),
                None => line.get(at + 1).cloned(),
            }
        };
        let words = match (value("paramsV2"), value("params")) {
            (Some(params), _) => shell_words(&params),
            (None, Some(params)) => {
                let separator = value("separator").unwrap_or_else(|| ",".to_owned());
                split(&params, &separator)
            }
            (None, None) => Vec::new(),
        };
        Ok(Self { plugin: value("plugin").context("no --plugin")?, words })
    }
}

/// `--params`: every separator is a space, wherever it stands; then words as a shell's.
#[must_use]
pub fn split(params: &str, separator: &str) -> Vec<String> {
    shell_words(&params.replace(separator, " "))
}

/// As `google/shlex`: quotes, backslash, `#` at the begin of a word; where it finds an error, the
/// words before it are all that there is.
#[must_use]
pub fn shell_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text.chars().peekable();
    loop {
        while rest.next_if(|c| is_space(*c)).is_some() {}
        match rest.peek() {
            None => return words,
            Some('#') => while rest.next_if(|c| *c != '\n').is_some() {},
            Some(_) => match word(&mut rest) {
                Some(word) => words.push(word),
                None => return words,
            },
        }
    }
}

fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\r' | '\n')
}

/// One word; `None` if a quote is not closed, or nothing follows a backslash.
fn word(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<String> {
    let mut word = String::new();
    while let Some(character) = rest.next_if(|c| !is_space(*c)) {
        match character {
            '\\' => word.push(rest.next()?),
            '\'' => loop {
                match rest.next()? {
                    '\'' => break,
                    literal => word.push(literal),
                }
            },
            '"' => loop {
                match rest.next()? {
                    '"' => break,
                    '\\' => word.push(rest.next()?),
                    literal => word.push(literal),
                }
            },
            literal => word.push(literal),
        }
    }
    Some(word)
}

/// A plug-in that the manager has installed.
#[derive(Clone, Debug)]
pub struct InstalledPlugin {
    /// Its directory, `…/plugin/NAME/VERSION`.
    pub directory: PathBuf,
    /// Its program.
    pub program: PathBuf,
    /// After how many seconds it is killed.
    pub timeout_seconds: u64,
    /// Its `config.json`.
    pub config: Value,
}

impl InstalledPlugin {
    /// `--exec --file`: unpacks it below `assist`, and checks it as the manager does.
    ///
    /// # Errors
    /// With the manager's own reason, if it would refuse it.
    pub fn install(package: &Path, assist: &Path) -> Result<Self> {
        let mut zip = zip::ZipArchive::new(fs::File::open(package)?).context("236 UNZIP")?;
        let config: Value = {
            let mut file = zip.by_name("config.json").context("235 PACKAGE_FORMAT")?;
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            serde_json::from_str(&text).context("237 UNMARSHAL")?
        };
        let field = |name: &str| -> Result<&str> {
            let text = config.get(name).and_then(Value::as_str);
            text.with_context(|| format!("237 UNMARSHAL: {name} is not text"))
        };
        check_machine(field("osType")?, field("arch")?)?;
        ensure!(matches!(config["pluginType"].as_str(), Some("Once" | "Persist")), "plugin type");
        ensure!(config["heartbeatInterval"].is_u64() && config["addSysTag"].is_boolean());
        ensure!(!field("publisher")?.is_empty());
        let directory = assist.join("plugin").join(field("name")?).join(field("version")?);
        fs::create_dir_all(&directory)?;
        zip.extract(&directory)?;
        let program = directory.join(field("runPath")?);
        ensure!(program.is_file(), "238 PLUGIN_FORMAT: no {}", program.display());
        fs::set_permissions(&program, fs::Permissions::from_mode(0o744))?;
        // 60 if it is absent or no number.
        let timeout_seconds =
            field("timeout").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
        Ok(Self { directory, program, timeout_seconds, config: config.clone() })
    }

    /// The command by which the manager runs it: words only, no shell; its directory in the
    /// environment; a process group of its own.
    #[must_use]
    pub fn command(&self, words: &[String]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(words)
            .env("PLUGIN_DIR", &self.directory)
            .env("PRE_PLUGIN_DIR", "")
            .process_group(0);
        command
    }
}

fn check_machine(os: &str, arch: &str) -> Result<()> {
    ensure!(os.is_empty() || os == "linux", "238 PLUGIN_FORMAT: osType {os}");
    let own = match std::env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm",
        other => bail!("the manager does not know {other}"),
    };
    ensure!(arch.is_empty() || arch == "all" || arch == own, "238 PLUGIN_FORMAT: arch {arch}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn params_are_taken_apart_as_the_manager_does_it() {
        let cases: [(&str, &[&str]); 9] = [
            ("-a=1,-b=2", &["-a=1", "-b=2"]),
            ("-a=1,-b=2,", &["-a=1", "-b=2"]),
            // A comma does not survive, not even between quotes.
            ("-a=\"d-1,d-2\",-b", &["-a=d-1 d-2", "-b"]),
            ("-a=d-1,d-2", &["-a=d-1", "d-2"]),
            ("-a='b \"c\"',-d=\"e \\\" f\"", &["-a=b \"c\"", "-d=e \" f"]),
            ("-a=x#y,#-b=2,-c", &["-a=x#y"]),
            ("-a=b\\,c", &["-a=b c"]),
            ("-a=1,-b=\"2", &["-a=1"]),
            ("-a=\"\"", &["-a="]),
        ];
        for (params, words) in cases {
            assert_eq!(split(params, ","), words, "{params}");
        }
        assert_eq!(split("-a=d-1,d-2;-b", ";"), ["-a=d-1,d-2", "-b"]);
        assert_eq!(shell_words("-a='1, 2' -b"), ["-a=1, 2", "-b"]);
    }

    #[test]
    fn the_managers_own_line_is_read() {
        let line = |words: &[&str]| -> Vec<String> {
            words.iter().map(|word| (*word).to_owned()).collect()
        };
        let call = |words: &[&str]| ManagerCall::read(&line(words));
        for words in [
            &["--exec", "--plugin", "p", "--params=-a=1,-b=2"][..],
            &["--exec", "--plugin=p", "--params:-a=1,-b=2"],
            &["--exec", "--plugin=p", "--paramsV2", "-a=1 -b=2"],
            &["--exec", "--plugin=p", "--params=-a=1;-b=2", "--separator", ";"],
        ] {
            let expected = ManagerCall { plugin: "p".to_owned(), words: line(&["-a=1", "-b=2"]) };
            assert_eq!(call(words).ok(), Some(expected), "{words:?}");
        }
        assert!(call(&["--exec"]).is_err());
    }
}
