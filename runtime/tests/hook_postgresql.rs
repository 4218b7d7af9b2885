//! Hooks on a real PostgreSQL: what is granted and what is not, values, time-outs, what ends with its
//! session, limits, servers that refuse, are down, or stand still.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;
#[path = "common/postgresql.rs"]
mod postgresql;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{Installation, plenty, quiesced, results, run, within};
use postgresql::{PASSWORD, Server};
use stillpoint::hook::{Hook, HookFailureKind, Outcome, RunContext};

/// What the tests grant; the puppet asks for more.
const GRANT: &str = r#"
[[sql]]
connection = "cluster"
statements = [
    "SELECT 1", "SELECT pg_backend_pid()", "SELECT pg_sleep(30)", "SELECT  'a  b'",
    "SELECT * FROM generate_series(1, 1000)", "SELECT repeat('x', 1000) FROM generate_series(1, 1000)",
    "SELECT 1::int2, -1, 9::bigint, 7::oid, 1.50, 2.5::float8, 'text', true, NULL",
    "SELECT '\\x00ff'::bytea, DATE '2026-11-20', TIMESTAMPTZ '2026-11-20 10:11:12.5+01', '16/B374D848'::pg_lsn, 'red'::lab_colour",
    "SELECT ARRAY[1, 2]",
    { text = "SELECT $1 + 1, $2::text", params = ["uint", "text"] },
    { text = "SELECT set_config('statement_timeout', $1::text, false)", params = ["uint"] },
    { text = "SELECT set_config('idle_session_timeout', $1::text, false)", params = ["uint"] },
    "INSERT INTO t VALUES (1), (2)", "SELECT 1; SELECT 2", "SELEKT 1", "SELECT * FROM secrets",
    "LOCK TABLE t", "BEGIN", "granted but never asked",
]
"#;

