//! The processes of a run die, together and one by one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ecs_emulator::Fault;
use nix::sys::signal::Signal;
use stillpoint_tests::cloud_rig::{CloudRig, still_run};
use stillpoint_tests::rig::{CLIENTS, PATIENCE};
use stillpoint_tests::standing::{Standing, none_frozen, signal, wait_within};
use stillpoint_tests::writers::{Writers, create_tables, now_ns};

use crate::common::{
    CANNOT_FREEZE, SOON, Scripts, answers_after, answers_at_once, is_thawed,
    nothing_is_called_consistent,
};

/// How long a run stands still in its window. It waits for the answer, to know whether there is a group.
const LONG: Duration = Duration::from_secs(5);

/// VMware's and Velero's users: the controller dies, and nobody thaws.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn scenario_01_controller_killed_while_frozen() -> Result<()> {
    let (rig, server) = CloudRig::with_server(|_| ())?;
    create_tables(&mut server.connect().await?).await?;
    let clients = Writers::start(server.options(), CLIENTS).await?;
    clients.wait_for(50, PATIENCE).await?;
    // The group is made, and the answer does not come: that is in the window.
    rig.cloud.emulator.faults([Fault::on("CreateSnapshotGroup").delay_after(LONG)]);
    let asked = Arc::new(AtomicBool::new(false));
    let made = Arc::clone(&asked);
    rig.cloud.emulator.on_create(move |_| made.store(true, Ordering::SeqCst));
    let killed_ns = tokio::task::block_in_place(|| -> Result<u64> {
        let in_window = || Ok(asked.load(Ordering::SeqCst));
        let mut run = Standing::start(&rig.stillpoint, "dies", in_window)?;
        run.kill_agent()?;
        let killed_ns = now_ns();
        is_thawed(&rig)?;
        Ok(killed_ns)
    })?;
    clients.wait_for(50, PATIENCE).await?;
    let history = clients.stop().await?;
    for recovery in history.recovery_after(killed_ns) {
        let recovery = recovery.context("a client never committed again")?;
        ensure!(recovery <= 2 * SOON, "a client commits again only after {recovery:?}");
    }
    nothing_is_called_consistent(&rig)?;

    answers_at_once(&rig);
    // Until the cloud is through with the group of the dead, it refuses another one of its disks.
    rig.cloud.emulator.clear_groups();
    let next = rig.snapshot(&[])?;
    ensure!(next.succeeded()?.manifest()?.level()? == "application", "{}", next.description());
    server.stop()?;
    rig.finish()
}

/// No peer survives it: who watches is killed, or stopped. The run is given up at once, and says so.
#[test]
fn scenario_02_watchdog_killed_or_stopped_while_frozen() -> Result<()> {
    let rig = CloudRig::new(&["data", "log"], |_| ())?;
    answers_after(&rig, LONG);
    for sent in [Signal::SIGKILL, Signal::SIGSTOP] {
        for of_guard in [true, false] {
            let context = || format!("{sent} to {}", if of_guard { "guard" } else { "sentinel" });
            let run = Standing::in_window(&rig.stillpoint, &rig.lab, "loses-one")?;
            let pid = if of_guard { run.guard()? } else { run.sentinel()? }.pid;
            signal(pid, sent)?;
            wait_within(SOON, "nothing is frozen", || none_frozen(&rig.lab))
                .with_context(context)?;
            let run = run.end()?;
            run.exited_with(CANNOT_FREEZE).with_context(context)?;
            ensure!(run.error_text()?.contains("was lost"), "{}", run.description());
            is_thawed(&rig).with_context(context)?;
            nothing_is_called_consistent(&rig)?;
        }
    }
    rig.finish()
}

/// QEMU's guest agent leaves a marker and waits for somebody. SIGTERM does not end a run that is frozen;
/// when all three are killed, what a unit's `ExecStopPost=` runs thaws by the journal.
#[test]
fn scenario_03_all_killed_or_service_stopped_while_frozen() -> Result<()> {
    let rig = CloudRig::new(&["data", "log"], |_| ())?;
    let scripts = Scripts::waiting(&rig, "")?;
    scripts.touch("go")?;
    answers_after(&rig, LONG);

    let run = Standing::in_window(&rig.stillpoint, &rig.lab, "stopped")?;
    signal(run.agent(), Signal::SIGTERM)?;
    let run = run.end()?;
    run.exited_with(255)?;
    is_thawed(&rig)?;
    ensure!(scripts.log() == "pre\npost-failed\n", "{}", scripts.log());
    nothing_is_called_consistent(&rig)?;

    let mut run = Standing::in_window(&rig.stillpoint, &rig.lab, "killed")?;
    run.kill_all()?;
    ensure!(!none_frozen(&rig.lab)?, "nobody is left to thaw");
    let thaw = rig.stillpoint.run(["thaw"])?;
    thaw.succeeded()?;
    ensure!(thaw.stdout.matches(": thawed").count() == 2, "{}", thaw.description());
    still_run(&rig.lab)?;
    let recover = rig.stillpoint.run(["recover"])?;
    recover.succeeded()?;
    ensure!(scripts.log().ends_with("pre\npost-aborted\n"), "{}", scripts.log());
    is_thawed(&rig)?;
    rig.finish()
}
