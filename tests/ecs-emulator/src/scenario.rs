//! What the emulated account looks like, and what is to go wrong in it. Every field has a default;
//! as JSON, unknown fields are errors.

use serde::{Deserialize, Serialize};

use crate::fault::Fault;

/// Everything that a test decides.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// The one region that there is.
    pub region: String,
    /// The one instance that there is.
    pub instance: Instance,
    /// The account's disks.
    pub disks: Vec<Disk>,
    /// The RAM role of the instance.
    pub role: Role,
    /// Keys that do not expire, as those of a RAM user.
    pub access_keys: Vec<AccessKey>,
    /// How a new group appears, progresses and ends.
    pub group: Timeline,
    /// How long a disk takes to be made, attached and detached.
    pub disk_looks: DiskLooks,
    /// What the service allows.
    pub limits: Limits,
    /// How the metadata service behaves.
    pub metadata: Metadata,
    /// What goes wrong. Of several that match a call, the first is taken.
    pub faults: Vec<Fault>,
    /// Added to the machine's clock, in seconds.
    pub clock_offset_s: i64,
    /// A program and its arguments, run when a group takes effect, before the request is answered.
    /// It finds the group's id in `EMULATOR_GROUP`.
    pub on_create: Vec<String>,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            region: "cn-hangzhou".to_owned(),
            instance: Instance::default(),
            disks: Vec::new(),
            role: Role::default(),
            access_keys: Vec::new(),
            group: Timeline::default(),
            disk_looks: DiskLooks::default(),
            limits: Limits::default(),
            metadata: Metadata::default(),
            faults: Vec::new(),
            clock_offset_s: 0,
            on_create: Vec::new(),
        }
    }
}

impl Scenario {
    /// The default, with these disks attached to the instance.
    #[must_use]
    pub fn with_disks(disks: impl IntoIterator<Item = Disk>) -> Self {
        Self { disks: disks.into_iter().collect(), ..Self::default() }
    }

    /// With one more fault.
    #[must_use]
    pub fn fault(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }
}

/// The instance that the program under test believes to run on.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Instance {
    /// Its id.
    pub id: String,
    /// Its zone.
    pub zone: String,
    /// Its type.
    pub instance_type: String,
    /// `Running`, `Stopped`, `Starting`, …
    pub status: String,
}

impl Default for Instance {
    fn default() -> Self {
        Self {
            id: "i-bp1emulator0000001".to_owned(),
            zone: "cn-hangzhou-i".to_owned(),
            instance_type: "ecs.g8i.large".to_owned(),
            status: "Running".to_owned(),
        }
    }
}

/// A disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Disk {
    /// Its id, `d-…`.
    pub id: String,
    /// What the guest sees as serial; the id without `d-` in the real service. Absent for old disks.
    pub serial: Option<String>,
    /// Where it is attached. In tests: the loop device itself.
    pub device: String,
    /// As asked for.
    pub name: String,
    /// The snapshot that it was made from.
    pub source_snapshot: Option<String>,
    /// Whether it is deleted with its instance.
    pub delete_with_instance: bool,
    /// `cloud_essd`, `cloud_auto`, `cloud_essd_entry`, `cloud_efficiency`, …
    pub category: String,
    /// `PL0` … `PL3`; ESSDs only.
    pub performance_level: Option<String>,
    /// `system` or `data`.
    pub kind: String,
    /// `In_use`, `Available`, `Attaching`, …
    pub status: String,
    /// GiB.
    pub size: u64,
    /// Whether several instances may attach it.
    pub multi_attach: bool,
    /// The instance; the scenario's own if absent, none if empty.
    pub instance: Option<String>,
    /// Snapshots that users made before.
    pub manual_snapshots: u32,
    /// Whether a snapshot of it is being made by somebody else.
    pub creating_snapshot: bool,
    /// `financial` or `security`.
    pub operation_lock: Option<String>,
    /// Its tags.
    pub tags: Vec<Tag>,
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            id: String::new(),
            serial: None,
            device: String::new(),
            name: String::new(),
            source_snapshot: None,
            delete_with_instance: false,
            category: "cloud_essd".to_owned(),
            performance_level: Some("PL1".to_owned()),
            kind: "data".to_owned(),
            status: "In_use".to_owned(),
            size: 40,
            multi_attach: false,
            instance: None,
            manual_snapshots: 0,
            creating_snapshot: false,
            operation_lock: None,
            tags: Vec::new(),
        }
    }
}

impl Disk {
    /// An ESSD at this device, without a serial: as a loop device, which has none either.
    #[must_use]
    pub fn at(id: impl Into<String>, device: impl Into<String>) -> Self {
        Self { id: id.into(), device: device.into(), ..Self::default() }
    }
}

/// A tag.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Tag {
    /// Unique on its resource.
    pub key: String,
    /// May be empty.
    pub value: String,
}

