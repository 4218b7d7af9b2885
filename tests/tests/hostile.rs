//! Hooks written to attack, through the real binary: beside them the hook `mysql` holds a real server,
//! and real file systems are frozen. Each attack is refused in words that can be acted on; the other
//! hook's snapshot is made all the same; clients commit afterwards, nothing stays frozen, and neither
//! a process nor a session is left.
//!
//! `runtime/tests/hostile` has what can be tried without a server: several hundred attacks more.

#![expect(clippy::print_stdout, reason = "the table is the test's report")]

#[path = "hostile/tricks.rs"]
mod tricks;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use stillpoint_tests::leftovers::processes_of;
use stillpoint_tests::rig::{PATIENCE, Rig};
use stillpoint_tests::stillpoint::{NO_SCRIPTS, Run, component};
use stillpoint_tests::writers::Writers;
use tricks::{ANSWERED, Attack, ENDS, FAILS, TRICK};

/// Deadlines in these tests. `mysql` does not ask for its lock in less than three seconds.
const DEADLINES: &str = "prepare = \"4s\"\nquiesce = \"7s\"\nconfirm = \"3s\"\nrelease = \"3s\"\n";

/// How long a run takes at most: the sum of its deadlines, and the time for everything else.
const LONGEST_RUN: Duration = Duration::from_secs(60);

/// How long what is left of a run may take to go away.
const AFTERWARDS: Duration = Duration::from_secs(5);

/// What is granted beside what the guest asks for; it asks for more, and not for all of this.
const GRANTED: &str = r#"
[[sql]]
connection = "main"
statements = [
    "SELECT 1", "SELECT SLEEP(30)", "SELECT 'a  b'", { text = "SELECT ?", params = ["uint"] },
    "FLUSH TABLES WITH READ LOCK", "UNLOCK TABLES", "SELECT 7",
]
[[program]]
command = "tool"
path = "/usr/bin/touch"
arguments = [["--version"]]
stdin = ["one\ntwo\n"]
[kv]
bytes = 4096
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn hooks_that_attack_get_nothing_and_harm_nobody() -> Result<()> {
    let rig = Rig::new(Duration::from_secs(1200))?;
    let arena = Arena::new(rig)?;
    let mut table = Table::default();
    arena.refuses_files(&mut table)?;
    arena.answers(&mut table).await?;
    arena.survives(&mut table).await?;
    arena.shows_nothing_hidden(&mut table).await?;
    arena.keeps_sessions_few(&mut table)?;
    table.finish();
    arena.rig.finish()
}

/// A rig with the hook `mysql` and the guest that attacks.
struct Arena {
    rig: Rig,
    /// The guest's grant file up to its settings.
    head: String,
}

impl Arena {
    fn new(rig: Rig) -> Result<Self> {
        let more = format!("{NO_SCRIPTS}\n[deadlines]\n{DEADLINES}");
        rig.stillpoint.configure(&rig.stillpoint.settings(&rig.lab, &more))?;
        rig.server.execute("CREATE DATABASE secrets; CREATE TABLE secrets.t (x INT); INSERT INTO secrets.t VALUES (7)")?;
        rig.stillpoint.sign_and_install(&component("hostile")?)?;
        let digest = installed_digest(&rig)?;
        Ok(Self { rig, head: format!("module = \"{digest}\"\non-failure = \"lower\"\n") })
    }

    /// Grants the guest its powers and its attacks.
    fn script(&self, attacks: &[(&str, Vec<Vec<String>>)]) -> Result<()> {
        let mut text = format!("{}[settings]\n", self.head);
        for (phase, words) in attacks {
            text.push_str(&format!("{phase} = {}\n", serde_json::to_string(words)?));
        }
        text.push_str(GRANTED);
        self.rig.stillpoint.write_config("hooks.d/hostile.toml", &text)
    }

