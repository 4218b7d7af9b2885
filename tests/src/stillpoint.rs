//! The program under test, as its users run it: the binary, its configuration, what it prints.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::cloud::Cloud;
use crate::command::describe;
use crate::lab::Lab;
use crate::oracle::{BinlogPosition, Claim, Restored, RestoredServer};
use crate::writers::Interval;

/// The keys under which the hook `mysql` saves where the binary log ended.
const BINLOG_FILE: &str = "binlog-file";
const BINLOG_POSITION: &str = "binlog-position";

/// The directory of the workspace.
#[must_use]
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/")).to_owned()
}

/// The binary: `STILLPOINT_BIN`, else the one beside this program.
///
/// # Errors
/// If there is none.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("STILLPOINT_BIN") {
        return Ok(PathBuf::from(path));
    }
    let own = std::env::current_exe()?;
    own.ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join("stillpoint"))
        .find(|path| path.is_file())
        .context("no stillpoint binary: build it (cargo build -p stillpoint), or name it in STILLPOINT_BIN")
}

/// A component built from `hooks/NAME`: in `STILLPOINT_HOOKS`, else in `target/hooks`.
///
/// # Errors
/// If it was not built.
pub fn component(name: &str) -> Result<PathBuf> {
    let directory = std::env::var_os("STILLPOINT_HOOKS")
        .map_or_else(|| workspace().join("target/hooks"), PathBuf::from);
    let path = directory.join(format!("{name}.wasm"));
    ensure!(path.is_file(), "{} is missing: make hooks", path.display());
    Ok(path)
}

/// An installation of its own, below the lab.
#[derive(Debug)]
pub struct Stillpoint {
    binary: PathBuf,
    root: PathBuf,
    lab: PathBuf,
    environment: Vec<(String, String)>,
}

impl Stillpoint {
    /// The installation of this lab, with no configuration yet but for the disks: those under the
    /// lab's file systems.
    ///
    /// # Errors
    /// If there is no binary, or a file cannot be written.
    pub fn new(lab: &Lab) -> Result<Self> {
        let own = Self::unconfigured(lab)?;
        own.configure(&own.settings(lab, NO_SCRIPTS))?;
        Ok(own)
    }

    /// As [`Stillpoint::new`], with the provider `alibaba` and this cloud.
    ///
    /// # Errors
    /// As [`Stillpoint::new`].
    pub fn in_cloud(lab: &Lab, cloud: &Cloud) -> Result<Self> {
        let environment = cloud.environment().to_vec();
        let own = Self { environment, ..Self::unconfigured(lab)? };
        own.configure(&settings(lab, "alibaba", NO_SCRIPTS))?;
        Ok(own)
    }

    fn unconfigured(lab: &Lab) -> Result<Self> {
        Ok(Self {
            binary: binary()?,
            root: lab.root(),
            lab: lab.directory().to_owned(),
            environment: Vec::new(),
        })
    }

    /// Another installation on this machine, with no configuration at all.
    ///
    /// # Errors
    /// If its directory cannot be made.
    pub fn on_another_root(&self, name: &str) -> Result<Self> {
        let root = self.lab.join("roots").join(name);
        fs::create_dir_all(root.join("etc/stillpoint"))?;
        let (binary, lab) = (self.binary.clone(), self.lab.clone());
        Ok(Self { binary, root, lab, environment: self.environment.clone() })
    }

    /// The same with one more variable in its environment.
    #[must_use]
    pub fn with_variable(mut self, name: &str, value: &Path) -> Self {
        self.environment.push((name.to_owned(), value.display().to_string()));
        self
    }

    /// What it takes for `/`.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `stillpoint.toml` for this lab: provider `reflink`, disks, and then `more`.
    #[must_use]
    pub fn settings(&self, lab: &Lab, more: &str) -> String {
        settings(lab, "reflink", more)
    }

