//! What a hook may do. Two keys: its component says in `describe` what it asks for, the operator's
//! grant file says what it gets; what runs is the intersection, checked at each host call, failing
//! closed. Every version of the contract comes through here.
//!
//! | power | file | today |
//! |---|---|---|
//! | SQL on a named connection | [`sql`], [`engine`] | exact statements, typed parameters |
//! | programs | [`process`] | exact arguments and texts, confined |
//! | small durable state | [`kv`] | a quota in bytes |
//! | WASI | [`wasi`] | nothing, or clocks, random numbers, output into the log, exit |

pub(crate) mod engine;
pub mod kv;
mod mysql;
mod params;
mod postgresql;
pub mod process;
pub(crate) mod redis;
pub mod registry;
pub mod sql;
pub(crate) mod stage;
pub mod statement;
pub(crate) mod template;
mod tls;
#[cfg(test)]
mod twins;
pub(crate) mod wasi;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::connections::{Connection, Connections, Engine, Secret};
use crate::config::grants::{HookGrant, Limits};
use crate::config::read::ConfigError;
use crate::hook::description::{Description, Need};
use crate::hook::text::clean;
use crate::paths::Paths;
use kv::KvPower;
use process::{GrantedProgram, ProgramPower};
use statement::{Folded, GrantedStatement, fold};
use wasi::WasiPower;

pub use template::grant_template;

/// How much of a refused text is shown, in characters.
const LONGEST_NAME: usize = 64;
const LONGEST_STATEMENT: usize = 1000;

/// Everything that one hook may do in one run, in one place.
#[derive(Debug)]
pub(crate) struct Powers {
    /// The grant file, for denials.
    grant_file: PathBuf,
    /// By the name that the hook asks for: everything that either side named.
    sql: BTreeMap<String, SqlPower>,
    /// By the name that the hook asks for: everything that either side named.
    programs: BTreeMap<String, ProgramPower>,
    /// Durable state.
    kv: KvPower,
    /// What of WASI is linked.
    wasi: WasiPower,
    /// Bounds.
    pub(crate) limits: Limits,
    /// The installation, for what is kept in it.
    paths: Paths,
}

/// One connection, as far as hook and operator agree on it.
#[derive(Debug)]
pub(crate) struct SqlPower {
    /// Where it goes; `None` if the operator did not grant it.
    target: Option<Target>,
    /// The engines that the hook knows; `None` if the hook did not ask for the connection.
    engines: Option<Vec<String>>,
    /// The statements that the hook asked for.
    asked: BTreeSet<Folded>,
    /// The statements that the operator granted.
    granted: BTreeMap<Folded, GrantedStatement>,
}

/// A server and the password for it.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) connection: Arc<Connection>,
    pub(crate) secret: Option<Secret>,
    /// PEM of the authorities to believe, if not the public ones.
    pub(crate) authorities: Option<Vec<u8>>,
}

/// A host call was refused. `message` may be shown to the guest; `hint` is for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Denial {
    pub(crate) message: String,
    pub(crate) hint: String,
}

/// Why a hook's powers do not fit what it asks for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PowersError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The hook cannot work without something that it did not get.
    #[error("{0}")]
    Missing(String, String),
}

impl Powers {
    /// Nothing at all: what `describe` runs with.
    pub(crate) fn none(limits: Limits) -> Self {
        Self {
            grant_file: PathBuf::new(),
            sql: BTreeMap::new(),
            programs: BTreeMap::new(),
            kv: KvPower::default(),
            wasi: WasiPower::default(),
            limits,
            paths: Paths::default(),
        }
    }

    /// What the hook asks for and the operator grants. Reads the passwords, and opens the programs.
    pub(crate) fn agreed(
        asked: &Description,
        grant: &HookGrant,
        connections: &Connections,
    ) -> Result<Self, PowersError> {
        let mut powers = Self {
            grant_file: grant.file.clone(),
            kv: KvPower::granted(grant.kv),
            wasi: WasiPower::granted(grant.wasi),
            ..Self::none(grant.limits)
        };
        for (name, granted) in &grant.sql {
            let connection =
                connections.get(&granted.target).ok_or_else(|| ConfigError::Invalid {
                    location: granted.granted_at.clone(),
                    message: format!("connection `{}` does not exist", granted.target),
                    hint: None,
                })?;
            let target = Target {
                connection: Arc::clone(connection),
                secret: connection.secret()?,
                authorities: connection.authorities()?,
            };
            let power = powers.sql.entry(name.clone()).or_insert_with(SqlPower::nothing);
            power.target = Some(target);
            power.granted.clone_from(&granted.statements);
        }
        for (command, granted) in &grant.programs {
            let program = Arc::new(GrantedProgram::open(granted)?);
            powers.programs.entry(command.clone()).or_default().granted = Some(program);
        }
        for need in &asked.needs {
            powers.add_need(need)?;
        }
        Ok(powers)
    }

