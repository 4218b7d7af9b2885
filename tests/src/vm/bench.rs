//! stillpoint in the machine, with the emulated cloud beside it, and what a user would look at to
//! know whether all is well.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ecs_emulator::{Disk, Fault, Scenario};
use serde_json::Value;

use super::agent::Answer;
use super::guest::{Begun, Guest, PATIENCE, describe};
use super::machine::{DATA_DISKS, disk_id, serial};
use crate::stillpoint::{NO_SCRIPTS, Run};

/// The emulator's door for tests.
const CONTROL: &str = "http://127.0.0.1:8001/_control";
/// A run that ends by itself, on an emulated processor.
pub const RUN: Duration = Duration::from_secs(180);
/// A write to a file system that runs, on the same.
const WRITE_SECONDS: u32 = 30;

/// The cloud of a machine: its disks, under names of nodes that are not theirs here. Only their
/// serial numbers tell which is which.
#[must_use]
pub fn scenario() -> Scenario {
    let nodes = ["/dev/xvde", "/dev/xvdd", "/dev/xvdc", "/dev/xvdb"];
    let data = DATA_DISKS.iter().zip(nodes).map(|(disk, node)| cloud_disk(disk, node, "data"));
    Scenario::with_disks(data.chain([cloud_disk("root", "/dev/xvda", "system")]))
}

fn cloud_disk(disk: &str, node: &str, kind: &str) -> Disk {
    let serial = Some(serial(disk));
    Disk { serial, kind: kind.to_owned(), ..Disk::at(disk_id(disk), node) }
}

/// The head of a `stillpoint.toml` for that cloud.
const PROVIDER: &str = "\
[provider]
kind = \"alibaba\"
[provider.alibaba]
endpoint = \"http://127.0.0.1:8001\"
metadata-endpoint = \"http://127.0.0.1:8002\"
late-group = \"5s\"
";

/// An emulated processor is slow, and is not what is tested.
const PATIENT: &str = "[deadlines]\nprepare = \"2m\"\nquiesce = \"1m\"\nfreeze = \"30s\"\nconfirm = \"30s\"\nrelease = \"1m\"\n";

/// stillpoint in a machine.
#[derive(Clone, Copy, Debug)]
pub struct Bench<'g> {
    guest: &'g Guest,
}

impl<'g> Bench<'g> {
    /// With nothing wrong in the cloud, no hooks, no scripts, all the time that may be had, and these
    /// file systems; with none, every one that there is.
    ///
    /// # Errors
    /// If the machine does not answer.
    pub fn new(guest: &'g Guest, mounts: &[&str]) -> Result<Self> {
        let own = Self { guest };
        own.configure(mounts, &format!("{NO_SCRIPTS}{PATIENT}"))?;
        own.cloud_fails(&[])?;
        Ok(own)
    }

    /// What there is, as it is.
    #[must_use]
    pub fn on(guest: &'g Guest) -> Self {
        Self { guest }
    }

    /// Rewrites `stillpoint.toml`.
    ///
    /// # Errors
    /// If the machine does not answer.
    pub fn configure(&self, mounts: &[&str], more: &str) -> Result<()> {
        let scope = match mounts {
            [] => String::new(),
            some => format!("[snapshot]\nmounts = {some:?}\n"),
        };
        self.write("/etc/stillpoint/stillpoint.toml", &format!("{PROVIDER}{scope}{more}"), "600")
    }

