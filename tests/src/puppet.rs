//! The hook `puppet`, which does what a test says, with one thing that it can take and that no session
//! gives back: a row in a table.

use std::fs;

use anyhow::{Context, Result};

use crate::mariadb::MariaDb;
use crate::stillpoint::{Stillpoint, component};

/// What gives the row back: kept by the hook, done by its `finish`.
pub const UNDO: &str = "kv-set undo open U main;query U DELETE FROM puppet.holds";

/// What takes it.
pub const HOLD: &str = "query A INSERT INTO puppet.holds VALUES (1)";

/// What opens the session for [`HOLD`].
pub const OPEN: &str = "open A main";

/// What it could be given beside `main`, and a test that does not play with it need not have.
pub const UNUSED: &str = r#"
[connections.cache]
engine = "redis"
socket = "/nowhere"

[connections.cluster]
engine = "postgresql"
socket = "/nowhere"
user = "nobody"
database = "none"
"#;

/// Signs, installs and grants the hook, where `connections.toml` has `main`. Gives back the grant up to
/// its settings, and from there on.
///
/// # Errors
/// If a step is refused.
pub fn grant(stillpoint: &Stillpoint) -> Result<(String, String)> {
    let connections = fs::read_to_string(stillpoint.config_file("connections.toml"))?;
    stillpoint.write_config("connections.toml", &(connections + UNUSED))?;
    stillpoint.sign_and_install(&component("puppet")?)?;
    stillpoint.run(["hook", "grant", "puppet", "--accept"])?.succeeded()?;
    let text = fs::read_to_string(stillpoint.config_file("hooks.d/puppet.toml"))?;
    let (head, tail) = text.split_once("[settings]\n").context("no [settings] in the grant")?;
    Ok((head.to_owned(), tail.to_owned()))
}

/// The hook, installed and granted.
#[derive(Debug)]
pub struct Puppet {
    /// The grant that `hook grant --accept` writes, up to its settings, and from there on.
    grant: (String, String),
}

impl Puppet {
    /// Installs it for this server.
    ///
    /// # Errors
    /// If a step is refused.
    pub fn install(stillpoint: &Stillpoint, server: &MariaDb) -> Result<Self> {
        server.execute("CREATE DATABASE puppet; CREATE TABLE puppet.holds (id INT)")?;
        stillpoint.connect_to(server.socket())?;
        Ok(Self { grant: grant(stillpoint)? })
    }

    /// What it does in each phase from now on, by the phase's name.
    ///
    /// # Errors
    /// If the grant cannot be written.
    pub fn plays(&self, stillpoint: &Stillpoint, phases: &[(&str, &[&str])]) -> Result<()> {
        let (head, tail) = &self.grant;
        let mut text = format!("{head}[settings]\npaths = []\n");
        for (phase, commands) in phases {
            text.push_str(&format!("{phase} = {commands:?}\n"));
        }
        stillpoint.write_config("hooks.d/puppet.toml", &(text + tail))
    }

    /// Rows that are held, seen from outside.
    ///
    /// # Errors
    /// If the server does not answer.
    pub fn held(&self, server: &MariaDb) -> Result<u32> {
        let text = server.execute("SELECT CONCAT('rows=', COUNT(*)) FROM puppet.holds")?;
        let rows = text.split("rows=").last().unwrap_or_default();
        rows.trim().parse().with_context(|| format!("not a count: {text}"))
    }
}
