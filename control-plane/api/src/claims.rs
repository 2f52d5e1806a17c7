//! Which persistent volume fits which claim. Pure; binder and scheduler share it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec, Pod, Volume,
};

use crate::quantity::Quantity;
use crate::selector::LabelSelector;

/// The node that the scheduler has chosen for a claim's first pod.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// The node that has the disk of a volume of the local class.
pub const DISK_NODE: &str = "local.flotilla.dev/node";
/// Set once that disk has been made: if it is missing later, it is lost and not new.
pub const DISK_MADE: &str = "local.flotilla.dev/made";
/// Keeps a volume of the local class until its node has given the disk back.
pub const DISK_FINALIZER: &str = "local.flotilla.dev/disk";

/// The names of the claims that a pod uses, by its volumes' names, and whether each is made for the pod.
pub fn claims_of(pod: &Pod) -> Vec<(String, bool)> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| claim_of(pod, volume)).collect()
}

/// The claim behind a volume, and whether it is made for the pod.
pub fn claim_of(pod: &Pod, volume: &Volume) -> Option<(String, bool)> {
    if let Some(claim) = &volume.persistent_volume_claim {
        return Some((claim.claim_name.clone(), false));
    }
    volume.ephemeral.as_ref()?;
    let pod = pod.metadata.name.as_deref().unwrap_or_default();
    Some((format!("{pod}-{}", volume.name), true))
}

/// Whether the claim was made for this pod and no other.
pub fn is_made_for(claim: &PersistentVolumeClaim, pod: &Pod) -> bool {
    let owner = crate::controller_of(&claim.metadata);
    owner.is_some_and(|owner| Some(&owner.uid) == pod.metadata.uid.as_ref())
}

/// The class that a claim names; an empty name is none.
pub fn class_of(spec: &PersistentVolumeClaimSpec) -> Option<&str> {
    spec.storage_class_name.as_deref().filter(|name| !name.is_empty())
}

/// How much the claim asks for, in bytes.
pub fn requested_bytes(claim: &PersistentVolumeClaim) -> i64 {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let requests = resources.and_then(|resources| resources.requests.as_ref());
    Quantity::get(requests, "storage").map_or(0, Quantity::value)
}

/// How much the volume holds, in bytes.
pub fn capacity_bytes(volume: &PersistentVolume) -> i64 {
    let capacity = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref());
    Quantity::get(capacity, "storage").map_or(0, Quantity::value)
}

/// The volume that the claim is bound to, or has asked for by name.
pub fn volume_name(claim: &PersistentVolumeClaim) -> Option<&str> {
    let name = claim.spec.as_ref()?.volume_name.as_deref()?;
    Some(name).filter(|name| !name.is_empty())
}

/// Whether claim and volume are bound to each other.
pub fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    volume_name(claim).is_some() && phase == Some("Bound")
}

/// What a volume says of its claim.
pub fn reference(claim: &PersistentVolumeClaim) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("PersistentVolumeClaim".to_owned()),
        name: claim.metadata.name.clone(),
        namespace: claim.metadata.namespace.clone(),
        uid: claim.metadata.uid.clone(),
        resource_version: claim.metadata.resource_version.clone(),
        field_path: None,
    }
}

/// Whether the volume is reserved for this very claim.
pub fn is_reserved_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let reserved = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    reserved.is_some_and(|reference| {
        let uid = reference.uid.as_deref().unwrap_or_default();
        reference.name == claim.metadata.name
            && reference.namespace == claim.metadata.namespace
            && (uid.is_empty() || Some(uid) == claim.metadata.uid.as_deref())
    })
}

/// Whether the claim could be bound to the volume: class, size, modes and labels.
pub fn fits(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let (Some(offered), Some(wanted)) = (&volume.spec, &claim.spec) else {
        return false;
    };
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    let is_free = match &offered.claim_ref {
        None => !matches!(phase, Some("Released" | "Failed" | "Bound")),
        Some(_) => is_reserved_for(volume, claim),
    };
    let offered_class = offered.storage_class_name.as_deref().unwrap_or_default();
    let has = |mode: &String| offered.access_modes.iter().flatten().any(|have| have == mode);
    let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".to_owned());
    volume.metadata.deletion_timestamp.is_none()
        && is_free
        && offered_class == class_of(wanted).unwrap_or_default()
        && capacity_bytes(volume) >= requested_bytes(claim)
        && wanted.access_modes.iter().flatten().all(has)
        && mode(&offered.volume_mode) == mode(&wanted.volume_mode)
        && is_selected(volume, wanted)
}

