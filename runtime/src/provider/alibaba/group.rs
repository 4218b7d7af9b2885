//! One group: everything ready beforehand, one request in the window, and the point in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use stillpoint_alibaba::EcsError;
use stillpoint_alibaba::api::{
    CreateSnapshotGroup, GroupFilter, GroupMember, SnapshotGroup, Status,
};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout_at};

use super::exit::{credentials_error, ecs_error, fail};
use super::manifests::Manifests;
use super::session::Session;
use super::settings::{AlibabaSettings, PointInTime};
use super::{disks, names, tags};
use crate::exit_code::ExitCode;
use crate::manifest::Manifest;
use crate::provider::{CreatedGroup, GroupRequest, Member, PreparedGroup, ProviderError};
use crate::time::Deadline;

/// A connection that was used longer ago is tried before the freeze.
const IDLE: Duration = Duration::from_secs(5);
/// The first wait between two looks at the list, in the window; they grow by half.
const FIRST_LOOK: Duration = Duration::from_millis(5);
const LONGEST_LOOK: Duration = Duration::from_millis(400);

/// A group that is about to be created, or was.
#[derive(Debug)]
pub(super) struct AlibabaGroup {
    pub(super) session: Session,
    pub(super) settings: Arc<AlibabaSettings>,
    pub(super) request: CreateSnapshotGroup,
    pub(super) run_id: String,
    pub(super) asked: Asked,
    pub(super) shortfall: Option<ProviderError>,
    /// When the connection was used last.
    used: Instant,
}

/// What is known of the request.
#[derive(Debug)]
pub(super) enum Asked {
    /// It was not sent, or ECS refused it, or what came of it is gone: there is no group.
    Nothing,
    /// It was sent, and goes on even if nobody waits for it any more.
    Waiting(JoinHandle<Result<String, EcsError>>),
    /// It failed in a way that leaves open whether there is a group. `faulty`: ECS itself said that
    /// something went wrong there.
    Unclear { faulty: bool },
    /// There is a group with this id.
    Created(String),
}

impl AlibabaGroup {
    /// Everything that can be done before the window: credentials that last, disks that can be in a
    /// group, a name that ECS takes, a connection that is open.
    pub(super) async fn prepare(
        session: Session,
        settings: Arc<AlibabaSettings>,
        request: GroupRequest,
        deadline: Deadline,
    ) -> Result<Self, ProviderError> {
        names::check(&request)?;
        let ecs = &session.ecs;
        ecs.credentials().ready_for(Duration::ZERO).await.map_err(credentials_error)?;
        let cloud = ecs.describe_disks(&session.instance, deadline.instant()).await;
        disks::check(&request.disks, &cloud.map_err(ecs_error)?, &settings.categories)?;
        ecs.look(&session.instance, deadline.instant()).await.map_err(before_the_request)?;
        let prepared = CreateSnapshotGroup {
            instance: session.instance.clone(),
            disks: request.disks.iter().map(|disk| disk.id.clone()).collect(),
            name: request.name,
            description: request.description,
            token: names::token(&request.run_id),
            tags: tags::at_creation(&request.run_id),
        };
        Ok(Self {
            session,
            settings,
            request: prepared,
            run_id: request.run_id,
            asked: Asked::Nothing,
            shortfall: None,
            used: Instant::now(),
        })
    }

    /// Sends the request in a task of its own: if its answer comes too late for the window, it still
    /// says which group is to be removed. No attempt is begun once the window is over.
    async fn ask(&mut self, deadline: Deadline) -> Result<String, ProviderError> {
        let window_is_over = Arc::new(AtomicBool::new(false));
        let _whatever_happens = SetOnDrop(Arc::clone(&window_is_over));
        let (ecs, request) = (self.session.ecs.clone(), self.request.clone());
        let answer_until = deadline.instant() + self.settings.late_group;
        self.asked = Asked::Waiting(tokio::spawn(async move {
            let window = deadline.instant();
            ecs.create_snapshot_group(&request, window, answer_until, window_is_over).await
        }));
        let Asked::Waiting(answer) = &mut self.asked else { return Err(too_late("no answer")) };
        let Ok(answer) = timeout_at(deadline.instant().into(), answer).await else {
            return Err(too_late("ECS did not answer CreateSnapshotGroup within the window"));
        };
        match answer {
            Ok(Ok(id)) => {
                self.asked = Asked::Created(id.clone());
                Ok(id)
            }
            Ok(Err(error)) => {
                self.asked = after(&error);
                Err(ecs_error(error))
            }
            Err(lost) => {
                self.asked = Asked::Unclear { faulty: false };
                Err(fail(ExitCode::Unknown, "the task of the request ended early").because(lost))
            }
        }
    }

