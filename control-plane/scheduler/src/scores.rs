//! Which of the nodes that fit is best.
//!
//! Pure. Each score is brought to 0–100 over the nodes that fit and weighted as Kubernetes weighs it.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::Pod;

use crate::cluster::{Cluster, NodeEntry, NodeIndex, PerNode};
use crate::filters;
use crate::place::Candidate;

const MAX: i64 = 100;
const TAINTS_WEIGHT: i64 = 3;
const AFFINITY_WEIGHT: i64 = 2;
const SPREAD_WEIGHT: i64 = 2;
const NEIGHBOURS_WEIGHT: i64 = 2;
const ZONE: &str = "topology.kubernetes.io/zone";

/// One score for each of `fitting`.
#[must_use]
pub fn rate(cluster: &Cluster, candidate: &Candidate<'_>, fitting: &[NodeIndex]) -> Vec<i64> {
    let entries: Vec<(NodeIndex, &NodeEntry)> = fitting
        .iter()
        .map(|index| (*index, &cluster.nodes[*index]))
        .collect();
    let mut totals: Vec<i64> = entries
        .iter()
        .map(|(_, entry)| resources(candidate, entry))
        .collect();
    let mut add = |weight: i64, scores: Vec<i64>| {
        for (total, score) in totals.iter_mut().zip(scores) {
            *total += weight * score;
        }
    };
    let of = |score: &dyn Fn(NodeIndex, &NodeEntry) -> i64| -> Vec<i64> {
        entries
            .iter()
            .map(|(index, entry)| score(*index, entry))
            .collect()
    };
    add(
        TAINTS_WEIGHT,
        fewest_best(of(&|_, entry| avoided(candidate.pod, entry))),
    );
    add(
        AFFINITY_WEIGHT,
        most_best(of(&|_, entry| preferred(candidate.pod, entry))),
    );
    add(
        NEIGHBOURS_WEIGHT,
        most_best(of(&|_, entry| candidate.neighbours.liking(entry))),
    );
    let crowding = match candidate.spread.is_stated() {
        true => of(&|_, entry| candidate.spread.crowding(entry)),
        false => of(&|index, entry| candidate.siblings.crowding(index, entry)),
    };
    add(SPREAD_WEIGHT, fewest_best(crowding));
    totals
}

/// Brings scores of which more is better to 0–100.
fn most_best(scores: Vec<i64>) -> Vec<i64> {
    let (low, high) = range(&scores);
    if low == high {
        return vec![0; scores.len()];
    }
    scores
        .into_iter()
        .map(|score| MAX * (score - low) / (high - low))
        .collect()
}

/// Brings scores of which less is better to 0–100.
fn fewest_best(scores: Vec<i64>) -> Vec<i64> {
    most_best(scores.into_iter().map(|score| -score).collect())
}

fn range(scores: &[i64]) -> (i64, i64) {
    let low = scores.iter().copied().min().unwrap_or(0);
    (low, scores.iter().copied().max().unwrap_or(0))
}

/// Emptier nodes, and nodes whose processor and memory are used alike.
fn resources(candidate: &Candidate<'_>, entry: &NodeEntry) -> i64 {
    let usage = candidate.demand.usage;
    let cpu = share(
        entry.usage.cpu_milli + usage.cpu_milli,
        entry.allocatable.cpu_milli,
    );
    let memory = share(entry.usage.memory + usage.memory, entry.allocatable.memory);
    let least = ((MAX - cpu) + (MAX - memory)) / 2;
    let balance = MAX - (cpu - memory).abs() / 2;
    least + balance
}

fn share(used: i64, all: i64) -> i64 {
    match all {
        0 => MAX,
        _ => (used.saturating_mul(MAX) / all).clamp(0, MAX),
    }
}

/// How many taints ask the pod to stay away if it can.
fn avoided(pod: &Pod, entry: &NodeEntry) -> i64 {
    i64::try_from(filters::untolerated(pod, entry, &["PreferNoSchedule"]).count()).unwrap_or(i64::MAX)
}

/// How much of the preferred node affinity the node has.
fn preferred(pod: &Pod, entry: &NodeEntry) -> i64 {
    let affinity = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.affinity.as_ref()?.node_affinity.as_ref());
    let terms = affinity.and_then(|affinity| {
        affinity
            .preferred_during_scheduling_ignored_during_execution
            .as_ref()
    });
    let Some(node) = &entry.node else { return 0 };
    let held = terms
        .into_iter()
        .flatten()
        .filter(|term| filters::matches_selector_term(&term.preference, node));
    held.map(|term| i64::from(term.weight)).sum()
}

/// The pods of the same controller, which are best spread over nodes and zones when nothing else is said.
#[derive(Debug, Default)]
pub struct Siblings<'a> {
    per_node: Option<&'a PerNode>,
    per_zone: HashMap<&'a str, u32>,
}

impl<'a> Siblings<'a> {
    /// Counts the siblings of a pod.
    #[must_use]
    pub fn new(cluster: &'a Cluster, pod: &Pod) -> Siblings<'a> {
        let owner = flotilla_api::controller_of(&pod.metadata);
        let Some(per_node) = owner.and_then(|owner| cluster.of_owner(&owner.uid)) else {
            return Siblings::default();
        };
        let mut per_zone: HashMap<&'a str, u32> = HashMap::new();
        for (index, count) in per_node {
            if let Some(zone) = cluster.nodes[*index].label(ZONE) {
                *per_zone.entry(zone).or_default() += count;
            }
        }
        Siblings {
            per_node: Some(per_node),
            per_zone,
        }
    }

    /// How crowded with siblings the node and its zone are; less is better.
    #[must_use]
    pub fn crowding(&self, index: NodeIndex, entry: &NodeEntry) -> i64 {
        let on_node = self
            .per_node
            .and_then(|per_node| per_node.get(&index))
            .copied()
            .unwrap_or(0);
        let in_zone = entry
            .label(ZONE)
            .and_then(|zone| self.per_zone.get(zone))
            .copied()
            .unwrap_or(0);
        // A node counts for more than its zone, or a large zone would hide how full its nodes are.
        i64::from(on_node) * 4 + i64::from(in_zone)
    }
}
