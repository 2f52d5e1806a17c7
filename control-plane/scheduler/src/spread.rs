//! How evenly a pod wants its kin spread: `topologySpreadConstraints`.
//!
//! Pure.

use std::collections::HashMap;

use flotilla_api::selector::LabelSelector;
use k8s_openapi::api::core::v1::{Pod, TopologySpreadConstraint};

use crate::classes;
use crate::cluster::{Cluster, NodeEntry};
use crate::filters::{self, Reason};

/// The constraints of one pod, with the counts they are judged by.
#[derive(Debug, Default)]
pub struct Spread<'a> {
    hard: Vec<Constraint<'a>>,
    soft: Vec<Constraint<'a>>,
}

#[derive(Debug)]
struct Constraint<'a> {
    topology_key: String,
    max_skew: i64,
    /// Whether the pod itself is one of those that are counted.
    counts_itself: bool,
    /// How many pods each place has.
    per_place: HashMap<&'a str, i64>,
    /// The fewest that any place has.
    fewest: i64,
}

impl<'a> Spread<'a> {
    /// Counts what the pod's constraints speak of.
    #[must_use]
    pub fn new(cluster: &'a Cluster, pod: &Pod) -> Spread<'a> {
        let mut spread = Spread::default();
        let constraints = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.topology_spread_constraints.as_deref());
        for stated in constraints.unwrap_or_default() {
            let constraint = Constraint::new(cluster, pod, stated);
            match stated.when_unsatisfiable.as_str() {
                "ScheduleAnyway" => spread.soft.push(constraint),
                _ => spread.hard.push(constraint),
            }
        }
        spread
    }

    /// Whether the pod asks for any spread of its own.
    #[must_use]
    pub fn is_stated(&self) -> bool {
        !(self.hard.is_empty() && self.soft.is_empty())
    }

    /// Whether the pod may go to this node without making the spread too uneven.
    ///
    /// # Errors
    ///
    /// The reason why not.
    pub fn check(&self, entry: &NodeEntry) -> Result<(), Reason> {
        for constraint in &self.hard {
            let place = entry.label(&constraint.topology_key).ok_or(Reason::SpreadLabel)?;
            let count = constraint.per_place.get(place).copied().unwrap_or(0);
            if count + i64::from(constraint.counts_itself) - constraint.fewest > constraint.max_skew {
                return Err(Reason::Spread);
            }
        }
        Ok(())
    }

    /// How crowded the node's places are by the constraints that are wishes; less is better.
    #[must_use]
    pub fn crowding(&self, entry: &NodeEntry) -> i64 {
        let crowding = self.soft.iter().map(|constraint| {
            let place = entry.label(&constraint.topology_key);
            place.map_or(i64::from(u16::MAX), |place| {
                constraint.per_place.get(place).copied().unwrap_or(0)
            })
        });
        crowding.sum()
    }
}

impl<'a> Constraint<'a> {
    fn new(cluster: &'a Cluster, pod: &Pod, stated: &TopologySpreadConstraint) -> Constraint<'a> {
        let selector = classes::selector(stated.label_selector.as_ref());
        let narrowing = narrowing(pod, stated);
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let counted = |labels: &std::collections::BTreeMap<String, String>, selector: &LabelSelector| {
            selector.matches(labels)
                && narrowing
                    .iter()
                    .all(|(key, value)| labels.get(*key) == Some(*value))
        };
        let mut per_place: HashMap<&'a str, i64> = HashMap::new();
        for entry in cluster
            .nodes
            .iter()
            .filter(|entry| is_eligible(pod, stated, entry))
        {
            if let Some(place) = entry.label(&stated.topology_key) {
                per_place.entry(place).or_default();
            }
        }
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        for class in cluster
            .classes
            .of_namespace(namespace)
            .filter(|class| counted(&class.labels, &selector))
        {
            for (index, count) in &class.per_node {
                let place = cluster.nodes[*index].label(&stated.topology_key);
                if let Some(total) = place.and_then(|place| per_place.get_mut(place)) {
                    *total += i64::from(*count);
                }
            }
        }
        let too_few = stated
            .min_domains
            .is_some_and(|min| per_place.len() < usize::try_from(min).unwrap_or(0));
        let fewest = if too_few {
            0
        } else {
            per_place.values().copied().min().unwrap_or(0)
        };
        Constraint {
            topology_key: stated.topology_key.clone(),
            max_skew: i64::from(stated.max_skew),
            counts_itself: counted(&labels, &selector),
            per_place,
            fewest,
        }
    }
}

/// The pod's own labels that the counted pods must share.
fn narrowing<'a>(pod: &'a Pod, stated: &'a TopologySpreadConstraint) -> Vec<(&'a String, &'a String)> {
    let keys = stated.match_label_keys.iter().flatten();
    keys.filter_map(|key| Some((key, pod.metadata.labels.as_ref()?.get(key)?)))
        .collect()
}

/// Whether the node is one of those over which the pod is spread.
fn is_eligible(pod: &Pod, stated: &TopologySpreadConstraint, entry: &NodeEntry) -> bool {
    let by_affinity = stated.node_affinity_policy.as_deref() != Some("Ignore");
    let by_taints = stated.node_taints_policy.as_deref() == Some("Honor");
    entry.node.is_some()
        && (!by_affinity || filters::matches_node(pod, entry))
        && (!by_taints
            || filters::untolerated(pod, entry, &["NoSchedule", "NoExecute"])
                .next()
                .is_none())
}
