//! The command line from outside: what it prints and how it ends, where nothing is frozen.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::process::{Command, Output};

const COMMANDS: [&str; 16] = [
    "snapshot",
    "plan",
    "status",
    "thaw",
    "recover",
    "sentinel",
    "list",
    "show",
    "bench",
    "restore",
    "detach",
    "delete",
    "hook",
    "plugin",
    "completions",
    "man",
];

fn stillpoint(args: &[&str]) -> Output {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().to_str().unwrap().to_owned();
    Command::new(env!("CARGO_BIN_EXE_stillpoint"))
        .args(["--root", &root])
        .args(args)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn help_and_the_manual_page_name_every_command() {
    let (help, man) = (stillpoint(&["--help"]), stillpoint(&["man"]));
    assert!(help.status.success() && man.status.success());
    for command in COMMANDS {
        assert!(text(&help.stdout).contains(command), "help: {command}");
        assert!(text(&man.stdout).contains(command), "man: {command}");
    }
    assert!(text(&help.stdout).contains("the file systems run again"));
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let completions = stillpoint(&["completions", shell]);
        assert!(completions.status.success());
        for command in COMMANDS {
            assert!(text(&completions.stdout).contains(command), "{shell}: {command}");
        }
    }
}

#[test]
fn wrong_parameters_end_with_2() {
    for args in [&["snapshoot"][..], &["snapshot", "--require", "best"], &["list", "extra"]] {
        let ended = stillpoint(args);
        assert_eq!(ended.status.code(), Some(2), "{args:?}");
        assert!(text(&ended.stderr).contains("--help"), "{args:?}");
    }
}

#[test]
fn what_is_not_there_is_named_with_the_next_step() {
    for (args, code, words) in [
        (&["hook", "inspect", "nobody"][..], 2, ["nobody", "hook install"]),
        (&["hook", "grant", "nobody"], 2, ["nobody", "hook install"]),
        (&["hook", "install", "/nowhere/x.wasm"], 2, ["/nowhere/x.wasm", "cannot be read"]),
        (&["thaw", "/nowhere"], 12, ["/nowhere", "could not be thawed"]),
    ] {
        let ended = stillpoint(args);
        let said = text(&ended.stderr) + &text(&ended.stdout);
        assert_eq!(ended.status.code(), Some(code), "{args:?}: {said}");
        assert!(words.iter().all(|word| said.contains(word)), "{args:?}: {said}");
    }
}

#[test]
fn an_empty_installation_says_so() {
    let list = stillpoint(&["hook", "list"]);
    assert_eq!(text(&list.stdout), "no hooks are installed\n");
    assert_eq!(
        text(&stillpoint(&["thaw"]).stdout),
        "nothing of ours is frozen: there is no journal\n"
    );
    assert_eq!(text(&stillpoint(&["recover"]).stdout), "nothing was left behind\n");
    assert_eq!(text(&stillpoint(&["--json", "hook", "list"]).stdout).trim(), "[]");
}

#[test]
fn a_failure_in_json_has_the_state_and_the_next_step() {
    let ended = stillpoint(&["--json", "hook", "inspect", "nobody"]);
    let document: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(document["exit_code"], 2);
    assert_eq!(document["schema_version"], 1);
    assert!(document["state"].as_str().unwrap().contains("file systems running"));
    assert!(document["error"]["hint"].as_str().unwrap().contains("hook install"));
}

#[test]
fn status_shows_every_file_system_that_could_be_frozen_as_running() {
    let status = stillpoint(&["--json", "status"]);
    let lines: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    let root = lines.as_array().unwrap().iter().find(|line| line["mount_point"] == "/");
    // Where / is of a type that can be frozen, it runs: we are running from it.
    assert!(root.is_none_or(|root| root["state"] != "frozen"), "{lines}");
}

#[test]
fn a_run_without_descriptors_ends_with_an_error_and_not_with_a_panic() {
    // Three are the standard streams; from some number on there are enough to get further.
    let root = tempfile::tempdir().unwrap();
    for limit in 4..=12 {
        let line = format!("ulimit -n {limit}; exec \"$0\" --root \"$1\" snapshot --name x");
        let binary = env!("CARGO_BIN_EXE_stillpoint");
        let mut command = Command::new("sh");
        let output = command.args(["-c", &line, binary]).arg(root.path()).output().unwrap();
        let said = text(&output.stderr);
        assert!(said.contains("error") && !said.contains("panicked"), "{limit} files: {said}");
        assert!(!matches!(output.status.code(), None | Some(0 | 101)), "{limit} files: {said}");
    }
}
