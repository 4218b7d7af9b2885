//! From an inventory and the provider's disks to a plan. Pure: no I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::kinds::{self, Kind};
use super::mounts::{Mount, normal, order};
use super::topology::{Elsewhere, Inventory, Layer, Topology};
use super::{DevId, FileSystem, Plan, PlanError, SkipReason, Skipped};
use crate::consistency::{Level, Reason, ReasonCode};
use crate::provider::Disk;

/// What a run is about. Paths are absolute and canonical (see [`canonical`](super::canonical)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Mount points: the disks underneath them are selected. What else is mounted from these disks
    /// is frozen too.
    pub mounts: Vec<PathBuf>,
    /// Disks by the provider's id or by device node. With `mounts` empty too: all that the provider
    /// lists.
    pub disks: Vec<String>,
    /// Disks left out, by id or device node. No file system on them is ever frozen.
    pub exclude_disks: Vec<String>,
    /// Mount points of file systems that cannot be frozen and shall not lower the level.
    pub accept_unfrozen: Vec<PathBuf>,
    /// False: nothing is frozen.
    pub freeze: bool,
    /// What must stay writable in the window, and what it is: the run directory, say.
    pub protected: Vec<(PathBuf, String)>,
}

impl Default for Scope {
    fn default() -> Self {
        Self {
            mounts: Vec::new(),
            disks: Vec::new(),
            exclude_disks: Vec::new(),
            accept_unfrozen: Vec::new(),
            freeze: true,
            protected: Vec::new(),
        }
    }
}

/// Says what would be frozen, in which order, what is left alone and why.
///
/// # Errors
/// A disk or mount that was named is not there, or is not the provider's; storage lies on itself;
/// something that must stay writable would be frozen.
pub fn plan(inventory: &Inventory, disks: &[Disk], scope: &Scope) -> Result<Plan, PlanError> {
    let topology = Topology::new(inventory);
    let selection = Selection::of(&topology, disks, scope)?;
    let mut draft = Draft { topology, selection, scope, plan: Plan::default() };
    draft.sort_file_systems_in_and_out()?;
    draft.order_in_waves()?;
    draft.check_protected()?;
    draft.plan.disks = draft.selection.disks;
    Ok(draft.plan)
}

/// The disks of the snapshot, and those that must not be touched.
#[derive(Debug)]
pub(super) struct Selection {
    disks: Vec<Disk>,
    excluded: BTreeMap<DevId, String>,
}

/// How a file system lies on the disks of the snapshot.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Coverage {
    /// On none of them.
    None,
    /// All of it.
    Full,
    /// Partly; what is missing, in words.
    Partial(Vec<String>),
}

impl Selection {
    /// The disks that `scope` asks for.
    fn of(topology: &Topology<'_>, all: &[Disk], scope: &Scope) -> Result<Self, PlanError> {
        if all.is_empty() {
            return Err(PlanError::NoDisks);
        }
        let mut chosen = BTreeSet::new();
        for asked in &scope.disks {
            chosen.insert(find_disk("disks", asked, all)?.device);
        }
        for asked in &scope.mounts {
            chosen.extend(disks_under(topology, asked, all)?);
        }
        let everything = scope.disks.is_empty() && scope.mounts.is_empty();
        let mut excluded = BTreeMap::new();
        for asked in &scope.exclude_disks {
            let disk = find_disk("exclude-disks", asked, all)?;
            excluded.insert(disk.device, disk_name(disk));
        }
        let disks: Vec<Disk> = all
            .iter()
            .filter(|disk| everything || chosen.contains(&disk.device))
            .filter(|disk| !excluded.contains_key(&disk.device))
            .cloned()
            .collect();
        if disks.is_empty() {
            return Err(PlanError::AllExcluded { excluded: excluded.into_values().collect() });
        }
        Ok(Self { disks, excluded })
    }