    /// What `hook install` says to files that are no hook, or no longer.
    fn refuses_files(&self, table: &mut Table) -> Result<()> {
        let good = std::fs::read(component("hostile")?)?;
        let file = self.rig.lab.scratch("hostile")?.join("hook.wasm");
        for (name, bytes) in tricks::files(&good) {
            std::fs::write(&file, bytes)?;
            let words = ["hook", "install", "--allow-unsigned"].map(std::path::Path::new);
            let run = self.rig.stillpoint.run(words.into_iter().chain([file.as_path()]))?;
            let refused = matches!(run.code, Some(1..=3))
                && run.stderr.starts_with("error: ")
                && run.stderr.contains("state: file systems running");
            table.count("files", &name, verdict(refused && is_clean(&run), &run));
        }
        Ok(())
    }

    /// Attacks that the host answers: the guest goes on, with nothing.
    async fn answers(&self, table: &mut Table) -> Result<()> {
        for (family, attacks) in ANSWERED {
            let words: Vec<Vec<String>> =
                attacks.iter().map(|attack| tricks::words(attack)).collect();
            let mut script = vec![tricks::words(&["open", "A", "main"])];
            script.extend(words.iter().cloned());
            self.script(&[("pre-freeze", script)])?;
            let run = self.snapshot(Expected::Whole).await.context(*family)?;
            let said = results(&run)?;
            ensure!(said.len() == words.len() + 1 && said[0] == "open", "{family}: {said:?}");
            for (words, said) in words.iter().zip(&said[1..]) {
                let refused = said.starts_with("refused");
                table.count(
                    family,
                    &words.join(" "),
                    if refused { Ok(()) } else { Err(said.clone()) },
                );
            }
        }
        let canary = self.rig.server.execute("SELECT SUM(x) FROM secrets.t")?;
        ensure!(canary.trim() == "7", "the table was changed: {canary}");
        Ok(())
    }

    /// Attacks that end the guest, or fail it: the run goes on without it, at a lower level.
    async fn survives(&self, table: &mut Table) -> Result<()> {
        for (phase, expected) in [
            ("validate", Expected::LeftOut),
            ("prepare", Expected::LeftOut),
            ("pre-freeze", Expected::LeftOut),
            ("confirm", Expected::NotConfirmed),
            ("post-thaw", Expected::Told),
            ("finish", Expected::Told),
        ] {
            for Attack { words, said } in ENDS {
                let name = format!("{} in {phase}", words.join(" "));
                self.one(phase, words, said, expected, table, &name).await?;
            }
        }
        for (phase, Attack { words, said }) in FAILS {
            let name = format!(
                "{} in {phase}",
                words.iter().take(2).copied().collect::<Vec<_>>().join(" ")
            );
            self.one(phase, words, said, Expected::LeftOut, table, &name).await?;
        }
        Ok(())
    }

    async fn one(
        &self,
        phase: &str,
        words: &[&str],
        said: &str,
        expected: Expected,
        table: &mut Table,
        name: &str,
    ) -> Result<()> {
        self.script(&[(phase, vec![tricks::words(words)])])?;
        let run = self.snapshot(expected).await.with_context(|| name.to_owned())?;
        let worded = run.stdout.contains(said) && run.stdout.contains("hostile");
        table.count("attacks that end or fail the guest", name, verdict(worded, &run));
        Ok(())
    }

    /// Escapes in all that a guest can say, in every form of output.
    async fn shows_nothing_hidden(&self, table: &mut Table) -> Result<()> {
        let attacks: [(&str, &[&str]); 6] = [
            ("prepare", &["say", TRICK]),
            ("prepare", &["fail", "internal", TRICK]),
            ("pre-freeze", &["fail", "application", TRICK]),
            ("pre-freeze", &["sql", "A", TRICK]),
            ("post-thaw", &["fail", "busy", TRICK]),
            ("pre-freeze", &["log", TRICK]),
        ];
        for (phase, words) in attacks {
            let open = tricks::words(&["open", "A", "main"]);
            self.script(&[(phase, vec![open, tricks::words(words)])])?;
            let name = words[..words.len() - 1].join(" ");
            for arguments in [
                &["-v", "snapshot", "--name", "shown"][..],
                &["--json", "snapshot", "--name", "shown"],
            ] {
                let run = self.rig.stillpoint.run(arguments)?;
                table.count("escapes, in text and JSON", &name, verdict(is_clean(&run), &run));
                self.nothing_is_left().await?;
            }
            for group in self.groups()? {
                for arguments in
                    [vec!["show", &group], vec!["--json", "show", &group], vec!["list"]]
                {
                    let run = self.rig.stillpoint.run(&arguments)?;
                    table.count(
                        "escapes, in text and JSON",
                        arguments[0],
                        verdict(is_clean(&run), &run),
                    );
                }
                self.rig.stillpoint.delete(&group)?;
            }
        }
        Ok(())
    }

