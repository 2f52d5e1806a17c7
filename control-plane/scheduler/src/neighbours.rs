//! Near which pods a pod wants to be, and far from which: pod affinity and anti-affinity, its own and that of the
//! pods that are there already.
//!
//! Pure.

use std::collections::{HashMap, HashSet};

use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm, WeightedPodAffinityTerm};

use crate::classes::Term;
use crate::cluster::{Cluster, NodeEntry, NodeIndex};
use crate::filters::Reason;

/// A label and its value: all nodes that have it are one place.
type Place = (String, String);

/// What the pods in the cluster mean to one pod.
#[derive(Debug, Default)]
pub struct Neighbours {
    /// For each term of affinity, the places where such a pod is.
    wanted: Vec<(String, HashSet<String>)>,
    /// Whether the pod may be the first of its kind.
    may_be_first: bool,
    unwanted: HashSet<Place>,
    unwanted_keys: HashSet<String>,
    refusing: HashSet<Place>,
    refusing_keys: HashSet<String>,
    wishes: HashMap<Place, i64>,
    wish_keys: HashSet<String>,
}

impl Neighbours {
    /// Looks up what the pod's terms, and those of others, speak of.
    #[must_use]
    pub fn new(cluster: &Cluster, pod: &Pod) -> Neighbours {
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

    fn note_refusing(&mut self, cluster: &Cluster, pod: &Pod) {
        for class in cluster.classes.refusing() {
            for term in class.refuses.iter().filter(|term| term.matches(pod)) {
                let places = class
                    .per_node
                    .keys()
                    .filter_map(|index| place(cluster, *index, &term.topology_key));
                self.refusing.extend(places);
                self.refusing_keys.insert(term.topology_key.clone());
            }
        }
    }

    fn note_wanted(&mut self, cluster: &Cluster, pod: &Pod, terms: &[PodAffinityTerm]) {
        let terms: Vec<Term> = terms.iter().map(|term| Term::new(term, pod)).collect();
        for term in &terms {
            let places = places(cluster, term).map(|((_, value), _)| value).collect();
            self.wanted.push((term.topology_key.clone(), places));
        }
        let nobody = self.wanted.iter().all(|(_, places)| places.is_empty());
        self.may_be_first = nobody && terms.iter().all(|term| term.matches(pod));
    }

    fn note_unwanted(&mut self, cluster: &Cluster, pod: &Pod, terms: &[PodAffinityTerm]) {
        for term in terms.iter().map(|term| Term::new(term, pod)) {
            self.unwanted
                .extend(places(cluster, &term).map(|(place, _)| place));
            self.unwanted_keys.insert(term.topology_key);
        }
    }

    fn note_wishes(&mut self, cluster: &Cluster, pod: &Pod, terms: &[WeightedPodAffinityTerm], sign: i64) {
        for weighted in terms {
            let term = Term::new(&weighted.pod_affinity_term, pod);
            for (place, count) in places(cluster, &term) {
                *self.wishes.entry(place).or_default() +=
                    sign * i64::from(weighted.weight) * i64::from(count);
            }
            self.wish_keys.insert(term.topology_key);
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
        if is_in(entry, &self.unwanted_keys, &self.unwanted) {
            return Err(Reason::PodAntiAffinity);
        }
        if is_in(entry, &self.refusing_keys, &self.refusing) {
            return Err(Reason::ExistingAntiAffinity);
        }
        Ok(())
    }

    /// How much the pod would like to be on this node.
    #[must_use]
    pub fn liking(&self, entry: &NodeEntry) -> i64 {
        let places = self
            .wish_keys
            .iter()
            .filter_map(|key| Some((key.clone(), entry.label(key)?.to_owned())));
        places.filter_map(|place| self.wishes.get(&place)).sum()
    }
}

fn is_in(entry: &NodeEntry, keys: &HashSet<String>, places: &HashSet<Place>) -> bool {
    let own = keys
        .iter()
        .filter_map(|key| Some((key.clone(), entry.label(key)?.to_owned())));
    own.into_iter().any(|place| places.contains(&place))
}

/// The places where pods are that the term speaks of, and how many.
fn places<'a>(cluster: &'a Cluster, term: &'a Term) -> impl Iterator<Item = (Place, u32)> + 'a {
    let classes = cluster.classes.matching(term);
    let counts = classes.flat_map(|class| class.per_node.iter());
    counts.filter_map(move |(index, count)| Some((place(cluster, *index, &term.topology_key)?, *count)))
}

fn place(cluster: &Cluster, index: NodeIndex, key: &str) -> Option<Place> {
    Some((key.to_owned(), cluster.nodes[index].label(key)?.to_owned()))
}
