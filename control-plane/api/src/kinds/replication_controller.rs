//! ReplicationController

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::core::v1::{PodTemplateSpec, ReplicationController};
use serde_json::Value;

use super::workload::{self, CONTAINERS, IMAGES, SELECTOR};
use crate::builder::{Builder, age_cell, name_cell};
use crate::field::{FieldErrors, Path};
use crate::kind::{Column, Kind, SubresourceInfo};
use crate::pod_spec;
use crate::selector::LabelSelector;

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::integer("Desired", "Replicas is the number of desired replicas."),
    Column::integer(
        "Current",
        "Replicas is the most recently observed number of replicas.",
    ),
    Column::integer(
        "Ready",
        "The number of ready replicas for this replication controller.",
    ),
    Column::AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];
const SUBRESOURCES: &[SubresourceInfo] = &[super::SCALE, super::status("", "v1", "ReplicationController")];

pub(crate) fn kind() -> Kind {
    Builder::<ReplicationController>::namespaced("replicationcontroller")
        .short_names(&["rc"])
        .categories(&["all"])
        .subresources(SUBRESOURCES)
        .columns(COLUMNS, cells)
        .fields(&[("status.replicas", |controller| {
            controller
                .status
                .as_ref()
                .map_or(0, |status| status.replicas)
                .to_string()
        })])
        .defaults(set_defaults)
        .status(
            |controller| &controller.status,
            |controller| &mut controller.status,
        )
        .generation(|controller| &controller.spec)
        .validate(validate)
        .scale(scale, |controller, replicas| {
            controller.spec.get_or_insert_default().replicas = Some(replicas);
        })
        .build()
}

fn is_empty(labels: Option<&BTreeMap<String, String>>) -> bool {
    labels.is_none_or(BTreeMap::is_empty)
}

/// Selector and labels come from the template when they are not given.
fn set_defaults(controller: &mut ReplicationController) {
    let spec = controller.spec.get_or_insert_default();
    spec.replicas.get_or_insert(1);
    let Some(template) = &mut spec.template else {
        return;
    };
    workload::set_template_defaults(template);
    let labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone());
    if labels.is_none() {
        return;
    }
    if is_empty(spec.selector.as_ref()) {
        spec.selector.clone_from(&labels);
    }
    if is_empty(controller.metadata.labels.as_ref()) {
        controller.metadata.labels = labels;
    }
}

fn validate(controller: &ReplicationController, errors: &mut FieldErrors) {
    let path = Path::root("spec");
    let Some(spec) = &controller.spec else {
        errors.required(path, "");
        return;
    };
    workload::not_negative(spec.min_ready_seconds, path.child("minReadySeconds"), errors);
    if is_empty(spec.selector.as_ref()) {
        errors.required(path.child("selector"), "");
    }
    workload::not_negative(spec.replicas, path.child("replicas"), errors);
    match &spec.template {
        None => errors.required(path.child("template"), ""),
        Some(template) => validate_template(spec.selector.as_ref(), template, path.child("template"), errors),
    }
}

fn validate_template(
    selector: Option<&BTreeMap<String, String>>,
    template: &PodTemplateSpec,
    path: Path<'_>,
    errors: &mut FieldErrors,
) {
    let labels = template.metadata.as_ref().and_then(|meta| meta.labels.as_ref());
    if !is_empty(selector) && !LabelSelector::from_map(selector).matches_optional(labels) {
        workload::label_mismatch(labels, path, errors);
    }
    pod_spec::validate_template(template, path, errors);
    workload::validate_endless(template, path.child("spec"), "ReplicationController", errors);
}

fn scale(controller: &ReplicationController) -> Scale {
    let spec = controller.spec.as_ref();
    let actual = controller.status.as_ref().map_or(0, |status| status.replicas);
    let selector = LabelSelector::from_map(spec.and_then(|spec| spec.selector.as_ref())).to_string();
    workload::scale(
        &controller.metadata,
        spec.and_then(|spec| spec.replicas),
        actual,
        selector,
    )
}

fn cells(controller: &ReplicationController, now: Timestamp) -> Vec<Value> {
    let spec = controller.spec.clone().unwrap_or_default();
    let status = controller.status.clone().unwrap_or_default();
    let [containers, images] = workload::container_cells(spec.template.as_ref());
    vec![
        name_cell(&controller.metadata),
        spec.replicas.unwrap_or(0).into(),
        status.replicas.into(),
        status.ready_replicas.unwrap_or(0).into(),
        age_cell(&controller.metadata, now),
        containers,
        images,
        LabelSelector::from_map(spec.selector.as_ref()).to_string().into(),
    ]
}
