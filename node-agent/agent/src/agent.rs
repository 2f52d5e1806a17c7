//! Options → wiring → run → drain.

mod errors;
mod node_watch;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use flotilla_images::{Puller, Settings, Store};
use flotilla_ingress::{Listening, Options as IngressOptions};
use flotilla_lifecycle::pressure::Pressures;
use flotilla_lifecycle::reserve::Reserve;
use flotilla_lifecycle::{Permits, Quantities, ServiceAddress};
use flotilla_network::Network;
use flotilla_report::report;
use flotilla_runtime::{Resources, Runtime};
use flotilla_services::SharedModel;
use flotilla_volumes::Volumes;
use k8s_openapi::api::core::v1::Service;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::checkpoint::Checkpoints;
use crate::cluster::Cluster;
use crate::directory::Directory;
use crate::disk_use::{DiskUses, Folders};
use crate::disks::Disks;
use crate::follow::{Follow, Servers};
use crate::gauges::{Gauges, HostGauges};
use crate::gone::GoneLogs;
use crate::identity::{self, Connector, JoinError};
use crate::images;
use crate::ingress::Ingresses;
use crate::machine::{LocalMachine, Machine};
use crate::names::Names;
use crate::network::{self, NetworkOptions};
use crate::node::Host;
use crate::outbox::Outbox;
use crate::peers::ClusterPeers;
use crate::pods::Pods;
use crate::policies;
use crate::pressure::{LimitWatch, PressureWatch};
use crate::services::{self, Serving};
use crate::session::{self, Conversations};
use crate::statics::{FOLDER, StaticPods};
use crate::stats::Sampler;
use crate::streams::Streams;
use crate::worker::Surroundings;

pub use self::errors::{NewAgentError, RunAgentError};
use self::node_watch::NodeWatch;

/// How long tasks may take to notice a shutdown. Containers run on in any case.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// What an agent needs to know to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// The node's name in the cluster.
    pub name: String,
    /// Addresses (`host:port`) of some servers.
    pub servers: Vec<String>,
    /// Needed only until the node has joined. `<data_dir>/pki` may hold an identity from elsewhere instead.
    pub token: Option<String>,
    /// Survives reboots: certificate, images, checkpoints, logs.
    pub data_dir: PathBuf,
    /// Need not survive reboots: sockets, namespaces.
    pub run_dir: PathBuf,
    /// The address under which other nodes reach this one.
    pub node_address: IpAddr,
    /// Absolute cgroup under which pods get theirs.
    pub cgroup_parent: String,
    /// Name of the pods' bridge.
    pub bridge: String,
    /// What else there is to choose about its network.
    pub network: NetworkOptions,
    /// Where Ingresses are served; neither port: not at all.
    pub ingress: IngressOptions,
    /// Labels of the node besides the usual ones.
    pub labels: BTreeMap<String, String>,
    /// What of the node pods may not have, and from when on they are evicted.
    pub reserve: Reserve,
    /// What pods may have of it that has no amount.
    pub permits: Permits,
    /// How long a condition of pressure outlasts its measurement.
    pub pressure_transition: Duration,
    /// The folder whose files describe static pods; by default one in `data_dir`.
    pub static_pods: Option<PathBuf>,
    /// The flotilla binary: runs as shim, and is the layer of the built-in images.
    pub executable: PathBuf,
}

/// A node. Pods outlive it.
pub struct Agent {
    options: Options,
    machine: Arc<LocalMachine>,
}

impl Agent {
    /// Opens runtime, images and network; starts nothing.
    pub fn new(options: Options) -> Result<Self, NewAgentError> {
        let static_pods = options.data_dir.join(FOLDER);
        for path in [&options.data_dir, &options.run_dir, &static_pods] {
            std::fs::create_dir_all(path).map_err(|source| NewAgentError::Folder {
                path: path.clone(),
                source,
            })?;
        }
        let runtime = Runtime::new(flotilla_runtime::Options {
            state_dir: options.data_dir.join("runtime"),
            run_dir: options.run_dir.clone(),
            volumes_dir: Some(options.run_dir.join("volumes")),
            cgroup_parent: options.cgroup_parent.clone(),
            executable: options.executable.clone(),
            seccomp_profiles: options.data_dir.join("seccomp"),
        })?;
        let store = Store::open(options.data_dir.join("images"))?;
        let network = Network::new(flotilla_network::Options {
            bridge: options.bridge.clone(),
            state_dir: options.data_dir.join("network"),
            node_address: options.node_address,
            overlay: options.network.overlay,
            mtu: options.network.mtu,
        })?;
        let volumes = Volumes::open(flotilla_volumes::Options {
            state_dir: options.data_dir.join("volumes"),
            run_dir: options.run_dir.join("volumes"),
        })?;
        let puller = Puller::new(store.clone(), Settings::of_node(&options.data_dir));
        let executable = options.executable.clone();
        let machine = LocalMachine::new(runtime, store, puller, network, volumes, executable);
        Ok(Self { options, machine })
    }

