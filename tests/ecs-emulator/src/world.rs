//! Everything the two services know, behind one lock that is never held across a wait.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};

use crate::credentials::Credentials;
use crate::fault::Fault;
use crate::group::Group;
use crate::log::Logged;
use crate::scenario::Scenario;

/// Told when a group takes effect, before the request is answered: at the point in time of the
/// snapshots.
pub(crate) type OnCreate = Arc<dyn Fn(&Creation) + Send + Sync>;

/// A group that takes effect.
#[derive(Clone, Debug)]
pub struct Creation {
    /// Its id.
    pub group: String,
    /// Its disks.
    pub disks: Vec<String>,
    /// Where they are attached.
    pub devices: Vec<String>,
}

/// Told when a disk is attached; gives the device at which the guest sees it. `None`: it never does.
pub(crate) type OnAttach = Arc<dyn Fn(&Attaching) -> Option<String> + Send + Sync>;

/// Told when a disk is detached, with what was said when it was attached.
pub(crate) type OnDetach = Arc<dyn Fn(&Attaching) + Send + Sync>;

/// A disk that was made from a snapshot, on its way to the guest or away from it.
#[derive(Clone, Debug)]
pub struct Attaching {
    /// Its id.
    pub disk: String,
    /// What the guest sees as its serial number.
    pub serial: String,
    /// Where it is attached; empty if it is not yet.
    pub device: String,
    /// The group of the snapshot, if it is one of a group that exists.
    pub group: String,
    /// The disk that the snapshot was taken of.
    pub source_disk: String,
}

/// Where a disk is on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OnItsWay {
    /// Looks that do not list it yet.
    pub(crate) hidden: u32,
    /// Looks that still show the state in between.
    pub(crate) looks: u32,
    /// The state at the end.
    pub(crate) then: &'static str,
}

/// Shared by all connections and the handle.
#[derive(Clone, Default)]
pub(crate) struct Shared(Arc<Mutex<World>>);

impl Shared {
    pub(crate) fn new(scenario: Scenario) -> Self {
        Self(Arc::new(Mutex::new(World { scenario, ..World::default() })))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, World> {
        // A test that panics while it changes the scenario does not take the services with it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) groups: Vec<Group>,
    pub(crate) client_tokens: BTreeMap<String, ClientToken>,
    pub(crate) credentials: Credentials,
    pub(crate) metadata_tokens: BTreeMap<String, Timestamp>,
    pub(crate) log: Vec<Logged>,
    pub(crate) on_create: Option<OnCreate>,
    pub(crate) on_attach: Option<OnAttach>,
    pub(crate) on_detach: Option<OnDetach>,
    /// Of disks whose state changes.
    pub(crate) on_their_way: BTreeMap<String, OnItsWay>,
    nonces: BTreeSet<String>,
    calls: BTreeMap<String, u32>,
    numbers: u64,
}

/// What a client token stands for.
#[derive(Clone, Debug)]
pub(crate) struct ClientToken {
    pub(crate) meaning: BTreeMap<String, String>,
    /// The id of what was made; absent while the first request is still in process.
    pub(crate) made: Option<String>,
}

impl World {
    /// The emulator's clock.
    pub(crate) fn now(&self) -> Timestamp {
        let offset = SignedDuration::from_secs(self.scenario.clock_offset_s);
        Timestamp::now().saturating_add(offset).unwrap_or_else(|_| Timestamp::now())
    }

    /// Another scenario: calls are counted from 1 again, what exists stays.
    pub(crate) fn set_scenario(&mut self, scenario: Scenario) {
        self.scenario = scenario;
        self.calls.clear();
    }

    /// Counts a call, and says what goes wrong in it.
    pub(crate) fn arrive(&mut self, action: &str) -> Fault {
        let number = self.calls.entry(action.to_owned()).or_default();
        *number += 1;
        let number = *number;
        let faults = &self.scenario.faults;
        let fault = faults.iter().find(|fault| fault.happens_in(action, number)).cloned();
        let fault = fault.unwrap_or_default();
        if fault.expire_credentials {
            let now = self.now();
            self.credentials.expire(now);
        }
        fault
    }

    /// Whether this nonce is new. It is not, the next time.
    pub(crate) fn is_new_nonce(&mut self, nonce: &str) -> bool {
        self.nonces.insert(nonce.to_owned())
    }

    /// Puts a request into the log and gives its number.
    pub(crate) fn begin(&mut self, mut logged: Logged) -> u64 {
        self.numbers += 1;
        logged.number = self.numbers;
        self.log.push(logged);
        self.numbers
    }

    /// Changes a request in the log, if it is still there.
    pub(crate) fn amend(&mut self, number: u64, change: impl FnOnce(&mut Logged)) {
        if let Some(logged) = self.log.iter_mut().rev().find(|logged| logged.number == number) {
            change(logged);
        }
    }
}
