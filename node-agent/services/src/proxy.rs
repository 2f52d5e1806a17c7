//! Keeps the kernel equal to what is known: the thin shell around [`crate::program`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flotilla_report::report;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Network;
use crate::announce;
use crate::conntrack;
use crate::health::{Health, HealthChecks};
use crate::kernel::Kernel;
use crate::model::{Model, PortName, Reached, ServiceName};
use crate::program::{Program, StaleFlow, Update};
use crate::wanted::wanted;
use flotilla_nftables::{Netlink, NetlinkError};

/// Between looks at the kernel, whether our table is still there.
const CHECK: Duration = Duration::from_secs(5);
/// After the kernel has refused a whole table.
const RETRY: Duration = Duration::from_secs(2);

/// Why services cannot be programmed.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// Netfilter cannot be used.
    #[error("cannot program services")]
    Netlink(#[from] NetlinkError),
}

/// What a node needs to know of itself.
#[derive(Debug, Clone)]
pub struct Options {
    /// The node's name, as in endpoints and nodes.
    pub node_name: String,
    /// Addresses at which node ports are served.
    pub node_addresses: Vec<Ipv4Addr>,
    /// The cluster's ranges.
    pub network: Network,
}

/// Services and endpoints as they become known, and which nodes are ready. A clone shares them.
#[derive(Debug, Clone)]
pub struct SharedModel {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    model: Mutex<Model>,
    nodes: Mutex<Nodes>,
    changed: Notify,
    version: AtomicU64,
    /// Whether all services, and all endpoints, are known.
    synced: watch::Sender<(bool, bool)>,
}

impl SharedModel {
    /// Knows nothing yet.
    pub fn new(node_name: &str) -> Self {
        Self {
            inner: Arc::new(Inner {
                model: Mutex::new(Model::new(node_name)),
                nodes: Mutex::default(),
                changed: Notify::new(),
                version: AtomicU64::new(0),
                synced: watch::Sender::new((false, false)),
            }),
        }
    }

    /// Notes a change of services or endpoints.
    pub fn change(&self, change: impl FnOnce(&mut Model)) {
        {
            let mut model = self.model();
            change(&mut model);
            self.inner.version.fetch_add(1, Ordering::Relaxed);
        }
        self.inner.changed.notify_one();
    }

    /// How many changes there were. Changes are made one at a time, so no reader of the model sees half of one.
    pub fn version(&self) -> u64 {
        self.inner.version.load(Ordering::Relaxed)
    }

    /// Notes a node: whether it can receive connections from outside, and its own addresses.
    pub fn node(&self, name: &str, is_ready: bool, addresses: Vec<Ipv4Addr>) {
        let node = KnownNode { is_ready, addresses };
        let mut nodes = self.nodes();
        if nodes.known.get(name) != Some(&node) {
            nodes.known.insert(name.to_owned(), node);
            self.inner.changed.notify_one();
        }
    }

    /// A node is gone.
    pub fn node_gone(&self, name: &str) {
        if self.nodes().known.remove(name).is_some() {
            self.inner.changed.notify_one();
        }
    }

    /// Where a port of a service is reached, as [`Model::endpoints`] says.
    pub fn endpoints(&self, namespace: &str, service: &str, port: PortName<'_>) -> Reached {
        self.model().endpoints(namespace, service, port)
    }

    /// Waits until all services and all endpoints have been told once.
    pub async fn synced(&self) {
        let mut synced = self.inner.synced.subscribe();
        // The sender lives as long as this model.
        let _ = synced.wait_for(|synced| synced.0 && synced.1).await;
    }

    /// All nodes have been told.
    pub fn nodes_synced(&self) {
        self.nodes().is_synced = true;
        self.inner.changed.notify_one();
    }

    /// All services have been told.
    pub fn services_synced(&self) {
        self.inner.synced.send_modify(|synced| synced.0 = true);
    }

    /// All endpoints have been told.
    pub fn endpoints_synced(&self) {
        self.inner.synced.send_modify(|synced| synced.1 = true);
    }