    /// Looks until ECS says of every member that its content stands. Just after the request the list
    /// is empty, or has members of which nothing is known: that means "not yet".
    async fn wait_until_fixed(&self, id: &str, deadline: Deadline) -> Result<(), ProviderError> {
        let filter = GroupFilter { ids: vec![id.to_owned()], ..GroupFilter::default() };
        let mut pause = FIRST_LOOK;
        loop {
            let listed =
                self.session.ecs.describe_snapshot_groups(&filter, deadline.instant()).await;
            let missing = match listed {
                Ok(groups) => match groups.iter().find(|group| group.id == id) {
                    Some(group) if group.status == Status::Failed => {
                        return Err(fail(
                            ExitCode::GroupState,
                            format!("group {id} failed while it was being made"),
                        ));
                    }
                    Some(group) => self.not_fixed(group),
                    None => vec!["the group".to_owned()],
                },
                Err(error) if is_final(&error) => return Err(ecs_error(error)),
                Err(error) => vec![error.to_string()],
            };
            if missing.is_empty() {
                return Ok(());
            }
            if deadline.remaining() <= pause {
                return Err(too_late(&format!(
                    "ECS accepted group {id}, but did not say within the window that the snapshot of {} stands",
                    missing.join(", ")
                )));
            }
            sleep(pause).await;
            pause = (pause * 3 / 2).min(LONGEST_LOOK);
        }
    }

    /// The disks whose content ECS does not vouch for yet.
    fn not_fixed(&self, group: &SnapshotGroup) -> Vec<String> {
        let whole = group.status == Status::Accomplished;
        self.without(group, |member| whole || member.is_fixed())
    }

    /// The disks that have no snapshot in the group yet.
    pub(super) fn not_listed(&self, group: &SnapshotGroup) -> Vec<String> {
        self.without(group, |_| true)
    }

    fn without(&self, group: &SnapshotGroup, counts: impl Fn(&GroupMember) -> bool) -> Vec<String> {
        let disks = self.request.disks.iter();
        let has = |disk: &&String| {
            let mut of_disk = group.members().iter().filter(|m| &m.source_disk_id == *disk);
            of_disk.any(&counts)
        };
        disks.filter(|disk| !has(disk)).cloned().collect()
    }
}

#[async_trait]
impl PreparedGroup for AlibabaGroup {
    /// A connection that was idle for long is tried, and opened again if it was closed.
    async fn about_to_freeze(&mut self, deadline: Deadline) -> Result<(), ProviderError> {
        if self.used.elapsed() < IDLE {
            return Ok(());
        }
        let ecs = &self.session.ecs;
        ecs.credentials().ready_for(Duration::ZERO).await.map_err(credentials_error)?;
        ecs.look(&self.session.instance, deadline.instant()).await.map_err(before_the_request)?;
        self.used = Instant::now();
        Ok(())
    }

    async fn create(&mut self, deadline: Deadline) -> Result<CreatedGroup, ProviderError> {
        let id = self.ask(deadline).await?;
        if self.settings.point_in_time == PointInTime::Members {
            self.wait_until_fixed(&id, deadline).await?;
        }
        Ok(CreatedGroup { id, point_in_time_fixed: true })
    }

    async fn settle(&mut self, deadline: Deadline) -> Result<Vec<Member>, ProviderError> {
        self.wait_for_members(deadline).await
    }

    fn shortfall(&mut self) -> Option<ProviderError> {
        self.shortfall.take()
    }

    async fn record(&mut self, manifest: &Manifest) -> Result<(), ProviderError> {
        let kept = Manifests::of(&self.settings).write(manifest).await;
        let tagged = self.tag_members(manifest).await;
        kept.and(tagged)
    }

    async fn discard(&mut self) -> Result<(), ProviderError> {
        self.remove_what_there_is().await
    }
}

/// What is known after an error.
fn after(error: &EcsError) -> Asked {
    if error.may_have_happened() {
        Asked::Unclear { faulty: error.api().is_some() }
    } else {
        Asked::Nothing
    }
}

/// True if asking again cannot help.
pub(super) fn is_final(error: &EcsError) -> bool {
    match error {
        EcsError::Api { error, .. } => {
            !error.is_throttling() && !error.is_server_fault() && !error.is_not_found()
        }
        EcsError::Endless { .. } | EcsError::Endpoint { .. } | EcsError::Tls(_) => true,
        // A connection, a proxy, a metadata service: each can be there again in a moment.
        _ => false,
    }
}

/// A look that fails before the group is asked for says nothing about the state of a group.
fn before_the_request(error: EcsError) -> ProviderError {
    let error = ecs_error(error);
    match error.exit_code {
        ExitCode::GroupState => ProviderError { exit_code: ExitCode::CreateFailed, ..error },
        ExitCode::GroupTimedOut => ProviderError { exit_code: ExitCode::Precondition, ..error },
        _ => error,
    }
}

fn too_late(what: &str) -> ProviderError {
    fail(ExitCode::GroupTimedOut, what).hint(
        "ECS was slower than the window: [deadlines] freeze in stillpoint.toml, or \
         -TimeoutInSeconds, at most 30 s",
    )
}

/// Set when it goes out of scope, on every path.
struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
