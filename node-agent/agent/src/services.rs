//! Feeds the services of this node from what is followed, and starts them once the network is known.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use flotilla_proto::node::NodeConfig;
use flotilla_report::report;
use flotilla_services::{Network, Options, SharedModel};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::follow::{Change, Follow};
use crate::machine::Machine;

/// Nodes with this label receive nothing from outside.
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// Where the node is, for services that want their traffic kept near.
const ZONE: &str = "topology.kubernetes.io/zone";
/// What servers that do not name the range use.
const DEFAULT_RANGE: &str = "10.43.0.0/16";

/// Feeds a model with services, endpoints and nodes.
pub(crate) fn follow(follow: &mut Follow, node_name: &str) -> SharedModel {
    let shared = SharedModel::new(node_name);
    let fed = shared.clone();
    follow.on::<Service>(move |change| match change {
        Change::Applied(service) => fed.change(|model| model.service(service)),
        Change::Gone { namespace, name } => fed.change(|model| model.service_gone(namespace, name)),
        Change::Synced => fed.services_synced(),
    });
    let fed = shared.clone();
    follow.on::<EndpointSlice>(move |change| match change {
        Change::Applied(slice) => fed.change(|model| model.slice(slice)),
        Change::Gone { namespace, name } => fed.change(|model| model.slice_gone(namespace, name)),
        Change::Synced => fed.endpoints_synced(),
    });
    let (fed, own) = (shared.clone(), node_name.to_owned());
    follow.on::<Node>(move |change| match change {
        Change::Applied(node) => {
            let name = node.metadata.name.as_deref().unwrap_or_default();
            if name == own {
                fed.change(|model| model.zone(zone(node)));
            }
            fed.node(name, receives(node), addresses(node));
        }
        Change::Gone { name, .. } => fed.node_gone(name),
        Change::Synced => fed.nodes_synced(),
    });
    shared
}

/// Whether connections from outside may come in by this node.
fn receives(node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    let conditions = node
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready");
    ready.any(|condition| condition.status == "True")
        && node.metadata.deletion_timestamp.is_none()
        && !labels.is_some_and(|labels| labels.contains_key(EXCLUDED))
}

fn zone(node: &Node) -> Option<&str> {
    let labels = node.metadata.labels.as_ref()?;
    labels.get(ZONE).map(String::as_str)
}

fn addresses(node: &Node) -> Vec<Ipv4Addr> {
    let listed = node
        .status
        .iter()
        .flat_map(|status| status.addresses.iter().flatten());
    listed
        .filter_map(|address| address.address.parse().ok())
        .collect()
}

/// What services of a node need besides the objects.
pub(crate) struct Serving {
    pub(crate) node_name: String,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) machine: Arc<dyn Machine>,
    pub(crate) config: watch::Receiver<Option<NodeConfig>>,
    pub(crate) tracker: TaskTracker,
}

impl Serving {
    /// Programs services as soon as the node's network is known, anew when it changes, until shutdown.
    pub(crate) async fn run(mut self, shared: SharedModel, shutdown: CancellationToken) {
        loop {
            let config = self.config.borrow_and_update().clone();
            let options = config.as_ref().and_then(|config| self.options(config));
            let running = shutdown.child_token();
            let machine = self.machine.clone();
            let (shared, tracker, stop) = (shared.clone(), self.tracker.clone(), running.clone());
            let serve = async move {
                match options {
                    Some(options) => machine.serve(options, shared, tracker, stop).await,
                    None => std::future::pending().await,
                }
            };
            // Programming may be dropped between two transactions: the next one begins with everything.
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = self.config.changed() => if changed.is_err() { return },
                () = serve => return,
            }
            running.cancel();
        }
    }

    fn options(&self, config: &NodeConfig) -> Option<Options> {
        let services = match config.service_cidr.as_str() {
            "" => DEFAULT_RANGE,
            given => given,
        };
        let network = range(&config.cluster_cidr).zip(range(services));
        if network.is_none() {
            tracing::error!(
                cluster_cidr = config.cluster_cidr,
                service_cidr = config.service_cidr,
                "services are not programmed: the control plane's ranges are not IPv4 ranges"
            );
        }
        let (cluster, services) = network?;
        let ipv4 = |address: &IpAddr| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        };
        Some(Options {
            node_name: self.node_name.clone(),
            node_addresses: self.addresses.iter().filter_map(ipv4).collect(),
            network: Network { cluster, services },
        })
    }
}

fn range(text: &str) -> Option<(Ipv4Addr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    Some((
        address.parse().ok()?,
        prefix.parse().ok().filter(|prefix| *prefix <= 32)?,
    ))
}

/// Programs services on this machine and announces their addresses, until shutdown.
pub(crate) async fn serve(
    network: &flotilla_network::Network,
    options: Options,
    shared: SharedModel,
    tracker: TaskTracker,
    shutdown: CancellationToken,
) {
    let (address, prefix) = options.network.services;
    if let Err(error) = network.route_services(&format!("{address}/{prefix}")).await {
        tracing::error!(error = report(&error), "this node itself may not reach services");
    }
    let announced = watch::Sender::new(BTreeSet::new());
    let announcer = flotilla_services::Announcer::new(announced.subscribe(), network.bridge());
    tracker.spawn(announcer.run(shutdown.clone()));
    let proxy = flotilla_services::Proxy::new(options, shared, announced, &tracker, &shutdown);
    if let Err(error) = proxy.run(shutdown.clone()).await {
        tracing::error!(error = report(&error), "services are not programmed");
        shutdown.cancelled().await;
    }
}
