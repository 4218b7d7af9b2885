//! What users do wrong, and what goes wrong around them: each ends with an error that names the
//! thing and the next step, and with every file system and every client running.

#![expect(clippy::print_stdout, reason = "the errors are for whoever reads the tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use stillpoint_tests::command::run;
use stillpoint_tests::lab::{FsSpec, FsType, Lab};
use stillpoint_tests::mariadb::{MariaDb, Place};
use stillpoint_tests::stillpoint::{NO_SCRIPTS, Run, Stillpoint, component};

/// One lab for all tests of this file; they take turns. The watchdog removes it when this process
/// ends.
struct Rig {
    stillpoint: Stillpoint,
    server: MariaDb,
    lab: Lab,
    /// `hooks.d/mysql.toml`, as it was granted.
    grant: String,
}

fn rig() -> Result<MutexGuard<'static, Rig>> {
    static RIG: OnceLock<Mutex<Rig>> = OnceLock::new();
    static MAKING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let rig = match RIG.get() {
        Some(rig) => rig,
        None => {
            let made = Rig::new()?;
            RIG.get_or_init(|| Mutex::new(made))
        }
    };
    let rig = rig.lock().unwrap_or_else(PoisonError::into_inner);
    rig.restore_configuration()?;
    Ok(rig)
}

impl Rig {
    fn new() -> Result<Self> {
        let specs =
            [FsSpec::new("data", FsType::Ext4, 256), FsSpec::new("binlog", FsType::Ext4, 64)];
        let lab = Lab::new(&specs, Duration::from_secs(900))?;
        let place = Place { data: lab.mount("data"), binlog: lab.mount("binlog") };
        let server = MariaDb::install(&lab, place)?;
        server.execute("CREATE DATABASE lab; CREATE TABLE lab.t (i INT)")?;
        let stillpoint = Stillpoint::new(&lab)?;
        stillpoint.install_mysql_hook(server.socket())?;
        let grant = fs::read_to_string(stillpoint.config_file("hooks.d/mysql.toml"))?;
        Ok(Self { stillpoint, server, lab, grant })
    }

    fn restore_configuration(&self) -> Result<()> {
        let hooks = self.stillpoint.config_file("hooks.d");
        for entry in fs::read_dir(&hooks)? {
            fs::remove_file(entry?.path())?;
        }
        self.stillpoint.configure(&self.stillpoint.settings(&self.lab, NO_SCRIPTS))?;
        self.stillpoint.connect_to(self.server.socket())?;
        self.stillpoint.write_config("hooks.d/mysql.toml", &self.grant)
    }

    /// A snapshot that must not come to be, and must leave everything as it was.
    fn refused(&self, code: i32) -> Result<String> {
        let run = self.stillpoint.snapshot("refused", &[])?;
        run.exited_with(code)?;
        let text = run.error_text()?;
        println!("exit {code}: {}", text.replace('\n', "\n    "));
        // A message that lists what is allowed says what to do by itself.
        let says_what_to_do =
            has_a_hint(&run)? || text.contains("expected `") || text.contains("expected one of");
        ensure!(says_what_to_do, "no hint: {}", run.description());
        self.everything_runs()?;
        self.restore_configuration()?;
        ensure!(self.groups()? == 0, "a group was left");
        Ok(text)
    }

    fn everything_runs(&self) -> Result<()> {
        for fs in self.lab.file_systems() {
            // A child of its own: if it is frozen, that one hangs, and not this test.
            let mut touch = self.lab.command("timeout");
            touch.args(["-s", "KILL", "5", "touch"]).arg(fs.mount.join("still-runs"));
            ensure!(touch.status()?.success(), "{} is not writable", fs.mount.display());
        }
        let began = Instant::now();
        let mut commit = self.lab.command("timeout");
        commit.args(["-s", "KILL", "5", "mariadb", "--no-defaults", "-u", "root", "-S"]);
        commit.arg(self.server.socket()).args(["-e", "INSERT INTO lab.t VALUES (1)"]);
        ensure!(commit.status()?.success(), "clients cannot commit");
        ensure!(began.elapsed() < Duration::from_secs(2), "a commit took {:?}", began.elapsed());
        Ok(())
    }

