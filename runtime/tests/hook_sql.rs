//! Hooks on a real MariaDB: what is granted and what is not, time-outs, locks that end with their
//! instance, limits, servers that refuse, are down, or stand still.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;
#[path = "common/mariadb.rs"]
mod mariadb;

use std::time::{Duration, Instant};

use common::{Installation, plenty, quiesced, results, run, within};
use mariadb::{PASSWORD, Server};
use stillpoint::hook::{Hook, HookFailureKind, Outcome, RunContext};

/// What the tests grant; the puppet asks for more.
const GRANT: &str = r#"
[[sql]]
connection = "main"
statements = [
    "SELECT 1", "SELECT CONNECTION_ID()", "SELECT SLEEP(30)", "SELECT  'a  b'",
    "SELECT seq FROM mysql.seq_1_to_1000", "SELECT REPEAT('x', 1000) FROM mysql.seq_1_to_1000",
    "SELECT 1, -1, 1.5, 2.5e0, 'text', x'00ff', DATE'2026-11-20', NULL, CAST(7 AS UNSIGNED)",
    { text = "SET SESSION lock_wait_timeout = ?", params = ["uint"] },
    { text = "SET SESSION wait_timeout = ?", params = ["uint"] },
    { text = "SELECT ?, 1.5, TIMESTAMP'2026-11-20 10:11:12'", params = ["uint"] },
    "FLUSH TABLES WITH READ LOCK", "UNLOCK TABLES", "SELEKT 1",
    "granted but never asked",
]
"#;