    fn nodes(&self) -> MutexGuard<'_, Nodes> {
        self.inner.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn model(&self) -> MutexGuard<'_, Model> {
        self.inner.model.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Programs the services of one node.
pub struct Proxy {
    options: Options,
    shared: SharedModel,
    announced: watch::Sender<BTreeSet<Ipv4Addr>>,
    health: HealthChecks,
    programmed: watch::Sender<u64>,
}

/// The nodes of the cluster.
#[derive(Debug, Clone, Default)]
struct Nodes {
    known: BTreeMap<String, KnownNode>,
    /// Whether all are known. Before that nothing is announced: it might be a node's own address.
    is_synced: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct KnownNode {
    is_ready: bool,
    addresses: Vec<Ipv4Addr>,
}

/// What is in the kernel, and the way to it.
struct State {
    program: Program,
    kernel: Kernel,
    flows: Netlink,
    /// The kernel's state is not what the program says.
    is_lost: bool,
    /// Of the model that the program was made of.
    version: u64,
}

impl Proxy {
    /// Changes nothing yet. `announced` is fed with the balanced addresses that this node is to announce.
    pub fn new(
        options: Options,
        shared: SharedModel,
        announced: watch::Sender<BTreeSet<Ipv4Addr>>,
        tracker: &TaskTracker,
        shutdown: &CancellationToken,
    ) -> Self {
        Self {
            options,
            shared,
            announced,
            programmed: watch::Sender::new(0),
            health: HealthChecks::new(tracker.clone(), shutdown.child_token()),
        }
    }

    /// The newest [`SharedModel::version`] that is in the kernel; 0 before there is any.
    pub fn programmed(&self) -> watch::Receiver<u64> {
        self.programmed.subscribe()
    }

    /// Programs services until shutdown; the rules stay. Nothing is touched before all services and endpoints are
    /// known, so that a restart takes none away.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), ProxyError> {
        let mut synced = self.shared.inner.synced.subscribe();
        // Both arms only wait; the sender lives as long as the model.
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            _ = synced.wait_for(|synced| synced.0 && synced.1) => {}
        }
        self.shared.model().mark_all();
        let mut state = State {
            program: Program::default(),
            kernel: Kernel::open(self.options.network)?,
            flows: Netlink::open()?,
            is_lost: true,
            version: 0,
        };
        let mut check = tokio::time::interval(CHECK);
        loop {
            state = self.round(state).await;
            if !state.is_lost {
                self.programmed.send_replace(state.version);
            }
            // Every arm only waits.
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = self.shared.inner.changed.notified() => {}
                () = tokio::time::sleep(RETRY), if state.is_lost => {}
                _ = check.tick() => state = off_thread(state, State::check).await,
            }
        }
    }

    /// Brings the kernel, health checks and announcements up to date.
    async fn round(&mut self, state: State) -> State {
        let (shared, addresses) = (self.shared.clone(), self.options.node_addresses.clone());
        let state = off_thread(state, move |state| state.update(&shared, &addresses)).await;
        let model = self.shared.model();
        let nodes = self.shared.nodes().clone();
        let announced = announced(&model, &self.options, &nodes);
        let health = health(&model);
        drop(model);
        self.health.set(health);
        self.announced.send_if_modified(|known| {
            *known != announced && {
                *known = announced;
                true
            }
        });
        state
    }
}

