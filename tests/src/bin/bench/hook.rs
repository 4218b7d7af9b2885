//! A hook's life without SQL, from its instance to its end, against one start of the command line
//! client, which a shell hook needs for every statement or for a session that it cannot ask.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use stillpoint::config::connections::Connections;
use stillpoint::config::grants::HookGrant;
use stillpoint::hook::{
    CancelToken, Compiler, HookStore, InstallPolicy, InstallRequest, Outcome, RunContext,
};
use stillpoint::paths::Paths;
use stillpoint::time::Deadline;
use stillpoint_tests::command::output_of;
use stillpoint_tests::rig::Rig;
use stillpoint_tests::stats::{Durations, millis};
use stillpoint_tests::stillpoint::component;

use crate::report::Report;
use crate::{LONGEST, Rounds};

const PLENTY: Duration = Duration::from_secs(30);

pub async fn measure(rounds: Rounds, report: &mut Report) -> Result<()> {
    let rig = tokio::task::block_in_place(|| Rig::without_hook(LONGEST))?;
    let paths = Paths::under(rig.lab.root());
    let store = HookStore::new(&paths)
        .context("no hook store")?
        .compiled_by(Compiler::at(rig.stillpoint.binary()));
    let policy = InstallPolicy { allow_unsigned: true, ..InstallPolicy::default() };
    let request = InstallRequest::from_file(&component("puppet")?)?.with_policy(policy);
    let installed = store.install(request).await.context("not installed")?;
    let file = rig.stillpoint.config_file("hooks.d/puppet.toml");
    rig.stillpoint.write_config(
        "hooks.d/puppet.toml",
        &format!("module = \"{}\"\n[settings]\npaths = []\n", installed.digest),
    )?;
    let connections = Connections::load(&paths)?;
    let grant = HookGrant::load(&file, &connections)?;

    let (mut cycles, mut with_load, mut clients) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=rounds.many * 4 {
        let (cycle, whole) = hook_cycle(&store, &grant, &connections).await?;
        let client = tokio::task::block_in_place(|| client_spawn(&rig))?;
        // The first of each is a warm-up.
        if round > 0 {
            cycles.push(cycle);
            with_load.push(whole);
            clients.push(client);
        }
    }
    let set = |durations: Vec<Duration>| durations.into_iter().collect::<Durations>();
    let (cycles, with_load, clients) = (set(cycles), set(with_load), set(clients));
    let (section, case) = ("A hook's cycle, without SQL", "one hook");
    report.add(section, case, "stillpoint", "instantiate to finish", &cycles);
    report.add(section, case, "stillpoint", "the same, and loading the compiled image", &with_load);
    report.add(section, case, "mariadb client", "spawn, connect, one statement", &clients);
    report.at_least(
        "a client's spawn as a multiple of a hook's cycle",
        millis(clients.median()) / millis(cycles.median()).max(1e-6),
        20.0,
        "times",
    );
    rig.finish()
}

/// All phases; and with what comes before them.
async fn hook_cycle(
    store: &HookStore,
    grant: &HookGrant,
    connections: &Connections,
) -> Result<(Duration, Duration)> {
    let run = RunContext::new("bench", false, CancelToken::never());
    let deadline = Deadline::after(PLENTY);
    let loading = Instant::now();
    let mut hook = store.load(grant, connections, &run).await?;
    let began = Instant::now();
    hook.prepare(deadline).await?;
    hook.pre_freeze(deadline).await?;
    hook.confirm(deadline).await?;
    hook.post_thaw(Outcome::Captured, deadline).await?;
    hook.finish(deadline).await?;
    drop(hook);
    Ok((began.elapsed(), loading.elapsed()))
}

fn client_spawn(rig: &Rig) -> Result<Duration> {
    let mut client = Command::new("mariadb");
    client.args(["--no-defaults", "-u", "root", "-e", "SELECT 1", "-S"]).arg(rig.server.socket());
    let began = Instant::now();
    output_of(&mut client)?;
    Ok(began.elapsed())
}
