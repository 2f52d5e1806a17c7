//! The ReplicaSet that a Deployment's template stands for.
//!
//! Pure.

use flotilla_api::pod_template_hash;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::labels::controller_ref;

/// The label that tells the pods of one revision from those of another.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// Whether the set's pods are what the Deployment's template asks for now.
pub(crate) fn is_of_template(set: &ReplicaSet, deployment: &Deployment) -> bool {
    let Some(mut mine) = set.spec.as_ref().and_then(|spec| spec.template.clone()) else {
        return false;
    };
    let Some(theirs) = deployment.spec.as_ref().map(|spec| &spec.template) else {
        return false;
    };
    if let Some(labels) = mine.metadata.as_mut().and_then(|meta| meta.labels.as_mut()) {
        labels.remove(TEMPLATE_HASH);
    }
    mine == *theirs
}

/// The set of the Deployment's current template, without replicas.
pub(crate) fn new_set(deployment: &Deployment, collision_count: Option<i32>) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let hash = pod_template_hash(&spec.template, collision_count);
    let mut template: PodTemplateSpec = spec.template;
    let labels = template
        .metadata
        .get_or_insert_default()
        .labels
        .get_or_insert_default();
    labels.insert(TEMPLATE_HASH.to_owned(), hash.clone());
    let mut selector = spec.selector;
    selector
        .match_labels
        .get_or_insert_default()
        .insert(TEMPLATE_HASH.to_owned(), hash.clone());
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{hash}")),
            namespace: deployment.metadata.namespace.clone(),
            labels: template.metadata.as_ref().and_then(|meta| meta.labels.clone()),
            owner_references: Some(vec![controller_ref(
                "apps/v1",
                "Deployment",
                &deployment.metadata,
            )]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: None,
            min_ready_seconds: spec.min_ready_seconds.filter(|seconds| *seconds != 0),
            selector,
            template: Some(template),
        }),
        status: None,
    }
}
