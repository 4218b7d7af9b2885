//! What applications, hooks and scripts do.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mysql_async::prelude::Queryable;
use stillpoint_tests::cloud_rig::{CloudRig, longest};
use stillpoint_tests::file_writers::FileWriters;
use stillpoint_tests::mariadb::MariaDb;
use stillpoint_tests::puppet::{OPEN, Puppet};
use stillpoint_tests::rig::{CLIENTS, PATIENCE};
use stillpoint_tests::standing::{Standing, wait_until};
use stillpoint_tests::writers::{Interval, Writers, create_tables, now_ns};

use crate::common::{POST_THAW, PRE_FREEZE, Scripts, answers_after, answers_at_once, is_thawed};

/// The first EC2 tools, Percona: the lock waits behind a long statement, and everybody behind the lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn scenario_09_lock_behind_a_long_statement() -> Result<()> {
    const LOCK_WAIT: Duration = Duration::from_secs(2);
    let (rig, server) = CloudRig::with_server(|_| ())?;
    rig.configure("[deadlines]\nquiesce = \"6s\"\n")?;
    let grant = rig.stillpoint.config_file("hooks.d/mysql.toml");
    let text = fs::read_to_string(&grant)?;
    let text = text.replacen("[settings]\n", "[settings]\nlock-wait-timeout-seconds = 2\n", 1);
    rig.stillpoint.write_config("hooks.d/mysql.toml", &text)?;
    create_tables(&mut server.connect().await?).await?;
    server.execute(
        "CREATE TABLE lab.slow (id INT PRIMARY KEY, n INT); INSERT INTO lab.slow VALUES (1, 0)",
    )?;
    let clients = Writers::start(server.options(), CLIENTS).await?;
    clients.wait_for(50, PATIENCE).await?;
    for (long, given_up) in [
        ("SELECT SLEEP(120) FROM lab.slow", false),
        ("UPDATE lab.slow SET n = n + 1 WHERE SLEEP(120) = 0", true),
    ] {
        let mut session = server.connect().await?;
        let id = session.id();
        let statement = tokio::spawn(async move {
            // Ended by KILL below; how it ends does not matter.
            let _ = session.query_drop(long).await;
        });
        wait_until("it runs", || Ok(server.execute("SHOW PROCESSLIST")?.contains(long)))?;
        let began_ns = now_ns();
        let run = tokio::task::block_in_place(|| rig.snapshot(&[]))?;
        let whole = Interval { began_ns, ended_ns: now_ns() };
        ensure!(
            run.code == Some(PRE_FREEZE) || (!given_up && run.code == Some(0)),
            "{long}: {}",
            run.description()
        );
        ensure!(whole.duration() < Duration::from_secs(30), "{long}: took {:?}", whole.duration());
        ensure!(!statement.is_finished(), "{long} was killed, or never ran");
        clients.wait_for(50, Duration::from_secs(5)).await?;
        server.execute(&format!("KILL {id}"))?;
        statement.await?;
    }
    let history = clients.stop().await?;
    let worst = history.longest().into_iter().max().context("nobody committed")?;
    ensure!(worst <= LOCK_WAIT + Duration::from_millis(500), "a commit took {worst:?}");
    server.stop()?;
    rig.finish()
}

/// The AWS and Commvault samples: the session is gone after the lock was taken, and nobody looks.
#[test]
fn scenario_10_session_lost_after_the_lock() -> Result<()> {
    let (rig, server) = CloudRig::with_server(|_| ())?;
    let socket = server.socket().to_owned();
    // While everything is frozen, and the request is under way.
    rig.cloud.emulator.on_create(move |_| kill_all_sessions(&socket));
    let run = rig.snapshot(&[])?;
    let manifest = run.manifest()?;
    ensure!(manifest.level()? != "application", "{}", run.description());
    let reasons = manifest.reason_codes()?;
    ensure!(reasons.contains(&"not-confirmed".to_owned()), "{reasons:?}");
    let group = rig.cloud.the_group()?;
    ensure!(group.tag("AppConsistent") != Some("True"), "{group:#?}");
    is_thawed(&rig)?;
    server.stop()?;
    rig.finish()
}

/// As an administrator would; the processes' list touches no disk. What fails shows in the test.
fn kill_all_sessions(socket: &Path) {
    let client = |statement: &str| {
        let mut client = Command::new("mariadb");
        client.args(["--no-defaults", "--skip-column-names", "--batch", "-u", "root", "-S"]);
        client.arg(socket).args(["-e", statement]).output()
    };
    let Ok(list) = client("SHOW PROCESSLIST") else { return };
    let text = String::from_utf8_lossy(&list.stdout).into_owned();
    for id in text.lines().filter(|l| l.contains("\tSleep\t")).filter_map(|l| l.split('\t').next())
    {
        let _ = client(&format!("KILL {id}"));
    }
}

