//! The provider `alibaba` when the cloud does not do as it should: late answers, lost answers,
//! refusals, failures. Whatever happens: the file systems run, there is never a second group, and no
//! group is called consistent that is not.

#![expect(clippy::print_stdout, reason = "what was measured is for whoever reads the tests")]

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ecs_emulator::{ConnectionFault, Disk, Fault, GroupStatus, GroupView, Outcome, Role, Timeline};
use stillpoint_tests::cloud::disk_of;
use stillpoint_tests::cloud_rig::{CloudRig, longest};
use stillpoint_tests::file_writers::FileWriters;
use stillpoint_tests::stillpoint::Run;
use stillpoint_tests::writers::Interval;

/// The window of these tests.
const WINDOW: Duration = Duration::from_secs(5);

/// How far from it the thaw may be.
const TOLERANCE: Duration = Duration::from_millis(250);

/// Exit codes, as documented.
const PRECONDITION: i32 = 1;
const NO_PERMISSION: i32 = 3;
const CREATE_FAILED: i32 = 4;
const GROUP_STATE: i32 = 5;
const GROUP_TIMED_OUT: i32 = 6;
const MEMBER_STATE: i32 = 7;
const TAGS: i32 = 8;
const NO_ROLE: i32 = 13;
const QUOTA: i32 = 14;
const SNAPSHOT_STATE: i32 = 15;
const IN_PROGRESS: i32 = 16;

/// Two file systems in a cloud, with a writer on each while a snapshot is taken.
struct Bed {
    rig: CloudRig,
}

impl Bed {
    fn new() -> Result<Self> {
        let rig = CloudRig::new(&["data", "log"], |_| ())?;
        rig.configure("[deadlines]\nfreeze = \"5s\"\n")?;
        Ok(Self { rig })
    }

    /// A run in which this goes wrong, and nothing that went wrong before; how it ended, and how
    /// long the longest write took.
    fn run(&self, faults: impl IntoIterator<Item = Fault>) -> Result<(Run, Interval)> {
        let emulator = &self.rig.cloud.emulator;
        emulator.clear_groups();
        emulator.clear_log();
        emulator.faults(faults);
        let mounts = self.rig.lab.file_systems().iter().map(|fs| fs.mount.clone());
        let writers = FileWriters::start(mounts)?;
        let run = self.rig.snapshot(&[])?;
        let stall = longest(&writers.stop()?)?;
        self.never_two_groups()?;
        Ok((run, stall))
    }

    /// All requests for a group had one token.
    fn never_two_groups(&self) -> Result<()> {
        let calls = self.rig.cloud.calls("CreateSnapshotGroup");
        let mut tokens: Vec<_> =
            calls.iter().map(|call| call.parameters.get("ClientToken")).collect();
        tokens.dedup();
        ensure!(tokens.len() <= 1 && !tokens.contains(&None), "tokens: {tokens:?}");
        let groups = self.rig.cloud.emulator.groups();
        ensure!(groups.len() <= 1, "{groups:#?}");
        Ok(())
    }

    fn no_group(&self) -> Result<()> {
        let groups = self.rig.cloud.emulator.groups();
        ensure!(groups.is_empty(), "a group is left: {groups:#?}");
        Ok(())
    }

    fn consistent_group(&self) -> Result<()> {
        let group = self.rig.cloud.the_group()?;
        ensure!(group.tag("FsConsistent") == Some("True"), "{group:#?}");
        Ok(())
    }
}

/// No member says of itself that it is consistent.
fn is_not_called_consistent(group: &GroupView) -> Result<()> {
    for member in &group.members {
        for tag in ["AppConsistent", "FsConsistent"] {
            ensure!(member.tag(tag) != Some("True"), "{tag} on {member:#?}");
        }
    }
    Ok(())
}

/// The window was over when it was over, neither much later nor, the answer being late, earlier.
fn thawed_in_time(stall: Interval) -> Result<()> {
    let stall = stall.duration();
    println!("thawed after {stall:?}");
    let range = WINDOW.saturating_sub(TOLERANCE)..=WINDOW + TOLERANCE;
    ensure!(range.contains(&stall), "writes stood still for {stall:?}");
    Ok(())
}

