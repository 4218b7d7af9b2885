//! Runs that are disturbed thousands of times: `sweep kills` sends signals at random moments,
//! `sweep calls` fails one system call after the other.
//! Prints a table; exits with 1 if anything was as it must not be.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it prints a table")]

use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use stillpoint_tests::random::{SEED, seed};
use stillpoint_tests::sweep::field::Ground;
use stillpoint_tests::sweep::kills::{Kills, Round};
use stillpoint_tests::sweep::nth::{ERRORS, Fault, Mode, Nth, Role, faults, some_of_each};
use stillpoint_tests::sweep::outcomes::Outcomes;
use stillpoint_tests::sweep::storm::{Gust, Storm};
use stillpoint_tests::sweep::tally::Tally;

/// Disturbs runs, and looks at what becomes of them.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    sweep: Sweep,
}

#[derive(Debug, clap::Subcommand)]
enum Sweep {
    /// Signals at random moments.
    Kills(Options),
    /// The Nth system call fails, once and from then on, N = 1 to the end.
    Calls(CallOptions),
    /// btrfs, frozen and thawed under a storm of signals: it never ends read-only.
    Btrfs(BtrfsOptions),
    /// One field of `kills`: prints one document for each round.
    #[command(hide = true)]
    Field(FieldOptions),
}

#[derive(Debug, clap::Args)]
struct Options {
    /// How many signals are to be delivered.
    #[arg(long, default_value_t = 10_000)]
    count: usize,
    /// Gives the same choices again; `STILLPOINT_TEST_SEED` does, too.
    #[arg(long)]
    seed: Option<u64>,
    /// How many fields at once; the last one has a database if there is more than one. Each has its
    /// own runs, which put `rcu_expedited` back under each other, and share the processors.
    #[arg(long, default_value_t = 2)]
    fields: usize,
    /// Keeps every round there, and goes on where an earlier call stopped.
    #[arg(long)]
    log: Option<PathBuf>,
    /// Give up after this many seconds, with what there is by then.
    #[arg(long)]
    seconds: Option<u64>,
    /// Where the labs are made.
    #[arg(long, default_value = "/dev/shm")]
    directory: PathBuf,
}

#[derive(Debug, clap::Args)]
struct CallOptions {
    /// At most so many runs, chosen by the seed; all calls of all processes without it.
    #[arg(long)]
    count: Option<usize>,
    /// Gives the same choices again; `STILLPOINT_TEST_SEED` does, too.
    #[arg(long)]
    seed: Option<u64>,
    /// Stop after this many seconds, with what there is by then.
    #[arg(long)]
    seconds: Option<u64>,
    /// Also each of the thousands of calls that look at devices before anything is held.
    #[arg(long)]
    all: bool,
    /// With a MariaDB and its hook.
    #[arg(long)]
    database: bool,
    /// Leaves out so many of the chosen: goes on where an earlier call with the same seed stopped.
    #[arg(long, default_value_t = 0)]
    skip: usize,
    /// Of several that share the work, which one: `0/2` and `1/2`.
    #[arg(long, default_value = "0/1")]
    share: String,
    /// At most so many calls of each kind, of each process, in each mode.
    #[arg(long)]
    each: Option<usize>,
    /// These calls alone, with each of their errors, in both modes: `guard:143`. Numbers are those of
    /// an earlier call's output; from run to run they move a little.
    #[arg(long, value_name = "WHOSE:NTH")]
    only: Vec<String>,
}

#[derive(Debug, clap::Args)]
struct BtrfsOptions {
    /// How many thaws there are to be, at least.
    #[arg(long, default_value_t = 1000)]
    thaws: usize,
    /// Gives the same choices again; `STILLPOINT_TEST_SEED` does, too.
    #[arg(long)]
    seed: Option<u64>,
    /// Stop after this many seconds, with what there is by then.
    #[arg(long)]
    seconds: Option<u64>,
}

#[derive(Debug, clap::Args)]
struct FieldOptions {
    #[arg(long)]
    number: usize,
    #[arg(long)]
    database: bool,
    #[arg(long)]
    seed: u64,
}

