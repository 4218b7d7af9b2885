//! `stillpoint bench`: what it tells, and that nothing is left of it, however it ends. No time is judged:
//! machines are noisy. `STILLPOINT_PICTURES=DIR` keeps pictures of the page.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use stillpoint::bench::{BenchDocument, Load, Measure, Method, Place};
use stillpoint_tests::browser::Browser;
use stillpoint_tests::command::output_of;
use stillpoint_tests::lab::{FsSpec, FsType, Lab};
use stillpoint_tests::stillpoint::{NO_SCRIPTS, Stillpoint, binary, workspace};

/// For what goes when the last process has ended.
const PATIENCE: Duration = Duration::from_secs(20);
const RCU: &str = "/sys/kernel/rcu_expedited";

/// An installation without a configuration, and a place for images.
struct Spot {
    directory: tempfile::TempDir,
}

impl Spot {
    fn new() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("stillpoint-bench-test.").tempdir()?;
        fs::create_dir(directory.path().join("images"))?;
        Ok(Self { directory })
    }

    fn images(&self) -> PathBuf {
        self.directory.path().join("images")
    }

    fn lab(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(binary()?);
        command.arg("--root").arg(self.directory.path().join("root"));
        command.args(["--json", "bench", "lab", "--dir"]).arg(self.images()).args(arguments);
        command.stdin(Stdio::null());
        Ok(command)
    }

    /// Mounts that any process sees, loop devices, files.
    fn left(&self) -> Result<Vec<String>> {
        let name = self.directory.path().display().to_string();
        let mut left = Vec::new();
        for process in fs::read_dir("/proc")?.filter_map(Result::ok) {
            let mounts = fs::read_to_string(process.path().join("mountinfo")).unwrap_or_default();
            if mounts.contains(&name) {
                left.push(format!("mounts seen by {}", process.path().display()));
            }
        }
        for device in fs::read_dir("/sys/block")?.filter_map(Result::ok) {
            let file = device.path().join("loop/backing_file");
            let file = fs::read_to_string(file).unwrap_or_default();
            if file.contains(&name) {
                left.push(format!("{} of {file}", device.path().display()));
            }
        }
        for file in fs::read_dir(self.images())?.filter_map(Result::ok) {
            left.push(file.path().display().to_string());
        }
        Ok(left)
    }

    /// A file system that is frozen keeps its loop device, whoever is gone.
    fn has_nothing_left(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = self.left()?;
            if left.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "left behind: {left:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn document(text: &str) -> Result<BenchDocument> {
    let schema = fs::read_to_string(workspace().join("docs/bench.schema.json"))?;
    let value: serde_json::Value = serde_json::from_str(text).context("not JSON")?;
    let schema: serde_json::Value = serde_json::from_str(&schema)?;
    let fields = schema["required"].as_array().context("no schema")?;
    for field in fields.iter().filter_map(serde_json::Value::as_str) {
        ensure!(!value[field].is_null(), "{field} is missing in {value}");
    }
    // The types deny what they do not know, and the schema is that of the types.
    serde_json::from_value(value).context("not what the types say")
}