    /// Writes `stillpoint.toml`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn configure(&self, text: &str) -> Result<()> {
        self.write_config("stillpoint.toml", text)
    }

    /// Writes a file below `etc/stillpoint`, 0600.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_config(&self, name: &str, text: &str) -> Result<()> {
        let path = self.config_file(name);
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(())
    }

    /// A file below `etc/stillpoint`.
    #[must_use]
    pub fn config_file(&self, name: &str) -> PathBuf {
        self.root.join("etc/stillpoint").join(name)
    }

    /// Its binary.
    #[must_use]
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// Installs the hook `mysql` for the server at `socket`, with everything it asks for granted.
    ///
    /// # Errors
    /// If a step is refused.
    pub fn install_mysql_hook(&self, socket: &Path) -> Result<()> {
        self.connect_to(socket)?;
        self.sign_and_install(&component("mysql")?)?;
        self.run(["hook", "grant", "mysql", "--accept"])?.succeeded()?;
        Ok(())
    }

    /// Installs a component, signed with a key that this installation alone trusts.
    ///
    /// # Errors
    /// If a step is refused.
    pub fn sign_and_install(&self, component: &Path) -> Result<()> {
        let key = self.trusted_key()?;
        let signature = self.root.join("lab.minisig");
        let signed = ["hook", "sign", "--key"].map(Path::new).into_iter();
        self.run(signed.chain([&*key, Path::new("--output"), &signature, component]))?
            .succeeded()?;
        let install = ["hook", "install", "--signature"].map(Path::new).into_iter();
        self.run(install.chain([&*signature, component]))?.succeeded()?;
        Ok(())
    }

    /// The secret half of a throw-away key, `lab`, whose public half is trusted for every hook.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn trusted_key(&self) -> Result<PathBuf> {
        let (secret, public) = (self.root.join("lab.key"), self.config_file("keys.d/lab.pub"));
        if !secret.exists() {
            self.write_config("keys.d/lab.toml", "hooks = [\"*\"]\n")?;
            let keygen = ["hook", "keygen", "--no-password", "--secret"].map(Path::new).into_iter();
            self.run(keygen.chain([&*secret, Path::new("--public"), &public]))?.succeeded()?;
        }
        Ok(secret)
    }

    /// Writes `connections.toml` with one connection, `main`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn connect_to(&self, socket: &Path) -> Result<()> {
        self.write_config(
            "connections.toml",
            &format!(
                "[connections.main]\nengine = \"mysql\"\nsocket = \"{}\"\nuser = \"root\"\n",
                socket.display()
            ),
        )
    }

    /// A command line of it: `stillpoint --root … ARGUMENTS`.
    #[must_use]
    pub fn command<S: AsRef<std::ffi::OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = crate::command::of_lab(&self.binary, &self.lab);
        command.arg("--root").arg(&self.root).args(arguments).stdin(Stdio::null());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// If it cannot be started; how it ends is in the result.
    pub fn run<S: AsRef<std::ffi::OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Run> {
        let mut command = self.command(arguments);
        let output = command.output().context("cannot start stillpoint")?;
        Ok(Run {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            description: describe(&command, &output),
        })
    }

    /// Runs it with `--json`.
    ///
    /// # Errors
    /// As [`Stillpoint::run`].
    pub fn run_json<S: AsRef<std::ffi::OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Run> {
        let mut all = vec![std::ffi::OsString::from("--json")];
        all.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self.run(all)
    }

    /// Starts a snapshot and does not wait for it.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_snapshot(&self, name: &str) -> Result<Child> {
        self.command(["--json", "snapshot", "--name", name])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start stillpoint")
    }

    /// Takes a snapshot.
    ///
    /// # Errors
    /// If it cannot be started; how it ends is in the result.
    pub fn snapshot(&self, name: &str, more: &[&str]) -> Result<Run> {
        self.run_json(["snapshot", "--name", name].iter().chain(more))
    }

    /// The manifest that is kept with the one snapshot of this name.
    ///
    /// # Errors
    /// If there is none.
    pub fn listed_manifest(&self, name: &str) -> Result<Manifest> {
        let run = self.run_json(["list"])?;
        let list = run.succeeded()?.json()?;
        list.as_array()
            .into_iter()
            .flatten()
            .filter_map(|group| group.get("manifest"))
            .find(|manifest| manifest.get("name").and_then(Value::as_str) == Some(name))
            .map(|manifest| Manifest(manifest.clone()))
            .with_context(|| format!("no snapshot {name} with a manifest: {}", run.description()))
    }

    /// Nothing that this lab's disks were snapshotted into is left.
    ///
    /// # Errors
    /// If something is.
    pub fn has_no_group(&self) -> Result<()> {
        let run = self.run_json(["list"])?;
        let list = run.succeeded()?.json()?;
        // The provider finds those of other labs on this machine, too; and each manifest names all file
        // systems that there were.
        let own = self.lab.display().to_string();
        let of_this_lab = |group: &&Value| match group["manifest"]["disks"].as_array() {
            Some(disks) => disks.iter().any(|disk| disk.to_string().contains(&own)),
            None => group.to_string().contains(&own),
        };
        let left: Vec<&Value> = list.as_array().into_iter().flatten().filter(of_this_lab).collect();
        ensure!(left.is_empty(), "a group was left: {left:?}");
        Ok(())
    }

    /// Attaches copies of a group; devices by the image that each is a copy of.
    ///
    /// # Errors
    /// If it fails.
    pub fn restore(&self, group: &str) -> Result<Copies> {
        let run = self.run_json(["restore", group])?;
        run.succeeded()?;
        let document = run.json()?;
        // An array of copies, or a document that has one.
        let list = document.as_array().or_else(|| document.get("copies")?.as_array());
        let list = list.with_context(|| format!("restore prints no copies: {document}"))?;
        let text = |value: &Value, key: &str| -> Result<String> {
            Ok(value.get(key).and_then(Value::as_str).context("not an attached copy")?.to_owned())
        };
        list.iter()
            .map(|copy| Ok((text(copy, "disk")?, PathBuf::from(text(copy, "node")?))))
            .collect::<Result<_>>()
            .map(Copies)
    }

    /// Detaches and deletes the copies of a group.
    ///
    /// # Errors
    /// If it fails.
    pub fn detach(&self, group: &str) -> Result<()> {
        self.run(["detach", group])?.succeeded().map(drop)
    }

    /// Deletes a group.
    ///
    /// # Errors
    /// If it fails.
    pub fn delete(&self, group: &str) -> Result<()> {
        self.run(["delete", group])?.succeeded().map(drop)
    }
}

