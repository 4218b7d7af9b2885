//! `make proof`: 200 snapshots of a busy MariaDB and 200 of a busy PostgreSQL, each restored and
//! examined, and the oracle's negative controls. Exits with 1 if one of them is not what it says.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it prints what it proves")]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use stillpoint_tests::proof::{
    Control, Round, Summary, mariadb_control, postgresql_control, prove,
};
use stillpoint_tests::servers::Kind;

#[derive(Debug, Parser)]
#[command(about = "Snapshots of busy databases, each restored and examined")]
struct Arguments {
    /// Snapshots of each database
    #[arg(long, default_value_t = 200)]
    rounds: usize,
    /// How often each negative control is made
    #[arg(long, default_value_t = 5)]
    controls: usize,
    /// Only these databases (repeat for more)
    #[arg(long = "only", value_name = "DATABASE")]
    only: Vec<Which>,
    /// Where every round goes
    #[arg(long, default_value = "target/proof.json", value_name = "FILE")]
    out: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Which {
    /// MariaDB, by its lock
    Mariadb,
    /// PostgreSQL, by a checkpoint
    Postgresql,
    /// PostgreSQL, in a base backup
    PostgresqlBackup,
    /// Redis, with an append-only file
    Redis,
}

impl Which {
    fn kind(self) -> Kind {
        match self {
            Self::Mariadb => Kind::MariaDb,
            Self::Postgresql => Kind::PostgreSql,
            Self::PostgresqlBackup => Kind::PostgreSqlBackup,
            Self::Redis => Kind::Redis,
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match proved(&Arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the proof failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn proved(arguments: &Arguments) -> Result<bool> {
    let databases = if arguments.only.is_empty() {
        vec![Which::Mariadb, Which::Postgresql]
    } else {
        arguments.only.clone()
    };
    let (mut summaries, mut rounds) = (Vec::new(), Vec::new());
    for which in &databases {
        let total = arguments.rounds;
        let of_this = prove(which.kind(), total, |round| tell(round, total)).await?;
        summaries.push(Summary::of(which.kind(), &of_this));
        rounds.extend(of_this);
    }
    let controls = negative_controls(&databases, arguments.controls).await?;

    println!("\n{}", Summary::HEADER);
    for summary in &summaries {
        println!("{summary}");
    }
    let right = controls.iter().filter(|control| control.is_right()).count();
    println!("\nnegative controls: {right} of {} as they must be", controls.len());
    let text = serde_json::to_string_pretty(&serde_json::json!({
        "summaries": summaries,
        "controls": controls
            .iter()
            .map(|control| serde_json::json!({ "control": control.to_string(), "right": control.is_right() }))
            .collect::<Vec<_>>(),
        "rounds": rounds,
    }))?;
    if let Some(directory) = arguments.out.parent() {
        std::fs::create_dir_all(directory)?;
    }
    std::fs::write(&arguments.out, text)
        .with_context(|| format!("cannot write {}", arguments.out.display()))?;
    println!("every round: {}", arguments.out.display());
    Ok(right == controls.len() && summaries.iter().all(Summary::is_all))
}

async fn negative_controls(databases: &[Which], times: usize) -> Result<Vec<Control>> {
    let mut controls = Vec::new();
    if databases.contains(&Which::Mariadb) {
        controls.extend(mariadb_control(times).await?);
    }
    if databases.contains(&Which::Postgresql) {
        controls.extend(postgresql_control(times).await?);
    }
    for control in &controls {
        let right = if control.is_right() { "as it must be" } else { "WRONG" };
        println!("{control}: {right}");
    }
    Ok(controls)
}

fn tell(round: &Round, total: usize) {
    let redone = round.redone.map_or_else(String::new, |bytes| format!(", {bytes} bytes redone"));
    println!(
        "{} {}/{total}: {}{}, {} rows, {} had to be there, {} could not{redone}, worst commit {:.1} ms",
        round.database,
        round.number,
        round.level,
        if round.is_proved() { ", proved" } else { ": NOT PROVED" },
        round.rows,
        round.had_to_be_there,
        round.could_not_be_there,
        round.worst_commit_ms,
    );
    for violation in round.violations.iter().chain(&round.beyond) {
        println!("    {violation}");
    }
    for reason in &round.reasons {
        println!("    reason: {reason}");
    }
}
