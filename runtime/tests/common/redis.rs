//! A Redis of a test's own: its data in a temporary directory, no network but what is asked for.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, FromRedisValue};

/// The password of the user `tcp`: in no text that is checked for it.
pub const PASSWORD: &str = "c0rrect-horse-battery";

/// A running server. Killed and waited for when dropped, stopped or not.
pub struct Server {
    child: Child,
    directory: tempfile::TempDir,
    more: Vec<String>,
    pub port: u16,
}

impl Server {
    /// A server on a unix socket, with an AOF.
    pub async fn start() -> Self {
        Self::start_with(&["--appendonly", "yes"]).await
    }

    /// A server on a unix socket with more settings; `tcp` may do all over the network.
    pub async fn start_with(more: &[&str]) -> Self {
        // A unix socket's path is at most 107 bytes long: not below a long TMPDIR.
        let directory = tempfile::Builder::new().prefix("sp-redis-").tempdir_in("/tmp").unwrap();
        let child = Self::spawn(&directory, more);
        let more: Vec<String> = more.iter().map(ToString::to_string).collect();
        let mut server = Self { child, directory, more, port: 0 };
        server.wait_until_it_answers().await;
        server.send::<()>(&format!("ACL SETUSER tcp on >{PASSWORD} ~* +@all")).await;
        server
    }

    /// The same server, that also listens on loopback.
    pub async fn start_on_tcp(more: &[&str]) -> Self {
        // The system picks a free port; a moment later it is most likely still free.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let text = port.to_string();
        let more = [&["--port", &text, "--bind", "127.0.0.1"], more].concat();
        let mut server = Self::start_with(&more).await;
        server.port = port;
        server
    }

    /// A server on a unix socket, and with TLS on loopback, with a certificate for `db.test`.
    pub async fn start_with_tls() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let certificates = tempfile::Builder::new().prefix("sp-tls-").tempdir_in("/tmp").unwrap();
        crate::common::make_certificates(certificates.path());
        let at = |name: &str| certificates.path().join(name).display().to_string();
        let (text, ca) = (port.to_string(), at("ca.pem"));
        let (certificate, key) = (at("server.pem"), at("server.key"));
        let mut more = vec!["--tls-port", &text, "--bind", "127.0.0.1", "--tls-auth-clients", "no"];
        more.extend(["--tls-ca-cert-file", &ca, "--tls-cert-file", &certificate]);
        more.extend(["--tls-key-file", &key]);
        let mut server = Self::start_with(&more).await;
        std::fs::copy(&ca, server.path("ca.pem")).unwrap();
        server.port = port;
        server
    }

    fn spawn(directory: &tempfile::TempDir, more: &[&str]) -> Child {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(directory.path().join("log"))
            .unwrap();
        Command::new("redis-server")
            .args(["--port", "0", "--daemonize", "no", "--save", "3600 1"])
            .arg("--dir")
            .arg(directory.path())
            .arg("--unixsocket")
            .arg(directory.path().join("socket"))
            .args(more)
            .stdin(Stdio::null())
            .stdout(log)
            .spawn()
            .unwrap()
    }

    async fn wait_until_it_answers(&mut self) {
        let began = Instant::now();
        loop {
            if let Ok(mut client) = self.try_client().await {
                let answer: redis::RedisResult<String> =
                    redis::cmd("PING").query_async(&mut client).await;
                if answer.is_ok() {
                    return;
                }
            }
            let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap();
            let gone = self.child.try_wait().unwrap().is_some();
            let late = began.elapsed() > Duration::from_secs(30);
            assert!(!gone && !late, "redis-server does not answer:\n{log}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Ends it as a power cut would, and starts it again on its files.
    pub async fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let more: Vec<&str> = self.more.iter().map(String::as_str).collect();
        self.child = Self::spawn(&self.directory, &more);
        self.wait_until_it_answers().await;
    }

    async fn try_client(&self) -> redis::RedisResult<MultiplexedConnection> {
        let client = redis::Client::open(format!("unix://{}", self.socket().display()))?;
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        client.get_multiplexed_async_connection_with_config(&config).await
    }

    /// Another client.
    pub async fn client(&self) -> MultiplexedConnection {
        self.try_client().await.unwrap()
    }

    /// Sends a line of words.
    pub async fn send<T: FromRedisValue>(&self, line: &str) -> T {
        self.try_send(line).await.unwrap()
    }

    /// The same, whatever comes of it.
    pub async fn try_send<T: FromRedisValue>(&self, line: &str) -> redis::RedisResult<T> {
        let mut client = self.client().await;
        let mut command = redis::Cmd::new();
        for word in line.split(' ') {
            command.arg(word);
        }
        command.query_async(&mut client).await
    }

    /// A field of INFO.
    pub async fn info(&self, name: &str) -> String {
        let text: String = self.send("INFO").await;
        let field = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        field.unwrap_or_default().trim().to_owned()
    }

    /// How long a write of another client takes from now.
    pub async fn time_to_write(&self) -> Duration {
        let began = Instant::now();
        let _: i64 = self.send("INCR written").await;
        began.elapsed()
    }

    /// Whether a write of another client is held back for 200 ms.
    pub async fn holds_writes_back(&self) -> bool {
        let write = self.send::<i64>("INCR written");
        tokio::time::timeout(Duration::from_millis(200), write).await.is_err()
    }

    /// The clients that stillpoint has.
    pub async fn sessions(&self) -> Vec<String> {
        let list: String = self.send("CLIENT LIST").await;
        list.lines().filter(|line| line.contains("name=stillpoint")).map(str::to_owned).collect()
    }

    /// How long it takes from now until stillpoint has no client left.
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