    /// Joins if need be, then runs pods until shutdown. The pods' processes run on afterwards.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), RunAgentError> {
        let Self { options, machine } = self;
        let builtin = machine.clone();
        let tracker = TaskTracker::new();
        tracker.spawn_blocking(move || {
            if let Err(error) = builtin.ensure_builtin() {
                tracing::error!(error = report(&error), "the built-in images are not available");
            }
        });
        let mut node = Assembly::new(&options, machine, tracker)?;
        // Pods of an earlier agent are taken care of before any server has answered.
        node.restore().await;
        node.follow_files(&options, &shutdown);
        let pki = options.data_dir.join("pki");
        let directory = node.directory.clone();
        // Giving up to join half-way is harmless: nothing is kept before it has worked.
        let identity = tokio::select! {
            () = shutdown.cancelled() => {
                node.drain().await;
                return Ok(());
            }
            identity = identity::obtain(&pki, options.token.as_deref(), &options.name, &directory) => identity?,
        };
        let (connectors, connector) =
            watch::channel(identity::connector(&identity).map_err(JoinError::from)?);
        node.tracker.spawn(identity::renew_forever(
            pki,
            directory,
            connectors,
            shutdown.child_token(),
        ));
        node.serve(connector, shutdown).await;
        Ok(())
    }
}

/// The parts of a running agent, wired together.
pub(crate) struct Assembly {
    host: Host,
    pub(crate) directory: Arc<Directory>,
    pub(crate) tracker: TaskTracker,
    cluster: Arc<Cluster>,
    surroundings: Arc<Surroundings>,
    pods: Arc<Pods>,
    /// What of the cluster's objects this node follows; consumers register when they are wired.
    follow: Follow,
    names: Names,
    /// What services are made of.
    served: SharedModel,
    /// The proxy for Ingresses; none when it is turned off.
    ingresses: Option<Ingresses>,
    /// Disks of this node's persistent volumes.
    disks: Arc<Disks>,
    workers_shutdown: CancellationToken,
    gauges: Arc<dyn Gauges>,
    /// What pods have on disk.
    disk_uses: Arc<DiskUses>,
    /// Until it runs.
    pressure: Option<PressureWatch>,
}