/// zrepl, Azure, VMware: what was told to stop goes on, its children too, and who failed is not undone.
#[test]
fn scenario_11_hooks_and_scripts_that_hang_fail_or_eat() -> Result<()> {
    let (rig, server) = CloudRig::with_server(|_| ())?;
    fs::remove_file(rig.stillpoint.config_file("hooks.d/mysql.toml"))?;
    scripts_that_hang_and_fail(&rig)?;
    let puppet = Puppet::install(&rig.stillpoint, &server)?;
    rig.configure("[deadlines]\nquiesce = \"2s\"\nrelease = \"2s\"\n")?;
    let lock = "query A FLUSH TABLES WITH READ LOCK";
    for misbehaves in ["trap", "loop", "eat", "query A SELECT SLEEP(30)"] {
        puppet
            .plays(&rig.stillpoint, &[("prepare", &[OPEN]), ("pre-freeze", &[lock, misbehaves])])?;
        let run = rig.snapshot(&[])?;
        run.exited_with(PRE_FREEZE).context(misbehaves)?;
        // Nothing is locked any more: the session ended with the hook.
        server.execute("INSERT INTO puppet.holds VALUES (1); DELETE FROM puppet.holds")?;

        puppet.plays(
            &rig.stillpoint,
            &[("prepare", &[OPEN]), ("pre-freeze", &[lock]), ("post-thaw", &[misbehaves])],
        )?;
        let writers = FileWriters::start(rig.lab.file_systems().iter().map(|fs| &fs.mount))?;
        let run = rig.snapshot(&[])?;
        let stall = longest(&writers.stop()?)?.duration();
        ensure!(matches!(run.code, Some(0 | POST_THAW)), "{misbehaves}: {}", run.description());
        ensure!(stall < Duration::from_secs(1), "{misbehaves}: the thaw waited for it, {stall:?}");
        server.execute("INSERT INTO puppet.holds VALUES (1); DELETE FROM puppet.holds")?;
    }
    server.stop()?;
    rig.finish()
}

fn scripts_that_hang_and_fail(rig: &CloudRig) -> Result<()> {
    let scripts = Scripts::install(rig, "", "", "timeout = \"1s\"\n")?;
    let at = scripts.directory.display().to_string();
    let post = format!("echo post >>{at}/log");
    // It takes no notice of SIGTERM, and neither does its child in a session of its own.
    let late = format!(
        "trap '' TERM; (setsid sh -c 'sleep 4; touch {at}/late') & sleep 4; touch {at}/late"
    );
    scripts.write("pre.sh", &late)?;
    scripts.write("post.sh", &post)?;
    let began = Instant::now();
    rig.snapshot(&[])?.exited_with(PRE_FREEZE)?;
    ensure!(scripts.log() == "post\n", "{}", scripts.log());
    std::thread::sleep(Duration::from_secs(5).saturating_sub(began.elapsed()));
    ensure!(!scripts.is_there("late"), "it went on after its time");

    for bad in ["exit 3", "sleep 600"] {
        scripts.write("pre.sh", "true")?;
        scripts.write("post.sh", bad)?;
        let writers = FileWriters::start(rig.lab.file_systems().iter().map(|fs| &fs.mount))?;
        let run = rig.snapshot(&[])?;
        let stall = longest(&writers.stop()?)?.duration();
        run.exited_with(POST_THAW).context(bad)?;
        ensure!(stall < Duration::from_millis(900), "the thaw waited for it: {stall:?}");
    }
    Ok(())
}

/// Azure makes a replica writable: it sets back what it had not set.
#[test]
fn scenario_12_what_was_set_before_is_set_afterwards() -> Result<()> {
    let (rig, server) = CloudRig::with_server(|_| ())?;
    for read_only in ["ON", "OFF"] {
        server.execute(&format!("SET GLOBAL read_only = {read_only}"))?;
        let before = settings_of(&server)?;
        answers_at_once(&rig);
        let run = rig.snapshot(&[])?;
        ensure!(run.succeeded()?.manifest()?.level()? == "application", "{}", run.description());
        ensure!(settings_of(&server)? == before, "a run changed settings");

        answers_after(&rig, Duration::from_secs(60));
        let mut dies = Standing::in_window(&rig.stillpoint, &rig.lab, "dies")?;
        dies.kill_agent()?;
        is_thawed(&rig)?;
        wait_until("its session is gone", || {
            Ok(!server.execute("SHOW PROCESSLIST")?.contains("\tSleep\t"))
        })?;
        ensure!(settings_of(&server)? == before, "a run that died changed settings");
    }
    server.stop()?;
    rig.finish()
}

