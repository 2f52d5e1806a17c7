//! What a cluster is doing.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::Serialize;

use crate::node::Process;
use crate::place::need_root;
use crate::state::{Role, State};
use crate::{LocalError, Place};

/// A cluster and its nodes.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The cluster's name.
    pub name: String,
    /// How the API is reached.
    pub kubeconfig: PathBuf,
    /// The API's address on this machine.
    pub server: String,
    /// Groups of nodes that do not hear each other; empty when all do.
    pub partition: Vec<Vec<String>>,
    /// Each group is heard by those before it, and does not hear them.
    pub one_way: bool,
    /// All nodes, servers first.
    pub nodes: Vec<NodeStatus>,
}

/// One node.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// What it does.
    pub role: Role,
    /// Its address among the nodes.
    pub address: Ipv4Addr,
    /// Its process, if it runs.
    pub pid: Option<i32>,
    /// Whether it runs.
    pub state: RunState,
    /// What it wrote to its standard output and error.
    pub log: PathBuf,
}

/// Whether a node runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// It runs.
    Running,
    /// It has no process.
    Dead,
    /// Its processes are frozen.
    Paused,
}

/// Looks at a cluster; changes nothing.
pub fn status(place: &Place) -> Result<Status, LocalError> {
    need_root()?;
    let state = State::read(place)?;
    let look = |node: &crate::state::Node| {
        let process = Process::read(&place.pid_file(&node.name));
        let run_state = match process {
            None => RunState::Dead,
            Some(_) if place.node_cgroup(&node.name).is_frozen()? => RunState::Paused,
            Some(_) => RunState::Running,
        };
        Ok(NodeStatus {
            name: node.name.clone(),
            role: node.role,
            address: node.address,
            pid: process.map(|process| process.pid),
            state: run_state,
            log: place.log(&node.name),
        })
    };
    Ok(Status {
        name: place.name().to_owned(),
        kubeconfig: place.kubeconfig(),
        server: format!("https://127.0.0.1:{}", state.port),
        nodes: state.nodes.iter().map(look).collect::<Result<_, LocalError>>()?,
        partition: state.partition,
        one_way: state.one_way,
    })
}