    /// Nobody else's connections are taken, however the guest goes about it.
    fn keeps_sessions_few(&self, table: &mut Table) -> Result<()> {
        for words in [&["hoard", "main"][..], &["churn", "main", "SELECT SLEEP(30)", "60"]] {
            self.rig.server.execute("FLUSH STATUS")?;
            self.script(&[("pre-freeze", vec![tricks::words(words)])])?;
            let run = tokio::task::block_in_place(|| self.rig.stillpoint.snapshot("few", &[]))?;
            self.rig.stillpoint.delete(run.manifest()?.group()?)?;
            let most = self.rig.server.execute("SHOW GLOBAL STATUS LIKE 'Max_used_connections'")?;
            let most: u32 = most.split_whitespace().nth(1).context("no status")?.parse()?;
            // Four of the guest's, as many that kill what those left, two of `mysql`, and this one.
            let few = if most <= 12 { Ok(()) } else { Err(format!("{most} connections at once")) };
            table.count("connection exhaustion", &words.join(" "), few);
        }
        Ok(())
    }

    /// Takes a snapshot, and sees that it is what it must be, and that nothing is left of the run.
    async fn snapshot(&self, expected: Expected) -> Result<Run> {
        self.rig.fresh_tables().await?;
        let writers = Writers::start(self.rig.server.options(), 2).await?;
        writers.wait_for(5, PATIENCE).await?;
        let began = Instant::now();
        let run = tokio::task::block_in_place(|| self.rig.stillpoint.snapshot("attacked", &[]))?;
        let took = began.elapsed();
        writers.wait_for(10, AFTERWARDS).await.with_context(|| run.description().to_owned())?;
        writers.stop().await?;
        ensure!(took < LONGEST_RUN, "it took {took:?}: {}", run.description());
        judge(&run, expected)?;
        self.rig.stillpoint.delete(run.manifest()?.group()?)?;
        self.nothing_is_left().await?;
        Ok(run)
    }

    /// No file system is frozen, no process of ours runs, no session is open.
    async fn nothing_is_left(&self) -> Result<()> {
        for fs in self.rig.lab.file_systems() {
            let mut touch = self.rig.lab.command("timeout");
            touch.args(["-s", "KILL", "5", "touch"]).arg(fs.mount.join("still-runs"));
            ensure!(touch.status()?.success(), "{} is not writable", fs.mount.display());
        }
        let deadline = Instant::now() + AFTERWARDS;
        loop {
            let sessions = self.rig.server.execute(
                "SELECT COUNT(*) FROM information_schema.processlist \
                 WHERE id <> CONNECTION_ID() AND user <> 'system user'",
            )?;
            let processes = processes_of(self.rig.lab.directory(), self.rig.stillpoint.binary());
            if sessions.trim() == "0" && processes.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "left: {} sessions, {processes:?}", sessions.trim());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn groups(&self) -> Result<Vec<String>> {
        let list = self.rig.stillpoint.run_json(["list"])?.json()?;
        let groups = list.as_array().into_iter().flatten();
        Ok(groups.filter_map(|group| Some(group.get("id")?.as_str()?.to_owned())).collect())
    }
}

/// What a run with an attacked hook comes to. The hook `mysql` does its part in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// `application`: the guest was refused what it tried, and is a hook as any.
    Whole,
    /// A lower level, because the guest is left out.
    LeftOut,
    /// A lower level, because the guest did not confirm.
    NotConfirmed,
    /// The snapshot stands, and what went wrong afterwards is told.
    Told,
}

