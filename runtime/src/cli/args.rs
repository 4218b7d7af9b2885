//! Arguments exactly as they are typed. What they mean is decided in the commands.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use stillpoint::consistency::Level;

use super::bench::args::BenchCommand;
use super::hooks::args::HookCommand;

/// Application-consistent snapshots of this machine:
/// prepare → quiesce → freeze → snapshot → thaw → release;
/// whatever happens, what was done is undone in reverse, and the file systems run again.
#[derive(Debug, Parser)]
#[command(name = "stillpoint", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 a condition is not met; 2 parameters or configuration; 3 no usable disk;
4 snapshot not created; 5 state of the group; 6 provider too late; 7 state of a member;
8 tags or manifest; 9 pre-freeze hook or script; 10 post-thaw hook or script; 11 cannot freeze;
12 cannot thaw; 13 no role; 14 quota; 15 state of a snapshot; 16 another run is in progress;
17 verified as recovered; 18 verified as damaged; 255 unknown. Every error says the state the machine is in and what to do next.";

const VERIFY: &str = "\
Verdicts: clean (exit 0); recovered (exit 17: it can be used, but as after a power cut); damaged (exit
18). Any other exit code says that there is no verdict, and why. The verdict is kept in the manifest.";

const PLUGIN: &str = "\
Parameters are read by the rules of Go's package flag: -x=v, --x=v, -x v (not for a boolean).
-RamRoleName and -Name are required; -Description, -ExcludeDiskId, -PreScriptPath, -PostScriptPath,
-EnableFsFreeze, -TimeoutInSeconds and -ScriptTimeoutInSeconds are the original's; -Hooks, -Require,
-Root and -LogFile are ours. A binary that is called app-snapshot-plugin is this command.";

#[derive(Debug, Args)]
pub struct Global {
    /// Directory that stands for / in the paths of configuration, hooks, cache and run files
    #[arg(long, global = true, default_value = "/", value_name = "DIR")]
    pub root: PathBuf,
    /// Print one JSON document on standard output
    #[arg(long, global = true)]
    pub json: bool,
    /// Print no progress
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// More in the log on standard error (-v: debug, -vv: trace)
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Take a snapshot
    Snapshot(Snapshot),
    /// Say what a snapshot would freeze, in which order, what it would skip and why; touch nothing
    Plan(Scope),
    /// Show which file systems are frozen, without touching them
    Status,
    /// Thaw what is ours, by the journal; with paths, thaw those, whoever froze them
    Thaw(Thaw),
    /// Clean up after a run that died: thaw what is ours, put settings back
    Recover,
    /// Be the sentinel of every run: a service, for systemd; without it each run starts one of its own
    Sentinel,
    /// List the snapshots there are
    List,
    /// Show the manifest of a snapshot: its level, what was frozen, what each hook saved
    Show(Group),
    /// Draw a run as a page for a browser: every step and hook, what was held, what failed and why
    Report(ReportArgs),
    /// Start the databases of a copy of a snapshot where nothing else sees them, and say what it is worth
    #[command(after_help = VERIFY)]
    Verify(Verify),
    /// Measure how long file systems are frozen, applications held, and clients kept waiting
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Attach a writable copy of each disk of a snapshot; the snapshot itself is never written to
    Restore(Group),
    /// Detach the copies of a snapshot and delete them
    Detach(Group),
    /// Delete a snapshot with all its members
    Delete(Group),
    /// Install, grant, list, inspect and remove hooks
    #[command(subcommand)]
    Hook(HookCommand),
    /// Stand in for Alibaba Cloud's app-snapshot-plugin: its parameters, lines and exit codes
    #[command(disable_help_flag = true, after_help = PLUGIN)]
    Plugin {
        /// As the original's: -RamRoleName=… -Name=… and so on; -h lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "PARAMETER")]
        parameters: Vec<String>,
    },
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, in roff
    Man,
}

#[derive(Debug, Args)]
pub struct Snapshot {
    /// Name of the snapshot
    #[arg(long, short, default_value = "stillpoint", value_name = "NAME")]
    pub name: String,
    /// Free text that is kept with it
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub description: String,
    /// Fail, and leave no snapshot, rather than reach less than this level
    #[arg(long, value_enum, value_name = "LEVEL")]
    pub require: Option<RequiredLevel>,
    #[command(flatten)]
    pub scope: Scope,
}

#[derive(Clone, Debug, Args)]
pub struct Scope {
    /// Only the disks under this mount point (repeat for more)
    #[arg(long = "mount", value_name = "DIR")]
    pub mounts: Vec<PathBuf>,
    /// Only this disk: the provider's id, or a device node (repeat for more)
    #[arg(long = "disk", value_name = "DISK")]
    pub disks: Vec<String>,
    /// Not this disk; file systems on it are not frozen (repeat for more)
    #[arg(long = "exclude-disk", value_name = "DISK")]
    pub exclude_disks: Vec<String>,
    /// Do not freeze file systems; the level is then crash
    #[arg(long)]
    pub no_freeze: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum RequiredLevel {
    /// As after a power cut
    Crash,
    /// File systems frozen
    FileSystem,
    /// Applications quiesced and file systems frozen
    Application,
}

impl From<RequiredLevel> for Level {
    fn from(level: RequiredLevel) -> Self {
        match level {
            RequiredLevel::Crash => Level::Crash,
            RequiredLevel::FileSystem => Level::FileSystem,
            RequiredLevel::Application => Level::Application,
        }
    }
}

#[derive(Debug, Args)]
pub struct Thaw {
    /// Mount points to thaw, whoever froze them; none: what is ours, by the journal
    #[arg(value_name = "DIR")]
    pub mounts: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Id of the run, or its beginning, or the id of the snapshot that it made; none: the latest run
    #[arg(value_name = "RUN")]
    pub run: Option<String>,
    /// Write the page to this file; none: standard output
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// List the runs that are kept, latest first, good and bad
    #[arg(long, conflicts_with_all = ["run", "output"])]
    pub list: bool,
}

#[derive(Debug, Args)]
pub struct Group {
    /// Id of the snapshot, as `stillpoint list` shows it
    #[arg(value_name = "SNAPSHOT")]
    pub id: String,
}

#[derive(Debug, Args)]
pub struct Verify {
    /// Id of the snapshot, as `stillpoint list` shows it
    #[arg(value_name = "SNAPSHOT")]
    pub id: String,
    /// Ask each database of the copy this, too; it must not fail (repeat for more)
    #[arg(long = "query", value_name = "SQL")]
    pub queries: Vec<String>,
    /// How long it may take (10m, 90s); default: [verify] of stillpoint.toml, or 10 minutes
    #[arg(long, value_name = "TIME", value_parser = stillpoint::config::read::parse_duration)]
    pub deadline: Option<std::time::Duration>,
    /// How much memory its servers may use, in MiB; default: [verify], or 1024
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(64..=1 << 20))]
    pub memory: Option<u64>,
}
