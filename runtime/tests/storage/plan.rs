//! The plan of real stacks.

use std::fs;
use std::process::{Child, Command, Stdio};

use stillpoint::plan::{
    Inventory, Plan, PlanError, Scope, SkipReason, explain, find_owner, plan, still_valid,
};
use stillpoint::provider::Disk;

use crate::lab::{EXT4, Lab, XFS, run};

fn planned(disks: &[Disk]) -> (Inventory, Plan) {
    let inventory = Inventory::collect().unwrap();
    let plan = plan(&inventory, disks, &Scope::default()).unwrap();
    (inventory, plan)
}

/// Waves and mount points, without the lab's own directory.
fn waves(lab: &Lab, plan: &Plan) -> Vec<(usize, String)> {
    let name =
        |path: &std::path::Path| path.strip_prefix(lab.path("")).unwrap().display().to_string();
    plan.file_systems.iter().map(|it| (it.wave, name(&it.mount_point))).collect()
}

fn order(expected: &[(usize, &str)]) -> Vec<(usize, String)> {
    expected.iter().map(|(wave, place)| (*wave, (*place).to_owned())).collect()
}

#[test]
fn a_real_stack_is_frozen_and_thawed_in_the_order_of_the_plan() {
    let lab = Lab::xfs();
    lab.disk("host/e4.img", EXT4, 200, "e4");
    lab.disk("host/xf.img", XFS, 320, "xf");
    lab.disk("e4/deep.img", EXT4, 32, "deep");
    let disks = [lab.host_disk("host")];
    let bound = lab.path("bound");
    fs::create_dir(&bound).unwrap();
    run("mount", &["--bind", lab.path("e4").to_str().unwrap(), bound.to_str().unwrap()]);
    // An image without a name is still what its file system lies on.
    fs::remove_file(lab.path("e4/deep.img")).unwrap();

    let (inventory, plan) = planned(&disks);
    let expected = order(&[(0, "deep"), (0, "xf"), (1, "bound"), (2, "host")]);
    assert_eq!(waves(&lab, &plan), expected, "{}", explain(&plan));
    assert_eq!(plan.file_systems[2].other_mounts, [lab.path("e4")]);
    still_valid(&plan, &inventory).unwrap();

    let places = plan.file_systems.iter().map(|it| it.mount_point.to_str().unwrap());
    for place in places.clone() {
        run("timeout", &["20", "fsfreeze", "-f", place]);
    }
    for place in places.rev() {
        run("fsfreeze", &["-u", place]);
    }
    fs::write(lab.path("deep/file"), "written again").unwrap();

    run("umount", &[lab.path("xf").to_str().unwrap()]);
    let error = still_valid(&plan, &Inventory::collect().unwrap()).unwrap_err();
    assert!(matches!(error, PlanError::Changed { .. }), "{error}");
    assert!(error.to_string().contains("/xf was unmounted"), "{error}");
}

#[test]
fn a_btrfs_on_two_loop_devices_is_on_both_disks_and_not_frozen_for_one() {
    let lab = Lab::xfs();
    let first = lab.disk("host/one.img", &["mkfs.btrfs", "-q"], 300, "tree");
    fs::File::create_new(lab.path("host/two.img")).unwrap().set_len(300 << 20).unwrap();
    let two = lab.path("host/two.img");
    let node = run("losetup", &["--show", "-f", two.to_str().unwrap()]);
    let tree = lab.path("tree");
    run("btrfs", &["device", "add", &node, tree.to_str().unwrap()]);
    let second = lab.listed(&two, &node);

    let both = [first, second];
    let (inventory, plan) = planned(&both);
    assert_eq!(waves(&lab, &plan), order(&[(0, "tree")]), "{}", explain(&plan));
    assert_eq!(plan.file_systems[0].disks.len(), 2);
    let owner = find_owner(&inventory, &plan, &tree.join("not/yet/there")).unwrap();
    assert!(owner.frozen && owner.in_snapshot && !owner.exists, "{owner}");

    for one in &both {
        let (inventory, plan) = planned(std::slice::from_ref(one));
        assert!(plan.file_systems.is_empty(), "{}", explain(&plan));
        assert!(plan.skipped.iter().any(|it| it.reason == SkipReason::DiskExcluded));
        let owner = find_owner(&inventory, &plan, &tree).unwrap();
        assert!(!owner.in_snapshot, "{owner}");
    }
}

/// Keeps of all mounts under /tmp only those below $1: others are none of this test's affair.
const KEEP_ONE: &str = r#"
awk -v keep="${1%/}/" 'index($5, "/tmp/") == 1 && index($5, keep) != 1 {print $5}' /proc/self/mountinfo |
    tac | while read -r place; do umount -l "$place"; done
echo ready
read -r word
"#;

/// A process in a mount namespace of its own; it ends when its standard input is closed.
struct Apart(Child);

impl Drop for Apart {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn what_only_another_mount_namespace_has_mounted_is_found() {
    let lab = Lab::xfs();
    let disk = lab.disk("host/a.img", EXT4, 32, "a");
    let mut apart = Apart(
        Command::new("unshare")
            .args(["-m", "--propagation", "private", "sh", "-c", KEEP_ONE, "apart"])
            .arg(lab.path(""))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut line = String::new();
    let output = apart.0.stdout.as_mut().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).unwrap();
    run("umount", &[lab.path("a").to_str().unwrap()]);

    let (_, plan) = planned(&[disk]);
    assert!(plan.file_systems.is_empty());
    let text = explain(&plan);
    assert!(text.contains("in the mount namespace of process"), "{text}");
    drop(apart);
}
