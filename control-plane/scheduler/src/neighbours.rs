//! Near which pods a pod wants to be, and far from which: pod affinity and anti-affinity, its own and that of the
//! pods that are there already.
//!
//! Pure.

use std::collections::{HashMap, HashSet};

use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm, WeightedPodAffinityTerm};

use crate::classes::Term;
use crate::cluster::{Cluster, NodeEntry};
use crate::filters::Reason;

/// Values of labels by the label's key: all nodes that have such a value are places of one kind.
type Places<'a> = HashMap<String, HashSet<&'a str>>;

/// What the pods in the cluster mean to one pod.
#[derive(Debug, Default)]
pub struct Neighbours<'a> {
    /// For each term of affinity, the places where such a pod is.
    wanted: Vec<(String, HashSet<&'a str>)>,
    /// Whether the pod may be the first of its kind.
    may_be_first: bool,
    unwanted: Places<'a>,
    refusing: Places<'a>,
    wishes: HashMap<String, HashMap<&'a str, i64>>,
}

impl<'a> Neighbours<'a> {
    /// Looks up what the pod's terms, and those of others, speak of.
    #[must_use]
    pub fn new(cluster: &'a Cluster, pod: &Pod) -> Neighbours<'a> {
        let mut neighbours = Neighbours::default();
        neighbours.note_refusing(cluster, pod);
        let Some(affinity) = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()) else {
            return neighbours;
        };
        if let Some(near) = &affinity.pod_affinity {
            let required = near
                .required_during_scheduling_ignored_during_execution
                .as_deref();
            neighbours.note_wanted(cluster, pod, required.unwrap_or_default());
            let preferred = near
                .preferred_during_scheduling_ignored_during_execution
                .as_deref();
            neighbours.note_wishes(cluster, pod, preferred.unwrap_or_default(), 1);
        }
        if let Some(far) = &affinity.pod_anti_affinity {
            let required = far.required_during_scheduling_ignored_during_execution.as_deref();
            neighbours.note_unwanted(cluster, pod, required.unwrap_or_default());
            let preferred = far
                .preferred_during_scheduling_ignored_during_execution
                .as_deref();
            neighbours.note_wishes(cluster, pod, preferred.unwrap_or_default(), -1);
        }
        neighbours
    }

    fn note_refusing(&mut self, cluster: &'a Cluster, pod: &Pod) {
        for class in cluster.classes.refusing() {
            for term in class.refuses.iter().filter(|term| term.matches(pod)) {
                let places = class
                    .per_node
                    .keys()
                    .filter_map(|index| cluster.nodes[*index].label(&term.topology_key));
                self.refusing
                    .entry(term.topology_key.clone())
                    .or_default()
                    .extend(places);
            }
        }
    }

    fn note_wanted(&mut self, cluster: &'a Cluster, pod: &Pod, terms: &[PodAffinityTerm]) {
        let terms: Vec<Term> = terms.iter().map(|term| Term::new(term, pod)).collect();
        for term in &terms {
            let places = places(cluster, term)
                .into_iter()
                .map(|(place, _)| place)
                .collect();
            self.wanted.push((term.topology_key.clone(), places));
        }
        let nobody = self.wanted.iter().all(|(_, places)| places.is_empty());
        self.may_be_first = nobody && terms.iter().all(|term| term.matches(pod));
    }

    fn note_unwanted(&mut self, cluster: &'a Cluster, pod: &Pod, terms: &[PodAffinityTerm]) {
        for term in terms.iter().map(|term| Term::new(term, pod)) {
            let places = places(cluster, &term).into_iter().map(|(place, _)| place);
            self.unwanted
                .entry(term.topology_key.clone())
                .or_default()
                .extend(places);
        }
    }

    fn note_wishes(&mut self, cluster: &'a Cluster, pod: &Pod, terms: &[WeightedPodAffinityTerm], sign: i64) {
        for weighted in terms {
            let term = Term::new(&weighted.pod_affinity_term, pod);
            let wishes = self.wishes.entry(term.topology_key.clone()).or_default();
            for (place, count) in places(cluster, &term) {
                *wishes.entry(place).or_default() += sign * i64::from(weighted.weight) * i64::from(count);
            }
        }
    }

    /// Whether the pod may go to this node.
    ///
    /// # Errors
    ///
    /// The reason why not.
    pub fn check(&self, entry: &NodeEntry) -> Result<(), Reason> {
        for (key, places) in &self.wanted {
            let value = entry.label(key).ok_or(Reason::PodAffinity)?;
            if !places.contains(value) && !self.may_be_first {
                return Err(Reason::PodAffinity);
            }
        }
        if is_in(entry, &self.unwanted) {
            return Err(Reason::PodAntiAffinity);
        }
        if is_in(entry, &self.refusing) {
            return Err(Reason::ExistingAntiAffinity);
        }
        Ok(())
    }

    /// How much the pod would like to be on this node.
    #[must_use]
    pub fn liking(&self, entry: &NodeEntry) -> i64 {
        self.wishes
            .iter()
            .filter_map(|(key, wishes)| wishes.get(entry.label(key)?))
            .sum()
    }
}

fn is_in(entry: &NodeEntry, places: &Places<'_>) -> bool {
    places
        .iter()
        .any(|(key, values)| entry.label(key).is_some_and(|value| values.contains(value)))
}

/// The places where pods are that the term speaks of, and how many.
fn places<'a>(cluster: &'a Cluster, term: &Term) -> Vec<(&'a str, u32)> {
    let counts = cluster
        .classes
        .matching(term)
        .flat_map(|class| class.per_node.iter());
    let places =
        counts.filter_map(|(index, count)| Some((cluster.nodes[*index].label(&term.topology_key)?, *count)));
    places.collect()
}
