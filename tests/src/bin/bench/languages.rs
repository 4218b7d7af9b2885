//! The same hook (MariaDB's read lock, the binary log's position) in each language: how large its component
//! is, how long its installation takes, and what a run of it costs.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use stillpoint::hook::testkit::{Bench, Script, Setup};
use stillpoint::hook::{Compiler, HookStore, InstallPolicy, InstallRequest};
use stillpoint::paths::Paths;
use stillpoint_tests::example_hooks::{SCRIPTING, built, project};
use stillpoint_tests::hook_tools::{COMPILED, Tools};
use stillpoint_tests::stats::{Durations, millis};
use stillpoint_tests::stillpoint::binary;

use crate::Rounds;
use crate::report::Report;

const SECTION: &str = "The same hook in each language";

/// Cycles are cheap: enough of them for a p99 that is not the greatest value.
const CYCLES: usize = 20;

/// Installations are not: an interpreter takes seconds of both processors.
const MOST_INSTALLATIONS: usize = 5;

/// Beside the table, so that nobody takes it for more than it is.
const MEANING: &str = "Installation: check, compilation in a confined child, `describe`, and what is kept; on all processors. Cycle: from a new instance to its end, through `prepare`, `pre-freeze`, `confirm`, `post-thaw` and `finish`, with every check of the host; one session and ten statements, answered at once by a script in the same process. Not in it: a database (its answers take what they take), and loading the compiled image, which comes before `prepare`.";

/// A component, and the script of its template.
struct Example {
    language: &'static str,
    component: PathBuf,
    script: PathBuf,
    /// A cycle takes no longer, in ms.
    limit: f64,
}

pub async fn measure(rounds: Rounds, report: &mut Report) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let mut table = String::from(
        "| language | component | installation ms | loading ms | cycle ms: median | p99 | max | n |\n|---|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for example in tokio::task::block_in_place(|| examples(scratch.path()))? {
        let Example { language, limit, .. } = example;
        let installations = installations(&example, rounds.few.min(MOST_INSTALLATIONS)).await?;
        let (cycles, loading) = cycles(&example, rounds.many * CYCLES).await?;
        report.add(SECTION, language, "stillpoint", "installation", &installations);
        report.add(SECTION, language, "stillpoint", "loading the compiled image", &loading);
        report.add(SECTION, language, "stillpoint", "cycle", &cycles);
        let promise = format!("a hook's cycle in {language}, median");
        report.at_most(&promise, millis(cycles.median()), limit, "ms");
        let bytes = std::fs::metadata(&example.component)?.len();
        let _ = writeln!(
            table,
            "| {language} | {:.1} KB | {:.0} | {:.2} | {:.3} | {:.3} | {:.3} | {} |",
            bytes as f64 / 1e3,
            millis(installations.median()),
            millis(loading.median()),
            millis(cycles.median()),
            millis(cycles.p99()),
            millis(cycles.max()),
            cycles.count(),
        );
    }
    report.note(format!("## {SECTION}\n\n{table}\n{MEANING}"));
    Ok(())
}

/// As a user makes them: begun with `hook new`, built with `hook build`.
fn examples(scratch: &Path) -> Result<Vec<Example>> {
    let mut examples = Vec::new();
    if let Some(tools) = Tools::installed()? {
        for language in COMPILED {
            let project = tools.new_project(scratch, &format!("lock-{language}"), language)?;
            tools.stillpoint(&project, &["hook", "build"])?.succeeded()?;
            let component = project.join(format!("lock-{language}.wasm"));
            let script = project.join("fake.toml");
            // Go brings a runtime with it.
            let limit = if language == "go" { 3.0 } else { 0.1 };
            examples.push(Example { language, component, script, limit });
        }
    }
    for language in SCRIPTING {
        let Some(component) = built(language)? else { continue };
        let script = project(language).join("fake.toml");
        examples.push(Example { language, component, script, limit: 3.0 });
    }
    Ok(examples)
}

/// Each on a machine that has none installed.
async fn installations(example: &Example, times: usize) -> Result<Durations> {
    let mut took = Vec::new();
    for _ in 0..times {
        let root = tempfile::tempdir()?;
        let store = HookStore::new(&Paths::under(root.path())).context("no hook store")?;
        let store = store.compiled_by(Compiler::at(&binary()?));
        let policy = InstallPolicy { allow_unsigned: true, ..InstallPolicy::default() };
        let request = InstallRequest::from_file(&example.component)?.with_policy(policy);
        let began = Instant::now();
        store.install(request).await.context("not installed")?;
        took.push(began.elapsed());
    }
    Ok(took.into_iter().collect())
}

/// Cycles, and what loading took before each.
async fn cycles(example: &Example, times: usize) -> Result<(Durations, Durations)> {
    let script = Script::read(&example.script).context("no script")?;
    let compiler = Compiler::at(&binary()?);
    let setup = Setup { compiler, ..Setup::scripted(&example.component, script) };
    let bench = Bench::new(setup).await?;
    let (mut cycles, mut loading) = (Vec::<Duration>::new(), Vec::new());
    for round in 0..=times {
        let cycle = bench.cycle().await?;
        // The first is a warm-up.
        if round > 0 {
            cycles.push(cycle.phases);
            loading.push(cycle.loading);
        }
    }
    Ok((cycles.into_iter().collect(), loading.into_iter().collect()))
}
