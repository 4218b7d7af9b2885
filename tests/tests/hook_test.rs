//! `stillpoint hook test` as an author uses it: a good hook passes, and each broken twin of it fails with
//! the words that say what is wrong. The hook is `puppet`, which does what its settings say.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use stillpoint_tests::rig::{PATIENCE, Rig};
use stillpoint_tests::stillpoint::{Run, binary, component, workspace};

/// A hook that locks, proves, and gives back; what a server answers it.
const GOOD: &str = r#"
[settings]
prepare = ["open A main", "query A SELECT CONNECTION_ID()"]
pre-freeze = ["query A FLUSH TABLES WITH READ LOCK"]
confirm = ["query A SELECT CONNECTION_ID()"]
post-thaw = ["query A UNLOCK TABLES", "close A"]

[[calls]]
phase = "prepare"
open = "main"
id = 31

[[calls]]
phase = "prepare"
on = "main"
sql = "SELECT CONNECTION_ID()"
columns = ["CONNECTION_ID()"]
rows = [[{ uint = 31 }]]

[[calls]]
phase = "pre-freeze"
on = "main"
sql = "FLUSH TABLES WITH READ LOCK"

[[calls]]
phase = "confirm"
on = "main"
sql = "SELECT CONNECTION_ID()"
columns = ["CONNECTION_ID()"]
rows = [[{ uint = 31 }]]

[[calls]]
phase = "post-thaw"
on = "main"
sql = "UNLOCK TABLES"
"#;

/// What the hook takes lives in the server, and no session's end gives it back.
const IN_THE_SERVER: &str = r#"
[[holds]]
begin = "INSERT INTO puppet.holds"
end = ["DELETE FROM puppet.holds"]
lives-in = "server"
"#;

