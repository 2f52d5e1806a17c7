//! What the scheduler knows about nodes and the pods on them.
//!
//! Pure. Kept up to date piece by piece: a change costs what changed, never the size of the cluster. Pods that look
//! alike (same namespace, labels and anti-affinity) are counted together in a *class*, so that questions about
//! neighbours walk over classes and the nodes they are on instead of over pods.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};

use crate::classes::{ClassId, Classes};
use crate::ports::{self, HostPort};
use crate::storage::{self, Storage};
use flotilla_api::amounts::{self, Amounts, Demand, Usage};

/// The position of a node in [`Cluster::nodes`].
pub type NodeIndex = usize;

/// How many pods there are on each node.
pub type PerNode = HashMap<NodeIndex, u32>;

/// One node and what its pods have taken of it.
#[derive(Debug, Default)]
pub struct NodeEntry {
    /// The node's name.
    pub name: String,
    /// The node itself; nothing while only its pods are known.
    pub node: Option<Arc<Node>>,
    /// What pods may use of it.
    pub allocatable: Amounts,
    /// How many pods it may have.
    pub pods_max: i64,
    /// What its pods asked for.
    pub requested: Amounts,
    /// What its pods are taken to use.
    pub usage: Usage,
    /// How many pods it has.
    pub pods: u32,
    /// Ports of the node that its pods have taken.
    pub ports: Vec<HostPort>,
}

impl NodeEntry {
    /// One label of the node.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels()?.get(key).map(String::as_str)
    }

    /// All labels of the node.
    #[must_use]
    pub fn labels(&self) -> Option<&BTreeMap<String, String>> {
        self.node.as_ref()?.metadata.labels.as_ref()
    }
}

#[derive(Debug)]
struct Placed {
    node: NodeIndex,
    demand: Demand,
    ports: Vec<HostPort>,
    class: ClassId,
    owner: Option<String>,
    claims: Vec<(String, String)>,
}

/// All nodes and what is on them.
#[derive(Debug, Default)]
pub struct Cluster {
    /// All nodes, with holes where one was removed.
    pub nodes: Vec<NodeEntry>,
    by_name: HashMap<String, NodeIndex>,
    free: Vec<NodeIndex>,
    present: usize,
    placed: HashMap<String, Placed>,
    /// Pods that look alike, counted per node.
    pub classes: Classes,
    owners: HashMap<String, PerNode>,
    /// Claims and volumes.
    pub storage: Storage,
}

