//! The history of a StatefulSet's template: which revision is current, which is wanted, and which may be forgotten.
//!
//! Pure. A revision is found again by its content, so that going back to an old template takes the old revision up
//! again under a new number.

use std::collections::BTreeSet;
use std::sync::Arc;

use flotilla_api::pod_template_hash;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};

use super::identity;
use crate::labels::controller_ref;

const HASH_LABEL: &str = "controller.kubernetes.io/hash";

/// Where a set is in its history.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct History {
    /// What pods were made from before the newest change.
    pub(crate) current: ControllerRevision,
    /// What the template says now.
    pub(crate) update: ControllerRevision,
    /// What has to be written for `update` to exist under its number.
    pub(crate) change: Change,
}

/// What has to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing.
    None,
    /// The update revision is new.
    Create,
    /// An old revision is wanted again and gets the highest number.
    Renumber,
}

/// Sorts revisions by age.
pub(crate) fn sort(revisions: &mut [Arc<ControllerRevision>]) {
    let key = |revision: &Arc<ControllerRevision>| {
        let meta = &revision.metadata;
        (
            revision.revision,
            meta.creation_timestamp.clone(),
            meta.name.clone(),
        )
    };
    revisions.sort_by_key(key);
}

/// Finds a set's place in its history, which is sorted.
pub(crate) fn history(set: &StatefulSet, revisions: &[Arc<ControllerRevision>]) -> History {
    let next = revisions.last().map_or(1, |last| last.revision + 1);
    let fresh = new(set, next);
    let equal = revisions.iter().rfind(|known| known.data == fresh.data);
    let (update, change) = match (equal, revisions.last()) {
        (Some(_), Some(last)) if last.data == fresh.data => ((**last).clone(), Change::None),
        (Some(equal), _) => {
            let mut again = (**equal).clone();
            again.revision = next;
            (again, Change::Renumber)
        }
        (None, _) => (fresh, Change::Create),
    };
    let named = set
        .status
        .as_ref()
        .and_then(|status| status.current_revision.as_deref());
    let current = revisions
        .iter()
        .find(|known| named.is_some() && known.metadata.name.as_deref() == named);
    History {
        current: current.map_or_else(|| update.clone(), |current| (**current).clone()),
        update,
        change,
    }
}

/// The revision of the set's template.
fn new(set: &StatefulSet, number: i64) -> ControllerRevision {
    let spec = identity::spec(set);
    let collisions = set.status.as_ref().and_then(|status| status.collision_count);
    let hash = pod_template_hash(&spec.template, collisions.filter(|count| *count > 0));
    let described = spec.template.metadata.as_ref();
    let mut labels = described.and_then(|meta| meta.labels.clone()).unwrap_or_default();
    labels.insert(HASH_LABEL.to_owned(), hash.clone());
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", identity::name(set))),
            namespace: set.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: set.metadata.annotations.clone(),
            owner_references: Some(vec![controller_ref("apps/v1", "StatefulSet", &set.metadata)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(data(&spec.template))),
        revision: number,
    }
}

/// The template as a patch that puts it back, as Kubernetes keeps it.
fn data(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).unwrap_or_default();
    template["$patch"] = "replace".into();
    json!({"spec": {"template": template}})
}

/// The template that a revision keeps. Nothing when it is damaged.
pub(crate) fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let data = &revision.data.as_ref()?.0;
    let mut template = data.get("spec")?.get("template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

/// The revisions that nothing needs any more, the oldest first.
pub(crate) fn surplus(
    set: &StatefulSet,
    revisions: &[Arc<ControllerRevision>],
    history: &History,
    pods: &[Arc<Pod>],
) -> Vec<Arc<ControllerRevision>> {
    let mut live: BTreeSet<&str> = pods.iter().map(|pod| identity::revision_of_pod(pod)).collect();
    live.extend(history.current.metadata.name.as_deref());
    live.extend(history.update.metadata.name.as_deref());
    let is_old = |revision: &&Arc<ControllerRevision>| {
        !live.contains(revision.metadata.name.as_deref().unwrap_or_default())
    };
    let old: Vec<&Arc<ControllerRevision>> = revisions.iter().filter(is_old).collect();
    let limit = set
        .spec
        .as_ref()
        .and_then(|spec| spec.revision_history_limit)
        .unwrap_or(10);
    let count = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    old.into_iter().take(count).cloned().collect()
}
