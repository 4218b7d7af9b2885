//! A MariaDB of a test's own: its data in a temporary directory, no network but what is asked for.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};

/// The password of the user `tcp`: in no text that is checked for it.
pub const PASSWORD: &str = "c0rrect-horse-battery";

/// A running server. Killed and waited for when dropped, stopped or not.
pub struct Server {
    child: Child,
    directory: tempfile::TempDir,
    pub port: Option<u16>,
}

impl Server {
    /// A server on a unix socket only.
    pub async fn start() -> Self {
        Self::start_with(&[], None).await
    }

    /// A server that also listens on loopback, with a certificate for `db.test`.
    pub async fn start_with_tls() -> Self {
        // The system picks a free port; a moment later it is most likely still free.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self::start_with(&["--bind-address=127.0.0.1"], Some(port)).await
    }

    async fn start_with(more: &[&str], port: Option<u16>) -> Self {
        // A unix socket's path is at most 107 bytes long: not below a long TMPDIR.
        let directory = tempfile::Builder::new().prefix("sp-db-").tempdir_in("/tmp").unwrap();
        let at = |name: &str| directory.path().join(name);
        let data = at("data");
        run(Command::new("cp").arg("-a").args([fresh_data(), &data]));
        let mut command = Command::new("mariadbd");
        command
            .args(["--no-defaults", "--user=root", "--skip-name-resolve", "--skip-log-bin"])
            .args([
                "--innodb-buffer-pool-size=32M",
                "--innodb-log-file-size=8M",
                "--max-connections=20",
            ])
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--socket={}", at("socket").display()))
            .arg(format!("--pid-file={}", at("pid").display()))
            .args(more);
        match port {
            None => command.arg("--skip-networking"),
            Some(port) => {
                crate::common::make_certificates(directory.path());
                command
                    .arg(format!("--port={port}"))
                    .arg(format!("--ssl-ca={}", at("ca.pem").display()))
                    .arg(format!("--ssl-cert={}", at("server.pem").display()))
                    .arg(format!("--ssl-key={}", at("server.key").display()))
            }
        };
        let log = std::fs::File::create(at("log")).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut server = Self { child, directory, port };
        server.wait_until_it_answers().await;
        server.sql(&format!(
            "CREATE USER tcp@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON *.* TO tcp@'127.0.0.1';
             CREATE USER pw@localhost IDENTIFIED BY '{PASSWORD}';
             CREATE DATABASE t; CREATE TABLE t.t (id INT AUTO_INCREMENT PRIMARY KEY) ENGINE=InnoDB"
        ))
        .await;
        server
    }

    async fn wait_until_it_answers(&mut self) {
        let began = Instant::now();
        while Conn::new(self.options()).await.is_err() {
            let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap();
            let gone = self.child.try_wait().unwrap().is_some();
            let late = began.elapsed() > Duration::from_secs(60);
            assert!(!gone && !late, "mariadbd does not answer:\n{log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn options(&self) -> OptsBuilder {
        OptsBuilder::default().socket(Some(self.socket().to_string_lossy())).user(Some("root"))
    }

    /// Another client.
    pub async fn client(&self) -> Conn {
        Conn::new(self.options()).await.unwrap()
    }

    pub async fn sql(&self, statements: &str) {
        let mut client = self.client().await;
        for statement in statements.split(';') {
            client.query_drop(statement).await.unwrap();
        }
        client.disconnect().await.unwrap();
    }

    /// How long a write of another client takes from now.
    pub async fn time_to_write(&self) -> Duration {
        let mut client = self.client().await;
        let began = Instant::now();
        client.query_drop("INSERT INTO t.t VALUES ()").await.unwrap();
        began.elapsed()
    }

    /// What the server's sessions are doing, but for the one that asks.
    pub async fn sessions(&self) -> Vec<String> {
        let mut client = self.client().await;
        let rows: Vec<(u64, String, Option<String>)> = client
            .query("SELECT id, command, info FROM information_schema.processlist WHERE id <> CONNECTION_ID() AND user <> 'system user'")
            .await
            .unwrap();
        rows.iter().map(|row| format!("{row:?}")).collect()
    }

    /// How long it takes from now until no session of anybody else is left.
    pub async fn time_to_no_sessions(&self) -> Duration {
        let began = Instant::now();
        loop {
            let sessions = self.sessions().await;
            if sessions.is_empty() {
                return began.elapsed();
            }
            assert!(began.elapsed() < Duration::from_secs(10), "still there: {sessions:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Stops the process where it is (SIGSTOP) until the result is dropped.
    pub fn stopped(&self) -> Stopped {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
        Stopped(pid)
    }
}

/// A stopped process; goes on when this is dropped.
pub struct Stopped(nix::unistd::Pid);

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(self.0, nix::sys::signal::Signal::SIGCONT);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The data directory of a fresh server. Made once for each test binary, then copied.
fn fresh_data() -> &'static Path {
    static FRESH: OnceLock<PathBuf> = OnceLock::new();
    FRESH.get_or_init(|| {
        // A static is never dropped, so not in a temporary directory.
        let data = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fresh-mariadb");
        let _ = std::fs::remove_dir_all(&data);
        run(Command::new("mariadb-install-db")
            .args(["--no-defaults", "--user=root", "--auth-root-authentication-method=socket"])
            .arg("--skip-test-db")
            .arg(format!("--datadir={}", data.display())));
        data
    })
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}");
}
