//! The emulator as a program, for tests in other languages: prints one line of JSON with its
//! addresses when it listens, and serves until its standard input ends.

use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;
use ecs_emulator::{Addresses, Emulator, Scenario};

/// An emulator of the ECS snapshot API and of the metadata service, for tests only.
#[derive(Debug, Parser)]
struct Arguments {
    /// The scenario, as JSON; see the module `scenario`. The default has no disks.
    #[arg(long)]
    scenario: Option<PathBuf>,
    /// Where ECS listens; port 0 is any free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    ecs: SocketAddr,
    /// Where the metadata service listens.
    #[arg(long, default_value = "127.0.0.1:0")]
    metadata: SocketAddr,
    /// ECS speaks TLS; the certificate of its authority is written to this file.
    #[arg(long)]
    tls_authority: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let scenario = arguments.scenario.as_ref().map_or(Ok(Scenario::default()), |path| {
        let text =
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("in {}", path.display()))
    })?;
    let addresses = Addresses {
        ecs: arguments.ecs,
        metadata: arguments.metadata,
        tls: arguments.tls_authority.is_some(),
    };
    let emulator = Emulator::start_at(scenario, addresses)?;
    if let (Some(path), Some(pem)) = (&arguments.tls_authority, &emulator.authority_pem) {
        std::fs::write(path, pem).with_context(|| format!("cannot write {}", path.display()))?;
    }
    announce(&emulator);
    // Whoever started it holds the other end: when he is gone, so is this.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the addresses are this program's output")]
fn announce(emulator: &Emulator) {
    let addresses = serde_json::json!({
        "ecs_url": emulator.ecs_url,
        "imds_url": emulator.imds_url,
    });
    println!("{addresses}");
}
