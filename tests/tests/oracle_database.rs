//! The hook `oracle` through the real binary, on real file systems that are really frozen. Only the
//! database is not real: behind it is the **stand-in** `sqlplus` of `stillpoint_tests::sqlplus`, because no
//! Oracle server can be had here. What is proved is what stillpoint does with a server's answers.

#![expect(clippy::print_stdout, reason = "the counts are for whoever reads the tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use stillpoint_tests::command::{output_of, run};
use stillpoint_tests::lab::{FsSpec, FsType, Lab};
use stillpoint_tests::leftovers::processes_running;
use stillpoint_tests::rig::PATIENCE;
use stillpoint_tests::sqlplus::model::{
    ARCHIVE_LOG, BEGIN_BACKUP, Database, END_BACKUP, Fault, What,
};
use stillpoint_tests::sqlplus::{STATE_VARIABLE, StateFile, install};
use stillpoint_tests::stillpoint::{NO_SCRIPTS, Run, Stillpoint, component, workspace};

/// Short, so that what hangs costs little; long enough for a busy machine.
const DEADLINES: &str =
    "[deadlines]\nprepare = \"6s\"\nquiesce = \"4s\"\nconfirm = \"3s\"\nrelease = \"3s\"\n";

/// How often `sqlplus` is started in one run, and what for.
const STARTS: [&str; 8] = [
    "prepare: look",
    "prepare: switch",
    "pre-freeze: state",
    "pre-freeze: begin",
    "confirm: state",
    "post-thaw: state",
    "post-thaw: end",
    "post-thaw: archive",
];

#[test]
fn an_oracle_database_is_in_backup_mode_while_the_snapshot_is_taken_and_never_after() -> Result<()>
{
    let bench = Bench::new()?;
    a_snapshot_is_taken_in_backup_mode_and_nothing_is_changed(&bench)?;
    states_without_backup_mode_are_refused_and_left_as_they_are(&bench)?;
    faults_at_every_start_of_sqlplus_leave_no_backup_mode_behind(&bench)?;
    errors_of_begin_and_end_are_told_with_the_next_step(&bench)?;
    somebody_elses_backup_mode_survives_everything(&bench)?;
    bench.lab.finish()
}

#[test]
fn an_agent_that_is_killed_at_any_moment_leaves_no_backup_mode_for_long() -> Result<()> {
    let bench = Bench::new()?;
    whoever_comes_next_ends_what_a_killed_agent_left_and_does_so_once(&bench)?;
    the_backup_that_somebody_began_after_the_kill_goes_on(&bench)?;
    what_was_kept_in_prepare_survives_a_reboot(&bench)?;
    bench.lab.finish()
}

#[test]
fn several_instances_have_a_grant_each_and_end_in_reverse() -> Result<()> {
    let bench = Bench::new()?;
    let second = bench.instance("HR")?;
    bench.grant("oracle-hr", "HR", &second, "after = [\"oracle\"]", "")?;

    let run = bench.stillpoint.snapshot("both", &[])?;
    let manifest = run.succeeded()?.manifest()?;
    ensure!(manifest.level()? == "application", "{}", run.description());
    let steps = manifest.at("/steps")?.as_array().context("no steps")?.clone();
    // By when they ended: the manifest lists hooks in the declared order.
    let mut order: Vec<(u64, String)> = steps
        .iter()
        .filter(|step| ["quiesce", "release"].contains(&step["step"].as_str().unwrap_or_default()))
        .filter_map(|step| {
            let words = format!("{} {}", step["step"].as_str()?, step["subject"].as_str()?);
            Some((step["ended_ns"].as_u64()?, words))
        })
        .collect();
    order.sort();
    let order: Vec<String> = order.into_iter().map(|(_, words)| words).collect();
    ensure!(
        order == ["quiesce oracle", "quiesce oracle-hr", "release oracle-hr", "release oracle"],
        "{order:?}"
    );
    bench.delete(&run)?;

    // The second one fails: the first is ended.
    second.change(|database| {
        database.faults =
            vec![fault(BEGIN_BACKUP, 0, What::Error("ORA-01109: database not open".into()))]
    })?;
    bench.stillpoint.snapshot("one-fails", &[])?.exited_with(9)?;
    for database in [bench.database.read()?, second.read()?] {
        ensure!(!database.in_backup_mode(), "{:?}", database.log);
    }
    ensure!(bench.database.read()?.done(END_BACKUP) == 2);

    // Killed while both are in backup mode: each is ended, by its own hook.
    bench.reset()?;
    second.change(|database| {
        database.log.clear();
        database.faults = vec![fault("SELECT '<sp:instance>'", 3, What::Hang)];
    })?;
    bench.kill_once(&second)?;
    bench.stillpoint.run(["recover"])?.succeeded()?;
    for database in [bench.database.read()?, second.read()?] {
        ensure!(!database.in_backup_mode(), "{:?}", database.log);
        ensure!(database.done(END_BACKUP) == 1, "{:?}", database.log);
    }
    bench.lab.finish()
}