    /// The disks of a plan that exists already.
    pub(super) fn of_plan(plan: &Plan) -> Self {
        Self { disks: plan.disks.clone(), excluded: BTreeMap::new() }
    }

    fn has(&self, device: DevId) -> bool {
        self.disks.iter().any(|disk| disk.device == device)
    }

    /// Ids of the snapshot's disks among `layers`, in the provider's order.
    pub(super) fn ids(&self, layers: &BTreeSet<Layer>) -> Vec<String> {
        let among = |disk: &&Disk| layers.contains(&Layer::Block(disk.device));
        self.disks.iter().filter(among).map(|disk| disk.id.clone()).collect()
    }

    /// How `top` lies on the disks of the snapshot. Call it after
    /// [`closure`](Topology::closure): it trusts that there is no ring.
    pub(super) fn coverage(&self, topology: &Topology<'_>, top: Layer) -> Coverage {
        let mut found = Found::default();
        self.look_below(topology, top, &mut found);
        match (found.covered, found.missing.is_empty()) {
            (false, _) => Coverage::None,
            (true, true) => Coverage::Full,
            (true, false) => Coverage::Partial(found.missing.into_iter().collect()),
        }
    }

    fn look_below(&self, topology: &Topology<'_>, layer: Layer, found: &mut Found) {
        if let Layer::Block(device) = layer {
            if self.has(device) {
                // What lies further down only carries this disk.
                found.covered = true;
                return;
            }
            if let Some(name) = self.excluded.get(&device) {
                found.missing.insert(format!("{name} (excluded)"));
            }
        }
        let below = topology.below(layer);
        if below.is_empty() {
            found.missing.insert(topology.name(layer));
        }
        for lower in below {
            self.look_below(topology, lower, found);
        }
    }
}

#[derive(Default)]
struct Found {
    covered: bool,
    missing: BTreeSet<String>,
}

fn find_disk<'d>(
    setting: &'static str,
    asked: &str,
    all: &'d [Disk],
) -> Result<&'d Disk, PlanError> {
    let is_it = |disk: &&Disk| disk.id == asked || disk.node == Path::new(asked);
    all.iter().find(is_it).ok_or_else(|| PlanError::UnknownDisk {
        setting,
        asked: asked.to_owned(),
        known: all.iter().map(disk_name).collect(),
    })
}

fn disk_name(disk: &Disk) -> String {
    if disk.node == Path::new(&disk.id) {
        disk.id.clone()
    } else {
        format!("{} = {}", disk.node.display(), disk.id)
    }
}

/// The provider's disks that the file system mounted at `asked` lies on: the topmost of each branch.
fn disks_under(
    topology: &Topology<'_>,
    asked: &Path,
    all: &[Disk],
) -> Result<Vec<DevId>, PlanError> {
    let asked = normal(asked);
    let nearest = topology.table.resolve(&asked);
    let Some(mount) = nearest.filter(|mount| mount.mount_point == asked) else {
        return Err(PlanError::NotAMountPoint {
            asked,
            nearest: nearest.map(|mount| mount.mount_point.clone()),
            known: mounts_on(topology, all),
        });
    };
    let top = Layer::FileSystem(mount.superblock);
    topology.closure(top)?;
    let mut found = Vec::new();
    topmost(topology, top, all, &mut found);
    if found.is_empty() {
        let below = topology.below(top);
        let names: Vec<String> = below.into_iter().map(|layer| topology.name(layer)).collect();
        return Err(PlanError::OnNoDisk {
            mount_point: asked,
            lies_on: if names.is_empty() { "no block device".to_owned() } else { names.join(", ") },
            known: mounts_on(topology, all),
        });
    }
    Ok(found)
}

fn topmost(topology: &Topology<'_>, layer: Layer, all: &[Disk], found: &mut Vec<DevId>) {
    if let Layer::Block(device) = layer
        && all.iter().any(|disk| disk.device == device)
    {
        found.push(device);
        return;
    }
    for lower in topology.below(layer) {
        topmost(topology, lower, all, found);
    }
}

