//! Hooks on a real Redis: what is granted and what is not, answers as rows, time-outs, limits, servers that
//! refuse, are down, or stand still; and the hook `redis` itself.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;
#[path = "common/redis.rs"]
mod redis_server;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{Installation, plenty, quiesced, results, run, within};
use redis_server::{PASSWORD, Server};
use stillpoint::consistency::Level;
use stillpoint::hook::{Hook, HookFailureKind, Outcome, RunContext};
use stillpoint::manifest::{MetadataEntry, MetadataValue};

/// What the tests grant; the puppet asks for more.
const GRANT: &str = r#"
[[sql]]
connection = "cache"
statements = [
    "PING", "INFO server", "CLIENT ID", "CONFIG  GET dir", "CONFIG GET nothing-of-that-name",
    { text = "SET a ?", params = ["text"] }, "GET a", "GET b",
    { text = "INCRBY n ?", params = ["uint"] }, { text = "RPUSH l ?", params = ["text"] },
    "LRANGE l 0 -1", "GETRANGE long 0 -1", "COMMAND INFO get", "NO SUCH COMMAND", "BLPOP nothing 0",
    { text = "CLIENT PAUSE ? WRITE", params = ["uint"] },
    "granted but never asked",
]
"#;

type Script<'a> = &'a [(&'a str, &'a [&'a str])];

/// A hook with a script and the connection `cache`, described by `connection`.
async fn hook_on(
    connection: &str,
    script: Script<'_>,
    more: &str,
    run: &RunContext,
) -> Box<dyn Hook> {
    let (installation, digest) = Installation::with_puppet().await;
    let text = format!("[connections.cache]\nengine = \"redis\"\n{connection}");
    std::fs::write(installation.paths.config().join("connections.toml"), text).unwrap();
    installation.grant("db", &digest, script, &format!("{GRANT}{more}"));
    installation.load("db", run).await.unwrap()
}

fn by_socket(server: &Server) -> String {
    format!("socket = {:?}\n", server.socket())
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
fn password_file(directory: &Path, password: &str) -> String {
    let file = directory.join("password");
    std::fs::write(&file, format!("{password}\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    format!("password-file = {file:?}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_both_sides_name_runs_and_nothing_else() {
    let server = Server::start().await;
    let said = said_by(
        &server,
        &[
            "open A cache",
            "query A PING",
            "query A CONFIG GET\tdir",
            "try query A ping",
            "try query A CONFIG GET requirepass",
            "try query A asked but never granted",
            "try query A granted but never asked",
            "try query A FLUSHALL",
            "try query A PING\r\nFLUSHALL",
            "try query A NO SUCH COMMAND",
            "query A PING",
        ],
    )
    .await;
    assert_eq!(said[1], "[Value::Text(\"PONG\")]");
    let directory = server.path("").display().to_string();
    let directory = directory.trim_end_matches('/');
    assert_eq!(said[2], format!("[Value::Text(\"dir\"), Value::Text(\"{directory}\")]"));
    for (at, what) in [(3, "`ping`"), (4, "`CONFIG GET requirepass`"), (7, "`FLUSHALL`")] {
        assert!(said[at].contains(&format!("statement {what} is not granted")), "{said:?}");
    }
    assert!(said[5].contains("`asked but never granted` is not granted"), "{said:?}");
    assert!(said[6].contains("is not in what the hook's `describe` asks for"), "{said:?}");
    assert!(said[8].contains("is not granted"), "{said:?}");
    assert!(said[9].contains("ERR unknown command 'NO'"), "{said:?}");
    assert_eq!(said[10], "[Value::Text(\"PONG\")]");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_one_argument_and_an_answer_is_rows() {
    let server = Server::start().await;
    let said = said_by(
        &server,
        &[
            "open A cache",
            "query A GET a",
            "text A x\"\r\nFLUSHALL\r\n SET a ?",
            "query A GET a",
            "uint A 5 INCRBY n ?",
            "try text A five INCRBY n ?",
            "text A one RPUSH l ?",
            "text A two RPUSH l ?",
            "query A LRANGE l 0 -1",
            "query A CONFIG GET nothing-of-that-name",
            "try query A COMMAND INFO get",
            "query A CLIENT ID",
            "id A",
            "info A",
            "query A INFO server",
        ],
    )
    .await;
    assert_eq!(said[1], "[Value::Null]");
    assert_eq!(said[2], "[Value::Text(\"OK\")]");
    let whole = r#"[Value::Text("x\"\r\nFLUSHALL\r\n")]"#;
    assert_eq!(said[3], whole);
    assert_eq!(said[4], "[Value::Int64(5)]");
    assert!(said[5].contains("is granted as uint, not as text"), "{said:?}");
    assert_eq!(said[8], "2 rows");
    assert_eq!(said[9], "no rows");
    assert!(said[10].contains("a list in a list"), "{said:?}");
    assert_eq!(said[11], format!("[Value::Int64({})]", said[12]));
    assert!(said[13].contains("Engine::Other") && said[13].contains("Redis "), "{said:?}");
    assert!(said[14].contains("redis_version:"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_cut_at_the_limits_and_the_hook_is_told() {
    let server = Server::start().await;
    let _: () = server.send(&format!("SET long {}", "x".repeat(5000))).await;
    for number in 0..200 {
        let _: () = server.send(&format!("RPUSH l {number}")).await;
    }
    let script: Script = &[(
        "pre-freeze",
        &[
            "open A cache",
            "query A LRANGE l 0 -1",
            "query A GETRANGE long 0 -1",
            "query A PING",
            "try query A PING",
        ],
    )];
    let limits = "[limits]\nrows = 100\nanswer-bytes = 4000\nconnections = 2\nstatements = 3\n";
    let mut hook = hook_on(&by_socket(&server), script, limits, &run()).await;
    hook.prepare(plenty()).await.unwrap();
    let said = quiesced(hook.pre_freeze(plenty()).await);
    assert_eq!(said[1..4], ["100 rows and more", "no rows and more", "[Value::Text(\"PONG\")]"]);
    assert!(said[4].contains("3 statements were sent already"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_would_fill_the_memory_ends_the_session() {
    let server = Server::start().await;
    let _: i64 = server.send("SETRANGE long 33554432 x").await;
    let said = said_by(
        &server,
        &["open A cache", "try query A GETRANGE long 0 -1", "try query A PING", "alive A"],
    )
    .await;
    assert!(said[1].contains("more than 16777216 bytes"), "{said:?}");
    assert!(said[2].contains("ConnectionLost"), "{said:?}");
    assert_eq!(said[3], "false");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timed_out_command_ends_its_session_on_the_server() {
    let server = Server::start().await;
    let script: Script = &[(
        "pre-freeze",
        &[
            "open A cache",
            "try query-ms A 100 BLPOP nothing 0",
            "try query A PING",
            "alive A",
            "open B cache",
            "query B PING",
        ],
    )];
    let mut hook = prepared(&server, script, &run()).await;
    let began = Instant::now();
    let said = quiesced(hook.pre_freeze(plenty()).await);
    assert!(began.elapsed() < Duration::from_secs(2));
    assert!(said[1].contains("Timeout"), "{said:?}");
    assert!(said[2].contains("ConnectionLost"), "{said:?}");
    assert_eq!(said[3], "false");
    assert_eq!(said[5], "[Value::Text(\"PONG\")]");
    hook.finish(plenty()).await.unwrap();
    assert!(server.time_to_no_sessions().await < Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_one_connection_from_phase_to_phase_and_ends_with_finish() {
    let server = Server::start().await;
    let script: Script = &[
        ("pre-freeze", &["open A cache", "id A"]),
        ("confirm", &["alive A", "query A CLIENT ID"]),
        ("post-thaw", &["id A"]),
    ];
    let run = run();
    let mut hook = prepared(&server, script, &run).await;
    let before = quiesced(hook.pre_freeze(plenty()).await);
    assert_eq!(server.sessions().await.len(), 1);
    hook.confirm(plenty()).await.unwrap();
    let after = results(&hook.post_thaw(Outcome::Captured, plenty()).await.unwrap());
    assert_eq!(after[..2], ["true".to_owned(), format!("[Value::Int64({})]", before[1])]);
    assert_eq!(after[2], before[1]);
    assert_eq!(run.sessions.open_sessions("db"), 1);
    hook.finish(plenty()).await.unwrap();
    assert_eq!(run.sessions.open_sessions("db"), 0);
    assert!(server.time_to_no_sessions().await < Duration::from_secs(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_killed_is_not_opened_again_behind_the_hook() {
    let server = Server::start().await;
    let script: Script = &[
        ("pre-freeze", &["open A cache", "id A"]),
        ("confirm", &["alive A", "try query A PING"]),
        ("post-thaw", &[]),
    ];
    let mut hook = prepared(&server, script, &run()).await;
    let id = quiesced(hook.pre_freeze(plenty()).await)[1].clone();
    let _: i64 = server.send(&format!("CLIENT KILL ID {id}")).await;
    hook.confirm(plenty()).await.unwrap();
    let said = results(&hook.post_thaw(Outcome::Captured, plenty()).await.unwrap());
    assert_eq!(said[0], "false");
    assert!(said[1].contains("ConnectionLost"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_refused_and_stands_in_no_text() {
    let server = Server::start().await;
    let secrets = tempfile::tempdir().unwrap();
    let run = run();
    for (password, opens) in [("wr0ng-and-secret", false), (PASSWORD, true)] {
        let secret = password_file(secrets.path(), password);
        let connection = format!("{}user = \"tcp\"\n{secret}", by_socket(&server));
        let mut hook = hook_on(&connection, &[("prepare", &["open A cache"])], "", &run).await;
        let result = hook.prepare(plenty()).await;
        let everything = format!("{result:?} {hook:?} {run:?} {:?}", run.logs.drain());
        assert!(!everything.contains(password), "{everything}");
        assert_eq!(result.is_ok(), opens, "{everything}");
        if let Err(failure) = result {
            let refused = "refuses the operator's user or password";
            assert!(failure.message.contains(refused), "{failure}");
            assert!(failure.hint.unwrap().contains("WRONGPASS"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_a_password_of_the_old_sort_is_opened_without_a_user() {
    let server = Server::start().await;
    let _: () = server.send(&format!("CONFIG SET requirepass {PASSWORD}")).await;
    let secrets = tempfile::tempdir().unwrap();
    let secret = password_file(secrets.path(), PASSWORD);
    for (connection, opens) in
        [(by_socket(&server), false), (format!("{}{secret}", by_socket(&server)), true)]
    {
        let script: Script = &[("prepare", &["open A cache", "query A PING"])];
        let mut hook = hook_on(&connection, script, "", &run()).await;
        let result = hook.prepare(plenty()).await;
        assert_eq!(result.is_ok(), opens, "{result:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_is_named_to_the_operator_only() {
    let connection = "socket = \"/nonexistent/redis.sock\"\n";
    let script: Script = &[("prepare", &["open A cache"])];
    let mut hook = hook_on(connection, script, "", &run()).await;
    let failure = hook.prepare(plenty()).await.unwrap_err();
    assert!(failure.message.contains("connection `cache`"), "{failure}");
    assert!(!failure.message.contains("/nonexistent"), "{failure}");
    let hint = failure.hint.unwrap();
    assert!(hint.contains("socket /nonexistent/redis.sock"), "{hint}");
    assert!(hint.contains("connections.toml:1:14"), "{hint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stands_still_stops_nobody() {
    let server = Server::start().await;
    let script: Script = &[
        ("pre-freeze", &["open A cache"]),
        ("confirm", &["query A PING"]),
        ("post-thaw", &["open B cache"]),
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
async fn tcp_reaches_the_same_server() {
    let server = Server::start_on_tcp(&[]).await;
    let secrets = tempfile::tempdir().unwrap();
    let secret = password_file(secrets.path(), PASSWORD);
    let connection =
        format!("host = \"127.0.0.1\"\nport = {}\nuser = \"tcp\"\n{secret}", server.port);
    let script: Script = &[("prepare", &["open A cache", "query A PING"])];
    let mut hook = hook_on(&connection, script, "", &run()).await;
    hook.prepare(plenty()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_checked_against_the_authority_and_the_name() {
    let server = Server::start_with_tls().await;
    let secrets = tempfile::tempdir().unwrap();
    let base = format!(
        "host = \"127.0.0.1\"\nport = {}\nuser = \"tcp\"\n{}[connections.cache.tls]\n",
        server.port,
        password_file(secrets.path(), PASSWORD)
    );
    let authority = format!("ca-file = {:?}\n", server.path("ca.pem"));
    for (tls, opens) in [
        (format!("{authority}server-name = \"db.test\"\n"), true),
        (format!("{authority}server-name = \"other.test\"\n"), false),
        ("server-name = \"db.test\"\n".to_owned(), false),
        ("mode = \"required\"\n".to_owned(), true),
        // The port speaks TLS only.
        ("mode = \"off\"\n".to_owned(), false),
    ] {
        let script: Script = &[("prepare", &["open A cache", "query A PING"])];
        let mut hook = hook_on(&format!("{base}{tls}"), script, "", &run()).await;
        let result = hook.prepare(within(5000)).await;
        assert_eq!(result.is_ok(), opens, "{tls}: {result:?}");
    }
}

// The hook `redis`.

/// The settings of its grant file, with what a test says.
const LIMITED: &[&str] =
    &["+info", "+config|get", "+config|set", "+client|pause", "+client|unpause", "+evalsha"];

struct Redis {
    installation: Installation,
    digest: stillpoint::hook::Digest,
}

impl Redis {
    async fn installed() -> Self {
        let (installation, digest) = Installation::with_built("redis").await;
        Self { installation, digest }
    }

    /// The hook of a run on a server, with `settings`.
    async fn hook(&self, connection: &str, settings: &str) -> Box<dyn Hook> {
        let paths = &self.installation.paths;
        let text = format!("[connections.main]\nengine = \"redis\"\n{connection}");
        std::fs::write(paths.config().join("connections.toml"), text).unwrap();
        let grant = include_str!("../../hooks/redis/grant.toml");
        let (top, rest) = grant.split_once("[settings]").unwrap();
        let (_, sections) = rest.split_once("[[sql]]").unwrap();
        let digest = format!("\"{}\"", self.digest);
        let nobody = "\"sha256:0000000000000000000000000000000000000000000000000000000000000000\"";
        let top = top.replace(nobody, &digest);
        let text = format!("{top}[settings]\n{settings}\n[[sql]]{sections}");
        std::fs::write(paths.grants().join("redis.toml"), text).unwrap();
        self.installation.load("redis", &run()).await.unwrap()
    }
}

fn entry<'a>(metadata: &'a [MetadataEntry], key: &str) -> &'a MetadataValue {
    let found = metadata.iter().find(|entry| entry.key == key);
    &found.unwrap_or_else(|| panic!("no {key} in {metadata:?}")).value
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hook_pauses_writes_lets_reads_go_on_and_puts_everything_back() {
    let redis = Redis::installed().await;
    let server = Server::start().await;
    server.time_to_write().await;
    let mut hook = redis.hook(&by_socket(&server), "").await;
    let prepared = hook.prepare(plenty()).await.unwrap();
    assert!(prepared.paths.iter().any(|path| path.ends_with("appendonlydir")), "{prepared:?}");
    let rewrite_at = || server.send::<Vec<String>>("CONFIG GET auto-aof-rewrite-percentage");
    assert_eq!(rewrite_at().await[1], "0");
    assert!(!server.holds_writes_back().await);

    let quiesced = hook.pre_freeze(plenty()).await.unwrap();
    assert_eq!(quiesced.level, Level::Application);
    assert_eq!(entry(&quiesced.metadata, "persistence"), &MetadataValue::Text("aof".into()));
    let number = |key: &str| match entry(&quiesced.metadata, key) {
        MetadataValue::Integer(number) => u64::try_from(*number).unwrap(),
        other => panic!("{key} is {other:?}"),
    };
    let file = server.path("appendonlydir/appendonly.aof.1.incr.aof");
    let on_disk = std::fs::metadata(file).unwrap().len();
    assert_eq!(number("aof-size") - number("aof-base-size"), on_disk);
    assert!(server.holds_writes_back().await);
    assert_eq!(server.send::<String>("GET written").await, "2");

    // Those that gave up waiting are gone: nothing was written.
    hook.confirm(plenty()).await.unwrap();
    hook.post_thaw(Outcome::Captured, plenty()).await.unwrap();
    assert!(server.time_to_write().await < Duration::from_millis(250));
    assert_eq!(rewrite_at().await[1], "100");
    hook.finish(plenty()).await.unwrap();
    assert!(server.time_to_no_sessions().await < Duration::from_secs(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_rdb_files_has_one_with_everything_under_the_pause() {
    let redis = Redis::installed().await;
    let server = Server::start_with(&["--appendonly", "no"]).await;
    server.time_to_write().await;
    let mut hook = redis.hook(&by_socket(&server), "").await;
    hook.prepare(plenty()).await.unwrap();
    assert_eq!(server.info("rdb_saves").await, "0");
    let quiesced = hook.pre_freeze(plenty()).await.unwrap();
    assert_eq!(entry(&quiesced.metadata, "persistence"), &MetadataValue::Text("rdb".into()));
    assert_eq!(server.info("rdb_changes_since_last_save").await, "0");
    assert_eq!(server.info("rdb_saves").await, "1");
    assert!(server.path("dump.rdb").exists());
    assert!(server.holds_writes_back().await);
    hook.confirm(plenty()).await.unwrap();
    hook.post_thaw(Outcome::Captured, plenty()).await.unwrap();
    assert!(server.time_to_write().await < Duration::from_millis(250));
    hook.finish(plenty()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_dies_with_the_pause_leaves_an_intent_that_the_next_one_carries_out() {
    let redis = Redis::installed().await;
    let server = Server::start().await;
    let mut hook = redis.hook(&by_socket(&server), "").await;
    hook.prepare(plenty()).await.unwrap();
    hook.pre_freeze(plenty()).await.unwrap();
    drop(hook);
    assert!(server.holds_writes_back().await, "the pause is tied to no session");

    let mut hook = redis.hook(&by_socket(&server), "").await;
    hook.finish(plenty()).await.unwrap();
    assert!(server.time_to_write().await < Duration::from_millis(250));
    let rewrite_at: Vec<String> = server.send("CONFIG GET auto-aof-rewrite-percentage").await;
    assert_eq!(rewrite_at[1], "100");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_anybody_the_pause_ends_by_itself() {
    let redis = Redis::installed().await;
    let server = Server::start().await;
    let mut hook = redis.hook(&by_socket(&server), "hold-budget-seconds = 1").await;
    hook.prepare(plenty()).await.unwrap();
    hook.pre_freeze(plenty()).await.unwrap();
    let began = Instant::now();
    drop(hook);
    server.time_to_write().await;
    let took = began.elapsed();
    assert!(took > Duration::from_secs(5) && took < Duration::from_secs(8), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_that_somebody_ended_and_a_server_that_was_restarted_are_not_confirmed() {
    let redis = Redis::installed().await;
    let mut server = Server::start().await;
    let mut hook = redis.hook(&by_socket(&server), "").await;
    hook.prepare(plenty()).await.unwrap();
    hook.pre_freeze(plenty()).await.unwrap();
    let _: () = server.send("CLIENT UNPAUSE").await;
    server.time_to_write().await;
    let failure = hook.confirm(plenty()).await.unwrap_err();
    assert!(failure.message.contains("did not stand still"), "{failure}");
    hook.post_thaw(Outcome::Captured, plenty()).await.unwrap();
    hook.finish(plenty()).await.unwrap();

    let mut hook = redis.hook(&by_socket(&server), "").await;
    hook.prepare(plenty()).await.unwrap();
    hook.pre_freeze(plenty()).await.unwrap();
    server.restart().await;
    let failure = hook.confirm(plenty()).await.unwrap_err();
    assert!(failure.message.contains("the server was restarted"), "{failure}");
    hook.post_thaw(Outcome::Captured, plenty()).await.unwrap();
    assert!(server.time_to_write().await < Duration::from_millis(250));
    hook.finish(plenty()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_else_s_pause_is_seen_and_stays() {
    let redis = Redis::installed().await;
    let server = Server::start().await;
    let _: () = server.send("CLIENT PAUSE 600000 WRITE").await;
    let mut hook = redis.hook(&by_socket(&server), "wait-for-saves-seconds = 0").await;
    let failure = hook.prepare(plenty()).await.unwrap_err();
    assert_eq!(failure.kind, HookFailureKind::Busy, "{failure}");
    assert!(failure.message.contains("somebody else paused"), "{failure}");
    hook.finish(plenty()).await.unwrap();
    assert!(server.holds_writes_back().await);
    let _: () = server.send("CLIENT UNPAUSE").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_permissions_are_enough_and_each_that_is_missing_is_named_in_prepare() {
    let redis = Redis::installed().await;
    let server = Server::start().await;
    let secrets = tempfile::tempdir().unwrap();
    let connection = format!(
        "{}user = \"limited\"\n{}",
        by_socket(&server),
        password_file(secrets.path(), PASSWORD)
    );
    for missing in [None, Some("+info"), Some("+config|get"), Some("+config|set")]
        .into_iter()
        .chain([Some("+client|pause"), Some("+client|unpause")])
    {
        let rules: Vec<&str> =
            LIMITED.iter().copied().filter(|rule| Some(*rule) != missing).collect();
        let user = format!("ACL SETUSER limited reset on >{PASSWORD} {}", rules.join(" "));
        let _: () = server.send(&user).await;
        let mut hook = redis.hook(&connection, "").await;
        let result = hook.prepare(plenty()).await;
        match missing {
            None => {
                result.unwrap();
                hook.pre_freeze(plenty()).await.unwrap();
                hook.confirm(plenty()).await.unwrap();
                hook.post_thaw(Outcome::Captured, plenty()).await.unwrap();
            }
            Some(rule) => {
                let failure = result.unwrap_err();
                assert_eq!(failure.kind, HookFailureKind::Denied, "{rule}: {failure}");
                assert!(failure.message.contains(&format!("<user> {rule}")), "{failure}");
            }
        }
        hook.finish(plenty()).await.unwrap();
        assert!(server.time_to_write().await < Duration::from_millis(250), "{missing:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_stands_still_and_goes_on_afterwards() {
    let redis = Redis::installed().await;
    let master = Server::start_on_tcp(&[]).await;
    let _: () = master.send("CONFIG SET repl-diskless-sync-delay 0").await;
    let of = format!("127.0.0.1 {}", master.port);
    let replica = Server::start_with(&["--appendonly", "yes", "--replicaof", &of]).await;
    let caught_up = async |number: &str| {
        let began = Instant::now();
        while replica.try_send::<Option<String>>("GET written").await.ok().flatten().as_deref()
            != Some(number)
        {
            assert!(began.elapsed() < Duration::from_secs(20), "the replica does not follow");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    master.time_to_write().await;
    caught_up("1").await;
    let mut hook = redis.hook(&by_socket(&replica), "").await;
    hook.prepare(plenty()).await.unwrap();
    let quiesced = hook.pre_freeze(plenty()).await.unwrap();
    assert_eq!(entry(&quiesced.metadata, "replica"), &MetadataValue::Boolean(true));
    let size = replica.info("aof_current_size").await;
    // The master goes on; the replica has it afterwards.
    master.time_to_write().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(replica.info("aof_current_size").await, size);
    hook.confirm(plenty()).await.unwrap();
    hook.post_thaw(Outcome::Captured, plenty()).await.unwrap();
    caught_up("2").await;
    assert_eq!(replica.info("role").await, "slave");
    hook.finish(plenty()).await.unwrap();
}