    fn add_need(&mut self, need: &Need) -> Result<(), PowersError> {
        match need {
            Need::Sql { connection, engines, statements, required, reason } => {
                let file = self.grant_file.display().to_string();
                let power = self.sql.entry(connection.clone()).or_insert_with(SqlPower::nothing);
                power.engines.get_or_insert_default().extend(engines.iter().cloned());
                power.asked.extend(statements.iter().map(|statement| fold(statement)));
                if *required && power.target.is_none() {
                    return Err(PowersError::Missing(
                        format!(
                            "connection `{connection}` is not granted, and it cannot work without ({reason})"
                        ),
                        format!("add to {file}: {}", sql_section(connection, "…")),
                    ));
                }
                power.check_engine(connection)
            }
            Need::Program { command, arguments, stdin_scripts, required, reason } => {
                let power = self.programs.entry(command.clone()).or_default();
                power.ask(arguments, stdin_scripts);
                if *required { self.check_program(command, reason) } else { Ok(()) }
            }
            Need::Kv { .. } => self.kv.ask(need, &self.grant_file.display().to_string()),
            Need::Wasi { imports } => {
                self.wasi.ask(imports, &self.grant_file.display().to_string())
            }
            Need::Other { .. } => Ok(()),
        }
    }

    /// The same, in this installation.
    pub(crate) fn at(self, paths: &Paths) -> Self {
        Self { paths: paths.clone(), ..self }
    }

    /// The installation.
    pub(crate) fn paths(&self) -> &Paths {
        &self.paths
    }

    /// How many bytes of durable state both sides agree on.
    pub(crate) fn kv_quota(&self) -> Result<usize, Denial> {
        self.kv.quota(&self.grant_file.display().to_string())
    }

    /// True if the component imports the minimal WASI, and the operator grants it.
    pub(crate) fn wasi(&self) -> bool {
        self.wasi.is_agreed()
    }

    /// The names of the connections that hook and operator agree on.
    pub(crate) fn connections(&self) -> Vec<String> {
        let agreed = self.sql.iter().filter(|(_, power)| power.agreed_target().is_some());
        agreed.map(|(name, _)| name.clone()).collect()
    }

    /// The server behind a connection.
    pub(crate) fn target(&self, connection: &str) -> Result<&Target, Denial> {
        let power = self.sql.get(connection);
        if let Some(target) = power.and_then(SqlPower::agreed_target) {
            return Ok(target);
        }
        if power.is_some_and(|power| power.target.is_some()) {
            return Err(not_declared(&format!("connection `{connection}`")));
        }
        let connection = &clean(connection, LONGEST_NAME);
        Err(Denial {
            message: format!("connection `{connection}` is not granted"),
            hint: format!("add to {}: {}", self.grant_file.display(), sql_section(connection, "…")),
        })
    }

    /// The operator's own text of a statement, if both sides agree on it.
    pub(crate) fn statement(
        &self,
        connection: &str,
        statement: &str,
    ) -> Result<&GrantedStatement, Denial> {
        let style = self.target(connection)?.connection.engine.placeholder();
        let folded = fold(statement);
        let power = self.sql.get(connection);
        match power.and_then(|power| power.granted.get(&folded)) {
            None => Err(Denial {
                message: format!(
                    "statement `{}` is not granted on connection `{connection}`",
                    clean(statement, LONGEST_STATEMENT)
                ),
                hint: format!(
                    "add to `statements` of [[sql]] connection = \"{connection}\" in {}: {}",
                    self.grant_file.display(),
                    template::statement_line(shortened(statement), style)
                ),
            }),
            Some(_) if !power.is_some_and(|power| power.asked.contains(&folded)) => {
                Err(not_declared(&format!("statement `{statement}` on connection `{connection}`")))
            }
            Some(granted) => Ok(granted),
        }
    }
}

impl SqlPower {
    fn nothing() -> Self {
        Self { target: None, engines: None, asked: BTreeSet::new(), granted: BTreeMap::new() }
    }

    fn agreed_target(&self) -> Option<&Target> {
        self.target.as_ref().filter(|_| self.engines.is_some())
    }

