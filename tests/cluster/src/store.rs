//! The store of a cluster under a workload, and what is done to it meanwhile.
//!
//! The workload's clients stand at the switch: partitions between nodes are none for them.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use flotilla_network::netns;
use flotilla_workload::{Access, Counts, Plan, Probe, Server, Workload, dial};
use serde_json::Value;

use crate::{Cluster, eventually, succeed};

const API_PORT: u16 = 6443;
/// How long a cluster with a majority may take to acknowledge something again, on a busy machine.
const PROGRESS_LIMIT: Duration = Duration::from_secs(60);

/// A cluster of three servers whose store is written to and watched.
pub struct Store<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// Its servers.
    pub servers: Vec<Server>,
    access: Access,
    workload: Workload,
}

impl<'a> Store<'a> {
    /// Starts the workload.
    pub fn load(cluster: &'a Cluster, plan: Plan) -> Self {
        let access = Access::read(cluster.kubeconfig()).expect("the cluster's kubeconfig is usable");
        let servers = servers(cluster);
        let workload =
            Workload::start(access.clone(), servers.clone(), plan).expect("the cluster works at first");
        let store = Self {
            cluster,
            servers,
            access,
            workload,
        };
        store.make_progress(20);
        store
    }

    /// Waits until so many more writes are acknowledged.
    pub fn make_progress(&self, writes: u64) {
        let wanted = self.workload.acknowledged() + writes;
        eventually("writes are acknowledged", PROGRESS_LIMIT, || {
            (self.workload.acknowledged() >= wanted).then_some(())
        });
    }

    /// A way to ask one server.
    pub fn probe(&self, server: &str) -> Probe {
        let server = self.servers.iter().find(|found| found.name == server);
        let server = server.expect("the server is one of the cluster's").clone();
        Probe::new(self.access.clone(), server).expect("there are threads and sockets")
    }

    /// Waits until a server is ready.
    pub fn wait_until_ready(&self, server: &str) {
        let mut probe = self.probe(server);
        eventually(&format!("{server} is ready"), PROGRESS_LIMIT, || {
            probe.get("/readyz").filter(|(code, _)| *code == 200).map(drop)
        });
    }

    /// Ends the workload and judges what it saw; the cluster must be whole again.
    pub fn judge(self) -> Counts {
        let history = self.workload.finish().unwrap_or_else(|error| panic!("{error}"));
        if let Err(violation) = history.check() {
            panic!("{violation}");
        }
        Counts::of(&history)
    }
}

/// How the servers of a cluster are reached: by name, through the switch's network.
pub fn servers(cluster: &Cluster) -> Vec<Server> {
    let namespace = Path::new("/run/flotilla/local")
        .join(cluster.name())
        .join("switch/net");
    let status = cluster.status();
    let nodes = status["nodes"].as_array().expect("the status lists nodes");
    let servers = nodes.iter().filter(|node| node["role"] == "server");
    let server = |node: &Value| {
        let text = |field: &str| node[field].as_str().expect("nodes have names and addresses");
        let address: Ipv4Addr = text("address").parse().expect("it is an address");
        let (namespace, address) = (namespace.clone(), SocketAddr::from((address, API_PORT)));
        Server {
            name: text("name").to_owned(),
            dial: std::sync::Arc::new(move || netns::enter(&namespace, || dial(address))),
        }
    };
    servers.map(server).collect()
}

/// Sends a signal to a server's process.
pub fn signal(cluster: &Cluster, node: &str, signal: &str) {
    let mut kill = Command::new("kill");
    kill.args([&format!("-{signal}"), &cluster.pid(node).to_string()]);
    succeed(kill);
}