/// Talking with the kernel may take a while for a whole table.
async fn off_thread(mut state: State, work: impl FnOnce(&mut State) + Send + 'static) -> State {
    let done = tokio::task::spawn_blocking(move || {
        work(&mut state);
        state
    });
    match done.await {
        Ok(state) => state,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}

impl State {
    fn update(&mut self, shared: &SharedModel, node_addresses: &[Ipv4Addr]) {
        let begin = Instant::now();
        let mut update = Update::default();
        let count = {
            let mut model = shared.model();
            self.version = shared.version();
            let mut dirty = model.take_dirty();
            let mut count = 0;
            while let Some(name) = dirty.pop_first() {
                count += 1;
                let wanted = wanted(&model, &name, node_addresses);
                self.program.update(&name, wanted, &mut update);
                dirty.extend(
                    std::mem::take(&mut update.released)
                        .into_iter()
                        .filter(|other| *other != name),
                );
            }
            count
        };
        if self.is_lost {
            self.replace();
        } else if let Err(error) = self.kernel.change(&update.changes) {
            tracing::warn!(
                error = report(&error),
                "the kernel's services are not what they should be; all are written anew"
            );
            self.replace();
        } else {
            self.clear_flows(&update.stale);
        }
        tracing::debug!(
            services = count,
            elements = update.changes.added.len() + update.changes.removed.len(),
            micros = begin.elapsed().as_micros(),
            "services programmed"
        );
    }

    fn replace(&mut self) {
        match self.kernel.replace(&self.program.elements()) {
            Ok(()) => {
                self.is_lost = false;
                self.clear_all_flows();
            }
            Err(error) => {
                self.is_lost = true;
                tracing::error!(error = report(&error), "services cannot be programmed; trying on");
            }
        }
    }

    fn check(&mut self) {
        match self.kernel.is_intact() {
            Ok(true) => {}
            Ok(false) if self.is_lost => {}
            Ok(false) => {
                tracing::warn!("somebody has changed the services' rules; all are written anew");
                self.replace();
            }
            Err(error) => {
                tracing::warn!(error = report(&error), "the services' rules cannot be checked");
                self.is_lost = true;
            }
        }
    }

    fn clear_flows(&mut self, stale: &[StaleFlow]) {
        if stale.is_empty() {
            return;
        }
        let stale: BTreeSet<StaleFlow> = stale.iter().copied().collect();
        let cleared = conntrack::clear(&mut self.flows, |frontend, answering| {
            let went_nowhere = answering == (frontend.address, frontend.port);
            let backend = (!went_nowhere).then_some(answering);
            stale.contains(&StaleFlow { frontend, backend })
        });
        note_cleared(cleared);
    }

    /// After a whole table: whatever goes where no service leads.
    fn clear_all_flows(&mut self) {
        let alive = self.program.udp_backends();
        if alive.is_empty() {
            return;
        }
        let cleared = conntrack::clear(&mut self.flows, |frontend, answering| {
            alive
                .get(&frontend)
                .is_some_and(|backends| !backends.contains(&answering))
        });
        note_cleared(cleared);
    }
}

fn note_cleared(cleared: Result<usize, NetlinkError>) {
    match cleared {
        Ok(0) => {}
        Ok(flows) => tracing::debug!(flows, "stale UDP flows ended"),
        Err(error) => tracing::warn!(error = report(&error), "stale UDP flows cannot be ended"),
    }
}

fn health(model: &Model) -> BTreeMap<u16, Health> {
    let checked = model
        .outward()
        .filter_map(|(name, spec)| Some((name, spec.health_port?)));
    let health = |name: &ServiceName| Health {
        service: name.clone(),
        local_endpoints: model.local_ready(name),
    };
    checked.map(|(name, port)| (port, health(name))).collect()
}

/// The balanced addresses that this node is to announce: never one that a node has itself. Where the client's address
/// is to be kept, only nodes with endpoints can receive; an address of several services is announced by one node.
fn announced(model: &Model, options: &Options, nodes: &Nodes) -> BTreeSet<Ipv4Addr> {
    let own: BTreeSet<Ipv4Addr> = nodes
        .known
        .values()
        .flat_map(|node| node.addresses.iter().copied())
        .collect();
    let ready = nodes
        .known
        .iter()
        .filter(|(_, node)| node.is_ready && nodes.is_synced);
    let ready: BTreeSet<&str> = ready.map(|(name, _)| name.as_str()).collect();
    let mut able: BTreeMap<Ipv4Addr, BTreeSet<&str>> = BTreeMap::new();
    for (name, spec) in model
        .outward()
        .filter(|(_, spec)| !spec.balanced_addresses.is_empty())
    {
        let with_endpoints = model.nodes_of(name);
        let fits = |node: &&&str| !spec.external_local || with_endpoints.contains(**node);
        let fit: BTreeSet<&str> = ready.iter().filter(fits).copied().collect();
        for address in spec
            .balanced_addresses
            .iter()
            .filter(|address| !own.contains(address))
        {
            let known = able.entry(*address).or_insert_with(|| fit.clone());
            known.retain(|node| fit.contains(node));
        }
    }
    let is_ours = |(address, nodes): &(Ipv4Addr, BTreeSet<&str>)| {
        announce::chosen(*address, nodes.iter().copied()) == Some(&options.node_name)
    };
    able.into_iter()
        .filter(is_ours)
        .map(|(address, _)| address)
        .collect()
}

#[cfg(test)]
mod tests;
