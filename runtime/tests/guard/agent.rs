//! The agent's side of a case, in a process of its own, so that it can be killed and stopped: one
//! JSON order per line comes in, one JSON answer per line goes out.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use stillpoint::guard::{self, ArmedGuard, Freeze, GuardError, GuardOptions};
use stillpoint::plan::FileSystem;

use crate::lab::Lab;

pub const MODE: &str = "as-agent";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Order {
    Arm(Setup),
    /// A thread of it writes there, and may hang.
    WriteTo(PathBuf),
    Sync,
    SyncWithin {
        budget_ms: u64,
    },
    Rehearse,
    Freeze,
    WaitUntilBroken,
    Thaw,
    Disarm,
    DropEverything,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    pub run_dir: PathBuf,
    pub file_systems: Vec<FileSystem>,
    pub window_ms: u64,
    pub expedite_rcu: bool,
    pub keep_warm: bool,
}

impl Setup {
    pub fn of(lab: &Lab) -> Self {
        Self {
            run_dir: lab.run_dir(),
            file_systems: lab.file_systems.clone(),
            window_ms: 10_000,
            expedite_rcu: true,
            keep_warm: true,
        }
    }
}

/// What came of an order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The variant of the error, and its words.
    pub error: Option<(String, String)>,
    pub window_ns: u64,
    pub freeze_ns: u64,
    pub thawed_by_us: Vec<bool>,
    pub turned_read_only: Vec<bool>,
    pub broken: Option<String>,
    pub warnings: Vec<String>,
    pub began_ns: Vec<u64>,
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    orders: ChildStdin,
    answers: Receiver<Answer>,
}

impl Agent {
    pub fn start() -> Self {
        Self::start_by(Command::new("/proc/self/exe"))
    }

    /// By a command that becomes this program, with one argument more.
    pub fn start_by(mut command: Command) -> Self {
        let mut child = command
            .arg(MODE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let (answered, answers) = channel();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = answered.send(serde_json::from_str(&line).unwrap());
            }
        });
        Self { orders: child.stdin.take().unwrap(), child, answers }
    }

    /// An agent with everything armed.
    pub fn armed(lab: &Lab) -> Self {
        Self::armed_with(Setup::of(lab))
    }

    pub fn armed_with(setup: Setup) -> Self {
        let mut agent = Self::start();
        agent.ok(Order::Arm(setup));
        agent
    }

    pub fn order(&mut self, order: Order) {
        writeln!(self.orders, "{}", serde_json::to_string(&order).unwrap()).unwrap();
    }

    pub fn answer(&self) -> Answer {
        self.answers.recv_timeout(Duration::from_secs(40)).expect("the agent answers")
    }

    pub fn ask(&mut self, order: Order) -> Answer {
        self.order(order);
        self.answer()
    }

    pub fn ok(&mut self, order: Order) -> Answer {
        let asked = format!("{order:?}");
        let answer = self.ask(order);
        assert_eq!(answer.error, None, "{asked}");
        answer
    }

    /// Asks for something that must fail, with this variant of the error; gives its words.
    pub fn refused(&mut self, order: Order, variant: &str) -> String {
        let answer = self.ask(order);
        let (found, words) = answer.error.expect("an error");
        assert_eq!(found, variant, "{words}");
        words
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

enum State {
    Nothing,
    Armed(ArmedGuard),
    Frozen(Freeze),
}

pub fn run() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut state = State::Nothing;
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let order = serde_json::from_str(&line).unwrap();
        let answer;
        (state, answer) = runtime.block_on(obey(state, order));
        println!("{}", serde_json::to_string(&answer).unwrap());
    }
    ExitCode::SUCCESS
}

async fn obey(state: State, order: Order) -> (State, Answer) {
    let mut answer = Answer::default();
    let state = match (order, state) {
        (Order::Arm(setup), State::Nothing) => match arm(setup).await {
            Ok(guard) => {
                answer.warnings = guard.warnings().to_vec();
                State::Armed(guard)
            }
            Err(error) => failed(&mut answer, State::Nothing, &error),
        },
        (Order::Sync, State::Armed(guard)) => {
            return Box::pin(obey(State::Armed(guard), Order::SyncWithin { budget_ms: 5000 }))
                .await;
        }
        (Order::SyncWithin { budget_ms }, State::Armed(mut guard)) => {
            let result = guard.sync(Duration::from_millis(budget_ms)).await;
            note(&mut answer, result.err());
            State::Armed(guard)
        }
        (Order::Rehearse, State::Armed(mut guard)) => {
            let result = guard.rehearse().await;
            if let Ok(times) = &result {
                answer.window_ns = times.ended_ns - times.began_ns;
            }
            note(&mut answer, result.err());
            State::Armed(guard)
        }
        (Order::Freeze, State::Armed(guard)) => match guard.freeze().await {
            Ok(freeze) => {
                answer.began_ns = freeze.times().iter().map(|t| t.freeze_began_ns).collect();
                State::Frozen(freeze)
            }
            Err((guard, error)) => failed(&mut answer, State::Armed(guard), &error),
        },
        (Order::WaitUntilBroken, State::Frozen(mut freeze)) => {
            answer.broken = Some(format!("{:?}", freeze.broken().await));
            State::Frozen(freeze)
        }
        (Order::Thaw, State::Frozen(freeze)) => match freeze.thaw().await {
            Ok((guard, thaw)) => {
                describe(&mut answer, &thaw);
                State::Armed(guard)
            }
            Err(error) => failed(&mut answer, State::Nothing, &error),
        },
        (Order::Disarm, State::Armed(guard)) => {
            note(&mut answer, guard.disarm().await.err());
            State::Nothing
        }
        (Order::WriteTo(path), state) => {
            std::thread::spawn(move || std::fs::write(path, "by the agent"));
            state
        }
        (Order::DropEverything, _) => State::Nothing,
        (order, state) => {
            answer.error = Some(("Test".into(), format!("{order:?} makes no sense now")));
            state
        }
    };
    (state, answer)
}

async fn arm(setup: Setup) -> Result<ArmedGuard, GuardError> {
    let options = GuardOptions {
        run_id: format!("test-{}", std::process::id()),
        run_dir: setup.run_dir,
        window: Duration::from_millis(setup.window_ms),
        expedite_rcu: setup.expedite_rcu,
        keep_warm: setup.keep_warm,
        aftercare: None,
    };
    guard::arm(&setup.file_systems, options).await
}

fn describe(answer: &mut Answer, thaw: &guard::Thaw) {
    let times = || thaw.file_systems.iter().map(|fs| &fs.times);
    let first = times().map(|t| t.freeze_began_ns).min().unwrap_or(0);
    answer.window_ns = times().map(|t| t.thawed_ns).max().unwrap_or(0).saturating_sub(first);
    answer.freeze_ns = times().map(|t| t.frozen_ns).max().unwrap_or(0).saturating_sub(first);
    answer.thawed_by_us = thaw.file_systems.iter().map(|fs| fs.thawed_by_us).collect();
    answer.turned_read_only = thaw.file_systems.iter().map(|fs| fs.turned_read_only).collect();
    answer.broken = thaw.broken.map(|broken| format!("{broken:?}"));
}

fn failed(answer: &mut Answer, state: State, error: &GuardError) -> State {
    let variant = format!("{error:?}");
    let end = variant.find(|c: char| !c.is_alphanumeric()).unwrap_or(variant.len());
    answer.error = Some((variant[..end].to_owned(), error.to_string()));
    state
}

fn note(answer: &mut Answer, error: Option<GuardError>) {
    if let Some(error) = error {
        failed(answer, State::Nothing, &error);
    }
}
