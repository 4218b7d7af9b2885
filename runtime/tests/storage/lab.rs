//! A throw-away host file system with images on it, attached and mounted. Everything goes when the
//! lab is dropped; a watchdog does the same if this process dies or hangs.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use stillpoint::plan::Inventory;
use stillpoint::provider::{Disk, GroupRequest};

/// Thaws and unmounts everything under $1 and detaches every loop device on files there, until
/// there is none: what is inside goes first, and somebody who lists disks at the same time can have
/// an image open for a moment.
const CLEAN: &str = r#"
for round in $(seq 100); do
    left=
    for place in $(awk -v base="$1/" 'index($5, base) == 1 {print $5}' /proc/self/mountinfo | tac); do
        fsfreeze -u "$place" 2>/dev/null
        umount "$place" 2>/dev/null || left=1
    done
    for file in /sys/block/loop*/loop/backing_file; do
        case "$(cat "$file" 2>/dev/null)" in
            "$1"/*)
                device=${file#/sys/block/}
                losetup -d "/dev/${device%%/*}" 2>/dev/null
                left=1 ;;
        esac
    done
    [ -z "$left" ] && break
    sleep 0.05
done
rm -rf --one-file-system "$1"
"#;

pub const EXT4: &[&str] = &["mkfs.ext4", "-q"];
pub const XFS: &[&str] = &["mkfs.xfs", "-q"];

pub struct Lab {
    base: PathBuf,
    watchdog: Child,
}

impl Lab {
    /// A host file system of `mib` MiB, made with `mkfs` and mounted at `host/`.
    pub fn new(mkfs: &[&str], mib: u64) -> Self {
        let base = tempfile::Builder::new().prefix("stillpoint-reflink-").tempdir().unwrap().keep();
        let watchdog = Command::new("sh")
            .args(["-c", &format!("sleep 100\n{CLEAN}"), "watchdog"])
            .arg(&base)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let lab = Self { base, watchdog };
        lab.host("host", mkfs, mib);
        lab
    }

    pub fn xfs() -> Self {
        Self::new(&["mkfs.xfs", "-q", "-m", "reflink=1"], 800)
    }

    /// One more host file system.
    pub fn host(&self, name: &str, mkfs: &[&str], mib: u64) {
        let image = self.base.join(format!("{name}.img"));
        self.attach_new(&image, mkfs, mib, &self.base.join(name), &[]);
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.base.join(name)
    }

    /// An image on a host file system, with a file system of its own, mounted; its disk.
    pub fn disk(&self, image: &str, mkfs: &[&str], mib: u64, mounted: &str) -> Disk {
        let image = self.base.join(image);
        let place = self.base.join(mounted);
        let node = self.attach_new(&image, mkfs, mib, &place, &["--direct-io=on"]);
        self.listed(&image, &node)
    }

    /// The disk that a host file system lies on.
    pub fn host_disk(&self, name: &str) -> Disk {
        let image = self.base.join(format!("{name}.img"));
        let node = run("findmnt", &["-n", "-o", "SOURCE", self.base.join(name).to_str().unwrap()]);
        self.listed(&image, &node)
    }

    pub fn listed(&self, image: &Path, node: &str) -> Disk {
        let inventory = Inventory::collect().unwrap();
        let node = Path::new(node);
        let block = inventory
            .blocks
            .values()
            .find(|block| Path::new("/dev").join(&block.name) == node)
            .unwrap();
        Disk {
            id: image.to_str().unwrap().into(),
            device: block.device,
            node: node.into(),
            warnings: Vec::new(),
        }
    }

    fn attach_new(
        &self,
        image: &Path,
        mkfs: &[&str],
        mib: u64,
        place: &Path,
        losetup: &[&str],
    ) -> String {
        fs::File::create_new(image).unwrap().set_len(mib << 20).unwrap();
        let show = ["--show", "-f"];
        let node = run("losetup", &[losetup, &show, &[image.to_str().unwrap()]].concat());
        run(mkfs[0], &[&mkfs[1..], &[&*node]].concat());
        fs::create_dir(place).unwrap();
        run("mount", &[&node, place.to_str().unwrap()]);
        node
    }

    /// What there is in a directory for groups.
    pub fn groups_left(&self, directory: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.base.join(directory)) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        run("sh", &["-c", CLEAN, "clean", self.base.to_str().unwrap()]);
        let group = Pid::from_raw(i32::try_from(self.watchdog.id()).unwrap());
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.watchdog.wait();
    }
}

/// Runs a program and gives what it printed.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

pub fn request(disks: &[Disk]) -> GroupRequest {
    GroupRequest {
        run_id: uuid::Uuid::new_v4().to_string(),
        name: "Nightly backup".into(),
        description: String::new(),
        disks: disks.to_vec(),
        frozen_mounts: Vec::new(),
        frozen_superblocks: Vec::new(),
    }
}
