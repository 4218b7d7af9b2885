//! `stillpoint report`: the page of a run, as its readers see it in a browser. `STILLPOINT_PICTURES=DIR`
//! keeps pictures of all pages.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mysql_async::prelude::Queryable as _;
use stillpoint::report::{RunRecord, page};
use stillpoint_tests::browser::{Browser, Lane, Seen};
use stillpoint_tests::puppet::Puppet;
use stillpoint_tests::rig::Rig;
use stillpoint_tests::stillpoint::Stillpoint;

const LONGEST: Duration = Duration::from_secs(300);

/// A page, looked at in every view.
fn look(browser: &mut Browser, name: &str, html: &str) -> Result<Vec<Seen>> {
    browser.look_at_all(name, html)
}

fn lane<'a>(seen: &'a Seen, name: &str) -> Result<&'a Lane> {
    let found = seen.lanes.iter().find(|lane| lane.name.trim_start_matches("✕ ") == name);
    found.with_context(|| format!("no lane {name} among {:#?}", seen.lanes))
}

fn says(seen: &Seen, text: &str) -> Result<()> {
    ensure!(seen.text.contains(text), "the page does not say {text:?}:\n{}", seen.text);
    Ok(())
}

/// The record of a run, as `report --json` prints it.
fn record(stillpoint: &Stillpoint, arguments: &[&str]) -> Result<RunRecord> {
    let run = stillpoint.run_json([&["report"], arguments].concat())?;
    serde_json::from_str(&run.succeeded()?.stdout).context("not the record of a run")
}

