//! A registry of the lab's own: Debian's `docker-registry` on loopback, with its own data, with TLS
//! and a login where a test wants them.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::command::{output_of, run};
use crate::lab::Lab;
use crate::tokens::{ISSUER, SERVICE};

/// The name and password of a registry that wants a login.
pub const LOGIN: (&str, &str) = ("operator", "a-secret-that-nobody-prints");

/// What kind of registry.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// With a certificate of an authority of its own.
    pub tls: bool,
    /// With a login: [`LOGIN`].
    pub login: bool,
    /// With tokens of a service, as public registries.
    pub tokens: Option<(String, PathBuf)>,
    /// Blobs are not sent, but this address is, as registries do that store them elsewhere.
    pub redirect: Option<String>,
}

/// A running registry. Killed when dropped.
#[derive(Debug)]
pub struct Registry {
    process: Child,
    address: String,
    directory: PathBuf,
    // Its log is read to the end, so that it never waits for a reader.
    log: Option<std::thread::JoinHandle<()>>,
}

impl Registry {
    /// Starts one with data in `scratch/NAME` of the lab, and waits until it listens.
    ///
    /// # Errors
    /// If a program is missing, or the registry does not start; with what it logged.
    pub fn start(lab: &Lab, name: &str, options: &Options) -> Result<Self> {
        let directory = lab.scratch(name)?;
        if options.tls {
            make_certificate(&directory)?;
        }
        if options.login {
            make_login(&directory)?;
        }
        let config = directory.join("config.yml");
        fs::write(&config, configuration(&directory, options))?;
        let mut process = lab
            .command("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start docker-registry: apt-get install docker-registry")?;
        let stderr = process.stderr.take().context("it has no standard error")?;
        let mut own = Self { process, address: String::new(), directory, log: None };
        own.wait_until_it_listens(stderr)?;
        Ok(own)
    }

    /// Host and port.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A reference into it: `oci://127.0.0.1:PORT/REST`.
    #[must_use]
    pub fn reference(&self, rest: &str) -> String {
        format!("oci://{}/{rest}", self.address)
    }

    /// The authority that signed its certificate.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// A directory as `DOCKER_CONFIG` names it, in which somebody has logged in.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn docker_config(&self, user: &str, password: &str) -> Result<PathBuf> {
        let directory = self.directory.join(format!("docker-{user}-{}", password.len()));
        fs::create_dir_all(&directory)?;
        let auth = base64(&format!("{user}:{password}"))?;
        let file = directory.join("config.json");
        let text = format!(r#"{{"auths": {{"{}": {{"auth": "{auth}"}}}}}}"#, self.address);
        fs::write(&file, text)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        Ok(directory)
    }

    /// The file in which the registry keeps a blob or manifest; `digest` is `sha256:…`.
    ///
    /// # Errors
    /// If it has none.
    pub fn stored(&self, digest: &str) -> Result<PathBuf> {
        let hex = digest.strip_prefix("sha256:").context("not a digest")?;
        let path = self
            .directory
            .join("data/docker/registry/v2/blobs/sha256")
            .join(&hex[..2])
            .join(hex)
            .join("data");
        ensure!(path.is_file(), "the registry has no {digest}");
        Ok(path)
    }

    /// A document of it, as any client would get it.
    ///
    /// # Errors
    /// If there is none.
    pub fn get(&self, path: &str, accept: &str) -> Result<String> {
        let url = format!("http://{}{path}", self.address);
        run("curl", ["-sSf", "-H", &format!("Accept: {accept}"), &url])
    }

    fn wait_until_it_listens(&mut self, stderr: ChildStderr) -> Result<()> {
        let mut lines = BufReader::new(stderr).lines();
        let mut said = String::new();
        for line in lines.by_ref() {
            let line = line?;
            if let Some((_, rest)) = line.split_once("listening on ") {
                self.address = rest.split(['"', ',', ' ']).next().unwrap_or_default().to_owned();
                self.log = Some(std::thread::spawn(move || lines.for_each(drop)));
                return Ok(());
            }
            said.push_str(&line);
            said.push('\n');
        }
        bail!("docker-registry ended at its start:\n{said}")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if let Some(log) = self.log.take() {
            let _ = log.join();
        }
    }
}

fn configuration(directory: &Path, options: &Options) -> String {
    let at = |name: &str| directory.join(name).display().to_string();
    let mut text = format!(
        "version: 0.1\nlog: {{level: info, accesslog: {{disabled: true}}}}\n\
         storage: {{filesystem: {{rootdirectory: {}}}}}\n",
        at("data")
    );
    text.push_str("http:\n  addr: 127.0.0.1:0\n");
    if options.tls {
        text.push_str(&format!(
            "  tls: {{certificate: {}, key: {}}}\n",
            at("server.pem"),
            at("server.key")
        ));
    }
    if options.login {
        text.push_str(&format!("auth: {{htpasswd: {{realm: lab, path: {}}}}}\n", at("htpasswd")));
    }
    if let Some((realm, certificate)) = &options.tokens {
        let certificate = certificate.display();
        text.push_str(&format!(
            "auth: {{token: {{realm: \"{realm}\", service: {SERVICE}, issuer: {ISSUER}, rootcertbundle: {certificate}}}}}\n"
        ));
    }
    if let Some(to) = &options.redirect {
        text.push_str(&format!(
            "middleware: {{storage: [{{name: redirect, options: {{baseurl: \"{to}\"}}}}]}}\n"
        ));
    }
    text
}

/// An authority, and a certificate of it for 127.0.0.1.
fn make_certificate(directory: &Path) -> Result<()> {
    let at = |name: &str| directory.join(name).display().to_string();
    let common = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let request = |more: &[&str]| {
        let mut all = vec!["req"];
        all.extend(common);
        all.extend(["-days", "2"]);
        all.extend(more);
        run("openssl", all)
    };
    let (ca, ca_key) = (at("ca.pem"), at("ca.key"));
    request(&["-subj", "/CN=Authority of the lab", "-out", &ca, "-keyout", &ca_key])?;
    let of = ["-CA", ca.as_str(), "-CAkey", ca_key.as_str(), "-subj", "/CN=registry"];
    let names =
        ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"];
    let (certificate, key) = (at("server.pem"), at("server.key"));
    let out = ["-out", certificate.as_str(), "-keyout", key.as_str()];
    request(&[of.as_slice(), &names, &out].concat())?;
    Ok(())
}

/// The password goes in by standard input, as it should.
fn make_login(directory: &Path) -> Result<()> {
    let mut htpasswd = Command::new("htpasswd")
        .args(["-i", "-B", "-C", "5", "-c"])
        .arg(directory.join("htpasswd"))
        .arg(LOGIN.0)
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start htpasswd: apt-get install apache2-utils")?;
    let mut stdin = htpasswd.stdin.take().context("it has no standard input")?;
    writeln!(stdin, "{}", LOGIN.1)?;
    drop(stdin);
    ensure!(htpasswd.wait()?.success(), "htpasswd failed");
    Ok(())
}

fn base64(text: &str) -> Result<String> {
    let mut command = Command::new("sh");
    command.args(["-c", "printf %s \"$1\" | base64 -w0", "sh", text]);
    output_of(&mut command)
}
