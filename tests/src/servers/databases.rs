//! The three databases, each behind [`Database`].

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use async_trait::async_trait;
use mysql_async::prelude::Queryable;
use nix::sys::signal::Signal;

use crate::lab::Lab;
use crate::mariadb::{MariaDb, Place};
use crate::oracle;
use crate::stillpoint::{Copies, Manifest};
use crate::writers::{Client, History, create_tables, mariadb_clients};

use super::postgresql::{self, DATABASE, PostgreSql, ROLE};
use super::redis::{self, Persistence, Redis, parse_info};
use super::shell::ShellClient;
use super::{Database, Held, Kind, Verdict, copies};

/// Makes a server of this kind on its file systems, and starts it.
///
/// # Errors
/// If a part fails.
pub(super) fn install(kind: Kind, lab: &Lab) -> Result<Box<dyn Database>> {
    Ok(match kind {
        Kind::MariaDb => {
            let place = Place { data: lab.mount("data"), binlog: lab.mount("binlog") };
            let server = MariaDb::install(lab, place.clone())?;
            server.execute(&format!("CREATE USER {MARIADB_USER} IDENTIFIED BY '{PASSWORD}'"))?;
            server.execute(&format!("GRANT {MARIADB_PRIVILEGES} ON *.* TO {MARIADB_USER}"))?;
            let password = password_file(lab)?;
            Box::new(Maria { place, password, server: Some(server) })
        }
        Kind::PostgreSql | Kind::PostgreSqlBackup => {
            let place = postgresql::Place { data: lab.mount("pgdata"), wal: lab.mount("pgwal") };
            let server = Some(PostgreSql::install(lab, place.clone())?);
            Box::new(Postgres { kind, place, server })
        }
        Kind::Redis | Kind::RedisAlways | Kind::RedisDumps => {
            let persistence = match kind {
                Kind::RedisAlways => Persistence::AofAlways,
                Kind::RedisDumps => Persistence::Rdb,
                _ => Persistence::AofEverySecond,
            };
            let server = Some(Redis::start(lab, &lab.mount("redis"), persistence, "live")?);
            Box::new(RedisServer { kind, persistence, password: password_file(lab)?, server })
        }
    })
}

/// The account of the hook, with what hooks/mysql/README.md asks for.
const MARIADB_USER: &str = "stillpoint@localhost";
const MARIADB_PRIVILEGES: &str = "RELOAD, PROCESS, BINLOG MONITOR, SLAVE MONITOR";

/// No secret: nobody but root gets at the sockets.
const PASSWORD: &str = redis::PASSWORD;

fn password_file(lab: &Lab) -> Result<PathBuf> {
    let file = lab.scratch("passwords")?.join("hooks");
    std::fs::write(&file, PASSWORD)?;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))?;
    Ok(file)
}

/// How long a write of a moment may wait.
const SOON: std::time::Duration = std::time::Duration::from_secs(5);

async fn soon<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(SOON, work).await.context("no answer: locked, or frozen")?
}

const ENDED: &str = "the server was ended";

#[derive(Debug)]
struct Maria {
    place: Place,
    password: PathBuf,
    server: Option<MariaDb>,
}

impl Maria {
    fn server(&self) -> Result<&MariaDb> {
        self.server.as_ref().context(ENDED)
    }
}

#[async_trait]
impl Database for Maria {
    fn kind(&self) -> Kind {
        Kind::MariaDb
    }

    fn connection(&self) -> String {
        let socket = self.server.as_ref().map(|server| server.socket().display().to_string());
        let socket = socket.unwrap_or_default();
        let password = self.password.display();
        format!(
            "engine = \"mysql\"\nsocket = \"{socket}\"\nuser = \"stillpoint\"\npassword-file = \"{password}\"\n"
        )
    }

    fn shell_client(&self) -> ShellClient {
        let mut command = Command::new("mariadb");
        command.args(["--no-defaults", "-N", "-B", "-n", "--unbuffered", "-u", "root"]);
        if let Some(server) = &self.server {
            command.arg("-S").arg(server.socket());
        }
        ShellClient {
            command,
            hold: "FLUSH TABLES WITH READ LOCK; SHOW MASTER STATUS; SELECT 'held';\n",
            release: "UNLOCK TABLES; SELECT 'released';\n",
        }
    }

    async fn fresh(&self) -> Result<()> {
        create_tables(&mut self.server()?.connect().await?).await?;
        self.server()?.execute("RESET MASTER").map(drop)
    }

    async fn clients(&self, count: usize) -> Result<Vec<Box<dyn Client>>> {
        mariadb_clients(self.server()?.options(), count).await
    }

