//! Deployment

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy};
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::workload::{self, CONTAINERS, IMAGES, SELECTOR};
use crate::builder::{Builder, age_cell, name_cell};
use crate::field::{FieldErrors, Path};
use crate::kind::{Column, Kind, SubresourceInfo};

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Ready", "Number of the pod with ready state"),
    Column::integer(
        "Up-to-date",
        "Total number of non-terminated pods targeted by this deployment that have the desired template spec.",
    ),
    Column::integer(
        "Available",
        "Total number of available pods (ready for at least minReadySeconds) targeted by this deployment.",
    ),
    Column::AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];
const SUBRESOURCES: &[SubresourceInfo] = &[super::SCALE, super::status("apps", "v1", "Deployment")];

pub(crate) fn kind() -> Kind {
    Builder::<Deployment>::namespaced("deployment")
        .short_names(&["deploy"])
        .categories(&["all"])
        .subresources(SUBRESOURCES)
        .columns(COLUMNS, cells)
        .defaults(set_defaults)
        .status(
            |deployment| &deployment.status,
            |deployment| &mut deployment.status,
        )
        .generation(|deployment| &deployment.spec)
        .on_status_update(|new, old| new.metadata.labels.clone_from(&old.metadata.labels))
        .validate(validate)
        .validate_update(validate_update)
        .scale(scale, |deployment, replicas| {
            deployment.spec.get_or_insert_default().replicas = Some(replicas);
        })
        .build()
}

fn set_defaults(deployment: &mut Deployment) {
    let spec = deployment.spec.get_or_insert_default();
    spec.replicas.get_or_insert(1);
    spec.revision_history_limit.get_or_insert(10);
    spec.progress_deadline_seconds.get_or_insert(600);
    let strategy = spec.strategy.get_or_insert_default();
    if strategy.type_.as_deref().is_none_or(str::is_empty) {
        strategy.type_ = Some("RollingUpdate".into());
    }
    if strategy.type_.as_deref() == Some("RollingUpdate") {
        let rolling = strategy.rolling_update.get_or_insert_default();
        let quarter = || IntOrString::String("25%".into());
        rolling.max_unavailable.get_or_insert_with(quarter);
        rolling.max_surge.get_or_insert_with(quarter);
    }
    workload::set_template_defaults(&mut spec.template);
}

fn validate(deployment: &Deployment, errors: &mut FieldErrors) {
    let path = Path::root("spec");
    let Some(spec) = &deployment.spec else {
        errors.required(path, "");
        return;
    };
    workload::not_negative(spec.replicas, path.child("replicas"), errors);
    workload::validate_pods(&spec.selector, &spec.template, errors);
    if let Some(strategy) = &spec.strategy {
        validate_strategy(strategy, path.child("strategy"), errors);
    }
    workload::not_negative(spec.min_ready_seconds, path.child("minReadySeconds"), errors);
    workload::not_negative(
        spec.revision_history_limit,
        path.child("revisionHistoryLimit"),
        errors,
    );
    validate_deadline(spec, path.child("progressDeadlineSeconds"), errors);
}

fn validate_deadline(spec: &DeploymentSpec, path: Path<'_>, errors: &mut FieldErrors) {
    workload::not_negative(spec.progress_deadline_seconds, path, errors);
    if let Some(seconds) = spec.progress_deadline_seconds
        && seconds <= spec.min_ready_seconds.unwrap_or(0)
    {
        errors.invalid(path, seconds, "must be greater than minReadySeconds");
    }
}

fn validate_strategy(strategy: &DeploymentStrategy, path: Path<'_>, errors: &mut FieldErrors) {
    match strategy.type_.as_deref().unwrap_or_default() {
        "Recreate" => {
            if strategy.rolling_update.is_some() {
                let detail = "may not be specified when strategy `type` is 'Recreate'";
                errors.forbidden(path.child("rollingUpdate"), detail);
            }
        }
        "RollingUpdate" => match &strategy.rolling_update {
            None => errors.required(
                path.child("rollingUpdate"),
                "this should be defaulted and never be nil",
            ),
            Some(rolling) => {
                let path = path.child("rollingUpdate");
                let zero = IntOrString::Int(0);
                let surge = rolling.max_surge.as_ref().unwrap_or(&zero);
                let unavailable = rolling.max_unavailable.as_ref().unwrap_or(&zero);
                workload::validate_share(unavailable, path.child("maxUnavailable"), errors);
                workload::validate_share(surge, path.child("maxSurge"), errors);
                if workload::is_zero(unavailable) && workload::is_zero(surge) {
                    let detail = "may not be 0 when `maxSurge` is 0";
                    errors.invalid(path.child("maxUnavailable"), workload::shown(unavailable), detail);
                }
                if workload::percent(unavailable).is_some_and(|percent| percent > 100) {
                    errors.invalid(
                        path.child("maxUnavailable"),
                        workload::shown(unavailable),
                        "must not be greater than 100%",
                    );
                }
            }
        },
        other => errors.not_supported(path.child("type"), other, &["Recreate", "RollingUpdate"]),
    }
}

fn validate_update(new: &Deployment, old: &Deployment, errors: &mut FieldErrors) {
    if let (Some(new), Some(old)) = (&new.spec, &old.spec) {
        workload::same_selector(&new.selector, &old.selector, errors);
    }
}

fn scale(deployment: &Deployment) -> Scale {
    let spec = deployment.spec.as_ref();
    let actual = deployment
        .status
        .as_ref()
        .and_then(|status| status.replicas)
        .unwrap_or(0);
    let selector = spec
        .map(|spec| workload::selector_text(&spec.selector))
        .unwrap_or_default();
    workload::scale(
        &deployment.metadata,
        spec.and_then(|spec| spec.replicas),
        actual,
        selector,
    )
}

fn cells(deployment: &Deployment, now: Timestamp) -> Vec<Value> {
    let spec = deployment.spec.clone().unwrap_or_default();
    let status = deployment.status.clone().unwrap_or_default();
    let wanted = spec.replicas.unwrap_or(0);
    let [containers, images] = workload::container_cells(Some(&spec.template));
    vec![
        name_cell(&deployment.metadata),
        format!("{}/{wanted}", status.ready_replicas.unwrap_or(0)).into(),
        status.updated_replicas.unwrap_or(0).into(),
        status.available_replicas.unwrap_or(0).into(),
        age_cell(&deployment.metadata, now),
        containers,
        images,
        workload::selector_text(&spec.selector).into(),
    ]
}