fn main() -> ExitCode {
    stillpoint::guard::enter();
    let ended = match Arguments::parse().sweep {
        Sweep::Kills(options) => kills(&options),
        Sweep::Calls(options) => calls(&options),
        Sweep::Btrfs(options) => btrfs(&options),
        Sweep::Field(options) => field(&options).map(|()| true),
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Rounds of all fields, as they come, until there are enough.
fn kills(options: &Options) -> Result<bool> {
    let seed = options.seed.map_or_else(seed, Ok)?;
    println!("{SEED}={seed}");
    let began = Instant::now();
    let until = options.seconds.map(|seconds| began + Duration::from_secs(seconds));
    let mut tally = earlier_rounds(options.log.as_deref())?;
    // What goes on goes on with other choices.
    let field_seed = seed.wrapping_add(1000 * tally.count() as u64);
    let (send, rounds) = std::sync::mpsc::channel();
    let mut fields = Vec::new();
    for number in 0..options.fields {
        let (child, output) = start_field(options, number, field_seed)?;
        let send = send.clone();
        let read = move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let Ok(round) = serde_json::from_str::<Round>(&line) else { continue };
                if send.send(round).is_err() {
                    break;
                }
            }
        };
        fields.push((child, std::thread::spawn(read)));
    }
    drop(send);
    let open = |path| std::fs::File::options().create(true).append(true).open(path);
    let mut log = options.log.as_ref().map(open).transpose().context("cannot write the log")?;
    while tally.count() < options.count {
        let rest = until.map(|until| until.saturating_duration_since(Instant::now()));
        let Ok(round) = rounds.recv_timeout(rest.unwrap_or(Duration::from_secs(300))) else {
            break;
        };
        if !round.violations.is_empty() {
            eprintln!("wrong: {round:?}");
        }
        if let Some(log) = &mut log {
            writeln!(log, "{}", serde_json::to_string(&round)?)?;
        }
        tally.add(round);
        if tally.count().is_multiple_of(100) {
            eprintln!("{} rounds in {:.0} s", tally.count(), began.elapsed().as_secs_f64());
        }
    }
    drop(rounds);
    let mut clean = true;
    for (mut child, reader) in fields {
        // The end of its standard input is the end of its rounds.
        drop(child.stdin.take());
        clean &= child.wait()?.success();
        let _ = reader.join();
    }
    print!("{tally}");
    println!(
        "{:.0} s, fields taken down {}",
        began.elapsed().as_secs_f64(),
        if clean { "clean" } else { "WITH ERRORS" }
    );
    let enough = tally.count() >= options.count || options.seconds.is_some();
    ensure!(enough, "only {} of {} rounds", tally.count(), options.count);
    Ok(clean && tally.violated().is_empty())
}

/// What a log has, if there is one.
fn earlier_rounds(log: Option<&Path>) -> Result<Tally> {
    let mut tally = Tally::default();
    let text = match log.map(std::fs::read_to_string) {
        Some(Ok(text)) => text,
        Some(Err(error)) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error.into());
        }
        _ => return Ok(tally),
    };
    for line in text.lines() {
        tally.add(serde_json::from_str(line).context("a line of the log is no round")?);
    }
    Ok(tally)
}

