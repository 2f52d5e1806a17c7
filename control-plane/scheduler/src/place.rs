//! Chooses a node for one pending pod.
//!
//! Pure: reads a [`Cluster`], returns a [`Placement`]; binding is `binding.rs`. Never places a pod on a node that
//! any filter refused. Of many nodes only some are looked at, each time others, as Kubernetes does it.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;

use crate::cluster::{Cluster, NodeIndex};
use crate::filters::{self, Reason};
use crate::neighbours::Neighbours;
use crate::ports::{self, HostPort};
use crate::scores;
use crate::spread::Spread;
use crate::storage::{Needs, Storage};
use flotilla_api::amounts::Demand;

/// Every node is looked at up to this many.
const NODES_ALWAYS: usize = 100;

/// A pod that waits for a node, with what is asked of it again and again worked out once.
pub struct Candidate<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// What it needs.
    pub demand: Demand,
    /// Ports of the node that it takes.
    pub ports: Vec<HostPort>,
    /// How it wants to be spread.
    pub spread: Spread<'a>,
    /// Near whom it wants to be, and far from whom.
    pub neighbours: Neighbours<'a>,
    /// Where the pods of the same controller are.
    pub siblings: scores::Siblings<'a>,
    /// What its claims ask of a node.
    pub needs: Needs<'a>,
    /// Claims and volumes.
    pub storage: &'a Storage,
}

impl<'a> Candidate<'a> {
    /// Works out what the cluster means to this pod.
    #[must_use]
    pub fn new(cluster: &'a Cluster, pod: &'a Pod) -> Candidate<'a> {
        Candidate {
            pod,
            demand: Demand::of(pod),
            ports: ports::of(pod),
            spread: Spread::new(cluster, pod),
            neighbours: Neighbours::new(cluster, pod),
            siblings: scores::Siblings::new(cluster, pod),
            needs: Needs::new(&cluster.storage, pod),
            storage: &cluster.storage,
        }
    }
}

/// Where a pod goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// To this node.
    Node(String),
    /// Nowhere; how many nodes refused it for each reason.
    Nowhere(Refusals),
}

/// Why no node would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refusals {
    /// How many nodes there are.
    pub nodes: usize,
    /// How many of them named each reason.
    pub counts: BTreeMap<Reason, usize>,
    /// What keeps the pod from every node.
    pub obstacle: Option<String>,
}

/// Picks the best node, or explains why there is none.
///
/// `start` says at which node to begin and is moved on, so that the next pod sees other nodes first.
#[must_use]
pub fn place(cluster: &Cluster, pod: &Pod, start: &mut usize) -> Placement {
    let candidate = Candidate::new(cluster, pod);
    let mut refusals = Refusals {
        nodes: cluster.len(),
        counts: BTreeMap::new(),
        obstacle: candidate.needs.obstacle().map(str::to_owned),
    };
    if refusals.obstacle.is_some() {
        return Placement::Nowhere(refusals);
    }
    let fitting = find(cluster, &candidate, start, &mut refusals);
    match best(cluster, &candidate, &fitting) {
        Some(index) => Placement::Node(cluster.nodes[index].name.clone()),
        None => Placement::Nowhere(refusals),
    }
}

fn find(
    cluster: &Cluster,
    candidate: &Candidate<'_>,
    start: &mut usize,
    refusals: &mut Refusals,
) -> Vec<NodeIndex> {
    let total = cluster.nodes.len();
    let enough = enough(cluster.len());
    let mut fitting = Vec::with_capacity(enough.min(total));
    let mut seen = 0;
    while seen < total && fitting.len() < enough {
        let index = (*start + seen) % total;
        seen += 1;
        if cluster.nodes[index].node.is_none() {
            continue;
        }
        match filters::check(candidate, &cluster.nodes[index]) {
            Ok(()) => fitting.push(index),
            Err(reasons) => {
                for reason in reasons {
                    *refusals.counts.entry(reason).or_default() += 1;
                }
            }
        }
    }
    *start = (*start + seen) % total.max(1);
    fitting
}

/// How many nodes that fit are enough to choose from: fewer percent the larger the cluster.
fn enough(nodes: usize) -> usize {
    if nodes <= NODES_ALWAYS {
        return NODES_ALWAYS;
    }
    let percent = 50_usize.saturating_sub(nodes / 125).max(5);
    (nodes * percent / 100).max(NODES_ALWAYS)
}

/// The highest score; of equal ones the emptiest node, then the first by name.
fn best(cluster: &Cluster, candidate: &Candidate<'_>, fitting: &[NodeIndex]) -> Option<NodeIndex> {
    if let [only] = fitting {
        return Some(*only);
    }
    let scores = scores::rate(cluster, candidate, fitting);
    let rated = fitting.iter().copied().zip(scores);
    let best = rated.max_by_key(|(index, score)| {
        let entry = &cluster.nodes[*index];
        (*score, Reverse(entry.pods), Reverse(entry.name.as_str()))
    });
    best.map(|(index, _)| index)
}
