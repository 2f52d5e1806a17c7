//! Takes nodes away and brings them back.

use crate::cluster::{create_machine, create_switch, replace_lost_disk};
use crate::node::{Process, has_namespaces, release_namespaces};
use crate::partition::filter_again;
use crate::place::need_root;
use crate::state::State;
use crate::supervisor::{ensure, start_node};
use crate::{LocalError, Place, switch};

/// How much of a node is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Everything, as by a power cut: only its disk remains.
    Machine,
    /// Only its own process; its containers go on.
    Process,
}

/// Kills a node.
pub fn kill(place: &Place, node: &str, extent: Extent) -> Result<(), LocalError> {
    need_root()?;
    let _lock = place.lock()?;
    let state = State::read(place)?;
    let node = &state.node(node)?.name;
    match extent {
        Extent::Process => {
            running(place, node)?.kill();
            Ok(())
        }
        Extent::Machine => {
            let cgroup = place.node_cgroup(node);
            cgroup.kill()?;
            switch::disconnect(place, node)?;
            release_namespaces(place, node)?;
            cgroup.remove()
        }
    }
}

/// Starts a node that was killed; after a power cut with new namespaces and its old data folder.
pub fn start(place: &Place, node: &str) -> Result<(), LocalError> {
    need_root()?;
    let _lock = place.lock()?;
    let state = State::read(place)?;
    let node = state.node(node)?;
    if running(place, &node.name).is_ok() {
        return Err(LocalError::Running {
            node: node.name.clone(),
        });
    }
    if !switch::namespace(place).exists() {
        // The real machine was started again meanwhile.
        create_switch(place)?;
        filter_again(place, &state)?;
    }
    ensure(place, &state)?;
    if !has_namespaces(place, &node.name) {
        create_machine(place, node)?;
    }
    replace_lost_disk(place, &state, node)?;
    start_node(place, &node.name)
}

/// Stops all processes of a node where they are.
pub fn pause(place: &Place, node: &str) -> Result<(), LocalError> {
    set_frozen(place, node, true)
}

/// Lets the processes of a node go on.
pub fn resume(place: &Place, node: &str) -> Result<(), LocalError> {
    set_frozen(place, node, false)
}

fn set_frozen(place: &Place, node: &str, frozen: bool) -> Result<(), LocalError> {
    need_root()?;
    let _lock = place.lock()?;
    let state = State::read(place)?;
    let node = &state.node(node)?.name;
    running(place, node)?;
    place.node_cgroup(node).set_frozen(frozen)
}

fn running(place: &Place, node: &str) -> Result<Process, LocalError> {
    Process::read(&place.pid_file(node)).ok_or_else(|| LocalError::NotRunning {
        node: node.to_owned(),
    })
}