/// `stillpoint.toml` for a lab: this provider, the lab's file systems, and then `more`.
#[must_use]
pub fn settings(lab: &Lab, provider: &str, more: &str) -> String {
    let mounts: Vec<String> =
        lab.file_systems().iter().map(|fs| format!("\"{}\"", fs.mount.display())).collect();
    format!(
        "[provider]\nkind = \"{provider}\"\n\n[snapshot]\nmounts = [{}]\n\n{more}\n",
        mounts.join(", ")
    )
}

/// `[scripts]` switched off: no test finds what somebody left in /tmp.
pub const NO_SCRIPTS: &str = "[scripts]\nenabled = false\n";

/// Attached copies: the image that each is a copy of, and its block device.
#[derive(Clone, Debug)]
pub struct Copies(Vec<(String, PathBuf)>);

impl Copies {
    /// Copies that were not made by the program: the image of each, and its block device.
    pub(crate) fn of_images(copies: Vec<(String, PathBuf)>) -> Self {
        Self(copies)
    }

    /// The copy of one of the lab's file systems.
    ///
    /// # Errors
    /// If there is none.
    pub fn of(&self, lab: &Lab, name: &str) -> Result<Restored> {
        let original = lab
            .file_systems()
            .iter()
            .find(|fs| fs.name == name)
            .with_context(|| format!("the lab has no file system {name}"))?;
        let image = original.image.display().to_string();
        let (_, device) = self
            .0
            .iter()
            .find(|(disk, _)| *disk == image)
            .with_context(|| format!("no copy of {image} among {:?}", self.0))?;
        Ok(Restored { device: device.clone(), fs_type: original.fs_type })
    }

