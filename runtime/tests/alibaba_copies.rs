//! Copies of a group, of the provider `alibaba` against the emulator: which device is which, what is
//! never touched, and who may have them. With real devices and servers: `tests/tests/verify_cloud.rs`.

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "common/cloud.rs"]
mod cloud;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use cloud::{RUN, manifest};
use ecs_emulator::{Attaching, Disk, Emulator, Fault, Scenario, Tag};
use stillpoint::consistency::Level;
use stillpoint::exit_code::ExitCode;
use stillpoint::provider::alibaba::{AlibabaProvider, AlibabaSettings};
use stillpoint::provider::{GroupRequest, Provider};
use stillpoint::time::Deadline;

const INSTANCE: &str = "i-bp1emulator0000001";

/// An instance with a data disk and a `/sys` of its own, and a group of that disk.
struct Lab {
    emulator: Emulator,
    folder: tempfile::TempDir,
    group: String,
}

impl Lab {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let scenario = Scenario::with_disks([Disk {
            serial: Some("bp1original".into()),
            category: "cloud_auto".into(),
            performance_level: None,
            ..Disk::at("d-bp1original", "/dev/xvdb")
        }]);
        let emulator = Emulator::start(scenario).unwrap();
        let mut lab = Self { emulator, folder, group: String::new() };
        plug(&lab.sys(), "stillpoint-test-a", "252:990", "bp1original");
        lab.group = lab.group_of_all(RUN).await;
        lab
    }

    fn sys(&self) -> PathBuf {
        self.folder.path().join("sys")
    }

    fn provider(&self) -> AlibabaProvider {
        AlibabaProvider::new(AlibabaSettings {
            endpoint: Some(self.emulator.ecs_url.clone()),
            metadata_endpoint: Some(self.emulator.imds_url.clone()),
            manifests: self.folder.path().join("manifests"),
            sys: self.sys(),
            copies: Duration::from_secs(20),
            ..AlibabaSettings::default()
        })
        .unwrap()
    }

    async fn group_of_all(&self, run: &str) -> String {
        let provider = self.provider();
        let request = GroupRequest {
            run_id: run.into(),
            name: "LinuxApp1".into(),
            description: String::new(),
            disks: provider.disks().await.unwrap(),
            frozen_mounts: Vec::new(),
            frozen_superblocks: Vec::new(),
        };
        let mut group = provider.prepare(request, plenty()).await.unwrap();
        let id = group.create(plenty()).await.unwrap().id;
        let members = group.settle(plenty()).await.unwrap();
        group.record(&manifest(&id, Level::FileSystem, &members)).await.unwrap();
        id
    }

    /// The guest sees an attached disk a moment after ECS says that it is attached, and under a name
    /// that ECS does not know.
    fn plug_in_late(&self) {
        let sys = self.sys();
        self.emulator.on_attach(move |attaching: &Attaching| {
            let (sys, serial) = (sys.clone(), attaching.serial.clone());
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(400));
                // virtio-blk shows no more of it.
                let shown: String = serial.chars().take(20).collect();
                plug(&sys, "stillpoint-test-c", "252:992", &shown);
            });
            Some("/dev/xvdz".to_owned())
        });
        let sys = self.sys();
        self.emulator.on_detach(move |_| {
            fs::remove_dir_all(sys.join("block/stillpoint-test-c")).unwrap();
        });
    }

    fn ids(&self) -> Vec<String> {
        self.emulator.disks().into_iter().map(|disk| disk.id).collect()
    }
}

fn plenty() -> Deadline {
    Deadline::after(Duration::from_secs(30))
}

fn plug(sys: &Path, name: &str, number: &str, serial: &str) {
    let block = sys.join("block").join(name);
    fs::create_dir_all(&block).unwrap();
    for (file, text) in [("serial", serial), ("size", "83886080"), ("dev", number)] {
        fs::write(block.join(file), text).unwrap();
    }
}

#[tokio::test]
async fn the_device_of_a_copy_is_the_one_with_its_serial_number_whenever_it_comes() {
    let lab = Lab::new().await;
    lab.plug_in_late();
    let provider = lab.provider();
    let copies = provider.attach_copy(&lab.group).await.unwrap();
    assert_eq!(copies.len(), 1);
    assert_eq!(copies[0].disk, "d-bp1original");
    assert_eq!(copies[0].node, PathBuf::from("/dev/stillpoint-test-c"));
    let disk = lab.emulator.disks().pop().unwrap();
    assert_eq!(copies[0].copy, PathBuf::from(&disk.id));
    // As its original: what the instance can attach, in the same zone, and not gone with it.
    assert_eq!((disk.category.as_str(), disk.size), ("cloud_auto", 40));
    assert!(!disk.delete_with_instance, "somebody works on it");
    let create = &lab.emulator.calls("CreateDisk")[0];
    assert!(create.unknown_parameters.is_empty(), "{create:?}");
    assert_eq!(create.parameters["ZoneId"], "cn-hangzhou-i");
    assert!(create.parameters.contains_key("ClientToken"), "{create:?}");

    // It is no disk of the next snapshot.
    let disks = provider.disks().await.unwrap();
    assert_eq!(disks.len(), 1, "{disks:?}");
    assert!(disks[0].warnings.iter().any(|it| it.contains(&disk.id)), "{disks:?}");
    let error = provider.delete(&lab.group).await.unwrap_err();
    assert_eq!(error.exit_code, ExitCode::GroupState);
    assert!(error.hint.unwrap().contains("stillpoint detach"));

    provider.detach_copy(&lab.group).await.unwrap();
    assert_eq!(lab.ids(), ["d-bp1original"]);
    provider.detach_copy(&lab.group).await.unwrap();
    provider.delete(&lab.group).await.unwrap();
}

