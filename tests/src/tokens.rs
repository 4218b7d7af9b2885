//! A token service as public registries have one: whoever gives the lab's name and password gets a
//! signed token for what was asked for, and `docker-registry` itself checks it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

use crate::command::output_of;
use crate::registry::LOGIN;

/// What a registry is told of its token service.
pub const SERVICE: &str = "registry-of-the-lab";
/// Who signs the tokens.
pub const ISSUER: &str = "lab";

/// A running token service; it ends with the test's process.
#[derive(Debug)]
pub struct Tokens {
    address: String,
    directory: PathBuf,
    scopes: Arc<Mutex<Vec<String>>>,
}

impl Tokens {
    /// Starts one, with a key of its own.
    ///
    /// # Errors
    /// If the key cannot be made, or no port is free.
    pub fn start(directory: PathBuf) -> Result<Self> {
        let (key, certificate) = (directory.join("token.key"), directory.join("token.pem"));
        let mut make = Command::new("openssl");
        make.args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=t",
        ]);
        output_of(make.arg("-keyout").arg(&key).arg("-out").arg(&certificate))?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let scopes = Arc::new(Mutex::new(Vec::new()));
        let (heard, home) = (scopes.clone(), directory.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if let Err(error) = answer(stream, &home, &heard) {
                    eprintln!("the token service: {error:#}");
                }
            }
        });
        Ok(Self { address, directory, scopes })
    }

    /// Where tokens are asked for.
    #[must_use]
    pub fn realm(&self) -> String {
        format!("http://{}/token", self.address)
    }

    /// The certificate by which the registry checks tokens.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.directory.join("token.pem")
    }

    /// What tokens were asked for, since the last time this was called.
    #[must_use]
    pub fn scopes(&self) -> Vec<String> {
        self.scopes.lock().map(|mut scopes| std::mem::take(&mut *scopes)).unwrap_or_default()
    }
}

fn answer(mut stream: TcpStream, home: &Path, heard: &Mutex<Vec<String>>) -> Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let line = lines.next().context("no request")??;
    let mut allowed = false;
    for header in lines {
        let header = header?;
        if header.is_empty() {
            break;
        }
        let basic = header.split_once(": Basic ").map(|(_, value)| value.to_owned());
        allowed |= basic == Some(base64(format!("{}:{}", LOGIN.0, LOGIN.1).as_bytes(), home)?);
    }
    let scope = line.split("scope=").nth(1).and_then(|rest| rest.split([' ', '&']).next());
    let scope =
        scope.context("no scope")?.replace("%3A", ":").replace("%2C", ",").replace("%2F", "/");
    if let Ok(mut scopes) = heard.lock() {
        scopes.push(scope.clone());
    }
    let (status, body) = match allowed {
        true => ("200 OK", format!("{{\"token\": \"{}\"}}", token(&scope, home)?)),
        false => ("401 Unauthorized", "{}".to_owned()),
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    Ok(())
}

/// A JSON web token for `repository:NAME:ACTIONS`, as the distribution's token protocol has it.
fn token(scope: &str, home: &Path) -> Result<String> {
    let mut parts = scope.splitn(3, ':');
    let (kind, name, actions) = (parts.next(), parts.next(), parts.next());
    let pem = fs::read_to_string(home.join("token.pem"))?;
    let der: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let header = serde_json::json!({ "typ": "JWT", "alg": "RS256", "x5c": [der] });
    let claims = serde_json::json!({
        "iss": ISSUER, "sub": LOGIN.0, "aud": SERVICE, "jti": now.to_string(),
        "iat": now, "nbf": now - 60, "exp": now + 300,
        "access": [{ "type": kind, "name": name,
                     "actions": actions.unwrap_or_default().split(',').collect::<Vec<_>>() }],
    });
    let url = |text: String| text.replace('+', "-").replace('/', "_").replace('=', "");
    let signed = format!(
        "{}.{}",
        url(base64(header.to_string().as_bytes(), home)?),
        url(base64(claims.to_string().as_bytes(), home)?)
    );
    let text = home.join("to-sign");
    fs::write(&text, &signed)?;
    let out = home.join("signature");
    let mut sign = Command::new("openssl");
    sign.args(["dgst", "-sha256", "-sign"]).arg(home.join("token.key"));
    output_of(sign.arg("-out").arg(&out).arg(&text))?;
    Ok(format!("{signed}.{}", url(base64(&fs::read(out)?, home)?)))
}

fn base64(bytes: &[u8], home: &Path) -> Result<String> {
    let mut command = Command::new("base64");
    let mut child = command
        .arg("-w0")
        .current_dir(home)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("no standard input")?.write_all(bytes)?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "base64 failed");
    Ok(String::from_utf8(output.stdout)?)
}