impl Assembly {
    pub(crate) fn new(
        options: &Options,
        machine: Arc<dyn Machine>,
        tracker: TaskTracker,
    ) -> Result<Self, RunAgentError> {
        let data = |name: &str| options.data_dir.join(name);
        let host = detect(options);
        limit_pods(&*machine, &options.reserve, &host.capacity);
        let (pressures, pressures_rx) = watch::channel(Pressures::default());
        let cluster = Arc::new(Cluster::new(data("cluster.json")));
        let checkpoints = Checkpoints::open(data("checkpoints"))
            .map_err(|error| RunAgentError::Checkpoints(Box::new(error)))?;
        let mut follow = Follow::new(data("follow"));
        let disks = Arc::new(Disks::default());
        disks.hear(&mut follow);
        let services = follow.mirror(|service: &Arc<Service>| ServiceAddress::of(service));
        let names = Names::new(&mut follow);
        let served = services::follow(&mut follow, &host.name);
        policies::follow(&mut follow, &machine.policies());
        let ingresses = Ingresses::new(&mut follow, options.ingress, &served, &tracker);
        let surroundings = Arc::new(Surroundings {
            machine,
            outbox: Arc::new(Outbox::default()),
            checkpoints,
            host_addresses: host.addresses.clone(),
            allocatable: host.allocatable.clone(),
            permits: options.permits.clone(),
            pressures: pressures_rx,
            cluster: cluster.config(),
            logs_dir: data("pods"),
            files_dir: data("etc"),
            gone: Arc::new(GoneLogs::open(data("gone-pods"))),
            claims: Default::default(),
            tasks: tracker.clone(),
            started: tokio::time::Instant::now(),
            services,
            tokens: Arc::default(),
        });
        let workers_shutdown = CancellationToken::new();
        let pods = Arc::new(Pods::new(
            surroundings.clone(),
            tracker.clone(),
            workers_shutdown.clone(),
        ));
        let gauges = Arc::new(HostGauges::new(options.data_dir.clone(), data("images")));
        let machine = surroundings.machine.clone();
        let folders = Folders::below(&options.data_dir);
        let disk_uses = Arc::new(DiskUses::new(machine, folders, workers_shutdown.clone()));
        let pressure = PressureWatch {
            gauges: gauges.clone(),
            machine: surroundings.machine.clone(),
            pods: pods.clone(),
            outbox: surroundings.outbox.clone(),
            thresholds: options.reserve.eviction_hard.clone(),
            transition: options.pressure_transition,
            pressures,
            disks: disk_uses.clone(),
        };
        Ok(Self {
            gauges,
            disk_uses,
            pressure: Some(pressure),
            directory: Arc::new(Directory::open(data("servers.json"), &options.servers)),
            host,
            tracker,
            cluster,
            surroundings,
            pods,
            follow,
            names,
            served,
            ingresses,
            disks,
            workers_shutdown,
        })
    }

    /// Goes on where an earlier agent stopped: network first, then its pods.
    pub(crate) async fn restore(&mut self) {
        if let Some(config) = self.cluster.remembered() {
            let network = network::config(&config);
            match self.surroundings.machine.configure(network).await {
                Ok(()) => self.cluster.learned(config),
                Err(error) => self.cluster.failed(report(&error)),
            }
        }
        self.follow.restore();
        self.pods.restore().await;
    }

    /// Runs the pods that the files of a folder describe, whether there is a server or not.
    pub(crate) fn follow_files(&self, options: &Options, shutdown: &CancellationToken) {
        let own = || options.data_dir.join(FOLDER);
        let static_pods = StaticPods {
            folder: options.static_pods.clone().unwrap_or_else(own),
            node_name: self.host.name.clone(),
            pods: self.pods.clone(),
            outbox: self.surroundings.outbox.clone(),
        };
        self.tracker.spawn(static_pods.run(shutdown.child_token()));
    }

    /// Talks with the servers until shutdown.
    pub(crate) async fn serve(mut self, connectors: watch::Receiver<Connector>, shutdown: CancellationToken) {
        let servers = Arc::new(Servers::new(
            &self.host.name,
            self.host.addresses[0],
            self.directory.servers(),
            connectors.clone(),
        ));
        self.follow.start(&servers, &self.tracker, &shutdown);
        self.surroundings.tokens.connect(servers.clone());
        let names = self
            .names
            .clone()
            .serve(self.cluster.config(), shutdown.child_token());
        self.tracker.spawn(names);
        let serving = Serving {
            node_name: self.host.name.clone(),
            addresses: self.host.addresses.clone(),
            machine: self.surroundings.machine.clone(),
            config: self.cluster.config(),
            tracker: self.tracker.clone(),
        };
        self.tracker
            .spawn(serving.run(self.served.clone(), shutdown.child_token()));
        self.enforce_policies(&shutdown);
        let listening = self.serve_ingresses(&shutdown);
        let peers = ClusterPeers::new(servers.clone());
        self.surroundings.machine.set_peers(peers);
        let machine = self.surroundings.machine.clone();
        let (disks, name) = (self.disks.clone(), self.host.name.clone());
        self.tracker
            .spawn(disks.run(name, machine, servers.clone(), shutdown.child_token()));
        self.tracker.spawn(images::keep_space(
            self.surroundings.machine.clone(),
            shutdown.child_token(),
        ));
        let node_rx = self.watch_node(listening, &shutdown);
        let stats = self.measure(&shutdown);
        let (gone, stop) = (self.surroundings.gone.clone(), shutdown.child_token());
        self.tracker.spawn(async move { gone.sweep_forever(stop).await });
        let streams = Streams::new(
            connectors.clone(),
            self.surroundings.clone(),
            self.pods.clone(),
            self.tracker.clone(),
            shutdown.child_token(),
        );
        let conversations = Arc::new(Conversations {
            node_name: self.host.name.clone(),
            connectors,
            directory: self.directory.clone(),
            surroundings: self.surroundings.clone(),
            pods: self.pods.clone(),
            cluster: self.cluster.clone(),
            node: node_rx,
            stats,
            tracker: self.tracker.clone(),
            streams,
        });
        session::run(conversations, shutdown).await;
        self.drain().await;
    }

