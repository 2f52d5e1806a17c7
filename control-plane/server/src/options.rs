//! What a server is told at its start.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use flotilla_apiserver::InFlightLimits;
use flotilla_controllers::AddressPool;
use flotilla_resources::ServiceCidr;

/// Options of one control-plane replica.
#[derive(Clone, Debug)]
pub struct Options {
    /// The server's node name; unique in the cluster.
    pub name: String,
    /// Keys, the store, the join token and the administrator's kubeconfig.
    pub data_dir: PathBuf,
    /// The address that other machines dial.
    pub address: IpAddr,
    /// The one port: HTTPS and gRPC.
    pub port: u16,
    /// Addresses and names besides `address` that clients may dial, for the certificate.
    pub tls_san: Vec<String>,
    /// The cluster to join; `None` starts one, or continues what the data folder holds.
    pub join: Option<JoinOptions>,
    /// Whether the cluster goes on from this server's data with it as the only member; see `reset`.
    pub reset_to_this_member: bool,
    /// Pod addresses of the whole cluster, IPv4: every node gets a /24 of it.
    pub cluster_cidr: String,
    /// Addresses of the cluster's services.
    pub service_cidr: ServiceCidr,
    /// Addresses for services of type LoadBalancer, announced on the nodes' network; empty: the nodes' own are used.
    pub load_balancer_pool: AddressPool,
    /// How long pods stay bound to an unreachable node unless they say otherwise.
    pub toleration_seconds: i64,
    /// What the store's data may take of the disk before writes are refused; zero for no limit.
    pub store_quota_bytes: u64,
    /// How many requests this server answers at once; it refuses more with 429.
    pub in_flight: InFlightLimits,
}

/// What nodes are told of the cluster's network.
#[derive(Clone, Debug)]
pub(crate) struct ClusterNetwork {
    /// Addresses of all pods.
    pub(crate) cidr: String,
    /// Address on which every node answers names.
    pub(crate) dns: IpAddr,
}

/// Where and with what to join.
#[derive(Clone, Debug)]
pub struct JoinOptions {
    /// `host:port` of any server of the cluster.
    pub server: String,
    /// The join token.
    pub token: String,
}

impl Options {
    /// Where this server listens.
    pub(crate) fn listen(&self) -> SocketAddr {
        let any: IpAddr = if self.address.is_ipv4() {
            [0, 0, 0, 0].into()
        } else {
            [0; 16].into()
        };
        SocketAddr::new(any, self.port)
    }

    /// What nodes are told of the cluster's network.
    pub(crate) fn network(&self) -> ClusterNetwork {
        ClusterNetwork {
            cidr: self.cluster_cidr.clone(),
            dns: self.service_cidr.dns().into(),
        }
    }

    /// What others dial.
    pub(crate) fn advertised(&self) -> String {
        SocketAddr::new(self.address, self.port).to_string()
    }
}