/// The broken twins: which line of the settings is another, and the words that it fails with.
const TWINS: &[(&str, &str, &[&str])] = &[
    (
        "forgets to release",
        "post-thaw = []",
        &[
            "does not release: post-thaw succeeded",
            "`FLUSH TABLES WITH READ LOCK` is still held by session 1",
        ],
    ),
    (
        "forgets to release when it fails",
        r#"pre-freeze = ["query A FLUSH TABLES WITH READ LOCK", "query A SELECT 1"]"#,
        &[
            "does not release: pre-freeze failed, and `FLUSH TABLES WITH READ LOCK` is still held",
            "when the server refuses `SELECT 1` in pre-freeze",
        ],
    ),
    (
        "ignores errors",
        r#"pre-freeze = ["try query A FLUSH TABLES WITH READ LOCK"]"#,
        &[
            "ignores errors: the server refused `FLUSH TABLES WITH READ LOCK`",
            "claims `application`",
        ],
    ),
    (
        "does not look whether the lock is still there",
        "confirm = []",
        &[
            "ignores errors: the session that held `FLUSH TABLES WITH READ LOCK` was lost while file systems were frozen",
        ],
    ),
    (
        "loops",
        r#"pre-freeze = ["loop"]"#,
        // By its deadline, or by its limit of processor time, whichever comes first.
        &["loops: in pre-freeze, it ", ", and had to be stopped"],
    ),
    (
        "calls the host for ever",
        r#"post-thaw = ["query A UNLOCK TABLES", "chat 100000000"]"#,
        &["loops: in post-thaw, it made more than 100000 calls of the host in one phase"],
    ),
    ("traps", r#"confirm = ["trap"]"#, &["traps: in confirm, it trapped"]),
    ("eats memory", r#"prepare = ["open A main", "eat"]"#, &["eats memory: in prepare"]),
    (
        "locks too early",
        r#"prepare = ["open A main", "query A FLUSH TABLES WITH READ LOCK"]"#,
        &["takes `FLUSH TABLES WITH READ LOCK` in prepare", "in a dry run"],
    ),
];

#[test]
fn a_good_hook_passes_and_the_reviewer_sees_what_it_did() -> Result<()> {
    let bench = Bench::new()?;
    let run = bench.conformance("good", GOOD)?;
    ensure!(run.code == Some(0), "{}", run.description());
    for words in [
        "puppet 0.1.0",
        "digest     sha256:",
        "connection main: to be tested",
        "used     FLUSH TABLES WITH READ LOCK",
        "not used INSERT INTO puppet.holds VALUES (1)",
        "holds FLUSH TABLES WITH READ LOCK",
        "× killed at each call, finish on a fresh instance",
        "no law broken",
    ] {
        ensure!(run.stdout.contains(words), "`{words}` is not in {}", run.stdout);
    }
    ensure!(!run.stdout.contains("never got that far"), "{}", run.stdout);
    Ok(())
}

#[test]
fn each_broken_twin_fails_with_the_right_words() -> Result<()> {
    let bench = Bench::new()?;
    for (what, line, words) in TWINS {
        let run = bench.conformance("twin", &twin(GOOD, line)?)?;
        ensure!(run.code == Some(1), "{what}: {}", run.description());
        for words in *words {
            ensure!(run.stdout.contains(words), "{what}: `{words}` is not in {}", run.stdout);
        }
    }
    Ok(())
}

#[test]
fn what_no_session_gives_back_must_be_undone_by_finish() -> Result<()> {
    let bench = Bench::new()?;
    let taken = r#"pre-freeze = ["query A INSERT INTO puppet.holds VALUES (1)"]"#;
    let given = r#"post-thaw = ["query A DELETE FROM puppet.holds"]"#;
    let forgetful = twin(&twin(&(GOOD.to_owned() + IN_THE_SERVER), taken)?, given)?;
    let run = bench.conformance("forgetful", &forgetful)?;
    ensure!(run.code == Some(1), "{}", run.description());
    for words in [
        "leaves `INSERT INTO puppet.holds VALUES (1)` behind: after finish on a fresh instance",
        "keep what is begun in `kv` before it is done, and undo it in finish",
        "when the agent dies at `INSERT INTO puppet.holds VALUES (1)` in pre-freeze",
    ] {
        ensure!(run.stdout.contains(words), "`{words}` is not in {}", run.stdout);
    }

    let intent =
        r#"prepare = ["open A main", "kv-set undo open U main;query U DELETE FROM puppet.holds"]"#;
    let run = bench.conformance("careful", &twin(&forgetful, intent)?)?;
    ensure!(run.code == Some(0), "{}", run.description());
    Ok(())
}

#[test]
fn a_script_is_kept_to_call_by_call() -> Result<()> {
    let bench = Bench::new()?;
    let page = fs::read_to_string(workspace().join("docs/hook-test.md"))?;
    let block = page.split("<!-- script -->\n```toml\n").nth(1).context("no script on the page")?;
    let script = block.split("```").next().context("no end")?;
    let run = bench.test(&bench.file("page", script)?, &[])?;
    run.succeeded()?;
    ensure!(run.stdout.contains("session 31 of 10.11.14-MariaDB"), "{}", run.stdout);

    let other = twin(GOOD, r#"confirm = ["query A SELECT 1"]"#)?;
    let run = bench.test(&bench.file("other", &other)?, &[])?;
    run.exited_with(1)?;
    for words in [
        "confirm: `SELECT 1` came where confirm: `SELECT CONNECTION_ID()` (line 25) was expected",
        "confirm: `SELECT CONNECTION_ID()` was expected (line 25), and did not come",
    ] {
        ensure!(run.stdout.contains(words), "`{words}` is not in {}", run.stdout);
    }
    Ok(())
}

/// What the server does when the lock is asked for, and what the hook must come to.
const FAILURES: &[(&str, &str)] = &[
    (
        r#"error = { code = 1205, state = "HY000", message = "Lock wait timeout" }"#,
        r#"
        [[calls]]
        phase = "post-thaw"
        on = "main"
        sql = "UNLOCK TABLES"
        [expect.pre-freeze]
        fails = "application"
        says = "Lock wait timeout"
        "#,
    ),
    (
        "silent = true",
        r#"
        [deadlines]
        pre-freeze = "1s"
        [expect.pre-freeze]
        fails = "timeout"
        [expect.post-thaw]
        fails = "internal"
        "#,
    ),
    (
        r#"lost = "killed""#,
        r#"
        [expect.pre-freeze]
        fails = "internal"
        says = "killed"
        [expect.post-thaw]
        fails = "internal"
        "#,
    ),
];

#[test]
fn a_script_makes_calls_fail_hang_and_lose_their_session() -> Result<()> {
    let bench = Bench::new()?;
    let lock = "sql = \"FLUSH TABLES WITH READ LOCK\"\n";
    let (before, _) = GOOD.split_once(lock).context("no lock in the script")?;
    for (answer, expected) in FAILURES {
        let script = format!("{before}{lock}{answer}\n{expected}");
        let run = bench.test(&bench.file("expected", &script)?, &[])?;
        run.succeeded().with_context(|| (*answer).to_owned())?;

        let unexpected = format!("{before}{lock}{answer}\n");
        let run = bench.test(&bench.file("unexpected", &unexpected)?, &[])?;
        run.exited_with(1)?;
        ensure!(run.stdout.contains("FAILS    pre-freeze failed: "), "{answer}: {}", run.stdout);
    }
    Ok(())
}

#[test]
fn a_mistake_in_a_script_is_named_with_its_place() -> Result<()> {
    let bench = Bench::new()?;
    for (from, to, words) in [
        ("id = 31", "idd = 31", "script.toml:11:1: unknown field `idd`"),
        ("{ uint = 31 }", "{ uint = -1 }", "not a value of a row"),
        (
            "rows = [[{ uint = 31 }]]",
            "rows = [[1, 2]]",
            "a row has 2 values, and there are 1 columns",
        ),
        ("phase = \"confirm\"", "phase = \"thaw\"", "script.toml:26:9: unknown variant `thaw`"),
        (
            "on = \"main\"\nsql",
            "sql",
            "write open = \"CONNECTION\", or on = \"CONNECTION\" with sql",
        ),
    ] {
        let run = bench.test(&bench.file("script", &GOOD.replacen(from, to, 1))?, &[])?;
        run.exited_with(2)?;
        ensure!(run.stderr.contains(words), "{words}: {}", run.stderr);
        ensure!(run.stderr.contains("script.toml:"), "no place: {}", run.stderr);
    }
    Ok(())
}

/// The first-party hook on a real server: recorded, replayed without it, tested with its recording; and
/// broken twins of a small one tested on the server itself, which is not locked afterwards.
#[test]
fn a_real_server_is_recorded_and_a_twin_leaves_it_unlocked() -> Result<()> {
    let rig = Rig::without_hook(10 * PATIENCE)?;
    rig.stillpoint.connect_to(rig.server.socket())?;
    let (mysql, puppet) = (component("mysql")?, component("puppet")?);
    let recording = rig.lab.scratch("recording")?.join("run.toml");
    let test = |what: &Path, more: &[&Path]| {
        let line = [Path::new("hook"), Path::new("test"), what];
        rig.stillpoint.run(line.iter().chain(more))
    };
    let (record, replay) = (Path::new("--record"), Path::new("--replay"));
    let conformance = Path::new("--conformance");
    test(&mysql, &[record, &recording])?.succeeded()?;
    writes_are_let_through(&rig)?;

    let text = fs::read_to_string(&recording)?;
    ensure!(text.contains("sql = \"FLUSH TABLES WITH READ LOCK\""), "{text}");
    let without = rig.stillpoint.on_another_root("nowhere")?;
    let line = [Path::new("hook"), Path::new("test"), &mysql, replay, &recording];
    without.run(line)?.succeeded()?;
    without.run(line.iter().chain(&[conformance]))?.succeeded()?;
    fs::write(&recording, text.replace("UNLOCK TABLES", "UNLOCK  TABLES;"))?;
    let run = without.run(line)?;
    run.exited_with(1)?;
    ensure!(run.stdout.contains("`UNLOCK TABLES` came where"), "{}", run.stdout);

    for (release, code, words) in [
        (r#"["query A UNLOCK TABLES", "close A"]"#, 0, "no law broken"),
        ("[]", 1, "does not release: post-thaw succeeded"),
    ] {
        let settings = rig.lab.scratch("settings")?.join("settings.toml");
        let lines: Vec<&str> = GOOD.lines().skip(2).take(3).collect();
        fs::write(&settings, format!("{}\npost-thaw = {release}\n", lines.join("\n")))?;
        let given = [Path::new("--settings"), &settings, conformance];
        let run = test(&puppet, &given)?;
        run.exited_with(code)?;
        ensure!(
            run.stdout.contains(words) && run.stdout.contains("real servers"),
            "{}",
            run.stdout
        );
        writes_are_let_through(&rig)?;
    }
    rig.lab.finish()
}

/// The hooks that come with stillpoint, each against its own script of a server; what Oracle answers after
/// each thing that was done has its own tests, against a model of it.
#[test]
fn each_first_party_hook_conforms_to_the_laws() -> Result<()> {
    for (hook, script, grant) in [
        ("mysql", "conformance", None),
        ("postgresql", "conformance", None),
        ("postgresql", "conformance-backup", None),
        ("redis", "conformance", None),
        ("exec", "conformance", Some("conformance.grant")),
        ("oracle", "conformance", Some("conformance.grant")),
    ] {
        let file = |name: &str| workspace().join(format!("hooks/{hook}/{name}.toml"));
        let mut command = std::process::Command::new(binary()?);
        command.args(["hook", "test"]).arg(component(hook)?).arg("--script").arg(file(script));
        if let Some(grant) = grant {
            command.arg("--grant").arg(file(grant));
        }
        // As the script has it, call by call; then everything that can go wrong.
        for more in [&[][..], &["--conformance"]] {
            let run = Run::of(&command.args(more).output()?);
            run.exited_with(0).with_context(|| format!("{hook}, {script} {more:?}"))?;
        }
    }
    Ok(())
}

/// Grant, settings, connection and deadline of one's own, on a real server: what the grant leaves out is
/// refused with the line to add, the hook's `main` goes where it is said to, and a phase has the time it is
/// given.
#[test]
fn options_say_what_is_granted_where_it_goes_and_how_long_it_may_take() -> Result<()> {
    let rig = Rig::without_hook(10 * PATIENCE)?;
    rig.stillpoint.connect_to(rig.server.socket())?;
    let puppet = component("puppet")?;
    let scratch = rig.lab.scratch("options")?;
    let settings = |pre_freeze: &str| {
        format!("prepare = [\"open A main\"]\npre-freeze = [\"query A {pre_freeze}\"]\n")
    };
    let test = |more: &[&str]| {
        let line = [&["hook", "test", puppet.to_str().context("a path")?], more].concat();
        rig.stillpoint.run(line)
    };

    let grant = scratch.join("grant.toml");
    let digest = format!("sha256:{:064}", 0);
    let granted = "[[sql]]\nconnection = \"main\"\nstatements = [\"SELECT 1\"]\n";
    for (statement, code) in [("SELECT 1", 0), ("FLUSH TABLES WITH READ LOCK", 1)] {
        let text = format!("module = \"{digest}\"\n[settings]\n{}{granted}", settings(statement));
        fs::write(&grant, text)?;
        let run = test(&["--grant", grant.to_str().context("a path")?])?;
        run.exited_with(code)?;
        if code == 1 {
            ensure!(run.stdout.contains("FLUSH TABLES WITH READ LOCK"), "{}", run.stdout);
            ensure!(run.stdout.contains("grant.toml"), "no line to add: {}", run.stdout);
        }
    }

    let slow = granted.replace("SELECT 1", "SELECT SLEEP(30)");
    let text = format!("module = \"{digest}\"\n[settings]\n{}{slow}", settings("SELECT SLEEP(30)"));
    fs::write(&grant, text)?;
    let run = test(&["--grant", grant.to_str().context("a path")?, "--deadline", "700ms"])?;
    run.exited_with(1)?;
    ensure!(run.stdout.contains("pre-freeze failed: "), "{}", run.stdout);
    ensure!(run.stdout.contains("the server did not answer"), "{}", run.stdout);

    let file = scratch.join("settings.toml");
    let file_name = file.to_str().context("a path")?;
    fs::write(&file, settings("SELECT 1"))?;
    let path = rig.stillpoint.config_file("connections.toml");
    let other = fs::read_to_string(&path)?.replace("[connections.main]", "[connections.other]");
    rig.stillpoint.write_config("connections.toml", &other)?;
    // The puppet can do without its connections; this one cannot.
    let mysql = component("mysql")?;
    let run = rig.stillpoint.run(["hook", "test", mysql.to_str().context("a path")?])?;
    run.exited_with(2)?;
    ensure!(run.stderr.contains("--connection main=NAME"), "{}", run.stderr);
    test(&["--settings", file_name, "--connection", "main=other"])?.succeeded()?;

    for (wrong, next) in [
        (["--connection", "main"], "--connection main=main"),
        (["--deadline", "soon"], "--deadline 10s"),
    ] {
        let run = test(&wrong)?;
        run.exited_with(2)?;
        ensure!(run.stderr.contains(next), "{}", run.stderr);
    }
    rig.lab.finish()
}

fn writes_are_let_through(rig: &Rig) -> Result<()> {
    rig.server.execute(
        "SET lock_wait_timeout = 2; CREATE OR REPLACE DATABASE free; CREATE TABLE free.t (a INT)",
    )?;
    Ok(())
}

/// The script with one line of the settings replaced.
fn twin(script: &str, line: &str) -> Result<String> {
    let key = line.split(" = ").next().context("no key")?;
    let begin = format!("{key} = [");
    ensure!(script.lines().any(|old| old.starts_with(&begin)), "no {key} in the script");
    let lines = script.lines().map(|old| if old.starts_with(&begin) { line } else { old });
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

/// A directory of an author's.
struct Bench {
    directory: tempfile::TempDir,
    component: PathBuf,
}

impl Bench {
    fn new() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        Ok(Self { directory, component: component("puppet")? })
    }

    fn file(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.directory.path().join(format!("{name}.toml"));
        fs::write(&path, text)?;
        Ok(path)
    }

    fn conformance(&self, name: &str, script: &str) -> Result<Run> {
        self.test(&self.file(name, script)?, &["--conformance"])
    }

    /// `stillpoint hook test puppet.wasm --script FILE …`
    fn test(&self, script: &Path, more: &[&str]) -> Result<Run> {
        let mut command = std::process::Command::new(binary()?);
        command.args(["hook", "test"]).arg(&self.component).arg("--script").arg(script).args(more);
        let output = command.output().context("cannot start stillpoint")?;
        Ok(Run::with(
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ))
    }
}
