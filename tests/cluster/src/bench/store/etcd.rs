//! Three members of Debian's etcd, in the networks of the three servers.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use flotilla_cluster_tests::Cluster;
use flotilla_pki::{ClusterCa, Subject};

use super::Member;
use super::plan::Server;

/// Ports for clients and peers; the second pair is that of the members with TLS.
const PORTS: [(u16, u16); 2] = [(2379, 2380), (2479, 2480)];
/// The whole run writes more than the two gigabytes at which etcd stops by default.
const QUOTA_BYTES: &str = "8589934592";

/// Three running members; they end when this is dropped.
pub(super) struct Etcd {
    processes: Vec<Child>,
    servers: Vec<Server>,
}

impl Etcd {
    /// Starts the members, with TLS among them and for clients if there is an authority.
    pub(super) fn start(cluster: &Cluster, members: &[Member], authority: Option<&ClusterCa>) -> Etcd {
        let (port, peer_port) = PORTS[usize::from(authority.is_some())];
        let scheme = if authority.is_some() { "https" } else { "http" };
        let all: Vec<String> = members
            .iter()
            .map(|member| format!("{}={scheme}://{}:{peer_port}", member.name, member.address))
            .collect();
        let mut etcd = Etcd {
            processes: Vec::new(),
            servers: Vec::new(),
        };
        for member in members {
            let folder = cluster.folder().join(format!("etcd-{scheme}-{}", member.name));
            std::fs::create_dir(&folder).expect("the cluster's folder can be written");
            let (client_url, peer_url) = (
                format!("{scheme}://{}:{port}", member.address),
                format!("{scheme}://{}:{peer_port}", member.address),
            );
            let mut command =
                cluster.local_command(&["exec", &member.name, "--", "etcd", "--name", &member.name]);
            command.arg("--data-dir").arg(folder.join("data"));
            command.args([
                "--listen-client-urls",
                &client_url,
                "--advertise-client-urls",
                &client_url,
            ]);
            command.args([
                "--listen-peer-urls",
                &peer_url,
                "--initial-advertise-peer-urls",
                &peer_url,
            ]);
            command.args([
                "--initial-cluster",
                &all.join(","),
                "--quota-backend-bytes",
                QUOTA_BYTES,
            ]);
            command.args(["--logger", "zap", "--log-level", "error"]);
            if let Some(authority) = authority {
                add_tls(&mut command, authority, member, &folder);
            }
            let log = std::fs::File::create(folder.join("log")).expect("the cluster's folder can be written");
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
            // The program that enters the node becomes etcd, so its pid is etcd's.
            let process = command.spawn().expect("the program can be run");
            etcd.servers.push(Server::at(member.address, port, process.id()));
            etcd.processes.push(process);
        }
        etcd
    }

    pub(super) fn servers(&self) -> Vec<Server> {
        self.servers.clone()
    }
}

/// Certificates of the cluster's own authority, demanded from peers and clients, as our servers do.
fn add_tls(command: &mut Command, authority: &ClusterCa, member: &Member, folder: &Path) {
    let subject = Subject::Server {
        name: member.name.clone(),
        addresses: vec![member.address],
        names: Vec::new(),
    };
    let identity = authority.issue(&subject).expect("the authority signs");
    for (file, flag, pem) in [
        ("cert.pem", "cert-file", &identity.certificate_pem),
        ("key.pem", "key-file", &identity.key_pem),
        ("ca.pem", "trusted-ca-file", &identity.ca_pem),
    ] {
        let path = folder.join(file);
        std::fs::write(&path, pem).expect("the cluster's folder can be written");
        for side in ["", "peer-"] {
            command.arg(format!("--{side}{flag}")).arg(&path);
        }
    }
    command.args(["--client-cert-auth", "--peer-client-cert-auth"]);
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // It may have ended by itself.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