/// What is mounted from the provider's disks, for an error that says what there is.
fn mounts_on(topology: &Topology<'_>, all: &[Disk]) -> Vec<String> {
    let on_a_disk = |mount: &&Mount| {
        let closure = topology.closure(Layer::FileSystem(mount.superblock)).unwrap_or_default();
        all.iter().any(|disk| closure.contains(&Layer::Block(disk.device)))
    };
    let mounts = topology.inventory.mounts.iter().filter(on_a_disk);
    mounts.map(|mount| mount.mount_point.display().to_string()).collect()
}

/// A plan in the making.
struct Draft<'a> {
    topology: Topology<'a>,
    selection: Selection,
    scope: &'a Scope,
    plan: Plan,
}

/// What becomes of one superblock.
enum Verdict {
    Freeze { opened: u64 },
    Skip(SkipReason),
    SkipBecause(SkipReason, Reason),
}

impl Draft<'_> {
    fn sort_file_systems_in_and_out(&mut self) -> Result<(), PlanError> {
        let inventory = self.topology.inventory;
        let mut seen = BTreeSet::new();
        for mount in &inventory.mounts {
            if !seen.insert(mount.superblock) {
                continue;
            }
            let (verdict, disks) = self.judge(mount)?;
            match verdict {
                Verdict::Freeze { opened } => self.freeze(opened, disks),
                Verdict::Skip(reason) => self.skip(mount, reason, &disks),
                Verdict::SkipBecause(reason, mut because) => {
                    because.disks.clone_from(&disks);
                    self.skip(mount, reason, &disks);
                    self.plan.reasons.push(because);
                }
            }
        }
        self.sort_out_what_is_mounted_elsewhere()?;
        self.name_disks_that_are_no_device();
        if !self.scope.freeze {
            self.plan.reasons.push(Reason {
                limits_to: Level::Crash,
                code: ReasonCode::FreezeDisabled,
                detail: "freezing is switched off for this run".to_owned(),
                disks: Vec::new(),
            });
        }
        Ok(())
    }

    /// A disk of the snapshot that is no block device here: nobody can say what is on it.
    fn name_disks_that_are_no_device(&mut self) {
        for disk in self.selection.disks.iter().filter(|disk| !disk.device.is_a_device()) {
            self.plan.reasons.push(Reason {
                limits_to: Level::Crash,
                code: ReasonCode::DeviceNotFound,
                detail: format!(
                    "{} is a disk of this instance, but no block device here is known to be it",
                    disk_name(disk)
                ),
                disks: vec![disk.id.clone()],
            });
        }
    }

    /// A file system that only another mount namespace has mounted cannot be opened by its path
    /// here. On a disk of the snapshot, it is captured without a freeze.
    fn sort_out_what_is_mounted_elsewhere(&mut self) -> Result<(), PlanError> {
        for Elsewhere { process, command, mount } in &self.topology.inventory.elsewhere {
            let top = Layer::FileSystem(mount.superblock);
            let layers = self.topology.closure(top)?;
            let kind = kinds::kind(mount);
            let written = kind != Kind::ReadOnlyByNature && !mount.has_super_option("ro");
            if !written || self.selection.coverage(&self.topology, top) == Coverage::None {
                continue;
            }
            let disks = self.selection.ids(&layers);
            if self.is_accepted(&mount.mount_point) {
                self.skip(mount, SkipReason::NotFreezable { accepted: true }, &disks);
                continue;
            }
            self.skip(mount, SkipReason::Unreachable, &disks);
            self.plan.reasons.push(Reason {
                limits_to: Level::Crash,
                code: ReasonCode::NotFreezable,
                detail: format!(
                    "{} ({}) cannot be opened: it is mounted in the mount namespace of process \
                     {process} ({command}) only",
                    mount.mount_point.display(),
                    mount.fs_type
                ),
                disks,
            });
        }
        Ok(())
    }

    fn is_accepted(&self, mount_point: &Path) -> bool {
        self.scope.accept_unfrozen.iter().any(|path| normal(path) == mount_point)
    }

    /// Decides about the superblock of `mount`, which is its first.
    fn judge(&self, mount: &Mount) -> Result<(Verdict, Vec<String>), PlanError> {
        let kind = kinds::kind(mount);
        let never_opened = match kind {
            Kind::Network => Some(SkipReason::Network),
            Kind::Automount => Some(SkipReason::Automount),
            Kind::UserSpace => Some(SkipReason::UserSpace),
            _ if !kinds::is_on_disk(mount) => Some(SkipReason::NoBlockDevice),
            _ => None,
        };
        if let Some(reason) = never_opened {
            return Ok((Verdict::Skip(reason), Vec::new()));
        }
        let top = Layer::FileSystem(mount.superblock);
        if self.topology.below(top).is_empty() {
            return Ok((
                self.not_freezable(mount, "nobody says on which disks it lies"),
                Vec::new(),
            ));
        }
        let layers = self.topology.closure(top)?;
        let disks = self.selection.ids(&layers);
        let verdict = match self.selection.coverage(&self.topology, top) {
            Coverage::None => Verdict::Skip(SkipReason::OtherDisk),
            Coverage::Partial(missing) => Verdict::SkipBecause(
                SkipReason::DiskExcluded,
                Reason {
                    limits_to: Level::Crash,
                    code: ReasonCode::DiskExcluded,
                    detail: format!(
                        "{} ({}) also lies on {}, not in this snapshot",
                        mount.mount_point.display(),
                        mount.fs_type,
                        missing.join(", ")
                    ),
                    disks: Vec::new(),
                },
            ),
            Coverage::Full => self.on_our_disks(mount, kind),
        };
        Ok((verdict, disks))
    }

    fn on_our_disks(&self, mount: &Mount, kind: Kind) -> Verdict {
        match kind {
            Kind::Freezable if !self.scope.freeze => Verdict::Skip(SkipReason::FreezeDisabled),
            Kind::Freezable => self.freezable(mount),
            Kind::ReadOnlyByNature => Verdict::Skip(SkipReason::ReadOnly),
            _ => self.not_freezable(mount, "its type cannot be frozen"),
        }
    }

    /// Chooses the mount to open: the whole file system before a part of it, then the shortest way.
    fn freezable(&self, first: &Mount) -> Verdict {
        let mounts = self.topology.mounts_of(first.superblock);
        let best = mounts.filter(|mount| self.can_be_opened(mount)).min_by_key(|mount| {
            let depth = mount.mount_point.components().count();
            (mount.root != Path::new("/"), depth, order(&mount.mount_point))
        });
        match best {
            Some(mount) => Verdict::Freeze { opened: mount.id },
            None => Verdict::SkipBecause(
                SkipReason::Unreachable,
                Reason {
                    limits_to: Level::Crash,
                    code: ReasonCode::NotFreezable,
                    detail: format!(
                        "{} ({}) cannot be opened: {}",
                        first.mount_point.display(),
                        first.fs_type,
                        self.why_unreachable(first)
                    ),
                    disks: Vec::new(),
                },
            ),
        }
    }

    fn can_be_opened(&self, mount: &Mount) -> bool {
        let crossed = self.topology.table.walk(&mount.mount_point);
        crossed.last().is_some_and(|top| top.id == mount.id)
            && crossed.iter().all(|mount| kinds::is_local(mount))
            && !self.topology.inventory.on_files.contains(&mount.id)
    }

    fn why_unreachable(&self, mount: &Mount) -> String {
        let crossed = self.topology.table.walk(&mount.mount_point);
        match crossed.last() {
            Some(top) if top.id != mount.id => {
                format!("{} ({}) is mounted over it", top.mount_point.display(), top.fs_type)
            }
            _ => match crossed.iter().find(|mount| !kinds::is_local(mount)) {
                Some(remote) => format!(
                    "the way there leads through {} ({}), which is never opened",
                    remote.mount_point.display(),
                    remote.fs_type
                ),
                None => "it is mounted on a single file only".to_owned(),
            },
        }
    }

    fn not_freezable(&self, mount: &Mount, why: &str) -> Verdict {
        if mount.has_super_option("ro") {
            return Verdict::Skip(SkipReason::ReadOnly);
        }
        let mut mounts = self.topology.mounts_of(mount.superblock);
        let accepted = mounts.any(|mount| self.is_accepted(&mount.mount_point));
        let skip = SkipReason::NotFreezable { accepted };
        if accepted {
            return Verdict::Skip(skip);
        }
        Verdict::SkipBecause(
            skip,
            Reason {
                limits_to: Level::Crash,
                code: ReasonCode::NotFreezable,
                detail: format!("{} ({}): {why}", mount.mount_point.display(), mount.fs_type),
                disks: Vec::new(),
            },
        )
    }

    fn freeze(&mut self, opened: u64, disks: Vec<String>) {
        let Some(mount) = self.topology.table.by_id(opened) else { return };
        let mut others: Vec<PathBuf> = self
            .topology
            .mounts_of(mount.superblock)
            .filter(|other| other.id != mount.id)
            .map(|other| other.mount_point.clone())
            .collect();
        others.sort();
        self.plan.file_systems.push(FileSystem {
            superblock: mount.superblock,
            mount_point: mount.mount_point.clone(),
            mount_id: mount.id,
            fs_type: mount.fs_type.clone(),
            source: mount.source.display().to_string(),
            other_mounts: others,
            disks,
            wave: 0,
        });
    }

    fn skip(&mut self, mount: &Mount, reason: SkipReason, disks: &[String]) {
        self.plan.skipped.push(Skipped {
            mount_point: mount.mount_point.clone(),
            fs_type: mount.fs_type.clone(),
            reason,
            disks: disks.to_vec(),
        });
    }

    /// What is stacked on another is frozen in an earlier wave: freezing it writes to what is
    /// below, which must still run.
    fn order_in_waves(&mut self) -> Result<(), PlanError> {
        let tops: Vec<DevId> = self.plan.file_systems.iter().map(|it| it.superblock).collect();
        let mut below = Vec::new();
        for &top in &tops {
            let layers = self.topology.closure(Layer::FileSystem(top))?;
            let is_below = |&other: &usize| {
                tops[other] != top && layers.contains(&Layer::FileSystem(tops[other]))
            };
            below.push((0..tops.len()).filter(is_below).collect::<Vec<_>>());
        }
        // There is no ring, so the longest chain is no longer than the list.
        for _ in 0..tops.len() {
            for (top, lower) in below.iter().enumerate() {
                for &lower in lower {
                    let wave = self.plan.file_systems[top].wave + 1;
                    let lower = &mut self.plan.file_systems[lower];
                    lower.wave = lower.wave.max(wave);
                }
            }
        }
        self.plan
            .file_systems
            .sort_by(|a, b| (a.wave, order(&a.mount_point)).cmp(&(b.wave, order(&b.mount_point))));
        Ok(())
    }

    /// A path that must stay writable may not be on a frozen file system, nor on one that is
    /// stacked on a frozen one: its writes would wait there.
    fn check_protected(&self) -> Result<(), PlanError> {
        for (path, what) in &self.scope.protected {
            let Some(mount) = self.topology.table.resolve(path) else { continue };
            let layers = self.topology.closure(Layer::FileSystem(mount.superblock))?;
            let frozen = self
                .plan
                .file_systems
                .iter()
                .find(|frozen| layers.contains(&Layer::FileSystem(frozen.superblock)));
            if let Some(frozen) = frozen {
                return Err(PlanError::Protected {
                    path: path.clone(),
                    what: what.clone(),
                    mount_point: frozen.mount_point.clone(),
                });
            }
        }
        Ok(())
    }
}
