//! What the scenarios share.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use ecs_emulator::Fault;
use stillpoint_tests::cloud_rig::CloudRig;
use stillpoint_tests::standing::{none_frozen, run_dir, wait_until, wait_within};
use stillpoint_tests::stillpoint::settings;

/// From a death, or a deadline, to the last thaw.
pub const SOON: Duration = Duration::from_millis(250);

/// Exit codes, as documented.
pub const PRECONDITION: i32 = 1;
pub const GROUP_TIMED_OUT: i32 = 6;
pub const PRE_FREEZE: i32 = 9;
pub const POST_THAW: i32 = 10;
pub const CANNOT_FREEZE: i32 = 11;
pub const CANNOT_THAW: i32 = 12;
pub const IN_PROGRESS: i32 = 16;

/// The cloud answers a request for a snapshot only after this long.
pub fn answers_after(rig: &CloudRig, delay: Duration) {
    rig.cloud.emulator.faults([Fault::on("CreateSnapshotGroup").delay_before(delay)]);
}

/// The cloud answers at once.
pub fn answers_at_once(rig: &CloudRig) {
    rig.cloud.emulator.faults([]);
}

/// Nothing of the cloud says of itself that it is consistent.
pub fn nothing_is_called_consistent(rig: &CloudRig) -> Result<()> {
    for group in rig.cloud.emulator.groups() {
        let members = group.members.iter().map(|member| {
            ["AppConsistent", "FsConsistent"].map(|tag| member.tag(tag) == Some("True"))
        });
        ensure!(!members.flatten().any(|said| said), "{group:#?}");
        for tag in ["AppConsistent", "FsConsistent"] {
            ensure!(group.tag(tag) != Some("True"), "{group:#?}");
        }
    }
    Ok(())
}

/// Every file system runs within moments, and the journal says so.
pub fn is_thawed(rig: &CloudRig) -> Result<()> {
    wait_within(SOON, "nothing is frozen", || none_frozen(&rig.lab))?;
    let journal = run_dir(&rig.stillpoint).join("freeze.json");
    wait_until("no journal is left", || Ok(!journal.exists()))
}

/// The legacy pair, in a directory of the lab.
pub struct Scripts {
    pub directory: PathBuf,
}

impl Scripts {
    /// Writes both, and the configuration that names them, with `more` at its end.
    pub fn install(rig: &CloudRig, pre: &str, post: &str, more: &str) -> Result<Self> {
        let scripts = Self { directory: rig.lab.scratch("scripts")? };
        scripts.write("pre.sh", pre)?;
        scripts.write("post.sh", post)?;
        let text = format!(
            "[scripts]\nenabled = true\npre = \"{}\"\npost = \"{}\"\n{more}",
            scripts.path("pre.sh"),
            scripts.path("post.sh")
        );
        rig.stillpoint.configure(&settings(&rig.lab, "alibaba", &text))?;
        Ok(scripts)
    }

    /// Two that say in a file that they ran; the first waits until a file `go` is there.
    pub fn waiting(rig: &CloudRig, more: &str) -> Result<Self> {
        let at = rig.lab.scratch("scripts")?;
        let at = at.display();
        let pre = format!(
            "echo pre >>{at}/log; touch {at}/began; while ! test -e {at}/go; do sleep 0.02; done"
        );
        Self::install(rig, &pre, &format!("echo post-$STILLPOINT_OUTCOME >>{at}/log"), more)
    }

    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.directory.join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n"))?;
        Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o700))?)
    }

    pub fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    pub fn touch(&self, name: &str) -> Result<()> {
        Ok(fs::write(self.directory.join(name), "")?)
    }

    pub fn is_there(&self, name: &str) -> bool {
        self.directory.join(name).exists()
    }

    /// What they wrote.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }
}