    fn groups(&self) -> Result<usize> {
        let list = self.stillpoint.run_json(["list"])?;
        Ok(list.succeeded()?.json()?.as_array().context("not a list")?.len())
    }
}

fn has_a_hint(run: &Run) -> Result<bool> {
    Ok(run.json()?.pointer("/error/hint").is_some_and(serde_json::Value::is_string))
}

// ---- Configuration ------------------------------------------------------------------------------

#[test]
fn an_unknown_key_is_named_with_file_line_and_column() -> Result<()> {
    let rig = rig()?;
    for name in ["stillpoint.toml", "connections.toml", "hooks.d/mysql.toml"] {
        rig.restore_configuration()?;
        let path = rig.stillpoint.config_file(name);
        let text = fs::read_to_string(&path)?;
        let line = text.trim_end().lines().count() + 2;
        rig.stillpoint.write_config(name, &format!("{}\n\n[tpyo]\nx = 1\n", text.trim_end()))?;
        let error = rig.refused(2)?;
        ensure!(error.contains(&format!("{}:{line}:", path.display())), "{name}: {error}");
        ensure!(error.contains("tpyo"), "{name}: {error}");
    }
    Ok(())
}

#[test]
fn a_grant_for_a_connection_that_does_not_exist_names_it() -> Result<()> {
    let rig = rig()?;
    rig.stillpoint.write_config("connections.toml", "")?;
    let error = rig.refused(2)?;
    ensure!(error.contains("main") && error.contains("connections.toml"), "{error}");
    Ok(())
}

#[test]
fn a_statement_that_is_not_granted_is_named_with_the_line_to_add() -> Result<()> {
    let rig = rig()?;
    let lock = "FLUSH TABLES WITH READ LOCK";
    let without: String = rig
        .grant
        .lines()
        .filter(|line| !line.contains(lock))
        .map(|line| format!("{line}\n"))
        .collect();
    ensure!(without.len() < rig.grant.len(), "the grant has no line of its own for {lock}");
    rig.stillpoint.write_config("hooks.d/mysql.toml", &without)?;
    let error = rig.refused(9)?;
    ensure!(error.contains(lock) && error.contains("hooks.d/mysql.toml"), "{error}");
    Ok(())
}

// ---- Hook files ---------------------------------------------------------------------------------

#[test]
fn a_file_that_is_no_component_is_not_installed() -> Result<()> {
    let rig = rig()?;
    let scratch = rig.lab.scratch("hooks")?;
    let good = fs::read(component("mysql")?)?;
    let half = good.get(..good.len() / 2).context("an empty component")?.to_vec();
    let core_module = b"\0asm\x01\0\0\0".to_vec();
    for (name, bytes) in [
        ("text.wasm", b"#!/bin/sh\n".to_vec()),
        ("empty.wasm", Vec::new()),
        ("half.wasm", half),
        ("core.wasm", core_module),
    ] {
        let file = scratch.join(name);
        fs::write(&file, bytes)?;
        let run = rig.stillpoint.run_json([Path::new("hook"), Path::new("install"), &file])?;
        ensure!(run.code.is_some_and(|code| code != 0), "{name}: {}", run.description());
        let text = run.error_text()?;
        println!("{name}: {}", text.replace('\n', "\n    "));
        ensure!(text.contains(name), "{name}: {text}");
    }
    Ok(())
}

#[test]
fn a_component_that_was_swapped_after_its_installation_does_not_run() -> Result<()> {
    let rig = rig()?;
    let store = rig.lab.root().join("var/lib/stillpoint/hooks");
    let installed: Vec<PathBuf> = fs::read_dir(&store)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "wasm"))
        .collect();
    let file = installed.first().context("no component is installed")?;
    let good = fs::read(file)?;
    let mut bad = good.clone();
    *bad.last_mut().context("an empty component")? ^= 1;
    fs::write(file, &bad)?;
    // The image that was compiled from the good one must not hide it.
    let error = rig.refused(2);
    fs::write(file, &good)?;
    let error = error?;
    ensure!(error.contains("digest") || error.contains("sha256"), "{error}");
    Ok(())
}