    /// The copies of a server's two file systems.
    ///
    /// # Errors
    /// If one is missing.
    pub fn server(&self, lab: &Lab) -> Result<RestoredServer> {
        Ok(RestoredServer { data: self.of(lab, "data")?, binlog: self.of(lab, "binlog")? })
    }
}

/// How a run ended, and what it printed.
#[derive(Clone, Debug)]
pub struct Run {
    /// Exit status; absent if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    description: String,
}

impl Run {
    /// From the output of a process that was started by [`Stillpoint::start_snapshot`].
    #[must_use]
    pub fn of(output: &std::process::Output) -> Self {
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let description = format!("stillpoint: {}\n{stdout}{stderr}", output.status);
        Self { code: output.status.code(), stdout, stderr, description }
    }

    /// From what became of a process that was run elsewhere.
    #[must_use]
    pub fn with(code: Option<i32>, stdout: String, stderr: String) -> Self {
        let description = format!("stillpoint: exit {code:?}\n{stdout}{stderr}");
        Self { code, stdout, stderr, description }
    }

    /// Itself, if it exited with 0.
    ///
    /// # Errors
    /// With everything that it printed, if not.
    pub fn succeeded(&self) -> Result<&Self> {
        self.exited_with(0)
    }

    /// Itself, if it exited with `code`.
    ///
    /// # Errors
    /// With everything that it printed, if not.
    pub fn exited_with(&self, code: i32) -> Result<&Self> {
        ensure!(self.code == Some(code), "not exit code {code}: {}", self.description);
        Ok(self)
    }

    /// The document on standard output.
    ///
    /// # Errors
    /// If it is not one JSON document.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout)
            .with_context(|| format!("not JSON: {}", self.description))
    }

    /// What the run did.
    ///
    /// # Errors
    /// If there is no manifest.
    pub fn manifest(&self) -> Result<Manifest> {
        match self.json()?.get("manifest") {
            Some(manifest @ Value::Object(_)) => Ok(Manifest(manifest.clone())),
            _ => bail!("no manifest: {}", self.description),
        }
    }

    /// Message, causes and hint of a failed run, as one text; empty if it has none.
    ///
    /// # Errors
    /// If standard output is not JSON.
    pub fn error_text(&self) -> Result<String> {
        let document = self.json()?;
        let error = document.get("error").cloned().unwrap_or(Value::Null);
        let mut parts: Vec<String> = Vec::new();
        for key in ["message", "hint"] {
            parts.extend(error.get(key).and_then(Value::as_str).map(str::to_owned));
        }
        let causes = error.get("causes").and_then(Value::as_array).cloned().unwrap_or_default();
        parts.extend(causes.iter().filter_map(Value::as_str).map(str::to_owned));
        Ok(parts.join("\n"))
    }

    /// All that it printed.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.description
    }
}

/// A manifest, read as a stranger would: by the names in the document.
#[derive(Clone, Debug)]
pub struct Manifest(Value);

impl Manifest {
    /// Of a snapshot that was not taken by the program, as the program would have written it.
    pub(crate) fn of(document: Value) -> Self {
        Self(document)
    }

    /// A field, by its JSON pointer.
    ///
    /// # Errors
    /// If there is none.
    pub fn at(&self, pointer: &str) -> Result<&Value> {
        self.0.pointer(pointer).with_context(|| format!("no {pointer} in {:#}", self.0))
    }

    /// A text field.
    ///
    /// # Errors
    /// If there is none.
    pub fn text(&self, pointer: &str) -> Result<&str> {
        self.at(pointer)?.as_str().with_context(|| format!("{pointer} is not text"))
    }

    /// A number, in nanoseconds or bytes.
    ///
    /// # Errors
    /// If there is none.
    pub fn number(&self, pointer: &str) -> Result<u64> {
        self.at(pointer)?.as_u64().with_context(|| format!("{pointer} is not a number"))
    }

    /// The level reached.
    ///
    /// # Errors
    /// If there is none.
    pub fn level(&self) -> Result<&str> {
        self.text("/level")
    }