fn a_snapshot_is_taken_in_backup_mode_and_nothing_is_changed(bench: &Bench) -> Result<()> {
    for containers in [false, true] {
        let mut database = bench.open_database("ORCL")?;
        if containers {
            database = database.with_containers(&bench.lab.mount("data").display().to_string());
            for file in &database.files {
                fs::write(&file.path, "")?;
            }
        }
        // What a site's glogin.sql prints is not taken for data.
        let noise = "Session altered.\n<sp:file>7|ACTIVE|1|1|ONLINE|READ WRITE|0|/x</sp>\n";
        database.faults = vec![Fault { times: 0, ..fault("LOGON", 0, What::Noise(noise.into())) }];
        bench.database.write(&database)?;
        let run = bench.stillpoint.snapshot("well", &[])?;
        let manifest = run.succeeded()?.manifest()?;
        ensure!(manifest.level()? == "application", "{}", run.description());
        let after = bench.database.read()?;
        ensure!(after.lasting() == database.lasting(), "changed: {after:#?}");
        ensure!((after.done(BEGIN_BACKUP), after.done(END_BACKUP)) == (1, 1), "{:?}", after.log);
        ensure!(after.done(ARCHIVE_LOG) == 2, "{:?}", after.log);
        let hooks = manifest.at("/hooks/0/metadata")?.to_string();
        for key in ["dbid", "begin-scn", "end-scn", "log-sequence-after", "incarnation"] {
            ensure!(hooks.contains(&format!("\"{key}\"")), "no {key}: {hooks}");
        }
        bench.delete(&run)?;
    }
    Ok(())
}

fn states_without_backup_mode_are_refused_and_left_as_they_are(bench: &Bench) -> Result<()> {
    type Change = fn(&mut Database);
    let states: [(&str, Change); 8] = [
        ("ALTER DATABASE ARCHIVELOG", |it| it.log_mode = "NOARCHIVELOG".into()),
        ("not OPEN and READ WRITE", |it| it.open_mode = "READ ONLY".into()),
        ("not OPEN and READ WRITE", |it| it.status = "MOUNTED".into()),
        ("ORA-01034", |it| it.status = "DOWN".into()),
        ("PHYSICAL STANDBY", |it| it.role = "PHYSICAL STANDBY".into()),
        ("RAC", |it| it.parallel = "YES".into()),
        ("RMAN", |it| it.rman = 1),
        ("begun by somebody else", |it| it.somebody_begins(1)),
    ];
    for (words, change) in states {
        bench.reset()?;
        bench.database.change(change)?;
        let before = bench.database.read()?;
        let run = bench.stillpoint.snapshot("refused", &[])?;
        run.exited_with(9)?;
        ensure!(run.error_text()?.contains(words), "{words}: {}", run.description());
        let after = bench.database.read()?;
        ensure!(after.lasting() == before.lasting() && after.log.is_empty(), "{words}: {after:?}");
        bench.nothing_is_left()?;
    }
    // One that nobody answers for.
    bench.reset()?;
    bench.grant("oracle", "HR", &bench.database, "", "")?;
    let run = bench.stillpoint.snapshot("another", &[])?;
    ensure!(run.error_text()?.contains("ORCL"), "{}", run.description());
    ensure!(run.code != Some(0));
    bench.grant("oracle", "ORCL", &bench.database, "", "")
}

