//! StatefulSet

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{
    StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec, StatefulSetUpdateStrategy,
};
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, PodTemplateSpec, Volume,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::workload::{self, CONTAINERS, IMAGES};
use crate::builder::{Builder, age_cell, name_cell};
use crate::field::{FieldErrors, Path, Verbatim};
use crate::kind::{Column, Kind, SubresourceInfo};
use crate::{names, pod_spec};

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Ready", "Number of the pod with ready state"),
    Column::AGE,
    CONTAINERS,
    IMAGES,
];
const SUBRESOURCES: &[SubresourceInfo] = &[super::SCALE, super::status("apps", "v1", "StatefulSet")];
/// What an update may change.
const MUTABLE: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
    'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are \
    forbidden";

pub(crate) fn kind() -> Kind {
    Builder::<StatefulSet>::namespaced("statefulset")
        .short_names(&["sts"])
        .categories(&["all"])
        .subresources(SUBRESOURCES)
        .columns(COLUMNS, cells)
        .defaults(set_defaults)
        .status(|set| &set.status, |set| &mut set.status)
        .generation(|set| &set.spec)
        .validate(validate)
        .validate_update(validate_update)
        .scale(scale, |set, replicas| {
            set.spec.get_or_insert_default().replicas = Some(replicas);
        })
        .build()
}

fn set_defaults(set: &mut StatefulSet) {
    let spec = set.spec.get_or_insert_default();
    spec.replicas.get_or_insert(1);
    spec.revision_history_limit.get_or_insert(10);
    or_insert(&mut spec.pod_management_policy, "OrderedReady");
    let strategy = spec.update_strategy.get_or_insert_default();
    or_insert(&mut strategy.type_, "RollingUpdate");
    if strategy.type_.as_deref() == Some("RollingUpdate") {
        let rolling = strategy.rolling_update.get_or_insert_default();
        rolling.partition.get_or_insert(0);
        rolling.max_unavailable.get_or_insert(IntOrString::Int(1));
    }
    let retention = spec
        .persistent_volume_claim_retention_policy
        .get_or_insert_default();
    or_insert(&mut retention.when_deleted, "Retain");
    or_insert(&mut retention.when_scaled, "Retain");
    workload::set_template_defaults(&mut spec.template);
    for claim in spec.volume_claim_templates.iter_mut().flatten() {
        set_claim_defaults(claim);
    }
}

fn or_insert(field: &mut Option<String>, value: &str) {
    if field.as_deref().is_none_or(str::is_empty) {
        *field = Some(value.to_owned());
    }
}

/// A claim's defaults, as Kubernetes writes them into the template as well.
fn set_claim_defaults(claim: &mut PersistentVolumeClaim) {
    let spec = claim.spec.get_or_insert_default();
    or_insert(&mut spec.volume_mode, "Filesystem");
    or_insert(&mut claim.status.get_or_insert_default().phase, "Pending");
}

fn validate(set: &StatefulSet, errors: &mut FieldErrors) {
    let path = Path::root("spec");
    let Some(spec) = &set.spec else {
        errors.required(path, "");
        return;
    };
    validate_numbers(spec, path, errors);
    let policy = spec.pod_management_policy.as_deref().unwrap_or_default();
    if !matches!(policy, "OrderedReady" | "Parallel") {
        let detail = "must be 'OrderedReady' or 'Parallel'";
        errors.invalid(path.child("podManagementPolicy"), policy, detail);
    }
    if let Some(strategy) = &spec.update_strategy {
        validate_strategy(strategy, path.child("updateStrategy"), errors);
    }
    if let Some(retention) = &spec.persistent_volume_claim_retention_policy {
        let path = path.child("persistentVolumeClaimRetentionPolicy");
        validate_retention(retention, path, errors);
    }
    let service = spec.service_name.as_deref().unwrap_or_default();
    for problem in if service.is_empty() {
        Vec::new()
    } else {
        names::label(service)
    } {
        errors.invalid(path.child("serviceName"), service, problem);
    }
    workload::validate_selector_of(&spec.selector, "statefulset", errors);
    let template = with_claims(spec);
    workload::validate_template_of(&spec.selector, &template, "StatefulSet", errors);
    validate_claims(spec, path.child("volumeClaimTemplates"), errors);
}

