//! What the control plane said about the cluster's network, kept on disk for a start without it.

use std::path::PathBuf;

use flotilla_proto::node::NodeConfig;
use flotilla_report::report;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::checkpoint::write_private;

/// What kubelet says while it has no network.
const NO_NETWORK: &str = "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady \
                          message:Network plugin returns error: the control plane has not assigned a pod CIDR yet";

/// The cluster's settings and whether the network could be made of them.
pub(crate) struct Cluster {
    path: PathBuf,
    config: watch::Sender<Option<NodeConfig>>,
    /// Why pods cannot have a network.
    obstacle: watch::Sender<Option<String>>,
}

#[derive(Serialize, Deserialize)]
struct OnDisk {
    pod_cidr: String,
    cluster_cidr: String,
    cluster_dns: String,
    cluster_domain: String,
    #[serde(default)]
    service_cidr: String,
}

impl Cluster {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            config: watch::channel(None).0,
            obstacle: watch::channel(Some(NO_NETWORK.to_owned())).0,
        }
    }

    /// What an earlier agent was told.
    pub(crate) fn remembered(&self) -> Option<NodeConfig> {
        let found: OnDisk = serde_json::from_slice(&std::fs::read(&self.path).ok()?).ok()?;
        let OnDisk {
            pod_cidr,
            cluster_cidr,
            cluster_dns,
            cluster_domain,
            service_cidr,
        } = found;
        Some(NodeConfig {
            pod_cidr,
            cluster_cidr,
            cluster_dns,
            cluster_domain,
            service_cidr,
        })
    }

    pub(crate) fn config(&self) -> watch::Receiver<Option<NodeConfig>> {
        self.config.subscribe()
    }

    pub(crate) fn obstacle(&self) -> watch::Receiver<Option<String>> {
        self.obstacle.subscribe()
    }

    /// The network is up as the control plane wants it.
    pub(crate) fn learned(&self, config: NodeConfig) {
        self.obstacle
            .send_if_modified(|obstacle| obstacle.take().is_some());
        if self.config.borrow().as_ref() == Some(&config) {
            return;
        }
        let NodeConfig {
            pod_cidr,
            cluster_cidr,
            cluster_dns,
            cluster_domain,
            service_cidr,
        } = config.clone();
        let on_disk = OnDisk {
            pod_cidr,
            cluster_cidr,
            cluster_dns,
            cluster_domain,
            service_cidr,
        };
        let json = serde_json::to_vec(&on_disk).expect("a few strings are plain data");
        if let Err(error) = write_private(&self.path, &json) {
            tracing::warn!(path = %self.path.display(), error = report(&error), "the network's settings are not kept");
        }
        self.config.send_replace(Some(config));
    }

    /// The network could not be made.
    pub(crate) fn failed(&self, message: String) {
        self.obstacle.send_replace(Some(message));
    }
}
