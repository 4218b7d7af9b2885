//! QEMU's machine protocol, as far as a test needs it: one command, one answer.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// QEMU answers at once, whatever the machine does.
const PATIENCE: Duration = Duration::from_secs(30);

/// A conversation with QEMU.
#[derive(Debug)]
pub struct Qmp {
    reader: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects, and leaves the state in which only capabilities can be negotiated.
    ///
    /// # Errors
    /// If QEMU does not answer.
    pub fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("cannot connect to {}", socket.display()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut own = Self { reader: BufReader::new(stream) };
        own.next_line().context("no greeting")?;
        own.execute("qmp_capabilities")?;
        Ok(own)
    }

    /// Runs a command without arguments.
    ///
    /// # Errors
    /// If QEMU refuses, or is gone.
    pub fn execute(&mut self, command: &str) -> Result<Value> {
        let request = json!({ "execute": command });
        writeln!(self.reader.get_mut(), "{request}")
            .with_context(|| format!("cannot {command}"))?;
        loop {
            // Events come whenever they like, and are not answers.
            let answer: Value = serde_json::from_str(&self.next_line()?)?;
            if let Some(error) = answer.get("error") {
                bail!("{command}: {error}");
            }
            if let Some(result) = answer.get("return") {
                return Ok(result.clone());
            }
        }
    }

    fn next_line(&mut self) -> Result<String> {
        let mut line = String::new();
        match self.reader.read_line(&mut line)? {
            0 => bail!("QEMU has closed the conversation"),
            _ => Ok(line),
        }
    }
}
