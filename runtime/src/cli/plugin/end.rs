//! How a run of the plug-in ended, in the original's words where it has some.

use stillpoint::exit_code::ExitCode;
use stillpoint::output::human::{causes, duration};
use stillpoint::output::json::RunDocument;
use stillpoint::plugin::exit::documented;
use stillpoint::plugin::lines::{Severity, failure_line, group_line};
use stillpoint::sequence::{Failure, Report};

use super::super::CommandError;

/// The original's last words, which are read by programs.
const SUCCESS: &str = "Finish whole Processes of Snapshot successfully";

/// How it ended.
#[derive(Debug)]
pub struct End {
    /// The exit status of the process.
    pub code: ExitCode,
    /// What is said before the last line.
    pub lines: Vec<(Severity, String)>,
    /// For the log: all that is known of the run.
    pub document: Option<String>,
    last: LastLine,
}

#[derive(Debug)]
enum LastLine {
    Group { id: String, message: String },
    Failure { what: String, state: String, hint: Option<String> },
}

impl End {
    /// Before anything was held.
    pub fn before_the_run(error: &CommandError) -> Self {
        let chain: Vec<String> = error.error.chain().map(ToString::to_string).collect();
        let state = "file systems running, nothing was touched".to_owned();
        Self::failed(error.exit_code, chain.join(": because: "), state, error.hint.clone())
    }

    /// A panic. What was frozen is thawed by the guard, which has lost its agent.
    pub fn bug() -> Self {
        let what = "stillpoint came to a state that it does not know (a bug)".to_owned();
        let state = "the guard thaws what was frozen, sessions of hooks are closed".to_owned();
        let hint = "`stillpoint status` shows what is frozen, `stillpoint recover` cleans up; please report it with the log";
        Self::failed(ExitCode::Unknown, what, state, Some(hint.to_owned()))
    }

    fn failed(code: ExitCode, what: String, state: String, hint: Option<String>) -> Self {
        let last = LastLine::Failure { what, state, hint };
        Self { code, lines: Vec::new(), document: None, last }
    }

    /// The last line, whole.
    pub fn last_line(&self, time: &str) -> String {
        match &self.last {
            LastLine::Group { id, message } => group_line(id, message),
            LastLine::Failure { what, state, hint } => {
                let code = self.code as u8;
                let what = format!("exit {code} ({}): {what}", documented(self.code));
                let mut then = vec![format!("state: {state}")];
                then.extend(hint.iter().map(|hint| format!("hint: {hint}")));
                failure_line(time, &what, &then)
            }
        }
    }
}

impl From<Result<Report, Failure>> for End {
    fn from(result: Result<Report, Failure>) -> Self {
        match result {
            Ok(report) => from_report(&report),
            Err(failure) => from_failure(&failure),
        }
    }
}

fn from_report(report: &Report) -> End {
    let manifest = &report.manifest;
    let mut lines = Vec::new();
    let mut info = |message: String| lines.push((Severity::Info, message));
    for disk in &manifest.disks {
        if let Some(member) = &disk.member {
            info(format!("Snapshot {} of DiskId={}: {}", member.snapshot, disk.id, disk.level));
        }
    }
    let timings = &manifest.timings;
    info(format!(
        "Frozen for {}, of which CreateSnapshotGroup {}; whole run {}",
        duration(timings.window_ns),
        duration(timings.provider_ns),
        duration(timings.total_ns),
    ));
    info(format!("Level: {}", manifest.level));
    for reason in &manifest.reasons {
        lines.push((Severity::Warning, format!("why not higher: {reason}")));
    }
    for problem in &report.problems {
        lines.push((Severity::Error, problem.clone()));
    }
    lines.push((Severity::Info, format!("State: {}", report.state)));
    let code = report.exit_code;
    let message = match code {
        ExitCode::Ok => SUCCESS.to_owned(),
        // The problems come last: they may be long, and the line is cut at its end.
        code => format!(
            "the snapshot group is there, but exit {} ({}); state: {}; {}",
            code as u8,
            documented(code),
            report.state,
            report.problems.join("; ")
        ),
    };
    let last = LastLine::Group { id: manifest.group.clone(), message };
    End { code, lines, document: document(&RunDocument::from(report)), last }
}

fn from_failure(failure: &Failure) -> End {
    let because = causes(std::error::Error::source(&failure.cause));
    let because: String = because.lines().map(|line| format!(", {}", line.trim())).collect();
    let what = format!("{}: {}{because}", failure.during, failure.cause);
    let end = End::failed(failure.exit_code(), what, failure.state.to_string(), failure.hint());
    End { document: document(&RunDocument::from(failure)), ..end }
}

fn document(document: &RunDocument) -> Option<String> {
    serde_json::to_string_pretty(document).ok()
}
