//! A cloud for a lab: the emulator, whose disks are the lab's loop devices, and what those held at
//! the point in time of each group.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use ecs_emulator::{Addresses, Disk, Emulator, GroupView, Logged, Scenario};

use crate::command::run;
use crate::lab::{FileSystem, Lab, attach};
use crate::oracle::{Restored, RestoredServer};

/// Where the program under test finds ECS.
pub const ECS_VARIABLE: &str = "ALIBABA_CLOUD_ECS_ENDPOINT";

/// Where it finds the metadata service.
pub const METADATA_VARIABLE: &str = "ALIBABA_CLOUD_ECS_METADATA_SERVICE_ENDPOINT";

/// How the ids of the lab's own disks begin.
const DISK: &str = "d-lab";

/// The services of a cloud, for one lab.
#[derive(Debug)]
pub struct Cloud {
    /// The services themselves.
    pub emulator: Emulator,
    host: PathBuf,
}

impl Cloud {
    /// A cloud in which nothing goes wrong. Each file system of the lab is on a disk of its own.
    ///
    /// # Errors
    /// If there is no port.
    pub fn new(lab: &Lab) -> Result<Self> {
        Self::with(lab, |_| ())
    }

    /// As [`Cloud::new`], and then changed.
    ///
    /// # Errors
    /// As [`Cloud::new`].
    pub fn with(lab: &Lab, change: impl FnOnce(&mut Scenario)) -> Result<Self> {
        let mut scenario = scenario_of(lab);
        change(&mut scenario);
        Ok(Self { emulator: Emulator::start(scenario)?, host: lab.host() })
    }

    /// As [`Cloud::new`], with an ECS that speaks TLS; and the file of the authority that its
    /// certificate is from.
    ///
    /// # Errors
    /// If there is no port, or the file cannot be written.
    pub fn over_tls(lab: &Lab) -> Result<(Self, PathBuf)> {
        let addresses = Addresses { tls: true, ..Addresses::default() };
        let emulator = Emulator::start_at(scenario_of(lab), addresses)?;
        let file = lab.scratch("tls")?.join("authority.pem");
        std::fs::write(&file, emulator.authority_pem.as_deref().context("TLS")?)?;
        Ok((Self { emulator, host: lab.host() }, file))
    }

    /// The variables of the environment by which the program under test finds it.
    #[must_use]
    pub fn environment(&self) -> [(String, String); 2] {
        [
            (ECS_VARIABLE.to_owned(), self.emulator.ecs_url.clone()),
            (METADATA_VARIABLE.to_owned(), self.emulator.imds_url.clone()),
        ]
    }

    /// From now on, what the lab's disks hold when a group takes effect is kept: see
    /// [`Cloud::copy`]. Clones, on the lab's own XFS, made while the request is in process.
    pub fn keep_copies(&self, lab: &Lab) {
        let file_systems = lab.file_systems().to_vec();
        let host = self.host.clone();
        self.emulator.on_create(move |creation| {
            for fs in &file_systems {
                if creation.disks.contains(&disk_of(&fs.name)) {
                    clone(&fs.image, &copy_of(&host, &creation.group, &fs.name));
                }
            }
        });
    }

    /// From now on, a disk that is made from a snapshot and attached is a loop device here, with a clone
    /// of what [`Cloud::keep_copies`] has kept; and none any more when it is detached.
    pub fn plug_in(&self) {
        let host = self.host.clone();
        self.emulator.on_attach(move |attaching| {
            let name = attaching.source_disk.strip_prefix(DISK)?;
            let image = host.join(format!("{}.img", attaching.disk));
            clone(&copy_of(&host, &attaching.group, name), &image);
            Some(attach(&image, false).ok()?.display().to_string())
        });
        let host = self.host.clone();
        self.emulator.on_detach(move |detaching| {
            // What could not be detached is found by whoever looks at the end.
            let _ = run("losetup", ["--detach", &detaching.device]);
            let _ = std::fs::remove_file(host.join(format!("{}.img", detaching.disk)));
        });
    }

    /// The disks that are not the lab's own.
    #[must_use]
    pub fn copies(&self) -> Vec<Disk> {
        let mut disks = self.emulator.disks();
        disks.retain(|disk| !disk.id.starts_with(DISK));
        disks
    }

    /// What the disk of this file system held when the group took effect, attached.
    ///
    /// # Errors
    /// If it was not kept.
    pub fn copy(&self, lab: &Lab, group: &str, name: &str) -> Result<Restored> {
        let fs_type = lab
            .file_systems()
            .iter()
            .find(|fs| fs.name == name)
            .with_context(|| format!("the lab has no file system {name}"))?
            .fs_type;
        let device = attach(&copy_of(&self.host, group, name), false)?;
        Ok(Restored { device, fs_type })
    }

    /// The copies of a server's two file systems.
    ///
    /// # Errors
    /// As [`Cloud::copy`].
    pub fn server(&self, lab: &Lab, group: &str) -> Result<RestoredServer> {
        Ok(RestoredServer {
            data: self.copy(lab, group, "data")?,
            binlog: self.copy(lab, group, "binlog")?,
        })
    }

    /// The one group that there is.
    ///
    /// # Errors
    /// If there is none, or several.
    pub fn the_group(&self) -> Result<GroupView> {
        let groups = self.emulator.groups();
        match groups.as_slice() {
            [group] => Ok(group.clone()),
            _ => anyhow::bail!("not one group: {groups:#?}"),
        }
    }

    /// The requests of an action.
    #[must_use]
    pub fn calls(&self, action: &str) -> Vec<Logged> {
        self.emulator.calls(action)
    }
}

/// The id of the disk that a file system of the lab is on.
#[must_use]
pub fn disk_of(file_system: &str) -> String {
    format!("{DISK}{file_system}")
}

fn scenario_of(lab: &Lab) -> Scenario {
    let disk = |fs: &FileSystem| Disk::at(disk_of(&fs.name), fs.device.display().to_string());
    Scenario::with_disks(lab.file_systems().iter().map(disk))
}

fn copy_of(host: &Path, group: &str, name: &str) -> PathBuf {
    host.join(format!("{group}-{name}.img"))
}

/// A failure is noticed when the copy is asked for.
fn clone(image: &Path, copy: &Path) {
    let _ = Command::new("cp").arg("--reflink=always").arg(image).arg(copy).status();
}