/// A disk that only says so by its tags is somebody's own, and nothing happens to it.
#[tokio::test]
async fn what_is_tagged_as_a_copy_and_is_none_is_never_touched() {
    let lab = Lab::new().await;
    let tag = |key: &str, value: &str| Tag { key: key.into(), value: value.into() };
    let group = lab.group.clone();
    lab.emulator.change(|scenario| {
        scenario.disks[0].tags = vec![
            tag("stillpoint-copy-of", &group),
            tag("stillpoint-copy-at", INSTANCE),
            tag("stillpoint-copy-disk", "d-other"),
            tag("stillpoint-copy-snapshot", "s-1"),
            tag("stillpoint-copy-for", "verify"),
        ];
    });
    let provider = lab.provider();
    assert_eq!(provider.disks().await.unwrap().len(), 1, "it is snapshotted as ever");
    provider.detach_copy(&lab.group).await.unwrap();
    provider.delete(&lab.group).await.unwrap();
    assert_eq!(lab.ids(), ["d-bp1original"]);
    assert!(lab.emulator.calls("DetachDisk").is_empty());
    assert!(lab.emulator.calls("DeleteDisk").is_empty());
}

#[tokio::test]
async fn copies_that_are_looked_at_are_nobody_elses_until_they_are_given_back() {
    let lab = Lab::new().await;
    lab.plug_in_late();
    let (one, other) = (lab.provider(), lab.provider());
    let passing = one.attach_passing(&lab.group).await.unwrap();
    assert!(lab.emulator.disks().pop().unwrap().delete_with_instance, "it is for a look");
    let errors = [
        other.attach_copy(&lab.group).await.unwrap_err(),
        other.attach_passing(&lab.group).await.unwrap_err(),
        other.detach_copy(&lab.group).await.unwrap_err(),
        other.delete(&lab.group).await.unwrap_err(),
    ];
    assert!(errors.iter().all(|it| it.exit_code == ExitCode::InProgress), "{errors:?}");
    one.release_passing(&lab.group, Some(passing)).await.unwrap();
    assert_eq!(lab.ids(), ["d-bp1original"]);

    // One whose process is gone without giving it back: whoever comes next does, for whichever group.
    drop(one.attach_passing(&lab.group).await.unwrap());
    assert_eq!(lab.ids().len(), 2);
    let second = lab.group_of_all("another run").await;
    let passing = other.attach_passing(&second).await.unwrap();
    assert_eq!(lab.ids().len(), 2, "only the new one is there");
    other.release_passing(&second, Some(passing)).await.unwrap();
    assert_eq!(lab.ids(), ["d-bp1original"]);
}

/// Somebody took a copy to another machine: it is his there.
#[tokio::test]
async fn a_copy_that_is_attached_to_another_instance_is_left_alone() {
    let lab = Lab::new().await;
    lab.plug_in_late();
    let provider = lab.provider();
    provider.attach_copy(&lab.group).await.unwrap();
    lab.emulator.change(|scenario| scenario.disks[1].instance = Some("i-other".into()));
    let error = provider.detach_copy(&lab.group).await.unwrap_err();
    assert_eq!(error.exit_code, ExitCode::GroupState);
    assert!(error.message.contains("elsewhere"), "{error}");
    assert!(lab.emulator.calls("DetachDisk").is_empty());
    assert_eq!(lab.ids().len(), 2);
}

/// A disk whose making nobody was told of is found by its tags.
#[tokio::test]
async fn a_disk_that_was_made_without_an_answer_is_found_and_removed() {
    let lab = Lab::new().await;
    lab.plug_in_late();
    let hangs = Fault::on("CreateDisk").delay_after(Duration::from_secs(5));
    lab.emulator.faults([hangs]);
    let provider = lab.provider();
    let given_up =
        tokio::time::timeout(Duration::from_secs(1), provider.attach_passing(&lab.group));
    given_up.await.unwrap_err();
    assert_eq!(lab.ids().len(), 2, "it was made");
    provider.release_passing(&lab.group, None).await.unwrap();
    assert_eq!(lab.ids(), ["d-bp1original"]);
}

#[tokio::test]
async fn a_group_that_is_not_ours_or_was_not_finished_is_not_attached() {
    let lab = Lab::new().await;
    let provider = lab.provider();
    for group in ["ssg-other", "../../etc/passwd"] {
        let error = provider.attach_copy(group).await.unwrap_err();
        assert!(error.message.contains("there is no group"), "{error}");
    }
    let error = provider.detach_copy("ssg-other").await.unwrap_err();
    assert_eq!(error.exit_code, ExitCode::GroupState, "a typing error is not a success");
    fs::remove_file(lab.folder.path().join(format!("manifests/{}.json", lab.group))).unwrap();
    let error = provider.attach_copy(&lab.group).await.unwrap_err();
    assert_eq!(error.exit_code, ExitCode::GroupState);
    assert!(error.message.contains("no manifest"), "{error}");
    assert!(lab.emulator.calls("CreateDisk").is_empty());
}