/// Each fault, at each of the starts of `sqlplus` in one run.
fn faults_at_every_start_of_sqlplus_leave_no_backup_mode_behind(bench: &Bench) -> Result<()> {
    let faults = [
        What::Hang,
        What::Die(9),
        What::Exit(0),
        What::Error("ORA-03113: end-of-file on communication channel".into()),
        What::Slow(50),
    ];
    let mut runs = 0;
    for what in &faults {
        for (start, name) in STARTS.iter().enumerate() {
            bench.reset()?;
            let skip = u32::try_from(start)?;
            bench.database.change(|it| it.faults = vec![fault("LOGON", skip, what.clone())])?;
            let before = bench.database.read()?;
            let run = bench.stillpoint.snapshot("fault", &[])?;
            let case = || format!("{what:?} at {name}: {}", run.description());
            let fails = !matches!(what, What::Slow(_));
            let wanted = match start {
                0..=3 if fails => 9,
                // The level is lowered; or `finish` has ended what `post-thaw` could not. Both are told.
                4..=6 if fails => 10,
                _ => 0,
            };
            run.exited_with(wanted).with_context(case)?;
            if start > 3 || !fails {
                let level = run.manifest().with_context(case)?.level()?.to_owned();
                let lowered = start == 4 && fails;
                ensure!(
                    level == if lowered { "file-system" } else { "application" },
                    "{level}: {}",
                    case()
                );
                bench.stillpoint.delete(run.manifest()?.group()?)?;
            }
            let after = bench.database.read()?;
            ensure!(after.lasting() == before.lasting(), "{}: {after:?}", case());
            ensure!(
                after.done(END_BACKUP) == after.done(BEGIN_BACKUP),
                "{}: {:?}",
                case(),
                after.log
            );
            bench.nothing_is_left().with_context(case)?;
            runs += 1;
        }
    }
    println!("{runs} runs with a fault: no backup mode is left");
    Ok(())
}

fn errors_of_begin_and_end_are_told_with_the_next_step(bench: &Bench) -> Result<()> {
    for (at, after, line, code, words) in [
        (BEGIN_BACKUP, false, "ORA-01123: cannot start online backup", 9, "ARCHIVELOG mode"),
        (BEGIN_BACKUP, false, "ORA-01146: cannot start online backup", 9, "somebody else"),
        (BEGIN_BACKUP, true, "ORA-03113: end-of-file", 9, "alert log"),
        (ARCHIVE_LOG, false, "ORA-00258: manual archiving", 9, "ARCHIVELOG"),
        (ARCHIVE_LOG, false, "ORA-19502: write error on file", 9, "df"),
        (END_BACKUP, false, "ORA-00600: internal error", 10, "still in backup mode"),
    ] {
        bench.reset()?;
        bench.database.change(|it| {
            it.faults = vec![Fault { after, ..fault(at, 0, What::Error(line.into())) }];
        })?;
        let run = bench.stillpoint.snapshot("error", &[])?;
        run.exited_with(code)?;
        ensure!(run.description().contains(line), "{line}: {}", run.description());
        ensure!(run.description().contains(words), "{words}: {}", run.description());
        ensure!(!bench.database.read()?.in_backup_mode(), "{line}");
        if code == 10 {
            bench.stillpoint.delete(run.manifest()?.group()?)?;
        }
        bench.nothing_is_left()?;
    }

    // END BACKUP that always fails is told, kept, and done by `recover` once it can be.
    bench.reset()?;
    let broken = Fault { times: 0, ..fault(END_BACKUP, 0, What::Error("ORA-00600: x".into())) };
    bench.database.change(|it| it.faults = vec![broken])?;
    let run = bench.stillpoint.snapshot("cannot-end", &[])?;
    run.exited_with(10)?;
    bench.stillpoint.delete(run.manifest()?.group()?)?;
    ensure!(bench.database.read()?.in_backup_mode());
    bench.stillpoint.run(["recover"])?.exited_with(10)?;
    bench.database.change(|it| it.faults.clear())?;
    bench.stillpoint.run(["recover"])?.succeeded()?;
    let after = bench.database.read()?;
    ensure!(!after.in_backup_mode() && after.done(END_BACKUP) == 1, "{:?}", after.log);
    bench.nothing_is_left()
}