fn is_selected(volume: &PersistentVolume, wanted: &PersistentVolumeClaimSpec) -> bool {
    let Some(selector) = &wanted.selector else {
        return true;
    };
    let none = BTreeMap::new();
    let labels = volume.metadata.labels.as_ref().unwrap_or(&none);
    LabelSelector::from_field(Some(selector)).is_ok_and(|selector| selector.matches(labels))
}

/// The best of these volumes: one that is reserved for the claim, else the smallest that fits.
pub fn best<'a>(
    volumes: impl IntoIterator<Item = &'a PersistentVolume>,
    claim: &PersistentVolumeClaim,
) -> Option<&'a PersistentVolume> {
    let fitting = volumes.into_iter().filter(|volume| fits(volume, claim));
    fitting.min_by_key(|volume| {
        let name = volume.metadata.name.clone();
        (!is_reserved_for(volume, claim), capacity_bytes(volume), name)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn volume(name: &str, spec: &serde_json::Value) -> PersistentVolume {
        let mut all = json!({"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": "/x"}});
        all.as_object_mut()
            .unwrap()
            .extend(spec.as_object().unwrap().clone());
        let labels = json!({"tier": name});
        serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}, "spec": all})).unwrap()
    }

    fn claim(spec: &serde_json::Value) -> PersistentVolumeClaim {
        let mut all =
            json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "500Mi"}}});
        all.as_object_mut()
            .unwrap()
            .extend(spec.as_object().unwrap().clone());
        let meta = json!({"name": "data", "namespace": "default", "uid": "u"});
        serde_json::from_value(json!({"metadata": meta, "spec": all})).unwrap()
    }

    #[track_caller]
    fn check(volumes: &[(&str, serde_json::Value)], wanted: &serde_json::Value, expected: Option<&str>) {
        let volumes: Vec<_> = volumes.iter().map(|(name, spec)| volume(name, spec)).collect();
        let found = best(&volumes, &claim(wanted)).and_then(|found| found.metadata.name.as_deref());
        assert_eq!(found, expected);
    }

    #[test]
    fn the_smallest_volume_that_is_large_enough_is_taken() {
        let volumes = [
            ("large", json!({"capacity": {"storage": "5Gi"}})),
            ("right", json!({})),
            ("small", json!({"capacity": {"storage": "100Mi"}})),
        ];
        check(&volumes, &json!({}), Some("right"));
        check(
            &volumes,
            &json!({"resources": {"requests": {"storage": "2Gi"}}}),
            Some("large"),
        );
        check(
            &volumes,
            &json!({"resources": {"requests": {"storage": "9Gi"}}}),
            None,
        );
    }

    #[test]
    fn a_reserved_volume_goes_to_its_claim_and_to_no_other() {
        let reserve = |name: &str| json!({"claimRef": {"namespace": "default", "name": name}, "capacity": {"storage": "5Gi"}});
        check(
            &[("free", json!({})), ("reserved", reserve("data"))],
            &json!({}),
            Some("reserved"),
        );
        check(&[("reserved", reserve("other"))], &json!({}), None);
    }

    #[test]
    fn class_modes_kind_and_labels_have_to_fit() {
        let plain = [("a", json!({})), ("b", json!({}))];
        check(&plain, &json!({"storageClassName": "fast"}), None);
        check(&plain, &json!({"storageClassName": ""}), Some("a"));
        check(&plain, &json!({"accessModes": ["ReadWriteMany"]}), None);
        check(&plain, &json!({"volumeMode": "Block"}), None);
        check(
            &plain,
            &json!({"selector": {"matchLabels": {"tier": "b"}}}),
            Some("b"),
        );
        check(&[("a", json!({"storageClassName": "fast"}))], &json!({}), None);
    }
}
