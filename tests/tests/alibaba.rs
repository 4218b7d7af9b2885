//! Snapshots through the provider `alibaba`, of real file systems and a real server, in an emulated
//! cloud: what is taken, what is frozen meanwhile, what is asked, and what nobody may see.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ecs_emulator::{Fault, Logged};
use stillpoint_tests::cloud::{Cloud, disk_of};
use stillpoint_tests::cloud_rig::{
    CloudRig, ProcessWatch, longest, no_secret_in, no_secret_in_files,
};
use stillpoint_tests::file_writers::FileWriters;
use stillpoint_tests::oracle::examine;
use stillpoint_tests::rig::{CLIENTS, PATIENCE};
use stillpoint_tests::stillpoint::{Manifest, NO_SCRIPTS, Run, Stillpoint};
use stillpoint_tests::writers::{Writers, create_tables};

/// As the vendor's service was seen to do.
const HIDDEN_LOOKS: u32 = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_group_of_a_busy_server_is_proved_by_what_its_disks_held() -> Result<()> {
    let (rig, server) = CloudRig::with_server(|scenario| {
        scenario.group.hidden_looks = HIDDEN_LOOKS;
    })?;
    rig.cloud.keep_copies(&rig.lab);
    create_tables(&mut server.connect().await?).await?;
    server.execute("RESET MASTER")?;
    let writers = Writers::start(server.options(), CLIENTS).await?;
    writers.wait_for(100, PATIENCE).await?;
    let run = tokio::task::block_in_place(|| rig.snapshot(&[]))?;
    writers.wait_for(100, PATIENCE).await?;
    let history = writers.stop().await?;
    let manifest = run.succeeded()?.manifest()?;

    let group = rig.cloud.the_group()?;
    ensure!(manifest.level()? == "application", "{}", run.description());
    ensure!(manifest.group()? == group.id, "{} in the manifest", manifest.group()?);
    ensure!(group.members.len() == 2, "{group:#?}");
    ensure!(group.tag("AppConsistent") == Some("True"), "{group:#?}");
    ensure!(group.tag("FsConsistent").is_none(), "{group:#?}");
    one_request_in_the_window(&rig, &manifest)?;

    let copies = rig.cloud.server(&rig.lab, &group.id)?;
    let verdict = examine(&rig.lab, &copies, &history, &manifest.claim()?).await?;
    ensure!(verdict.had_to_be_there > 0 && verdict.could_not_be_there > 0);
    println!("{} rows in the copy", verdict.rows);
    verdict.into_result()?;
    server.stop()?;
    rig.finish()
}

/// Between the first freeze and the last thaw there is one CreateSnapshotGroup and the looks at the
/// list that follow it, over a connection that was open before; nobody asks for credentials.
fn one_request_in_the_window(rig: &CloudRig, manifest: &Manifest) -> Result<()> {
    let window = manifest.span("freeze", "thaw")?;
    let log = rig.cloud.emulator.log();
    let in_window =
        |logged: &&Logged| (window.began_ns..=window.ended_ns).contains(&logged.received_ns);
    let asked: Vec<&Logged> = log.iter().filter(in_window).collect();
    let actions: Vec<&str> = asked.iter().map(|logged| logged.action.as_str()).collect();
    let [first, looks @ ..] = actions.as_slice() else { anyhow::bail!("nothing in {window:?}") };
    ensure!(*first == "CreateSnapshotGroup", "{actions:?}");
    ensure!(looks.iter().all(|action| *action == "DescribeSnapshotGroups"), "{actions:?}");
    let create = asked.first().context("a request")?;
    let opened_before = log.iter().any(|logged| {
        logged.connection == create.connection
            && !logged.action.starts_with("metadata:")
            && logged.received_ns < window.began_ns
    });
    ensure!(opened_before, "the connection was opened in the window: {create:#?}");
    Ok(())
}

#[test]
fn without_hooks_the_members_are_file_system_consistent() -> Result<()> {
    let rig = CloudRig::new(&["data", "other"], |_| ())?;
    let run = rig.snapshot(&[])?;
    ensure!(run.succeeded()?.manifest()?.level()? == "file-system", "{}", run.description());
    let group = rig.cloud.the_group()?;
    ensure!(group.tag("FsConsistent") == Some("True"), "{group:#?}");
    ensure!(group.tag("AppConsistent").is_none(), "{group:#?}");
    rig.finish()
}