/// Begun by somebody else before BEGIN BACKUP, or while the snapshot is taken.
fn somebody_elses_backup_mode_survives_everything(bench: &Bench) -> Result<()> {
    let begins_in_between = fault(BEGIN_BACKUP, 0, What::SomebodyBegins);
    let takes_over = fault("LOGON", 4, What::SomebodyTakesOver);
    for (fault, code) in [(begins_in_between, 9), (takes_over, 10)] {
        bench.reset()?;
        bench.database.change(|it| it.faults = vec![fault])?;
        let run = bench.stillpoint.snapshot("others", &[])?;
        run.exited_with(code)?;
        if code == 10 {
            let manifest = run.manifest()?;
            ensure!(manifest.level()? == "file-system", "{}", run.description());
            bench.stillpoint.delete(manifest.group()?)?;
        }
        bench.nothing_is_left()?;
        let after = bench.database.read()?;
        ensure!(after.in_backup_mode() && after.done(END_BACKUP) == 0, "{:?}", after.log);
    }
    Ok(())
}

/// Who ends what a killed agent left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// The operator, by `stillpoint recover`.
    Operator,
    /// The next run.
    NextRun,
    /// The sentinel, by itself.
    Sentinel,
}

/// The agent is killed while `sqlplus` hangs: at each start of it, and just before and after each
/// statement that changes something.
fn whoever_comes_next_ends_what_a_killed_agent_left_and_does_so_once(bench: &Bench) -> Result<()> {
    let starts = (0..STARTS.len()).map(|start| ("LOGON", false, start));
    let acts =
        [BEGIN_BACKUP, END_BACKUP].into_iter().flat_map(|at| [(at, false, 0), (at, true, 0)]);
    let mut all = [Who::Operator, Who::NextRun, Who::Sentinel].into_iter().cycle();
    let mut kills = 0;
    for (at, after, skip) in starts.chain(acts) {
        // In `prepare` there is no sentinel yet.
        let has_sentinel = at != "LOGON" || skip > 1;
        let who =
            all.by_ref().find(|who| has_sentinel || *who != Who::Sentinel).context("nobody")?;
        let case = format!("killed at {at} (after: {after}, skipped: {skip}), then {who:?}");
        bench.reset()?;
        let before = bench.database.read()?;
        let hangs = Fault { after, ..fault(at, u32::try_from(skip)?, What::Hang) };
        bench.database.change(|it| it.faults = vec![hangs])?;
        bench.kill_once(&bench.database).context(case.clone())?;
        match who {
            Who::Operator => drop(bench.stillpoint.run(["recover"])?.succeeded()?),
            Who::NextRun => {
                let run = bench.stillpoint.snapshot("next", &[])?;
                let level = run.succeeded()?.manifest()?.level()?.to_owned();
                ensure!(level == "application", "{case}: {}", run.description());
                bench.delete(&run)?;
            }
            Who::Sentinel => bench.wait_until_all_have_ended().context(case.clone())?,
        }
        let now = bench.database.read()?;
        ensure!(now.lasting() == before.lasting(), "{case}: {now:#?}");
        ensure!(now.done(END_BACKUP) == now.done(BEGIN_BACKUP), "{case}: {:?}", now.log);
        bench.nothing_is_left().context(case)?;
        kills += 1;
    }
    println!("{kills} kills: backup mode was ended once for each time that it was begun");
    Ok(())
}

