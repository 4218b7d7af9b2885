//! The paced flush: what is dirty is written out before `syncfs` has to, whoever wrote it. Runs end
//! just before the `syncfs`, so what is clean then was written by the flush and by nothing else.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use stillpoint_tests::lab::{FsSpec, FsType, Lab};
use stillpoint_tests::stillpoint::{NO_SCRIPTS, Run, Stillpoint};
use stillpoint_tests::sys::dirty_bytes;

const LONGEST: Duration = Duration::from_secs(240);
const MIB: usize = 1 << 20;

/// In mebibytes, of each of the three on each file system.
const DIRTY: usize = 48;

/// In mebibytes. ext4 writes out by itself what is dirty and has no block yet, when the room for it comes
/// near its end.
const SIZE: u64 = 1024;

/// Two file systems with delayed allocation, three kinds of file on each. Those in the list stay open.
fn make_dirty(lab: &Lab) -> Result<Vec<(String, File)>> {
    let mut all = Vec::new();
    for fs in lab.file_systems() {
        let overwritten = fs.mount.join("overwritten");
        write(&mut File::create(&overwritten)?, DIRTY)?;
        nix::unistd::syncfs(File::open(&fs.mount)?)?;
        let mut writer = File::options().write(true).open(&overwritten)?;
        write(&mut writer, DIRTY)?;
        all.push((format!("{}: overwritten, open", fs.name), writer));

        let mut new = File::create(fs.mount.join("new"))?;
        write(&mut new, DIRTY)?;
        all.push((format!("{}: new, open", fs.name), new));

        let deep = fs.mount.join("a/b");
        std::fs::create_dir_all(&deep)?;
        for index in 0..4 {
            write(&mut File::create(deep.join(index.to_string()))?, DIRTY / 4)?;
        }
    }
    Ok(all)
}

fn write(file: &mut File, mebibytes: usize) -> Result<()> {
    let mebibyte = vec![0x5a_u8; MIB];
    for _ in 0..mebibytes {
        file.write_all(&mebibyte)?;
    }
    Ok(())
}

/// Those that nobody has open are opened here, to ask about them.
fn with_closed(lab: &Lab, mut open: Vec<(String, File)>) -> Result<Vec<(String, File)>> {
    for fs in lab.file_systems() {
        for index in 0..4 {
            let path = fs.mount.join("a/b").join(index.to_string());
            open.push((format!("{}: new, closed", fs.name), File::open(path)?));
        }
    }
    Ok(open)
}

fn step<'a>(run: &'a Value, name: &str) -> Result<&'a Value> {
    let steps = run.pointer("/error/steps").or_else(|| run.pointer("/manifest/steps"));
    let steps = steps.or_else(|| run.get("steps")).and_then(Value::as_array);
    let found = steps.into_iter().flatten().find(|step| step["step"] == name);
    found.with_context(|| format!("no step {name}: {run:#}"))
}

fn lab_of(specs: &[FsSpec], deadlines: &str) -> Result<(Lab, Stillpoint)> {
    let lab = Lab::new(specs, LONGEST)?;
    let stillpoint = Stillpoint::new(&lab)?;
    stillpoint.configure(&stillpoint.settings(&lab, &format!("{NO_SCRIPTS}\n{deadlines}")))?;
    Ok((lab, stillpoint))
}

/// A run that fails where it would call `syncfs`.
fn until_sync(stillpoint: Stillpoint) -> Result<Run> {
    let ends = "guard.sync.before=error(EIO)";
    let stillpoint = stillpoint.with_variable("STILLPOINT_FAILPOINTS", Path::new(ends));
    let run = stillpoint.snapshot("flush", &[])?;
    run.exited_with(11)?;
    Ok(run)
}

#[test]
fn what_is_dirty_is_written_out_before_anything_is_held_whoever_wrote_it() -> Result<()> {
    let specs = [FsSpec::new("ext4", FsType::Ext4, SIZE), FsSpec::new("xfs", FsType::Xfs, SIZE)];
    let (lab, stillpoint) = lab_of(&specs, "[deadlines]\nflush = \"60s\"\n")?;
    let open = make_dirty(&lab)?;
    let asked = dirty_bytes(&open[0].1)?;
    let run = until_sync(stillpoint)?;
    let document = run.json()?;
    let flush = step(&document, "flush")?;
    let told = flush["detail"].as_str().unwrap_or_default().to_owned();
    ensure!(flush["result"] == "done", "{flush}");
    ensure!(told.contains("written out in small steps"), "{told}");
    if asked.is_some() {
        for (what, file) in with_closed(&lab, open)? {
            let dirty = dirty_bytes(&file)?.unwrap_or_default();
            ensure!(dirty == 0, "{what}: {dirty} bytes are still dirty; {told}");
        }
    }
    lab.finish()
}

#[test]
fn a_flush_that_has_no_time_leaves_the_rest_and_the_run_goes_on() -> Result<()> {
    let specs = [FsSpec::new("ext4", FsType::Ext4, SIZE)];
    let (lab, stillpoint) = lab_of(&specs, "[deadlines]\nflush = \"1ms\"\n")?;
    let open = make_dirty(&lab)?;
    let run = stillpoint.snapshot("flush", &[])?;
    let document = run.succeeded()?.json()?;
    let flush = step(&document, "flush")?;
    let told = flush["detail"].as_str().unwrap_or_default();
    // Even the start of its process can take too long.
    ensure!(told.contains("left to sync") || told.contains("was killed"), "{flush}");
    ensure!(step(&document, "sync")?["result"] == "done", "{document:#}");
    for (what, file) in with_closed(&lab, open)? {
        ensure!(dirty_bytes(&file)?.unwrap_or_default() == 0, "{what}: sync has left it");
    }
    lab.finish()
}
