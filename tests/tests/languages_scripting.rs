//! The example hooks in JavaScript, TypeScript and Python: built by the ordinary tools of the language,
//! tested by its ordinary tests, and run against the real server.

#![expect(clippy::print_stdout, reason = "the figures are for whoever reads the tests")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use stillpoint_tests::command::{describe, output_of};
use stillpoint_tests::example_hooks::{NAME, SCRIPTING, built, project};
use stillpoint_tests::rig::Rig;
use stillpoint_tests::stillpoint::{NO_SCRIPTS, binary, workspace};

const LONGEST: Duration = Duration::from_secs(900);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_same_hook_in_each_language_takes_a_snapshot_that_is_proved() -> Result<()> {
    let mut rig = Rig::without_hook(LONGEST)?;
    for language in SCRIPTING {
        let Some(component) = built(language)? else { continue };
        rig.stillpoint = rig.stillpoint.on_another_root(language)?;
        rig.stillpoint.configure(&rig.stillpoint.settings(&rig.lab, NO_SCRIPTS))?;
        prove(&rig, language, &component).await.context(language)?;
    }
    rig.finish()
}

/// Everything goes wrong for it, one at a time, against the server of its template's script.
#[test]
fn each_conforms_whatever_goes_wrong() -> Result<()> {
    for language in SCRIPTING {
        let Some(component) = built(language)? else { continue };
        let script = project(language).join("fake.toml");
        let mut test = Command::new(binary()?);
        test.args(["hook", "test"]).arg(&component).arg("--script").arg(script);
        let output = test.arg("--conformance").output()?;
        ensure!(output.status.success(), "{language}: {}", describe(&test, &output));
    }
    Ok(())
}

/// Installed without WASI, granted, run under load; the copy has what was acknowledged, and no more.
async fn prove(rig: &Rig, language: &str, component: &Path) -> Result<()> {
    rig.stillpoint.connect_to(rig.server.socket())?;
    let began = Instant::now();
    rig.stillpoint.sign_and_install(component)?;
    let installed = began.elapsed();
    rig.stillpoint.run(["hook", "grant", NAME, "--accept"])?.succeeded()?;
    let grant = fs::read_to_string(rig.stillpoint.config_file("hooks.d/mariadb-lock.toml"))?;
    ensure!(!grant.contains("minimal"), "it wants WASI: {grant}");
    let template = fs::read_to_string(project(language).join("grant.toml"))?;
    for statement in template.lines().filter(|line| line.starts_with("    \"")) {
        ensure!(grant.contains(statement), "grant.toml has {statement}, which it does not ask for");
    }

    let proof = rig.prove(language).await?;
    let told = proof.run.description();
    ensure!(proof.manifest.level()? == "application", "{told}");
    ensure!(proof.manifest.reason_codes()?.is_empty(), "{told}");
    ensure!(proof.manifest.saved(NAME, "binlog-file")?.is_some(), "{told}");
    let verdict = proof.verdict.into_result()?;
    ensure!(verdict.had_to_be_there > 0 && verdict.could_not_be_there > 0, "{verdict:?}");
    println!(
        "{language}: installed in {:.1} s, {} rows, {} had to be there, {} could not",
        installed.as_secs_f64(),
        verdict.rows,
        verdict.had_to_be_there,
        verdict.could_not_be_there,
    );
    Ok(())
}

/// What the SDKs make of answers and errors, by their own unit tests.
#[test]
fn the_unit_tests_of_the_sdks_pass() -> Result<()> {
    let sdks: [(&str, &[&str]); 2] = [
        ("javascript", &["node", "--test", "test/sdk.test.js"]),
        ("python", &["python3", "-B", "-m", "unittest", "tests.test_sdk"]),
    ];
    for (language, words) in sdks {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).current_dir(workspace().join("hooks-sdk").join(language));
        let output = command.output().with_context(|| format!("{words:?}"))?;
        ensure!(output.status.success(), "{}", describe(&command, &output));
    }
    Ok(())
}

