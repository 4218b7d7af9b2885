//! Redis and Valkey: the files are checked by their own programs, then loaded by a server that may not
//! cut off a broken end.

use std::fs;
use std::path::Path;
use std::thread;

use nix::sys::signal::Signal;

use super::server::{self, PAUSE, Server};
use super::{Bench, Database, Look, Stop, program, saved_text};
use crate::verify::job::Event;
use crate::verify::keeper::tell;
use crate::verify::verdict::Code;

/// Where distributions have the server.
const PROGRAMS: [&str; 4] = [
    "/usr/bin/redis-server",
    "/usr/bin/valkey-server",
    "/usr/sbin/redis-server",
    "/usr/local/bin/redis-server",
];

pub(super) fn verify(bench: &Bench<'_>, database: &Database, look: &mut Look) -> Result<(), Stop> {
    let program = program(database, &PROGRAMS.map(str::to_owned))?;
    let scratch = server::scratch(database)?;
    let mut server = load(bench, database, look, &program, &scratch, "no")?;
    let is_cut = server.log().contains("Unexpected end of file reading the append only file");
    if server.ended().is_some() && is_cut {
        look.found(Code::Truncated, "the append-only file ends in the middle of a command");
        server = load(bench, database, look, &program, &scratch, "yes")?;
    }
    let log = server.log();
    if server.ended().is_some() {
        look.found(Code::NotStarted, format!("the server ended: {}", last_line(&log)));
        return Ok(());
    }
    look.check.start_ms = u64::try_from(server.began.elapsed().as_millis()).unwrap_or(u64::MAX);
    if let Err(error) = bench.runtime.block_on(ask(look, &scratch.join("sock"))) {
        look.found(Code::ServerError, error.to_string());
    }
    server.stop(Signal::SIGTERM);
    Ok(())
}

fn last_line(log: &str) -> &str {
    log.lines().rfind(|line| line.contains(" # ")).unwrap_or("without a word")
}

fn load(
    bench: &Bench<'_>,
    database: &Database,
    look: &Look,
    program: &Path,
    scratch: &Path,
    may_cut: &str,
) -> Result<Server, Stop> {
    let directory = &database.found.directory;
    let saved = |key: &str| saved_text(&look.saved, key).filter(|text| !text.is_empty());
    let has = |name: &str| directory.join(name).exists();
    let socket = scratch.join("sock").display().to_string();
    let folder = saved("aof-directory").unwrap_or_else(|| "appendonlydir".to_owned());
    let file = saved("aof-file").unwrap_or_else(|| first_of(&directory.join(&folder)));
    let is_append_only = match saved("persistence").as_deref() {
        Some(word) => word == "aof",
        None => has(&folder) || has(&file),
    };
    let directory = directory.display().to_string();
    let rdb = saved("rdb-file").unwrap_or_else(|| "dump.rdb".to_owned());
    let append_only = if is_append_only { "yes" } else { "no" };
    let mut arguments: Vec<String> = [
        "--port",
        "0",
        "--daemonize",
        "no",
        "--unixsocket",
        &socket,
        "--dir",
        &directory,
        "--dbfilename",
        &rdb,
        "--appendonly",
        append_only,
        "--appendfilename",
        &file,
        "--aof-load-truncated",
        may_cut,
        "--save",
        "",
        "--auto-aof-rewrite-percentage",
        "0",
        "--set-proc-title",
        "no",
    ]
    .map(str::to_owned)
    .to_vec();
    if is_append_only && has(&folder) {
        arguments.extend(["--appenddirname".to_owned(), folder]);
    }
    arguments.extend(database.found.options.iter().cloned());
    let mut server = Server::start(bench, database, program, &arguments, scratch.join("log"))?;
    while server.ended().is_none() && !server.log().contains("accept connections at") {
        thread::sleep(PAUSE);
    }
    Ok(server)
}

/// The base name of the files in an append-only directory: that of its manifest.
fn first_of(folder: &Path) -> String {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let manifest = names.filter_map(|name| Some(name.strip_suffix(".manifest")?.to_owned())).next();
    manifest.unwrap_or_else(|| "appendonly.aof".to_owned())
}

async fn ask(look: &mut Look, socket: &Path) -> redis::RedisResult<()> {
    let client = redis::Client::open(format!("unix://{}", socket.display()))?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let info: String = redis::cmd("INFO").arg("server").query_async(&mut connection).await?;
    let version = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
    look.check.server = version.map(|version| format!("Redis {}", version.trim()));
    // All databases: the hook counts them, too.
    let keyspace: String = redis::cmd("INFO").arg("keyspace").query_async(&mut connection).await?;
    let keys: u64 = keyspace
        .lines()
        .filter_map(|line| line.split_once("keys=")?.1.split(',').next()?.parse::<u64>().ok())
        .sum();
    look.check.tables_checked =
        keyspace.lines().filter(|line| line.starts_with("db")).count() as u64;
    tell(&Event::Doing("comparing the number of keys".into()));
    look.position("dbsize", &keys.to_string());
    Ok(())
}
