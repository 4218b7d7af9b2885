//! `stillpoint hook test`: what its author, and its reviewer, want to know of a hook.

use std::fmt::Write as _;
use std::path::Path;

use stillpoint::exit_code::ExitCode;
use stillpoint::hook::testkit::{
    Ask, Bench, Conformance, Finding, PhaseTold, RunReport, Script, Setup, Severity, TestError,
    Tested,
};
use stillpoint::paths::Paths;

use super::super::args::Global;
use super::super::{CommandError, Outcome, print, print_json, setup};
use super::args::Test;

pub fn run(global: &Global, paths: &Paths, args: &Test) -> Outcome {
    let setup = wanted(paths, args)?;
    setup::block_on(async {
        let bench = Bench::new(setup).await.map_err(failed)?;
        if args.conformance {
            let report = bench.conformance().await.map_err(failed)?;
            tell(global, &report, report.passed, conformance)
        } else {
            let report = bench.run(args.record.as_deref()).await.map_err(failed)?;
            tell(global, &report, report.passed, one_run)
        }
    })?
}

fn tell<R: serde::Serialize>(
    global: &Global,
    report: &R,
    passed: bool,
    screen: fn(&R) -> String,
) -> Outcome {
    match global.json {
        true => print_json(report),
        false => print(&screen(report)),
    }
    Ok(if passed { ExitCode::Ok } else { ExitCode::Precondition })
}

fn wanted(paths: &Paths, args: &Test) -> Result<Setup, CommandError> {
    let script = args.script.as_deref().or(args.replay.as_deref());
    let read = |path: &Path| Script::read(path).map_err(setup::config_error);
    let mut targets = Vec::new();
    for pair in &args.connections {
        let Some((asked, target)) = pair.split_once('=') else {
            let error = anyhow::anyhow!("--connection {pair}: it is no NAME=CONNECTION");
            let hint = format!(
                "as the hook calls it, and then as connections.toml does: --connection {pair}={pair}"
            );
            return Err(CommandError::new(ExitCode::Parameters, error).hint(hint));
        };
        targets.push((asked.to_owned(), target.to_owned()));
    }
    let deadline = match &args.deadline {
        None => None,
        Some(text) => Some(stillpoint::config::read::parse_duration(text).map_err(|why| {
            CommandError::new(ExitCode::Parameters, anyhow::anyhow!("--deadline: {why}"))
                .hint("a number and its unit: --deadline 10s".to_owned())
        })?),
    };
    Ok(Setup {
        script: script.map(read).transpose()?,
        grant: args.grant.clone(),
        settings: args.settings.clone(),
        targets,
        deadline,
        ..Setup::real(&args.component, paths)
    })
}

fn failed(error: TestError) -> CommandError {
    let hint = error.hint();
    CommandError::new(error.exit_code(), error).hint(hint)
}

fn one_run(report: &RunReport) -> String {
    let mut out = what_it_is(&report.hook);
    out.push_str(&phases(&report.run));
    for line in &report.log {
        let _ = writeln!(out, "  log  {line}");
    }
    for problem in &report.problems {
        let _ = writeln!(out, "FAILS    {problem}");
    }
    if let Some(path) = &report.recorded {
        let _ = writeln!(
            out,
            "recorded in {}: read it before you keep it, it has what the server answered",
            path.display()
        );
    }
    out.push_str(match report.passed {
        true => "passed\n",
        false => "failed\n",
    });
    out
}

fn conformance(report: &Conformance) -> String {
    let mut out = what_it_is(&report.hook);
    out.push_str("asks for\n");
    report.hook.asks.iter().for_each(|ask| out.push_str(&asked(ask)));
    out.push_str("a run in which nothing goes wrong\n");
    out.push_str(&phases(&report.run));
    out.push_str("what was made to go wrong\n");
    for check in &report.checks {
        let mark = if check.passed { "ok      " } else { "FAILS   " };
        let _ = write!(out, "  {mark} {:>4} × {}", check.runs, check.what);
        if check.missed > 0 {
            let _ = write!(out, " ({} never got that far)", check.missed);
        }
        out.push('\n');
    }
    report.findings.iter().for_each(|finding| out.push_str(&found(finding)));
    out.push_str(&verdict(report));
    out
}

fn verdict(report: &Conformance) -> String {
    let runs: usize = report.checks.iter().map(|check| check.runs).sum();
    let failing = report.findings.iter().filter(|it| it.severity == Severity::Fails).count();
    match report.passed {
        true => format!("passed: {runs} runs, no law broken\n"),
        false => format!("failed: {failing} laws broken in {runs} runs\n"),
    }
}

fn what_it_is(hook: &Tested) -> String {
    let tools: Vec<String> = hook
        .toolchain
        .iter()
        .map(|tool| format!("{} {}", tool.name, tool.version).trim().to_owned())
        .collect();
    let mut out = format!("{} {}: {}\n", hook.name, hook.version, hook.summary);
    let mut line = |label: &str, text: &str| {
        let _ = writeln!(out, "  {label:<10} {text}");
    };
    line("digest", &hook.digest);
    line("size", &format!("{} bytes", hook.bytes));
    line("contract", &format!("stillpoint:hook@{}", hook.contract));
    if !tools.is_empty() {
        line("made with", &tools.join(", "));
    }
    line("against", &hook.against);
    out
}

fn asked(ask: &Ask) -> String {
    let mut out = format!("  {}", ask.what);
    if ask.required {
        out.push_str(" (required)");
    }
    let _ = writeln!(out, ": {}", ask.reason);
    for item in &ask.items {
        let mark = if item.used { "used    " } else { "not used" };
        let _ = writeln!(out, "    {mark} {}", one_line(&item.text));
    }
    out
}

fn phases(run: &[PhaseTold]) -> String {
    let mut out = String::new();
    for phase in run {
        let _ = writeln!(out, "├─ {:<11} {:>9}", phase.phase, time(phase.took_ns));
        for call in &phase.calls {
            let session = call.session.map_or_else(String::new, |number| format!("#{number} "));
            let answer = call.answer.as_deref().unwrap_or("no answer");
            let _ = writeln!(out, "│  {session}{} → {answer}", call.what);
        }
        for gave in &phase.gave {
            let _ = writeln!(out, "│  {gave}");
        }
        if !phase.holds.is_empty() {
            let _ = writeln!(out, "│  holds {}", phase.holds.join(", "));
        }
        if let Some(failed) = &phase.failed {
            let _ = writeln!(out, "│  failed: {failed}");
        }
    }
    out
}

fn found(finding: &Finding) -> String {
    let mark = match finding.severity {
        Severity::Fails => "FAILS    ",
        Severity::Look => "look at  ",
    };
    let more = match finding.times {
        1 => String::new(),
        times => format!(" (and {} more)", times - 1),
    };
    format!("{mark}{}\n         {}{more}\n", finding.words, finding.when)
}

fn time(nanoseconds: u64) -> String {
    let ms = std::time::Duration::from_nanos(nanoseconds).as_secs_f64() * 1e3;
    if ms < 1.0 { format!("{:.0} µs", ms * 1e3) } else { format!("{ms:.1} ms") }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
