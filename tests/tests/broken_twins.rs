//! A twin of each language's hook that its author got wrong (it forgets to release, it ignores errors, it
//! loops) does not conform, and the report says what is wrong, in the same words for every language. Each is
//! begun with `hook new`, spoilt, and built with `hook build`. On the way each keeps state, too, and asks for
//! its keys: the templates need none.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use stillpoint_tests::example_hooks::built;
use stillpoint_tests::hook_tools::{Tools, replace_in};

const NAME: &str = "twin";

/// What an author gets wrong, and the words that the report has for it.
const FAULTS: [(&str, &str); 3] =
    [("forgets", "does not release"), ("ignores", "ignores errors"), ("loops", "loops")];

/// Every phase of a hook keeps 2 s in reserve, so that a loop is stopped after more than that.
const DEADLINE: [&str; 2] = ["--deadline", "3s"];

/// Where a compiler takes no time, each fault is a change of its own.
struct Compiled {
    language: &'static str,
    source: &'static str,
    /// Keeps state, and fails if that is not what it kept.
    state: &'static [(&'static str, &'static str)],
    /// As [`FAULTS`]: what is there, and what the author writes.
    changes: [(&'static str, &'static str); 3],
}

const COMPILED: [Compiled; 4] = [
    Compiled {
        language: "c",
        source: "src/quiesce.c",
        state: &[
            (
                "  ret->freeze_budget_ms = 20000;\n",
                "  ret->freeze_budget_ms = 20000;\n  sp_needs_kv(ret, 4096, \"to know what was begun\");\n",
            ),
            (
                "sp_plan *ret, sp_error *err) {\n  char *name;\n",
                r#"sp_plan *ret, sp_error *err) {
  hook_list_string_t keys;
  uint8_t *bytes;
  size_t length;
  if (!sp_kv_set("b", NULL, 0, err) || !sp_kv_set("a", (const uint8_t *)"22", 2, err)) return false;
  if (!sp_kv_keys(&keys, err) || !sp_kv_get("a", &bytes, &length, err)) return false;
  if (keys.len != 2 || keys.ptr[0].ptr[0] != 'a' || length != 2) return sp_fail(err, SP_INTERNAL, "state", NULL);
  hook_list_string_free(&keys);
  free(bytes);
  if (!sp_kv_get("b", &bytes, &length, err)) return false;
  if (bytes == NULL || length != 0) return sp_fail(err, SP_INTERNAL, "state of no bytes", NULL);
  free(bytes);
  if (!sp_kv_delete("a", err) || !sp_kv_delete("b", err)) return false;
  char *name;
"#,
            ),
        ],
        changes: [
            (
                "  bool ok = sp_execute(&session, UNLOCK, SP_NO_TIMEOUT, error);\n  sp_close(&session);\n  return ok;\n",
                "  (void)error;\n  return true;\n",
            ),
            (
                "if (!sp_execute(&session, LOCK, sp_remaining_but(RESERVE), error)) return false;",
                "sp_execute(&session, LOCK, sp_remaining_but(RESERVE), error);",
            ),
            (
                "  if (held_at.file == NULL) return sp_fail(err, SP_INTERNAL, \"nothing is quiesced\", NULL);\n",
                "  for (volatile int again = 1; again;) {}\n",
            ),
        ],
    },
    Compiled {
        language: "zig",
        source: "src/quiesce.zig",
        state: &[
            (
                "        description.freeze_budget_ms = 20_000;\n",
                "        description.freeze_budget_ms = 20_000;\n        description.needsKv(4096, \"to know what was begun\");\n",
            ),
            (
                "        self.session = try Session.open(name.slice());\n",
                r#"        try stillpoint.kv.set("b", "1");
        try stillpoint.kv.set("a", "22");
        var keys = try stillpoint.kv.keys();
        defer keys.free();
        const kept = (try stillpoint.kv.get("a")).?;
        defer kept.free();
        if (keys.len() != 2 or keys.at(0)[0] != 'a' or kept.slice().len != 2) {
            return stillpoint.fail(error.Internal, "state");
        }
        try stillpoint.kv.delete("a");
        try stillpoint.kv.delete("b");
        self.session = try Session.open(name.slice());
"#,
            ),
        ],
        changes: [
            (
                "_: *stillpoint.Metadata) Error!void {\n        try self.release();\n",
                "_: *stillpoint.Metadata) Error!void {\n        _ = self;\n",
            ),
            (
                "try session.execute(lock, stillpoint.remainingBut(reserve));",
                "session.execute(lock, stillpoint.remainingBut(reserve)) catch {};",
            ),
            (
                "        const then = self.held_at orelse return",
                "        var again: u32 = 1;\n        const flag: *volatile u32 = &again;\n        while (flag.* != 0) {}\n        const then = self.held_at orelse return",
            ),
        ],
    },
    Compiled {
        language: "rust",
        source: "src/lib.rs",
        state: &[
            (
                "        .freeze_budget_ms(20_000)\n",
                "        .freeze_budget_ms(20_000)\n        .needs_kv(4096, \"to know what was begun\")\n",
            ),
            (
                "        let session = Connection::open(&connection(settings)?)?;\n",
                r#"        stillpoint_hook::kv::set("b", b"1")?;
        stillpoint_hook::kv::set("a", b"22")?;
        if stillpoint_hook::kv::keys()? != ["a", "b"] {
            return Err(HookError::Internal("state".into()));
        }
        stillpoint_hook::kv::delete("a")?;
        stillpoint_hook::kv::delete("b")?;
        let session = Connection::open(&connection(settings)?)?;
"#,
            ),
        ],
        changes: [
            (
                "        if let Some(session) = self.session.take() {\n            session.execute(UNLOCK, &[], None)?;\n        }\n",
                "",
            ),
            (
                "        session.execute(LOCK, &[], Some(run::remaining_but(RESERVE)))?;\n",
                "        let _ = session.execute(LOCK, &[], Some(run::remaining_but(RESERVE)));\n",
            ),
            (
                "        let now = Position::ask(self.session()?)?;\n",
                "        while std::hint::black_box(true) {}\n        let now = Position::ask(self.session()?)?;\n",
            ),
        ],
    },
    Compiled {
        language: "go",
        source: "quiesce/quiesce.go",
        state: &[],
        changes: [
            (
                "\terr := h.run(Unlock, 0)\n\th.session.Close()\n\th.session = nil\n\treturn err\n",
                "\treturn nil\n",
            ),
            (
                "\t\tif err := h.run(Lock, h.Host.Remaining()-reserve); err != nil {\n\t\t\treturn Position{}, err\n\t\t}\n",
                "\t\t_ = h.run(Lock, h.Host.Remaining()-reserve)\n",
            ),
            ("\tif h.heldAt == nil {\n", "\tfor {\n\t}\n\tif h.heldAt == nil {\n"),
        ],
    },
];

