//! A PostgreSQL of a test's own: its data in a temporary directory, no network but what is asked for. It
//! refuses to be root, so that it runs as the user of its package.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};
use tokio_postgres::{Client, Config, NoTls};

/// The password of the users `tcp` and `pw`: in no text that is checked for it.
pub const PASSWORD: &str = "c0rrect-horse-battery";

/// A running server. Ended and waited for when dropped, stopped or not.
pub struct Server {
    child: Child,
    directory: tempfile::TempDir,
    pub port: u16,
}

impl Server {
    /// A server on a unix socket only.
    pub async fn start() -> Self {
        Self::start_with(&["listen_addresses="], 5432).await
    }

    /// A server that also listens on loopback, with a certificate for `db.test`.
    pub async fn start_with_tls() -> Self {
        // The system picks a free port; a moment later it is most likely still free.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let settings = ["listen_addresses=127.0.0.1", "ssl=on", "ssl_cert_file=server.pem"];
        Self::start_with(&[&settings[..], &["ssl_key_file=server.key"]].concat(), port).await
    }

    async fn start_with(settings: &[&str], port: u16) -> Self {
        // A unix socket's path is at most 107 bytes long: not below a long TMPDIR.
        let directory = tempfile::Builder::new().prefix("sp-pg-").tempdir_in("/tmp").unwrap();
        let data = directory.path().join("data");
        run(Command::new("cp").arg("-a").args([fresh_data(), &data]));
        give(directory.path());
        make_certificates(&data);
        let mut command = program("postgres");
        command.arg("-D").arg(&data).args(["-p", &port.to_string()]);
        command.arg("-k").arg(directory.path());
        for setting in
            [&["shared_buffers=16MB", "fsync=off", "max_connections=20"][..], settings].concat()
        {
            command.args(["-c", setting]);
        }
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut server = Self { child, directory, port };
        server.wait_until_it_answers().await;
        server
            .sql(&format!(
                "CREATE ROLE tcp LOGIN PASSWORD '{PASSWORD}'; CREATE ROLE pw LOGIN PASSWORD '{PASSWORD}';
                 CREATE TABLE t (n int); CREATE TABLE secrets (s text); GRANT ALL ON t TO pw;
                 CREATE TYPE lab_colour AS ENUM ('red')"
            ))
            .await;
        server
    }

    async fn wait_until_it_answers(&mut self) {
        let began = Instant::now();
        while self.try_client().await.is_err() {
            let log = fs::read_to_string(self.path("log")).unwrap();
            let gone = self.child.try_wait().unwrap().is_some();
            let late = began.elapsed() > Duration::from_secs(60);
            assert!(!gone && !late, "postgres does not answer:\n{log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The directory of its socket.
    pub fn sockets(&self) -> &Path {
        self.directory.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    async fn try_client(&self) -> Result<Client, tokio_postgres::Error> {
        let mut config = Config::new();
        config.host_path(self.sockets()).port(self.port).user("root").dbname("postgres");
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(async move { drop(connection.await) });
        Ok(client)
    }

    /// Another client, as the superuser.
    pub async fn client(&self) -> Client {
        self.try_client().await.unwrap()
    }

    pub async fn sql(&self, statements: &str) {
        self.client().await.batch_execute(statements).await.unwrap();
    }

    /// What the server's sessions are doing, but for the one that asks.
    pub async fn sessions(&self) -> Vec<String> {
        let asked = "SELECT concat_ws(' ', pid, state, query) FROM pg_stat_activity
            WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
        let rows = self.client().await.query(asked, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
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

    /// Stops the server and all of its sessions where they are (SIGSTOP) until the result is dropped.
    pub fn stopped(&self) -> Stopped {
        let own = self.child.id().to_string();
        let mut pids: Vec<i32> = vec![own.parse().unwrap()];
        for entry in fs::read_dir("/proc").unwrap() {
            let path = entry.unwrap().path();
            let stat = fs::read_to_string(path.join("stat")).unwrap_or_default();
            let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split(' ').nth(2));
            if parent == Some(own.as_str()) {
                pids.push(path.file_name().unwrap().to_str().unwrap().parse().unwrap());
            }
        }
        let pids: Vec<_> = pids.into_iter().map(Pid::from_raw).collect();
        for pid in &pids {
            let _ = kill(*pid, Signal::SIGSTOP);
        }
        Stopped(pids)
    }

    /// Ends the server as an administrator does who does not wait.
    pub fn shut_down(&mut self) {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGINT).unwrap();
        self.child.wait().unwrap();
    }
}

/// Stopped processes; they go on when this is dropped.
pub struct Stopped(Vec<Pid>);

impl Drop for Stopped {
    fn drop(&mut self) {
        for pid in &self.0 {
            let _ = kill(*pid, Signal::SIGCONT);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // At once, and with all of its processes; SIGKILL would leave them to find out.
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGQUIT);
        let _ = self.child.wait();
    }
}

fn postgres() -> User {
    User::from_name("postgres").unwrap().unwrap()
}

/// A program of the newest version that is installed, as the server's user.
fn program(name: &str) -> Command {
    let versions = fs::read_dir("/usr/lib/postgresql").unwrap();
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions.map(|entry| entry.unwrap().path()).max_by_key(number).unwrap();
    let mut command = Command::new(newest.join("bin").join(name));
    let user = postgres();
    command.uid(user.uid.as_raw()).gid(user.gid.as_raw()).current_dir("/").env("LC_ALL", "C");
    command
}

fn give(path: &Path) {
    let user = postgres();
    chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
}

/// The data directory of a fresh server. Made once for each test binary, then copied.
fn fresh_data() -> &'static Path {
    static FRESH: OnceLock<PathBuf> = OnceLock::new();
    FRESH.get_or_init(|| {
        // A static is never dropped, so not in a temporary directory; but made in one, where its user
        // may go.
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fresh-postgresql");
        let _ = fs::remove_dir_all(&kept);
        let directory = tempfile::Builder::new().prefix("sp-pg-").tempdir_in("/tmp").unwrap();
        give(directory.path());
        let data = directory.path().join("data");
        run(program("initdb")
            .args(["--no-sync", "--auth-local=peer", "--auth-host=scram-sha-256"])
            .args(["--username=root", "--locale=C", "--encoding=UTF8"])
            .arg(format!("--pgdata={}", data.display())));
        let hba = data.join("pg_hba.conf");
        let lines = fs::read_to_string(&hba).unwrap();
        fs::write(&hba, format!("local all pw scram-sha-256\n{lines}")).unwrap();
        run(Command::new("cp").arg("-a").args([&data, &kept]));
        kept
    })
}

/// An authority and a certificate of it for `db.test`.
fn make_certificates(directory: &Path) {
    let openssl = |arguments: &str| {
        run(Command::new("openssl").current_dir(directory).args(arguments.split(' ')));
    };
    openssl(
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=authority",
    );
    openssl("req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=db.test");
    fs::write(directory.join("names"), "subjectAltName=DNS:db.test\nbasicConstraints=CA:FALSE\n")
        .unwrap();
    openssl(
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -extfile names",
    );
    fs::set_permissions(directory.join("server.key"), fs::Permissions::from_mode(0o600)).unwrap();
    give(&directory.join("server.key"));
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}");
}