type Script<'a> = &'a [(&'a str, &'a [&'a str])];

/// A hook with a script and the connection `main`, described by `connection`.
async fn hook_on(
    connection: &str,
    script: Script<'_>,
    more: &str,
    run: &RunContext,
) -> Box<dyn Hook> {
    let (installation, digest) = Installation::with_puppet().await;
    let text = format!("[connections.main]\nengine = \"mysql\"\n{connection}");
    std::fs::write(installation.paths.config().join("connections.toml"), text).unwrap();
    installation.grant("db", &digest, script, &format!("{GRANT}{more}"));
    installation.load("db", run).await.unwrap()
}

fn by_socket(server: &Server) -> String {
    format!("socket = {:?}\nuser = \"root\"\n", server.socket())
}

/// A hook on a server's socket, after `prepare`.
async fn prepared(server: &Server, script: Script<'_>, run: &RunContext) -> Box<dyn Hook> {
    let mut hook = hook_on(&by_socket(server), script, "", run).await;
    hook.prepare(plenty()).await.unwrap();
    hook
}

#[tokio::test(flavor = "multi_thread")]
async fn what_both_sides_name_runs_and_nothing_else() {
    let server = Server::start().await;
    let script: Script = &[(
        "pre-freeze",
        &[
            "open A main",
            "granted",
            "query A SELECT\n1",
            "query A SELECT 'a  b'",
            "try query A SELECT 'a b'",
            "try query A asked but never granted",
            "try query A granted but never asked",
            "try query A select 1",
            "try open B elsewhere",
            "try query A SELEKT 1",
            "query A SELECT 1",
        ],
    )];
    let mut hook = prepared(&server, script, &run()).await;
    let said = quiesced(hook.pre_freeze(plenty()).await);
    assert_eq!(said[1], "main");
    assert_eq!(said[2], "[Value::Int64(1)]");
    assert_eq!(said[3], "[Value::Text(\"a  b\")]");
    assert!(said[4].contains("statement `SELECT 'a b'` is not granted"), "{said:?}");
    assert!(said[5].contains("`asked but never granted` is not granted"), "{said:?}");
    assert!(said[6].contains("is not in what the hook's `describe` asks for"), "{said:?}");
    assert!(said[7].contains("`select 1` is not granted"), "{said:?}");
    assert!(said[8].contains("connection `elsewhere` is not granted"), "{said:?}");
    assert!(said[9].contains("1064"), "{said:?}");
    assert_eq!(said[10], "[Value::Int64(1)]");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_that_fails_the_phase_names_the_line_to_add() {
    let server = Server::start().await;
    let script: Script = &[("pre-freeze", &["open A main", "query A asked but never granted"])];
    let mut hook = prepared(&server, script, &run()).await;
    let failure = hook.pre_freeze(plenty()).await.unwrap_err();
    assert_eq!(failure.kind, HookFailureKind::Denied);
    assert!(
        failure.to_string().starts_with("hook db 0.1.0: pre-freeze: statement `asked"),
        "{failure}"
    );
    let hint = failure.hint.unwrap();
    assert!(hint.contains("hooks.d/db.toml: \"asked but never granted\","), "{hint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn values_keep_their_types_with_and_without_parameters() {
    let server = Server::start().await;
    let script: Script = &[(
        "pre-freeze",
        &[
            "open A main",
            "query A SELECT 1, -1, 1.5, 2.5e0, 'text', x'00ff', DATE'2026-11-20', NULL, CAST(7 AS UNSIGNED)",
            "uint A 9 SELECT ?, 1.5, TIMESTAMP'2026-11-20 10:11:12'",
            "uint A 3 SET SESSION lock_wait_timeout = ?",
            "try text A three SET SESSION lock_wait_timeout = ?",
            "info A",
        ],
    )];
    let mut hook = prepared(&server, script, &run()).await;
    let said = quiesced(hook.pre_freeze(plenty()).await);
    assert_eq!(
        said[1],
        "[Value::Int64(1), Value::Int64(-1), Value::Decimal(\"1.5\"), Value::Float64(2.5), \
         Value::Text(\"text\"), Value::Binary([0, 255]), Value::Temporal(\"2026-11-20\"), \
         Value::Null, Value::Uint64(7)]"
    );
    let text = "Value::Decimal(\"1.5\"), Value::Temporal(\"2026-11-20 10:11:12\")]";
    assert!(said[2].contains("64(9)") && said[2].ends_with(text), "{}", said[2]);
    assert_eq!(said[3], "no rows");
    assert!(said[4].contains("is granted as uint, not as text"), "{said:?}");
    assert!(said[5].contains("Engine::Mariadb"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_cut_at_the_limits_and_the_hook_is_told() {
    let server = Server::start().await;
    let script: Script = &[(
        "pre-freeze",
        &[
            "open A main",
            "query A SELECT seq FROM mysql.seq_1_to_1000",
            "query A SELECT REPEAT('x', 1000) FROM mysql.seq_1_to_1000",
            "query A SELECT 1",
            "open B main",
            "try open C main",
            "close B",
            "open C main",
            "query C SELECT 1",
            "try query C SELECT 1",
        ],
    )];
    let limits = "[limits]\nrows = 100\nanswer-bytes = 5000\nconnections = 2\nstatements = 4\n";
    let mut hook = hook_on(&by_socket(&server), script, limits, &run()).await;
    hook.prepare(plenty()).await.unwrap();
    let said = quiesced(hook.pre_freeze(plenty()).await);
    assert_eq!(said[1..4], ["100 rows and more", "5 rows and more", "[Value::Int64(1)]"]);
    assert!(said[5].contains("2 connections are open already"), "{said:?}");
    assert_eq!(said[8], "[Value::Int64(1)]");
    assert!(said[9].contains("4 statements were sent already"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timed_out_statement_is_killed_on_the_server_and_its_session_is_never_used_again() {
    let server = Server::start().await;
    let script: Script = &[(
        "pre-freeze",
        &[
            "open A main",
            "try query-ms A 100 SELECT SLEEP(30)",
            "try query A SELECT 1",
            "alive A",
            "open B main",
            "query B SELECT 1",
        ],
    )];
    let mut hook = prepared(&server, script, &run()).await;
    let began = Instant::now();
    let said = quiesced(hook.pre_freeze(plenty()).await);
    assert!(began.elapsed() < Duration::from_secs(2));
    assert!(said[1].contains("Timeout"), "{said:?}");
    assert!(said[2].contains("ConnectionLost"), "{said:?}");
    assert_eq!(said[3], "false");
    assert_eq!(said[5], "[Value::Int64(1)]");
    hook.finish(plenty()).await.unwrap();
    assert!(server.time_to_no_sessions().await < Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_phases_deadline_ends_a_statement_and_leaves_the_instance_to_unwind() {
    let server = Server::start().await;
    let script: Script = &[
        ("pre-freeze", &["open A main", "query A SELECT SLEEP(30)"]),
        ("post-thaw", &["run-info"]),
    ];
    let mut hook = prepared(&server, script, &run()).await;
    let began = Instant::now();
    let failure = hook.pre_freeze(within(200)).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_eq!(failure.kind, HookFailureKind::Timeout);
    assert!(server.time_to_no_sessions().await < Duration::from_secs(2));
    hook.post_thaw(Outcome::Aborted, plenty()).await.unwrap();
    hook.finish(plenty()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_is_held_from_phase_to_phase_and_confirmed_and_ends_with_finish() {
    let server = Server::start().await;
    let script: Script = &[
        ("pre-freeze", &["open A main", "id A", "query A FLUSH TABLES WITH READ LOCK"]),
        ("confirm", &["alive A", "query A SELECT CONNECTION_ID()"]),
        ("post-thaw", &["id A"]),
    ];
    let run = run();
    let mut hook = prepared(&server, script, &run).await;
    let before = quiesced(hook.pre_freeze(plenty()).await);

    let mut client = server.client().await;
    use mysql_async::prelude::Queryable;
    let writing = client.query_drop("INSERT INTO t.t VALUES ()");
    let blocked = tokio::time::timeout(Duration::from_millis(200), writing).await;
    assert!(blocked.is_err(), "others cannot write under the lock");

    hook.confirm(plenty()).await.unwrap();
    let after = results(&hook.post_thaw(Outcome::Captured, plenty()).await.unwrap());
    assert_eq!(after[0], "true");
    assert_eq!(after[1], format!("[Value::Uint64({})]", before[1]));
    assert_eq!(after[2], before[1]);
    assert_eq!(run.sessions.open_sessions("db"), 1);
    hook.finish(plenty()).await.unwrap();
    assert_eq!(run.sessions.open_sessions("db"), 0);
    assert!(server.time_to_write().await < Duration::from_millis(250));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_an_instance_dies_with_a_lock_others_can_write_at_once() {
    for end in ["trap", "loop", "eat"] {
        let server = Server::start().await;
        let script: Script = &[
            ("pre-freeze", &["open A main", "query A FLUSH TABLES WITH READ LOCK"]),
            ("confirm", &[end]),
        ];
        let run = run();
        let mut hook = prepared(&server, script, &run).await;
        hook.pre_freeze(plenty()).await.unwrap();
        hook.confirm(within(300)).await.unwrap_err();
        let took = server.time_to_write().await;
        assert!(took < Duration::from_millis(250), "after {end}: {took:?}");
        assert_eq!(run.sessions.open_sessions("db"), 0);
        hook.finish(plenty()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_hook_releases_its_locks() {
    let server = Server::start().await;
    let script: Script = &[("pre-freeze", &["open A main", "query A FLUSH TABLES WITH READ LOCK"])];
    let mut hook = prepared(&server, script, &run()).await;
    hook.pre_freeze(plenty()).await.unwrap();
    drop(hook);
    assert!(server.time_to_write().await < Duration::from_millis(250));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_closes_sessions_without_the_guest() {
    let server = Server::start().await;
    let script: Script = &[
        ("pre-freeze", &["open A main", "query A FLUSH TABLES WITH READ LOCK"]),
        ("confirm", &["alive A", "query A SELECT 1"]),
    ];
    let run = run();
    let mut hook = prepared(&server, script, &run).await;
    hook.pre_freeze(plenty()).await.unwrap();
    let closed = run.sessions.close_all(Duration::from_secs(1)).await;
    assert_eq!((closed.ended, closed.unfinished), (1, 0));
    assert!(server.time_to_write().await < Duration::from_millis(250));
    let failure = hook.confirm(plenty()).await.unwrap_err();
    assert!(failure.message.contains("the session is closed"), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_abandoned_while_a_statement_runs_kills_it() {
    let server = Server::start().await;
    let script: Script = &[("pre-freeze", &["open A main", "query A SELECT SLEEP(30)"])];
    let mut hook = prepared(&server, script, &run()).await;
    let abandoned =
        tokio::time::timeout(Duration::from_millis(200), hook.pre_freeze(plenty())).await;
    assert!(abandoned.is_err());
    assert!(server.time_to_no_sessions().await < Duration::from_secs(2));
    let failure = hook.post_thaw(Outcome::Aborted, plenty()).await.unwrap_err();
    assert_eq!(failure.kind, HookFailureKind::InstanceGone);
    hook.finish(plenty()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_own_dead_man_switch_is_seen_as_a_lost_session() {
    let server = Server::start().await;
    let script: Script = &[
        ("pre-freeze", &["open A main", "uint A 1 SET SESSION wait_timeout = ?"]),
        ("confirm", &["alive A", "try query A SELECT 1"]),
        ("post-thaw", &[]),
    ];
    let mut hook = prepared(&server, script, &run()).await;
    hook.pre_freeze(plenty()).await.unwrap();
    server.time_to_no_sessions().await;
    hook.confirm(plenty()).await.unwrap();
    let said = results(&hook.post_thaw(Outcome::Captured, plenty()).await.unwrap());
    assert_eq!(said[0], "false");
    assert!(said[1].contains("ConnectionLost"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_is_named_to_the_operator_only() {
    let connection = "socket = \"/nonexistent/mysqld.sock\"\nuser = \"root\"\n";
    let script: Script = &[("prepare", &["try open A main", "open A main"])];
    let mut hook = hook_on(connection, script, "", &run()).await;
    let failure = hook.prepare(plenty()).await.unwrap_err();
    assert!(failure.message.contains("connection `main`"), "{failure}");
    assert!(!failure.message.contains("/nonexistent"), "{failure}");
    let hint = failure.hint.unwrap();
    assert!(hint.contains("socket /nonexistent/mysqld.sock"), "{hint}");
    assert!(hint.contains("connections.toml:1:14"), "{hint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_refused_and_stands_in_no_text() {
    let server = Server::start().await;
    let secrets = tempfile::tempdir().unwrap();
    let run = run();
    for (password, opens) in [("wr0ng-and-secret", false), (PASSWORD, true)] {
        let file = secrets.path().join("password");
        std::fs::write(&file, format!("{password}\n")).unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .unwrap();
        let connection =
            format!("socket = {:?}\nuser = \"pw\"\npassword-file = {file:?}\n", server.socket());
        let mut hook = hook_on(&connection, &[("prepare", &["open A main"])], "", &run).await;
        let result = hook.prepare(plenty()).await;
        let everything = format!("{result:?} {hook:?} {run:?} {:?}", run.logs.drain());
        assert!(!everything.contains(password), "{everything}");
        assert_eq!(result.is_ok(), opens, "{everything}");
        if let Err(failure) = result {
            assert!(
                failure.message.contains("refuses the operator's user or password"),
                "{failure}"
            );
            assert!(
                !failure.message.contains("pw@") && !failure.message.contains("'pw'"),
                "{failure}"
            );
            assert!(failure.hint.unwrap().contains("Access denied for user 'pw'"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stands_still_stops_nobody() {
    let server = Server::start().await;
    let script: Script = &[
        ("pre-freeze", &["open A main"]),
        ("confirm", &["query A SELECT 1"]),
        ("post-thaw", &["open B main"]),
    ];
    let mut hook = prepared(&server, script, &run()).await;
    hook.pre_freeze(plenty()).await.unwrap();
    let stopped = server.stopped();
    let began = Instant::now();
    let failure = hook.confirm(within(300)).await.unwrap_err();
    assert_eq!(failure.kind, HookFailureKind::Timeout, "{failure}");
    let failure = hook.post_thaw(Outcome::Captured, within(300)).await.unwrap_err();
    assert_eq!(failure.kind, HookFailureKind::Timeout, "{failure}");
    hook.finish(within(300)).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    drop(stopped);
    assert!(server.time_to_no_sessions().await < Duration::from_secs(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_server_gets_a_connections_own_time_out_when_that_is_shorter() {
    let server = Server::start().await;
    let connection = format!("{}connect-timeout = \"200ms\"\n", by_socket(&server));
    let mut hook = hook_on(&connection, &[("prepare", &["open A main"])], "", &run()).await;
    let _stopped = server.stopped();
    let failure = hook.prepare(plenty()).await.unwrap_err();
    assert!(failure.message.contains("does not answer within 200ms"), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_checked_against_the_authority_and_the_name() {
    let server = Server::start_with_tls().await;
    let secret = server.path("password");
    std::fs::write(&secret, PASSWORD).unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let base = format!(
        "host = \"127.0.0.1\"\nport = {}\nuser = \"tcp\"\npassword-file = {secret:?}\n[connections.main.tls]\n",
        server.port.unwrap()
    );
    let authority = format!("ca-file = {:?}\n", server.path("ca.pem"));
    for (tls, opens) in [
        (format!("{authority}server-name = \"db.test\"\n"), true),
        (format!("{authority}server-name = \"other.test\"\n"), false),
        ("server-name = \"db.test\"\n".to_owned(), false),
        ("mode = \"required\"\n".to_owned(), true),
        ("mode = \"off\"\n".to_owned(), true),
    ] {
        let script: Script = &[("prepare", &["open A main", "query A SELECT 1"])];
        let mut hook = hook_on(&format!("{base}{tls}"), script, "", &run()).await;
        let result = hook.prepare(plenty()).await;
        assert_eq!(result.is_ok(), opens, "{tls}: {result:?}");
    }
}