#[test]
fn an_answer_that_is_late_thaws_in_time_and_its_group_is_found_and_deleted() -> Result<()> {
    let bed = Bed::new()?;
    let late = Duration::from_secs(20);
    // The group is there at once, and nobody is told; or it is made when everything runs again.
    for fault in [
        Fault::on("CreateSnapshotGroup").call(1).delay_after(late),
        Fault::on("CreateSnapshotGroup").call(1).delay_before(late),
    ] {
        let (run, stall) = bed.run([fault])?;
        run.exited_with(GROUP_TIMED_OUT)?;
        thawed_in_time(stall)?;
        let created = bed.rig.cloud.calls("CreateSnapshotGroup");
        ensure!(created.iter().any(|call| call.effect_ns.is_some()), "no group was ever made");
        bed.no_group().with_context(|| run.description().to_owned())?;
    }
    bed.rig.finish()
}

/// The policy of the vendor's manual page does not allow to delete groups: the members say that they
/// are not consistent then.
#[test]
fn a_late_group_that_may_not_be_deleted_is_tagged() -> Result<()> {
    let bed = Bed::new()?;
    bed.rig.cloud.emulator.change(|scenario| scenario.role = Role::of_the_manual());
    let late = Duration::from_secs(8);
    let (run, stall) = bed.run([Fault::on("CreateSnapshotGroup").call(1).delay_after(late)])?;
    run.exited_with(GROUP_TIMED_OUT)?;
    thawed_in_time(stall)?;
    let group = bed.rig.cloud.the_group()?;
    is_not_called_consistent(&group)?;
    for tag in ["AppConsistent", "FsConsistent"] {
        ensure!(group.tag(tag) == Some("False"), "{tag}: {group:#?}");
    }
    bed.rig.finish()
}

/// A connection that breaks is opened again in the window, and the request made again with its
/// token: the group is the same one, and its file systems are frozen still.
#[test]
fn an_answer_that_is_lost_costs_no_snapshot_and_gives_no_second_group() -> Result<()> {
    let bed = Bed::new()?;
    for connection in [
        ConnectionFault::ResetBefore,
        ConnectionFault::ResetAfter,
        ConnectionFault::CloseBefore,
        ConnectionFault::CloseAfter,
        ConnectionFault::Truncate,
    ] {
        let fault = Fault::on("CreateSnapshotGroup").call(1).connection(connection);
        let (run, stall) = bed.run([fault])?;
        println!(
            "{connection:?}: exit {:?}, writes stood still for {:?}",
            run.code,
            stall.duration()
        );
        run.succeeded().with_context(|| format!("{connection:?}"))?;
        bed.consistent_group().with_context(|| format!("{connection:?}"))?;
        ensure!(bed.rig.cloud.calls("CreateSnapshotGroup").len() == 2, "{connection:?}");
    }
    bed.rig.finish()
}

/// The connection stays open and nothing comes: the window ends, and the group is removed.
#[test]
fn a_server_that_falls_silent_is_waited_for_until_the_window_ends() -> Result<()> {
    let bed = Bed::new()?;
    bed.rig
        .configure("[deadlines]\nfreeze = \"5s\"\n\n[provider.alibaba]\nlate-group = \"3s\"\n")?;
    for connection in [ConnectionFault::HangAfter, ConnectionFault::HangBefore] {
        let fault = Fault::on("CreateSnapshotGroup").connection(connection);
        let (run, stall) = bed.run([fault])?;
        run.exited_with(GROUP_TIMED_OUT)?;
        thawed_in_time(stall)?;
        bed.no_group().with_context(|| format!("{connection:?}: {}", run.description()))?;
    }
    bed.rig.finish()
}

#[test]
fn throttling_is_waited_for_within_the_window_and_not_beyond() -> Result<()> {
    let bed = Bed::new()?;
    let throttled = || Fault::on("CreateSnapshotGroup").error("Throttling.User");
    let soon = Duration::from_millis(70);
    let (run, _) = bed.run([throttled().times(2).retry_after(soon)])?;
    run.succeeded()?;
    bed.consistent_group()?;
    let calls = bed.rig.cloud.calls("CreateSnapshotGroup");
    ensure!(calls.len() == 3, "{} calls", calls.len());
    for pair in calls.windows(2) {
        let [first, second] = pair else { continue };
        let pause = second.received_ns - first.answered_ns.context("an answer")?;
        ensure!(Duration::from_nanos(pause) >= soon, "asked again after {pause} ns");
    }

    // For ever; with each of the codes and statuses that are documented.
    for (code, status) in [("Throttling", 400), ("Throttling.User", 403), ("Throttling.Api", 429)] {
        let fault = Fault::on("CreateSnapshotGroup").error_with_status(code, status);
        let (run, stall) = bed.run([fault])?;
        run.exited_with(CREATE_FAILED).with_context(|| code.to_owned())?;
        ensure!(stall.duration() <= WINDOW + TOLERANCE, "{code}: {:?}", stall.duration());
        bed.no_group()?;
    }
    bed.rig.finish()
}

