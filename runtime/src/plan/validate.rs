//! Whether a plan still holds, asked just before the freeze.

use std::collections::BTreeSet;

use super::select::{Coverage, Selection};
use super::topology::{Inventory, Layer, Topology};
use super::{FileSystem, Plan, PlanError, kinds};

/// Compares the plan with a fresh inventory: the same mounts, superblocks and disks, and no new
/// file system on a disk of the snapshot.
///
/// # Errors
/// [`PlanError::Changed`], naming the first difference.
pub fn still_valid(plan: &Plan, inventory: &Inventory) -> Result<(), PlanError> {
    let topology = Topology::new(inventory);
    for disk in &plan.disks {
        if !inventory.blocks.contains_key(&disk.device) {
            return changed(format!("{} is gone", disk.node.display()));
        }
    }
    for file_system in &plan.file_systems {
        same_file_system(&topology, plan, file_system)?;
    }
    nothing_new(&topology, plan)
}

fn same_file_system(
    topology: &Topology<'_>,
    plan: &Plan,
    planned: &FileSystem,
) -> Result<(), PlanError> {
    let place = planned.mount_point.display();
    let Some(mount) = topology.table.by_id(planned.mount_id) else {
        return changed(format!("{place} was unmounted"));
    };
    if mount.superblock != planned.superblock || mount.mount_point != planned.mount_point {
        return changed(format!("{place} was unmounted"));
    }
    if !topology.table.is_reachable(mount) {
        return changed(format!("something was mounted over {place}"));
    }
    let layers = topology.closure(Layer::FileSystem(planned.superblock))?;
    let disks = Selection::of_plan(plan).ids(&layers);
    if disks != planned.disks {
        return changed(format!(
            "{place} lies on {} now, not on {}",
            disks.join(", "),
            planned.disks.join(", ")
        ));
    }
    Ok(())
}

/// A file system that came to a disk of the snapshot would be captured without a freeze.
fn nothing_new(topology: &Topology<'_>, plan: &Plan) -> Result<(), PlanError> {
    let selection = Selection::of_plan(plan);
    let mut seen: BTreeSet<_> = plan.file_systems.iter().map(|it| it.superblock).collect();
    let elsewhere = topology.inventory.elsewhere.iter().map(|it| &it.mount);
    for mount in topology.inventory.mounts.iter().chain(elsewhere) {
        if !kinds::is_on_disk(mount) || !seen.insert(mount.superblock) {
            continue;
        }
        let top = Layer::FileSystem(mount.superblock);
        let disks = selection.ids(&topology.closure(top)?);
        let was_skipped = plan.skipped.iter().any(|skipped| {
            let mut mounts = topology.mounts_of(mount.superblock).chain([mount]);
            skipped.fs_type == mount.fs_type
                && skipped.disks == disks
                && mounts.any(|it| it.mount_point == skipped.mount_point)
        });
        if !was_skipped && selection.coverage(topology, top) != Coverage::None {
            return changed(format!(
                "{} ({}) was mounted from a disk of the snapshot",
                mount.mount_point.display(),
                mount.fs_type
            ));
        }
    }
    Ok(())
}

fn changed(what: String) -> Result<(), PlanError> {
    Err(PlanError::Changed { what })
}