    async fn examine(
        &self,
        lab: &Lab,
        copies: &Copies,
        history: &History,
        manifest: &Manifest,
    ) -> Result<Verdict> {
        let found = oracle::examine(lab, &copies.server(lab)?, history, &manifest.claim()?).await?;
        Ok(Verdict {
            kind: Kind::MariaDb,
            violations: found.violations,
            rows: found.rows,
            had_to_be_there: found.had_to_be_there,
            could_not_be_there: found.could_not_be_there,
            redone: found.start_log.redone,
            note: format!("{}:{}", found.binlog_end.file, found.binlog_end.offset),
        })
    }

    async fn state(&self) -> Result<BTreeMap<String, String>> {
        let mut connection = self.server()?.connect().await?;
        let variables: Vec<(String, String)> = connection.query("SHOW GLOBAL VARIABLES").await?;
        connection.disconnect().await?;
        // These are where the server is, and not what it was told.
        let moves = |name: &str| name.starts_with("gtid_") || name == "timestamp";
        Ok(variables.into_iter().filter(|(name, _)| !moves(name)).collect())
    }

    async fn write(&self) -> Result<()> {
        soon(async {
            let mut connection = self.server()?.connect().await?;
            connection.query_drop("CREATE DATABASE IF NOT EXISTS still_writable").await?;
            connection
                .query_drop("CREATE TABLE IF NOT EXISTS still_writable.t (n INT) ENGINE=InnoDB")
                .await?;
            connection.query_drop("INSERT INTO still_writable.t VALUES (1)").await?;
            Ok(connection.disconnect().await?)
        })
        .await
    }

    async fn cut_connections_of_hook(&self) -> Result<usize> {
        let mut connection = self.server()?.connect().await?;
        let ids: Vec<u64> = connection
            .query("SELECT id FROM information_schema.processlist WHERE user = 'stillpoint'")
            .await?;
        for id in &ids {
            // One that has ended meanwhile is as good.
            let _ = connection.query_drop(format!("KILL {id}")).await;
        }
        connection.disconnect().await?;
        Ok(ids.len())
    }

    async fn set_privileges(&self, granted: bool) -> Result<()> {
        let (verb, word) = if granted { ("GRANT", "TO") } else { ("REVOKE", "FROM") };
        let mut connection = self.server()?.connect().await?;
        let statement = format!("{verb} {MARIADB_PRIVILEGES} ON *.* {word} {MARIADB_USER}");
        connection.query_drop(statement).await?;
        Ok(connection.disconnect().await?)
    }

    async fn hold_transaction(&self) -> Result<Held> {
        let connecting = mysql_async::Conn::new(self.server()?.options());
        Ok(Held::by(async move {
            let mut connection = connecting.await?;
            connection.query_drop("BEGIN").await?;
            connection.query_drop("INSERT INTO still_writable.t VALUES (2)").await?;
            Ok(connection)
        })
        .await)
    }

    async fn block(&self) -> Result<Held> {
        let connecting = mysql_async::Conn::new(self.server()?.options());
        Ok(Held::by(async move {
            let mut connection = connecting.await?;
            let slow = "UPDATE still_writable.t SET n = n + 1 WHERE SLEEP(60) = 0";
            connection.query_drop(slow).await?;
            Ok(connection)
        })
        .await)
    }

    /// A statement goes on when its client has gone.
    async fn unblock(&self) -> Result<()> {
        let mut connection = self.server()?.connect().await?;
        let ids: Vec<u64> = connection
            .query("SELECT id FROM information_schema.processlist WHERE info LIKE 'UPDATE still_writable%'")
            .await?;
        for id in ids {
            let _ = connection.query_drop(format!("KILL {id}")).await;
        }
        Ok(connection.disconnect().await?)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        self.server()?.signal(signal)
    }

    fn kill(&mut self) -> Result<()> {
        self.server.take().context(ENDED)?.kill()
    }

    fn strike(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)
    }

    fn start(&mut self, lab: &Lab) -> Result<()> {
        let server = MariaDb::start(lab, self.place.clone(), "live")?;
        // As after every crash of a server that has such tables: they are not crash-safe, and what
        // they were damaged by is not to be found in a copy.
        server.execute(&format!(
            "REPAIR NO_WRITE_TO_BINLOG TABLE {}.myisam, {}.aria",
            crate::writers::DATABASE,
            crate::writers::DATABASE
        ))?;
        self.server = Some(server);
        Ok(())
    }
}

#[derive(Debug)]
struct Postgres {
    kind: Kind,
    place: postgresql::Place,
    server: Option<PostgreSql>,
}

impl Postgres {
    fn server(&self) -> Result<&PostgreSql> {
        self.server.as_ref().context(ENDED)
    }
}

