//! The same hook (MariaDB's read lock, the binary log's position) in each language: how large its component
//! is, how long its installation takes, and what a run of it costs.

use std::fmt::Write as _;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};
use stillpoint::hook::testkit::{Bench, Script, Setup};
use stillpoint::hook::{Compiler, HookStore, InstallPolicy, InstallRequest};
use stillpoint::paths::Paths;
use stillpoint_tests::example_hooks::{SCRIPTING, built, project};
use stillpoint_tests::hook_tools::{COMPILED, Tools};
use stillpoint_tests::stats::{Durations, millis};
use stillpoint_tests::stillpoint::{binary, workspace};

use crate::Rounds;
use crate::report::Report;

const SECTION: &str = "The same hook in each language";

/// Cycles are cheap: enough of them for a p99 that is not the greatest value.
const CYCLES: usize = 20;

/// Installations are not: an interpreter takes seconds of both processors.
const MOST_INSTALLATIONS: usize = 5;

/// Beside the table, so that nobody takes it for more than it is.
const MEANING: &str = "Installation: check, compilation in a confined child, `describe`, and what is kept; on all processors. Cycle: from a new instance to its end, through `prepare`, `pre-freeze`, `confirm`, `post-thaw` and `finish`, with every check of the host; one session and ten statements, answered at once by a script in the same process, in a runtime of one thread like the agent's. Not in it: a database (its answers take what they take), and loading the compiled image, which comes before `prepare`. A run of `stillpoint snapshot` loads each hook once and has one cycle of it, the first: that also touches the pages of the image for the first time. `cycle` is each further one.";

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
        "| language | commands, on a fresh machine | component | installation ms | loading ms | first cycle ms | cycle ms: median | p99 | max | n |\n|---|---|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for example in tokio::task::block_in_place(|| examples(scratch.path()))? {
        let Example { language, limit, .. } = example;
        let installations = installations(&example, rounds.few.min(MOST_INSTALLATIONS)).await?;
        let times = rounds.many * CYCLES;
        let Costs { cycles, first, loading } = as_the_agent_runs(|| costs(&example, times))?;
        report.add(SECTION, language, "stillpoint", "installation", &installations);
        report.add(SECTION, language, "stillpoint", "loading the compiled image", &loading);
        report.add(SECTION, language, "stillpoint", "first cycle after loading", &first);
        report.add(SECTION, language, "stillpoint", "cycle", &cycles);
        let promise = format!("a hook's cycle in {language}, median");
        report.at_most(&promise, millis(cycles.median()), limit, "ms");
        let bytes = std::fs::metadata(&example.component)?.len();
        let _ = writeln!(
            table,
            "| {language} | {} | {:.1} KB | {:.0} | {:.2} | {:.3} | {:.3} | {:.3} | {:.3} | {} |",
            commands(language)?,
            bytes as f64 / 1e3,
            millis(installations.median()),
            millis(loading.median()),
            millis(first.median()),
            millis(cycles.median()),
            millis(cycles.p99()),
            millis(cycles.max()),
            cycles.count(),
        );
    }
    report.note(format!("## {SECTION}\n\n{table}\n{MEANING}"));
    Ok(())
}

/// What a user types, from nothing to the component: as the README of a new project says it, first thing.
fn commands(language: &str) -> Result<String> {
    let readme = workspace().join("templates").join(language).join("README.md");
    let text = std::fs::read_to_string(readme)?;
    let (_, block) = text.split_once("```sh\n").context("no commands in the README")?;
    let begin = format!("stillpoint hook new NAME --lang {language} && cd NAME");
    let mut commands = vec![begin.as_str()];
    for line in block.lines() {
        let command = line.split("   ").next().unwrap_or(line).trim();
        commands.push(command);
        if command == "stillpoint hook build" {
            break;
        }
    }
    let commands: Vec<String> = commands.iter().map(|command| format!("`{command}`")).collect();
    Ok(commands.join("<br>"))
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

/// In a runtime like the agent's, which has one thread: between a hook and a session with its database no
/// thread has to be woken.
fn as_the_agent_runs<T: Send, F: Future<Output = Result<T>>>(
    work: impl FnOnce() -> F + Send,
) -> Result<T> {
    let run =
        || tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work());
    let ended = tokio::task::block_in_place(|| thread::scope(|scope| scope.spawn(run).join()));
    ended.unwrap_or_else(|panic| resume_unwind(panic))
}

/// Cycles of a hook that is loaded, what loading took, and the first cycle after it.
struct Costs {
    cycles: Durations,
    first: Durations,
    loading: Durations,
}

async fn costs(example: &Example, times: usize) -> Result<Costs> {
    let script = Script::read(&example.script).context("no script")?;
    let compiler = Compiler::at(&binary()?);
    let setup = Setup { compiler, ..Setup::scripted(&example.component, script) };
    let bench = Bench::new(setup).await?;
    let (mut cycles, mut first, mut loading) = (Vec::new(), Vec::new(), Vec::new());
    // The first time is a warm-up.
    bench.cycles(1).await?;
    for _ in 0..times.div_ceil(CYCLES) {
        let timed = bench.cycles(1 + CYCLES).await?;
        loading.push(timed.loading);
        first.extend(timed.runs.first());
        cycles.extend(timed.runs.into_iter().skip(1));
    }
    let [cycles, first, loading] = [cycles, first, loading].map(Durations::from_iter);
    Ok(Costs { cycles, first, loading })
}
