//! One virtual machine: QEMU without KVM, which a container or a rented machine rarely has. One
//! processor, 1 GiB, virtio disks with serial numbers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::agent::PORT;
use super::guest::Guest;
use super::image::Store;
use super::qmp::Qmp;
use crate::command::run;

/// The disks beside the root file system's, and their size. XFS takes no less than 300 MiB.
pub const DATA_DISKS: [&str; 4] = ["data1", "data2", "data3", "data4"];
const DATA_BYTES: u64 = 320 << 20;
/// An emulated processor, and others who use the real one.
const BOOT: Duration = Duration::from_secs(900);
/// QEMU itself.
const START: Duration = Duration::from_secs(30);

/// The serial number of a disk; the id of it in the cloud is this with `d-` before it.
#[must_use]
pub fn serial(disk: &str) -> String {
    format!("bp1vm{disk}")
}

/// The id of a disk in the cloud.
#[must_use]
pub fn disk_id(disk: &str) -> String {
    format!("d-{}", serial(disk))
}

/// A machine with disks of its own, which it loses when this is dropped.
#[derive(Debug)]
pub struct Machine {
    store: Store,
    directory: PathBuf,
    running: Option<Running>,
    boots: u32,
}

#[derive(Debug)]
struct Running {
    qemu: Child,
    qmp: Qmp,
    guest: Guest,
}