/// Where an interpreter is built into the component, which takes seconds, one twin has all the faults, and a
/// setting says which.
struct Scripting {
    language: &'static str,
    source: &'static str,
    /// Where the setting is kept: what is there, and what the author writes.
    kept: (&'static str, &'static str),
    /// What `hook build` must have recorded.
    made_with: &'static str,
    changes: &'static [(&'static str, &'static str)],
}

const JAVASCRIPT: &[(&str, &str)] = &[
    ("        properties: {\n", "        properties: {\n          fault: { type: \"string\" },\n"),
    ("{ connection = CONNECTION }", "{ connection = CONNECTION, ...more }"),
    ("component, needsSql,", "component, kv, needsKv, needsSql,"),
    (
        "      needs: [\n",
        "      needs: [\n        needsKv({ bytes: 4096, reason: \"to know what was begun\" }),\n",
    ),
    (
        "    const { engine, version } =",
        r#"    fault = more.fault;
    kv.set("b", Uint8Array.of(1));
    kv.set("a", Uint8Array.of(1, 2));
    if (kv.keys().join() !== "a,b" || kv.get("a")?.length !== 2) throw new Internal(`keys ${kv.keys()}`);
    kv.delete("a");
    kv.delete("b");
    const { engine, version } ="#,
    ),
    (
        "    this.#session = undefined;\n    session?.execute(UNLOCK",
        "    if (fault === \"forgets\") return;\n    this.#session = undefined;\n    session?.execute(UNLOCK",
    ),
    (
        "    session.execute(LOCK, [], { timeoutMs: run.remainingBut(RESERVE_MS) });\n",
        "    try {\n      session.execute(LOCK, [], { timeoutMs: run.remainingBut(RESERVE_MS) });\n    } catch (error) {\n      if (fault !== \"ignores\") throw error;\n    }\n",
    ),
    ("    const [then, now] =", "    while (fault === \"loops\");\n    const [then, now] ="),
];

