//! The hook `mysql` on a real MySQL, for whoever has one: no Debian release has it, so that this is not a
//! part of `make test`. On MariaDB the same is proved by the suites of `tests/`.
//!
//! `STILLPOINT_TEST_MYSQL=/run/mysqld/mysqld.sock cargo test -p stillpoint --test hook_mysql -- --ignored`
//! with a `root` that needs no password. It makes a user and a database, `stillpoint_test`, and drops them.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use common::{Installation, plenty, run};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use stillpoint::consistency::Level;
use stillpoint::hook::{Hook, HookFailureKind, Outcome};

const PRIVILEGES: &str = "FLUSH_TABLES, BACKUP_ADMIN, PROCESS, REPLICATION CLIENT";

/// What only a lock takes that is still held.
const LONG: Duration = Duration::from_secs(10);

async fn client() -> Conn {
    let socket = std::env::var("STILLPOINT_TEST_MYSQL").unwrap();
    let options = OptsBuilder::default().socket(Some(socket)).user(Some("root"));
    Conn::new(options).await.unwrap()
}

async fn sql(statements: &str) {
    let mut client = client().await;
    for statement in statements.split(';').filter(|statement| !statement.trim().is_empty()) {
        client.query_drop(statement).await.unwrap();
    }
    client.disconnect().await.unwrap();
}

async fn fresh(privileges: &str) {
    sql(&format!(
        "DROP USER IF EXISTS stillpoint_test@localhost; DROP DATABASE IF EXISTS stillpoint_test;
         CREATE USER stillpoint_test@localhost IDENTIFIED BY 'secret';
         GRANT {privileges} ON *.* TO stillpoint_test@localhost;
         GRANT SELECT ON performance_schema.log_status TO stillpoint_test@localhost;
         CREATE DATABASE stillpoint_test;
         CREATE TABLE stillpoint_test.t (id INT AUTO_INCREMENT PRIMARY KEY) ENGINE=InnoDB;
         CREATE TABLE stillpoint_test.m (id INT AUTO_INCREMENT PRIMARY KEY) ENGINE=MyISAM;
         INSERT INTO stillpoint_test.t VALUES (1), (2), (3)"
    ))
    .await;
}

/// Whether a write to each sort of table is held back for 200 ms.
async fn holds_writes_back() -> bool {
    let mut held = true;
    for table in ["t", "m"] {
        let mut client = client().await;
        let write = client.query_drop(format!("INSERT INTO stillpoint_test.{table} VALUES ()"));
        held &= tokio::time::timeout(Duration::from_millis(200), write).await.is_err();
    }
    held
}

async fn time_to_write() -> Duration {
    let began = Instant::now();
    sql("INSERT INTO stillpoint_test.t VALUES (); INSERT INTO stillpoint_test.m VALUES ()").await;
    began.elapsed()
}

async fn hook(settings: &str) -> Box<dyn Hook> {
    let (installation, digest) = Installation::with_built("mysql").await;
    let secret = installation.file("password", b"secret\n");
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let socket = std::env::var("STILLPOINT_TEST_MYSQL").unwrap();
    let text = format!(
        "[connections.main]\nengine = \"mysql\"\nsocket = {socket:?}\nuser = \"stillpoint_test\"\npassword-file = {secret:?}\n"
    );
    std::fs::write(installation.paths.config().join("connections.toml"), text).unwrap();
    let grant = include_str!("../../hooks/mysql/grant.toml");
    let (_, sections) = grant.split_once("[[sql]]").unwrap();
    let text = format!("module = \"{digest}\"\n[settings]\n{settings}\n[[sql]]{sections}");
    std::fs::write(installation.paths.grants().join("mysql.toml"), text).unwrap();
    let hook = installation.load("mysql", &run()).await.unwrap();
    // The installation is not needed any more once the hook is loaded.
    drop(installation);
    hook
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a MySQL: set STILLPOINT_TEST_MYSQL"]
async fn a_mysql_is_locked_with_the_least_privileges_and_released() {
    for privileges in [PRIVILEGES.to_owned(), format!("RELOAD, {PRIVILEGES}")] {
        fresh(&privileges).await;
        let mut hook = hook("").await;
        hook.prepare(plenty()).await.unwrap();
        assert!(time_to_write().await < LONG);
        let quiesced = hook.pre_freeze(plenty()).await.unwrap();
        assert_eq!(quiesced.level, Level::Application);
        for key in ["binlog-file", "binlog-position", "innodb-lsn", "innodb-checkpoint-lsn"] {
            assert!(quiesced.metadata.iter().any(|entry| entry.key == key), "{quiesced:?}");
        }
        assert!(holds_writes_back().await);
        hook.confirm(plenty()).await.unwrap();
        hook.post_thaw(Outcome::Captured, plenty()).await.unwrap();
        assert!(time_to_write().await < LONG);
        hook.finish(plenty()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a MySQL: set STILLPOINT_TEST_MYSQL"]
async fn a_mysql_whose_read_lock_waits_for_a_select_is_given_back_whole() {
    fresh(PRIVILEGES).await;
    let mut hook = hook("lock-wait-timeout-seconds = 1\nlong-query-threshold-seconds = 60").await;
    hook.prepare(plenty()).await.unwrap();
    let mut slow = client().await;
    let id = slow.id();
    let selecting = tokio::spawn(async move {
        let rows: Result<Vec<u8>, _> =
            slow.query("SELECT SLEEP(20) FROM stillpoint_test.t LIMIT 1").await;
        rows
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let failure = hook.pre_freeze(plenty()).await.unwrap_err();
    assert_eq!(failure.kind, HookFailureKind::Busy, "{failure}");
    // MySQL keeps a part of a read lock that it did not grant: not in a session that is closed. The table
    // of the SELECT is still to be flushed; another one shows that the lock is gone.
    let began = Instant::now();
    sql("CREATE TABLE stillpoint_test.other (id INT) ENGINE=InnoDB; INSERT INTO stillpoint_test.other VALUES (1)")
        .await;
    assert!(began.elapsed() < LONG, "{:?}", began.elapsed());
    hook.post_thaw(Outcome::Aborted, plenty()).await.unwrap();
    hook.finish(plenty()).await.unwrap();
    sql(&format!("KILL {id}")).await;
    let _ = selecting.await;
    assert!(time_to_write().await < LONG);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a MySQL: set STILLPOINT_TEST_MYSQL"]
async fn a_privilege_that_is_missing_is_named_by_a_mysql_before_the_lock() {
    for missing in ["FLUSH_TABLES", "BACKUP_ADMIN", "PROCESS", "REPLICATION CLIENT"] {
        let rest: Vec<&str> = PRIVILEGES.split(", ").filter(|it| *it != missing).collect();
        fresh(&rest.join(", ")).await;
        let mut hook = hook("").await;
        let outcome = match hook.prepare(plenty()).await {
            Ok(_) => hook.pre_freeze(plenty()).await.map(drop),
            Err(failure) => Err(failure),
        };
        let failure = outcome.unwrap_err();
        assert_eq!(failure.kind, HookFailureKind::Denied, "{missing}: {failure}");
        assert!(failure.message.contains(missing), "{missing}: {failure}");
        let _ = hook.post_thaw(Outcome::Aborted, plenty()).await;
        hook.finish(plenty()).await.unwrap();
        assert!(time_to_write().await < LONG, "{missing}");
    }
}