    /// The provider's id of the group.
    ///
    /// # Errors
    /// If there is none.
    pub fn group(&self) -> Result<&str> {
        self.text("/group")
    }

    /// The codes of the reasons that lowered the level.
    ///
    /// # Errors
    /// If there is no list of them.
    pub fn reason_codes(&self) -> Result<Vec<String>> {
        let reasons = self.at("/reasons")?.as_array().context("/reasons is not a list")?;
        Ok(reasons
            .iter()
            .filter_map(|reason| Some(reason.get("code")?.as_str()?.to_owned()))
            .collect())
    }

    /// From the begin of the first record of step `first` to the end of the last of step `last`.
    ///
    /// # Errors
    /// If there is none.
    pub fn span(&self, first: &str, last: &str) -> Result<Interval> {
        let steps = self.at("/steps")?.as_array().context("/steps is not a list")?;
        let times = |name: &str, key: &str| -> Vec<u64> {
            steps
                .iter()
                .filter(|step| step.get("step").and_then(Value::as_str) == Some(name))
                .filter_map(|step| step.get(key)?.as_u64())
                .collect()
        };
        Ok(Interval {
            began_ns: times(first, "began_ns").into_iter().min().context(first.to_owned())?,
            ended_ns: times(last, "ended_ns").into_iter().max().context(last.to_owned())?,
        })
    }

    /// When a step of one subject, such as a hook, began and ended.
    ///
    /// # Errors
    /// If there is no such record.
    pub fn span_of(&self, step: &str, subject: &str) -> Result<Interval> {
        let steps = self.at("/steps")?.as_array().context("/steps is not a list")?;
        let is = |record: &&Value, key: &str, value: &str| {
            record.get(key).and_then(Value::as_str) == Some(value)
        };
        let record = steps
            .iter()
            .find(|record| is(record, "step", step) && is(record, "subject", subject))
            .with_context(|| format!("no {step} of {subject} in {steps:#?}"))?;
        let time = |key: &str| record.get(key).and_then(Value::as_u64).context("no time");
        Ok(Interval { began_ns: time("began_ns")?, ended_ns: time("ended_ns")? })
    }

    /// What the run claims about the application: the hold, and where the binary log ended.
    ///
    /// # Errors
    /// If the hook did not save it.
    pub fn claim(&self) -> Result<Claim> {
        Ok(Claim {
            hold: self.span("quiesce", "release")?,
            position: BinlogPosition {
                file: self
                    .metadata(BINLOG_FILE, "text")?
                    .as_str()
                    .context("the file is not text")?
                    .to_owned(),
                offset: self
                    .metadata(BINLOG_POSITION, "integer")?
                    .as_u64()
                    .context("the position is not a number")?,
            },
        })
    }

    /// What one hook saved under a key, as text; `None` if it saved nothing there.
    ///
    /// # Errors
    /// If there is no list of hooks.
    pub fn saved(&self, hook: &str, key: &str) -> Result<Option<String>> {
        let hooks = self.at("/hooks")?.as_array().context("/hooks is not a list")?;
        let entry = hooks
            .iter()
            .filter(|record| record.get("name").and_then(Value::as_str) == Some(hook))
            .filter_map(|record| record.get("metadata")?.as_array())
            .flatten()
            .find(|entry| entry.get("key").and_then(Value::as_str) == Some(key));
        let value = entry.and_then(|entry| entry.get("value")?.as_object()?.values().next());
        Ok(value.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
    }

    fn metadata(&self, key: &str, kind: &str) -> Result<&Value> {
        let hooks = self.at("/hooks")?.as_array().context("/hooks is not a list")?;
        hooks
            .iter()
            .filter_map(|hook| hook.get("metadata")?.as_array())
            .flatten()
            .find(|entry| entry.get("key").and_then(Value::as_str) == Some(key))
            .and_then(|entry| entry.get("value")?.get(kind))
            .with_context(|| format!("no {kind} {key} in the metadata of {hooks:#?}"))
    }
}
