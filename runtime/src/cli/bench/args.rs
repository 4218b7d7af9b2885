//! Arguments of `stillpoint bench`, exactly as they are typed.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use stillpoint::bench::{Kind, Load};

use super::super::args::Scope;

#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// On file systems that are made for it and removed, against what one would use otherwise
    Lab(LabArgs),
    /// On this machine as it is, with its hooks: everything but the snapshot; it asks first
    Here(HereArgs),
}

#[derive(Debug, Args)]
pub struct LabArgs {
    /// Where the images are made, without names: nothing is left there
    #[arg(long, default_value = "/var/tmp", value_name = "DIR")]
    pub dir: PathBuf,
    /// How often each method freezes in each case
    #[arg(long, default_value_t = 25, value_name = "N")]
    pub rounds: usize,
    /// How many file systems are frozen at once, each number for itself
    #[arg(long, value_delimiter = ',', default_value = "1,4,16", value_name = "N,…")]
    pub file_systems: Vec<usize>,
    /// What goes on meanwhile
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "idle,busy,dirty",
        value_name = "LOAD,…"
    )]
    pub loads: Vec<LoadArg>,
    /// Type of the file systems
    #[arg(long, value_enum, default_value = "ext4", value_name = "TYPE")]
    pub kind: KindArg,
    /// Dirty data over all file systems of a case, in MiB
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..=1 << 20), value_name = "MIB")]
    pub dirty_mib: u64,
    /// What orders and draws are made from, to have the same again; none: another one each time
    #[arg(long, value_name = "SEED")]
    pub seed: Option<u64>,
    /// Write a page with pictures to this file
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct HereArgs {
    /// How many runs
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub rounds: usize,
    /// Do not ask whether production may be held for moments
    #[arg(long)]
    pub yes: bool,
    /// Write in this directory meanwhile, 4 KiB and fdatasync, and tell the longest write (repeat for more)
    #[arg(long = "probe", value_name = "DIR")]
    pub probes: Vec<PathBuf>,
    /// Write a page with pictures to this file
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    #[command(flatten)]
    pub scope: Scope,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LoadArg {
    /// Nobody writes
    Idle,
    /// A writer on each: 4 KiB and fdatasync, again and again
    Busy,
    /// The same, and data that is not on the disk yet
    Dirty,
}

impl From<LoadArg> for Load {
    fn from(load: LoadArg) -> Self {
        match load {
            LoadArg::Idle => Load::Idle,
            LoadArg::Busy => Load::Busy,
            LoadArg::Dirty => Load::Dirty,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum KindArg {
    /// ext4
    Ext4,
    /// XFS
    Xfs,
    /// btrfs
    Btrfs,
}

impl From<KindArg> for Kind {
    fn from(kind: KindArg) -> Self {
        match kind {
            KindArg::Ext4 => Kind::Ext4,
            KindArg::Xfs => Kind::Xfs,
            KindArg::Btrfs => Kind::Btrfs,
        }
    }
}