/// The instance's role, and the credentials that the metadata service hands out for it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Role {
    /// Absent: the instance has no role.
    pub name: Option<String>,
    /// What `Code` of the credentials says.
    pub code: String,
    /// How long credentials are good for, in seconds. The service renews them half an hour before
    /// they expire, or when half of this is over if that is later.
    pub lifetime_s: u64,
    /// Actions that are allowed: `ecs:DescribeSnapshot*`.
    pub allow: Vec<String>,
    /// Actions that are not, whatever `allow` says.
    pub deny: Vec<String>,
}

impl Default for Role {
    fn default() -> Self {
        Self {
            name: Some("AppSnapshotRoleName".to_owned()),
            code: "Success".to_owned(),
            lifetime_s: 6 * 3600,
            allow: vec!["ecs:*".to_owned()],
            deny: Vec::new(),
        }
    }
}

impl Role {
    /// The policy of the vendor's manual page: it does not allow `DeleteSnapshotGroup`.
    #[must_use]
    pub fn of_the_manual() -> Self {
        let allow = [
            "ecs:DescribeSnapshot*",
            "ecs:CreateSnapshot*",
            "ecs:TagResources",
            "ecs:DescribeDisks",
        ];
        Self { allow: allow.map(str::to_owned).to_vec(), ..Self::default() }
    }
}

/// A permanent key. Everything is allowed to it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessKey {
    /// Public.
    pub id: String,
    /// Secret; not in [`std::fmt::Debug`].
    pub secret: String,
}

impl std::fmt::Debug for AccessKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("AccessKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// How a group appears, progresses and ends. A *look* is one answer to DescribeSnapshotGroups or
/// DescribeSnapshots that would list the group or a member. A phase is over when its looks have
/// been seen *and* its time has passed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeline {
    /// Looks that do not show the group yet. The real service was seen to hide it from the first
    /// three.
    pub hidden_looks: u32,
    /// Milliseconds for which it is not shown.
    pub hidden_ms: u64,
    /// Looks that show the members with `Available` false.
    pub unavailable_looks: u32,
    /// Milliseconds, since the creation, before the members are `Available`.
    pub unavailable_ms: u64,
    /// Looks that show progress below 100 %.
    pub progress_looks: u32,
    /// Milliseconds, since the creation, before the end is reached.
    pub progress_ms: u64,
    /// How it ends.
    pub outcome: Outcome,
}

impl Default for Timeline {
    fn default() -> Self {
        Self {
            hidden_looks: 0,
            hidden_ms: 0,
            unavailable_looks: 1,
            unavailable_ms: 0,
            progress_looks: 2,
            progress_ms: 0,
            outcome: Outcome::Accomplish,
        }
    }
}

/// How long a disk is on its way from one state to the next, in *looks*: answers to DescribeDisks
/// that would list it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiskLooks {
    /// That do not list a new disk yet.
    pub hidden: u32,
    /// That show it `Creating`.
    pub creating: u32,
    /// That show it `Attaching`.
    pub attaching: u32,
    /// That show it `Detaching`.
    pub detaching: u32,
}

impl Default for DiskLooks {
    fn default() -> Self {
        Self { hidden: 1, creating: 1, attaching: 1, detaching: 1 }
    }
}

/// How a group ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// All members at 100 %.
    Accomplish,
    /// Group and members fail.
    Fail,
    /// One member fails.
    FailMember {
        /// Its disk.
        disk: String,
        /// What the group's status is then.
        #[serde(default = "GroupStatus::failed")]
        group: GroupStatus,
    },
    /// It never ends.
    Never,
    /// It is gone, as if someone had deleted it.
    Vanish,
}

/// Status of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupStatus {
    /// Being made.
    Progressing,
    /// Made.
    Accomplished,
    /// Not made.
    Failed,
}

impl GroupStatus {
    fn failed() -> Self {
        GroupStatus::Failed
    }

    /// As the service writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            GroupStatus::Progressing => "progressing",
            GroupStatus::Accomplished => "accomplished",
            GroupStatus::Failed => "failed",
        }
    }
}

/// What the service allows.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Disks of a group.
    pub disks_per_group: usize,
    /// Size of a group's disks together, in TiB.
    pub group_tib: u64,
    /// Manual snapshots of a disk.
    pub snapshots_per_disk: usize,
    /// Tags of a resource.
    pub tags_per_resource: usize,
    /// Disks that may be attached to the instance.
    pub disks_per_instance: usize,
    /// No page has more entries than this, whatever was asked for. To see that clients turn pages.
    pub page: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            disks_per_group: 16,
            group_tib: 32,
            snapshots_per_disk: 256,
            tags_per_resource: 20,
            disks_per_instance: 17,
            page: usize::MAX,
        }
    }
}

/// How the metadata service behaves.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metadata {
    /// Whether requests without a token are served.
    pub plain: bool,
    /// Whether tokens can be had.
    pub hardened: bool,
}

impl Default for Metadata {
    fn default() -> Self {
        Self { plain: true, hardened: true }
    }
}
