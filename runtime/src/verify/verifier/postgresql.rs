//! PostgreSQL: started for a superuser on a socket that only the sandbox sees; what it holds is read
//! row by row, its indexes by the extension `amcheck` where the server has it, and its pages by
//! `pg_checksums` where the cluster has checksums.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, chown};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use super::postgresql_log::{StartLog, parse_lsn};
use super::server::{self, PAUSE, Server};
use super::{Bench, Database, Look, Stop, program, saved_text};
use crate::verify::job::Event;
use crate::verify::keeper::tell;
use crate::verify::verdict::Code;

/// Lines of one kind that are told.
const MOST_LINES: usize = 5;

pub(super) fn verify(bench: &Bench<'_>, database: &Database, look: &mut Look) -> Result<(), Stop> {
    let directory = &database.found.directory;
    let program = program(database, &candidates(directory))?;
    let tools = program.parent().unwrap_or(Path::new("/usr/bin")).to_owned();
    if let Some(identifier) = system_identifier(directory) {
        look.position("system-identifier", &identifier);
    }
    let scratch = server::scratch(database)?;
    let hba = scratch.join("hba");
    let written = fs::write(&hba, "local all all trust\n")
        .and_then(|()| fs::set_permissions(&hba, fs::Permissions::from_mode(0o600)))
        .and_then(|()| {
            let (uid, gid) = database.owner;
            Ok(chown(&hba, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?)
        });
    written.map_err(|error| Stop::new(format!("no file for access to the server: {error}")))?;
    let arguments = arguments(database, &scratch, &hba);
    // The original's: its number can be anybody's here. One that is not there needs no removing.
    let _ = fs::remove_file(directory.join("postmaster.pid"));
    let mut server = Server::start(bench, database, &program, &arguments, scratch.join("log"))?;
    let log = wait_until_ready(&mut server);
    let has_started = server.ended().is_none();
    if has_started {
        look.check.start_ms = u64::try_from(server.began.elapsed().as_millis()).unwrap_or(u64::MAX);
    }
    tell_start(look, &log);
    if !has_started {
        let said = server.log();
        let last = said.lines().rev().find(|line| line.contains("FATAL") || line.contains("PANIC"));
        look.found(Code::NotStarted, last.unwrap_or("the server ended without a word"));
        return Ok(());
    }
    let asked = bench.runtime.block_on(ask(database, look, &scratch));
    if let Err(error) = asked {
        look.found(Code::ServerError, in_words(&error));
    }
    let whole = StartLog::parse(&server.log());
    for line in whole.corruption.iter().take(MOST_LINES) {
        look.found(Code::Page, line.as_str());
    }
    // SIGINT: sessions are ended, everything is written.
    if server.stop(Signal::SIGINT) { checksums(bench, database, look, &tools) } else { Ok(()) }
}

/// The server of the version that made the data, where distributions have it.
fn candidates(directory: &Path) -> Vec<String> {
    let version = fs::read_to_string(directory.join("PG_VERSION")).unwrap_or_default();
    let version = version.trim();
    vec![
        format!("/usr/lib/postgresql/{version}/bin/postgres"),
        format!("/usr/pgsql-{version}/bin/postgres"),
        "/usr/bin/postgres".to_owned(),
    ]
}

fn arguments(database: &Database, scratch: &Path, hba: &Path) -> Vec<String> {
    let directory = database.found.directory.display().to_string();
    let mut arguments = vec!["-D".to_owned(), directory];
    // Debian keeps the configuration elsewhere; what the copy needs is given here.
    let configuration = database.found.directory.join("postgresql.conf");
    if !configuration.is_file() {
        let empty = scratch.join("postgresql.conf");
        // If it cannot be written, the server says that it has none.
        let _ = fs::write(&empty, "")
            .and_then(|()| fs::set_permissions(&empty, fs::Permissions::from_mode(0o644)));
        arguments.extend(["-c".to_owned(), format!("config_file={}", empty.display())]);
    }
    for (name, value) in [
        ("listen_addresses", String::new()),
        ("unix_socket_directories", scratch.display().to_string()),
        ("hba_file", hba.display().to_string()),
        ("port", "5432".to_owned()),
        ("ssl", "off".to_owned()),
        ("archive_mode", "off".to_owned()),
        ("logging_collector", "off".to_owned()),
        ("log_destination", "stderr".to_owned()),
        ("log_min_messages", "warning".to_owned()),
        ("lc_messages", "C".to_owned()),
        ("log_line_prefix", "%m [%p] ".to_owned()),
        ("shared_preload_libraries", String::new()),
        ("shared_buffers", "32MB".to_owned()),
        ("huge_pages", "off".to_owned()),
        ("dynamic_shared_memory_type", "mmap".to_owned()),
        ("autovacuum", "off".to_owned()),
        // Not less than the original can have had, or recovery of a standby refuses to go on.
        ("max_prepared_transactions", "256".to_owned()),
    ] {
        arguments.extend(["-c".to_owned(), format!("{name}={value}")]);
    }
    arguments.extend(database.found.options.iter().cloned());
    arguments
}

fn wait_until_ready(server: &mut Server) -> StartLog {
    loop {
        let has_ended = server.ended().is_some();
        let log = StartLog::parse(&server.log());
        if has_ended || log.ready {
            return log;
        }
        thread::sleep(PAUSE);
    }
}

fn tell_start(look: &mut Look, log: &StartLog) {
    look.redo(log.redo_bytes());
    look.in_doubt(log.in_doubt, "");
    for line in log.errors.iter().take(MOST_LINES) {
        look.found(Code::ServerError, line.as_str());
    }
}

/// What the hook saw as written has to be there: the log goes at least as far.
fn compare_end_of_log(look: &mut Look, end: u64) {
    let Some(lsn) = saved_text(&look.saved, "lsn") else { return };
    let agrees = parse_lsn(&lsn).is_none_or(|lsn| reaches(end, lsn));
    let copy = format!("{:X}/{:X}", end >> 32, end & 0xffff_ffff);
    if !agrees {
        look.found(Code::Position, format!("the log ends at {copy}, the manifest says {lsn}"));
    }
    look.push_position("lsn", lsn, &copy, agrees);
}

/// Whether a log that ends at `end` has all that had been flushed when it stood at `lsn`. The server also
/// flushes whole pages, in the middle of a record: what of that record is there ends no record, and
/// nobody was told of it.
fn reaches(end: u64, lsn: u64) -> bool {
    const PAGE: u64 = 8 << 10;
    const LONGEST_RECORD: u64 = 64 << 10;
    end >= lsn || (lsn.is_multiple_of(PAGE) && lsn - end <= LONGEST_RECORD)
}

async fn connect(
    directory: &Path,
    name: &str,
    user: &str,
) -> Result<Client, tokio_postgres::Error> {
    let mut config = Config::new();
    config.host_path(directory).port(5432).user(user).dbname(name);
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn ask(
    database: &Database,
    look: &mut Look,
    socket: &Path,
) -> Result<(), tokio_postgres::Error> {
    // The account that every cluster has, unless it was made with another.
    let client = match connect(socket, "template1", "postgres").await {
        Err(error) if error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION) => {
            let text = format!(
                "{}: the end of the log, tables and queries, for want of a role postgres",
                look.subject
            );
            tell(&Event::NotChecked(text));
            return Ok(());
        }
        other => other?,
    };
    look.check.server = client.query_one("SELECT version()", &[]).await?.get(0);
    let prepared: i64 =
        client.query_one("SELECT count(*) FROM pg_prepared_xacts", &[]).await?.get(0);
    let prepared = u64::try_from(prepared).unwrap_or(0);
    if look.check.in_doubt == 0 {
        look.in_doubt(prepared, "");
    }
    if let Some(end) = end_of_recovery(&client).await? {
        compare_end_of_log(look, end);
    }
    const DATABASES: &str = "SELECT datname FROM pg_database WHERE datallowconn ORDER BY datname";
    let names = client.query(DATABASES, &[]).await?;
    for name in names.iter().map(|row| row.get::<_, String>(0)) {
        let client = connect(socket, &name, "postgres").await?;
        read_tables(&client, look, &name).await?;
        check_indexes(&client, look, &name).await?;
    }
    let client = connect(socket, "postgres", "postgres").await?;
    for query in &database.found.queries {
        let answer = client.simple_query(&query.text).await;
        let answer = answer.map(|rows| first_column(&rows));
        look.query(query, answer.map_err(|error| in_words(&error)));
    }
    Ok(())
}

/// Where the log ended that was found at the start: the first record after recovery is the checkpoint
/// that ends it. The server's log does not tell: why it finds no further record has many words, most of
/// them without a position. `None` on a standby, which ends no recovery.
async fn end_of_recovery(client: &Client) -> Result<Option<u64>, tokio_postgres::Error> {
    const END: &str =
        "SELECT redo_lsn::text FROM pg_control_checkpoint() WHERE NOT pg_is_in_recovery()";
    let row = client.query_opt(END, &[]).await?;
    Ok(row.and_then(|row| parse_lsn(&row.get::<_, String>(0))))
}

/// What the server said, if it was the server.
fn in_words(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string)
}

