//! Twenty snapshots of a busy server in a row: each restores, each is proved, each manifest says
//! `application`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use stillpoint_tests::rig::Rig;
use stillpoint_tests::stats::{Durations, millis};

const ROUNDS: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn twenty_snapshots_under_load_are_all_restored_and_proved() -> Result<()> {
    let rig = Rig::new(Duration::from_secs(900))?;
    let mut worst: Vec<Duration> = Vec::new();
    let mut proved = 0;
    for round in 1..=ROUNDS {
        let proof =
            rig.prove(&format!("round-{round}")).await.with_context(|| format!("round {round}"))?;
        ensure!(
            proof.manifest.level()? == "application",
            "round {round}: {}",
            proof.run.description()
        );
        ensure!(proof.manifest.reason_codes()?.is_empty(), "{}", proof.run.description());
        worst.push(proof.commits().max());
        let verdict = proof.verdict.into_result().with_context(|| format!("round {round}"))?;
        ensure!(verdict.had_to_be_there > 0 && verdict.could_not_be_there > 0);
        println!(
            "round {round}: window {:.1} ms (provider {:.1} ms), worst commit {:.1} ms, {} rows, {} had to be there, {} could not",
            ns(proof.manifest.number("/timings/window_ns")?),
            ns(proof.manifest.number("/timings/provider_ns")?),
            worst.last().copied().map(millis).unwrap_or_default(),
            verdict.rows,
            verdict.had_to_be_there,
            verdict.could_not_be_there,
        );
        proved += 1;
    }
    println!(
        "{proved} of {ROUNDS} proved; worst commit: {}",
        worst.into_iter().collect::<Durations>()
    );
    rig.finish()
}

fn ns(nanoseconds: u64) -> f64 {
    millis(Duration::from_nanos(nanoseconds))
}
