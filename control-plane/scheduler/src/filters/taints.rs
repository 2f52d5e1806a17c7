//! Taints of nodes and what pods bear.
//!
//! Pure.

use k8s_openapi::api::core::v1::{Pod, Taint, Toleration};

use crate::cluster::NodeEntry;

/// The node's taints with one of these effects that the pod does not bear.
pub fn untolerated<'a>(
    pod: &'a Pod,
    entry: &'a NodeEntry,
    effects: &'a [&str],
) -> impl Iterator<Item = &'a Taint> {
    let taints = entry
        .node
        .as_ref()
        .and_then(|node| node.spec.as_ref()?.taints.as_deref());
    let counted = taints
        .unwrap_or_default()
        .iter()
        .filter(|taint| effects.contains(&taint.effect.as_str()));
    counted.filter(|taint| !tolerates(pod, taint))
}

/// Whether the pod bears this taint.
#[must_use]
pub fn tolerates(pod: &Pod, taint: &Taint) -> bool {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref());
    tolerations
        .unwrap_or_default()
        .iter()
        .any(|toleration| covers(toleration, taint))
}

fn covers(toleration: &Toleration, taint: &Taint) -> bool {
    let unset = |field: &Option<String>| field.as_deref().unwrap_or_default().is_empty();
    let effect = unset(&toleration.effect) || toleration.effect.as_deref() == Some(&taint.effect);
    let key = unset(&toleration.key) || toleration.key.as_deref() == Some(&taint.key);
    let value = match toleration.operator.as_deref().unwrap_or_default() {
        "" | "Equal" => {
            !unset(&toleration.key)
                && toleration.value.as_deref().unwrap_or_default()
                    == taint.value.as_deref().unwrap_or_default()
        }
        "Exists" => true,
        _ => false,
    };
    effect && key && value
}