/// A table or an index that cannot be read, or is not right. An error if the server is gone with it.
fn found_in(
    look: &mut Look,
    what: &str,
    client: &Client,
    error: tokio_postgres::Error,
) -> Result<(), tokio_postgres::Error> {
    look.found(Code::Table, format!("{what}: {}", in_words(&error)));
    if client.is_closed() { Err(error) } else { Ok(()) }
}

fn first_column(rows: &[SimpleQueryMessage]) -> Option<String> {
    rows.iter().find_map(|row| match row {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    })
}

/// Reads every row of every table, with what is stored out of line.
async fn read_tables(
    client: &Client,
    look: &mut Look,
    name: &str,
) -> Result<(), tokio_postgres::Error> {
    const TABLES: &str = "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c \
         JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'm') AND c.relpersistence = 'p' AND c.relispopulated ORDER BY 1";
    let tables = client.query(TABLES, &[]).await?;
    for table in tables.iter().map(|row| row.get::<_, String>(0)) {
        tell(&Event::Doing(format!("reading {table} of {name}")));
        let read = format!("SELECT count(*), sum(length(t::text)) FROM {table} t");
        if let Err(error) = client.simple_query(&read).await {
            found_in(look, &format!("table {table} of {name}"), client, error)?;
        }
        look.check.tables_checked += 1;
    }
    Ok(())
}

