//! Configuration: whatever is in the files, an answer with a place in a file, and no panic.
#![no_main]

use std::fs;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use stillpoint::config::connections::Connections;
use stillpoint::config::grants::load_grants;
use stillpoint::config::{Config, ConfigError};
use stillpoint::output::human::visible;
use stillpoint::paths::Paths;

/// Between the three files of one input.
const BETWEEN: &str = "\n=====\n";

fuzz_target!(|text: &str| {
    let mut parts = text.splitn(3, BETWEEN);
    let paths = paths();
    let config = paths.config();
    for file in ["stillpoint.toml", "connections.toml", "hooks.d/db.toml"] {
        let written = fs::write(config.join(file), parts.next().unwrap_or_default());
        assert!(written.is_ok(), "{written:?}");
    }
    judge(Config::load(paths).err());
    match Connections::load(paths) {
        Ok(connections) => judge(load_grants(paths, &connections).err()),
        Err(error) => judge(Some(error)),
    }
});

/// Line and column of a file that is there, and words.
fn judge(error: Option<ConfigError>) {
    let Some(error) = error else { return };
    let text = visible(&error.to_string());
    assert!(text.len() > 20, "{text}");
    if let ConfigError::Invalid { location, .. } = &error {
        let content = fs::read_to_string(&location.path).unwrap_or_default();
        let line = content.split('\n').nth(location.line - 1);
        let columns = line.map(|line| line.chars().count() + 1);
        assert!(columns.is_some_and(|most| location.column <= most), "{location}: {text}");
    }
    let _ = error.hint();
}

/// A directory in memory, for this process.
fn paths() -> &'static Paths {
    static PATHS: OnceLock<Paths> = OnceLock::new();
    PATHS.get_or_init(|| {
        let root = format!("/dev/shm/stillpoint-fuzz-{}", std::process::id());
        let paths = Paths::under(std::path::Path::new(&root));
        let made = fs::create_dir_all(paths.config().join("hooks.d"));
        assert!(made.is_ok(), "{made:?}");
        paths
    })
}