#[async_trait]
impl Database for Postgres {
    fn kind(&self) -> Kind {
        self.kind
    }

    fn connection(&self) -> String {
        let sockets = self.server.as_ref().map(|server| server.sockets().display().to_string());
        format!(
            "engine = \"postgresql\"\nsocket = \"{}\"\nuser = \"{ROLE}\"\ndatabase = \"{DATABASE}\"\n",
            sockets.unwrap_or_default()
        )
    }

    fn shell_client(&self) -> ShellClient {
        let mut command = Command::new("psql");
        command.args(["-X", "-q", "-t", "-A", "-U", postgresql::ADMINISTRATOR, "-d", DATABASE]);
        if let Some(server) = &self.server {
            command.arg("-h").arg(server.sockets());
        }
        ShellClient {
            command,
            hold: "SELECT pg_backup_start('shell', true);\nSELECT 'held';\n",
            release: "SELECT lsn FROM pg_backup_stop(false);\nSELECT 'released';\n",
        }
    }

    async fn fresh(&self) -> Result<()> {
        self.server()?.create_tables()
    }

    async fn clients(&self, count: usize) -> Result<Vec<Box<dyn Client>>> {
        self.server()?.clients(count).await
    }

    async fn examine(
        &self,
        lab: &Lab,
        copies: &Copies,
        history: &History,
        manifest: &Manifest,
    ) -> Result<Verdict> {
        copies::examine_postgresql(self.kind, lab, copies, history, manifest).await
    }

    /// Settings; and whether a backup is running, as the function that would end it says.
    async fn state(&self) -> Result<BTreeMap<String, String>> {
        let client = self.server()?.connect().await?;
        let mut state = BTreeMap::new();
        for row in client.query("SELECT name, setting FROM pg_settings", &[]).await? {
            state.insert(
                row.get::<_, String>(0),
                row.get::<_, Option<String>>(1).unwrap_or_default(),
            );
        }
        for row in client
            .query(
                "SELECT setdatabase::text, setrole::text, setconfig::text FROM pg_db_role_setting",
                &[],
            )
            .await?
        {
            let name = format!("of {} {}", row.get::<_, String>(0), row.get::<_, String>(1));
            state.insert(name, row.get::<_, Option<String>>(2).unwrap_or_default());
        }
        Ok(state)
    }

    async fn write(&self) -> Result<()> {
        soon(async {
            let client = self.server()?.connect().await?;
            Ok(client
                .batch_execute(
                    "SET client_min_messages = error; CREATE TABLE IF NOT EXISTS still_writable (n int); \
                     INSERT INTO still_writable VALUES (1)",
                )
                .await?)
        })
        .await
    }

    async fn cut_connections_of_hook(&self) -> Result<usize> {
        let client = self.server()?.connect().await?;
        let ended = client
            .query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1",
                &[&ROLE],
            )
            .await?;
        Ok(ended.len())
    }

    async fn set_privileges(&self, granted: bool) -> Result<()> {
        let client = self.server()?.connect().await?;
        Ok(client.batch_execute(&postgresql::privileges(granted)).await?)
    }

    async fn hold_transaction(&self) -> Result<Held> {
        let sockets = self.server()?.sockets().to_owned();
        Ok(Held::by(async move {
            let client = postgresql::connect(&sockets).await?;
            client.batch_execute("BEGIN; INSERT INTO still_writable VALUES (2)").await?;
            Ok(client)
        })
        .await)
    }

    /// Of a table that the hook reads.
    async fn block(&self) -> Result<Held> {
        let sockets = self.server()?.sockets().to_owned();
        Ok(Held::by(async move {
            let client = postgresql::connect(&sockets).await?;
            let lock = "BEGIN; LOCK TABLE pg_catalog.pg_tablespace IN ACCESS EXCLUSIVE MODE";
            client.batch_execute(lock).await?;
            Ok(client)
        })
        .await)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        self.server()?.process().signal(signal)
    }

    fn kill(&mut self) -> Result<()> {
        self.server.take().context(ENDED)?.kill()
    }

    fn strike(&mut self) -> Result<()> {
        self.server.as_mut().context(ENDED)?.strike()
    }

    fn start(&mut self, lab: &Lab) -> Result<()> {
        self.server = Some(PostgreSql::start(lab, self.place.clone(), "live")?);
        Ok(())
    }
}

#[derive(Debug)]
struct RedisServer {
    kind: Kind,
    password: PathBuf,
    persistence: Persistence,
    server: Option<Redis>,
}

impl RedisServer {
    fn server(&self) -> Result<&Redis> {
        self.server.as_ref().context(ENDED)
    }
}

#[async_trait]
impl Database for RedisServer {
    fn kind(&self) -> Kind {
        self.kind
    }

