//! The plug-in, as Cloud Assistant and its users run it: a lab with a server on two of its three
//! disks, scripts, a cloud, and what a run printed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::cloud::Cloud;
use crate::command::describe;
use crate::lab::{FsSpec, FsType, Lab};
use crate::mariadb::{MariaDb, Place};
use crate::stillpoint::Stillpoint;

/// The original's last words.
pub const SUCCESS: &str = "Finish whole Processes of Snapshot successfully";

/// Standard output is shorter than this, in bytes.
pub const OUTPUT_LIMIT: usize = 20_000;

/// The role that the emulated instance has.
pub const ROLE: &str = "-RamRoleName=AppSnapshotRoleName";

/// File systems `data`, `binlog` and `other`, a server on the first two, scripts that are not there
/// yet.
#[derive(Debug)]
pub struct PluginBench {
    /// An installation without a configuration.
    pub stillpoint: Stillpoint,
    /// The server, with a table `lab.t`.
    pub server: MariaDb,
    /// The file systems.
    pub lab: Lab,
    scripts: PathBuf,
}

impl PluginBench {
    /// Makes it; it lives at most for `time`.
    ///
    /// # Errors
    /// If a part cannot be made.
    pub fn new(time: Duration) -> Result<Self> {
        let specs = [
            FsSpec::new("data", FsType::Ext4, 256),
            FsSpec::new("binlog", FsType::Ext4, 64),
            FsSpec::new("other", FsType::Ext4, 64),
        ];
        let lab = Lab::new(&specs, time)?;
        let place = Place { data: lab.mount("data"), binlog: lab.mount("binlog") };
        let server = MariaDb::install(&lab, place)?;
        server.execute("CREATE DATABASE lab; CREATE TABLE lab.t (i INT)")?;
        let stillpoint = Stillpoint::new(&lab)?;
        // As on an instance where nobody has configured anything.
        fs::remove_file(stillpoint.config_file("stillpoint.toml"))?;
        let scripts = lab.scratch("scripts")?;
        Ok(Self { stillpoint, server, lab, scripts })
    }

    /// The plug-in in this cloud: `stillpoint --root … plugin WORDS`.
    pub fn command(&self, cloud: &Cloud, words: &[&str]) -> Command {
        let words = ["plugin"].iter().chain(words);
        let mut command = self.stillpoint.command(words);
        command.envs(cloud.environment()).env_remove("PLUGIN_DIR");
        command
    }

    /// The plug-in with role, name and both paths of scripts, and with `more`, run to its end.
    /// Afterwards everything must run again, however it ended.
    ///
    /// # Errors
    /// If it cannot be started, prints too much, or leaves something frozen or locked.
    pub fn run(&self, cloud: &Cloud, more: &[&str]) -> Result<PluginRun> {
        let scripts = self.script_words();
        let mut words = vec![ROLE, "-Name=LinuxApp1", &scripts[0], &scripts[1]];
        words.extend(more);
        let run = PluginRun::of(&mut self.command(cloud, &words))?;
        self.everything_runs().with_context(|| run.description().to_owned())?;
        Ok(run)
    }

    /// Where the scripts are, as parameters.
    pub fn script_words(&self) -> [String; 2] {
        let path = |name: &str| self.script(name).display().to_string();
        [
            format!("-PreScriptPath={}", path("prescript.sh")),
            format!("-PostScriptPath={}", path("postscript.sh")),
        ]
    }

    /// A script's path.
    #[must_use]
    pub fn script(&self, name: &str) -> PathBuf {
        self.scripts.join(name)
    }

    /// Writes both scripts, by all rules.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write_scripts(&self, pre: &str, post: &str) -> Result<()> {
        write_script(&self.script("prescript.sh"), pre)?;
        write_script(&self.script("postscript.sh"), post)
    }

    /// Scripts from earlier, and what they wrote, are gone.
    ///
    /// # Errors
    /// If they cannot be removed.
    pub fn clear_scripts(&self) -> Result<()> {
        for entry in fs::read_dir(&self.scripts)? {
            fs::remove_file(entry?.path())?;
        }
        Ok(())
    }

    /// A file for scripts to write to, on no file system of the snapshot.
    #[must_use]
    pub fn script_log(&self) -> PathBuf {
        self.scripts.join("log")
    }

    /// What scripts wrote to it.
    #[must_use]
    pub fn script_logged(&self) -> String {
        fs::read_to_string(self.script_log()).unwrap_or_default()
    }

    /// Every file system can be written to, and clients commit.
    ///
    /// # Errors
    /// If one cannot, within seconds.
    pub fn everything_runs(&self) -> Result<()> {
        for fs in self.lab.file_systems() {
            // A child of its own: if it is frozen, that one hangs, and not this test.
            let mut touch = self.lab.command("timeout");
            touch.args(["-s", "KILL", "5", "touch"]).arg(fs.mount.join("still-runs"));
            ensure!(touch.status()?.success(), "{} is not writable", fs.mount.display());
        }
        let began = Instant::now();
        let mut commit = self.lab.command("timeout");
        commit.args(["-s", "KILL", "5", "mariadb", "--no-defaults", "-u", "root", "-S"]);
        commit.arg(self.server.socket()).args(["-e", "INSERT INTO lab.t VALUES (1)"]);
        ensure!(commit.status()?.success(), "clients cannot commit");
        ensure!(began.elapsed() < Duration::from_secs(2), "a commit took {:?}", began.elapsed());
        Ok(())
    }

    /// Stops the server and removes everything.
    ///
    /// # Errors
    /// If something is left.
    pub fn finish(self) -> Result<()> {
        self.server.stop()?;
        self.lab.finish()
    }
}

