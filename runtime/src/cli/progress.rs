//! Progress on a terminal: the tree grows as steps end, a spinner shows the one that runs.
//!
//! A run tells its events while applications are locked: the run's side only puts them into a
//! channel; a thread of its own prints, and may block on a slow terminal without harm.

use std::collections::HashMap;
use std::io::{IsTerminal, Write as _};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use stillpoint::hook::oci::{Transfer, Watch};
use stillpoint::manifest::StepRecord;
use stillpoint::output::human;
use stillpoint::sequence::{Event, Observer};

/// The run's side: never blocks.
#[derive(Debug)]
pub struct Tree(Sender<Event>);

impl Observer for Tree {
    fn event(&self, event: Event) {
        // Nobody listens any more: nothing to tell.
        let _ = self.0.send(event);
    }
}

/// The printing side. Ends when the run's side is gone.
#[derive(Debug)]
pub struct Printer(Option<JoinHandle<()>>);

impl Printer {
    /// Starts to print the tree of a run called `title`.
    pub fn start(title: String) -> (Tree, Self) {
        let (sender, receiver) = channel();
        let print = move || print_all(&title, &receiver);
        let thread = std::thread::Builder::new().name("progress".into()).spawn(print);
        if let Err(error) = &thread {
            tracing::warn!("no progress is shown: {error}");
        }
        (Tree(sender), Self(thread.ok()))
    }

    /// Waits until everything is printed.
    pub fn finish(self) {
        let _ = self.0.map(JoinHandle::join);
    }
}

fn print_all(title: &str, events: &Receiver<Event>) {
    let spinner = spinner();
    let mut parts: HashMap<String, Vec<StepRecord>> = HashMap::new();
    say(&spinner, title);
    while let Ok(event) = events.recv() {
        match event {
            Event::Began { step, .. } => spinner.set_message(step.to_string()),
            Event::Ended(record) if record.subject.is_some() => {
                parts.entry(record.step.clone()).or_default().push(record);
            }
            Event::Ended(record) => {
                let parts = parts.remove(&record.step).unwrap_or_default();
                for line in human::step_lines(&record, &parts) {
                    say(&spinner, &line);
                }
            }
            Event::Planned(_) | Event::Warning(_) => {}
        }
    }
    spinner.finish_and_clear();
}

fn spinner() -> ProgressBar {
    let target = if std::io::stderr().is_terminal() && std::io::stdout().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let spinner = ProgressBar::with_draw_target(None, target);
    if let Ok(style) = ProgressStyle::with_template("├─ {msg} {spinner}") {
        spinner.set_style(style);
    }
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}

fn say(spinner: &ProgressBar, line: &str) {
    spinner.suspend(|| {
        let mut out = std::io::stdout();
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    });
}

/// How far a transfer is, on one line of a terminal that goes away when it is done.
#[derive(Debug)]
pub struct Transfers(ProgressBar);

impl Transfers {
    /// On standard error, if that is a terminal and somebody wants to see it.
    pub fn shown(wanted: bool) -> Self {
        let target = match wanted && std::io::stderr().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(None, target);
        let style = "├─ {msg} {bar:30} {binary_bytes} of {binary_total_bytes}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        Self(bar)
    }

    /// The side of the transfer.
    pub fn watch(&self) -> Watch {
        let bar = self.0.clone();
        Watch::new(move |Transfer { what, done, total }| {
            if bar.length() != Some(total) {
                bar.set_length(total);
                bar.set_message(what);
            }
            bar.set_position(done);
        })
    }

    /// Takes the line away.
    pub fn finish(self) {
        self.0.finish_and_clear();
    }
}