impl Machine {
    /// Makes fresh disks and boots.
    ///
    /// # Errors
    /// If QEMU cannot be started, or the machine does not boot.
    pub fn new(store: &Store, name: &str) -> Result<Self> {
        let directory = store.directory.join("machines").join(name);
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory)?;
        let image = directory.join("root.img");
        let copy = ["--sparse=always", "--reflink=auto"].map(Path::new).into_iter();
        run("cp", copy.chain([&*store.root_image(), &image]))?;
        for disk in DATA_DISKS {
            fs::File::create(directory.join(format!("{disk}.img")))?.set_len(DATA_BYTES)?;
        }
        let mut own = Self { store: store.clone(), directory, running: None, boots: 0 };
        own.boot()?;
        Ok(own)
    }

    /// Boots what its disks hold.
    ///
    /// # Errors
    /// As [`Machine::new`]. The end of the console is in the text.
    pub fn boot(&mut self) -> Result<()> {
        self.boots += 1;
        let console = self.directory.join(format!("console-{}.log", self.boots));
        let mut qemu = self.qemu(&console)?.spawn().context("cannot start QEMU")?;
        match self.meet(&mut qemu) {
            Ok((qmp, guest)) => {
                self.running = Some(Running { qemu, qmp, guest });
                Ok(())
            }
            Err(error) => {
                let _ = qemu.kill();
                let _ = qemu.wait();
                Err(error.context(last_lines(&console)))
            }
        }
    }

    fn meet(&self, qemu: &mut Child) -> Result<(Qmp, Guest)> {
        let began = Instant::now();
        let sockets = [self.socket("qmp"), self.socket("agent")];
        while !sockets.iter().all(|socket| socket.exists()) {
            let ended = qemu.try_wait()?;
            ensure!(ended.is_none(), "QEMU ended at once: {ended:?}");
            ensure!(began.elapsed() < START, "QEMU does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        let [qmp, agent] = &sockets;
        Ok((Qmp::connect(qmp)?, Guest::connect(agent, BOOT)?))
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// QEMU as it was unpacked, with the libraries that it was unpacked with.
    fn qemu(&self, console: &Path) -> Result<Command> {
        let unpacked = self.store.directory.join("qemu");
        let libraries = unpacked.join("usr/lib/x86_64-linux-gnu");
        let path = format!(
            "{}:{}:{}",
            unpacked.join("lib/x86_64-linux-gnu").display(),
            libraries.display(),
            libraries.join("pulseaudio").display()
        );
        // It ends with us, however we end.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        command.arg(unpacked.join("lib64/ld-linux-x86-64.so.2"));
        command.args(["--library-path", &path]);
        command.arg(unpacked.join("usr/bin/qemu-system-x86_64"));
        command.env("QEMU_MODULE_DIR", libraries.join("qemu"));
        for firmware in ["usr/share/qemu", "usr/share/seabios"] {
            command.arg("-L").arg(unpacked.join(firmware));
        }
        command.args(["-machine", "q35", "-accel", "tcg", "-smp", "1", "-m", "1024"]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-rtc", "base=utc"]);
        let [kernel, initrd] = self.store.kernel()?;
        command.arg("-kernel").arg(kernel).arg("-initrd").arg(initrd);
        command.args([
            "-append",
            "root=/dev/vda rw console=ttyS0 mitigations=off systemd.show_status=1",
        ]);
        command.arg("-serial").arg(format!("file:{}", console.display()));
        self.add_channels(&mut command);
        for disk in ["root"].into_iter().chain(DATA_DISKS) {
            let image = self.directory.join(format!("{disk}.img"));
            command.arg("-drive");
            command.arg(format!("id={disk},if=none,format=raw,file={}", image.display()));
            let device = format!("virtio-blk-pci,drive={disk},serial={}", serial(disk));
            command.args(["-device", &device]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
        Ok(command)
    }

    fn add_channels(&self, command: &mut Command) {
        for name in ["qmp", "agent"] {
            let socket = self.socket(name);
            let _ = fs::remove_file(&socket);
            let chardev = format!("socket,id={name},path={},server=on,wait=off", socket.display());
            command.args(["-chardev", &chardev]);
        }
        command.args(["-mon", "chardev=qmp,mode=control"]);
        command.args(["-device", "virtio-serial-pci"]);
        command.args(["-device", &format!("virtserialport,chardev=agent,name={PORT}")]);
    }

    /// The machine's shell.
    ///
    /// # Errors
    /// If it does not run.
    pub fn guest(&self) -> Result<&Guest> {
        Ok(&self.running.as_ref().context("the machine is off")?.guest)
    }

    /// Runs a command in it that must succeed.
    ///
    /// # Errors
    /// As [`Guest::sh`].
    pub fn sh(&self, script: &str) -> Result<String> {
        self.guest()?.sh(script)
    }

    /// Cuts the power: nothing in the machine learns of it, and what it had not written is lost.
    ///
    /// # Errors
    /// If QEMU does not end.
    pub fn cut_power(&mut self) -> Result<()> {
        let mut running = self.running.take().context("the machine is off")?;
        // It may be gone before it answers.
        let _ = running.qmp.execute("quit");
        running.qemu.wait().map(drop).context("QEMU does not end")
    }

    /// Cuts the power, and boots again on the same disks.
    ///
    /// # Errors
    /// As [`Machine::boot`].
    pub fn lose_power(&mut self) -> Result<()> {
        self.cut_power()?;
        self.boot()
    }

    /// The hypervisor stops the processor and the machine's clocks for this long.
    ///
    /// # Errors
    /// If QEMU refuses.
    pub fn pause(&mut self, time: Duration) -> Result<()> {
        let running = self.running.as_mut().context("the machine is off")?;
        running.qmp.execute("stop")?;
        std::thread::sleep(time);
        running.qmp.execute("cont").map(drop)
    }

    /// The hypervisor itself is stopped for this long: the machine's clocks have gone on afterwards.
    ///
    /// # Errors
    /// If it cannot be signalled.
    pub fn stall(&mut self, time: Duration) -> Result<()> {
        let running = self.running.as_ref().context("the machine is off")?;
        let pid = Pid::from_raw(i32::try_from(running.qemu.id())?);
        kill(pid, Signal::SIGSTOP)?;
        std::thread::sleep(time);
        kill(pid, Signal::SIGCONT).map_err(Into::into)
    }

    /// What the machine last said on its console.
    #[must_use]
    pub fn console(&self) -> String {
        last_lines(&self.directory.join(format!("console-{}.log", self.boots)))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            let _ = running.qemu.kill();
            let _ = running.qemu.wait();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn last_lines(console: &Path) -> String {
    let bytes = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let lines: Vec<_> = text.lines().collect();
    let last = lines.get(lines.len().saturating_sub(15)..).unwrap_or_default();
    format!("the console's last lines:\n{}", last.join("\n"))
}