/// Writes a script as root's, mode 0700.
///
/// # Errors
/// If it cannot be written.
pub fn write_script(path: &Path, text: &str) -> Result<()> {
    fs::write(path, format!("#!/bin/sh\n{text}\n"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    Ok(())
}

/// How a run of the plug-in ended, and what it printed.
#[derive(Clone, Debug)]
pub struct PluginRun {
    /// Exit status; absent if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    description: String,
}

impl PluginRun {
    /// Runs a command to its end.
    ///
    /// # Errors
    /// If it cannot be started, or its output is not as documented.
    pub fn of(command: &mut Command) -> Result<Self> {
        let output = command.output().context("cannot start the plug-in")?;
        Self::read(command, &output)
    }

    /// From the output of a process that has ended.
    ///
    /// # Errors
    /// If it is not as documented: lines of the original's form, less than 20 KB.
    pub fn read(command: &Command, output: &Output) -> Result<Self> {
        let run = Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout.clone())?,
            description: describe(command, output),
        };
        ensure!(run.stdout.len() < OUTPUT_LIMIT, "{} bytes of output", run.stdout.len());
        for line in run.stdout.lines() {
            ensure!(is_a_line(line), "not a line of the plug-in: {line:?}: {}", run.description);
        }
        Ok(run)
    }

    /// Itself, if it exited with `code` and its last line says so.
    ///
    /// # Errors
    /// With everything that it printed, if not.
    pub fn exited_with(&self, code: i32) -> Result<&Self> {
        ensure!(self.code == Some(code), "not exit code {code}: {}", self.description);
        if code != 0 {
            let says_so = self.last_line().contains(&format!("exit {code} ("));
            ensure!(says_so, "the last line does not say {code}: {}", self.description);
            ensure!(self.last_line().contains("state: "), "no state: {}", self.description);
        }
        Ok(self)
    }

    /// The group's id, of a run that ended with 0 and the original's last words.
    ///
    /// # Errors
    /// With everything that it printed, if not.
    pub fn succeeded(&self) -> Result<&str> {
        self.exited_with(0)?;
        let end = format!("\"][message=\"{SUCCESS}\"]");
        let group = self.last_line().strip_prefix("[snapshotgroup=\"");
        group.and_then(|rest| rest.strip_suffix(&end)).context(self.description.clone())
    }

    /// The last line, without its end.
    #[must_use]
    pub fn last_line(&self) -> &str {
        self.stdout.lines().last().unwrap_or_default()
    }

    /// All that it printed, with how it was called.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Fails if none of its lines has all of these words.
    ///
    /// # Errors
    /// With everything that it printed.
    pub fn says(&self, words: &[&str]) -> Result<&Self> {
        let said = self.stdout.lines().any(|line| words.iter().all(|word| line.contains(word)));
        ensure!(said, "no line with {words:?}: {}", self.description);
        Ok(self)
    }
}

/// `[level="…"][time="…"][message="…"]`, `[snapshotgroup="…"][message="…"]`, or the one that says how
/// many are left out.
fn is_a_line(line: &str) -> bool {
    let rest = if let Some(rest) = line.strip_prefix("[level=\"") {
        let Some((level, rest)) = rest.split_once("\"][time=\"") else { return false };
        let Some((time, rest)) = rest.split_once("\"][message=\"") else { return false };
        if !matches!(level, "info" | "warning" | "error") || !is_a_time(time) {
            return false;
        }
        rest
    } else if let Some(rest) = line.strip_prefix("[snapshotgroup=\"ssg-") {
        let Some((_, rest)) = rest.split_once("\"][message=\"") else { return false };
        rest
    } else {
        return line.starts_with("… ");
    };
    rest.ends_with("\"]") && !rest.contains('\u{1b}')
}

/// `2006-01-02 15:04:05.000000000`.
fn is_a_time(text: &str) -> bool {
    let form = "dddd-dd-dd dd:dd:dd.ddddddddd";
    text.len() == form.len()
        && text.chars().zip(form.chars()).all(|(c, f)| match f {
            'd' => c.is_ascii_digit(),
            _ => c == f,
        })
}
