//! Nothing is held any more: waiting until the members can be used.

use std::time::Duration;

use stillpoint_alibaba::api::{GroupFilter, Snapshot, SnapshotGroup, Status};
use tokio::time::{Instant, sleep};

use super::exit::{ecs_error, fail};
use super::group::{AlibabaGroup, Asked, is_final};
use super::settings::WaitFor;
use crate::exit_code::ExitCode;
use crate::provider::{Member, ProviderError};
use crate::time::Deadline;

/// A group that is not listed for so long is missing.
const MISSING: Duration = Duration::from_secs(10);
/// The first wait between two looks; they grow by half.
const FIRST_LOOK: Duration = Duration::from_millis(200);
const LONGEST_LOOK: Duration = Duration::from_secs(5);

/// What one look saw.
struct Seen {
    group: SnapshotGroup,
    snapshots: Vec<Snapshot>,
}

impl AlibabaGroup {
    /// Waits until every member can be used. What is only slow is no reason to throw a consistent
    /// group away: at the deadline it is kept, and the run ends with what is missing.
    pub(super) async fn wait_for_members(
        &mut self,
        deadline: Deadline,
    ) -> Result<Vec<Member>, ProviderError> {
        let Asked::Created(id) = &self.asked else {
            return Err(fail(ExitCode::GroupState, "there is no group to wait for"));
        };
        let id = id.clone();
        let mut pause = FIRST_LOOK;
        let mut listed = Instant::now();
        let mut last = None;
        loop {
            match self.look(&id, deadline).await? {
                Some(seen) => {
                    listed = Instant::now();
                    self.judge(&seen, deadline).await?;
                    if self.is_settled(&seen) {
                        return Ok(members(&seen));
                    }
                    last = Some(seen);
                }
                None if listed.elapsed() >= MISSING => {
                    return Err(fail(ExitCode::GroupState, format!("group {id} is missing")));
                }
                None => {}
            }
            if deadline.remaining() <= pause {
                return self.not_in_time(&id, last);
            }
            sleep(pause).await;
            pause = (pause * 3 / 2).min(LONGEST_LOOK);
        }
    }

    /// `None`: the group is not listed, or nobody answered.
    async fn look(&self, id: &str, deadline: Deadline) -> Result<Option<Seen>, ProviderError> {
        let filter = GroupFilter { ids: vec![id.to_owned()], ..GroupFilter::default() };
        let ecs = &self.session.ecs;
        let groups = match ecs.describe_snapshot_groups(&filter, deadline.instant()).await {
            Ok(groups) => groups,
            Err(error) if is_final(&error) => return Err(ecs_error(error)),
            Err(error) => {
                tracing::debug!("waiting for the members of {id}: {error}");
                return Ok(None);
            }
        };
        let Some(group) = groups.into_iter().find(|group| group.id == id) else { return Ok(None) };
        let ids: Vec<String> =
            group.members().iter().map(|member| member.snapshot_id.clone()).collect();
        let snapshots = match ecs.describe_snapshots(&ids, deadline.instant()).await {
            Ok(snapshots) => snapshots,
            Err(error) if is_final(&error) => return Err(ecs_error(error)),
            Err(_) => Vec::new(),
        };
        Ok(Some(Seen { group, snapshots }))
    }

    /// What failed: the group as a whole, members and the group with them, or members of a group
    /// that does not say so.
    async fn judge(&self, seen: &Seen, deadline: Deadline) -> Result<(), ProviderError> {
        let group = &seen.group;
        let id = &group.id;
        let failed: Vec<&Snapshot> =
            seen.snapshots.iter().filter(|it| it.status == Status::Failed).collect();
        let mut group_failed = group.status == Status::Failed;
        if !failed.is_empty() && !group_failed {
            // The members were looked at after the group: it may have failed with them.
            let again = self.look(id, deadline).await?;
            group_failed = again.is_some_and(|seen| seen.group.status == Status::Failed);
        }
        let all_failed = failed.is_empty() || failed.len() == seen.snapshots.len();
        if group_failed && all_failed {
            return Err(fail(ExitCode::GroupState, format!("group {id} failed")));
        }
        if !failed.is_empty() {
            let name = |it: &&Snapshot| format!("{} of {}", it.snapshot_id, it.source_disk_id);
            let names: Vec<String> = failed.iter().map(name).collect();
            let what = format!("members of group {id} failed: {}", names.join(", "));
            let says_so =
                if group_failed { ExitCode::MemberState } else { ExitCode::SnapshotState };
            return Err(fail(says_so, what));
        }
        let missing = self.not_listed(group);
        if group.status == Status::Accomplished && !missing.is_empty() {
            let what = format!("group {id} has no snapshot of {}", missing.join(", "));
            return Err(fail(ExitCode::MemberState, what));
        }
        Ok(())
    }

    fn is_settled(&self, seen: &Seen) -> bool {
        let is_ready = |snapshot: &Snapshot| match self.settings.wait_for {
            WaitFor::Available => snapshot.is_usable(),
            WaitFor::Accomplished => snapshot.status == Status::Accomplished,
        };
        let known = seen.group.members().iter().all(|member| {
            let mut snapshots = seen.snapshots.iter();
            snapshots.any(|it| it.snapshot_id == member.snapshot_id && is_ready(it))
        });
        known && self.not_listed(&seen.group).is_empty()
    }

    fn not_in_time(&mut self, id: &str, last: Option<Seen>) -> Result<Vec<Member>, ProviderError> {
        let late = fail(
            ExitCode::GroupTimedOut,
            format!("the members of group {id} could not all be used by the end of the wait"),
        )
        .hint("[deadlines] settle in stillpoint.toml says how long the wait is");
        match last {
            Some(seen) if self.not_listed(&seen.group).is_empty() => {
                self.shortfall = Some(late);
                Ok(members(&seen))
            }
            _ => Err(late),
        }
    }
}

fn members(seen: &Seen) -> Vec<Member> {
    let size = |id: &str| {
        let snapshot = seen.snapshots.iter().find(|it| it.snapshot_id == id)?;
        snapshot.source_disk_size?.checked_mul(1 << 30)
    };
    let member = seen.group.members().iter().map(|member| Member {
        disk: member.source_disk_id.clone(),
        snapshot: member.snapshot_id.clone(),
        bytes: size(&member.snapshot_id),
    });
    member.collect()
}