    /// Writes a file of the machine.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &str, text: &str, mode: &str) -> Result<()> {
        ensure!(!text.contains("END_OF_FILE"));
        let script = format!(
            "mkdir -p $(dirname {path}) && cat >{path} <<'END_OF_FILE'\n{text}\nEND_OF_FILE\n\
             chmod {mode} {path}"
        );
        self.guest.sh(&script).map(drop)
    }

    /// From now on this goes wrong in the cloud, and nothing else; what was asked before is
    /// forgotten.
    ///
    /// # Errors
    /// If the emulator does not answer.
    pub fn cloud_fails(&self, faults: &[Fault]) -> Result<()> {
        let faults = serde_json::to_string(faults)?;
        // After a boot it may not listen yet.
        self.guest.until("the cloud", &format!("curl -sf {CONTROL}/groups"), PATIENCE)?;
        self.guest.sh(&format!(
            "curl -sf -X DELETE {CONTROL}/faults && curl -sf -X DELETE {CONTROL}/log &&\n\
             curl -sf -X POST {CONTROL}/faults -d '{faults}'"
        ))?;
        Ok(())
    }

    /// The cloud takes this long to answer the one request: so long is the window.
    ///
    /// # Errors
    /// As [`Bench::cloud_fails`].
    pub fn window_of(&self, time: Duration) -> Result<()> {
        self.cloud_fails(&[Fault::on("CreateSnapshotGroup").delay_before(time)])
    }

    /// The disks of the group that was made last.
    ///
    /// # Errors
    /// If there is none.
    pub fn disks_of_last_group(&self) -> Result<Vec<String>> {
        let groups: Value =
            serde_json::from_str(&self.guest.sh(&format!("curl -sf {CONTROL}/groups"))?)?;
        let last = groups.as_array().and_then(|groups| groups.last()).context("no group")?;
        let members = last.pointer("/members").and_then(Value::as_array).context("no members")?;
        let disk = |member: &Value| Some(member.pointer("/disk")?.as_str()?.to_owned());
        let mut disks: Vec<_> = members.iter().filter_map(disk).collect();
        disks.sort();
        Ok(disks)
    }

    /// Takes a snapshot.
    ///
    /// # Errors
    /// If it does not end.
    pub fn snapshot(&self, more: &str) -> Result<Run> {
        Self::end(self.begin_snapshot(more)?)
    }

    /// Begins a snapshot.
    ///
    /// # Errors
    /// If the machine does not answer.
    pub fn begin_snapshot(&self, more: &str) -> Result<Begun> {
        self.guest.begin(&format!("stillpoint --json snapshot --name vm {more}"), RUN)
    }

    /// How a snapshot ended.
    ///
    /// # Errors
    /// If it did not.
    pub fn end(begun: Begun) -> Result<Run> {
        let Answer { code, timed_out, stdout, stderr, .. } = begun.end()?;
        ensure!(!timed_out, "the run does not end: {stdout}{stderr}");
        Ok(Run::with(code, stdout, stderr))
    }

    /// Waits until the cloud has the request: everything is frozen.
    ///
    /// # Errors
    /// If it never comes.
    pub fn until_in_window(&self) -> Result<()> {
        let asked = format!("curl -sf {CONTROL}/log | grep -q CreateSnapshotGroup");
        self.guest.until("in the window", &asked, PATIENCE)
    }

    /// Everything runs: each of these file systems takes a write and is not read-only, and nothing
    /// of stillpoint's is left but what the service manager keeps.
    ///
    /// # Errors
    /// If not, with what is wrong.
    pub fn all_is_well(&self, mounts: &[&str]) -> Result<()> {
        for mount in mounts {
            let file = format!("{}/.still-runs", mount.trim_end_matches('/'));
            let write = format!(
                "timeout -s KILL {WRITE_SECONDS} touch {file} && rm {file} && \
                 ! findmnt -rno FS-OPTIONS {mount} | grep -qE '^ro|,ro'"
            );
            self.guest.sh(&write).with_context(|| format!("{mount} does not run"))?;
        }
        self.guest.until("all gone", NOTHING_LEFT, Duration::from_secs(30))?;
        let status: Value = serde_json::from_str(&self.guest.sh("stillpoint --json status")?)?;
        let running = |line: &Value| line.get("state").and_then(Value::as_str) == Some("running");
        let lines = status.as_array().context("no list")?;
        ensure!(lines.iter().all(running), "not all run: {status:#}");
        Ok(())
    }

    /// The machine's shell.
    #[must_use]
    pub fn guest(&self) -> &'g Guest {
        self.guest
    }
}

/// No run, guard or sentinel of a run, and no journal of what is frozen.
pub const NOTHING_LEFT: &str =
    "! pgrep -f '^stillpoint(-guard)?( |$)' && ! test -e /run/stillpoint/freeze.json";

/// Writes to a file system all the time, and notes when each write began and ended, as a client of
/// the machine would see it: by the clock that sleep does not stop.
#[derive(Debug)]
pub struct Writer {
    name: String,
    begun: Begun,
}

impl Writer {
    /// Begins to write to this file system.
    ///
    /// # Errors
    /// If the machine does not answer.
    pub fn start(guest: &Guest, mount: &str) -> Result<Self> {
        let name = format!("writer{}", mount.replace('/', "-"));
        let file = format!("{}/.{name}", mount.trim_end_matches('/'));
        let script = format!(
            "rm -f /run/{name}.*; while ! test -e /run/{name}.stop; do\n\
             read began rest </proc/uptime; echo x >>{file}; read ended rest </proc/uptime\n\
             echo $began $ended >>/run/{name}.log; done; rm -f {file}"
        );
        let begun = guest.begin(&script, Duration::from_secs(3600))?;
        guest.until("writing", &format!("test -s /run/{name}.log"), PATIENCE)?;
        Ok(Self { name, begun })
    }

    /// Stops, and says how long the longest write took, in seconds of the machine.
    ///
    /// # Errors
    /// If it cannot stop: the file system does not take the write.
    pub fn longest(self, guest: &Guest) -> Result<f64> {
        guest.sh(&format!("touch /run/{}.stop", self.name))?;
        let ended = self.begun.end()?;
        ensure!(ended.code == Some(0), "{}", describe("the writer", &ended));
        let longest = "awk '{ d = $2 - $1; if (d > m) m = d } END { print m + 0 }'";
        let text = guest.sh(&format!("{longest} /run/{}.log", self.name))?;
        text.trim().parse().with_context(|| format!("no writes: {text}"))
    }
}