    fn connection(&self) -> String {
        let socket = self.server.as_ref().map(|server| server.socket().display().to_string());
        format!(
            "engine = \"redis\"\nsocket = \"{}\"\nuser = \"{}\"\npassword-file = \"{}\"\n",
            socket.unwrap_or_default(),
            redis::USER,
            self.password.display()
        )
    }

    fn shell_client(&self) -> ShellClient {
        // It would keep its answers back.
        let mut command = Command::new("stdbuf");
        command.args(["-oL", "redis-cli"]);
        if let Some(server) = &self.server {
            command.arg("-s").arg(server.socket());
        }
        ShellClient {
            command,
            hold: "CLIENT PAUSE 30000 WRITE\nECHO held\n",
            release: "CLIENT UNPAUSE\nECHO released\n",
        }
    }

    async fn fresh(&self) -> Result<()> {
        let mut connection = self.server()?.connect().await?;
        Ok(::redis::cmd("FLUSHALL").arg("SYNC").query_async(&mut connection).await?)
    }

    async fn clients(&self, count: usize) -> Result<Vec<Box<dyn Client>>> {
        self.server()?.clients(count).await
    }

    async fn examine(
        &self,
        lab: &Lab,
        copies: &Copies,
        history: &History,
        manifest: &Manifest,
    ) -> Result<Verdict> {
        let which = (self.kind, self.persistence);
        copies::examine_redis(which, lab, copies, history, manifest).await
    }

    async fn state(&self) -> Result<BTreeMap<String, String>> {
        let mut connection = self.server()?.connect().await?;
        let mut state: BTreeMap<String, String> =
            ::redis::cmd("CONFIG").arg("GET").arg("*").query_async(&mut connection).await?;
        let info: String =
            ::redis::cmd("INFO").arg("replication").query_async(&mut connection).await?;
        let role = parse_info(&info).remove("role").context("INFO has no role")?;
        state.insert("role".to_owned(), role);
        Ok(state)
    }

    async fn write(&self) -> Result<()> {
        soon(async {
            let mut connection = self.server()?.connect().await?;
            Ok(::redis::cmd("INCR")
                .arg("still-writable")
                .query_async::<()>(&mut connection)
                .await?)
        })
        .await
    }

    async fn cut_connections_of_hook(&self) -> Result<usize> {
        let mut connection = self.server()?.connect().await?;
        let user = ["KILL", "USER", redis::USER];
        Ok(::redis::cmd("CLIENT").arg(&user).query_async(&mut connection).await?)
    }

    async fn set_privileges(&self, granted: bool) -> Result<()> {
        let mut connection = self.server()?.connect().await?;
        let mut command = ::redis::cmd("ACL");
        command.arg("SETUSER").arg(redis::USER);
        if granted {
            command.arg(redis::PRIVILEGES);
        } else {
            command.arg("-@all");
        }
        Ok(command.query_async(&mut connection).await?)
    }

    async fn hold_transaction(&self) -> Result<Held> {
        let mut connection = self.server()?.connect().await?;
        Ok(Held::by(async move {
            ::redis::cmd("MULTI").query_async::<()>(&mut connection).await?;
            let queued = ::redis::cmd("SET").arg("queued").arg(1).to_owned();
            queued.query_async::<()>(&mut connection).await?;
            Ok(connection)
        })
        .await)
    }

    /// A dump that takes long.
    async fn block(&self) -> Result<Held> {
        let mut connection = self.server()?.connect().await?;
        Ok(Held::by(async move {
            let slow = ["SET", "rdb-key-save-delay", "1000000"];
            ::redis::cmd("CONFIG").arg(&slow).query_async::<()>(&mut connection).await?;
            ::redis::cmd("BGSAVE").query_async::<()>(&mut connection).await?;
            Ok(connection)
        })
        .await)
    }

    async fn unblock(&self) -> Result<()> {
        let mut connection = self.server()?.connect().await?;
        let fast = ["SET", "rdb-key-save-delay", "0"];
        ::redis::cmd("CONFIG").arg(&fast).query_async::<()>(&mut connection).await?;
        // As the server itself would: then it counts as no failure.
        self.server()?.process().signal_children(Signal::SIGUSR1)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        self.server()?.process().signal(signal)
    }

    fn kill(&mut self) -> Result<()> {
        self.server.take().context(ENDED)?.kill()
    }

    fn strike(&mut self) -> Result<()> {
        self.server.as_mut().context(ENDED)?.strike()
    }

    fn start(&mut self, lab: &Lab) -> Result<()> {
        self.server = Some(Redis::start(lab, &lab.mount("redis"), self.persistence, "live")?);
        Ok(())
    }
}
