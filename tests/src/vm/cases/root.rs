//! The root file system is frozen: stillpoint's own binary, its libraries, the log of the machine and
//! the files of its service manager are on it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::vm::bench::{Bench, Writer};
use crate::vm::guest::PATIENCE;
use crate::vm::machine::Machine;

/// More than the socket of the log holds while nobody reads it.
const LINES: u32 = 600;
/// Long enough for a log that stands still to be noticed.
const WINDOW: Duration = Duration::from_secs(6);

pub(super) fn frozen(machine: &mut Machine) -> Result<String> {
    let guest = machine.guest()?;
    let bench = Bench::new(guest, &[])?;
    bench.window_of(WINDOW)?;
    let writer = Writer::start(guest, "/")?;
    let log = format!(
        "seq 1 {LINES} | while read n; do echo \"flood line $n\"; done | systemd-cat -t flood;\n\
         for n in $(seq 1 {LINES}); do echo \"<6>socket line $n\" | logger -t flood; done"
    );
    let begun = bench.begin_snapshot("")?;
    bench.until_in_window()?;
    let flood = guest.begin(&log, Duration::from_secs(300))?;
    let run = Bench::end(begun)?;
    let run = run.succeeded()?;
    ensure!(run.manifest()?.level()? == "file-system", "{}", run.description());
    let mounts = run.manifest()?.at("/file_systems/0/mount_point")?.clone();
    ensure!(mounts == "/", "{}", run.description());

    let flood = flood.end()?;
    ensure!(flood.code == Some(0), "the log stands still: {flood:?}");
    let all = format!("test $(journalctl -t flood -o cat | grep -c line) -eq {}", 2 * LINES);
    guest.until("in the log", &all, PATIENCE)?;
    guest.sh("systemctl is-active systemd-journald && test $(systemctl show -P NRestarts systemd-journald) = 0")?;
    let longest = writer.longest(guest)?;
    ensure!(longest >= WINDOW.as_secs_f64() * 0.9, "/ was not frozen: a write took {longest} s");
    bench.all_is_well(&["/"])?;
    Ok(format!("a write to / waited {longest:.1} s; {} lines of log are all there", 2 * LINES))
}

/// The hook, its session and the server, all on the file system that is frozen.
pub(super) fn with_mariadb(machine: &mut Machine) -> Result<String> {
    let guest = machine.guest()?;
    guest.sh(
        "systemctl start mariadb && mariadb -e 'CREATE DATABASE d; CREATE TABLE d.t (i INT)'",
    )?;
    let bench = Bench::new(guest, &[])?;
    let connection = "[connections.main]\nengine = \"mysql\"\nsocket = \"/run/mysqld/mysqld.sock\"\nuser = \"root\"\n";
    bench.write("/etc/stillpoint/connections.toml", connection, "600")?;
    let install = "stillpoint hook install --allow-unsigned /usr/local/share/stillpoint/hooks/mysql.wasm \
                   && stillpoint hook grant mysql --accept";
    let installed = guest.run(install, Duration::from_secs(600))?;
    ensure!(installed.code == Some(0), "{installed:?}");
    let writing =
        "while ! test -e /run/stop; do mariadb -e 'INSERT INTO d.t VALUES (1)' || exit 1; done";
    let writing = guest.begin(writing, Duration::from_secs(600))?;
    let run = bench.snapshot("")?;
    let run = run.succeeded()?;
    ensure!(run.manifest()?.level()? == "application", "{}", run.description());
    guest.sh("touch /run/stop")?;
    let writing = writing.end()?;
    ensure!(writing.code == Some(0), "the client failed: {writing:?}");
    let rows = guest.sh("mariadb -Ne 'SELECT COUNT(*) FROM d.t'")?;
    let rows: u32 = rows.trim().parse().context("rows")?;
    guest.sh("mariadb -e 'DROP DATABASE d' && systemctl stop mariadb; rm -rf /run/stop \
              /etc/stillpoint/hooks.d /etc/stillpoint/connections.toml")?;
    bench.all_is_well(&["/"])?;
    Ok(format!("level application; the client wrote {rows} rows around it"))
}
