//! Hooks in Rust, C and Zig as their authors make them: begun with `hook new`, built with `hook build`, and
//! then in a snapshot of a real server that is restored and proved. And what somebody is told who does it
//! wrong.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use stillpoint_tests::example_hooks::ran;
use stillpoint_tests::rig::Rig;
use stillpoint_tests::stillpoint::{binary, workspace};

const LANGUAGES: [&str; 3] = ["c", "zig", "rust"];

/// Where each runs its unit tests.
fn unit_tests(language: &str) -> &'static [&'static str] {
    match language {
        "rust" => &["cargo", "test", "--quiet"],
        _ => &["make", "--silent", "test"],
    }
}

/// The tools of the languages. Absent only if they cannot be had, and `STILLPOINT_OFFLINE=1` says that this
/// is to be expected.
fn tools() -> Result<Option<Tools>> {
    let Some(bin) = ran("scripts/setup-languages", &[])? else { return Ok(None) };
    let path = std::env::var("PATH").unwrap_or_default();
    Ok(Some(Tools { path: format!("{}:{path}", bin.trim()) }))
}

#[derive(Debug)]
struct Tools {
    path: String,
}

impl Tools {
    /// A command with the tools in its path, and with what they keep in `target/`.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>, directory: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(directory)
            .env("PATH", &self.path)
            .env("CARGO_TARGET_DIR", workspace().join("target/languages"))
            .env("ZIG_GLOBAL_CACHE_DIR", workspace().join("target/languages/zig"));
        command
    }

    fn stillpoint(&self, directory: &Path, arguments: &[&str]) -> Result<Ended> {
        Ended::of(self.command(binary()?, directory).arg("--json").args(arguments))
    }

    /// Everything goes wrong for the hook, one at a time, against the server of its template's script.
    fn conforms(&self, project: &Path, name: &str) -> Result<Ended> {
        let component = format!("{name}.wasm");
        let line = ["hook", "test", &component, "--script", "fake.toml", "--conformance"];
        self.stillpoint(project, &line)
    }

    /// A new project of that name.
    fn new_project(&self, directory: &Path, name: &str, language: &str) -> Result<PathBuf> {
        self.stillpoint(directory, &["hook", "new", name, "--lang", language])?.succeeded()?;
        Ok(directory.join(name))
    }
}

/// What became of a command.
struct Ended {
    ok: bool,
    stdout: String,
    stderr: String,
}

impl Ended {
    fn of(command: &mut Command) -> Result<Self> {
        let output = command.output().with_context(|| format!("{command:?}"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Self {
            ok: output.status.success(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        })
    }

    fn succeeded(&self) -> Result<Value> {
        ensure!(self.ok, "it failed:\n{}\n{}", self.stdout, self.stderr);
        Ok(serde_json::from_str(&self.stdout).unwrap_or(Value::Null))
    }

    /// Message and hint of a failure.
    fn refused(&self) -> Result<(String, String)> {
        ensure!(!self.ok, "it succeeded:\n{}", self.stdout);
        let document: Value = serde_json::from_str(&self.stdout)
            .with_context(|| format!("{}\n{}", self.stdout, self.stderr))?;
        let text = |key: &str| document["error"][key].as_str().unwrap_or_default().to_owned();
        Ok((text("message"), text("hint")))
    }

    /// A failure that says this, and whose hint has this command in it.
    fn says(&self, what: &str, next: &str) -> Result<()> {
        let (message, hint) = self.refused()?;
        ensure!(message.contains(what), "not `{what}`: {message}\n{hint}\n{}", self.stderr);
        ensure!(hint.contains(next), "not `{next}`: {hint}");
        Ok(())
    }
}

fn scratch() -> Result<tempfile::TempDir> {
    Ok(tempfile::Builder::new().prefix("stillpoint-languages.").tempdir()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hook_begun_in_each_language_takes_a_snapshot_of_level_application() -> Result<()> {
    let Some(tools) = tools()? else { return Ok(()) };
    let scratch = scratch()?;
    let rig = Rig::without_hook(Duration::from_secs(900))?;
    rig.stillpoint.connect_to(rig.server.socket())?;
    for language in LANGUAGES {
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

/// What an author gets wrong, in the words of the source, and what the conformance run says of it.
const TWINS: [(&str, &str, &str, &str); 3] = [
    (
        "forgets to release",
        "  bool ok = sp_execute(&session, UNLOCK, SP_NO_TIMEOUT, error);\n  sp_close(&session);\n  return ok;\n",
        "  (void)error;\n  return true;\n",
        "does not release",
    ),
    (
        "ignores errors",
        "if (!sp_execute(&session, LOCK, sp_remaining_but(RESERVE), error)) return false;",
        "sp_execute(&session, LOCK, sp_remaining_but(RESERVE), error);",
        "ignores errors",
    ),
    (
        "loops",
        "  if (held_at.file == NULL) return sp_fail(err, SP_INTERNAL, \"nothing is quiesced\", NULL);\n",
        "  for (volatile int again = 1; again;) {}\n",
        "loops",
    ),
];

#[test]
fn a_broken_twin_does_not_conform_and_is_told_why() -> Result<()> {
    let Some(tools) = tools()? else { return Ok(()) };
    let scratch = scratch()?;
    let project = tools.new_project(scratch.path(), "twin", "c")?;
    let source = project.join("src/quiesce.c");
    let right = fs::read_to_string(&source)?;
    for (what, good, bad, words) in TWINS {
        ensure!(right.contains(good), "{what}: the template has changed");
        fs::write(&source, right.replacen(good, bad, 1))?;
        tools.stillpoint(&project, &["hook", "build"])?.succeeded().with_context(|| what)?;
        let judged = tools.conforms(&project, "twin")?;
        ensure!(!judged.ok, "{what}: {}", judged.stdout);
        ensure!(judged.stdout.contains(words), "{what}: not `{words}`: {}", judged.stdout);
    }
    Ok(())
}

/// The examples are the templates with a name, so that neither can be forgotten.
#[test]
fn the_examples_are_what_hook_new_makes() -> Result<()> {
    let scratch = scratch()?;
    for language in LANGUAGES {
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
    let Some(tools) = tools()? else { return Ok(()) };
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
    fs::write(&bindings, of_today.replace("@0.1.0", "@0.0.9"))?;
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
    let bare = Tools { path: String::new() };
    for (language, tool, install) in [
        ("rust", "cargo is not installed", "rustup target add wasm32-unknown-unknown"),
        ("c", "make is not installed", "apt-get install make clang lld wasi-libc"),
        ("zig", "zig is not installed", "pip install ziglang"),
    ] {
        let project = bare.new_project(scratch.path(), language, language)?;
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
