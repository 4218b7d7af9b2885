//! The zip that Cloud Assistant's plug-in manager installs: `config.json`, the binary under the name
//! by which it knows that it is the plug-in, and a page for whoever opens it.

use std::io::{Cursor, Write};

use anyhow::{Context, Result, bail};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

/// The plug-in's name for the manager. Not the original's: of two plug-ins of one name the manager
/// takes the one of its online list.
pub const NAME: &str = "stillpoint-snapshot-plugin";

/// The program in the zip; `stillpoint` behaves as the plug-in under this name.
pub const ENTRY_POINT: &str = "app-snapshot-plugin";

/// After how many seconds the manager kills the plug-in: more than twice the default time of a
/// script, the preparations, the longest window, and the wait for the members, together.
pub const TIMEOUT_SECONDS: u32 = 5400;

/// Where the machine is named in an ELF header (`e_machine`), and two of its values.
const E_MACHINE: std::ops::Range<usize> = 18..20;
const EM_X86_64: u16 = 62;
const EM_AARCH64: u16 = 183;

const README: &str = "\
stillpoint in place of app-snapshot-plugin, for Cloud Assistant's plug-in manager.

  acs-plugin-manager --exec --file stillpoint-snapshot-plugin.zip --params='-RamRoleName=…,-Name=…'
  acs-plugin-manager --exec --local --plugin stillpoint-snapshot-plugin --params='…'

The first installs and runs it, the second runs what is installed. Parameters, lines and exit codes
are those of app-snapshot-plugin; `./app-snapshot-plugin -h` lists them. The whole page is
docs/alibaba.md of the source.
";

/// The package with `binary` as its program. The same input gives the same bytes.
///
/// # Errors
/// If the binary is not a Linux program for a machine that the manager has a word for.
pub fn package(binary: &[u8], version: &str) -> Result<Vec<u8>> {
    let config = config(arch(binary)?, version)?;
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let files: [(&str, u32, &[u8]); 3] = [
        ("config.json", 0o644, config.as_bytes()),
        ("README.txt", 0o644, README.as_bytes()),
        (ENTRY_POINT, 0o744, binary),
    ];
    for (name, mode, content) in files {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .last_modified_time(DateTime::default())
            .unix_permissions(mode);
        zip.start_file(name, options).with_context(|| format!("cannot begin {name}"))?;
        zip.write_all(content).with_context(|| format!("cannot write {name}"))?;
    }
    Ok(zip.finish().context("cannot end the zip")?.into_inner())
}

/// The manager's word for the machine that a program is for.
fn arch(binary: &[u8]) -> Result<&'static str> {
    if !binary.starts_with(b"\x7fELF") {
        bail!("this is no Linux program");
    }
    let machine = binary.get(E_MACHINE).and_then(|bytes| bytes.try_into().ok());
    match machine.map(u16::from_le_bytes) {
        Some(EM_X86_64) => Ok("x64"),
        Some(EM_AARCH64) => Ok("arm"),
        other => bail!("the manager has no word for the machine of this program ({other:?})"),
    }
}

/// `config.json`, with every field that the manager reads; `timeout` is text there.
fn config(arch: &str, version: &str) -> Result<String> {
    let config = serde_json::json!({
        "name": NAME,
        "arch": arch,
        "osType": "linux",
        "runPath": ENTRY_POINT,
        "timeout": TIMEOUT_SECONDS.to_string(),
        "publisher": "stillpoint",
        "version": version,
        "pluginType": "Once",
        "heartbeatInterval": 60,
        "addSysTag": false,
    });
    Ok(serde_json::to_string_pretty(&config)? + "\n")
}
