//! Whether anything still needs a claim or a volume. Pure.

use std::sync::Arc;

use flotilla_api::claims;
use k8s_openapi::api::core::v1::{PersistentVolume, Pod};

pub(super) const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
pub(super) const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";

/// Whether a pod of the claim's namespace uses it. Pods that have ended have let go of it.
pub(super) fn is_claim_used(name: &str, pods: &[Arc<Pod>]) -> bool {
    let is_over = |pod: &Pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    };
    let uses = |pod: &Pod| claims::claims_of(pod).iter().any(|(used, _)| used == name);
    pods.iter().any(|pod| !is_over(pod) && uses(pod))
}

/// Whether a claim is bound to the volume.
pub(super) fn is_volume_used(volume: &PersistentVolume) -> bool {
    volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
}
