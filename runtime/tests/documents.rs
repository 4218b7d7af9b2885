//! What is checked in is what the program writes and reads: schemas, and the README's examples.
//! `UPDATE_SCHEMAS=1 cargo test --test documents` writes the schemas anew.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use schemars::{JsonSchema, schema_for};
use stillpoint::bench::BenchDocument;
use stillpoint::config::Config;
use stillpoint::config::connections::Connections;
use stillpoint::freeze::{FileSystemOutcome, StatusLine};
use stillpoint::hook::testkit::{Conformance, RunReport};
use stillpoint::manifest::Manifest;
use stillpoint::output::inspect::InspectDocument;
use stillpoint::output::json::{
    BundleDocument, FailureDocument, PlanDocument, PushDocument, RunDocument, VerifyDocument,
};
use stillpoint::paths::Paths;
use stillpoint::provider::{AttachedCopy, GroupSummary};
use stillpoint::report::{RunRecord, Summary};
use stillpoint::verify::Verification;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn check<T: JsonSchema>(file: &str) {
    let path = repository().join("docs").join(file);
    let schema = serde_json::to_string_pretty(&schema_for!(T)).unwrap() + "\n";
    if std::env::var_os("UPDATE_SCHEMAS").is_some() {
        fs::write(&path, &schema).unwrap();
    }
    let checked_in = fs::read_to_string(&path).unwrap_or_default();
    assert!(checked_in == schema, "{} is not what the types say", path.display());
}

#[test]
fn the_schema_of_the_manifest_is_checked_in() {
    check::<Manifest>("manifest.schema.json");
}

#[test]
fn the_schemas_of_the_commands_output_are_checked_in() {
    check::<RunDocument>("snapshot.schema.json");
    check::<PlanDocument>("plan.schema.json");
    check::<RunRecord>("run.schema.json");
    check::<Vec<Summary>>("runs.schema.json");
    check::<BenchDocument>("bench.schema.json");
    check::<RunReport>("hook-test.schema.json");
    check::<Conformance>("hook-conformance.schema.json");
    check::<InspectDocument>("inspect.schema.json");
    check::<VerifyDocument>("verify.schema.json");
    check::<Verification>("verification.schema.json");
    check::<PushDocument>("push.schema.json");
    check::<BundleDocument>("bundle.schema.json");
    check::<FailureDocument>("failure.schema.json");
    check::<Vec<StatusLine>>("status.schema.json");
    check::<Vec<FileSystemOutcome>>("thaw.schema.json");
    check::<Vec<GroupSummary>>("list.schema.json");
    check::<Vec<AttachedCopy>>("restore.schema.json");
}

#[test]
fn the_settings_of_alibaba_are_those_that_the_page_says() {
    let page = fs::read_to_string(repository().join("docs/alibaba.md")).unwrap();
    let block = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let root = tempfile::tempdir().unwrap();
    let paths = Paths::under(root.path());
    let load = |text: &str| {
        fs::create_dir_all(paths.config()).unwrap();
        fs::write(Config::path(&paths), text).unwrap();
        Config::load(&paths).unwrap().provider
    };
    let settings = load(block).alibaba.settings(&paths);
    assert_eq!(settings, load("").alibaba.settings(&paths), "these are the defaults");
    // What is in a comment is a setting, too.
    let commented: String = block
        .lines()
        .map(|line| line.trim_start_matches("# "))
        .fold(String::new(), |text, line| text + line + "\n");
    assert_eq!(load(&commented).alibaba.role.as_deref(), Some("AppSnapshotRoleName"));
}

/// The text of the README's nth block of TOML.
fn readme_toml(n: usize) -> String {
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    let block = readme.split("```toml\n").nth(n + 1).unwrap();
    block.split("```").next().unwrap().to_owned()
}

fn installation(file: &str, text: &str) -> (tempfile::TempDir, Paths) {
    let root = tempfile::tempdir().unwrap();
    let paths = Paths::under(root.path());
    fs::create_dir_all(paths.config()).unwrap();
    let path = paths.config().join(file);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    (root, paths)
}

#[test]
fn the_readmes_configuration_is_read_and_says_the_defaults_where_it_says_so() {
    let (_root, paths) = installation("stillpoint.toml", &readme_toml(0));
    let config = Config::load(&paths).unwrap();
    let shown = format!("{:?} {:?}", config.deadlines, config.scripts);
    let defaults = Config::default();
    assert_eq!(shown, format!("{:?} {:?}", defaults.deadlines, defaults.scripts));
    assert_eq!(config.snapshot.mounts.len(), 2);
}

#[test]
fn the_readmes_connections_are_read() {
    let (_root, paths) = installation("connections.toml", &readme_toml(1));
    let connections = Connections::load(&paths).unwrap();
    assert_eq!(connections.names().collect::<Vec<_>>(), ["cache", "cluster", "main"]);
}

#[test]
fn the_readmes_trusted_key_and_revocations_are_read() {
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    let blocks: Vec<&str> = readme.split("```toml\n").skip(1).collect();
    let block = |word: &str| {
        let block = blocks.iter().find(|block| block.starts_with(word)).unwrap();
        block.split("```").next().unwrap()
    };
    let (_root, paths) = installation("revoked.toml", block("digests"));
    let (_, public) = stillpoint::hook::vetting::SecretKey::generate(None).unwrap();
    fs::create_dir(paths.keys()).unwrap();
    fs::write(paths.keys().join("acme.pub"), public.to_text().unwrap()).unwrap();
    fs::write(paths.keys().join("acme.toml"), block("hooks")).unwrap();
    let vetting = stillpoint::hook::vetting::Vetting::load(&paths).unwrap();
    assert_eq!(
        vetting.keys().iter().map(|key| key.hooks()).collect::<Vec<_>>(),
        [["mysql", "acme-*"]]
    );
}

#[test]
fn a_wrong_configuration_is_refused_with_file_line_and_column() {
    for (text, place, word) in [
        ("[snapshot]\nmount = [\"/srv\"]\n", "stillpoint.toml:2:1", "mount"),
        ("[deadlines]\nfreeze = \"31s\"\n", "stillpoint.toml:2:10", "30s"),
        ("[deadlines]\nfreeze = \"0s\"\n", "stillpoint.toml:2:10", "0s"),
        ("[deadlines]\nsync = \"soon\"\n", "stillpoint.toml:2:8", "soon"),
        ("[provider]\nkind = \"tape\"\n", "stillpoint.toml:2:8", "tape"),
        ("[snapshot]\nrequire = \"best\"\n", "stillpoint.toml:2:11", "best"),
        ("[snapshot\n", "stillpoint.toml:1", ""),
    ] {
        let (_root, paths) = installation("stillpoint.toml", text);
        let error = Config::load(&paths).unwrap_err().to_string();
        assert!(error.contains(place) && error.contains(word), "{text}: {error}");
    }
}

#[test]
fn a_configuration_that_others_may_write_is_refused() {
    let (_root, paths) = installation("stillpoint.toml", "");
    let file = Config::path(&paths);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    let error = Config::load(&paths).unwrap_err();
    assert!(error.to_string().contains("not trusted"), "{error}");
    assert!(error.hint().is_some());
}
