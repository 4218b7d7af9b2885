//! The handle: starts the two services on a thread of their own, and stops them when dropped.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::oneshot;

use crate::fault::Fault;
use crate::group::GroupView;
use crate::log::Logged;
use crate::scenario::{Disk, Scenario};
use crate::server::{Kind, Service};
use crate::tls::Tls;
use crate::world::{Attaching, Creation, Shared};

/// Where the services listen.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// ECS.
    pub ecs: SocketAddr,
    /// The metadata service.
    pub metadata: SocketAddr,
    /// Whether ECS speaks TLS, with a certificate authority of its own.
    pub tls: bool,
}

impl Default for Addresses {
    fn default() -> Self {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { ecs: any_port, metadata: any_port, tls: false }
    }
}

/// Two services that run until this is dropped.
pub struct Emulator {
    /// `http://127.0.0.1:…`, or `https://…`
    pub ecs_url: String,
    /// `http://127.0.0.1:…`
    pub imds_url: String,
    /// The certificate authority, if ECS speaks TLS.
    pub authority_pem: Option<String>,
    shared: Shared,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Emulator {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("Emulator");
        debug.field("ecs_url", &self.ecs_url).field("imds_url", &self.imds_url);
        debug.finish_non_exhaustive()
    }
}

impl Emulator {
    /// Starts both on free ports of 127.0.0.1.
    ///
    /// # Errors
    /// If there is no port.
    pub fn start(scenario: Scenario) -> Result<Self> {
        Self::start_at(scenario, Addresses::default())
    }

    /// Starts both at these addresses; port 0 is any free one.
    ///
    /// # Errors
    /// If an address cannot be had.
    pub fn start_at(scenario: Scenario, addresses: Addresses) -> Result<Self> {
        let tls = addresses.tls.then(Tls::generate).transpose()?;
        let ecs = bind(addresses.ecs)?;
        let metadata = bind(addresses.metadata)?;
        let scheme = if addresses.tls { "https" } else { "http" };
        let ecs_url = format!("{scheme}://{}", ecs.local_addr()?);
        let imds_url = format!("http://{}", metadata.local_addr()?);
        let shared = Shared::new(scenario);
        let acceptor = tls.as_ref().map(|tls| tls.acceptor.clone());
        let services = [
            (Service::new(shared.clone(), Kind::Ecs, acceptor), ecs),
            (Service::new(shared.clone(), Kind::Metadata, None), metadata),
        ];
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("ecs-emulator".to_owned())
            .spawn(move || run(services, stopped))
            .context("cannot start a thread")?;
        Ok(Self {
            ecs_url,
            imds_url,
            authority_pem: tls.map(|tls| tls.authority_pem),
            shared,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Changes the scenario. Calls are counted from 1 again; groups and credentials stay.
    pub fn change(&self, change: impl FnOnce(&mut Scenario)) {
        let mut world = self.shared.lock();
        let mut scenario = world.scenario.clone();
        change(&mut scenario);
        world.set_scenario(scenario);
    }

    /// From now on this goes wrong, and nothing else.
    pub fn faults(&self, faults: impl IntoIterator<Item = Fault>) {
        self.change(|scenario| scenario.faults = faults.into_iter().collect());
    }

    /// Called when a group takes effect, before its request is answered: at the point in time that
    /// the snapshots show. It may block.
    pub fn on_create(&self, listener: impl Fn(&Creation) + Send + Sync + 'static) {
        self.shared.lock().on_create = Some(Arc::new(listener));
    }

    /// Called when a disk that was made from a snapshot is attached; gives the device at which the
    /// guest sees it, and `None` if it never does. It may block.
    pub fn on_attach(
        &self,
        listener: impl Fn(&Attaching) -> Option<String> + Send + Sync + 'static,
    ) {
        self.shared.lock().on_attach = Some(Arc::new(listener));
    }

    /// Called when such a disk is detached. It may block.
    pub fn on_detach(&self, listener: impl Fn(&Attaching) + Send + Sync + 'static) {
        self.shared.lock().on_detach = Some(Arc::new(listener));
    }

    /// The account's disks, as they are now.
    #[must_use]
    pub fn disks(&self) -> Vec<Disk> {
        self.shared.lock().scenario.disks.clone()
    }

    /// All requests so far, to both services, in the order of their arrival.
    #[must_use]
    pub fn log(&self) -> Vec<Logged> {
        self.shared.lock().log.clone()
    }

    /// The requests of one action.
    #[must_use]
    pub fn calls(&self, action: &str) -> Vec<Logged> {
        let mut log = self.log();
        log.retain(|logged| logged.action == action);
        log
    }

    /// Forgets the requests so far.
    pub fn clear_log(&self) {
        self.shared.lock().log.clear();
    }

    /// All groups that exist, listed or not.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupView> {
        self.shared.lock().groups.iter().map(GroupView::of).collect()
    }

    /// Removes all groups, as if somebody had deleted them.
    pub fn clear_groups(&self) {
        self.shared.lock().groups.clear();
    }

    /// Everything that was handed out or configured and must not be seen anywhere: secrets of keys,
    /// security tokens, tokens of the metadata service.
    #[must_use]
    pub fn secrets(&self) -> Vec<String> {
        let world = self.shared.lock();
        let keys = world.scenario.access_keys.iter().map(|key| key.secret.clone());
        let mut secrets = world.credentials.secrets();
        secrets.extend(keys.chain(world.metadata_tokens.keys().cloned()));
        secrets
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn bind(address: SocketAddr) -> Result<TcpListener> {
    let listener =
        TcpListener::bind(address).with_context(|| format!("cannot listen at {address}"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves until told to stop, or until the handle is gone.
fn run(services: [(Arc<Service>, TcpListener); 2], stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return };
    runtime.block_on(async {
        for (service, listener) in services {
            if let Ok(listener) = tokio::net::TcpListener::from_std(listener) {
                tokio::spawn(service.listen(listener));
            }
        }
        let _ = stopped.await;
    });
    // A listener of a test that blocks does not keep it.
    runtime.shutdown_timeout(Duration::from_secs(1));
}