#[test]
fn a_lab_tells_what_a_freeze_costs_and_leaves_nothing() -> Result<()> {
    let place = Spot::new()?;
    let page = place.directory.path().join("page.html");
    let mut command =
        place.lab(&["--rounds", "2", "--file-systems", "2,1", "--loads", "dirty,idle"])?;
    command.args(["--dirty-mib", "8", "--seed", "7", "--html"]).arg(&page);
    let document = document(&output_of(&mut command)?)?;
    place.has_nothing_left()?;
    ensure!(document.place == Place::Lab && document.seed == 7 && document.rounds == 2);
    ensure!(document.machine.cpus > 0, "{:?}", document.machine);
    ensure!(document.file_systems.len() == 2, "{:?}", document.file_systems);
    for fs in &document.file_systems {
        ensure!(fs.fs_type == "ext4" && fs.image.is_some(), "{fs:?}");
    }
    let methods =
        [Method::Stillpoint, Method::NoRehearsal, Method::Cold, Method::Fsfreeze, Method::Bare];
    let measures = [
        (Load::Idle, Measure::Window),
        (Load::Dirty, Measure::Window),
        (Load::Dirty, Measure::Stall),
    ];
    for (load, measure) in measures {
        for count in [1, 2] {
            for method in methods {
                let is = |set: &&stillpoint::bench::Set| {
                    (set.load, set.measure, set.file_systems, set.method)
                        == (load, measure, count, method)
                };
                let set = document.sets.iter().find(is);
                let set =
                    set.with_context(|| format!("{load:?} {measure:?} {count} {method:?}"))?;
                ensure!(set.n == 2 && set.values_ns.len() == 2 && set.p99_ns.is_none(), "{set:?}");
                ensure!(set.median_ns > 0 && set.max_ns >= set.median_ns, "{set:?}");
            }
        }
    }
    ensure!(document.sets.len() == 3 * 2 * 5, "{} sets", document.sets.len());
    ensure!(document.ratios.len() == 3 * 2 * 4, "{} ratios", document.ratios.len());
    for ratio in &document.ratios {
        ensure!(ratio.low <= ratio.high && ratio.low > 0.0, "{ratio:?}");
    }
    is_drawn(&fs::read_to_string(page)?)
}

/// As readers see it: at two widths, light, dark and on paper.
fn is_drawn(html: &str) -> Result<()> {
    let Some(mut browser) = Browser::start()? else { return Ok(()) };
    for seen in browser.look_at_all("bench", html)? {
        for text in ["What a freeze costs", "Window: idle", "2 file systems", "seed 7", "extents"] {
            ensure!(seen.text.contains(text), "the page does not say {text:?}:\n{}", seen.text);
        }
        ensure!(seen.lanes.len() == 3 * 2 * 5, "{} lanes", seen.lanes.len());
        for lane in &seen.lanes {
            ensure!(lane.bars.len() == 1 && lane.took.contains("at most"), "{lane:?}");
        }
        for name in ["stillpoint", "without rehearsal", "fsfreeze, in turn"] {
            ensure!(seen.lanes.iter().any(|lane| lane.name == name), "no lane {name}");
        }
    }
    Ok(())
}

/// Something that a lab does in the middle of its work, seen from outside.
fn is_freezing_guarded(lab: &Child, place: &Spot) -> bool {
    let own = place.directory.path().join("root/run/stillpoint/journal/freeze.json");
    let inside = PathBuf::from(format!("/proc/{}/root{}", lab.id(), own.display()));
    inside.exists()
}

fn is_freezing_by_hand(lab: &Child, _place: &Spot) -> bool {
    let children = format!("/proc/{0}/task/{0}/children", lab.id());
    let children = fs::read_to_string(children).unwrap_or_default();
    children.split_whitespace().any(|child| {
        fs::read_to_string(format!("/proc/{child}/comm"))
            .is_ok_and(|name| name.trim() == "fsfreeze")
    })
}

#[test]
fn a_lab_that_is_killed_leaves_nothing_frozen_mounted_attached_or_written() -> Result<()> {
    type Reached = fn(&Child, &Spot) -> bool;
    let cases: [(Reached, &str); 3] = [
        (is_freezing_guarded, "KILL"),
        (is_freezing_by_hand, "KILL"),
        (is_freezing_by_hand, "TERM"),
    ];
    for (is_at_it, signal) in cases {
        let place = Spot::new()?;
        let before = fs::read_to_string(RCU).unwrap_or_default();
        let mut lab = place
            .lab(&["--rounds", "1000", "--file-systems", "2", "--loads", "busy"])?
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let deadline = Instant::now() + 3 * PATIENCE;
        while !is_at_it(&lab, &place) {
            ensure!(lab.try_wait()?.is_none(), "the lab has ended");
            ensure!(Instant::now() < deadline, "the lab does not freeze");
        }
        output_of(Command::new("kill").args(["-s", signal, &lab.id().to_string()]))?;
        lab.wait()?;
        place.has_nothing_left().with_context(|| format!("after {signal}"))?;
        if !other_labs_run()? {
            ensure!(fs::read_to_string(RCU).unwrap_or_default() == before, "rcu_expedited");
        }
    }
    Ok(())
}