impl Cluster {
    /// How many nodes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.present
    }

    /// Whether there is no node at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.present == 0
    }

    /// The node with this name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&NodeEntry> {
        self.by_name.get(name).map(|index| &self.nodes[*index])
    }

    /// How many pods the controller with this uid has on each node.
    #[must_use]
    pub fn of_owner(&self, uid: &str) -> Option<&PerNode> {
        self.owners.get(uid)
    }

    /// Whether a pod is known to be on a node, bound or about to be.
    #[must_use]
    pub fn has_pod(&self, uid: &str) -> bool {
        self.placed.contains_key(uid)
    }

    /// Adds a node or takes in what changed about it. Says whether that could matter to a pod that waits.
    pub fn set_node(&mut self, node: Arc<Node>) -> bool {
        let name = node.metadata.name.clone().unwrap_or_default();
        let index = self.index_of(&name);
        let entry = &mut self.nodes[index];
        let matters = entry.node.as_deref().is_none_or(|old| differs(old, &node));
        self.present += usize::from(entry.node.is_none());
        let allocatable = node
            .status
            .as_ref()
            .and_then(|status| status.allocatable.as_ref());
        entry.allocatable = Amounts::read(allocatable);
        let pods_max = allocatable.and_then(|allocatable| allocatable.get("pods"));
        entry.pods_max = pods_max.map_or(0, amounts::whole);
        entry.node = Some(node);
        matters
    }

    /// Forgets a node; what is on it stays known until it is removed as well.
    pub fn remove_node(&mut self, name: &str) {
        let Some(&index) = self.by_name.get(name) else {
            return;
        };
        if self.nodes[index].node.take().is_some() {
            self.present -= 1;
        }
        self.drop_if_unused(index);
    }

    /// Counts a pod on its node. Counting it again replaces what was counted.
    pub fn add_pod(&mut self, pod: &Pod, node: &str) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        self.remove_pod(&uid);
        let index = self.index_of(node);
        let placed = Placed {
            node: index,
            demand: Demand::of(pod),
            ports: ports::of(pod),
            class: self.classes.add(pod, index),
            owner: flotilla_api::controller_of(&pod.metadata).map(|owner| owner.uid.clone()),
            claims: storage::claims_used(pod),
        };
        self.storage.add_user(&placed.claims);
        let entry = &mut self.nodes[index];
        entry.requested.add(&placed.demand.requests);
        entry.usage.cpu_milli += placed.demand.usage.cpu_milli;
        entry.usage.memory += placed.demand.usage.memory;
        entry.pods += 1;
        entry.ports.extend(placed.ports.iter().cloned());
        if let Some(owner) = &placed.owner {
            *self
                .owners
                .entry(owner.clone())
                .or_default()
                .entry(index)
                .or_default() += 1;
        }
        self.placed.insert(uid, placed);
    }

    /// Forgets a pod that is no longer on its node. Says whether it was known.
    pub fn remove_pod(&mut self, uid: &str) -> bool {
        let Some(placed) = self.placed.remove(uid) else {
            return false;
        };
        let entry = &mut self.nodes[placed.node];
        entry.requested.subtract(&placed.demand.requests);
        entry.usage.cpu_milli -= placed.demand.usage.cpu_milli;
        entry.usage.memory -= placed.demand.usage.memory;
        entry.pods -= 1;
        for port in &placed.ports {
            if let Some(position) = entry.ports.iter().position(|taken| taken == port) {
                entry.ports.swap_remove(position);
            }
        }
        self.classes.remove(placed.class, placed.node);
        self.storage.remove_user(&placed.claims);
        if let Some(owner) = &placed.owner {
            self.forget_owned(owner, placed.node);
        }
        self.drop_if_unused(placed.node);
        true
    }

    fn forget_owned(&mut self, owner: &str, node: NodeIndex) {
        let Some(counts) = self.owners.get_mut(owner) else {
            return;
        };
        decrement(counts, node);
        if counts.is_empty() {
            self.owners.remove(owner);
        }
    }

    fn index_of(&mut self, name: &str) -> NodeIndex {
        if let Some(index) = self.by_name.get(name) {
            return *index;
        }
        let entry = NodeEntry {
            name: name.to_owned(),
            ..NodeEntry::default()
        };
        let index = match self.free.pop() {
            Some(index) => {
                self.nodes[index] = entry;
                index
            }
            None => {
                self.nodes.push(entry);
                self.nodes.len() - 1
            }
        };
        self.by_name.insert(name.to_owned(), index);
        index
    }

    fn drop_if_unused(&mut self, index: NodeIndex) {
        let entry = &self.nodes[index];
        if entry.node.is_none() && entry.pods == 0 && self.by_name.remove(&entry.name).is_some() {
            self.free.push(index);
        }
    }
}

/// Takes one from the count of a node, and the node out when none is left.
pub(crate) fn decrement(counts: &mut PerNode, node: NodeIndex) {
    if let Some(count) = counts.get_mut(&node) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&node);
        }
    }
}

/// Whether anything that a filter looks at is different; heartbeats are not.
fn differs(old: &Node, new: &Node) -> bool {
    let allocatable = |node: &Node| node.status.as_ref().and_then(|status| status.allocatable.clone());
    let taints = |node: &Node| {
        node.spec
            .as_ref()
            .and_then(|spec| spec.taints.clone())
            .filter(|list| !list.is_empty())
    };
    let closed = |node: &Node| {
        node.spec
            .as_ref()
            .and_then(|spec| spec.unschedulable)
            .unwrap_or(false)
    };
    old.metadata.labels != new.metadata.labels
        || closed(old) != closed(new)
        || taints(old) != taints(new)
        || allocatable(old) != allocatable(new)
}
