//! What a machine boots: a Debian from packages (made once, by `scripts/vm-image`), with this build,
//! its units and the emulated cloud put into it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::bench::scenario;
use crate::command::run;
use crate::stillpoint::{binary, component, workspace};

/// Of the root file system.
const SIZE: &str = "1600M";

/// Units that this machine has no use for, and that cost seconds of an emulated processor.
const MASKED: [&str; 14] = [
    "getty@.service",
    "serial-getty@.service",
    "getty-static.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_reap.service",
    "e2scrub_all.timer",
    "fstrim.timer",
    "systemd-user-sessions.service",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
    "lvm2-monitor.service",
    "mdmonitor.service",
];

/// Small files of the machine.
const FILES: [(&str, &str); 6] = [
    ("etc/hostname", "vm\n"),
    ("etc/fstab", "/dev/vda / ext4 defaults 0 1\n"),
    ("etc/lvm/lvmlocal.conf", "activation { monitoring = 0 }\n"),
    // On the root file system: what it writes must wait while that is frozen.
    ("etc/systemd/journald.conf", "[Journal]\nStorage=persistent\nRateLimitBurst=0\n"),
    ("etc/systemd/system/vm-agent.service", AGENT),
    ("etc/systemd/system/ecs-emulator.service", EMULATOR),
];

const AGENT: &str = "\
[Unit]
Description=Runs the commands of the tests
After=basic.target ecs-emulator.service
[Service]
ExecStart=/usr/local/libexec/vm agent
Environment=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
OOMScoreAdjust=-1000
[Install]
WantedBy=multi-user.target
";

/// It serves until its standard input ends.
const EMULATOR: &str = "\
[Unit]
Description=The emulated cloud
[Service]
ExecStart=/bin/sh -c 'tail -f /dev/null | exec /usr/local/libexec/ecs-emulator --ecs 127.0.0.1:8001 --metadata 127.0.0.1:8002 --scenario /etc/scenario.json'
[Install]
WantedBy=multi-user.target
";

/// Where everything of the machines is.
#[derive(Clone, Debug)]
pub struct Store {
    /// `target/vm`.
    pub directory: PathBuf,
}

impl Store {
    /// What `scripts/vm-image` made.
    ///
    /// # Errors
    /// If it has not.
    pub fn find() -> Result<Self> {
        let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
        let directory = workspace().join(target).join("vm");
        fs::metadata(directory.join("root.stamp"))
            .context("no image: scripts/vm-image makes it")?;
        Ok(Self { directory })
    }

    /// The root file system that machines start with. Each has a copy of its own.
    #[must_use]
    pub fn root_image(&self) -> PathBuf {
        self.directory.join("root.img")
    }

    /// Kernel and initial RAM disk.
    ///
    /// # Errors
    /// If there is none.
    pub fn kernel(&self) -> Result<[PathBuf; 2]> {
        Ok([self.boot_file("vmlinuz-")?, self.boot_file("initrd.img-")?])
    }

    fn boot_file(&self, beginning: &str) -> Result<PathBuf> {
        let directory = self.directory.join("root/boot");
        let files = fs::read_dir(&directory)?.filter_map(|entry| Some(entry.ok()?.path()));
        let mut fitting = files.filter(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(beginning))
        });
        fitting.next().with_context(|| format!("no {beginning}* in {}", directory.display()))
    }

    /// Puts this build into the tree and makes the image.
    ///
    /// # Errors
    /// If something is missing or cannot be written.
    pub fn make_root_image(&self) -> Result<()> {
        let root = self.directory.join("root");
        programs(&root)?;
        units(&root)?;
        for (path, text) in FILES {
            fs::write(root.join(path), text).with_context(|| path.to_owned())?;
        }
        let scenario = serde_json::to_vec(&scenario())?;
        fs::write(root.join("etc/scenario.json"), scenario)?;
        fs::create_dir_all(root.join("var/log/journal"))?;
        let image = self.root_image();
        let _ = fs::remove_file(&image);
        let make = [Path::new("-q"), "-d".as_ref(), &root, &image, SIZE.as_ref()];
        run("mkfs.ext4", make).map(drop)
    }
}

fn programs(root: &Path) -> Result<()> {
    let own = std::env::current_exe()?;
    let emulator = own.with_file_name("ecs-emulator");
    let bin = root.join("usr/local/bin");
    let libexec = root.join("usr/local/libexec");
    let share = root.join("usr/local/share/stillpoint/hooks");
    for directory in [&bin, &libexec, &share] {
        fs::create_dir_all(directory)?;
    }
    // Symbols are most of a debug build, and the machine is small.
    let strip = |from: &Path, to: PathBuf| run("strip", [Path::new("-o"), &to, from]).map(drop);
    strip(&binary()?, bin.join("stillpoint"))?;
    strip(&emulator, libexec.join("ecs-emulator"))?;
    strip(&own, libexec.join("vm"))?;
    for hook in ["mysql", "puppet"] {
        fs::copy(component(hook)?, share.join(format!("{hook}.wasm")))?;
    }
    Ok(())
}

/// The units that are shipped, as they are shipped, and those of the test.
fn units(root: &Path) -> Result<()> {
    let system = root.join("etc/systemd/system");
    let shipped = workspace().join("packaging/systemd");
    if shipped.exists() {
        for entry in fs::read_dir(shipped)? {
            let path = entry?.path();
            if let Some(name) = path.file_name().filter(|_| path.is_file()) {
                fs::copy(&path, system.join(name))?;
            }
        }
    }
    let wanted = system.join("multi-user.target.wants");
    fs::create_dir_all(&wanted)?;
    for unit in ["vm-agent.service", "ecs-emulator.service"] {
        link(&Path::new("..").join(unit), &wanted.join(unit))?;
    }
    for unit in MASKED {
        link(Path::new("/dev/null"), &system.join(unit))?;
    }
    // Started by the test that needs it.
    let _ = fs::remove_file(wanted.join("mariadb.service"));
    Ok(())
}

fn link(target: &Path, at: &Path) -> Result<()> {
    let _ = fs::remove_file(at);
    symlink(target, at).with_context(|| at.display().to_string())
}