/// The template as its pods will have it: a claim of the set is one of their volumes, in place of one with its name.
fn with_claims(spec: &StatefulSetSpec) -> PodTemplateSpec {
    let mut template = spec.template.clone();
    let names = spec.volume_claim_templates.iter().flatten();
    let names: Vec<String> = names.filter_map(|claim| claim.metadata.name.clone()).collect();
    if let Some(pod) = template.spec.as_mut().filter(|_| !names.is_empty()) {
        let volumes = pod.volumes.get_or_insert_default();
        volumes.retain(|volume| !names.contains(&volume.name));
        volumes.extend(names.into_iter().map(|name| Volume {
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: name.clone(),
                ..Default::default()
            }),
            name,
            ..Default::default()
        }));
    }
    template
}

fn validate_numbers(spec: &StatefulSetSpec, path: Path<'_>, errors: &mut FieldErrors) {
    for (field, value) in [
        ("replicas", spec.replicas),
        ("minReadySeconds", spec.min_ready_seconds),
        ("revisionHistoryLimit", spec.revision_history_limit),
    ] {
        workload::not_negative(value, path.child(field), errors);
    }
    let start = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start);
    let path = path.child("ordinals");
    workload::not_negative(start, path.child("start"), errors);
}

fn validate_strategy(strategy: &StatefulSetUpdateStrategy, path: Path<'_>, errors: &mut FieldErrors) {
    let rolling = strategy.rolling_update.as_ref();
    match strategy.type_.as_deref().unwrap_or_default() {
        "OnDelete" => {
            if rolling.is_some() {
                let detail = "only allowed for updateStrategy 'RollingUpdate'";
                let shown = serde_json::to_string(&rolling).unwrap_or_default();
                errors.invalid(path.child("rollingUpdate"), Verbatim(shown), detail);
            }
        }
        "RollingUpdate" => {
            let path = path.child("rollingUpdate");
            let partition = rolling.and_then(|rolling| rolling.partition);
            workload::not_negative(partition, path.child("partition"), errors);
            let share = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
            if let Some(share) = share {
                workload::validate_share(share, path.child("maxUnavailable"), errors);
                if workload::is_zero(share) {
                    let detail = "cannot be 0";
                    errors.invalid(path.child("maxUnavailable"), workload::shown(share), detail);
                }
            }
        }
        other => errors.invalid(path, other, "must be 'RollingUpdate' or 'OnDelete'"),
    }
}

fn validate_retention(
    policy: &StatefulSetPersistentVolumeClaimRetentionPolicy,
    path: Path<'_>,
    errors: &mut FieldErrors,
) {
    for (field, value) in [
        ("whenDeleted", &policy.when_deleted),
        ("whenScaled", &policy.when_scaled),
    ] {
        let value = value.as_deref().unwrap_or_default();
        pod_spec::one_of(value, &["Retain", "Delete"], path.child(field), errors);
    }
}

/// Each claim needs a name of its own: the claim's name and the volume's are made from it.
fn validate_claims(spec: &StatefulSetSpec, path: Path<'_>, errors: &mut FieldErrors) {
    let mut seen = std::collections::BTreeSet::new();
    for (index, claim) in spec.volume_claim_templates.iter().flatten().enumerate() {
        let path = path.index(index);
        let path = path.child("metadata");
        let path = path.child("name");
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        if name.is_empty() {
            errors.required(path, "");
            continue;
        }
        for problem in names::label(name) {
            errors.invalid(path, name, problem);
        }
        if !seen.insert(name) {
            errors.duplicate(path, name);
        }
    }
}

fn validate_update(new: &StatefulSet, old: &StatefulSet, errors: &mut FieldErrors) {
    let (Some(new), Some(old)) = (&new.spec, &old.spec) else {
        return;
    };
    let mut allowed = new.clone();
    allowed.replicas = old.replicas;
    allowed.ordinals.clone_from(&old.ordinals);
    allowed.template.clone_from(&old.template);
    allowed.update_strategy.clone_from(&old.update_strategy);
    allowed.revision_history_limit = old.revision_history_limit;
    allowed
        .persistent_volume_claim_retention_policy
        .clone_from(&old.persistent_volume_claim_retention_policy);
    allowed.min_ready_seconds = old.min_ready_seconds;
    if allowed != *old {
        errors.forbidden(Path::root("spec"), MUTABLE);
    }
}

fn scale(set: &StatefulSet) -> Scale {
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

fn cells(set: &StatefulSet, now: Timestamp) -> Vec<Value> {
    let spec = set.spec.as_ref();
    let wanted = spec.and_then(|spec| spec.replicas).unwrap_or(0);
    let ready = set.status.as_ref().and_then(|status| status.ready_replicas);
    let [containers, images] = workload::container_cells(spec.map(|spec| &spec.template));
    vec![
        name_cell(&set.metadata),
        format!("{}/{wanted}", ready.unwrap_or(0)).into(),
        age_cell(&set.metadata, now),
        containers,
        images,
    ]
}
