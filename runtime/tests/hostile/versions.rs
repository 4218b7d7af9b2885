//! Components of every published version of the contract, and of versions that are not ours.

use std::fs;
use std::path::{Path, PathBuf};

use super::module::Module;
use super::{Installation, request, whole_life};

/// The published versions, oldest first, with the folder of each one's text.
const PUBLISHED: [(&str, &str); 2] = [("since_v0_1_0", "0.1.0"), ("since_v0_1_1", "0.1.1")];

/// A hook that logs in every run, so that it imports something.
fn logging(folder: impl Into<PathBuf>, version: &str) -> Module {
    let import = format!(
        "(import \"stillpoint:hook/log@{version}\" \"write\" (func $log (param i32 i32 i32 i32 i32)))"
    );
    let call = "i32.const 2 i32.const 0 i32.const 1 i32.const 0 i32.const 0 call $log";
    Module::new()
        .contract(folder, version)
        .imports(import)
        .body("pre-freeze", format!("{call} i32.const 1024"))
}

#[tokio::test]
async fn a_component_for_the_first_published_version_runs_on_this_later_host() {
    let newest = PUBLISHED[PUBLISHED.len() - 1].1;
    for (folder, version) in PUBLISHED {
        let component = logging(folder, version).component();
        whole_life(&component).await.unwrap_or_else(|refused| panic!("{version}: {refused:?}"));

        let installation = Installation::new();
        let file = installation.file("hook.wasm", &component);
        let installed = installation.store.install(request(&file)).await.unwrap();
        assert_eq!(installed.contract, version, "and its record says what it was built for");
    }
    assert_ne!(PUBLISHED[0].1, newest, "there is a later version than the first one");
}

#[tokio::test]
async fn what_a_later_version_added_is_there_for_those_who_were_built_against_it() {
    let import = "(import \"stillpoint:hook/kv@0.1.1\" \"keys\" (func $keys (param i32)))";
    let hook = Module::new()
        .contract("since_v0_1_1", "0.1.1")
        .imports(import)
        .body("pre-freeze", "i32.const 2048 call $keys i32.const 1024");
    whole_life(&hook.component()).await.unwrap();
}

#[tokio::test]
async fn a_component_for_a_version_that_is_not_served_is_refused_with_what_to_do() {
    let installation = Installation::new();
    for version in ["0.0.9", "0.1.2", "0.2.0", "1.0.0"] {
        let folder = installation.root.path().join(version);
        fs::create_dir(&folder).unwrap();
        let text = text_of("since_v0_1_1").replace("hook@0.1.1", &format!("hook@{version}"));
        fs::write(folder.join("hook.wit"), text).unwrap();
        let component = logging(&folder, version).component();

        let file = installation.file("hook.wasm", &component);
        let error = installation.store.install(request(&file)).await.unwrap_err();
        let (said, next) = (error.to_string(), error.hint().unwrap());
        let words =
            format!("stillpoint:hook/log@{version}, and this stillpoint serves 0.1.0 to 0.1.1");
        assert!(said.contains(&words), "{said}");
        assert!(next.contains("version 0.1.1 of the contract"), "{next}");
        assert!(next.contains("or update stillpoint"), "{next}");
    }
}

/// A published text is not changed; a later one of the same line has every line of it, and more.
#[test]
fn a_later_text_only_adds_to_the_earlier_ones() {
    for pair in PUBLISHED.windows(2) {
        let [(earlier, _), (later, _)] = pair else { panic!("two") };
        let (earlier, later) = (declarations(earlier), declarations(later));
        let mut rest = later.iter();
        for line in &earlier {
            assert!(rest.any(|it| it == line), "`{line}` is changed, moved or gone");
        }
        assert!(later.len() > earlier.len(), "nothing was added");
    }
}

/// Without comments, and without the version.
fn declarations(folder: &str) -> Vec<String> {
    let text = text_of(folder);
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default().trim());
    lines
        .filter(|line| !line.is_empty() && !line.starts_with("package "))
        .map(str::to_owned)
        .collect()
}

fn text_of(folder: &str) -> String {
    let texts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hooks-sdk/wit");
    fs::read_to_string(texts.join(folder).join("hook.wit")).unwrap()
}
