//! The store beside etcd: three servers of each on the same machine and disk, measured in turns. Run by
//! `deploy/bench-store`.
//!
//! This process starts them; a second one, inside the network of a node, asks them. All talk over the same virtual
//! switch, so that no side has a shorter way.

mod connection;
mod etcd;
mod fanout;
mod load;
mod measure;
mod plan;
mod requests;

use std::net::IpAddr;
use std::path::Path;

use flotilla_cluster_tests::Cluster;
use flotilla_pki::{ClusterCa, Subject};

use etcd::Etcd;
use plan::{Plan, Server, System};
use requests::Protocol;

/// The node from which everything is asked.
const CLIENT_NODE: &str = "agent-1";
const SERVERS: [&str; 3] = ["server-1", "server-2", "server-3"];

/// Starts both stores, and a second process that measures what has `only` in its name.
pub(super) fn measure(only: &str) {
    let cluster = Cluster::up(3, 1);
    let data = cluster.folder().join(cluster.name());
    let authority = authority(&data);
    let members = members(&cluster);
    let plain = Etcd::start(&cluster, &members, None);
    let secure = Etcd::start(&cluster, &members, Some(&authority));

    let leader = cluster.leader();
    let mut servers: Vec<Server> = members
        .iter()
        .map(|member| Server::at(member.address, 6443, cluster.pid(&member.name)))
        .collect();
    let first = members.iter().position(|member| member.name == leader);
    servers.rotate_left(first.expect("the leader is one of the servers"));
    let admin = authority.issue(&Subject::Admin("bench".to_owned()));
    let peer = authority.issue(&Subject::Server {
        name: "bench".to_owned(),
        addresses: Vec::new(),
        names: Vec::new(),
    });
    let peer = peer.expect("the authority signs");
    let system = |name: &str, protocol, servers: &[Server], identity| System {
        name: name.to_owned(),
        protocol,
        servers: servers.to_vec(),
        identity,
    };
    let plan = Plan {
        systems: vec![
            system(
                "Flotilla, Kubernetes API (TLS)",
                Protocol::Api,
                &servers,
                admin.ok(),
            ),
            system(
                "Flotilla, store alone (TLS)",
                Protocol::Peer,
                &servers,
                Some(peer.clone()),
            ),
            system("etcd (TLS)", Protocol::Etcd, &secure.servers(), Some(peer)),
            system("etcd (no TLS)", Protocol::Etcd, &plain.servers(), None),
        ],
    };
    let file = cluster.folder().join("plan.json");
    plan.write(&file);
    ask(&cluster, &file, only);
    assert_eq!(
        cluster.leader(),
        leader,
        "the leader has changed meanwhile: measure again"
    );
}

/// Runs the second process and shows what it prints.
fn ask(cluster: &Cluster, plan: &Path, only: &str) {
    let own = std::env::current_exe().expect("a program knows its file");
    let mut command = cluster.local_command(&["exec", CLIENT_NODE, "--"]);
    command.arg(own).arg("store-client").arg(plan).arg(only);
    let status = command.status().expect("the program can be run");
    assert!(status.success(), "the measurement failed");
}

/// What the second process does.
pub(super) fn client(plan: &str, only: &str) {
    measure::run(Plan::read(Path::new(plan)), only);
}

/// A machine that has a member of each store.
struct Member {
    name: String,
    address: IpAddr,
}

fn members(cluster: &Cluster) -> Vec<Member> {
    let status = cluster.status();
    let nodes = status["nodes"].as_array().expect("the status lists nodes");
    let member = |name: &str| {
        let node = nodes.iter().find(|node| node["name"] == name);
        let address = node.and_then(|node| node["address"].as_str()?.parse().ok());
        Member {
            name: name.to_owned(),
            address: address.expect("a node has an address"),
        }
    };
    SERVERS.map(member).into()
}

/// The cluster's own authority, with which the benchmark makes itself an administrator.
fn authority(data: &Path) -> ClusterCa {
    let pki = data.join(SERVERS[0]).join("pki");
    let read = |file: &str| std::fs::read_to_string(pki.join(file)).expect("a server has its authority");
    ClusterCa::load(&read("ca.crt"), &read("ca.key")).expect("the authority is whole")
}