#[test]
fn what_ecs_refuses_ends_the_window_at_once() -> Result<()> {
    let bed = Bed::new()?;
    for (code, exit) in [
        ("QuotaExceed.Snapshot", QUOTA),
        ("IncorrectDiskStatus.CreatingSnapshot", IN_PROGRESS),
        ("Forbidden.RAM", NO_PERMISSION),
        ("CreateSnapshot.Failed", CREATE_FAILED),
        ("InvalidAccountStatus.NotEnoughBalance", CREATE_FAILED),
    ] {
        let (run, stall) = bed.run([Fault::on("CreateSnapshotGroup").error(code)])?;
        run.exited_with(exit).with_context(|| code.to_owned())?;
        ensure!(run.error_text()?.contains(code), "{code} is not named: {}", run.description());
        ensure!(stall.duration() < Duration::from_secs(2), "{code}: {:?}", stall.duration());
        bed.no_group()?;
    }
    // Not by a fault, but because it is so.
    let data = disk_of("data");
    bed.rig.cloud.emulator.change(|scenario| {
        for disk in scenario.disks.iter_mut().filter(|disk| disk.id == data) {
            disk.manual_snapshots = 256;
        }
    });
    bed.run([])?.0.exited_with(QUOTA)?;
    bed.rig.finish()
}

/// Credentials that are about to expire are renewed before anything is held; those that ECS does not
/// take any more in the window are an error that says so, or new ones are taken.
#[test]
fn credentials_that_expire_do_not_hold_the_window() -> Result<()> {
    let bed = Bed::new()?;
    bed.rig.cloud.emulator.change(|scenario| scenario.role.lifetime_s = 20 * 60);
    bed.run([])?.0.succeeded()?;
    bed.consistent_group()?;

    let (run, stall) = bed.run([Fault::on("CreateSnapshotGroup").call(1).expire_credentials()])?;
    println!("expired in the window: exit {:?}, {:?}", run.code, stall.duration());
    ensure!(stall.duration() < Duration::from_secs(2), "{:?}", stall.duration());
    match run.code {
        Some(0) => bed.consistent_group()?,
        _ => {
            run.exited_with(NO_PERMISSION)?;
            bed.no_group()?;
        }
    }

    bed.rig.cloud.emulator.change(|scenario| scenario.role.name = None);
    bed.run([])?.0.exited_with(NO_ROLE)?;
    bed.rig.finish()
}

#[test]
fn a_member_or_a_group_that_fails_is_an_error_and_nothing_is_called_consistent() -> Result<()> {
    let bed = Bed::new()?;
    let member = |group| Outcome::FailMember { disk: disk_of("log"), group };
    for (outcome, exits) in [
        (member(GroupStatus::Failed), &[GROUP_STATE, MEMBER_STATE][..]),
        (member(GroupStatus::Accomplished), &[MEMBER_STATE, SNAPSHOT_STATE]),
        (member(GroupStatus::Progressing), &[MEMBER_STATE, SNAPSHOT_STATE]),
        (Outcome::Fail, &[GROUP_STATE]),
        (Outcome::Vanish, &[GROUP_STATE]),
    ] {
        bed.rig.cloud.emulator.change(|scenario| {
            // Late enough for the window to be over.
            scenario.group.unavailable_looks = 50;
            scenario.group.progress_looks = 4;
            scenario.group.outcome = outcome.clone();
        });
        let (run, stall) = bed.run([])?;
        println!("{outcome:?}: exit {:?}", run.code);
        ensure!(run.code.is_some_and(|code| exits.contains(&code)), "{}", run.description());
        ensure!(stall.duration() < Duration::from_secs(2), "{outcome:?}: {:?}", stall.duration());
        for group in bed.rig.cloud.emulator.groups() {
            is_not_called_consistent(&group).with_context(|| format!("{outcome:?}"))?;
        }
    }
    bed.rig.finish()
}