/// Nobody but root reads it: errors quote what servers say.
fn is_roots_alone(path: &Path) -> Result<()> {
    let metadata = fs::metadata(path)?;
    ensure!(metadata.uid() == 0 && metadata.mode() & 0o077 == 0, "{}", path.display());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_drawn_whether_it_went_well_or_not() -> Result<()> {
    let Some(mut browser) = Browser::start()? else { return Ok(()) };
    let rig = Rig::new(LONGEST)?;
    Puppet::install(&rig.stillpoint, &rig.server)?.plays(&rig.stillpoint, &[])?;
    went_well(&rig, &mut browser)?;
    failed_in_quiesce(&rig, &mut browser).await?;
    could_not_begin(&rig, &mut browser)?;
    rig.finish()
}

fn went_well(rig: &Rig, browser: &mut Browser) -> Result<()> {
    let manifest = rig.stillpoint.snapshot("good", &[])?.succeeded()?.manifest()?;
    let group = manifest.group()?.to_owned();
    let html = rig.stillpoint.run(["report"])?.succeeded()?.stdout.clone();
    for seen in look(browser, "good", &html)? {
        ensure!(seen.first_screen.contains("An application-consistent snapshot"), "{seen:#?}");
        ensure!(seen.first_screen.contains("Does everything run? Yes"), "{seen:#?}");
        for step in ["plan", "prepare", "sync", "rehearse", "freeze", "snapshot", "thaw", "settle"]
        {
            ensure!(!lane(&seen, step)?.bars.is_empty(), "{step} is not drawn");
        }
        for mount in ["data", "binlog"] {
            let lane = lane(&seen, &rig.lab.mount(mount).display().to_string())?;
            ensure!(lane.bars.contains(&"frozen".to_owned()), "{lane:?}");
        }
        let hook = lane(&seen, "mysql")?;
        ensure!(hook.bars.contains(&"held".to_owned()), "{hook:?}");
        for text in ["Level: application", "What was skipped", "binlog-position", "/proc"] {
            says(&seen, text)?;
        }
    }
    // By the snapshot's id, too; and when the run is forgotten, by its manifest.
    let by_group = record(&rig.stillpoint, &[&group])?;
    let latest = record(&rig.stillpoint, &[])?;
    ensure!(by_group == latest && by_group.exit_code == 0, "{by_group:?}");
    let runs = rig.stillpoint.root().join("var/lib/stillpoint/runs");
    for entry in fs::read_dir(&runs)? {
        is_roots_alone(&entry?.path())?;
    }
    is_roots_alone(&runs)?;
    fs::rename(&runs, runs.with_extension("away"))?;
    let from_manifest = record(&rig.stillpoint, &[&group])?;
    fs::rename(runs.with_extension("away"), &runs)?;
    ensure!(from_manifest.manifest == latest.manifest);
    extremes(&latest, browser)?;
    rig.stillpoint.delete(&group)
}

async fn failed_in_quiesce(rig: &Rig, browser: &mut Browser) -> Result<()> {
    let grant = rig.stillpoint.config_file("hooks.d/mysql.toml");
    let text = fs::read_to_string(&grant)?;
    ensure!(text.contains("after = []") && text.contains("[settings]\n"), "{text}");
    let settings = "[settings]\nlock-wait-timeout-seconds = 1\n";
    let text = text
        .replace("after = []", "after = [\"puppet\"]")
        .lines()
        .filter(|line| !line.contains("lock-wait-timeout-seconds"))
        .fold(String::new(), |text, line| text + line + "\n")
        .replace("[settings]\n", settings);
    rig.stillpoint.write_config("hooks.d/mysql.toml", &text)?;
    rig.server.execute("CREATE DATABASE IF NOT EXISTS shop; CREATE TABLE shop.orders (id INT)")?;
    let mut blocker = rig.server.connect().await?;
    blocker.query_drop("LOCK TABLES shop.orders WRITE").await?;
    let run = tokio::task::block_in_place(|| rig.stillpoint.run(["snapshot", "--name", "bad"]))?;
    drop(blocker);
    run.exited_with(9)?;
    let id = run.stderr.split("stillpoint report ").nth(1).context("no report is offered")?;
    let id = id.split_whitespace().next().context("no id")?;
    let html = rig.stillpoint.run(["report", id])?.succeeded()?.stdout.clone();
    for seen in look(browser, "bad", &html)? {
        // In ten seconds: what failed, whether it runs again, what to do.
        for text in ["No snapshot: quiesce failed", "hook mysql", "Does everything run? Yes"] {
            ensure!(seen.first_screen.contains(text), "not on the first screen: {text}: {seen:#?}");
        }
        ensure!(seen.first_screen.contains("What to do now"), "{seen:#?}");
        says(&seen, "not reached")?;
        let failed = lane(&seen, "mysql")?;
        ensure!(
            failed.name.starts_with('✕') && failed.bars.contains(&"failed".to_owned()),
            "{failed:?}"
        );
        let other = lane(&seen, "puppet")?;
        ensure!(
            other.bars.contains(&"held".to_owned()) && other.took.contains("held"),
            "{other:?}"
        );
        says(&seen, &rig.lab.mount("data").display().to_string())?;
    }
    let record = record(&rig.stillpoint, &[id])?;
    ensure!(record.manifest.is_none() && record.exit_code == 9, "{record:?}");
    window_failed(&record, browser)
}

/// A configuration that is wrong is a run that failed, too: whoever looks for last night's finds it.
fn could_not_begin(rig: &Rig, browser: &mut Browser) -> Result<()> {
    let config = rig.stillpoint.config_file("stillpoint.toml");
    let good = fs::read_to_string(&config)?;
    rig.stillpoint.configure("colour = \"blue\"\n")?;
    rig.stillpoint.snapshot("broken", &[])?.exited_with(2)?;
    let html = rig.stillpoint.run(["report"])?.succeeded()?.stdout.clone();
    for seen in look(browser, "broken", &html)? {
        ensure!(seen.first_screen.contains("No snapshot: the run could not begin"), "{seen:#?}");
        says(&seen, "colour")?;
    }
    rig.stillpoint.configure(&good)?;
    let listed = rig.stillpoint.run(["report", "--list"])?.succeeded()?.stdout.clone();
    let names: Vec<&str> =
        listed.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    ensure!(names == ["broken", "bad", "good"], "{listed}");
    let unknown = rig.stillpoint.run(["report", "ffffffff-none"])?;
    unknown.exited_with(2)?;
    ensure!(unknown.stderr.contains("report --list"), "{}", unknown.description());
    Ok(())
}

/// A run that failed while file systems were frozen, made of one that failed before.
fn window_failed(record: &RunRecord, browser: &mut Browser) -> Result<()> {
    let mut record = record.clone();
    let attempt = record.attempt.as_mut().context("no attempt")?;
    let from = attempt.steps.iter().map(|step| step.ended_ns).max().unwrap_or_default();
    let mut step = attempt.steps[0].clone();
    step.step = "snapshot".into();
    step.result = stillpoint::manifest::StepResult::Failed;
    (step.began_ns, step.ended_ns) = (from + 2_000_000, from + 9_000_000_000);
    attempt.steps.push(step);
    attempt.file_systems = attempt
        .planned
        .iter()
        .map(|fs| stillpoint::manifest::FileSystemRecord {
            superblock: fs.superblock,
            mount_point: fs.mount_point.clone(),
            fs_type: fs.fs_type.clone(),
            disks: fs.disks.clone(),
            wave: fs.wave,
            freeze_began_ns: from,
            frozen_ns: from + 1_000_000,
            thaw_began_ns: from + 10_000_000_000,
            thawed_ns: from + 10_001_000_000,
            thawed_by_us: true,
            writable_after: true,
        })
        .collect();
    record.maybe_frozen = vec!["/srv/data".into()];
    record.error.as_mut().context("no error")?.during = Some("snapshot".into());
    for seen in look(browser, "window", &page(&record))? {
        ensure!(seen.first_screen.contains("File systems may still be frozen"), "{seen:#?}");
        ensure!(seen.first_screen.contains("Does everything run? NO"), "{seen:#?}");
        ensure!(lane(&seen, "snapshot")?.bars == ["failed"], "{seen:#?}");
        says(&seen, "window 10.0 s")?;
    }
    Ok(())
}

/// Sixty file systems with long names, a provider that takes ten minutes, and texts that want to be
/// more than text.
fn extremes(record: &RunRecord, browser: &mut Browser) -> Result<()> {
    let mut record = record.clone();
    let manifest = record.manifest.as_mut().context("no manifest")?;
    let first = manifest.file_systems[0].clone();
    for n in 0..58 {
        let mut fs = first.clone();
        fs.mount_point =
            format!("/srv/{}/{n}", "a-name-that-is-too-long-for-a-line/".repeat(4)).into();
        manifest.file_systems.push(fs);
    }
    let settle =
        manifest.steps.iter_mut().find(|step| step.step == "settle").context("no settle")?;
    settle.ended_ns += 600_000_000_000;
    manifest.timings.total_ns += 600_000_000_000;
    let hostile = "<script>document.body.remove()</script><img src=\"http://192.0.2.1/x\">\u{202e}drawkcab \"'&";
    manifest.warnings.push(hostile.to_owned());
    manifest.hooks[0].metadata[0].key = hostile.to_owned();
    record.name = format!("{hostile} {}", "x".repeat(200));
    let html = page(&record);
    ensure!(!html.contains('\u{202e}') && !html.contains("<script"), "not escaped");
    for seen in look(browser, "extreme", &html)? {
        says(&seen, "<script>document.body.remove()</script>")?;
        ensure!(seen.lanes.len() > 70, "{} lanes", seen.lanes.len());
        ensure!(lane(&seen, "settle")?.took.starts_with("600"), "{:?}", lane(&seen, "settle"));
        ensure!(!lane(&seen, "rehearse")?.bars.is_empty());
    }
    Ok(())
}
