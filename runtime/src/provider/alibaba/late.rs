//! A group that must not be used: found, even if its answer was lost or comes late, and removed.
//!
//! A request without an answer may have made a group, or may still make one. Sending it again with
//! its token would tell, but where the first never arrived it would make a group now, of file
//! systems that run. So the group is looked for by the tag with the id of this run, which it got
//! when it was made; and the answer, if it is on its way, is waited for.

use std::time::Duration;

use stillpoint_alibaba::EcsError;
use stillpoint_alibaba::api::{GroupFilter, Tag};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::exit::{ecs_error, fail};
use super::group::{AlibabaGroup, Asked, is_final};
use super::tags;
use crate::exit_code::ExitCode;
use crate::provider::ProviderError;

/// Where ECS itself said that it failed, a group that is there all the same shows up within this.
const AFTER_A_FAULT: Duration = Duration::from_secs(5);
/// The first wait between two looks; they grow by half.
const FIRST_LOOK: Duration = Duration::from_millis(200);
const LONGEST_LOOK: Duration = Duration::from_secs(2);
/// How long ECS may refuse to delete a group whose members are being made.
const REMOVAL: Duration = Duration::from_secs(30);

impl AlibabaGroup {
    /// Removes the group of this run, if there is one. Where it cannot be deleted, its members are
    /// tagged so that nobody takes them for consistent. Idempotent.
    pub(super) async fn remove_what_there_is(&mut self) -> Result<(), ProviderError> {
        let Some(id) = self.find().await? else { return Ok(()) };
        // Kept until it is gone: a second call tries again.
        self.asked = Asked::Created(id.clone());
        self.remove(&id).await?;
        self.asked = Asked::Nothing;
        Ok(())
    }

    async fn find(&mut self) -> Result<Option<String>, ProviderError> {
        match std::mem::replace(&mut self.asked, Asked::Nothing) {
            Asked::Nothing => Ok(None),
            Asked::Created(id) => Ok(Some(id)),
            Asked::Unclear { faulty } => self.look_for(None, faulty).await,
            Asked::Waiting(mut answer) => {
                let found = self.look_for(Some(&mut answer), false).await;
                answer.abort();
                found
            }
        }
    }

    /// Looks for the group by its tag, and waits for the answer, until one of them tells. `faulty`:
    /// ECS said that it failed.
    async fn look_for(
        &self,
        mut answer: Option<&mut JoinHandle<Result<String, EcsError>>>,
        mut faulty: bool,
    ) -> Result<Option<String>, ProviderError> {
        let began = Instant::now();
        let budget = self.settings.late_group;
        let by_tag = self.found_by_tag((began + budget).into_std());
        tokio::pin!(by_tag);
        loop {
            let answered = async {
                match answer.as_mut() {
                    Some(answer) => answer.await,
                    None => std::future::pending().await,
                }
            };
            let patience = if faulty { AFTER_A_FAULT.min(budget) } else { budget };
            tokio::select! {
                biased;
                answered = answered => {
                    answer = None;
                    match answered {
                        Ok(Ok(id)) => return Ok(Some(id)),
                        Ok(Err(error)) if !error.may_have_happened() => return Ok(None),
                        Ok(Err(error)) => faulty = error.api().is_some(),
                        Err(_) => {}
                    }
                }
                id = &mut by_tag => return Ok(Some(id)),
                () = sleep_until(began + patience) => {
                    return if faulty { Ok(None) } else { Err(self.not_found(budget)) };
                }
            }
        }
    }

    async fn found_by_tag(&self, until: std::time::Instant) -> String {
        let filter = GroupFilter {
            instance: Some(self.session.instance.clone()),
            tag: Some(Tag::new(tags::RUN, &self.run_id)),
            ..GroupFilter::default()
        };
        let mut pause = FIRST_LOOK;
        loop {
            match self.session.ecs.describe_snapshot_groups(&filter, until).await {
                Ok(groups) => {
                    if let Some(group) = groups.into_iter().next() {
                        return group.id;
                    }
                }
                Err(error) => tracing::debug!("looking for the group of this run: {error}"),
            }
            sleep(pause).await;
            pause = (pause * 3 / 2).min(LONGEST_LOOK);
        }
    }

    fn not_found(&self, budget: Duration) -> ProviderError {
        fail(
            ExitCode::GroupState,
            format!(
                "it is not known whether ECS made a group: none with the tag {}={} was listed \
                 within {budget:?}",
                tags::RUN,
                self.run_id
            ),
        )
        .hint("if a group with this tag appears, delete it: it is not consistent")
    }

    async fn remove(&self, id: &str) -> Result<(), ProviderError> {
        let until = Instant::now() + REMOVAL;
        let mut pause = FIRST_LOOK;
        let error = loop {
            match self.session.ecs.delete_snapshot_group(id, until.into_std()).await {
                Ok(()) => return Ok(()),
                Err(error) if is_forbidden(&error) => break error,
                Err(error) if Instant::now() + pause >= until => break error,
                Err(_) => sleep(pause).await,
            }
            pause = (pause * 3 / 2).min(LONGEST_LOOK);
        };
        let tagged = match self.mark_unusable(id, until).await {
            Ok(()) => format!("its members are tagged {}", tags::UNUSABLE),
            Err(error) => format!("nor can its members be tagged ({error})"),
        };
        let error = ecs_error(error);
        let message = format!("group {id} cannot be deleted, {tagged}: {}", error.message);
        Err(ProviderError { message, ..error })
    }

    /// Tags the members, once they are listed, so that nobody takes them for consistent.
    async fn mark_unusable(&self, id: &str, until: Instant) -> Result<(), EcsError> {
        let filter = GroupFilter { ids: vec![id.to_owned()], ..GroupFilter::default() };
        let tags = tags::unusable(&self.run_id);
        let mut pause = FIRST_LOOK;
        loop {
            let groups = self.session.ecs.describe_snapshot_groups(&filter, until.into_std()).await;
            let last_look = Instant::now() + pause >= until;
            match groups {
                Ok(groups) => {
                    let members: Vec<String> = groups
                        .iter()
                        .flat_map(|group| group.members())
                        .map(|member| member.snapshot_id.clone())
                        .collect();
                    let all = members.len() >= self.request.disks.len();
                    if all || (last_look && !members.is_empty()) {
                        // Whatever time the looking has used up: this one call is worth it.
                        let until = (until + REMOVAL).into_std();
                        return self.session.ecs.tag_snapshots(&members, &tags, until).await;
                    }
                    if last_look {
                        let action = "DescribeSnapshotGroups";
                        return Err(EcsError::TimedOut { action, waited: REMOVAL });
                    }
                }
                Err(error) if last_look || is_final(&error) => return Err(error),
                Err(_) => {}
            }
            sleep(pause).await;
            pause = (pause * 3 / 2).min(LONGEST_LOOK);
        }
    }
}

fn is_forbidden(error: &EcsError) -> bool {
    let code = error.code().unwrap_or_default();
    code.starts_with("Forbidden") || code.starts_with("NoPermission")
}
