//! Groups and their members over time.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::scenario::{Disk, GroupStatus, Outcome, Tag, Timeline};

/// A group as the account has it.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) instance: String,
    pub(crate) creation_time: String,
    pub(crate) client_token: Option<String>,
    pub(crate) tags: Vec<Tag>,
    pub(crate) members: Vec<Member>,
    pub(crate) effect_ns: u64,
    pub(crate) made: Instant,
    pub(crate) timeline: Timeline,
    pub(crate) hidden_looks_seen: u32,
    pub(crate) looks_seen: u32,
}

/// One snapshot of a group.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) id: String,
    pub(crate) disk: Disk,
    pub(crate) tags: Vec<Tag>,
}

/// How far a group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not listed: not yet, or not any more.
    Hidden,
    /// Listed, and so far done.
    Progressing { percent: u32, available: bool },
    /// At its end.
    Ended,
}

impl Group {
    /// How far it is, without looking: nothing changes.
    pub(crate) fn phase(&self) -> Phase {
        let line = &self.timeline;
        if self.hidden_looks_seen < line.hidden_looks || !self.older_than(line.hidden_ms) {
            return Phase::Hidden;
        }
        let over = self.looks_seen >= line.progress_looks && self.older_than(line.progress_ms);
        match &line.outcome {
            Outcome::Vanish if over => Phase::Hidden,
            Outcome::Never => self.progress(),
            _ if over => Phase::Ended,
            _ => self.progress(),
        }
    }

    /// How far it is, seen by a client: the next look may show more.
    pub(crate) fn look(&mut self) -> Phase {
        let phase = self.phase();
        if phase == Phase::Hidden {
            self.hidden_looks_seen += 1;
        } else {
            self.looks_seen += 1;
        }
        phase
    }

    pub(crate) fn status(&self, phase: Phase) -> GroupStatus {
        match (phase, &self.timeline.outcome) {
            (Phase::Ended, Outcome::Fail) => GroupStatus::Failed,
            (Phase::Ended, Outcome::FailMember { group, .. }) => *group,
            (Phase::Ended, _) => GroupStatus::Accomplished,
            _ => GroupStatus::Progressing,
        }
    }

    /// Status, progress in percent, and whether it can be used, of one member.
    pub(crate) fn member(&self, member: &Member, phase: Phase) -> (GroupStatus, u32, bool) {
        let failed = (GroupStatus::Failed, 37, false);
        match (phase, &self.timeline.outcome) {
            (Phase::Ended, Outcome::Fail) => failed,
            (Phase::Ended, Outcome::FailMember { disk, .. }) if *disk == member.disk.id => failed,
            (Phase::Ended, _) => (GroupStatus::Accomplished, 100, true),
            (Phase::Progressing { percent, available }, _) => {
                (GroupStatus::Progressing, percent, available)
            }
            (Phase::Hidden, _) => (GroupStatus::Progressing, 0, false),
        }
    }

    /// Whether a snapshot of this disk is still being made for it.
    pub(crate) fn is_reading(&self, disk: &str) -> bool {
        let ended = matches!(self.phase(), Phase::Ended);
        !ended && self.members.iter().any(|member| member.disk.id == disk)
    }

    fn progress(&self) -> Phase {
        let line = &self.timeline;
        let looks = line.progress_looks.max(1);
        let available =
            self.looks_seen >= line.unavailable_looks && self.older_than(line.unavailable_ms);
        Phase::Progressing { percent: (100 * self.looks_seen / looks).min(99), available }
    }

    fn older_than(&self, milliseconds: u64) -> bool {
        self.made.elapsed() >= Duration::from_millis(milliseconds)
    }
}

/// A group as a test sees it.
#[derive(Clone, Debug, Serialize)]
pub struct GroupView {
    /// `ssg-…`
    pub id: String,
    /// As asked for.
    pub name: String,
    /// As asked for.
    pub description: String,
    /// By which it was asked for.
    pub client_token: Option<String>,
    /// When it took effect: `CLOCK_MONOTONIC`, in nanoseconds.
    pub effect_ns: u64,
    /// Whether clients are shown it by now.
    pub listed: bool,
    /// How far it is.
    pub status: GroupStatus,
    /// Of the group itself.
    pub tags: Vec<Tag>,
    /// Its snapshots.
    pub members: Vec<MemberView>,
}

/// A member as a test sees it.
#[derive(Clone, Debug, Serialize)]
pub struct MemberView {
    /// `s-…`
    pub id: String,
    /// `d-…`
    pub disk: String,
    /// Where that disk is attached.
    pub device: String,
    /// Its tags.
    pub tags: Vec<Tag>,
}

impl GroupView {
    pub(crate) fn of(group: &Group) -> Self {
        let phase = group.phase();
        Self {
            id: group.id.clone(),
            name: group.name.clone(),
            description: group.description.clone(),
            client_token: group.client_token.clone(),
            effect_ns: group.effect_ns,
            listed: phase != Phase::Hidden,
            status: group.status(phase),
            tags: group.tags.clone(),
            members: group.members.iter().map(MemberView::of).collect(),
        }
    }

    /// The value of a tag that all members have; absent if one has not, or they differ.
    #[must_use]
    pub fn tag(&self, key: &str) -> Option<&str> {
        let mut values = self.members.iter().map(|member| member.tag(key));
        let first = values.next()??;
        values.all(|value| value == Some(first)).then_some(first)
    }
}

impl MemberView {
    fn of(member: &Member) -> Self {
        Self {
            id: member.id.clone(),
            disk: member.disk.id.clone(),
            device: member.disk.device.clone(),
            tags: member.tags.clone(),
        }
    }

    /// The value of a tag.
    #[must_use]
    pub fn tag(&self, key: &str) -> Option<&str> {
        self.tags.iter().find(|tag| tag.key == key).map(|tag| tag.value.as_str())
    }
}
