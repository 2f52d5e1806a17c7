//! Pods that look alike to their neighbours, counted per node.
//!
//! Pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use flotilla_api::selector::LabelSelector;
use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm};

use crate::cluster::{NodeIndex, PerNode, decrement};

/// Names a class.
pub type ClassId = usize;

/// Pods of one namespace with the same labels and the same required anti-affinity.
#[derive(Debug)]
pub struct Class {
    /// Where the pods live.
    pub namespace: String,
    /// Their labels.
    pub labels: BTreeMap<String, String>,
    /// Whom they refuse as neighbours.
    pub refuses: Vec<Term>,
    /// How many of them there are on each node.
    pub per_node: PerNode,
    identity: Identity,
}

type Identity = (String, BTreeMap<String, String>, String);

/// All classes.
#[derive(Debug, Default)]
pub struct Classes {
    classes: Vec<Option<Class>>,
    by_identity: HashMap<Identity, ClassId>,
    by_namespace: HashMap<String, HashSet<ClassId>>,
    refusing: HashSet<ClassId>,
    free: Vec<ClassId>,
}

impl Classes {
    /// Counts a pod.
    pub fn add(&mut self, pod: &Pod, node: NodeIndex) -> ClassId {
        let terms = anti_affinity(pod);
        let identity = (
            pod.metadata.namespace.clone().unwrap_or_default(),
            pod.metadata.labels.clone().unwrap_or_default(),
            format!("{terms:?}"),
        );
        let id = match self.by_identity.get(&identity) {
            Some(id) => *id,
            None => self.insert(identity, pod, terms),
        };
        if let Some(class) = &mut self.classes[id] {
            *class.per_node.entry(node).or_default() += 1;
        }
        id
    }

    /// Forgets a pod.
    pub fn remove(&mut self, id: ClassId, node: NodeIndex) {
        let Some(class) = &mut self.classes[id] else {
            return;
        };
        decrement(&mut class.per_node, node);
        if class.per_node.is_empty() {
            self.drop_class(id);
        }
    }

    /// The classes of a namespace.
    pub fn of_namespace<'a>(&'a self, namespace: &str) -> impl Iterator<Item = &'a Class> + use<'a> {
        self.by_namespace
            .get(namespace)
            .into_iter()
            .flatten()
            .filter_map(|id| self.classes[*id].as_ref())
    }

    /// The classes that refuse neighbours.
    pub fn refusing(&self) -> impl Iterator<Item = &Class> {
        self.refusing.iter().filter_map(|id| self.classes[*id].as_ref())
    }

    /// The classes that a term speaks of.
    pub fn matching<'a, 'b>(&'a self, term: &'b Term) -> impl Iterator<Item = &'a Class> + use<'a, 'b> {
        let namespaces = term
            .namespaces
            .iter()
            .flat_map(|namespace| self.of_namespace(namespace));
        namespaces.filter(|class| term.selector.matches(&class.labels))
    }

    fn insert(&mut self, identity: Identity, pod: &Pod, terms: &[PodAffinityTerm]) -> ClassId {
        let class = Class {
            namespace: identity.0.clone(),
            labels: identity.1.clone(),
            refuses: terms.iter().map(|term| Term::new(term, pod)).collect(),
            per_node: PerNode::new(),
            identity: identity.clone(),
        };
        let id = self.free.pop().unwrap_or(self.classes.len());
        self.by_namespace
            .entry(class.namespace.clone())
            .or_default()
            .insert(id);
        if !class.refuses.is_empty() {
            self.refusing.insert(id);
        }
        if id == self.classes.len() {
            self.classes.push(Some(class));
        } else {
            self.classes[id] = Some(class);
        }
        self.by_identity.insert(identity, id);
        id
    }

    fn drop_class(&mut self, id: ClassId) {
        let Some(class) = self.classes[id].take() else {
            return;
        };
        self.by_identity.remove(&class.identity);
        self.refusing.remove(&id);
        if let Some(ids) = self.by_namespace.get_mut(&class.namespace) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_namespace.remove(&class.namespace);
            }
        }
        self.free.push(id);
    }
}

fn anti_affinity(pod: &Pod) -> &[PodAffinityTerm] {
    let affinity = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.affinity.as_ref()?.pod_anti_affinity.as_ref());
    let terms = affinity.and_then(|anti| {
        anti.required_during_scheduling_ignored_during_execution
            .as_deref()
    });
    terms.unwrap_or_default()
}

/// Which pods a (anti-)affinity speaks of, and how near is near.
#[derive(Debug, Clone)]
pub struct Term {
    /// Which pods.
    pub selector: LabelSelector,
    /// In which namespaces.
    pub namespaces: Vec<String>,
    /// Nodes with the same value of this label are one place.
    pub topology_key: String,
}

impl Term {
    /// The term as the pod means it.
    #[must_use]
    pub fn new(term: &PodAffinityTerm, pod: &Pod) -> Term {
        let own = || vec![pod.metadata.namespace.clone().unwrap_or_default()];
        Term {
            selector: selector(term.label_selector.as_ref()),
            namespaces: term
                .namespaces
                .clone()
                .filter(|names| !names.is_empty())
                .unwrap_or_else(own),
            topology_key: term.topology_key.clone(),
        }
    }

    /// Whether the term speaks of this pod.
    #[must_use]
    pub fn matches(&self, pod: &Pod) -> bool {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        self.namespaces.iter().any(|name| name == namespace)
            && self.selector.matches_optional(pod.metadata.labels.as_ref())
    }
}

/// A selector of neighbours: none selects nothing, an empty one everything.
pub(crate) fn selector(
    selector: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector>,
) -> LabelSelector {
    LabelSelector::from_field(selector).unwrap_or_else(|_| LabelSelector::nothing())
}
