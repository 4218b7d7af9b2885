//! The agent is killed at random moments, from the rehearsal to the release: every file system is
//! writable, and every client commits again, within 250 ms of the end of its last thread.

use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use stillpoint_tests::file_writers::FileWriters;
use stillpoint_tests::leftovers;
use stillpoint_tests::rig::{CLIENTS, PATIENCE, Rig};
use stillpoint_tests::stats::Durations;
use stillpoint_tests::stillpoint::Run;
use stillpoint_tests::writers::{Commit, History, Interval, Writers, now_ns};

const KILLS: usize = 50;
const LIMIT: Duration = Duration::from_millis(250);

/// Names a seed to repeat a run's moments.
const SEED: &str = "STILLPOINT_TEST_SEED";

/// When, after the process's start, each of the two spans begins and ends.
#[derive(Debug)]
struct Moments {
    /// From the rehearsal to the release.
    whole: Interval,
    /// From the first lock to the last thaw: half of the kills fall in here.
    held: Interval,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_killed_agent_leaves_nothing_frozen_and_nothing_locked() -> Result<()> {
    let seed = seed()?;
    println!("{SEED}={seed}");
    let mut random = Random(seed);
    let rcu_expedited = rcu_expedited();
    let rig = Rig::new(Duration::from_secs(900))?;
    rig.fresh_tables().await?;
    let moments = measure(&rig)?;
    println!("{moments:?}");

    let clients = Writers::start(rig.server.options(), CLIENTS).await?;
    let files = FileWriters::start([rig.lab.mount("data"), rig.lab.mount("binlog")])?;
    // Beside them, and never frozen: what a write costs that waits for the same disk at that moment.
    let bystander = FileWriters::start_synced([rig.lab.directory()])?;
    clients.wait_for(100, PATIENCE).await?;
    let mut deaths = Vec::new();
    let mut ended_before = 0;
    while deaths.len() < KILLS {
        ensure!(ended_before <= KILLS, "most runs end before they are killed: {moments:?}");
        let span = if deaths.len() % 2 == 0 { moments.held } else { moments.whole };
        let delay = Duration::from_nanos(random.between(span.began_ns, span.ended_ns));
        let round = deaths.len();
        let started_ns = now_ns();
        let agent = rig.stillpoint.start_snapshot(&format!("killed-{round}"))?;
        let killed = tokio::task::block_in_place(|| kill_after(agent, started_ns, delay))?;
        // Long enough for the clients to show that they go on, whatever is left behind.
        tokio::time::sleep(2 * LIMIT).await;
        match killed {
            Death::Killed { at_ns } => deaths.push((at_ns, delay)),
            Death::EndedBefore(run) => {
                run.succeeded()?;
                ended_before += 1;
            }
        }
    }
    let clients = clients.stop().await?;
    let files = files.stop()?;
    let bystander = bystander.stop()?;

    let mut recoveries = Vec::new();
    for (round, (at_ns, delay)) in deaths.iter().enumerate() {
        for (whose, history) in [("client", &clients), ("file system", &files)] {
            for (number, recovery) in history.recovery_after(*at_ns).into_iter().enumerate() {
                let context = || format!("round {round}, killed {delay:?} after its start");
                let recovery = recovery.with_context(|| {
                    format!("{whose} {number} never wrote again: {}", context())
                })?;
                // On a machine that somebody else keeps busy a commit waits with nothing frozen, too.
                let without_us = longest_within(&bystander, *at_ns, recovery);
                ensure!(
                    recovery <= LIMIT + without_us,
                    "{whose} {number}: {recovery:?} (a bystander: {without_us:?}): {}",
                    context()
                );
                recoveries.push(recovery);
            }
        }
    }
    println!(
        "{KILLS} kills ({ended_before} runs ended first); writing again after: {}",
        recoveries.into_iter().collect::<Durations>()
    );

    nothing_of_ours_is_left(&rig, &rcu_expedited)?;

    // What the dead left behind does not keep the next run from its work.
    let proof = rig.prove("after-the-kills").await?;
    ensure!(proof.manifest.level()? == "application");
    proof.verdict.into_result()?;
    rig.finish()
}

/// How long the longest write took that was under way in this span after a moment.
fn longest_within(history: &History, moment_ns: u64, span: Duration) -> Duration {
    let end_ns = moment_ns.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX));
    let under_way = |write: &&Commit| write.acked_ns >= moment_ns && write.began_ns <= end_ns;
    let writes = history.commits.iter().flatten().filter(under_way);
    let longest = writes.map(|write| write.acked_ns.saturating_sub(write.began_ns)).max();
    Duration::from_nanos(longest.unwrap_or(0))
}