/// All settings of the server, but for those that count what happens.
fn settings_of(server: &MariaDb) -> Result<Vec<String>> {
    let all = server.execute("SHOW GLOBAL VARIABLES")?;
    let counts =
        |line: &&str| line.starts_with("gtid_") || line.starts_with("innodb_buffer_pool_load");
    Ok(all.lines().filter(|line| !counts(line)).map(str::to_owned).collect())
}

/// The vendors' /tmp scripts: whoever can write there is root at the next backup.
#[test]
fn scenario_14_hostile_scripts_and_hooks() -> Result<()> {
    let (rig, server) = CloudRig::with_server(|_| ())?;
    fs::remove_file(rig.stillpoint.config_file("hooks.d/mysql.toml"))?;
    scripts_that_break_a_rule(&rig)?;
    a_script_that_is_swapped(&rig)?;
    // The scripts that ran were the right ones: their snapshots are what they are called.
    rig.cloud.emulator.clear_groups();
    let puppet = Puppet::install(&rig.stillpoint, &server)?;
    rig.configure("[deadlines]\nprepare = \"5s\"\nquiesce = \"3s\"\n")?;
    for (asks, said) in [
        ("query A asked but never granted", "grant"),
        ("open A elsewhere", "elsewhere"),
        ("run perl -e unlink(1)", "grant"),
    ] {
        let phases = [("prepare", &[OPEN][..]), ("pre-freeze", &[asks][..])];
        puppet.plays(&rig.stillpoint, &phases)?;
        let run = rig.snapshot(&[])?;
        run.exited_with(PRE_FREEZE).context(asks)?;
        ensure!(run.error_text()?.contains(said), "{asks}: {}", run.description());
    }
    ensure!(rig.cloud.emulator.groups().is_empty(), "{:#?}", rig.cloud.emulator.groups());
    server.stop()?;
    rig.finish()
}

fn scripts_that_break_a_rule(rig: &CloudRig) -> Result<()> {
    let scripts = Scripts::install(rig, "", "", "")?;
    let proof = format!("touch {}/ran-as-root", scripts.directory.display());
    type Breakage = fn(&Path) -> Result<()>;
    let breakages: [(&str, Breakage); 7] = [
        ("a link", |path| {
            let real = path.with_extension("real");
            fs::rename(path, &real)?;
            Ok(symlink(real, path)?)
        }),
        ("another owner", |path| Ok(std::os::unix::fs::chown(path, Some(65534), None)?)),
        ("group-writable", |path| {
            Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o770))?)
        }),
        ("no exec bit", |path| Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o600))?)),
        ("a FIFO", |path| {
            fs::remove_file(path)?;
            Ok(nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU)?)
        }),
        ("missing", |path| Ok(fs::remove_file(path)?)),
        ("CR LF", |path| Ok(fs::write(path, "#!/bin/sh\r\ntrue\r\n")?)),
    ];
    // Each on one of the pair, in turn; the suite `scripts` has both.
    for ((what, breakage), name) in
        breakages.into_iter().zip(["pre.sh", "post.sh"].into_iter().cycle())
    {
        for entry in fs::read_dir(&scripts.directory)? {
            fs::remove_file(entry?.path())?;
        }
        scripts.write("pre.sh", &proof)?;
        scripts.write("post.sh", &proof)?;
        breakage(&scripts.directory.join(name))?;
        let run = rig.snapshot(&[])?;
        let manifest = run.succeeded()?.manifest()?;
        let context = || format!("{what}, {name}: {}", run.description());
        ensure!(manifest.level()? == "file-system", "{}", context());
        ensure!(manifest.reason_codes()? == ["script-invalid"], "{}", context());
        ensure!(manifest.at("/reasons")?.to_string().contains(name), "{}", context());
        ensure!(!scripts.is_there("ran-as-root"), "{}", context());
    }
    Ok(())
}

/// What was checked is what runs, whatever lies at its path by then.
fn a_script_that_is_swapped(rig: &CloudRig) -> Result<()> {
    for entry in fs::read_dir(rig.lab.scratch("scripts")?)? {
        fs::remove_file(entry?.path())?;
    }
    let scripts = Scripts::waiting(rig, "")?;
    scripts.write("evil.sh", &format!("touch {}/ran-as-root", scripts.directory.display()))?;
    let run = Standing::start(&rig.stillpoint, "swapped", || Ok(scripts.is_there("began")))?;
    fs::rename(scripts.path("evil.sh"), scripts.path("post.sh"))?;
    scripts.touch("go")?;
    let run = run.end()?;
    run.succeeded()?;
    ensure!(scripts.log() == "pre\npost-captured\n", "{}", scripts.log());
    ensure!(!scripts.is_there("ran-as-root"), "{}", run.description());
    Ok(())
}
