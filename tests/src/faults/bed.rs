//! Where cells are run: a lab that is made once for many cells, with stillpoint, a hook, the oracle,
//! and the FIFOs by which a run is held at a place.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::cell::{Cell, Fault, Kind, World};
use super::clients::Database;
use super::witness::Witness;
use crate::lab::{FsSpec, FsType, Lab};
use crate::puppet;
use crate::stillpoint::{NO_SCRIPTS, Stillpoint};

/// The file that alone has the secret.
pub const SECRET: &str = "main.password";

/// The window of these runs.
pub const WINDOW: Duration = Duration::from_secs(1);

const DEADLINES: &str = "[deadlines]\nprepare = \"4s\"\nsync = \"4s\"\nquiesce = \"2s\"\n\
    freeze = \"1s\"\nconfirm = \"2s\"\nrelease = \"2s\"\nsettle = \"10s\"\n";

/// How long the hook of the database plans to hold.
pub const HOLD_BUDGET: Duration = Duration::from_secs(2);
/// So much later the server ends a session that holds and says nothing (the hook's `wait_timeout`).
pub const DEAD_MAN: Duration = Duration::from_secs(5);

/// It is in a file that the program under test reads and must never show.
pub const CANARY: &str = "canary-6f1d0a7b5e2c4938";

/// A lab for one kind of file systems.
#[derive(Debug)]
pub struct Bed {
    /// What is in it.
    pub kind: Kind,
    /// The program under test.
    pub stillpoint: Stillpoint,
    /// The oracle.
    pub witness: Witness,
    /// Added to what every run is armed with.
    pub broken: Option<String>,
    grant: Option<(String, String)>,
    /// The server, if the kind has one.
    pub database: Option<Database>,
    /// Last: it cleans up.
    pub lab: Lab,
}

impl Bed {
    /// Makes one; `program` is the oracle's.
    ///
    /// # Errors
    /// If a part cannot be made.
    pub fn new(kind: Kind, program: &Path, time: Duration) -> Result<Self> {
        if kind.server {
            return Self::with_server(kind, program, time);
        }
        let mib = if kind.fs_type == FsType::Ext4 { 96 } else { 320 };
        let specs: Vec<_> = (0..kind.count)
            .map(|number| {
                FsSpec::new(format!("{}{number}", kind.fs_type.name()), kind.fs_type, mib)
            })
            .collect();
        let lab = Lab::new(&specs, time)?;
        let stillpoint = Stillpoint::new(&lab)?;
        let grant = Some(install_hook(&stillpoint, &lab)?);
        Self::around(kind, program, lab, stillpoint, grant, None)
    }

    fn with_server(kind: Kind, program: &Path, time: Duration) -> Result<Self> {
        let specs =
            [FsSpec::new("data", FsType::Ext4, 512), FsSpec::new("binlog", FsType::Xfs, 320)];
        let lab = Lab::new(&specs, time)?;
        let database = Database::new(&lab)?;
        let stillpoint = Stillpoint::new(&lab)?;
        stillpoint.install_mysql_hook(database.server().socket())?;
        // The server knows root by its socket, and asks for no password; the program has one to keep.
        let connections = fs::read_to_string(stillpoint.config_file("connections.toml"))?;
        let password = secret(&stillpoint)?;
        let with_password = format!("{connections}password-file = \"{}\"\n", password.display());
        stillpoint.write_config("connections.toml", &with_password)?;
        let grant = fs::read_to_string(stillpoint.config_file("hooks.d/mysql.toml"))?;
        let budget = format!("[settings]\nhold-budget-seconds = {}\n", HOLD_BUDGET.as_secs());
        let grant = grant.replacen("[settings]\n", &budget, 1);
        stillpoint.write_config("hooks.d/mysql.toml", &grant)?;
        Self::around(kind, program, lab, stillpoint, None, Some(database))
    }

