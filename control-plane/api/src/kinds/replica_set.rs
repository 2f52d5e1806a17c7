//! ReplicaSet

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;

use super::workload::{self, CONTAINERS, IMAGES, SELECTOR};
use crate::builder::{Builder, age_cell, name_cell};
use crate::field::{FieldErrors, Path};
use crate::kind::{Column, Kind, SubresourceInfo};

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::integer("Desired", "Replicas is the number of desired replicas."),
    Column::integer(
        "Current",
        "Replicas is the most recently observed number of replicas.",
    ),
    Column::integer("Ready", "The number of ready replicas for this replica set."),
    Column::AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];
const SUBRESOURCES: &[SubresourceInfo] = &[super::SCALE, super::status("apps", "v1", "ReplicaSet")];

pub(crate) fn kind() -> Kind {
    Builder::<ReplicaSet>::namespaced("replicaset")
        .short_names(&["rs"])
        .categories(&["all"])
        .subresources(SUBRESOURCES)
        .columns(COLUMNS, cells)
        .fields(&[("status.replicas", |set| {
            set.status
                .as_ref()
                .map_or(0, |status| status.replicas)
                .to_string()
        })])
        .defaults(set_defaults)
        .status(|set| &set.status, |set| &mut set.status)
        .generation(|set| &set.spec)
        .validate(validate)
        .validate_update(validate_update)
        .scale(scale, |set, replicas| {
            set.spec.get_or_insert_default().replicas = Some(replicas)
        })
        .build()
}

fn set_defaults(set: &mut ReplicaSet) {
    let spec = set.spec.get_or_insert_default();
    spec.replicas.get_or_insert(1);
    workload::set_template_defaults(spec.template.get_or_insert_default());
}

fn validate(set: &ReplicaSet, errors: &mut FieldErrors) {
    let path = Path::root("spec");
    let Some(spec) = &set.spec else {
        errors.required(path, "");
        return;
    };
    workload::not_negative(spec.replicas, path.child("replicas"), errors);
    workload::not_negative(spec.min_ready_seconds, path.child("minReadySeconds"), errors);
    let none = PodTemplateSpec::default();
    let template = spec.template.as_ref().unwrap_or(&none);
    workload::validate_pods(&spec.selector, template, errors);
}

fn validate_update(new: &ReplicaSet, old: &ReplicaSet, errors: &mut FieldErrors) {
    if let (Some(new), Some(old)) = (&new.spec, &old.spec) {
        workload::same_selector(&new.selector, &old.selector, errors);
    }
}

fn scale(set: &ReplicaSet) -> Scale {
    let spec = set.spec.as_ref();
    let actual = set.status.as_ref().map_or(0, |status| status.replicas);
    let selector = spec
        .map(|spec| workload::selector_text(&spec.selector))
        .unwrap_or_default();
    workload::scale(
        &set.metadata,
        spec.and_then(|spec| spec.replicas),
        actual,
        selector,
    )
}

fn cells(set: &ReplicaSet, now: Timestamp) -> Vec<Value> {
    let spec = set.spec.clone().unwrap_or_default();
    let status = set.status.clone().unwrap_or_default();
    let [containers, images] = workload::container_cells(spec.template.as_ref());
    vec![
        name_cell(&set.metadata),
        spec.replicas.unwrap_or(0).into(),
        status.replicas.into(),
        status.ready_replicas.unwrap_or(0).into(),
        age_cell(&set.metadata, now),
        containers,
        images,
        workload::selector_text(&spec.selector).into(),
    ]
}