// ---- The server ---------------------------------------------------------------------------------

#[test]
fn a_wrong_password_is_told_and_not_shown() -> Result<()> {
    let rig = rig()?;
    rig.server.execute(
        "CREATE OR REPLACE USER snap@localhost IDENTIFIED BY 'right'; GRANT ALL ON *.* TO snap@localhost",
    )?;
    let secret = "wr0ng-c4nary";
    rig.stillpoint.write_config("password", &format!("{secret}\n"))?;
    rig.stillpoint.write_config(
        "connections.toml",
        &format!(
            "[connections.main]\nengine = \"mysql\"\nsocket = \"{}\"\nuser = \"snap\"\npassword-file = \"{}\"\n",
            rig.server.socket().display(),
            rig.stillpoint.config_file("password").display()
        ),
    )?;
    let error = rig.refused(9)?;
    ensure!(error.contains("snap"), "{error}");
    ensure!(!error.contains(secret), "the password is in the error");
    Ok(())
}

#[test]
fn a_server_that_is_down_is_told_at_once() -> Result<()> {
    let rig = rig()?;
    rig.stillpoint.connect_to(Path::new("/nonexistent/mysqld.sock"))?;
    let began = Instant::now();
    let error = rig.refused(9)?;
    ensure!(error.contains("/nonexistent/mysqld.sock") || error.contains("main"), "{error}");
    ensure!(began.elapsed() < Duration::from_secs(10));
    Ok(())
}

#[test]
fn a_server_that_hangs_does_not_hang_us() -> Result<()> {
    let rig = rig()?;
    let more = format!("{NO_SCRIPTS}\n[deadlines]\nprepare = \"2s\"\nquiesce = \"2s\"\n");
    rig.stillpoint.configure(&rig.stillpoint.settings(&rig.lab, &more))?;
    rig.server.signal(Signal::SIGSTOP)?;
    let began = Instant::now();
    let run = rig.stillpoint.snapshot("refused", &[]);
    let took = began.elapsed();
    rig.server.signal(Signal::SIGCONT)?;
    let run = run?;
    run.exited_with(9)?;
    ensure!(took < Duration::from_secs(15), "took {took:?}");
    rig.everything_runs()?;
    ensure!(rig.groups()? == 0);
    Ok(())
}

// ---- File systems and provider ------------------------------------------------------------------

#[test]
fn a_file_system_frozen_by_somebody_else_is_named_and_left_frozen() -> Result<()> {
    let rig = rig()?;
    // The binary log's: the server writes nothing to it meanwhile, for nobody commits.
    let mount = rig.lab.mount("binlog");
    run("fsfreeze", [Path::new("-f"), &mount])?;
    let refused = rig.stillpoint.snapshot("refused", &[]);
    // Fails if it is not frozen any more.
    let still_frozen = run("fsfreeze", [Path::new("-u"), &mount]);
    let refused = refused?;
    ensure!(refused.code.is_some_and(|code| [1, 11].contains(&code)), "{}", refused.description());
    let error = refused.error_text()?;
    ensure!(error.contains(&mount.display().to_string()), "{error}");
    still_frozen.context("stillpoint thawed what somebody else had frozen")?;
    rig.everything_runs()
}