    fn around(
        kind: Kind,
        program: &Path,
        lab: Lab,
        stillpoint: Stillpoint,
        grant: Option<(String, String)>,
        database: Option<Database>,
    ) -> Result<Self> {
        let mounts: Vec<_> = lab.file_systems().iter().map(|fs| fs.mount.clone()).collect();
        let witness = Witness::start(program, lab.directory(), &mounts)?;
        let bed = Self { kind, stillpoint, witness, broken: None, grant, database, lab };
        bed.configure(None, None)?;
        Ok(bed)
    }

    /// The journal's directory.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.lab.root().join("run/stillpoint")
    }

    /// Where the FIFOs of a run are: on the tmpfs that is never frozen.
    #[must_use]
    pub fn meeting_place(&self) -> PathBuf {
        self.lab.root().join("run/faults")
    }

    /// Writes configuration and grant: no scripts and an obedient hook, but for the fault.
    fn configure(&self, hook: Option<(&str, &str)>, scripts: Option<(&str, &str)>) -> Result<()> {
        let scripts = match scripts {
            Some((pre, post)) => {
                let [pre, post] =
                    [("pre", pre), ("post", post)].map(|(name, body)| self.script(name, body));
                format!(
                    "[scripts]\nenabled = true\npre = \"{}\"\npost = \"{}\"\ntimeout = \"1s\"\n",
                    pre?.display(),
                    post?.display()
                )
            }
            None => NO_SCRIPTS.to_owned(),
        };
        let mut deadlines = DEADLINES.to_owned();
        if self.database.is_some() {
            // The lock waits for the clients' statements, and on a busy machine they take their time.
            deadlines = deadlines.replace("quiesce = \"2s\"", "quiesce = \"15s\"");
        }
        let more = format!("keep-warm = false\n\n{scripts}\n{deadlines}");
        self.stillpoint.configure(&self.stillpoint.settings(&self.lab, &more))?;
        let mut settings = String::from("paths = []\n");
        for phase in ["prepare", "pre-freeze", "confirm", "post-thaw", "finish"] {
            let commands: Vec<_> =
                hook.iter().filter(|(at, _)| *at == phase).map(|(_, command)| *command).collect();
            settings.push_str(&format!("{phase} = {commands:?}\n"));
        }
        let Some((head, tail)) = &self.grant else { return Ok(()) };
        let grant = format!("{head}[settings]\n{settings}{tail}");
        self.stillpoint.write_config("hooks.d/puppet.toml", &grant)
    }

    fn script(&self, name: &str, body: &str) -> Result<PathBuf> {
        use std::os::unix::fs::PermissionsExt;
        let directory = self.lab.root().join("scripts");
        fs::create_dir_all(&directory)?;
        let path = directory.join(name);
        let _ = fs::remove_file(&path);
        let mount = &self.lab.file_systems().first().context("a file system")?.mount;
        let body = body.replace("@MOUNT@", &mount.display().to_string());
        fs::write(&path, format!("#!/bin/sh\n{body}\n"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
        Ok(path)
    }

    /// Starts the run of a cell, to be held at its place if it has one.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(&self, cell: &Cell, number: usize) -> Result<Started> {
        match &cell.fault {
            Fault::Hook(hook) => self.configure(Some((hook.phase, hook.command)), None)?,
            Fault::Script(_, pre, post) => self.configure(None, Some((pre, post)))?,
            _ => {}
        }
        let directory = self.meeting_place();
        let output = self.lab.scratch("output")?;
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory)?;
        let mut plan: Vec<String> = self.broken.iter().cloned().collect();
        let mut places = Vec::new();
        if needs_a_dead_guard(cell.place) {
            plan.push(format!("{GUARD_DIES_AT}=pause({})", directory.display()));
            places.push(GUARD_DIES_AT);
        }
        if !cell.place.is_empty() {
            places.push(cell.place);
            plan.push(action_of(cell, &directory));
        }
        let meetings = places
            .into_iter()
            .map(|place| Meeting::new(&directory, place))
            .collect::<Result<_>>()?;
        let name = format!("cell-{number}");
        let arguments = ["--json", "snapshot", "--name", &name];
        let mut command = limited(cell, self.stillpoint.command(arguments))?;
        command.env(stillpoint::failpoint::VARIABLE, plan.join(";"));
        let cgroup = match (&cell.fault, cell.place) {
            (Fault::CgroupKill | Fault::World(World::CgroupFrozen), _) => {
                Some(Cgroup::new(number, None)?)
            }
            (Fault::Own(super::cell::Own::Oom), _) => Some(Cgroup::new(number, Some(200))?),
            (Fault::World(World::Starved), _) => Some(Cgroup::of_processors(number)?),
            (Fault::World(World::Memory(mib)), _) => {
                Some(Cgroup::new(number, Some(u64::from(*mib)))?)
            }
            _ => None,
        };
        if let Some(cgroup) = &cgroup {
            // The shell is in the cgroup before it becomes the program.
            command = cgroup.wrap(&command);
        }
        command
            .stdout(File::create(output.join("output"))?)
            .stderr(File::create(output.join("errors"))?);
        let agent = command.spawn().context("cannot start stillpoint")?;
        Ok(Started { agent, meetings, output, name, cgroup })
    }

    /// Configuration and hook as they were.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn reset(&self, cell: &Cell) -> Result<()> {
        if matches!(cell.fault, Fault::Hook(_) | Fault::Script(..)) {
            self.configure(None, None)?;
        }
        Ok(())
    }

    /// Removes all groups: by their files, for this is not what is tested here.
    ///
    /// # Errors
    /// If a directory cannot be removed.
    pub fn remove_groups(&self) -> Result<()> {
        let groups = self.lab.host().join(".stillpoint");
        for entry in fs::read_dir(&groups).into_iter().flatten().flatten() {
            fs::remove_dir_all(entry.path()).with_context(|| entry.path().display().to_string())?;
        }
        Ok(())
    }

    /// Levels in the manifests of all groups that there are, with their names.
    #[must_use]
    pub fn kept(&self) -> Vec<(String, String)> {
        let groups =
            fs::read_dir(self.lab.host().join(".stillpoint")).into_iter().flatten().flatten();
        let manifests =
            groups.filter_map(|group| fs::read(group.path().join("manifest.json")).ok());
        manifests
            .filter_map(|bytes| {
                let manifest: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
                let text = |key: &str| Some(manifest.get(key)?.as_str()?.to_owned());
                Some((text("name")?, text("level")?))
            })
            .collect()
    }

    /// Ends it: file systems are unmounted and checked, and everything is removed.
    ///
    /// # Errors
    /// If a file system is damaged, or something is left.
    pub fn finish(self) -> Result<()> {
        self.witness.stop()?;
        if let Some(database) = self.database {
            database.stop()?;
        }
        for fs in self.lab.file_systems() {
            crate::command::run("umount", [&fs.mount])?;
            let device = fs.device.as_path();
            let checked = match fs.fs_type {
                FsType::Ext4 => crate::command::run("e2fsck", [Path::new("-fn"), device]),
                FsType::Xfs => crate::command::run("xfs_repair", [Path::new("-n"), device]),
                FsType::Btrfs => {
                    let check = [Path::new("check"), Path::new("--readonly"), device];
                    crate::command::run("btrfs", check)
                }
            };
            checked.with_context(|| format!("{} is damaged", fs.name))?;
        }
        self.lab.finish()
    }
}

