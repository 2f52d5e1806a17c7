//! Selectors and owners, as the controllers use them.
//!
//! Pure.

use std::collections::BTreeMap;

use flotilla_api::selector::LabelSelector;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// The selector of a workload. A selector that is missing, empty or broken selects nothing.
pub(crate) fn selector(selector: Option<&meta::LabelSelector>) -> LabelSelector {
    let selector = selector.filter(|selector| !is_empty(selector));
    LabelSelector::from_field(selector).unwrap_or_else(|_| LabelSelector::nothing())
}

/// Whether a selector would select everything, which no workload may.
pub(crate) fn is_empty(selector: &meta::LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

/// The reference by which `owner` controls an object.
pub(crate) fn controller_ref(api_version: &str, kind: &str, owner: &ObjectMeta) -> OwnerReference {
    OwnerReference {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        name: owner.name.clone().unwrap_or_default(),
        uid: owner.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Takes the reference to the owner with this uid out. Says whether there was one.
pub(crate) fn remove_owner(meta: &mut ObjectMeta, uid: &str) -> bool {
    let Some(owners) = meta.owner_references.as_mut() else {
        return false;
    };
    let before = owners.len();
    owners.retain(|owner| owner.uid != uid);
    let removed = owners.len() != before;
    if owners.is_empty() {
        meta.owner_references = None;
    }
    removed
}