/// Whether each B-tree index is in order and has every row of its table, by the server's own extension.
/// It may be put into this database: it is a copy, and goes.
async fn check_indexes(
    client: &Client,
    look: &mut Look,
    name: &str,
) -> Result<(), tokio_postgres::Error> {
    const INSTALL: &str =
        "CREATE SCHEMA stillpoint_verify; CREATE EXTENSION amcheck SCHEMA stillpoint_verify";
    const WHERE: &str = "SELECT format('%I', n.nspname) FROM pg_extension e \
         JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'amcheck'";
    const INDEXES: &str = "SELECT c.oid, format('%I.%I', n.nspname, c.relname) FROM pg_index i \
         JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
         JOIN pg_am a ON a.oid = c.relam WHERE a.amname = 'btree' AND c.relkind = 'i' \
         AND c.relpersistence = 'p' AND i.indisvalid AND i.indisready ORDER BY 2";
    if client.query_opt(WHERE, &[]).await?.is_none()
        && let Err(error) = client.batch_execute(INSTALL).await
    {
        let (subject, why) = (&look.subject, in_words(&error));
        tell(&Event::NotChecked(format!("{subject}: the indexes of {name}, because {why}")));
        return Ok(());
    }
    let schema: String = client.query_one(WHERE, &[]).await?.get(0);
    let check = format!("SELECT {schema}.bt_index_check($1::oid::regclass, true)");
    let check = client.prepare(&check).await?;
    for row in client.query(INDEXES, &[]).await? {
        let (oid, index): (u32, String) = (row.get(0), row.get(1));
        tell(&Event::Doing(format!("checking index {index} of {name}")));
        if let Err(error) = client.query(&check, &[&oid]).await {
            found_in(look, &format!("index {index} of {name}"), client, error)?;
        }
    }
    Ok(())
}

/// Of every page of every file, where the cluster has checksums.
fn checksums(
    bench: &Bench<'_>,
    database: &Database,
    look: &mut Look,
    tools: &Path,
) -> Result<(), Stop> {
    let program = tools.join("pg_checksums");
    let not_checked = |why: &str| {
        tell(&Event::NotChecked(format!("{}: checksums of pages, because {why}", look.subject)));
    };
    if !program.is_file() {
        not_checked("pg_checksums is not installed here");
        return Ok(());
    }
    tell(&Event::Doing("the checksums of all pages".into()));
    let directory = database.found.directory.display().to_string();
    let arguments = ["--check".to_owned(), "-D".to_owned(), directory];
    let (status, said) = server::run(bench, database, &program, &arguments)?;
    if said.contains("not enabled") {
        not_checked("the cluster was made without them");
        return Ok(());
    }
    let number = |words: &str| -> Option<u64> {
        said.lines().find_map(|line| line.strip_prefix(words)?.trim().parse().ok())
    };
    look.check.files_checked = number("Files scanned:").unwrap_or(0);
    if !status.is_some_and(|status| status.success()) {
        let failed: Vec<&str> = said.lines().filter(|line| line.contains("failed")).collect();
        let failed = if failed.is_empty() { vec![said.trim()] } else { failed };
        for line in failed.iter().take(MOST_LINES) {
            look.found(Code::Page, *line);
        }
    }
    Ok(())
}

/// The first eight bytes of the control file, as the server prints them.
pub(in crate::verify) fn system_identifier(directory: &Path) -> Option<String> {
    let path: PathBuf = directory.join("global/pg_control");
    let mut bytes = [0; 8];
    File::open(path).ok()?.read_exact_at(&mut bytes, 0).ok()?;
    Some(u64::from_ne_bytes(bytes).to_string())
}

#[cfg(test)]
mod tests {
    use super::reaches;

    #[test]
    fn a_log_that_was_flushed_to_a_page_may_end_with_the_record_before() {
        assert!(reaches(0x26e_5d40, 0x26e_6000) && reaches(0x26e_6028, 0x26e_6000));
        assert!(!reaches(0x26e_5d40, 0x26e_5d78) && !reaches(0x26c_0000, 0x26e_6000));
    }
}