/// Not listed at all; or listed, with members of which ECS does not say that they stand.
#[test]
fn a_group_that_does_not_come_about_is_given_up_when_the_window_ends() -> Result<()> {
    let bed = Bed::new()?;
    let hidden = Timeline { hidden_looks: u32::MAX, ..Timeline::default() };
    let only_listed =
        Timeline { unavailable_looks: u32::MAX, progress_looks: u32::MAX, ..Timeline::default() };
    for timeline in [hidden, only_listed] {
        bed.rig.cloud.emulator.change(|scenario| scenario.group = timeline);
        let (run, stall) = bed.run([])?;
        run.exited_with(GROUP_TIMED_OUT)?;
        println!("writes stood still for {:?}", stall.duration());
        ensure!(stall.duration() <= WINDOW + TOLERANCE, "{:?}", stall.duration());
        bed.no_group().with_context(|| run.description().to_owned())?;
    }
    bed.rig.finish()
}

#[test]
fn tags_that_are_refused_are_an_error_of_their_own() -> Result<()> {
    let bed = Bed::new()?;
    for code in ["QuotaExceed.Tags", "NoPermission.Tag", "Forbidden.RAM"] {
        let (run, _) = bed.run([Fault::on("TagResources").error(code)])?;
        run.exited_with(TAGS).with_context(|| code.to_owned())?;
        is_not_called_consistent(&bed.rig.cloud.the_group()?)?;
    }
    bed.rig.finish()
}

/// Nothing is asked of ECS, and nothing frozen, if the metadata service does not do as it should.
#[test]
fn a_metadata_service_that_misbehaves_is_noticed_before_anything_is_held() -> Result<()> {
    let bed = Bed::new()?;
    for fault in [
        Fault::on("metadata:*").connection(ConnectionFault::HangBefore),
        Fault::on("metadata:*").connection(ConnectionFault::ResetBefore),
        Fault::on("metadata:*").redirect("http://127.0.0.1:9/elsewhere"),
        Fault::on("metadata:role").error_with_status("<html>", 200),
    ] {
        let what = format!("{fault:?}");
        let (run, stall) = bed.run([fault])?;
        ensure!(
            run.code.is_some_and(|code| [PRECONDITION, NO_ROLE].contains(&code)),
            "{what}: {}",
            run.description()
        );
        ensure!(stall.duration() < Duration::from_secs(2), "{what}: {:?}", stall.duration());
        ensure!(bed.rig.cloud.calls("CreateSnapshotGroup").is_empty(), "{what}");
    }
    // A service without tokens, and one with nothing but.
    bed.rig.cloud.emulator.change(|scenario| scenario.metadata.hardened = false);
    bed.run([])?.0.succeeded()?;
    bed.rig.cloud.emulator.change(|scenario| {
        scenario.metadata.hardened = true;
        scenario.metadata.plain = false;
    });
    bed.run([])?.0.succeeded()?;
    bed.rig.finish()
}

#[test]
fn disks_that_cannot_be_in_a_group_are_refused_before_anything_is_held() -> Result<()> {
    let bed = Bed::new()?;
    let data = disk_of("data");
    let change = |change: &dyn Fn(&mut Disk)| {
        bed.rig.cloud.emulator.change(|scenario| {
            for disk in scenario.disks.iter_mut().filter(|disk| disk.id == data) {
                *disk = Disk::at(disk.id.clone(), disk.device.clone());
                change(disk);
            }
        });
    };
    for (what, exit, how) in [
        (
            "category",
            PRECONDITION,
            (&|disk: &mut Disk| "cloud_ssd".clone_into(&mut disk.category)) as &dyn Fn(&mut Disk),
        ),
        ("multi-attach", PRECONDITION, &|disk: &mut Disk| disk.multi_attach = true),
        ("status", CREATE_FAILED, &|disk: &mut Disk| "ReIniting".clone_into(&mut disk.status)),
    ] {
        change(how);
        let (run, stall) = bed.run([])?;
        run.exited_with(exit).with_context(|| what.to_owned())?;
        let text = run.error_text()?;
        ensure!(text.contains(&data), "{what}: the disk is not named: {text}");
        ensure!(stall.duration() < Duration::from_secs(2), "{what}: {:?}", stall.duration());
        ensure!(bed.rig.cloud.calls("CreateSnapshotGroup").is_empty(), "{what}");
    }
    bed.rig.finish()
}
