//! What a pod asks of the node itself: its name, its labels, that it is open.
//!
//! Pure.

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, Pod, Taint};

use super::taints;
use crate::cluster::NodeEntry;

/// Whether the node is cordoned and the pod does not bear that.
pub(super) fn is_closed(pod: &Pod, entry: &NodeEntry) -> bool {
    let closed = entry
        .node
        .as_ref()
        .and_then(|node| node.spec.as_ref()?.unschedulable)
        .unwrap_or(false);
    closed && {
        let taint = Taint {
            key: "node.kubernetes.io/unschedulable".to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Taint::default()
        };
        !taints::tolerates(pod, &taint)
    }
}

/// Whether the pod leaves the choice open or names this node.
pub(super) fn is_named(pod: &Pod, entry: &NodeEntry) -> bool {
    let name = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.node_name.as_deref())
        .unwrap_or_default();
    name.is_empty() || name == entry.name
}

/// Whether the node is what the pod's node selector and required node affinity ask for.
pub(crate) fn matches(pod: &Pod, entry: &NodeEntry) -> bool {
    let (Some(spec), Some(node)) = (&pod.spec, &entry.node) else {
        return true;
    };
    let selected = spec
        .node_selector
        .iter()
        .flatten()
        .all(|(key, value)| entry.label(key) == Some(value));
    let affinity = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| {
        affinity
            .required_during_scheduling_ignored_during_execution
            .as_ref()
    });
    selected
        && required.is_none_or(|any| {
            any.node_selector_terms
                .iter()
                .any(|term| matches_selector_term(term, node))
        })
}

/// Whether all requirements of a term hold; a term without any selects nothing.
#[must_use]
pub fn matches_selector_term(term: &NodeSelectorTerm, node: &Node) -> bool {
    let labels = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let label = |key: &str| node.metadata.labels.as_ref()?.get(key).map(String::as_str);
    let field = |key: &str| {
        (key == "metadata.name")
            .then_some(node.metadata.name.as_deref())
            .flatten()
    };
    !(labels.is_empty() && fields.is_empty())
        && labels
            .iter()
            .all(|requirement| holds(requirement, label(&requirement.key)))
        && fields
            .iter()
            .all(|requirement| holds(requirement, field(&requirement.key)))
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|value| values.iter().any(|entry| entry == value));
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(value, values).is_some_and(|(value, bound)| value > bound),
        "Lt" => compare(value, values).is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

fn compare(value: Option<&str>, bounds: &[String]) -> Option<(i64, i64)> {
    let [bound] = bounds else { return None };
    Some((value?.parse().ok()?, bound.parse().ok()?))
}
