//! Decides what a set of pods needs: pods to make, to delete, to adopt and to let go.
//!
//! Pure. Never looks at a pod of another owner.

use std::sync::Arc;

use flotilla_api::controller_of;
use flotilla_api::selector::LabelSelector;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::rank;
use crate::pods;

/// At most this many pods are made or deleted in one pass, so that one set cannot keep others from the log.
pub(crate) const BURST_MAX: usize = 500;

/// What ReplicaSet and ReplicationController have in common.
pub(crate) struct PodSet<'a> {
    /// The set's own metadata.
    pub(crate) meta: &'a ObjectMeta,
    /// How many pods are wanted.
    pub(crate) replicas: i32,
    /// How long a pod must be ready before it counts as available.
    pub(crate) min_ready_seconds: i32,
    /// Which pods belong to the set.
    pub(crate) selector: LabelSelector,
    /// What a new pod looks like.
    pub(crate) template: Option<&'a PodTemplateSpec>,
}

impl PodSet<'_> {
    fn uid(&self) -> &str {
        self.meta.uid.as_deref().unwrap_or_default()
    }

    fn is_deleting(&self) -> bool {
        self.meta.deletion_timestamp.is_some()
    }

    fn selects(&self, pod: &Pod) -> bool {
        self.selector.matches_optional(pod.metadata.labels.as_ref())
    }
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// Make this many pods.
    Create(usize),
    /// Delete this pod.
    Delete(Arc<Pod>),
}

/// Whose the pods of a namespace are.
#[derive(Debug, Default)]
pub(crate) struct Claim {
    /// Pods that the set controls.
    pub(crate) owned: Vec<Arc<Pod>>,
    /// Pods without a controller that match.
    pub(crate) adopt: Vec<Arc<Pod>>,
    /// Pods that the set controls but that match no longer.
    pub(crate) release: Vec<Arc<Pod>>,
}

/// Sorts the pods of the set's namespace into those that are its own, those to adopt and those to let go.
pub(crate) fn claim(set: &PodSet<'_>, all: &[Arc<Pod>]) -> Claim {
    let mut claim = Claim::default();
    for pod in all {
        match controller_of(&pod.metadata) {
            Some(owner) if owner.uid != set.uid() => {}
            Some(_) if set.selects(pod) => claim.owned.push(Arc::clone(pod)),
            Some(_) if set.is_deleting() => {}
            Some(_) => claim.release.push(Arc::clone(pod)),
            None if set.is_deleting() || !pods::is_active(pod) || !set.selects(pod) => {}
            None => claim.adopt.push(Arc::clone(pod)),
        }
    }
    claim
}

/// Steps that bring the owned pods to the wanted number.
///
/// `related` are the pods of every set with the same owner, this one's included.
pub(crate) fn plan(set: &PodSet<'_>, owned: &[Arc<Pod>], related: &[Arc<Pod>]) -> Vec<Step> {
    if set.is_deleting() {
        return Vec::new();
    }
    let wanted = usize::try_from(set.replicas).unwrap_or(0);
    let mut active: Vec<&Arc<Pod>> = owned.iter().filter(|pod| pods::is_active(pod)).collect();
    if active.len() < wanted {
        return vec![Step::Create((wanted - active.len()).min(BURST_MAX))];
    }
    let surplus = active.len() - wanted;
    if surplus == 0 {
        return Vec::new();
    }
    if surplus < active.len() {
        rank::sort(&mut active, related);
    }
    active
        .into_iter()
        .take(surplus.min(BURST_MAX))
        .map(|pod| Step::Delete(Arc::clone(pod)))
        .collect()
}