    /// The hook names the servers that it knows; a connection to another one is a mistake in the
    /// configuration, found before anything is touched.
    fn check_engine(&self, name: &str) -> Result<(), PowersError> {
        let (Some(target), Some(engines)) = (&self.target, &self.engines) else {
            return Ok(());
        };
        let served: &[&str] = match target.connection.engine {
            Engine::Mysql => &["mysql", "mariadb"],
            Engine::Postgresql => &["postgresql"],
            // The contract has no word for it.
            Engine::Redis => &["other"],
        };
        if engines.is_empty() || engines.iter().any(|engine| served.contains(&engine.as_str())) {
            return Ok(());
        }
        Err(PowersError::Missing(
            format!(
                "connection `{name}` must be one of {}, but `{}` is {}",
                engines.join(", "),
                target.connection.name,
                target.connection.engine
            ),
            format!("set `target` of [[sql]] connection = \"{name}\" to another connection"),
        ))
    }
}

/// A guest may send megabytes; nobody grants those.
fn shortened(statement: &str) -> &str {
    statement.char_indices().nth(LONGEST_STATEMENT).map_or(statement, |(end, _)| &statement[..end])
}

fn not_declared(what: &str) -> Denial {
    Denial {
        message: format!("{what} is not in what the hook's `describe` asks for"),
        hint:
            "the hook's author must add it to the needs in `describe`; a grant alone is not enough"
                .into(),
    }
}

fn sql_section(connection: &str, statement: &str) -> String {
    format!("[[sql]] connection = {}, statements = [\"{statement}\"]", template::quoted(connection))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::read::Location;

    const FLUSH: &str = "FLUSH TABLES WITH READ LOCK";

    fn description(connection: &str, statements: &[&str]) -> Description {
        Description {
            name: "db".into(),
            version: "1".into(),
            summary: String::new(),
            settings_schema: String::new(),
            needs: vec![Need::Sql {
                connection: connection.into(),
                engines: vec!["mariadb".into()],
                statements: statements.iter().map(ToString::to_string).collect(),
                reason: "to lock".into(),
                required: false,
            }],
            freeze_budget_ms: 0,
        }
    }

    fn power(asked: &[&str], granted: &[&str]) -> Powers {
        let connection = Connection {
            name: "main".into(),
            engine: Engine::Mysql,
            endpoint: crate::config::connections::Endpoint::Socket("/s".into()),
            user: Some("u".into()),
            database: None,
            password: None,
            connect_timeout: std::time::Duration::from_secs(1),
            described_at: Location { path: "c".into(), line: 1, column: 1 },
        };
        let mut power = SqlPower::nothing();
        power.target =
            Some(Target { connection: connection.into(), secret: None, authorities: None });
        power.granted = granted
            .iter()
            .map(|text| {
                (fold(text), GrantedStatement { text: text.to_string(), params: Vec::new() })
            })
            .collect();
        let mut powers = Powers::none(Limits::default());
        powers.grant_file = "/etc/stillpoint/hooks.d/db.toml".into();
        powers.sql.insert("main".into(), power);
        for need in &description("main", asked).needs {
            powers.add_need(need).unwrap();
        }
        powers
    }

    #[test]
    fn a_statement_that_both_sides_name_is_sent_in_the_operators_words() {
        let powers = power(&[FLUSH], &["FLUSH  TABLES   WITH READ LOCK"]);
        let granted = powers.statement("main", "FLUSH TABLES\nWITH READ LOCK").unwrap();
        assert_eq!(granted.text, "FLUSH  TABLES   WITH READ LOCK");
    }

    #[test]
    fn a_statement_that_is_not_granted_is_denied_with_the_line_to_add() {
        let denial = power(&[FLUSH], &[]).statement("main", FLUSH).unwrap_err();
        assert!(denial.message.contains(FLUSH));
        assert_eq!(
            denial.hint,
            format!(
                "add to `statements` of [[sql]] connection = \"main\" in /etc/stillpoint/hooks.d/db.toml: \"{FLUSH}\","
            )
        );
    }

    #[test]
    fn a_statement_that_is_granted_but_not_asked_for_is_denied() {
        let denial = power(&[], &[FLUSH]).statement("main", FLUSH).unwrap_err();
        assert!(denial.message.contains("is not in what the hook's `describe` asks for"));
    }

    #[test]
    fn a_connection_that_only_the_hook_names_is_denied_and_not_listed() {
        let mut powers = power(&[FLUSH], &[FLUSH]);
        powers.add_need(&description("other", &[FLUSH]).needs[0]).unwrap();
        assert_eq!(powers.connections(), ["main"]);
        let denial = powers.target("other").unwrap_err();
        assert!(denial.message.contains("`other` is not granted"));
        assert!(powers.target("nowhere").is_err());
    }
}
