//! Installing, listing and removing components, and what is refused with which words.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::os::unix::fs::PermissionsExt;

use common::{Installation, puppet, puppet_module, puppet_that_describes, request, run};
use stillpoint::capability::grant_template;
use stillpoint::hook::{HookLoadError, StoreError};

/// The refusal of a file, and its hint.
async fn refusal(bytes: &[u8]) -> (String, String) {
    let installation = Installation::new();
    let file = installation.file("hook.wasm", bytes);
    let error = installation.store.install(request(&file)).await.unwrap_err();
    let kept = installation.paths.hooks().exists() || installation.paths.images().exists();
    assert!(!kept, "a refused file leaves nothing behind");
    (error.to_string(), error.hint().unwrap_or_default())
}

/// The header of every component: an empty one, if nothing follows.
const EMPTY_COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

/// A component that imports one empty instance: `(component (import "name" (instance)))`.
fn importing(name: &str) -> Vec<u8> {
    let length = u8::try_from(name.len()).unwrap();
    let ty = [7, 3, 1, 0x42, 0]; // type section: one instance type, without declarations
    let import = [10, length + 5, 1, 0, length]; // import section: one plain name…
    let instance = [5, 0]; // …of an instance of type 0
    [EMPTY_COMPONENT, &ty, &import, name.as_bytes(), &instance].concat()
}

#[tokio::test]
async fn an_installed_hook_is_listed_inspected_and_removed() {
    let (installation, digest) = Installation::with_puppet().await;
    let store = &installation.store;

    let listed = store.list().unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].description.name, "puppet");
    assert_eq!(listed[0].digest, digest);

    let by_name = store.inspect("puppet").await.unwrap();
    let by_digest = store.inspect(&digest.to_string()).await.unwrap();
    assert_eq!(by_name.digest, by_digest.digest);
    assert!(grant_template(&by_name.description, &digest, &[]).contains(&digest.to_string()));

    store.remove("puppet").unwrap();
    assert!(store.list().unwrap().is_empty());
    let left = |path| std::fs::read_dir(path).unwrap().count();
    assert_eq!(left(installation.paths.hooks()), 0);
    assert_eq!(left(installation.paths.images()), 0);
}

#[tokio::test]
async fn a_file_is_inspected_without_being_installed() {
    let installation = Installation::new();
    let file = installation.file("hook.wasm", puppet());
    let inspection = installation.store.inspect(file.to_str().unwrap()).await.unwrap();
    assert_eq!(inspection.description.name, "puppet");
    assert!(inspection.installed.is_none());
    assert!(!installation.paths.hooks().exists());
}

#[tokio::test]
async fn only_root_can_read_what_is_installed() {
    let (installation, _) = Installation::with_puppet().await;
    for directory in [installation.paths.hooks(), installation.paths.images()] {
        let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&directory), 0o700);
        for entry in std::fs::read_dir(&directory).unwrap() {
            assert_eq!(mode(&entry.unwrap().path()), 0o600);
        }
    }
}