/// The guard is killed here if a place is reached only without it.
pub const GUARD_DIES_AT: &str = "agent.snapshot.before";

/// A sentinel thaws, and undoes the rest, only if the guard is gone.
#[must_use]
pub fn needs_a_dead_guard(place: &str) -> bool {
    place.starts_with("sentinel.thaw") || place.starts_with("sentinel.undo")
}

fn action_of(cell: &Cell, directory: &Path) -> String {
    let pause = format!("1*pause({})", directory.display());
    let nth = if cell.nth > 1 { format!("{}:", cell.nth) } else { String::new() };
    let action = match &cell.fault {
        Fault::Own(own) => format!("{pause}+{}", own.action()),
        Fault::Error(errno, 0) => format!("error({errno})"),
        Fault::Error(errno, times) => format!("{times}*error({errno})"),
        _ => pause,
    };
    format!("{}={nth}{action}", cell.place)
}

fn limited(cell: &Cell, command: Command) -> Result<Command> {
    let limit = match cell.fault {
        Fault::World(World::Descriptors(n)) => format!("--nofile={n}:{n}"),
        Fault::World(World::AddressSpace(mib)) => format!("--as={}", u64::from(mib) << 20),
        _ => return Ok(command),
    };
    let mut prlimit = Command::new("prlimit");
    prlimit.arg(limit).arg("--").arg(command.get_program()).args(command.get_args());
    prlimit.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    prlimit.stdin(std::process::Stdio::null());
    Ok(prlimit)
}

