//! What is wrong with a pod spec as a whole.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};

use super::{containers, names_in_pod, placement, volumes};
use crate::field::{FieldErrors, Path};
use crate::{metadata, names};

const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

/// A template within a workload; `path` is its own, like `spec.template`.
pub(crate) fn validate_template(template: &PodTemplateSpec, path: Path<'_>, errors: &mut FieldErrors) {
    let meta = path.child("metadata");
    if let Some(metadata) = &template.metadata {
        metadata::validate_labels(metadata.labels.as_ref(), meta.child("labels"), errors);
        metadata::validate_annotations(metadata.annotations.as_ref(), meta.child("annotations"), errors);
    }
    match &template.spec {
        Some(spec) => validate(spec, path.child("spec"), errors),
        None => validate(&PodSpec::default(), path.child("spec"), errors),
    }
}

/// The spec of a pod or of a template.
pub(crate) fn validate(spec: &PodSpec, path: Path<'_>, errors: &mut FieldErrors) {
    let volumes = volumes::validate(
        spec.volumes.as_deref().unwrap_or_default(),
        path.child("volumes"),
        errors,
    );
    containers::validate_all(spec, &volumes, path, errors);
    one_of(
        spec.restart_policy.as_deref().unwrap_or_default(),
        &["Always", "OnFailure", "Never"],
        path.child("restartPolicy"),
        errors,
    );
    one_of(
        spec.dns_policy.as_deref().unwrap_or_default(),
        &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"],
        path.child("dnsPolicy"),
        errors,
    );
    validate_names(spec, path, errors);
    names_in_pod::validate(spec, path, errors);
    validate_times(spec, path, errors);
    placement::validate(spec, path, errors);
    validate_security(spec, path.child("securityContext"), errors);
    validate_users(spec, path, errors);
}

/// Users of its own go with no namespace of the node (KEP-127).
fn validate_users(spec: &PodSpec, path: Path<'_>, errors: &mut FieldErrors) {
    if spec.host_users != Some(false) {
        return;
    }
    for (field, value) in [
        ("hostNetwork", spec.host_network),
        ("hostPID", spec.host_pid),
        ("hostIPC", spec.host_ipc),
    ] {
        if value == Some(true) {
            errors.forbidden(path.child(field), "when `hostUsers` is false");
        }
    }
}

/// A required value out of a fixed set.
pub(crate) fn one_of(value: &str, supported: &[&str], path: Path<'_>, errors: &mut FieldErrors) {
    if value.is_empty() {
        errors.required(path, "");
    } else if !supported.contains(&value) {
        errors.not_supported(path, value, supported);
    }
}

fn validate_names(spec: &PodSpec, path: Path<'_>, errors: &mut FieldErrors) {
    for (field, value, rule) in [
        (
            "serviceAccountName",
            &spec.service_account_name,
            names::subdomain as names::NameRule,
        ),
        ("nodeName", &spec.node_name, names::subdomain),
        ("hostname", &spec.hostname, names::label),
        ("subdomain", &spec.subdomain, names::label),
        ("priorityClassName", &spec.priority_class_name, names::subdomain),
        ("schedulerName", &spec.scheduler_name, names::subdomain),
    ] {
        let value = value.as_deref().unwrap_or_default();
        for problem in if value.is_empty() { Vec::new() } else { rule(value) } {
            errors.invalid(path.child(field), value, problem);
        }
    }
    let secrets = path.child("imagePullSecrets");
    for (index, secret) in spec.image_pull_secrets.iter().flatten().enumerate() {
        if secret.name.is_empty() {
            errors.required(secrets.index(index).child("name"), "");
        }
    }
    let mut seen = BTreeSet::new();
    let gates = path.child("readinessGates");
    for (index, gate) in spec.readiness_gates.iter().flatten().enumerate() {
        let path = gates.index(index);
        let path = path.child("conditionType");
        for problem in names::qualified(&gate.condition_type) {
            errors.invalid(path, &gate.condition_type, problem);
        }
        if !seen.insert(&gate.condition_type) {
            errors.duplicate(path, &gate.condition_type);
        }
    }
}

fn validate_times(spec: &PodSpec, path: Path<'_>, errors: &mut FieldErrors) {
    if let Some(seconds) = spec.active_deadline_seconds
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        let detail = "must be between 1 and 2147483647, inclusive";
        errors.invalid(path.child("activeDeadlineSeconds"), seconds, detail);
    }
    if let Some(seconds) = spec.termination_grace_period_seconds
        && seconds < 0
    {
        errors.invalid(path.child("terminationGracePeriodSeconds"), seconds, NOT_NEGATIVE);
    }
}

fn validate_security(spec: &PodSpec, path: Path<'_>, errors: &mut FieldErrors) {
    if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid(path.child("shareProcessNamespace"), true, detail);
    }
    let Some(context) = &spec.security_context else {
        return;
    };
    for (field, id) in [
        ("runAsUser", context.run_as_user),
        ("runAsGroup", context.run_as_group),
        ("fsGroup", context.fs_group),
    ] {
        validate_id(id, path.child(field), errors);
    }
}

/// A user's or group's number.
pub(crate) fn validate_id(id: Option<i64>, path: Path<'_>, errors: &mut FieldErrors) {
    if let Some(id) = id
        && !(0..=i64::from(i32::MAX)).contains(&id)
    {
        errors.invalid(path, id, "must be between 0 and 2147483647, inclusive");
    }
}