#[test]
fn an_ordinary_user_is_told_at_once() -> Result<()> {
    let rig = rig()?;
    // The binary may be where nobody but root can read it.
    let scratch = rig.lab.scratch("bin")?;
    let binary = scratch.join("stillpoint");
    fs::copy(rig.stillpoint.binary(), &binary)?;
    let began = Instant::now();
    let output = rig
        .lab
        .command("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&binary)
        .args(["snapshot", "--name", "x"])
        .output()?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    ensure!(String::from_utf8_lossy(&output.stderr).contains("root"), "{output:?}");
    ensure!(began.elapsed() < Duration::from_secs(2));
    Ok(())
}

#[test]
fn a_disk_that_the_provider_cannot_serve_is_told_with_what_can() -> Result<()> {
    let rig = rig()?;
    // The host's own image lies on the machine's file system, and a tmpfs on no disk at all.
    for mount in [rig.lab.host(), rig.lab.root().join("run")] {
        rig.stillpoint
            .configure(&format!("[snapshot]\nmounts = [\"{}\"]\n{NO_SCRIPTS}", mount.display()))?;
        fs::remove_file(rig.stillpoint.config_file("hooks.d/mysql.toml")).or_else(|error| {
            if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
        })?;
        let run = rig.stillpoint.snapshot("refused", &[])?;
        // A machine whose own file system has reflinks can serve the first.
        if run.code == Some(0) && mount == rig.lab.host() {
            rig.stillpoint.delete(run.manifest()?.group()?)?;
            continue;
        }
        run.exited_with(3)?;
        println!("{}", run.error_text()?);
        ensure!(has_a_hint(&run)?, "{}", run.description());
    }
    rig.everything_runs()
}

#[test]
fn a_full_disk_at_the_provider_is_told_before_anything_is_locked() -> Result<()> {
    let rig = rig()?;
    let ballast = rig.lab.host().join("ballast");
    let free = run(
        "df",
        ["--output=avail", "-B1"].map(Path::new).into_iter().chain([rig.lab.host().as_path()]),
    )?;
    let free: u64 = free.lines().nth(1).context("no line of df")?.trim().parse()?;
    // All but what the file systems of the lab themselves may need while this runs.
    let length = free.saturating_sub(4 << 20).to_string();
    run("fallocate", [Path::new("-l"), Path::new(&length), &ballast])?;
    let refused = rig.refused(4);
    fs::remove_file(&ballast)?;
    let error = refused?;
    ensure!(error.contains("space") || error.contains("room") || error.contains("full"), "{error}");
    Ok(())
}

#[test]
fn a_second_run_at_the_same_time_is_refused_and_names_the_first() -> Result<()> {
    let rig = rig()?;
    fs::remove_file(rig.stillpoint.config_file("hooks.d/mysql.toml"))?;
    // A first run that lasts: its pre-freeze script waits for us.
    let scratch = rig.lab.scratch("scripts")?;
    let (started, go_on) = (scratch.join("started"), scratch.join("go-on"));
    let wait = format!(
        "#!/bin/sh\n: >{}\nwhile [ ! -e {} ]; do sleep 0.01; done\n",
        started.display(),
        go_on.display()
    );
    for (name, text) in [("pre.sh", wait.as_str()), ("post.sh", "#!/bin/sh\n")] {
        let path = scratch.join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    }
    let scripts = format!(
        "[scripts]\nenabled = true\npre = \"{0}/pre.sh\"\npost = \"{0}/post.sh\"\ntimeout = \"60s\"",
        scratch.display()
    );
    rig.stillpoint.configure(&rig.stillpoint.settings(&rig.lab, &scripts))?;
    let first = rig.stillpoint.start_snapshot("first")?;
    let first_pid = first.id().to_string();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !started.exists() {
        ensure!(Instant::now() < deadline, "the first run does not start its script");
        std::thread::sleep(Duration::from_millis(10));
    }
    let second = rig.stillpoint.snapshot("second", &[]);
    fs::write(&go_on, "")?;
    let first = Run::of(&first.wait_with_output()?);
    let second = second?;
    second.exited_with(16)?;
    let error = second.error_text()?;
    println!("{error}");
    ensure!(error.contains(&first_pid), "{error}");
    rig.stillpoint.delete(first.succeeded()?.manifest()?.group()?)?;
    rig.everything_runs()
}