const SCRIPTING: [Scripting; 3] = [
    Scripting {
        language: "javascript",
        source: "src/hook.js",
        kept: ("const CONNECTION = \"main\";\n", "const CONNECTION = \"main\";\nlet fault;\n"),
        made_with: "componentize-qjs ",
        changes: JAVASCRIPT,
    },
    Scripting {
        language: "typescript",
        source: "src/hook.ts",
        kept: (
            "const CONNECTION = \"main\";\n",
            "const CONNECTION = \"main\";\nlet fault: unknown;\n",
        ),
        made_with: "componentize-qjs ",
        changes: JAVASCRIPT,
    },
    Scripting {
        language: "python",
        source: "app.py",
        kept: ("CONNECTION = \"main\"\n", "CONNECTION = \"main\"\nFAULT = []\n"),
        made_with: "componentize-py ",
        changes: &[
            (
                "                \"properties\": {\n",
                "                \"properties\": {\n                    \"fault\": {\"type\": \"string\"},\n",
            ),
            ("    component,\n", "    component,\n    kv,\n    needs_kv,\n"),
            (
                "            needs=[\n",
                "            needs=[\n                needs_kv(4096, \"to know what was begun\"),\n",
            ),
            (
                "        self.session = sql.Connection(",
                r#"        FAULT.append(settings.get("fault"))
        kv.set("b", b"1")
        kv.set("a", b"22")
        if kv.keys() != ["a", "b"] or kv.get("a") != b"22":
            raise Internal(f"keys {kv.keys()}")
        kv.delete("a")
        kv.delete("b")
        self.session = sql.Connection("#,
            ),
            (
                "        session, self.session = self.session, None\n        if session is not None:\n",
                "        if \"forgets\" in FAULT:\n            return\n        session, self.session = self.session, None\n        if session is not None:\n",
            ),
            (
                "        session.execute(LOCK, timeout=run.remaining_but(RESERVE))\n",
                "        try:\n            session.execute(LOCK, timeout=run.remaining_but(RESERVE))\n        except SqlError:\n            if \"ignores\" not in FAULT:\n                raise\n",
            ),
            (
                "        now = position(self.open_session())\n",
                "        while \"loops\" in FAULT:\n            pass\n        now = position(self.open_session())\n",
            ),
        ],
    },
];

#[test]
fn a_twin_in_a_compiled_language_is_told_what_is_wrong_with_it() -> Result<()> {
    let Some(tools) = Tools::installed()? else { return Ok(()) };
    let scratch = scratch()?;
    for Compiled { language, source, state, changes } in COMPILED {
        let directory = scratch.path().join(language);
        fs::create_dir(&directory)?;
        let project = tools.new_project(&directory, NAME, language)?;
        let source = project.join(source);
        replace_in(&source, state)?;
        let right = fs::read_to_string(&source)?;
        for ((fault, words), change) in FAULTS.into_iter().zip(changes) {
            fs::write(&source, &right)?;
            replace_in(&source, &[change])?;
            let told = || format!("{language}, {fault}");
            tools.stillpoint(&project, &["hook", "build"])?.succeeded().with_context(told)?;
            does_not_conform(&tools, &project, fault, words).with_context(told)?;
        }
    }
    Ok(())
}

#[test]
fn a_twin_in_a_scripting_language_is_told_what_is_wrong_with_it() -> Result<()> {
    let Some(tools) = Tools::installed()? else { return Ok(()) };
    let scratch = scratch()?;
    for Scripting { language, source, kept, made_with, changes } in SCRIPTING {
        if built(language)?.is_none() {
            continue;
        }
        let directory = scratch.path().join(language);
        fs::create_dir(&directory)?;
        let project = tools.new_project(&directory, NAME, language)?;
        replace_in(&project.join(source), &[&[kept], changes].concat())?;
        let made = tools.stillpoint(&project, &["hook", "build"])?;
        let made = made.succeeded().with_context(|| language)?;
        is_whole(&made, made_with).with_context(|| language)?;
        // Only the setting makes it a broken one.
        let line = ["hook", "test", "twin.wasm", "--script", "fake.toml"];
        tools.stillpoint(&project, &line)?.succeeded().with_context(|| language)?;
        let script = project.join("fake.toml");
        let right = fs::read_to_string(&script)?;
        for (fault, words) in FAULTS {
            fs::write(&script, &right)?;
            let setting = "[settings]\nconnection = \"main\"\n";
            replace_in(&script, &[(setting, &format!("{setting}fault = \"{fault}\"\n"))])?;
            does_not_conform(&tools, &project, fault, words)
                .with_context(|| format!("{language}, {fault}"))?;
        }
    }
    Ok(())
}

fn scratch() -> Result<tempfile::TempDir> {
    Ok(tempfile::Builder::new().prefix("stillpoint-twins.").tempdir()?)
}

/// What `hook build` says of a component: no WASI in it, and who made it.
fn is_whole(made: &Value, made_with: &str) -> Result<()> {
    let imports = made["imports"].as_array().context("no imports")?;
    let ours = |import: &Value| import.as_str().is_some_and(|it| it.starts_with("stillpoint:"));
    ensure!(!imports.is_empty() && imports.iter().all(ours), "{made}");
    let tools = made["made_with"].to_string();
    for tool in [made_with, "stillpoint "] {
        ensure!(tools.contains(tool), "no `{tool}` in {tools}");
    }
    Ok(())
}

/// It breaks a law, and a finding that makes it fail has these words.
fn does_not_conform(tools: &Tools, project: &Path, fault: &str, words: &str) -> Result<()> {
    let more = if fault == "loops" { &DEADLINE[..] } else { &[] };
    let judged = tools.conforms_with(project, NAME, more)?;
    ensure!(!judged.ok, "it conforms: {}", judged.stdout);
    let report: Value = serde_json::from_str(&judged.stdout)
        .with_context(|| format!("{}\n{}", judged.stdout, judged.stderr))?;
    let findings = report["findings"].as_array().context("no findings")?;
    let says = |finding: &&Value| finding["words"].as_str().is_some_and(|it| it.contains(words));
    let found = findings.iter().find(says).with_context(|| format!("not `{words}`: {report:#}"))?;
    ensure!(found["severity"] == "fails", "{found}");
    Ok(())
}
