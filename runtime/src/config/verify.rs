//! `[verify]`.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error};

/// `[verify]`: how a snapshot is verified.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct VerifyConfig {
    /// Verify each snapshot as soon as it is made.
    pub after_snapshot: bool,
    /// How long a verification may take.
    #[serde(deserialize_with = "super::duration::parse")]
    pub deadline: Duration,
    /// How much memory the servers may use together, in bytes.
    pub memory_bytes: u64,
    /// How many CPUs they may use; 0.5 is half of one.
    #[serde(deserialize_with = "cpus")]
    pub cpus: f64,
    /// Databases that are not found by themselves, or need options or queries.
    #[serde(rename = "database")]
    pub databases: Vec<VerifyDatabase>,
}

impl Default for VerifyConfig {
    fn default() -> Self {
        Self {
            after_snapshot: false,
            deadline: Duration::from_secs(600),
            memory_bytes: 1 << 30,
            cpus: 1.0,
            databases: Vec::new(),
        }
    }
}

/// `[[verify.database]]`: one of them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct VerifyDatabase {
    /// Which verifier.
    pub engine: VerifyEngine,
    /// Its data directory, as the original has it.
    #[serde(deserialize_with = "absolute")]
    pub directory: PathBuf,
    /// The server's program; default: where distributions have it.
    #[serde(default)]
    pub server: Option<PathBuf>,
    /// Further options for the server.
    #[serde(default)]
    pub options: Vec<String>,
    /// What it is asked.
    #[serde(default, rename = "query")]
    pub queries: Vec<VerifyQuery>,
}

/// The verifiers there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VerifyEngine {
    /// MariaDB; MySQL by its own server.
    Mariadb,
    /// PostgreSQL.
    Postgresql,
    /// Redis and Valkey.
    Redis,
}

/// `[[verify.database.query]]`: one query, which must not fail.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct VerifyQuery {
    /// Its text.
    pub text: String,
    /// What the first column of the first row has to be, as text.
    #[serde(default)]
    pub expect: Option<String>,
}

fn absolute<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
    let path = PathBuf::deserialize(from)?;
    if path.is_absolute() {
        return Ok(path);
    }
    Err(D::Error::custom(format!("{} is not an absolute path", path.display())))
}

fn cpus<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    let cpus = f64::deserialize(from)?;
    if (0.01..=1024.0).contains(&cpus) {
        return Ok(cpus);
    }
    Err(D::Error::custom(format!("{cpus} is not a number of CPUs from 0.01 to 1024")))
}

#[cfg(test)]
mod tests {
    use super::VerifyConfig;
    use crate::config::Config;

    #[test]
    fn the_settings_of_the_page_are_the_defaults_and_a_database() {
        let page = include_str!("../../../docs/verify.md");
        let block = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
        let config: Config = toml::from_str(block).unwrap();
        let [database] = config.verify.databases.as_slice() else { panic!("{config:?}") };
        assert_eq!(database.queries[0].expect.as_deref(), Some("1"));
        let rest = VerifyConfig { databases: Vec::new(), ..config.verify.clone() };
        assert_eq!(rest, VerifyConfig::default());
        assert!(toml::from_str::<Config>("[verify]\ncpus = 0\n").is_err());
    }
}