    fn enforce_policies(&self, shutdown: &CancellationToken) {
        let machine = self.surroundings.machine.clone();
        let enforcing = policies::enforce(machine, self.cluster.config(), shutdown.child_token());
        self.tracker.spawn(enforcing);
    }

    /// Keeps the Node object up to date; returns the newest.
    fn watch_node(
        &self,
        listening: watch::Receiver<Listening>,
        shutdown: &CancellationToken,
    ) -> watch::Receiver<bytes::Bytes> {
        let watcher = NodeWatch {
            host: self.host.clone(),
            machine: self.surroundings.machine.clone(),
            pressures: self.surroundings.pressures.clone(),
            obstacle: self.cluster.obstacle(),
            listening,
            newest: None,
        };
        let (node, newest) = watch::channel(bytes::Bytes::new());
        let watcher = watcher.first(&node);
        self.tracker.spawn(watcher.run(node, shutdown.child_token()));
        newest
    }

    /// Starts the proxy; returns where it listens.
    fn serve_ingresses(&mut self, shutdown: &CancellationToken) -> watch::Receiver<Listening> {
        let Some(ingresses) = self.ingresses.take() else {
            return watch::channel(Listening::default()).1;
        };
        let listening = ingresses.listening();
        self.tracker.spawn(ingresses.run(shutdown.child_token()));
        listening
    }

    /// Starts to look for pressure, and to measure what is used; returns the newest measurement.
    fn measure(&mut self, shutdown: &CancellationToken) -> watch::Receiver<bytes::Bytes> {
        if let Some(pressure) = self.pressure.take() {
            self.tracker.spawn(pressure.run(shutdown.child_token()));
        }
        let limits = LimitWatch {
            pods: self.pods.clone(),
            outbox: self.surroundings.outbox.clone(),
            disks: self.disk_uses.clone(),
        };
        self.tracker.spawn(limits.run(shutdown.child_token()));
        let (newest, stats) = watch::channel(bytes::Bytes::new());
        let sampler = Sampler {
            node_name: self.host.name.clone(),
            gauges: self.gauges.clone(),
            machine: self.surroundings.machine.clone(),
            pods: self.pods.clone(),
            disks: self.disk_uses.clone(),
            newest,
        };
        self.tracker.spawn(sampler.run(shutdown.child_token()));
        stats
    }

    /// Ends the workers; the containers run on.
    pub(crate) async fn drain(&self) {
        self.workers_shutdown.cancel();
        self.tracker.close();
        if tokio::time::timeout(DRAIN_LIMIT, self.tracker.wait())
            .await
            .is_err()
        {
            tracing::warn!(tasks = self.tracker.len(), "some tasks did not end in time");
        }
    }
}

fn detect(options: &Options) -> Host {
    Host::detect(
        &options.name,
        options.node_address,
        &options.labels,
        &options.data_dir,
        &options.reserve,
    )
}

/// Keeps all pods together within what is not reserved. A kernel that cannot do that leaves it to the evictions.
fn limit_pods(machine: &dyn Machine, reserve: &Reserve, capacity: &Quantities) {
    let Some(bytes) = reserve.pods_memory_limit(capacity) else {
        return;
    };
    let resources = Resources {
        memory_limit: Some(bytes),
        ..Resources::default()
    };
    if let Err(error) = machine.limit_pods(&resources) {
        tracing::warn!(
            error = report(&error),
            bytes,
            "the pods' memory cannot be limited to what is not reserved"
        );
    }
}

#[cfg(test)]
mod tests;