/// What a user types in a new project, before there is a server or a component.
#[test]
fn the_unit_tests_of_each_language_pass() -> Result<()> {
    for language in SCRIPTING {
        if built(language)?.is_none() {
            continue;
        }
        let words: &[&str] = match language {
            "python" => &["python3", "-m", "unittest"],
            _ => &["npm", "test", "--silent"],
        };
        let mut command = Command::new(words[0]);
        let output = command.args(&words[1..]).current_dir(project(language)).output()?;
        ensure!(output.status.success(), "{}", describe(&command, &output));
    }
    Ok(())
}

/// As the tool's own documents have it, and not ours: with the whole of WASI, which no grant can give.
#[test]
fn a_component_that_was_not_stubbed_is_refused_with_the_flag_that_rebuilds_it() -> Result<()> {
    if built("python")?.is_none() {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let component = directory.path().join("whole.wasm");
    let project = project("python");
    let mut tool = Command::new(project.join(".venv/bin/componentize-py"));
    tool.args(["-d", "wit", "-w", "hook", "componentize", "app", "-o"]).arg(&component);
    output_of(tool.current_dir(&project))?;
    let mut inspect = Command::new(binary()?);
    inspect.arg("--root").arg(directory.path()).args(["hook", "inspect"]).arg(&component);
    let output = inspect.output()?;
    let told = describe(&inspect, &output);
    ensure!(!output.status.success(), "{told}");
    for words in ["wasi:filesystem/types", "wasi:sockets/tcp", "--stub-wasi"] {
        ensure!(told.contains(words), "no {words}: {told}");
    }
    Ok(())
}

/// Python's bindings are kept in the SDK for editors and unit tests: they are those of the contract.
#[test]
fn the_bindings_that_are_kept_for_python_are_what_its_tool_generates() -> Result<()> {
    if built("python")?.is_none() {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let wit = workspace().join("hooks-sdk/wit/since_v0_1_1");
    let mut tool = Command::new(project("python").join(".venv/bin/componentize-py"));
    tool.arg("-d").arg(wit).args(["-w", "hook", "bindings"]).arg(directory.path());
    output_of(&mut tool)?;
    let kept = workspace().join("hooks-sdk/python/stillpoint_hook/_bindings");
    let mut compared = Command::new("diff");
    compared.args(["-r", "-x", "__pycache__"]).arg(kept.join("wit_world"));
    compared.arg(directory.path().join("wit_world"));
    let output = compared.output()?;
    ensure!(
        output.status.success(),
        "next: componentize-py -d hooks-sdk/wit/since_v0_1_1 -w hook bindings hooks-sdk/python/stillpoint_hook/_bindings\n{}",
        describe(&compared, &output)
    );
    Ok(())
}

/// A new project is the example under another name, so that what is tested here is what users begin with.
#[test]
fn the_templates_are_the_examples() -> Result<()> {
    for language in SCRIPTING {
        let (template, example) =
            (workspace().join("templates"), workspace().join("examples/hooks"));
        let (template, example) = (template.join(language), example.join(language));
        let mut compared = 0;
        for file in files_below(&template)? {
            let name = file.strip_prefix(&template)?;
            let beside =
                if name == Path::new("gitignore") { Path::new(".gitignore") } else { name };
            let filled = fs::read_to_string(&file)?.replace("{{name}}", NAME);
            ensure!(
                filled == fs::read_to_string(example.join(beside))?,
                "templates/{language}/{0} and examples/hooks/{language}/{0} differ",
                name.display()
            );
            compared += 1;
        }
        ensure!(compared >= 6, "{language}: only {compared} files");
    }
    Ok(())
}

fn files_below(directory: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() { files.extend(files_below(&path)?) } else { files.push(path) }
    }
    Ok(files)
}
