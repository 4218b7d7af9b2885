//! `stillpoint verify`: a good snapshot, one with torn pages, and one that was taken without hooks have
//! three different answers; nothing reaches out of the sandbox, and nothing is left of it.

#![expect(clippy::print_stdout, reason = "the trees are for whoever reads the tests")]

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mysql_async::prelude::Queryable;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use stillpoint_tests::command::run;
use stillpoint_tests::lab::{FsType, Lab, attach};
use stillpoint_tests::leftovers::cgroups;
use stillpoint_tests::rig::{CLIENTS, PATIENCE, Rig};
use stillpoint_tests::servers::machine::wait_for_all;
use stillpoint_tests::servers::postgresql::{connect, parse_lsn, program};
use stillpoint_tests::servers::{Kind, Machine};
use stillpoint_tests::stillpoint::Stillpoint;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const LONGEST: Duration = Duration::from_secs(600);
const CLEAN: i32 = 0;
const RECOVERED: i32 = 17;
const DAMAGED: i32 = 18;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn good_snapshots_of_three_engines_are_clean() -> Result<()> {
    let machine = Machine::new(&[Kind::MariaDb, Kind::PostgreSql, Kind::Redis], LONGEST)?;
    let before = Machines::now(&machine.lab)?;
    let writers = machine.start_writers(CLIENTS).await?;
    wait_for_all(&writers, 50).await?;
    let taken = tokio::task::block_in_place(|| machine.stillpoint.snapshot("good", &[]))?;
    let manifest = taken.succeeded()?.manifest()?;
    let group = manifest.group()?.to_owned();
    let clones = clones_of(&machine.lab)?;
    let hashes = hashes(&clones)?;
    // The originals go on meanwhile.
    let verdict =
        tokio::task::block_in_place(|| verified(&machine.stillpoint, &group, &[], CLEAN))?;
    wait_for_all(&writers, 10).await?;
    for writers in writers {
        writers.stop().await?;
    }
    ensure!(verdict["verdict"] == "clean" && list(&verdict["findings"]).is_empty(), "{verdict:#}");
    ensure!(list(&verdict["file_systems"]).len() == 5, "{verdict:#}");
    for check in list(&verdict["file_systems"]) {
        ensure!(check["journal_clean"] == true && check["checked_by"].is_string(), "{check:#}");
    }
    for (engine, position) in
        [("mariadb", "binlog-position"), ("postgresql", "lsn"), ("redis", "dbsize")]
    {
        let check = database(&verdict, engine)?;
        let found = list(&check["positions"]).iter().find(|it| it["name"] == position);
        let found = found.with_context(|| format!("no {position}: {check:#}"))?;
        ensure!(found["agrees"] == true, "{found:#}");
        ensure!(check["rolled_back"] == 0 && check["in_doubt"] == 0, "{check:#}");
        ensure!(
            check["tables_checked"].as_u64() > Some(0) && check["hook"].is_string(),
            "{check:#}"
        );
    }
    ensure!(database(&verdict, "mariadb")?["files_checked"].as_u64() > Some(0));
    // It is kept, and the snapshot itself was only read.
    let shown = machine.stillpoint.run_json(["show", &group])?.succeeded()?.json()?;
    ensure!(shown["verified"]["verdict"] == "clean", "{shown:#}");
    ensure!(hashes == self::hashes(&clones)?, "a clone was written to");
    before.are_all_there_is(&machine.lab)?;
    machine.stillpoint.delete(&group)?;
    machine.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn torn_pages_are_found_and_named() -> Result<()> {
    let rig = Rig::new(LONGEST)?;
    rig.fresh_tables().await?;
    // More pages than the doublewrite buffer has, and none that the log makes anew: no start mends them.
    rig.server.execute(
        "CREATE DATABASE torn; CREATE TABLE torn.wide (id INT PRIMARY KEY AUTO_INCREMENT, \
         pad CHAR(200)) ENGINE=InnoDB; INSERT INTO torn.wide (pad) SELECT REPEAT('x', 200) FROM \
         torn.seq_1_to_40000; SET GLOBAL innodb_log_checkpoint_now = 1",
    )?;
    let taken = rig.stillpoint.snapshot("torn", &[])?;
    let group = taken.succeeded()?.manifest()?.group()?.to_owned();
    let whole = verified(&rig.stillpoint, &group, &["--query", "SELECT 6 * 7"], CLEAN)?;
    let answer = &database(&whole, "mariadb")?["queries"][0]["answer"];
    ensure!(answer == "42", "{whole:#}");

    tear(&rig.lab, "mysql/torn/wide.ibd")?;
    let verdict = verified(&rig.stillpoint, &group, &[], DAMAGED)?;
    let details = details(&verdict);
    ensure!(verdict["verdict"] == "damaged" && details.contains("torn/wide"), "{verdict:#}");
    ensure!(
        details.contains("file torn/wide.ibd") || details.contains("'./torn/wide.ibd'"),
        "{details}"
    );
    // What is not damaged is not said to be.
    ensure!(list(&verdict["file_systems"]).iter().all(|it| it["journal_clean"] == true));
    ensure!(list(&verdict["findings"]).iter().all(|it| it["code"] != "file-system-errors"));
    let listed = rig.stillpoint.listed_manifest("torn")?;
    ensure!(listed.at("/verified/verdict")? == "damaged");
    rig.stillpoint.delete(&group)?;
    rig.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_log_that_ends_in_the_middle_of_a_record_is_as_long_as_the_manifest_says() -> Result<()> {
    let machine = Machine::new(&[Kind::PostgreSql], LONGEST)?;
    machine.databases[0].write().await?;
    let taken = tokio::task::block_in_place(|| machine.stillpoint.snapshot("begun", &[]))?;
    let group = taken.succeeded()?.manifest()?.group()?.to_owned();
    let fs = machine.lab.file_systems().iter().find(|fs| fs.mount.ends_with("pgwal"));
    let fs_type = fs.context("no pgwal")?.fs_type;
    change_copy(&machine.lab, ("pgwal.img", fs_type), |place| begin_record(&place.join("wal")))?;
    let verdict =
        tokio::task::block_in_place(|| verified(&machine.stillpoint, &group, &[], CLEAN))?;
    let positions = &database(&verdict, "postgresql")?["positions"];
    let lsn = list(positions).iter().find(|it| it["name"] == "lsn");
    ensure!(lsn.is_some_and(|it| it["agrees"] == true), "{verdict:#}");
    machine.stillpoint.delete(&group)?;
    machine.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_index_that_lacks_a_row_is_found_and_named() -> Result<()> {
    let machine = Machine::new(&[Kind::PostgreSql], LONGEST)?;
    let sockets = machine.lab.scratch("postgresql-live")?.join("sockets");
    // Every page is whole, and has its checksum: a row was put in while the index was not looked after.
    for statements in [
        "CREATE TABLE orders (id int); CREATE INDEX by_id ON orders (id); INSERT INTO orders SELECT \
         generate_series(1, 1000)",
        "UPDATE pg_index SET indisready = false WHERE indexrelid = 'by_id'::regclass",
        "INSERT INTO orders VALUES (1001)",
        "UPDATE pg_index SET indisready = true WHERE indexrelid = 'by_id'::regclass",
    ] {
        connect(&sockets).await?.batch_execute(statements).await?;
    }
    let taken = tokio::task::block_in_place(|| machine.stillpoint.snapshot("lacks", &[]))?;
    let group = taken.succeeded()?.manifest()?.group()?.to_owned();
    let verdict =
        tokio::task::block_in_place(|| verified(&machine.stillpoint, &group, &[], DAMAGED))?;
    let details = details(&verdict);
    ensure!(details.contains("by_id") && list(&verdict["findings"]).len() == 1, "{verdict:#}");
    machine.stillpoint.delete(&group)?;
    machine.finish()
}

/// A client that commits rows without a pause.
struct InnoDbCommits {
    go_on: watch::Sender<bool>,
    client: JoinHandle<Result<()>>,
}

impl InnoDbCommits {
    /// Returns when there are some.
    async fn start(rig: &Rig) -> Result<Self> {
        const ENOUGH: u64 = 100;
        let (go_on, goes_on) = watch::channel(true);
        let (done, mut has_done) = watch::channel(0);
        let mut connection = rig.server.connect().await?;
        connection.query_drop("CREATE TABLE lab.commits (n INT) ENGINE=InnoDB").await?;
        let client = tokio::spawn(async move {
            let mut committed: u64 = 0;
            while *goes_on.borrow() {
                connection.query_drop("INSERT INTO lab.commits VALUES (1)").await?;
                committed += 1;
                let _ = done.send(committed);
            }
            Ok(connection.disconnect().await?)
        });
        timeout(PATIENCE, has_done.wait_for(|committed| *committed >= ENOUGH)).await??;
        Ok(Self { go_on, client })
    }

    async fn stop(self) -> Result<()> {
        self.go_on.send(false)?;
        timeout(PATIENCE, self.client).await??
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_snapshot_without_hooks_is_recovered_and_says_from_what() -> Result<()> {
    let rig = Rig::without_hook(LONGEST)?;
    rig.fresh_tables().await?;
    let mut open = rig.server.connect().await?;
    open.query_drop("CREATE TABLE lab.open (id INT PRIMARY KEY AUTO_INCREMENT, n INT)").await?;
    open.query_drop("BEGIN").await?;
    open.query_drop("INSERT INTO lab.open (n) SELECT seq FROM lab.seq_1_to_2000").await?;
    // A server that has run for a while has its old files on the disk. Its other engines promise
    // nothing of what is written when the power fails, so only InnoDB is written to.
    for fs in rig.lab.file_systems() {
        run("sync", [Path::new("-f"), &fs.mount])?;
    }
    let commits = InnoDbCommits::start(&rig).await?;
    let taken = tokio::task::block_in_place(|| rig.stillpoint.snapshot("crash", &["--no-freeze"]))?;
    commits.stop().await?;
    open.disconnect().await?;
    let manifest = taken.succeeded()?.manifest()?;
    ensure!(manifest.level()? == "crash", "{}", taken.description());
    let group = manifest.group()?.to_owned();
    let verdict = verified(&rig.stillpoint, &group, &[], RECOVERED)?;
    ensure!(verdict["verdict"] == "recovered", "{verdict:#}");
    let codes: BTreeSet<&str> =
        list(&verdict["findings"]).iter().filter_map(|it| it["code"].as_str()).collect();
    for code in ["journal-replay", "redo", "rolled-back"] {
        ensure!(codes.contains(code), "no {code}: {verdict:#}");
    }
    let check = database(&verdict, "mariadb")?;
    ensure!(check["redo_bytes"].as_u64() > Some(0) && check["rolled_back"] == 1, "{check:#}");
    rig.stillpoint.delete(&group)?;
    rig.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_reaches_out_of_the_sandbox_and_nothing_is_left_of_a_killed_one() -> Result<()> {
    let rig = Rig::new(LONGEST)?;
    rig.fresh_tables().await?;
    let taken = rig.stillpoint.snapshot("killed", &[])?;
    let group = taken.succeeded()?.manifest()?.group()?.to_owned();
    let before = Machines::now(&rig.lab)?;
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let mut command = start(&rig.stillpoint, &group, "SELECT SLEEP(120)")?;
        let server = before.wait_for("mariadbd")?;
        sees_no_network_and_no_original(&rig.lab, server)?;
        kill(Pid::from_raw(i32::try_from(command.id())?), signal)?;
        command.wait()?;
        before.are_all_there_is(&rig.lab)?;
    }
    // One that takes too long ends by itself, and says so.
    let late = ["--query", "SELECT SLEEP(120)", "--deadline", "8s"];
    let run = rig.stillpoint.run(["verify", &group].iter().chain(&late))?;
    run.exited_with(6)?;
    ensure!(run.stderr.contains("longer than 8 s"), "{}", run.description());
    before.are_all_there_is(&rig.lab)?;
    // Nothing stands in the way of the next one.
    let verdict = verified(&rig.stillpoint, &group, &[], CLEAN)?;
    ensure!(verdict["verdict"] == "clean", "{verdict:#}");
    rig.stillpoint.delete(&group)?;
    rig.finish()
}

fn verified(stillpoint: &Stillpoint, group: &str, more: &[&str], code: i32) -> Result<Value> {
    let run = stillpoint.run_json(["verify", group].iter().chain(more))?;
    println!("{}", run.stdout);
    run.exited_with(code)?;
    run.json()
}

fn start(stillpoint: &Stillpoint, group: &str, query: &str) -> Result<Child> {
    let mut command = stillpoint.command(["verify", group, "--query", query]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("cannot start stillpoint")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn details(verdict: &Value) -> String {
    list(&verdict["findings"]).iter().map(|it| format!("{}\n", it["detail"])).collect()
}

fn database<'a>(verdict: &'a Value, engine: &str) -> Result<&'a Value> {
    let found = list(&verdict["databases"]).iter().find(|it| it["engine"] == engine);
    found.with_context(|| format!("no {engine}: {verdict:#}"))
}

/// The clones of all groups of the lab.
fn clones_of(lab: &Lab) -> Result<Vec<PathBuf>> {
    let mut clones = Vec::new();
    for group in fs::read_dir(lab.host().join(".stillpoint"))? {
        for file in fs::read_dir(group?.path())? {
            clones.push(file?.path());
        }
    }
    clones.retain(|path| path.extension().is_some_and(|it| it == "img"));
    clones.sort();
    Ok(clones)
}

fn hashes(files: &[PathBuf]) -> Result<String> {
    run("sha256sum", files)
}

/// Changes files in the one snapshot that there is, without verifying it.
fn change_copy<T>(
    lab: &Lab,
    (image, fs_type): (&str, FsType),
    change: impl FnOnce(&Path) -> Result<T>,
) -> Result<T> {
    let clones = clones_of(lab)?;
    let clone = clones.iter().find(|it| it.display().to_string().ends_with(image));
    let device = attach(clone.with_context(|| format!("no clone of {image}"))?, false)?;
    let place = lab.mount_copy(&device, fs_type, "change")?;
    let changed = change(&place);
    run("umount", [&place])?;
    run("losetup", [Path::new("--detach"), &device])?;
    changed
}

/// Overwrites the second half of many pages of a file: as if the power had gone between two sectors.
fn tear(lab: &Lab, file: &str) -> Result<()> {
    const PAGE: u64 = 16 << 10;
    change_copy(lab, ("data.img", FsType::Ext4), |place| {
        let pages = OpenOptions::new().write(true).open(place.join(file))?;
        for page in 20..200 {
            pages.write_all_at(&[0xaa; 4096], page * PAGE + PAGE / 2)?;
        }
        Ok(pages.sync_all()?)
    })
}

/// Where PostgreSQL's log ends in this directory: the last record, and the end of it.
fn last_record(wal: &Path) -> Result<(u64, u64)> {
    const RECORD: &str = "error in WAL record at ";
    const END: &str = ": invalid record length at ";
    let position = |text: &str, words: &str| {
        let (_, rest) = text.split_once(words)?;
        parse_lsn(rest.split([':', ' ', '\n']).next()?)
    };
    let read =
        Command::new(program("pg_waldump")?).arg(wal.join("000000010000000000000001")).output()?;
    let said = String::from_utf8_lossy(&read.stderr);
    let found = position(&said, RECORD).zip(position(&said, END));
    found.with_context(|| format!("pg_waldump: {said}"))
}

/// Puts the first bytes of a record at the end of the log, of which the rest would be on the next page:
/// a page is written as a whole, with what other clients have put on it by then.
fn begin_record(wal: &Path) -> Result<()> {
    const SEGMENT: u64 = 16 << 20;
    const LENGTH: u32 = 16 << 10;
    let (previous, end) = last_record(wal)?;
    ensure!(previous < end && end % (8 << 10) < (8 << 10) - 24, "{previous:x} {end:x}");
    let mut header = [0; 24];
    header[..4].copy_from_slice(&LENGTH.to_ne_bytes());
    header[8..16].copy_from_slice(&previous.to_ne_bytes());
    let log = OpenOptions::new().write(true).open(wal.join("000000010000000000000001"))?;
    log.write_all_at(&header, end % SEGMENT)?;
    Ok(log.sync_all()?)
}

fn sees_no_network_and_no_original(lab: &Lab, server: i32) -> Result<()> {
    let of = |file: &str| fs::read_to_string(format!("/proc/{server}/{file}"));
    let network = |process: &str| fs::read_link(format!("/proc/{process}/ns/net"));
    ensure!(network(&server.to_string())? != network("self")?, "the machine's network is there");
    // Two lines of headings, and the loopback device, which is down: it has no route.
    let interfaces = of("net/dev")?;
    ensure!(interfaces.lines().count() == 3 && interfaces.contains("lo:"), "{interfaces}");
    ensure!(of("net/fib_trie")?.lines().all(|it| !it.contains("127.0.0.1")));
    let devices: Vec<String> =
        lab.file_systems().iter().map(|it| it.device.display().to_string()).collect();
    let mounts = of("mountinfo")?;
    let is_original =
        |line: &&str| line.split(' ').any(|word| devices.iter().any(|device| device == word));
    let originals: Vec<&str> = mounts.lines().filter(is_original).collect();
    ensure!(originals.is_empty(), "{originals:?}");
    let status = of("status")?;
    ensure!(status.contains("CapEff:\t0000000000000000"), "{status}");
    ensure!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
    Ok(())
}

/// What there is on the machine that a verification could leave behind.
#[derive(Debug)]
struct Machines {
    cgroups: BTreeSet<PathBuf>,
    loops: BTreeSet<String>,
    mounts: usize,
}

impl Machines {
    fn now(lab: &Lab) -> Result<Self> {
        let name = lab.directory().display().to_string();
        let loops = run("losetup", ["-l", "-n", "-O", "NAME,BACK-FILE"])?;
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        Ok(Self {
            cgroups: cgroups(),
            loops: loops.lines().filter(|it| it.contains(&name)).map(str::to_owned).collect(),
            mounts: mounts.lines().filter(|it| it.contains(&name)).count(),
        })
    }

    /// A process of this name in a cgroup that was not there before, with its socket.
    fn wait_for(&self, command: &str) -> Result<i32> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            for cgroup in cgroups().difference(&self.cgroups) {
                let text = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
                for pid in text.lines().filter_map(|line| line.parse::<i32>().ok()) {
                    // It was started from a descriptor: only its first argument has its name.
                    let line =
                        fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                    if line.split('\0').next().is_some_and(|it| it.ends_with(command)) {
                        return Ok(pid);
                    }
                }
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        anyhow::bail!("no {command} was started")
    }

    fn are_all_there_is(&self, lab: &Lab) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = Self::now(lab)?;
            let more: Vec<_> = now.cgroups.difference(&self.cgroups).collect();
            let loops: Vec<_> = now.loops.difference(&self.loops).collect();
            if more.is_empty() && loops.is_empty() && now.mounts == self.mounts {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "left: {more:?} {loops:?} {}", now.mounts);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