/// Each page of each list has one entry: everything is found all the same.
#[test]
fn pages_are_turned() -> Result<()> {
    let rig = CloudRig::new(&["a", "b", "c"], |scenario| scenario.limits.page = 1)?;
    let run = rig.snapshot(&[])?;
    run.succeeded()?;
    let group = rig.cloud.the_group()?;
    ensure!(group.members.len() == 3, "{group:#?}");
    ensure!(group.tag("FsConsistent") == Some("True"), "{group:#?}");
    rig.finish()
}

/// The request takes two seconds: a writer on a disk of the group waits for it, one on an excluded
/// disk never does.
#[test]
fn a_writer_on_an_excluded_disk_never_stalls() -> Result<()> {
    let slow = Duration::from_secs(2);
    let rig = CloudRig::new(&["data", "excluded"], |scenario| {
        scenario.faults.push(Fault::on("CreateSnapshotGroup").delay_after(slow));
    })?;
    let excluded = disk_of("excluded");
    rig.stillpoint.configure(&format!(
        "[provider]\nkind = \"alibaba\"\n\n[snapshot]\nexclude-disks = [\"{excluded}\"]\n\n{NO_SCRIPTS}"
    ))?;
    let [data, excluded] =
        ["data", "excluded"].map(|name| FileWriters::start([rig.lab.mount(name)]));
    let (data, excluded) = (data?, excluded?);
    let run = rig.snapshot(&[])?;
    let (data, excluded) = (longest(&data.stop()?)?, longest(&excluded.stop()?)?);
    run.succeeded()?;
    println!("longest write: {:?}, excluded {:?}", data.duration(), excluded.duration());
    ensure!(data.duration() >= slow, "the disk of the group was not frozen");
    ensure!(excluded.duration() < slow / 2, "the excluded disk stalled {:?}", excluded.duration());
    let group = rig.cloud.the_group()?;
    let disks: Vec<&str> = group.members.iter().map(|member| member.disk.as_str()).collect();
    ensure!(disks == [disk_of("data")], "{disks:?}");
    rig.finish()
}

#[test]
fn the_older_signature_is_taken_where_it_is_asked_for() -> Result<()> {
    let rig = CloudRig::new(&["data"], |_| ())?;
    for (setting, name) in [("acs3", "ACS3-HMAC-SHA256"), ("rpc-v1", "HMAC-SHA1")] {
        rig.cloud.emulator.clear_groups();
        rig.cloud.emulator.clear_log();
        rig.configure(&format!("[provider.alibaba]\nsignature = \"{setting}\"\n"))?;
        rig.snapshot(&[])?.succeeded()?;
        ensure!(rig.cloud.the_group()?.tag("FsConsistent") == Some("True"));
        for logged in rig.cloud.emulator.log() {
            if let Some(version) = logged.signature {
                ensure!(serde_json::to_value(version)? == *name, "{logged:#?}");
            }
        }
    }
    rig.finish()
}

/// A certificate of nobody we trust is noticed before anything is held.
#[test]
fn a_certificate_is_checked() -> Result<()> {
    let rig = CloudRig::new(&["data"], |_| ())?;
    let (cloud, authority) = Cloud::over_tls(&rig.lab)?;
    let stillpoint = Stillpoint::in_cloud(&rig.lab, &cloud)?;
    let snapshot = || stillpoint.command(["--json", "snapshot", "--name", "tls"]);
    let run = Run::of(&snapshot().env("SSL_CERT_FILE", &authority).output()?);
    run.succeeded()?;
    ensure!(cloud.the_group()?.tag("FsConsistent") == Some("True"));

    cloud.emulator.clear_groups();
    let other = Cloud::over_tls(&rig.lab)?.1;
    std::fs::rename(&other, other.with_extension("other"))?;
    let run = Run::of(&snapshot().env("SSL_CERT_FILE", other.with_extension("other")).output()?);
    run.exited_with(1)?;
    ensure!(run.error_text()?.to_lowercase().contains("certificate"), "{}", run.description());
    ensure!(cloud.emulator.groups().is_empty(), "a request was sent");
    drop(cloud);
    rig.finish()
}

/// The metadata service is asked directly, whatever the environment says: it rejects requests that
/// came through a proxy, and a proxy would see credentials.
#[test]
fn the_metadata_service_is_never_asked_through_a_proxy() -> Result<()> {
    let rig = CloudRig::new(&["data"], |_| ())?;
    let proxy = std::net::TcpListener::bind("127.0.0.1:0")?;
    proxy.set_nonblocking(true)?;
    let address = format!("http://{}", proxy.local_addr()?);
    let mut command = rig.stillpoint.command(["--json", "snapshot", "--name", "proxy"]);
    for variable in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env(variable, &address);
    }
    Run::of(&command.output()?).succeeded()?;
    ensure!(proxy.accept().is_err(), "the proxy was asked");
    for logged in rig.cloud.emulator.log() {
        let forwarded = logged.header_names.iter().any(|name| name == "x-forwarded-for");
        ensure!(!forwarded, "{logged:#?}");
    }
    rig.finish()
}