/// Somebody took over before anybody could recover: at the next start of `sqlplus`, whoever starts it.
fn the_backup_that_somebody_began_after_the_kill_goes_on(bench: &Bench) -> Result<()> {
    bench.reset()?;
    let takes_over = fault("LOGON", 0, What::SomebodyTakesOver);
    bench.database.change(|it| it.faults = vec![fault("LOGON", 4, What::Hang), takes_over])?;
    bench.kill_once(&bench.database)?;
    bench.nothing_is_left()?;
    let after = bench.database.read()?;
    ensure!(after.in_backup_mode() && after.done(END_BACKUP) == 0, "{:?}", after.log);
    Ok(())
}

/// The machine went down in backup mode: `/run` is empty, what was on the disk is there, and the
/// database is mounted only.
fn what_was_kept_in_prepare_survives_a_reboot(bench: &Bench) -> Result<()> {
    bench.reset()?;
    // Nobody can recover before the machine is down.
    let down = Fault {
        times: 0,
        ..fault("LOGON", 0, What::Error("ORA-01034: ORACLE not available".into()))
    };
    bench.database.change(|it| it.faults = vec![fault("LOGON", 4, What::Hang), down])?;
    let state = bench.lab.root().join("var/lib/stillpoint/state/oracle.kv");
    let mut agent = bench.hanging_agent(&bench.database)?;
    let on_disk = fs::read(&state)?;
    agent.kill()?;
    agent.wait()?;
    bench.wait_until_all_have_ended()?;
    fs::write(&state, on_disk)?;
    for entry in fs::read_dir(bench.lab.root().join("run/stillpoint"))? {
        let path = entry?.path();
        if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
    }
    bench.database.change(|it| {
        it.faults.clear();
        it.started += 600;
        it.status = "MOUNTED".into();
        it.open_mode = "MOUNTED".into();
    })?;
    ensure!(bench.database.read()?.in_backup_mode());
    let run = bench.stillpoint.snapshot("after-a-reboot", &[])?;
    run.exited_with(9)?;
    let after = bench.database.read()?;
    ensure!(!after.in_backup_mode() && after.done(END_BACKUP) == 1, "{}", run.description());
    Ok(())
}

fn fault(at: &str, skip: u32, what: What) -> Fault {
    Fault { at: at.into(), after: false, what, skip, times: 1 }
}

/// Two file systems with the files of one database, and the hook for it.
struct Bench {
    lab: Lab,
    stillpoint: Stillpoint,
    program: PathBuf,
    module: String,
    database: StateFile,
}

impl Bench {
    fn new() -> Result<Self> {
        let specs = [FsSpec::new("data", FsType::Ext4, 64), FsSpec::new("redo", FsType::Ext4, 64)];
        let lab = Lab::new(&specs, Duration::from_secs(600))?;
        let stillpoint = Stillpoint::new(&lab)?;
        stillpoint.configure(&stillpoint.settings(&lab, &format!("{NO_SCRIPTS}\n{DEADLINES}")))?;
        let wasm = component("oracle")?;
        stillpoint.sign_and_install(&wasm)?;
        let sum = run("sha256sum", [&wasm])?;
        let module = format!("sha256:{}", sum.split(' ').next().unwrap_or_default());
        let program = install(&lab.scratch("programs")?)?;
        let database = StateFile::at(PathBuf::new());
        let mut bench = Self { lab, stillpoint, program, module, database };
        bench.database = bench.instance("ORCL")?;
        bench.grant("oracle", "ORCL", &bench.database, "", "")?;
        Ok(bench)
    }