/// Others on this machine may have it raised.
fn other_labs_run() -> Result<bool> {
    let own = Path::new("/proc/self").canonicalize()?;
    let found = fs::read_dir("/proc")?.filter_map(Result::ok).any(|process| {
        let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        process.path() != own && name.starts_with("stillpoint")
    });
    Ok(found)
}

#[test]
fn what_cannot_be_made_is_refused_and_says_what_to_do() -> Result<()> {
    let place = Spot::new()?;
    for (arguments, code, says) in [
        (&["--file-systems", "65"][..], 2, "1 to 64"),
        (&["--rounds", "0"], 2, "no rounds"),
        (&["--dirty-mib", "1048576"], 1, "--dir"),
        (&["--html", "/proc/none/page.html"], 2, "cannot write"),
    ] {
        let output = place.lab(arguments)?.output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.code() == Some(code), "{arguments:?}: {}: {text}", output.status);
        ensure!(text.contains(says), "{arguments:?}: {text}");
    }
    // Found by a search of PATH, so that an empty one has none.
    let output = place.lab(&["--rounds", "1"])?.env("PATH", "").output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(text.contains("mkfs.ext4 is not installed") && text.contains("e2fsprogs"), "{text}");
    ensure!(place.left()?.is_empty(), "{:?}", place.left());
    Ok(())
}

#[test]
fn this_machine_is_measured_only_if_somebody_says_so_and_no_snapshot_is_made() -> Result<()> {
    let lab = Lab::new(&[FsSpec::new("data", FsType::Ext4, 64)], Duration::from_secs(300))?;
    let stillpoint = Stillpoint::new(&lab)?;
    let log = lab.scratch("scripts")?.join("log");
    configure_scripts(&lab, &stillpoint, &log)?;
    let refused = stillpoint.run(["bench", "here"])?;
    refused.exited_with(2)?;
    let data = lab.mount("data").display().to_string();
    for text in ["--yes", &data, "No snapshot is"] {
        ensure!(refused.stderr.contains(text), "{text}: {}", refused.description());
    }
    ensure!(!log.exists(), "the scripts were run");

    let arguments = ["bench", "here", "--yes", "--rounds", "2", "--probe", &data];
    let run = stillpoint.run_json(arguments)?;
    let document = document(&run.succeeded()?.stdout)?;
    ensure!(document.place == Place::Here && document.rounds == 2, "{document:?}");
    for measure in [Measure::Window, Measure::Hold, Measure::Quiesce, Measure::Stall] {
        let set = document.sets.iter().find(|set| set.measure == measure);
        let set = set.with_context(|| format!("no {measure:?} in {document:?}"))?;
        ensure!(set.n == 2 && set.median_ns > 0 && set.file_systems == 1, "{set:?}");
    }
    ensure!(document.file_systems[0].name == data, "{:?}", document.file_systems);
    ensure!(fs::read_to_string(&log)? == "pre\npost\npre\npost\n", "each run is undone");
    stillpoint.has_no_group()?;
    let listed = stillpoint.run(["report", "--list"])?.succeeded()?.stdout.clone();
    ensure!(listed == "no runs\n", "a bench is no run that failed: {listed}");
    stillpoint.configure(&stillpoint.settings(&lab, NO_SCRIPTS))?;
    let without = stillpoint.run(["bench", "here", "--yes", "--rounds", "1"])?;
    let without = without.succeeded()?.stdout.clone();
    ensure!(without.contains("window") && !without.contains("hold,"), "{without}");
    lab.finish()
}

fn configure_scripts(lab: &Lab, stillpoint: &Stillpoint, log: &Path) -> Result<()> {
    let directory = log.parent().context("no directory")?;
    for name in ["pre", "post"] {
        let path = directory.join(name);
        fs::write(&path, format!("#!/bin/sh\necho {name} >>{}\n", log.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
    }
    let directory = directory.display();
    stillpoint.configure(&stillpoint.settings(
        lab,
        &format!(
            "[scripts]\nenabled = true\npre = \"{directory}/pre\"\npost = \"{directory}/post\"\n"
        ),
    ))
}