/// A run that was started.
#[derive(Debug)]
pub struct Started {
    /// Its agent.
    pub agent: Child,
    /// Where it is held, in order.
    pub meetings: Vec<Meeting>,
    /// Where it writes `output` and `errors`.
    pub output: PathBuf,
    /// The snapshot's name.
    pub name: String,
    /// Its own cgroup, if it has one.
    pub cgroup: Option<Cgroup>,
}

/// Two FIFOs: the run says by the one that it has reached a place, and waits for the other.
#[derive(Debug)]
pub struct Meeting {
    /// A place of `failpoint::ALL`.
    pub place: &'static str,
    at: File,
    go: File,
}

impl Meeting {
    fn new(directory: &Path, place: &'static str) -> Result<Self> {
        let fifo = |edge: &str| -> Result<PathBuf> {
            let path = directory.join(format!("{place}.{edge}"));
            nix::unistd::mkfifo(&path, Mode::S_IRWXU)?;
            Ok(path)
        };
        let nonblocking = OFlag::O_NONBLOCK.bits();
        let at = OpenOptions::new().read(true).custom_flags(nonblocking).open(fifo("at")?)?;
        // Read and write: neither end waits for the other to open.
        let go = OpenOptions::new().read(true).write(true).open(fifo("go")?)?;
        Ok(Self { place, at, go })
    }

