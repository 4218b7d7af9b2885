//! What was measured, as a document: everything that the table and the page are made of.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::stats::{Random, ratio, summary};

/// The version of this document's form. Grows when a reader must change.
pub const SCHEMA_VERSION: u32 = 1;

/// What a bench measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BenchDocument {
    /// See [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The version of stillpoint that measured.
    pub stillpoint: String,
    /// Where.
    pub place: Place,
    /// When it began, RFC 3339, UTC.
    pub started: String,
    /// What orders and draws were made from; the same seed gives the same order again.
    pub seed: u64,
    /// How many rounds were asked for.
    pub rounds: usize,
    /// What it ran on.
    pub machine: Machine,
    /// The file systems that were frozen.
    pub file_systems: Vec<BenchFileSystem>,
    /// What was measured, each with all its values.
    pub sets: Vec<Set>,
    /// How many times as long others took as stillpoint.
    pub ratios: Vec<Ratio>,
    /// What a reader should know beside that.
    pub notes: Vec<String>,
}

/// Where a bench took place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// On file systems that were made for it.
    Lab,
    /// On this machine's own, with its hooks.
    Here,
}

/// What a bench ran on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Its name.
    pub host: String,
    /// Kernel name and release.
    pub kernel: String,
    /// How many processors can be used.
    pub cpus: usize,
    /// What they call themselves; empty if they do not.
    pub cpu_model: String,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// `rcu_expedited` as it was before.
    pub rcu_expedited: Option<String>,
}

/// A file system that was frozen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BenchFileSystem {
    /// Where it is mounted; in a lab, just a name.
    pub name: String,
    /// Type, as the kernel names it.
    pub fs_type: String,
    /// The image that it lies on, if it was made for this.
    pub image: Option<Image>,
}

/// An image file under a loop device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Its length, in bytes.
    pub bytes: u64,
    /// The file system that it lies on, as the kernel names it.
    pub on: String,
    /// The loop device goes past the page cache of that file system.
    pub direct_io: bool,
    /// How many extents it had before the first round; absent if its file system does not say.
    pub extents_before: Option<u32>,
    /// How many it had after the last.
    pub extents_after: Option<u32>,
}

/// What goes on while it is measured.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Load {
    /// Nobody writes.
    Idle,
    /// A writer on each file system: 4 KiB and fdatasync, again and again.
    Busy,
    /// The same writers, and file data that is not on the disk yet.
    Dirty,
    /// Whatever goes on on this machine.
    AsItIs,
}

/// How file systems were frozen and thawed.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// As a run does it: flushed, rehearsed, all at once, guarded.
    Stillpoint,
    /// The same without the rehearsal.
    NoRehearsal,
    /// The same without rehearsal and without `rcu_expedited`.
    Cold,
    /// `fsfreeze -f` one after another, then `fsfreeze -u`.
    Fsfreeze,
    /// FIFREEZE and FITHAW by bare threads, flushed and rehearsed, with no guard: what the kernel
    /// needs for itself.
    Bare,
}

/// What was measured.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// From the first freeze called to the last thaw returned.
    Window,
    /// From the first application that was held to the last that was released.
    Hold,
    /// The quiescing: from when the first hook was asked to when the last one held.
    Quiesce,
    /// The longest write that was under way while file systems were flushed, rehearsed and frozen.
    Stall,
}

/// All values of one measure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Set {
    /// What was measured.
    pub measure: Measure,
    /// How.
    pub method: Method,
    /// Meanwhile.
    pub load: Load,
    /// How many file systems were frozen.
    pub file_systems: usize,
    /// How many values there are.
    pub n: usize,
    /// The middle one, ns.
    pub median_ns: u64,
    /// The 99th percentile, ns; absent of fewer than 100 values, of which it would be the greatest.
    pub p99_ns: Option<u64>,
    /// The greatest, ns.
    pub max_ns: u64,
    /// All, in the order of the rounds, ns.
    pub values_ns: Vec<u64>,
}

/// How many times as long one method took as stillpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ratio {
    /// What was measured.
    pub measure: Measure,
    /// The method that is compared with [`Method::Stillpoint`].
    pub method: Method,
    /// Meanwhile.
    pub load: Load,
    /// How many file systems were frozen.
    pub file_systems: usize,
    /// How many rounds both were in.
    pub n: usize,
    /// The median of the one, divided by that of the other.
    pub ratio: f64,
    /// 95 of 100 ratios of rounds drawn anew are at least this,
    pub low: f64,
    /// and at most this.
    pub high: f64,
}

impl Set {
    pub(super) fn new(
        measure: Measure,
        method: Method,
        load: Load,
        file_systems: usize,
        values_ns: Vec<u64>,
    ) -> Self {
        let all = summary(&values_ns);
        Self {
            measure,
            method,
            load,
            file_systems,
            n: values_ns.len(),
            median_ns: all.median,
            p99_ns: all.p99,
            max_ns: all.max,
            values_ns,
        }
    }

    fn is_beside(&self, ours: &Self) -> bool {
        self.measure == ours.measure
            && self.load == ours.load
            && self.file_systems == ours.file_systems
    }
}

/// What each set is to ours.
pub(super) fn ratios(sets: &[Set], random: &mut Random) -> Vec<Ratio> {
    let others = sets.iter().filter(|set| set.method != Method::Stillpoint);
    let ratio_of = |other: &Set| {
        let ours =
            sets.iter().find(|set| set.method == Method::Stillpoint && other.is_beside(set))?;
        let spread = ratio(&other.values_ns, &ours.values_ns, random)?;
        Some(Ratio {
            measure: other.measure,
            method: other.method,
            load: other.load,
            file_systems: other.file_systems,
            n: other.n.min(ours.n),
            ratio: spread.ratio,
            low: spread.low,
            high: spread.high,
        })
    };
    others.filter_map(ratio_of).collect()
}

impl Method {
    /// In words, short.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Method::Stillpoint => "stillpoint",
            Method::NoRehearsal => "without rehearsal",
            Method::Cold => "without rehearsal and rcu_expedited",
            Method::Fsfreeze => "fsfreeze, in turn",
            Method::Bare => "bare ioctls, warm",
        }
    }
}

impl Load {
    /// In words, short.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Load::Idle => "idle",
            Load::Busy => "a writer on each",
            Load::Dirty => "a writer on each, and dirty data",
            Load::AsItIs => "as it is",
        }
    }
}

impl Measure {
    /// In words, short.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Measure::Window => "window",
            Measure::Hold => "hold",
            Measure::Quiesce => "quiesce",
            Measure::Stall => "longest write",
        }
    }
}