/// What the metadata service and ECS hand out, and what signs, is seen nowhere: not in what is
/// printed (all of it, at the loudest), not in files, not on the machine's process list, not in
/// tags and manifests.
#[test]
fn no_secret_is_seen_anywhere() -> Result<()> {
    let rig = CloudRig::new(&["data"], |_| ())?;
    let log_file = rig.lab.scratch("log")?.join("trace");
    let watch = ProcessWatch::start(rig.lab.directory(), rig.stillpoint.binary());
    let mut outputs = Vec::new();
    // What succeeds, what is refused, what is not answered: errors are where secrets slip out.
    let moods = [
        vec![],
        vec![Fault::on("CreateSnapshotGroup").error("SignatureDoesNotMatch")],
        vec![Fault::on("CreateSnapshotGroup").expire_credentials()],
        vec![Fault::on("DescribeDisks").error("Forbidden.RAM")],
        vec![Fault::on("metadata:role").error_with_status("{\"AccessKeySecret\":", 200)],
    ];
    for faults in moods {
        rig.cloud.emulator.faults(faults);
        let mut command = rig.stillpoint.command(["-vv", "--json", "snapshot", "--name", "secret"]);
        let output = command.env("STILLPOINT_LOG", "trace").output()?;
        outputs.extend([output.stdout, output.stderr]);
    }
    let mut wrong = rig.stillpoint.command(["list"]);
    outputs.push(wrong.env("STILLPOINT_LOG", "trace").output()?.stderr);
    let plugin = ["plugin", "-RamRoleName=AppSnapshotRoleName", "-Name=secret"];
    let output = rig.stillpoint.command(plugin).output()?;
    outputs.extend([output.stdout, output.stderr]);
    let seen = watch.stop()?;
    let secrets = rig.cloud.emulator.secrets();
    ensure!(secrets.len() >= 3, "only {} secrets were handed out", secrets.len());
    let loud: usize = outputs.iter().map(Vec::len).sum();
    ensure!(loud > 10_000, "only {loud} bytes were printed: the log was not loud");
    std::fs::write(&log_file, outputs.concat())?;
    for output in &outputs {
        no_secret_in(&secrets, output, &"what was printed")?;
    }
    for bytes in &seen {
        no_secret_in(&secrets, bytes, &"the process list")?;
    }
    let groups = serde_json::to_vec(&rig.cloud.emulator.groups())?;
    no_secret_in(&secrets, &groups, &"the groups' names, descriptions and tags")?;
    no_secret_in_files(&secrets, &[rig.lab.root(), rig.lab.directory().join("scratch")])?;
    rig.finish()
}

/// A process that dies in the window leaves no core with what it knows.
#[test]
fn a_core_has_no_secret() -> Result<()> {
    let rig = CloudRig::new(&["data"], |scenario| {
        let slow = Duration::from_secs(3);
        scenario.faults.push(Fault::on("CreateSnapshotGroup").delay_after(slow));
    })?;
    let directory = rig.lab.scratch("core")?;
    let snapshot = rig.stillpoint.command(["snapshot", "--name", "core"]);
    let mut command = rig.lab.command("sh");
    command.args(["-c", "ulimit -c unlimited && exec \"$@\"", "sh"]);
    command.arg(snapshot.get_program()).args(snapshot.get_args());
    command.envs(snapshot.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut child = command.current_dir(&directory).spawn()?;
    wait_for(|| !rig.cloud.calls("CreateSnapshotGroup").is_empty())?;
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id())?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGABRT)?;
    let status = child.wait()?;
    ensure!(!status.success(), "it was not ended");
    stillpoint_tests::cloud_rig::still_run(&rig.lab)?;
    no_secret_in_files(&rig.cloud.emulator.secrets(), std::slice::from_ref(&directory))?;
    let cores = std::fs::read_dir(&directory)?.count();
    ensure!(cores == 0, "a core was written");
    rig.finish()
}

fn wait_for(what: impl Fn() -> bool) -> Result<()> {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !what() {
        ensure!(std::time::Instant::now() < deadline, "not in time");
        std::thread::yield_now();
    }
    Ok(())
}