    /// The process that has reached it; none if the agent ends, or `limit` passes, before.
    pub fn wait(&mut self, agent: &mut Child, limit: Duration) -> Result<Option<u32>> {
        let until = Instant::now() + limit;
        let mut said = String::new();
        loop {
            let mut buffer = [0; 32];
            match self.at.read(&mut buffer) {
                Ok(length) => said.push_str(&String::from_utf8_lossy(&buffer[..length])),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            if let Some(line) = said.strip_suffix('\n') {
                return Ok(Some(line.parse()?));
            }
            if Instant::now() > until {
                return Ok(None);
            }
            if agent.try_wait()?.is_some() && Instant::now() + Duration::from_secs(1) < until {
                // Guard and sentinel may reach it a moment after the agent has ended.
                let rest = Duration::from_secs(1);
                return self.wait_without(rest, said);
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    fn wait_without(&mut self, limit: Duration, mut said: String) -> Result<Option<u32>> {
        let until = Instant::now() + limit;
        while Instant::now() < until {
            let mut buffer = [0; 32];
            if let Ok(length) = self.at.read(&mut buffer) {
                said.push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
            if let Some(line) = said.strip_suffix('\n') {
                return Ok(Some(line.parse()?));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(None)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// If the FIFO is gone.
    pub fn go(&mut self) -> Result<()> {
        self.go.write_all(b"g").context("a FIFO")
    }
}

/// A cgroup for a run: to be killed as a whole, or with a limit of memory.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    kill: bool,
}

impl Cgroup {
    /// One whose processes can be starved.
    fn of_processors(number: usize) -> Result<Self> {
        let root = hierarchy(&|f| f[2] == "cgroup" && f[3].split(',').any(|o| o == "cpu"))?;
        let root = root.context("no processor controller of version 1")?;
        let path = root.join(format!("faults-{}-{number}", std::process::id()));
        fs::create_dir_all(&path)?;
        fs::write(path.join("cpu.cfs_period_us"), "1000000")?;
        Ok(Self { path, kill: false })
    }

    /// Its processes get 1 ms of a processor in each second, or nothing at all; or as much as there is.
    ///
    /// # Errors
    /// If the kernel cannot.
    pub fn hold_up(&self, held: bool) -> Result<()> {
        let (file, value) = match (self.kill, held) {
            (true, true) => ("cgroup.freeze", "1"),
            (true, false) => ("cgroup.freeze", "0"),
            (false, true) => ("cpu.cfs_quota_us", "1000"),
            (false, false) => ("cpu.cfs_quota_us", "-1"),
        };
        fs::write(self.path.join(file), value).context(file)
    }

    fn new(number: usize, memory_mib: Option<u64>) -> Result<Self> {
        let name = format!("faults-{}-{number}", std::process::id());
        match memory_mib {
            None => {
                let root = hierarchy(&|f| f[2] == "cgroup2")?.context("no cgroup2")?;
                let path = root.join(name);
                fs::create_dir_all(&path)?;
                Ok(Self { path, kill: true })
            }
            Some(mib) => {
                let v1 =
                    hierarchy(&|f| f[2] == "cgroup" && f[3].split(',').any(|o| o == "memory"))?;
                let root = v1.context("no memory controller of version 1")?;
                let path = root.join(name);
                fs::create_dir_all(&path)?;
                fs::write(path.join("memory.limit_in_bytes"), (mib << 20).to_string())?;
                Ok(Self { path, kill: false })
            }
        }
    }

    /// The same command, started in it.
    fn wrap(&self, command: &Command) -> Command {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg("echo $$ >\"$0\"; exec \"$@\"").arg(self.path.join("cgroup.procs"));
        shell.arg(command.get_program()).args(command.get_args());
        shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        shell.stdin(std::process::Stdio::null());
        shell
    }

    /// Kills all that is in it.
    ///
    /// # Errors
    /// If the kernel cannot.
    pub fn kill(&self) -> Result<()> {
        ensure!(self.kill, "not a cgroup that can be killed");
        fs::write(self.path.join("cgroup.kill"), "1").context("cgroup.kill")
    }
}

/// Where the first mount is whose line in the table of mounts is wanted.
fn hierarchy(wanted: &dyn Fn(&[&str]) -> bool) -> Result<Option<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mut fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    Ok(fields.find(|fields| wanted(fields)).map(|fields| PathBuf::from(fields[1])))
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for _ in 0..100 {
            match fs::remove_dir(&self.path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                _ => return,
            }
        }
    }
}

/// The file with the secret.
fn secret(stillpoint: &Stillpoint) -> Result<PathBuf> {
    stillpoint.write_config(SECRET, &format!("{CANARY}\n"))?;
    Ok(stillpoint.config_file(SECRET))
}

/// The hook `puppet` does what its settings say; without a word there it is content with everything.
fn install_hook(stillpoint: &Stillpoint, lab: &Lab) -> Result<(String, String)> {
    let password = secret(stillpoint)?;
    stillpoint.write_config(
        "connections.toml",
        &format!(
            "[connections.main]\nengine = \"mysql\"\nsocket = \"{}\"\nuser = \"nobody\"\n\
             password-file = \"{}\"\n",
            lab.directory().join("no-server.sock").display(),
            password.display()
        ),
    )?;
    puppet::grant(stillpoint)
}
