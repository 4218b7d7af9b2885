//! How the plug-in is called: by its own name, or as the word `plugin`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Parser;
use stillpoint::exit_code::ExitCode;
use stillpoint::paths::Paths;
use stillpoint::plugin::flags::FlagError;
use stillpoint::plugin::{self, ParamError, Params};

use super::super::CommandError;

/// A command line that is the plug-in's.
#[derive(Debug)]
pub struct Call {
    /// What was said before the word `plugin`.
    root: Option<PathBuf>,
    /// What comes after it.
    words: Vec<OsString>,
}

/// What may stand between `stillpoint` and `plugin`.
#[derive(Debug, Parser)]
#[command(disable_help_flag = true)]
struct Before {
    #[arg(long)]
    root: Option<PathBuf>,
}

impl Call {
    /// `None` if this command line is not the plug-in's. What follows is never read by clap: it has
    /// other rules.
    #[must_use]
    pub fn of(line: &[OsString]) -> Option<Self> {
        let own_name = line.first().map(Path::new).and_then(Path::file_name);
        if own_name.is_some_and(|name| name == plugin::NAME) {
            return Some(Self { root: None, words: line.get(1..)?.to_vec() });
        }
        let at = line.iter().position(|word| word == "plugin")?;
        let before = Before::try_parse_from(line.get(..at)?).ok()?;
        Some(Self { root: before.root, words: line.get(at + 1..)?.to_vec() })
    }

    /// True for `-h`: nothing else is wanted then.
    pub fn asks_for_help(&self) -> bool {
        let help = ParamError::Flag(FlagError::HelpRequested);
        self.text().is_some_and(|words| plugin::parse(words) == Err(help))
    }

    pub fn params(&self) -> Result<Params, CommandError> {
        let words = self.text().ok_or_else(|| {
            let error = anyhow::anyhow!("a parameter is not UTF-8");
            CommandError::new(ExitCode::Parameters, error)
                .hint("write names and paths in UTF-8".to_owned())
        })?;
        plugin::parse(words).map_err(|error| {
            let hint = error.hint();
            CommandError::new(error.exit_code(), error).hint(hint)
        })
    }

    /// Where files live: `-Root` says more than `--root` does.
    pub fn paths(&self, params: &Params) -> Paths {
        let root = params.root.clone().or_else(|| self.root.clone());
        root.map_or_else(Paths::default, Paths::under)
    }

    fn text(&self) -> Option<Vec<String>> {
        self.words.iter().map(|word| word.to_str().map(str::to_owned)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(line: &[&str]) -> Option<(Option<PathBuf>, Vec<OsString>)> {
        let line: Vec<OsString> = line.iter().map(OsString::from).collect();
        Call::of(&line).map(|call| (call.root, call.words))
    }

    #[test]
    fn the_plug_in_is_known_by_its_name_and_by_its_word() {
        for line in [
            &["/opt/x/app-snapshot-plugin", "-quiet", "plugin"][..],
            &["app-snapshot-plugin", "-quiet", "plugin"],
            &["stillpoint", "plugin", "-quiet", "plugin"],
        ] {
            assert_eq!(
                call(line),
                Some((None, vec!["-quiet".into(), "plugin".into()])),
                "{line:?}"
            );
        }
        for root in [&["--root", "/x"][..], &["--root=/x"]] {
            let line = [&["stillpoint"], root, &["plugin", "-h"]].concat();
            assert_eq!(call(&line).unwrap(), (Some("/x".into()), vec!["-h".into()]));
        }
    }

    #[test]
    fn other_command_lines_are_not_its() {
        for line in [
            &[][..],
            &["stillpoint"],
            &["stillpoint", "snapshot", "--name", "plugin"],
            &["stillpoint", "hook", "inspect", "plugin"],
            &["stillpoint", "--root", "plugin"],
            &["stillpoint", "--json", "plugin"],
            &["app-snapshot-plugin.old", "status"],
        ] {
            assert_eq!(call(line), None, "{line:?}");
        }
    }
}