fn judge(run: &Run, expected: Expected) -> Result<()> {
    let manifest = run.manifest()?;
    let (level, reasons) = (manifest.level()?, manifest.reason_codes()?);
    let fits = match expected {
        Expected::Whole => level == "application" && run.code == Some(0),
        Expected::LeftOut => level == "file-system" && reasons == ["hook-failed"],
        Expected::NotConfirmed => level == "file-system" && reasons == ["not-confirmed"],
        Expected::Told => level == "application" && matches!(run.code, Some(0 | 10)),
    };
    ensure!(fits, "not {expected:?}: {level}, {reasons:?}: {}", run.description());
    let mysql = manifest.at("/hooks")?.as_array().into_iter().flatten();
    let mysql = mysql.into_iter().find(|hook| hook.get("name") == Some(&Value::from("mysql")));
    let mysql = mysql.context("mysql is not in the manifest")?;
    let is = |key: &str| mysql.get(key) == Some(&Value::Bool(true));
    ensure!(is("confirmed") && is("released"), "mysql was affected: {mysql:#}");
    ensure!(mysql.get("level") == Some(&Value::from("application")), "{mysql:#}");
    Ok(())
}

/// What came of each attack in `pre-freeze`, by the guest's own account.
fn results(run: &Run) -> Result<Vec<String>> {
    let manifest = run.manifest()?;
    let hooks = manifest.at("/hooks")?.as_array().cloned().unwrap_or_default();
    let own = hooks.iter().find(|hook| hook.get("name") == Some(&Value::from("hostile")));
    let entries = own.and_then(|hook| hook.get("metadata")?.as_array()).cloned();
    let text = |entry: &Value| Some(entry.pointer("/value/text")?.as_str()?.to_owned());
    Ok(entries.unwrap_or_default().iter().filter_map(text).collect())
}

fn installed_digest(rig: &Rig) -> Result<String> {
    let list = rig.stillpoint.run_json(["hook", "list"])?.json()?;
    let hooks = list.as_array().into_iter().flatten();
    hooks
        .into_iter()
        .find(|hook| hook.pointer("/description/name") == Some(&Value::from("hostile")))
        .and_then(|hook| Some(hook.get("digest")?.as_str()?.to_owned()))
        .with_context(|| format!("hostile is not in {list:#}"))
}

fn verdict(refused: bool, run: &Run) -> Result<(), String> {
    if refused { Ok(()) } else { Err(format!("{:?}", run.description())) }
}

/// Nothing that a terminal would act on, but for line ends.
fn is_clean(run: &Run) -> bool {
    let hidden = |c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
                | '\u{feff}' | '\u{e0000}'..='\u{e0fff}')
    };
    !run.stdout.contains(hidden) && !run.stderr.contains(hidden)
}

/// What every attack came to, by family.
#[derive(Debug, Default)]
struct Table {
    rows: Vec<(String, usize, usize)>,
    through: Vec<String>,
}

impl Table {
    fn count(&mut self, family: &str, name: &str, verdict: Result<(), String>) {
        if !self.rows.iter().any(|(known, ..)| known == family) {
            self.rows.push((family.to_owned(), 0, 0));
        }
        for (known, tried, refused) in &mut self.rows {
            if known == family {
                *tried += 1;
                *refused += usize::from(verdict.is_ok());
            }
        }
        if let Err(why) = verdict {
            self.through.push(format!("{family}: {name:?}: {why}"));
        }
    }

    fn finish(self) {
        println!("{:<44} {:>6} {:>8} {:>12}", "attacks", "tried", "refused", "got through");
        let mut all = (0, 0);
        for (family, tried, refused) in &self.rows {
            println!("{family:<44} {tried:>6} {refused:>8} {:>12}", tried - refused);
            all = (all.0 + tried, all.1 + refused);
        }
        println!("{:<44} {:>6} {:>8} {:>12}", "all", all.0, all.1, all.0 - all.1);
        assert!(self.through.is_empty(), "got through:\n{}", self.through.join("\n"));
    }
}
