//! MariaDB, and MySQL by its own server: started without accounts, events or replication, on a socket
//! that only the sandbox sees.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder, Row, Value};
use nix::sys::signal::Signal;

use super::mariadb_log::StartLog;
use super::server::{self, PAUSE, Server};
use super::{Bench, Database, Look, Stop, program, saved_text};
use crate::verify::file_systems::find_program;
use crate::verify::job::Event;
use crate::verify::keeper::tell;
use crate::verify::verdict::Code;

/// Where distributions have the server.
const PROGRAMS: [&str; 6] = [
    "/usr/sbin/mariadbd",
    "/usr/libexec/mariadbd",
    "/usr/bin/mariadbd",
    "/usr/sbin/mysqld",
    "/usr/libexec/mysqld",
    "/usr/bin/mysqld",
];

/// Lines of one kind that are told.
const MOST_LINES: usize = 5;

pub(super) fn verify(bench: &Bench<'_>, database: &Database, look: &mut Look) -> Result<(), Stop> {
    let binlog = Binlog::find(bench, database, look);
    if let Some(binlog) = &binlog {
        // Before a server begins a new file.
        look.position("binlog-file", &binlog.last);
        look.position("binlog-position", &binlog.end.to_string());
    }
    let scratch = server::scratch(database)?;
    let mut server = start(bench, database, binlog.as_ref(), &scratch)?;
    let log = wait_until_ready(&mut server);
    let has_started = server.ended().is_none();
    if has_started {
        look.check.start_ms = u64::try_from(server.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        if let Err(error) = bench.runtime.block_on(ask(database, look, &scratch.join("sock"))) {
            let died = if server.ended().is_some() { ", and the server died" } else { "" };
            look.found(Code::ServerError, format!("{error}{died}"));
        }
    }
    tell_log(look, log, &StartLog::parse(&server.log()));
    if !has_started {
        look.found(Code::NotStarted, format!("the server ended: {}", last_line(&server.log())));
        return Ok(());
    }
    // An orderly end writes all pages: then each has to have its checksum.
    if server.stop(Signal::SIGTERM) {
        checksums(bench, database, look)?;
    } else {
        tell(&Event::NotChecked(format!(
            "{}: checksums of pages, because the server did not stop in order",
            look.subject
        )));
    }
    Ok(())
}

fn start(
    bench: &Bench<'_>,
    database: &Database,
    binlog: Option<&Binlog>,
    scratch: &Path,
) -> Result<Server, Stop> {
    let program = program(database, &PROGRAMS.map(str::to_owned))?;
    let directory = &database.found.directory;
    let path = |name: &str| scratch.join(name).display().to_string();
    // A quarter of what there is, for the largest part of what a server takes.
    let buffers = (bench.memory_bytes / 4).clamp(16 << 20, 1 << 30);
    let mut arguments = vec![
        "--no-defaults".to_owned(),
        format!("--datadir={}", directory.display()),
        format!("--socket={}", path("sock")),
        format!("--pid-file={}", path("pid")),
        format!("--tmpdir={}", scratch.display()),
        "--skip-networking".to_owned(),
        "--skip-grant-tables".to_owned(),
        "--skip-slave-start".to_owned(),
        "--innodb-use-native-aio=0".to_owned(),
        "--innodb-buffer-pool-load-at-startup=0".to_owned(),
        "--innodb-buffer-pool-dump-at-shutdown=0".to_owned(),
        format!("--innodb-buffer-pool-size={buffers}"),
        "--server-id=1".to_owned(),
    ];
    // With another size the server would replace its log.
    if let Ok(meta) = fs::metadata(directory.join("ib_logfile0")) {
        arguments.push(format!("--innodb-log-file-size={}", meta.size()));
    }
    match binlog {
        // It decides what was prepared.
        Some(binlog) => arguments.push(format!("--log-bin={}", binlog.base.display())),
        None => arguments.push("--skip-log-bin".to_owned()),
    }
    if database.owner.0 == 0 {
        arguments.push("--user=root".to_owned());
    }
    arguments.extend(database.found.options.iter().cloned());
    Server::start(bench, database, &program, &arguments, scratch.join("log"))
}

/// Until it answers and has rolled back what it has to, or has ended. How long that may take is the
/// keeper's.
fn wait_until_ready(server: &mut Server) -> StartLog {
    loop {
        let has_ended = server.ended().is_some();
        let log = StartLog::parse(&server.log());
        if has_ended || (log.ready && !log.rolling_back) {
            return log;
        }
        thread::sleep(PAUSE);
    }
}

/// Of the start; and what came to light later.
fn tell_log(look: &mut Look, start: StartLog, whole: &StartLog) {
    look.redo(start.redo_bytes);
    look.rolled_back(start.rolled_back, "");
    look.in_doubt(start.in_doubt, "");
    for table in &whole.crashed_tables {
        look.found(Code::NotClosed, table.as_str());
    }
    look.check.crashed_tables.extend(start.crashed_tables);
    let told = |code, lines: &[String]| {
        lines.iter().take(MOST_LINES).for_each(|line| look.found(code, line.as_str()));
    };
    told(Code::Page, &whole.corruption);
    told(Code::ServerError, &whole.errors);
}

fn last_line(log: &str) -> &str {
    let mut lines = log.lines().rev();
    lines.find(|line| line.contains("[ERROR]")).or(log.lines().last()).unwrap_or("without a word")
}

async fn ask(database: &Database, look: &mut Look, socket: &Path) -> mysql_async::Result<()> {
    let options = OptsBuilder::default()
        .socket(Some(socket.display().to_string()))
        .user(Some("root"))
        .prefer_socket(Some(true));
    let mut connection = Conn::new(options).await?;
    look.check.server = connection.query_first("SELECT VERSION()").await?;
    if saved_text(&look.saved, "gtid-binlog-pos").is_some() {
        let gtid: Option<String> = connection.query_first("SELECT @@gtid_binlog_pos").await?;
        look.position("gtid-binlog-pos", &gtid.unwrap_or_default());
    }
    check_tables(&mut connection, look).await?;
    for query in &database.found.queries {
        let answer = connection.query_first::<Row, _>(query.text.as_str()).await;
        look.query(query, answer.map(first_column).map_err(|error| error.to_string()));
    }
    connection.disconnect().await
}

fn first_column(row: Option<Row>) -> Option<String> {
    match row?.unwrap().into_iter().next()? {
        Value::NULL => None,
        Value::Bytes(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        other => Some(other.as_sql(true)),
    }
}

async fn check_tables(connection: &mut Conn, look: &mut Look) -> mysql_async::Result<()> {
    const TABLES: &str = "SELECT table_schema, table_name FROM information_schema.tables \
         WHERE table_type = 'BASE TABLE' AND table_schema NOT IN \
         ('information_schema', 'performance_schema', 'sys')";
    let quoted = |name: &str| format!("`{}`", name.replace('`', "``"));
    let tables: Vec<(String, String)> = connection.query(TABLES).await?;
    for (schema, table) in tables {
        tell(&Event::Doing(format!("checking {schema}.{table}")));
        let check = format!("CHECK TABLE {}.{}", quoted(&schema), quoted(&table));
        let messages: Vec<(String, String, String, String)> = connection.query(check).await?;
        for (name, _, kind, text) in messages {
            judge(look, &name, &kind, &text);
        }
        look.check.tables_checked += 1;
    }
    Ok(())
}

/// One line of the answer to CHECK TABLE.
fn judge(look: &mut Look, table: &str, kind: &str, text: &str) {
    match kind.to_lowercase().as_str() {
        "status" | "note" | "info" if text != "Operation failed" => {}
        _ if text.contains("Unknown storage engine") || text.contains("doesn't support check") => {
            tell(&Event::NotChecked(format!("table {table}: {text}")));
        }
        "warning" if !text.contains("corrupt") => {
            look.check.crashed_tables.push(table.to_owned());
            look.found(Code::NotClosed, format!("table {table}: {text}"));
        }
        _ => look.found(Code::Table, format!("table {table}: {text}")),
    }
}

/// Every page of every tablespace file, also those that no table's check reads. Not of `ibdata1`: it has
/// old halves of pages in it, the doublewrite buffer.
fn checksums(bench: &Bench<'_>, database: &Database, look: &mut Look) -> Result<(), Stop> {
    let Some(program) = find_program("innochecksum") else {
        tell(&Event::NotChecked(format!(
            "{}: checksums of pages, because innochecksum is not installed here",
            look.subject
        )));
        return Ok(());
    };
    for file in tablespaces(&database.found.directory) {
        let shown =
            file.strip_prefix(&database.found.directory).unwrap_or(&file).display().to_string();
        tell(&Event::Doing(format!("the checksums of {shown}")));
        let arguments = [file.display().to_string()];
        let (status, said) = server::run(bench, database, &program, &arguments)?;
        look.check.files_checked += 1;
        if !status.is_some_and(|status| status.success()) {
            let what = said.lines().find(|line| line.contains("Fail")).unwrap_or(said.trim());
            look.found(Code::Page, format!("file {shown}: {what}"));
        }
    }
    Ok(())
}

fn tablespaces(directory: &Path) -> Vec<PathBuf> {
    let is_tablespace = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.ends_with(".ibd") || (name.starts_with("undo") && path.is_file())
    };
    let below = |directory: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
        entries.map(|entry| entry.path()).collect()
    };
    let mut files = Vec::new();
    for path in below(directory) {
        if path.is_dir() { files.extend(below(&path)) } else { files.push(path) }
    }
    files.retain(is_tablespace);
    files.sort();
    files
}

