//! What is known of a cluster between commands: one JSON file that is replaced as a whole.

use std::fs;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::At;
use crate::{LocalError, Place};

/// All nodes share the disks of this machine, which may well be nine tenths full: only what is nearly used up is short.
const EVICTION_HARD: &str = "memory.available<100Mi,nodefs.available<512Mi,imagefs.available<512Mi";

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A control-plane replica, which is a node as well.
    Server,
    /// Only a node.
    Agent,
}

/// One machine of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) address: Ipv4Addr,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// The program that every process of the cluster is.
    pub(crate) executable: PathBuf,
    /// Port of 127.0.0.1 that leads to the servers.
    pub(crate) port: u16,
    pub(crate) toleration_seconds: Option<u64>,
    #[serde(default)]
    pub(crate) load_balancer_pool: Option<String>,
    pub(crate) nodes: Vec<Node>,
    /// Groups of nodes that do not hear each other; empty when all do.
    pub(crate) partition: Vec<Vec<String>>,
    /// Each group is heard by those before it.
    #[serde(default)]
    pub(crate) one_way: bool,
}

impl State {
    pub(crate) fn read(place: &Place) -> Result<Self, LocalError> {
        let path = place.state_file();
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(io::Error::from)
                .at("understand", &path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(LocalError::Absent {
                name: place.name().to_owned(),
            }),
            Err(error) => Err(error).at("read", &path),
        }
    }

    pub(crate) fn write(&self, place: &Place) -> Result<(), LocalError> {
        let path = place.state_file();
        let folder = place.folder();
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(&folder)?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            file.persist(&path)?;
            io::Result::Ok(())
        };
        write().at("write", &path)
    }

    pub(crate) fn node(&self, name: &str) -> Result<&Node, LocalError> {
        self.nodes
            .iter()
            .find(|node| node.name == name)
            .ok_or_else(|| LocalError::UnknownNode {
                node: name.to_owned(),
                known: self
                    .nodes
                    .iter()
                    .map(|node| node.name.as_str())
                    .collect::<Vec<_>>()
                    .join(", "),
            })
    }

    pub(crate) fn servers(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.role == Role::Server)
    }
}

impl Node {
    /// The command line of the node's process.
    pub(crate) fn arguments(&self, state: &State, place: &Place) -> Vec<String> {
        let data = place.data(&self.name).display().to_string();
        let cgroup = place.node_cgroup(&self.name).path().to_owned();
        let address = self.address.to_string();
        let verb = match self.role {
            Role::Server => "server",
            Role::Agent => "agent",
        };
        let mut words: Vec<String> = [
            verb,
            "--name",
            &self.name,
            "--data-dir",
            &data,
            "--address",
            &address,
        ]
        .map(str::to_owned)
        .into();
        // In every node's own mount namespace this is a file system of its own.
        let more = [
            "--run-dir",
            "/run/flotilla",
            "--cgroup-parent",
            &cgroup,
            "--bridge",
            "flt0",
            "--eviction-hard",
            EVICTION_HARD,
        ];
        words.extend(more.map(str::to_owned));
        if self.role == Role::Server {
            words.extend(["--tls-san", "localhost"].map(str::to_owned));
            if let Some(seconds) = state.toleration_seconds {
                words.extend(["--toleration-seconds".to_owned(), seconds.to_string()]);
            }
            if let Some(pool) = &state.load_balancer_pool {
                words.extend(["--load-balancer-pool".to_owned(), pool.clone()]);
            }
        }
        let mut servers = state.servers();
        let Some(first) = servers.next() else { return words };
        let joined = if first.name == self.name {
            // The founder would found another cluster.
            servers.next().filter(|_| self.lost_its_disk(place))
        } else {
            Some(first)
        };
        let Some(joined) = joined else { return words };
        let file = match self.role {
            Role::Server => "join-token",
            Role::Agent => "agent-join-token",
        };
        let token = place.data(&first.name).join(file).display().to_string();
        words.extend(["--token-file".to_owned(), token]);
        match self.role {
            Role::Server => words.extend(["--join".to_owned(), endpoint(joined)]),
            Role::Agent => {
                words.extend(
                    state
                        .servers()
                        .flat_map(|server| ["--server".to_owned(), endpoint(server)]),
                );
            }
        }
        words
    }

    /// The cluster was ready once, but this server's data folder is empty.
    pub(crate) fn lost_its_disk(&self, place: &Place) -> bool {
        self.role == Role::Server
            && place.kubeconfig().exists()
            && !place.data(&self.name).join("pki/member.json").exists()
    }
}

fn endpoint(server: &Node) -> String {
    format!("{}:{API_PORT}", server.address)
}

/// Where servers listen.
pub(crate) const API_PORT: u16 = 6443;

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, role: Role, end: u8) -> Node {
        Node {
            name: name.into(),
            role,
            address: Ipv4Addr::new(10, 89, 0, end),
        }
    }

    #[test]
    fn a_first_server_without_its_disk_joins_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new("c", Some(dir.path())).unwrap();
        let first = node("server-1", Role::Server, 11);
        let state = State {
            executable: "/flotilla".into(),
            port: 1,
            toleration_seconds: None,
            load_balancer_pool: None,
            nodes: vec![first.clone(), node("server-2", Role::Server, 12)],
            partition: vec![],
            one_way: false,
        };
        let joins = || {
            let words = first.arguments(&state, &place);
            words.join(" ").ends_with("--join 10.89.0.12:6443")
        };
        let pki = place.data("server-1").join("pki");
        fs::create_dir_all(&pki).unwrap();
        assert!(!joins(), "it founds the cluster");
        fs::write(place.kubeconfig(), "{}").unwrap();
        assert!(joins());
        fs::write(pki.join("member.json"), "{}").unwrap();
        assert!(!joins(), "it is a member");
    }

    #[test]
    fn nodes_are_told_who_they_are_and_whom_to_join() {
        let place = Place::new("c", Some(std::path::Path::new("/d"))).unwrap();
        let state = State {
            executable: "/flotilla".into(),
            port: 1,
            toleration_seconds: Some(1),
            load_balancer_pool: None,
            nodes: vec![
                node("server-1", Role::Server, 11),
                node("server-2", Role::Server, 12),
                node("agent-1", Role::Agent, 13),
            ],
            partition: vec![],
            one_way: false,
        };
        let line = |at: usize| state.nodes[at].arguments(&state, &place).join(" ");
        let common = |name: &str, end: u8| {
            format!(
                "--name {name} --data-dir /d/c/{name} --address 10.89.0.{end} --run-dir /run/flotilla --cgroup-parent /flotilla-local/c/{name} --bridge flt0 --eviction-hard {EVICTION_HARD}"
            )
        };
        assert_eq!(
            line(0),
            format!(
                "server {} --tls-san localhost --toleration-seconds 1",
                common("server-1", 11)
            )
        );
        assert_eq!(
            line(1),
            format!(
                "server {} --tls-san localhost --toleration-seconds 1 --token-file /d/c/server-1/join-token --join 10.89.0.11:6443",
                common("server-2", 12)
            )
        );
        assert_eq!(
            line(2),
            format!(
                "agent {} --token-file /d/c/server-1/agent-join-token --server 10.89.0.11:6443 --server 10.89.0.12:6443",
                common("agent-1", 13)
            )
        );
    }
}