#[tokio::test]
async fn a_hook_that_a_grant_names_is_not_removed() {
    let (installation, digest) = Installation::with_puppet().await;
    installation.grant("db", &digest, &[], "");
    let error = installation.store.remove("puppet").unwrap_err();
    assert!(error.to_string().contains("hooks.d/db.toml grants to it"), "{error}");
    assert_eq!(installation.store.list().unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_not_there_is_named_with_what_is() {
    let (installation, _) = Installation::with_puppet().await;
    let error = installation.store.remove("oracle").unwrap_err();
    assert_eq!(error.to_string(), "no hook `oracle` is installed");
    assert_eq!(error.hint().unwrap(), "there are: puppet");
}

#[tokio::test]
async fn a_file_that_is_no_component_is_refused_with_a_remedy() {
    let core = puppet_module();
    let cut = &puppet()[..puppet().len() / 2];
    for (bytes, problem, hint) in [
        (&b"#!/bin/sh\necho no\n"[..], "it is not WebAssembly", "give the .wasm component"),
        (b"\0asm", "cut short", "copy it again"),
        (&core, "core WebAssembly module, not a component", "stillpoint hook build module.wasm"),
        (cut, "was cut short", "compare its digest"),
    ] {
        let (said, next) = refusal(bytes).await;
        assert!(said.contains(problem), "{said}");
        assert!(next.contains(hint), "{next}");
    }
}

#[tokio::test]
async fn a_compiled_image_from_outside_is_refused() {
    let (installation, _) = Installation::with_puppet().await;
    let image = std::fs::read_dir(installation.paths.images()).unwrap().next().unwrap().unwrap();
    let error = installation.store.install(request(&image.path())).await.unwrap_err();
    assert!(error.to_string().contains("images are native code and are never accepted"), "{error}");
}

#[tokio::test]
async fn an_import_that_is_not_ours_is_refused_by_name() {
    let (said, next) = refusal(&importing("wasi:sockets/tcp@0.2.0")).await;
    assert!(said.contains("it imports wasi:sockets/tcp@0.2.0, which no hook gets"), "{said}");
    for remedy in ["--stub-wasi", "--disable all", "wasm32-unknown-unknown"] {
        assert!(next.contains(remedy), "{next}");
    }
    for beyond in [
        "wasi:filesystem/types@0.2.0",
        "wasi:filesystem/preopens@0.2.3",
        "wasi:http/outgoing-handler@0.2.0",
        "wasi:cli/run@0.2.0",
        "wasi:cli/stdout@0.3.0",
        "wasi:cli/stdout@0.2.0-rc.1",
    ] {
        let (said, _) = refusal(&importing(beyond)).await;
        assert!(said.contains(&format!("it imports {beyond}, which no hook gets")), "{said}");
    }
    let (said, _) = refusal(&importing("acme:gpu/compute")).await;
    assert!(said.contains("it imports acme:gpu/compute, which no hook gets"), "{said}");
    let (said, next) = refusal(&importing("stillpoint:hook/sql2@0.9.0")).await;
    assert!(
        said.contains("stillpoint:hook/sql2@0.9.0, and this stillpoint serves 0.1.0"),
        "{said}"
    );
    assert!(next.contains("update stillpoint"), "{next}");
}

#[tokio::test]
async fn a_component_without_the_lifecycle_is_refused() {
    let (said, _) = refusal(EMPTY_COMPONENT).await;
    assert!(said.contains("does not export stillpoint:hook/lifecycle@0.1.1"), "{said}");
}

#[tokio::test]
async fn a_describe_that_traps_loops_eats_memory_or_lies_about_its_name_is_refused() {
    for (mode, words) in [
        ("trap", &["it trapped"][..]),
        // Whichever comes first: on a busy machine that is the deadline.
        ("loop", &["of processor time", "still computing at its deadline"]),
        ("eat", &["more memory than it may have"]),
        ("badname", &["it calls itself `../puppet`"]),
    ] {
        let (said, _) = refusal(&puppet_that_describes(mode)).await;
        let tells = words.iter().any(|words| said.contains(words));
        assert!(said.contains("its `describe` failed") && tells, "{said}");
    }
}

/// The error of loading a hook whose installed files were meddled with.
async fn load_after(
    meddle: impl FnOnce(&Installation, &std::path::Path, &std::path::Path),
) -> StoreError {
    let (installation, digest) = Installation::with_puppet().await;
    installation.grant("db", &digest, &[], "");
    installation.load("db", &run()).await.unwrap();
    let component = installation.paths.hooks().join(format!("{}.wasm", digest.hex()));
    let image = std::fs::read_dir(installation.paths.images()).unwrap().next().unwrap();
    meddle(&installation, &component, &image.unwrap().path());
    match installation.load("db", &run()).await.unwrap_err() {
        HookLoadError::Store { source, .. } => source,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_component_that_was_swapped_after_install_is_refused_with_both_digests() {
    let error = load_after(|_, component, _| {
        std::fs::write(component, puppet_that_describes("trap")).unwrap();
    })
    .await;
    let StoreError::Changed { recorded, found, file } = &error else { panic!("{error}") };
    assert_ne!(recorded, found);
    assert!(error.to_string().contains(&file.display().to_string()));
}

#[tokio::test]
async fn an_image_that_was_swapped_after_install_never_runs() {
    let error = load_after(|_, _, image| {
        let mut bytes = std::fs::read(image).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(image, bytes).unwrap();
    })
    .await;
    assert!(matches!(error, StoreError::Changed { .. }), "{error}");
}

#[tokio::test]
async fn an_image_that_others_can_write_or_that_is_a_link_is_refused() {
    let error = load_after(|_, _, image| {
        std::fs::set_permissions(image, std::fs::Permissions::from_mode(0o666)).unwrap();
    })
    .await;
    assert!(error.to_string().contains("mode is 0666"), "{error}");
    let error = load_after(|_, _, image| {
        let elsewhere = image.with_extension("elsewhere");
        std::fs::rename(image, &elsewhere).unwrap();
        std::os::unix::fs::symlink(elsewhere, image).unwrap();
    })
    .await;
    assert!(error.to_string().contains("symbolic link"), "{error}");
}

#[tokio::test]
async fn without_an_image_nothing_is_compiled_in_a_run() {
    let error = load_after(|_, _, image| std::fs::remove_file(image).unwrap()).await;
    assert!(matches!(error, StoreError::NoImage { .. }), "{error}");
    let hint = error.hint().unwrap();
    assert!(
        hint.starts_with("run `stillpoint hook install ") && hint.ends_with("` again"),
        "{hint}"
    );
}

#[tokio::test]
async fn an_image_for_another_engine_is_not_used() {
    let error = load_after(|installation, component, _| {
        let record = component.with_extension("json");
        let text = std::fs::read_to_string(&record).unwrap();
        let engine = installation.store.list().unwrap()[0].engine.clone();
        std::fs::write(&record, text.replace(&engine, "0000000000000000")).unwrap();
    })
    .await;
    assert!(error.to_string().contains("compiled for another version or processor"), "{error}");
}

#[tokio::test]
async fn the_same_component_can_be_installed_twice() {
    let (installation, digest) = Installation::with_puppet().await;
    assert_eq!(installation.install(puppet()).await, digest);
    assert_eq!(installation.store.list().unwrap().len(), 1);
}

#[tokio::test]
async fn a_hook_whose_settings_schema_is_none_is_refused_in_words_for_its_author() {
    let (said, next) = refusal(&puppet_that_describes("noschema")).await;
    assert!(said.contains("its settings schema cannot be used: at /type"), "{said}");
    assert!(next.contains("author"), "{next}");
}