/// One run for each fault, until all are done or the time is over.
fn calls(options: &CallOptions) -> Result<bool> {
    let seed = options.seed.map_or_else(seed, Ok)?;
    println!("{SEED}={seed}");
    let (share, of) = options.share.split_once('/').context("--share is like 0/2")?;
    let (share, of): (usize, usize) = (share.parse()?, of.parse()?);
    let began = Instant::now();
    let over = || options.seconds.is_some_and(|s| began.elapsed() > Duration::from_secs(s));
    let ground = if options.database { Ground::Database } else { Ground::Ext4Xfs };
    let mut nth = Nth::new(ground)?;
    let counts = nth.count()?;
    for role in Role::ALL {
        let of_role = |armed: bool| {
            counts.iter().filter(|call| call.role == role && call.armed == armed).count()
        };
        println!("{role:?}: {} calls that can fail, then {}", of_role(false), of_role(true));
    }
    let mut all = faults(&counts, options.all, seed);
    if !options.only.is_empty() {
        let parsed: Result<Vec<_>> = options.only.iter().map(|text| only(text)).collect();
        all = parsed?.concat();
    }
    if let Some(most) = options.each {
        all = some_of_each(all, &counts, most);
    }
    println!("{} faults", all.len());
    let chosen = all.iter().skip(share).step_by(of.max(1)).skip(options.skip);
    let mut outcomes = Outcomes::default();
    for fault in chosen.take(options.count.unwrap_or(usize::MAX)) {
        if over() {
            break;
        }
        let outcome = nth.fail(*fault)?;
        if !outcome.violations.is_empty() {
            eprintln!("wrong: {outcome}");
        }
        if outcomes.count().is_multiple_of(50) {
            eprintln!("{} runs in {:.0} s", outcomes.count(), began.elapsed().as_secs_f64());
        }
        outcomes.add(outcome);
    }
    nth.finish()?;
    print!("{outcomes}");
    println!(
        "{} of {} faults in {:.0} s",
        outcomes.count(),
        all.len(),
        began.elapsed().as_secs_f64()
    );
    Ok(outcomes.violated() == 0)
}

/// Every error of one call, once and from then on.
fn only(text: &str) -> Result<Vec<Fault>> {
    let (whose, nth) = text.split_once(':').context("--only is like guard:143")?;
    let role = Role::ALL.into_iter().find(|role| format!("{role:?}").eq_ignore_ascii_case(whose));
    let role = role.with_context(|| format!("{whose} is none of agent, guard, sentinel"))?;
    let nth = nth.parse().with_context(|| format!("{nth} is no number"))?;
    let modes = [Mode::Once, Mode::FromThenOn];
    let faults = modes
        .into_iter()
        .flat_map(|mode| (0..ERRORS).map(move |choice| Fault { role, nth, mode, choice }));
    Ok(faults.collect())
}

/// Runs under signals until there were enough thaws.
fn btrfs(options: &BtrfsOptions) -> Result<bool> {
    let seed = options.seed.map_or_else(seed, Ok)?;
    println!("{SEED}={seed}");
    let began = Instant::now();
    let mut storm = Storm::new(seed)?;
    let mut total = Gust::default();
    while total.thaws < options.thaws {
        if options.seconds.is_some_and(|s| began.elapsed() > Duration::from_secs(s)) {
            break;
        }
        let gust = storm.run()?;
        for violation in &gust.violations {
            eprintln!("wrong: {violation}");
        }
        total.add(gust);
    }
    storm.finish()?;
    println!("{total}; {:.0} s", began.elapsed().as_secs_f64());
    Ok(total.violations.is_empty())
}

fn start_field(options: &Options, number: usize, seed: u64) -> Result<(Child, ChildStdout)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["field", "--number", &number.to_string()]);
    command.args(["--seed", &seed.wrapping_add(number as u64).to_string()]);
    if number > 0 && number + 1 == options.fields {
        command.arg("--database");
    }
    command.env("TMPDIR", &options.directory).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot start a field")?;
    let output = child.stdout.take().context("no output")?;
    Ok((child, output))
}

/// Rounds until nobody wants any more.
fn field(options: &FieldOptions) -> Result<()> {
    let ground = if options.database { Ground::Database } else { Ground::of(options.number) };
    let mut kills = Kills::new(ground, options.seed)?;
    while !hung_up(&std::io::stdin())? {
        let round = kills.round()?;
        let mut output = std::io::stdout().lock();
        if writeln!(output, "{}", serde_json::to_string(&round)?)
            .and_then(|()| output.flush())
            .is_err()
        {
            break;
        }
    }
    kills.finish()
}

fn hung_up(input: &std::io::Stdin) -> Result<bool> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    let mut fds = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut fds, PollTimeout::ZERO)? != 0)
}