type Script<'a> = &'a [(&'a str, &'a [&'a str])];

/// A hook with a script and the connection `cluster`, described by `connection`.
async fn hook_on(
    connection: &str,
    script: Script<'_>,
    more: &str,
    run: &RunContext,
) -> Box<dyn Hook> {
    let (installation, digest) = Installation::with_puppet().await;
    let text = format!("[connections.cluster]\nengine = \"postgresql\"\n{connection}");
    fs::write(installation.paths.config().join("connections.toml"), text).unwrap();
    installation.grant("db", &digest, script, &format!("{GRANT}{more}"));
    installation.load("db", run).await.unwrap()
}

/// As the system's root, whom the server knows by the socket.
fn by_socket(server: &Server) -> String {
    format!("socket = {:?}\nuser = \"root\"\n", server.sockets())
}

/// A hook on a server's socket, after `prepare`.
async fn prepared(server: &Server, script: Script<'_>, run: &RunContext) -> Box<dyn Hook> {
    let mut hook = hook_on(&by_socket(server), script, "", run).await;
    hook.prepare(plenty()).await.unwrap();
    hook
}

/// What a script of `pre-freeze` gives.
async fn said_by(server: &Server, commands: &[&str]) -> Vec<String> {
    let mut hook = prepared(server, &[("pre-freeze", commands)], &run()).await;
    quiesced(hook.pre_freeze(plenty()).await)
}

/// A file of root's with a password in it.
fn password_file(directory: &Path, password: &str) -> PathBuf {
    let file = directory.join("password");
    fs::write(&file, format!("{password}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn what_both_sides_name_runs_and_nothing_else() {
    let server = Server::start().await;
    let said = said_by(
        &server,
        &[
            "open A cluster",
            "query A SELECT\n1",
            "query A SELECT 'a  b'",
            "try query A SELECT 'a b'",
            "try query A asked but never granted",
            "try query A granted but never asked",
            "try open B elsewhere",
            "try query A SELEKT 1",
            "try query A SELECT 1; SELECT 2",
            "query A INSERT INTO t VALUES (1), (2)",
            "query A SELECT 1",
        ],
    )
    .await;
    assert_eq!(said[1], "[Value::Int64(1)]");
    assert_eq!(said[2], "[Value::Text(\"a  b\")]");
    assert!(said[3].contains("statement `SELECT 'a b'` is not granted"), "{said:?}");
    assert!(said[4].contains("`asked but never granted` is not granted"), "{said:?}");
    assert!(said[5].contains("is not in what the hook's `describe` asks for"), "{said:?}");
    assert!(said[6].contains("connection `elsewhere` is not granted"), "{said:?}");
    assert!(said[7].contains("syntax error at or near"), "{said:?}");
    // One text is one statement, whoever granted it.
    assert!(said[8].contains("cannot insert multiple commands"), "{said:?}");
    assert_eq!(said[9..], ["no rows", "[Value::Int64(1)]"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn values_keep_their_types() {
    let server = Server::start().await;
    let said = said_by(
        &server,
        &[
            "open A cluster",
            "query A SELECT 1::int2, -1, 9::bigint, 7::oid, 1.50, 2.5::float8, 'text', true, NULL",
            "query A SELECT '\\x00ff'::bytea, DATE '2026-11-20', TIMESTAMPTZ '2026-11-20 10:11:12.5+01', '16/B374D848'::pg_lsn, 'red'::lab_colour",
            "try query A SELECT ARRAY[1, 2]",
            "uint A 1234 SELECT set_config('statement_timeout', $1::text, false)",
            "try uint A 9 SELECT $1 + 1, $2::text",
            "try text A nine SELECT set_config('statement_timeout', $1::text, false)",
            "info A",
        ],
    )
    .await;
    assert_eq!(
        said[1],
        "[Value::Int64(1), Value::Int64(-1), Value::Int64(9), Value::Uint64(7), \
         Value::Decimal(\"1.50\"), Value::Float64(2.5), Value::Text(\"text\"), Value::Boolean(true), \
         Value::Null]"
    );
    assert_eq!(
        said[2],
        "[Value::Binary([0, 255]), Value::Temporal(\"2026-11-20\"), \
         Value::Temporal(\"2026-11-20 09:11:12.5+00\"), Value::Other(\"16/B374D848\"), \
         Value::Text(\"red\")]"
    );
    assert!(said[3].contains("must cast it to text"), "{said:?}");
    assert_eq!(said[4], "[Value::Text(\"1234ms\")]");
    assert!(said[5].contains("is granted with 2 parameters, not 1"), "{said:?}");
    assert!(said[6].contains("is granted as uint, not as text"), "{said:?}");
    assert!(said[7].contains("Engine::Postgresql"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_cut_at_the_limits_and_the_hook_is_told() {
    let server = Server::start().await;
    let script: Script = &[(
        "pre-freeze",
        &[
            "open A cluster",
            "query A SELECT * FROM generate_series(1, 1000)",
            "query A SELECT repeat('x', 1000) FROM generate_series(1, 1000)",
            "query A SELECT 1",
            "open B cluster",
            "try open C cluster",
            "close B",
            "open C cluster",
            "try query C SELECT 1",
        ],
    )];
    let limits = "[limits]\nrows = 100\nanswer-bytes = 5000\nconnections = 2\nstatements = 3\n";
    let mut hook = hook_on(&by_socket(&server), script, limits, &run()).await;
    hook.prepare(plenty()).await.unwrap();
    let said = quiesced(hook.pre_freeze(plenty()).await);
    assert_eq!(said[1..4], ["100 rows and more", "5 rows and more", "[Value::Int64(1)]"]);
    assert!(said[5].contains("2 connections are open already"), "{said:?}");
    assert!(said[8].contains("3 statements were sent already"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timed_out_statement_is_cancelled_on_the_server_and_its_session_is_never_used_again() {
    let server = Server::start().await;
    let script: Script = &[(
        "pre-freeze",
        &[
            "open A cluster",
            "try query-ms A 100 SELECT pg_sleep(30)",
            "try query A SELECT 1",
            "alive A",
            "open B cluster",
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
async fn a_statement_that_the_server_stops_leaves_the_session_as_it_is() {
    let server = Server::start().await;
    let said = said_by(
        &server,
        &[
            "open A cluster",
            "uint A 50 SELECT set_config('statement_timeout', $1::text, false)",
            "try query A SELECT pg_sleep(30)",
            "query A SELECT 1",
            "alive A",
        ],
    )
    .await;
    assert!(said[2].contains("canceling statement due to statement timeout"), "{said:?}");
    assert_eq!(said[3..], ["[Value::Int64(1)]", "true"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_the_same_from_phase_to_phase_and_ends_with_finish() {
    let server = Server::start().await;
    let script: Script = &[
        ("pre-freeze", &["open A cluster", "id A", "query A SELECT pg_backend_pid()"]),
        ("confirm", &["alive A", "query A SELECT pg_backend_pid()"]),
        ("post-thaw", &["id A"]),
    ];
    let run = run();
    let mut hook = prepared(&server, script, &run).await;
    let before = quiesced(hook.pre_freeze(plenty()).await);
    assert_eq!(before[2], format!("[Value::Int64({})]", before[1]));
    hook.confirm(plenty()).await.unwrap();
    let after = results(&hook.post_thaw(Outcome::Captured, plenty()).await.unwrap());
    assert_eq!(after, ["true", before[2].as_str(), before[1].as_str()]);
    assert_eq!(run.sessions.open_sessions("db"), 1);
    hook.finish(plenty()).await.unwrap();
    assert_eq!(run.sessions.open_sessions("db"), 0);
    assert!(server.time_to_no_sessions().await < Duration::from_secs(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_an_instance_dies_what_its_session_holds_is_released_at_once() {
    for end in ["trap", "loop", "eat"] {
        let server = Server::start().await;
        let lock: &[&str] = &["open A cluster", "query A BEGIN", "query A LOCK TABLE t"];
        let script: Script = &[("pre-freeze", lock), ("confirm", &[end])];
        let run = run();
        let mut hook = prepared(&server, script, &run).await;
        let other = server.client().await;
        hook.pre_freeze(plenty()).await.unwrap();
        hook.confirm(within(300)).await.unwrap_err();
        let began = Instant::now();
        other.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
        assert!(began.elapsed() < Duration::from_millis(250), "after {end}: {:?}", began.elapsed());
        assert_eq!(run.sessions.open_sessions("db"), 0);
        hook.finish(plenty()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_abandoned_while_a_statement_runs_cancels_it() {
    let server = Server::start().await;
    let script: Script = &[("pre-freeze", &["open A cluster", "query A SELECT pg_sleep(30)"])];
    let mut hook = prepared(&server, script, &run()).await;
    let abandoned =
        tokio::time::timeout(Duration::from_millis(300), hook.pre_freeze(plenty())).await;
    assert!(abandoned.is_err());
    assert!(server.time_to_no_sessions().await < Duration::from_secs(2));
    hook.finish(plenty()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_the_server_ends_is_lost_and_the_hook_is_told_why() {
    let mut server = Server::start().await;
    let script: Script = &[
        (
            "pre-freeze",
            &[
                "open A cluster",
                "uint A 50 SELECT set_config('idle_session_timeout', $1::text, false)",
            ],
        ),
        ("confirm", &["try query A SELECT 1", "alive A", "open B cluster"]),
        ("post-thaw", &["try query B SELECT 1", "alive B", "try open C cluster"]),
    ];
    let mut hook = prepared(&server, script, &run()).await;
    hook.pre_freeze(plenty()).await.unwrap();
    server.time_to_no_sessions().await;
    hook.confirm(plenty()).await.unwrap();
    server.shut_down();
    let said = results(&hook.post_thaw(Outcome::Captured, plenty()).await.unwrap());
    assert!(said[0].contains("terminating connection due to idle-session timeout"), "{said:?}");
    assert_eq!(said[1], "false");
    assert!(said[3].contains("terminating connection due to administrator command"), "{said:?}");
    assert_eq!(said[4], "false");
    assert!(said[5].contains("Unavailable"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_is_named_to_the_operator_only() {
    let connection = "socket = \"/nonexistent\"\nuser = \"root\"\n";
    let script: Script = &[("prepare", &["open A cluster"])];
    let mut hook = hook_on(connection, script, "", &run()).await;
    let failure = hook.prepare(plenty()).await.unwrap_err();
    assert!(failure.message.contains("connection `cluster`"), "{failure}");
    assert!(!failure.message.contains("/nonexistent"), "{failure}");
    let hint = failure.hint.unwrap();
    assert!(hint.contains("socket /nonexistent/.s.PGSQL.5432"), "{hint}");
    assert!(hint.contains("connections.toml:1:14"), "{hint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_role_or_database_is_refused_and_the_password_stands_in_no_text() {
    let server = Server::start().await;
    let secrets = tempfile::tempdir().unwrap();
    let base = format!("socket = {:?}\n", server.sockets());
    for (user, password, database, said, hint) in [
        ("pw", PASSWORD, "postgres", "", ""),
        ("pw", "wr0ng-and-secret", "postgres", "user or password", "check `user` and the password"),
        ("nobody-there", PASSWORD, "postgres", "user or password", "pg_hba.conf"),
        ("pw", PASSWORD, "not-there", "no such database", "check `database`"),
    ] {
        let run = run();
        let file = password_file(secrets.path(), password);
        let connection = format!(
            "{base}user = \"{user}\"\ndatabase = \"{database}\"\npassword-file = {file:?}\n"
        );
        let script: Script =
            &[("prepare", &["open A cluster", "try query A SELECT * FROM secrets"])];
        let mut hook = hook_on(&connection, script, "", &run).await;
        let result = hook.prepare(plenty()).await;
        let everything = format!("{result:?} {hook:?} {run:?} {:?}", run.logs.drain());
        assert!(!everything.contains(password), "{everything}");
        match result {
            Ok(prepared) => {
                assert!(said.is_empty(), "{user}: {prepared:?}");
                assert!(
                    prepared.summary.contains("permission denied for table secrets"),
                    "{prepared:?}"
                );
            }
            Err(failure) => {
                assert!(failure.message.contains(said) && !said.is_empty(), "{failure}");
                assert!(!failure.message.contains(user), "{failure}");
                assert!(failure.hint.as_ref().unwrap().contains(hint), "{failure:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stands_still_stops_nobody() {
    let server = Server::start().await;
    let script: Script = &[
        ("pre-freeze", &["open A cluster"]),
        ("confirm", &["query A SELECT 1"]),
        ("post-thaw", &["open B cluster"]),
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
    let mut hook = hook_on(&connection, &[("prepare", &["open A cluster"])], "", &run()).await;
    let _stopped = server.stopped();
    let failure = hook.prepare(plenty()).await.unwrap_err();
    assert!(failure.message.contains("does not answer within 200ms"), "{failure}");
}

/// With SCRAM, and a statement that is cancelled over the same way.
#[tokio::test(flavor = "multi_thread")]
async fn tls_is_checked_against_the_authority_and_the_name() {
    let server = Server::start_with_tls().await;
    let secrets = tempfile::tempdir().unwrap();
    let secret = password_file(secrets.path(), PASSWORD);
    let base = format!(
        "host = \"127.0.0.1\"\nport = {}\nuser = \"tcp\"\npassword-file = {secret:?}\n[connections.cluster.tls]\n",
        server.port
    );
    let authority = format!("ca-file = {:?}\n", server.path("data/ca.pem"));
    for (tls, opens) in [
        (format!("{authority}server-name = \"db.test\"\n"), true),
        (format!("{authority}server-name = \"other.test\"\n"), false),
        ("server-name = \"db.test\"\n".to_owned(), false),
        ("mode = \"required\"\n".to_owned(), true),
        ("mode = \"off\"\n".to_owned(), true),
    ] {
        let script: Script = &[(
            "prepare",
            &["open A cluster", "query A SELECT 1", "try query-ms A 100 SELECT pg_sleep(30)"],
        )];
        let mut hook = hook_on(&format!("{base}{tls}"), script, "", &run()).await;
        let result = hook.prepare(plenty()).await;
        assert_eq!(result.is_ok(), opens, "{tls}: {result:?}");
        hook.finish(plenty()).await.unwrap();
        assert!(server.time_to_no_sessions().await < Duration::from_secs(2), "{tls}");
    }
}