/// The binary log of the copy.
#[derive(Debug, PartialEq, Eq)]
struct Binlog {
    /// What `--log-bin` is given.
    base: PathBuf,
    /// The name of its last file.
    last: String,
    /// The length of that, in bytes.
    end: u64,
}

impl Binlog {
    /// The one whose files are named as the hook says; without a hook, the one in the data directory.
    fn find(bench: &Bench<'_>, database: &Database, look: &Look) -> Option<Self> {
        let saved = saved_text(&look.saved, "binlog-file");
        let stem = saved.as_deref().and_then(|file| Path::new(file).file_stem()?.to_str());
        let mut directories = vec![database.found.directory.clone()];
        for place in bench.places {
            directories.push(place.clone());
            let entries = fs::read_dir(place).into_iter().flatten().filter_map(Result::ok);
            directories.extend(entries.map(|entry| entry.path()).filter(|path| path.is_dir()));
        }
        directories.iter().find_map(|directory| Self::in_directory(directory, stem))
    }

    fn in_directory(directory: &Path, stem: Option<&str>) -> Option<Self> {
        let entries = fs::read_dir(directory).ok()?.filter_map(Result::ok);
        let mut files: Vec<(String, u64)> = Vec::new();
        let mut bases = Vec::new();
        for entry in entries {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some((base, extension)) = name.rsplit_once('.') else { continue };
            if extension == "index" && stem.is_none_or(|stem| stem == base) {
                bases.push(base.to_owned());
            }
            if !extension.is_empty() && extension.chars().all(|it| it.is_ascii_digit()) {
                files.push((name, entry.metadata().map_or(0, |meta| meta.len())));
            }
        }
        files.sort();
        bases.sort();
        bases.into_iter().find_map(|base| {
            let of_base = |(name, _): &&(String, u64)| {
                name.rsplit_once('.').is_some_and(|(stem, _)| stem == base)
            };
            let (last, end) = files.iter().rfind(of_base)?.clone();
            Some(Self { base: directory.join(base), last, end })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_log_is_known_by_its_index_and_ends_where_its_last_file_does() {
        let directory = tempfile::tempdir().unwrap();
        for (name, length) in
            [("binlog.index", 3), ("binlog.000001", 7), ("binlog.000002", 9), ("relay.000003", 1)]
        {
            fs::write(directory.path().join(name), vec![0; length]).unwrap();
        }
        let found = Binlog::in_directory(directory.path(), Some("binlog")).unwrap();
        assert_eq!((found.last.as_str(), found.end), ("binlog.000002", 9));
        assert_eq!(found, Binlog::in_directory(directory.path(), None).unwrap());
        assert_eq!(Binlog::in_directory(directory.path(), Some("other")), None);
    }
}
