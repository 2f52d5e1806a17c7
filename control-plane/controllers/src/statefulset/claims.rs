//! The claims of a StatefulSet's pods: which are missing, and whom they go with.
//!
//! Pure. Claims are never deleted here: the retention policy is carried out by owner references, so that the garbage
//! collector removes a claim with its set or with its pod.

use std::collections::BTreeMap;
use std::sync::Arc;

use flotilla_api::controller_of;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::identity;
use crate::labels::controller_ref;

/// The claims of a namespace by name.
pub(crate) struct Claims<'a> {
    by_name: BTreeMap<&'a str, &'a Arc<PersistentVolumeClaim>>,
}

impl<'a> Claims<'a> {
    /// Looks claims up by name.
    pub(crate) fn new(claims: &'a [Arc<PersistentVolumeClaim>]) -> Claims<'a> {
        let named = |claim: &'a Arc<PersistentVolumeClaim>| Some((claim.metadata.name.as_deref()?, claim));
        Claims {
            by_name: claims.iter().filter_map(named).collect(),
        }
    }

    fn get(&self, name: &str) -> Option<&'a PersistentVolumeClaim> {
        self.by_name.get(name).map(|claim| &***claim)
    }

    /// The claims that the pod of an ordinal lacks.
    pub(crate) fn missing(&self, set: &StatefulSet, ordinal: i32) -> Vec<PersistentVolumeClaim> {
        identity::claim_templates(set)
            .iter()
            .filter(|template| self.get(&identity::claim_name(set, template, ordinal)).is_none())
            .map(|template| identity::claim(set, template, ordinal))
            .collect()
    }

    /// The claims that the pod of an ordinal has.
    fn present(&self, set: &StatefulSet, ordinal: i32) -> Vec<&'a PersistentVolumeClaim> {
        identity::claim_templates(set)
            .iter()
            .filter_map(|template| self.get(&identity::claim_name(set, template, ordinal)))
            .collect()
    }

    /// Whether a new pod of this ordinal must wait: a claim is being deleted, or belongs to a pod of the same name
    /// that was there before and will be deleted with it.
    pub(crate) fn are_leaving(&self, set: &StatefulSet, ordinal: i32) -> bool {
        let pod = identity::pod_name(set, ordinal);
        let leaves = |claim: &PersistentVolumeClaim| {
            let owners = claim.metadata.owner_references.iter().flatten();
            claim.metadata.deletion_timestamp.is_some()
                || owners
                    .into_iter()
                    .any(|owner| owner.kind == "Pod" && owner.name == pod)
        };
        self.present(set, ordinal).into_iter().any(leaves)
    }

    /// The claims of a pod whose owners are not what the retention policy asks for, as they should be.
    pub(crate) fn misowned(&self, set: &StatefulSet, pod: &Pod, ordinal: i32) -> Vec<PersistentVolumeClaim> {
        let owner = owner(set, pod, ordinal);
        let corrected = |claim: &PersistentVolumeClaim| {
            let mut corrected = claim.clone();
            set_owner(&mut corrected.metadata, set, pod, owner.as_ref()).then_some(corrected)
        };
        self.present(set, ordinal)
            .into_iter()
            .filter_map(corrected)
            .collect()
    }
}

/// With whom a pod's claims go; nothing when they stay whatever happens.
fn owner(set: &StatefulSet, pod: &Pod, ordinal: i32) -> Option<OwnerReference> {
    let spec = set.spec.as_ref();
    let policy = spec.and_then(|spec| spec.persistent_volume_claim_retention_policy.as_ref());
    let deletes = |value: Option<&String>| value.is_some_and(|value| value == "Delete");
    let when_deleted = deletes(policy.and_then(|policy| policy.when_deleted.as_ref()));
    let when_scaled = deletes(policy.and_then(|policy| policy.when_scaled.as_ref()));
    let is_condemned = !identity::wanted(set).contains(&ordinal);
    if when_scaled && is_condemned {
        return Some(controller_ref("v1", "Pod", &pod.metadata));
    }
    when_deleted.then(|| controller_ref("apps/v1", "StatefulSet", &set.metadata))
}

/// Leaves one owner of the two, or none. A claim that something else controls is left alone.
fn set_owner(meta: &mut ObjectMeta, set: &StatefulSet, pod: &Pod, owner: Option<&OwnerReference>) -> bool {
    let is_ours =
        |found: &OwnerReference| [&set.metadata.uid, &pod.metadata.uid].contains(&&Some(found.uid.clone()));
    if controller_of(meta).is_some_and(|found| !is_ours(found)) {
        return false;
    }
    let before = meta.owner_references.clone();
    let owners = meta.owner_references.get_or_insert_default();
    owners.retain(|found| !is_ours(found) || Some(&found.uid) == owner.map(|owner| &owner.uid));
    if let Some(owner) = owner
        && !owners.iter().any(|found| found.uid == owner.uid)
    {
        owners.push(owner.clone());
    }
    if owners.is_empty() {
        meta.owner_references = None;
    }
    meta.owner_references != before
}