/// Three runs to their end, for the times at which things happen. The longest count: on a busy
/// machine a kill comes rather too early than after the end.
fn measure(rig: &Rig) -> Result<Moments> {
    let mut all = Vec::new();
    for round in 0..3 {
        let started_ns = now_ns();
        let run = rig.stillpoint.snapshot(&format!("measure-{round}"), &[])?;
        let manifest = run.succeeded()?.manifest()?;
        let since_start = |span: Interval| Interval {
            began_ns: span.began_ns.saturating_sub(started_ns),
            ended_ns: span.ended_ns.saturating_sub(started_ns),
        };
        all.push(Moments {
            whole: since_start(manifest.span("rehearse", "release")?),
            held: since_start(manifest.span("quiesce", "thaw")?),
        });
        rig.stillpoint.delete(manifest.group()?)?;
    }
    // The middle one by its end: the first run is slower than the others.
    all.sort_by_key(|moments| moments.whole.ended_ns);
    Ok(all.swap_remove(1))
}

/// Guards and sentinels of the dead have ended, nothing is frozen, and the kernel's setting is back.
fn nothing_of_ours_is_left(rig: &Rig, rcu_before: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let processes = leftovers::processes_of(rig.lab.directory(), rig.stillpoint.binary());
        // One number of the machine: a run of somebody else may have it raised now, or had before.
        let rcu_is_back = rcu_expedited().as_str() <= rcu_before
            || stillpoint_tests::faults::processes::others_run(rig.lab.directory());
        if processes.is_empty() && rcu_is_back {
            break;
        }
        ensure!(
            Instant::now() < deadline,
            "left: processes {processes:?}; rcu_expedited was {rcu_before}, is {}",
            rcu_expedited()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let status = rig.stillpoint.run_json(["status"])?;
    let lines = status.succeeded()?.json()?;
    for fs in rig.lab.file_systems() {
        let mount = fs.mount.display().to_string();
        let line = lines.as_array().into_iter().flatten().find(|line| {
            line.get("mount_point").and_then(serde_json::Value::as_str) == Some(mount.as_str())
        });
        let state = line.and_then(|line| line.get("state")?.as_str());
        ensure!(state == Some("running"), "{mount}: {}", status.description());
    }
    Ok(())
}

fn rcu_expedited() -> String {
    std::fs::read_to_string("/sys/kernel/rcu_expedited").unwrap_or_default()
}

enum Death {
    Killed { at_ns: u64 },
    EndedBefore(Run),
}

/// Kills it, and says when its last thread was gone: a process can be waited for only then.
fn kill_after(mut agent: Child, started_ns: u64, delay: Duration) -> Result<Death> {
    let moment = started_ns + u64::try_from(delay.as_nanos())?;
    std::thread::sleep(Duration::from_nanos(moment.saturating_sub(now_ns())));
    if agent.try_wait()?.is_none() {
        agent.kill()?;
        let status = agent.wait()?;
        let at_ns = now_ns();
        if status.code().is_none() {
            return Ok(Death::Killed { at_ns });
        }
    }
    Ok(Death::EndedBefore(Run::of(&agent.wait_with_output()?)))
}

fn seed() -> Result<u64> {
    match std::env::var(SEED) {
        Ok(seed) => seed.parse().context("the seed is a number"),
        Err(_) => Ok(now_ns()),
    }
}

/// SplitMix64: all that is needed is that a printed seed gives the same moments again.
struct Random(u64);

impl Random {
    fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        low + (z ^ (z >> 31)) % (high - low).max(1)
    }
}
