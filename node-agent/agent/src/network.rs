//! How this node takes part in the cluster's network.

use flotilla_network::{NodeConfig as NetworkConfig, Overlay};
use flotilla_proto::node::NodeConfig;

/// What an operator may choose about the network of a node.
#[derive(Debug, Clone, Default)]
pub struct NetworkOptions {
    /// When packets to other nodes' pods are wrapped.
    pub overlay: Overlay,
    /// Bytes of a pod's packets; worked out from the node's link where it is not given.
    pub mtu: Option<u32>,
}

/// What the network needs of the control plane's settings.
pub(crate) fn config(settings: &NodeConfig) -> NetworkConfig {
    NetworkConfig {
        pod_cidr: settings.pod_cidr.clone(),
        cluster_cidr: settings.cluster_cidr.clone(),
        cluster_dns: settings.cluster_dns.clone(),
    }
}
