//! The minimal part of WASI, for components of tool chains that cannot do without: clocks, random
//! numbers, standard output and error into the hook's log, an empty environment, exit. Standard input
//! is empty and nothing is a terminal. No files and no sockets: those interfaces are not linked, and a
//! component that imports one of them is refused when it is installed.

use crate::config::grants::Wasi;

use super::PowersError;

/// What is linked with `wasi = "minimal"`, each in any version 0.2.
const MINIMAL: [&str; 18] = [
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/stderr",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:cli/terminal-stderr",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/random",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
];

/// How an author builds a component that needs no WASI.
pub(crate) const STUB: &str = "rebuild it without WASI: Python with `componentize-py … --stub-wasi`; JavaScript with `jco componentize --disable all`, or with QuickJS and `--backend-qjs-stub-wasi`; Rust for wasm32-unknown-unknown; C and Zig without stdio";

/// True if an import is one that `wasi = "minimal"` has.
pub(crate) fn is_minimal(import: &str) -> bool {
    let Some((interface, version)) = import.split_once('@') else { return false };
    let mut parts = version.splitn(3, '.');
    let compatible = parts.next() == Some("0")
        && parts.next() == Some("2")
        // A pre-release is compatible with nothing but itself.
        && parts.next().is_some_and(|patch| patch.bytes().all(|byte| byte.is_ascii_digit()));
    compatible && MINIMAL.contains(&interface)
}

/// What of WASI a hook imports, and whether it is granted.
#[derive(Clone, Debug, Default)]
pub(crate) struct WasiPower {
    asked: bool,
    granted: bool,
}

impl WasiPower {
    pub(super) fn granted(grant: Wasi) -> Self {
        Self { asked: false, granted: grant == Wasi::Minimal }
    }

    /// A component that imports it cannot even be instantiated without.
    pub(super) fn ask(&mut self, imports: &[String], grant_file: &str) -> Result<(), PowersError> {
        self.asked = true;
        if self.granted {
            return Ok(());
        }
        Err(PowersError::Missing(
            format!("it imports {}, and WASI is not granted", imports.join(", ")),
            format!(
                "add `wasi = \"minimal\"` at the top of {grant_file} (clocks, random numbers, output into the log, exit; no files, no sockets); or {STUB}"
            ),
        ))
    }

    pub(super) fn is_agreed(&self) -> bool {
        self.asked && self.granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minimal_part_is_known_in_every_compatible_version_and_nothing_else_is() {
        for import in [
            "wasi:cli/stdout@0.2.0",
            "wasi:clocks/monotonic-clock@0.2.3",
            "wasi:io/streams@0.2.12",
            "wasi:random/random@0.2.6",
        ] {
            assert!(is_minimal(import), "{import}");
        }
        for import in [
            "wasi:cli/stdout",
            "wasi:cli/stdout@0.3.0",
            "wasi:cli/stdout@0.2.0-rc-2023-11-10",
            "wasi:cli/run@0.2.0",
            "wasi:filesystem/types@0.2.0",
            "wasi:filesystem/preopens@0.2.0",
            "wasi:sockets/tcp@0.2.0",
            "wasi:http/types@0.2.0",
            "evil:cli/stdout@0.2.0",
        ] {
            assert!(!is_minimal(import), "{import}");
        }
    }

    #[test]
    fn what_is_imported_must_be_granted_and_what_is_granted_must_be_imported() {
        let imports = ["wasi:cli/stdout@0.2.0".to_owned()];
        let mut power = WasiPower::granted(Wasi::Minimal);
        assert!(!power.is_agreed(), "nothing is linked that is not imported");
        power.ask(&imports, "/etc/db.toml").unwrap();
        assert!(power.is_agreed());

        let mut power = WasiPower::granted(Wasi::None);
        let PowersError::Missing(message, hint) = power.ask(&imports, "/etc/db.toml").unwrap_err()
        else {
            panic!("not refused as missing");
        };
        assert_eq!(message, "it imports wasi:cli/stdout@0.2.0, and WASI is not granted");
        assert!(hint.contains("`wasi = \"minimal\"` at the top of /etc/db.toml"), "{hint}");
        assert!(hint.contains("--stub-wasi"), "{hint}");
        assert!(!power.is_agreed());
    }
}
