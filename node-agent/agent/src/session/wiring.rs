//! The node's network as the control plane wants it: made at once, and tried again for as long as it is refused.
//!
//! The leader tells its wishes once per subscription, so what was refused would stay undone for ever if nobody
//! tried again, and without a network the node is not ready.

use std::sync::Arc;
use std::time::Duration;

use flotilla_network::Route;
use flotilla_proto::node::{NodeConfig, NodeRoute, NodeRoutes};
use flotilla_report::report;
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::machine::Machine;
use crate::network;

/// The first pause after something was refused; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What one session's server wants of the network, as far as it is not done.
pub(super) struct Wiring {
    machine: Arc<dyn Machine>,
    cluster: Arc<Cluster>,
    config: Option<NodeConfig>,
    routes: Option<Vec<Route>>,
    pause: Duration,
    /// When to try again; none while nothing was refused.
    retry: Option<Instant>,
}

impl Wiring {
    pub(super) fn new(machine: Arc<dyn Machine>, cluster: Arc<Cluster>) -> Self {
        Self {
            machine,
            cluster,
            config: None,
            routes: None,
            pause: FIRST_PAUSE,
            retry: None,
        }
    }

    /// Makes the node's network; says that there is none when that is refused.
    pub(super) async fn configure(&mut self, config: NodeConfig) {
        self.config = Some(config);
        self.work().await;
    }

    /// Replaces the routes to other nodes.
    pub(super) async fn set_routes(&mut self, routes: NodeRoutes) {
        self.routes = Some(routes.routes.into_iter().filter_map(route).collect());
        self.work().await;
    }

    /// Returns when what was refused is to be tried again. Cancel safe: only waits.
    pub(super) async fn due(&self) {
        match self.retry {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// Does what is not done yet.
    pub(super) async fn work(&mut self) {
        let is_done = self.make_network().await & self.turn_routes().await;
        if is_done {
            (self.retry, self.pause) = (None, FIRST_PAUSE);
            return;
        }
        self.retry = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    async fn make_network(&mut self) -> bool {
        let Some(config) = &self.config else { return true };
        match self.machine.configure(network::config(config)).await {
            Ok(()) => {
                self.cluster.learned(config.clone());
                self.config = None;
                true
            }
            Err(error) => {
                tracing::error!(
                    error = report(&error),
                    "the node's network cannot be configured; trying on"
                );
                self.cluster.failed(report(&error));
                false
            }
        }
    }

    async fn turn_routes(&mut self) -> bool {
        let Some(routes) = &self.routes else { return true };
        match self.machine.set_routes(routes.clone()).await {
            Ok(()) => {
                self.routes = None;
                true
            }
            Err(error) => {
                tracing::error!(
                    error = report(&error),
                    "routes to other nodes cannot be set; trying on"
                );
                false
            }
        }
    }
}

/// A route whose address cannot be read is left out: it may come from a newer server.
fn route(route: NodeRoute) -> Option<Route> {
    Some(Route {
        address: route.address.parse().ok()?,
        node: route.node_name,
        pod_cidr: route.pod_cidr,
    })
}