    /// A database whose files are there.
    fn open_database(&self, sid: &str) -> Result<Database> {
        let of = |name: &str| self.lab.mount(name).display().to_string();
        let archive = format!("{}/archive", of("redo"));
        fs::create_dir_all(&archive)?;
        let database = Database::new(sid, &of("data"), &of("redo"), &archive);
        let data = database.files.iter().map(|file| &file.path);
        for path in data.chain(&database.redo).chain(&database.control) {
            fs::write(path, "")?;
        }
        Ok(database)
    }

    fn instance(&self, sid: &str) -> Result<StateFile> {
        let directory = self.lab.scratch(&format!("instance-{sid}"))?;
        StateFile::create(&directory, &self.open_database(sid)?)
    }

    /// As at the beginning.
    fn reset(&self) -> Result<()> {
        self.database.write(&self.open_database("ORCL")?)
    }

    /// The shipped grant file, with the stand-in in place of `sqlplus`.
    fn grant(
        &self,
        name: &str,
        sid: &str,
        database: &StateFile,
        order: &str,
        more: &str,
    ) -> Result<()> {
        let shipped = fs::read_to_string(workspace().join("hooks/oracle/grant.toml"))?;
        let (scripts, _) = shipped.split_once("user = \"oracle\"").context("no user")?;
        let directory = database.path().parent().unwrap_or(Path::new("/"));
        let text = scripts
            .replace(&format!("sha256:{}", "0".repeat(64)), &self.module)
            .replace("after = []", order)
            .replace("sid = \"ORCL\"", &format!("sid = \"{sid}\""))
            .replace("wait-for-others-seconds = 10", "wait-for-others-seconds = 0")
            .replace("archive-timeout-seconds = 20", "archive-timeout-seconds = 2")
            .replace("archive-after-seconds = 5", "archive-after-seconds = 1")
            .replace("/usr/local/lib/stillpoint/sqlplus-ORCL", &self.program.display().to_string());
        let tail = format!(
            "environment = {{ {STATE_VARIABLE} = \"{}\" }}\nwritable = [\"{}\"]\n{more}\n",
            database.path().display(),
            directory.display()
        );
        self.stillpoint.write_config(&format!("hooks.d/{name}.toml"), &format!("{text}{tail}"))
    }

    /// Takes a snapshot and kills it, hard, once this database's `sqlplus` hangs.
    fn kill_once(&self, database: &StateFile) -> Result<()> {
        let mut agent = self.hanging_agent(database)?;
        agent.kill()?;
        agent.wait()?;
        Ok(())
    }

    fn hanging_agent(&self, database: &StateFile) -> Result<Child> {
        let mut agent = self.stillpoint.start_snapshot("killed")?;
        let patience = Instant::now() + PATIENCE;
        while !database.read()?.log.iter().any(|line| line.ends_with(": hangs")) {
            if agent.try_wait()?.is_some() {
                bail!("it ended by itself: {}", Run::of(&agent.wait_with_output()?).description());
            }
            ensure!(Instant::now() < patience, "it never hung");
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(agent)
    }

    /// Guards, sentinels, and what sentinels have started.
    fn wait_until_all_have_ended(&self) -> Result<()> {
        let patience = Instant::now() + PATIENCE;
        loop {
            let left = processes_running(self.stillpoint.binary());
            if left.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < patience, "they do not end: {left:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// File systems run, and there is nothing to recover.
    fn nothing_is_left(&self) -> Result<()> {
        self.stillpoint.run(["recover"])?.succeeded()?;
        let again = self.stillpoint.run(["recover"])?;
        ensure!(again.stdout == "nothing was left behind\n", "{}", again.description());
        for fs in self.lab.file_systems() {
            let mut touch: Command = self.lab.command("timeout");
            output_of(touch.args(["-s", "KILL", "5", "touch"]).arg(fs.mount.join("runs")))?;
        }
        Ok(())
    }

    fn delete(&self, run: &Run) -> Result<()> {
        self.stillpoint.delete(run.succeeded()?.manifest()?.group()?)
    }
}
