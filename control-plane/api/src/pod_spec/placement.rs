//! What is wrong with where a pod may run.

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Toleration};

use super::validate::one_of;
use crate::field::{FieldErrors, Path};
use crate::{metadata, names};

/// Node selector, affinity, tolerations and spreading.
pub(crate) fn validate(spec: &PodSpec, path: Path<'_>, errors: &mut FieldErrors) {
    metadata::validate_labels(spec.node_selector.as_ref(), path.child("nodeSelector"), errors);
    let list = path.child("tolerations");
    for (index, toleration) in spec.tolerations.iter().flatten().enumerate() {
        validate_toleration(toleration, list.index(index), errors);
    }
    let list = path.child("topologySpreadConstraints");
    for (index, constraint) in spec.topology_spread_constraints.iter().flatten().enumerate() {
        let path = list.index(index);
        if constraint.max_skew <= 0 {
            errors.invalid(
                path.child("maxSkew"),
                constraint.max_skew,
                "must be greater than zero",
            );
        }
        if constraint.topology_key.is_empty() {
            errors.required(path.child("topologyKey"), "can not be empty");
        }
        let supported = ["DoNotSchedule", "ScheduleAnyway"];
        one_of(
            &constraint.when_unsatisfiable,
            &supported,
            path.child("whenUnsatisfiable"),
            errors,
        );
    }
    validate_node_affinity(spec, path.child("affinity"), errors);
}

fn validate_toleration(toleration: &Toleration, path: Path<'_>, errors: &mut FieldErrors) {
    let key = toleration.key.as_deref().unwrap_or_default();
    let operator = toleration.operator.as_deref().unwrap_or_default();
    let value = toleration.value.as_deref().unwrap_or_default();
    let effect = toleration.effect.as_deref().unwrap_or_default();
    if !key.is_empty() {
        for problem in names::qualified(key) {
            errors.invalid(path.child("key"), key, problem);
        }
    } else if operator != "Exists" {
        let detail =
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.invalid(path.child("operator"), operator, detail);
    }
    if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
        let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errors.invalid(path.child("effect"), effect, detail);
    }
    match operator {
        "" | "Equal" => {
            for problem in names::label_value(value) {
                errors.invalid(path.child("operator"), value, problem);
            }
        }
        "Exists" if value.is_empty() => {}
        "Exists" => {
            errors.invalid(
                path.child("operator"),
                value,
                "value must be empty when `operator` is 'Exists'",
            );
        }
        other => errors.not_supported(path.child("operator"), other, &["Equal", "Exists"]),
    }
    if !effect.is_empty() {
        one_of(
            effect,
            &["NoExecute", "NoSchedule", "PreferNoSchedule"],
            path.child("effect"),
            errors,
        );
    }
}

fn validate_node_affinity(spec: &PodSpec, path: Path<'_>, errors: &mut FieldErrors) {
    let Some(affinity) = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref())
    else {
        return;
    };
    let path = path.child("nodeAffinity");
    if let Some(required) = &affinity.required_during_scheduling_ignored_during_execution {
        let path = path.child("requiredDuringSchedulingIgnoredDuringExecution");
        let path = path.child("nodeSelectorTerms");
        if required.node_selector_terms.is_empty() {
            errors.required(path, "must have at least one node selector term");
        }
        for (index, term) in required.node_selector_terms.iter().enumerate() {
            validate_term(term, path.index(index), errors);
        }
    }
    let path = path.child("preferredDuringSchedulingIgnoredDuringExecution");
    let preferred = &affinity.preferred_during_scheduling_ignored_during_execution;
    for (index, term) in preferred.iter().flatten().enumerate() {
        let path = path.index(index);
        if !(1..=100).contains(&term.weight) {
            errors.invalid(path.child("weight"), term.weight, "must be in the range 1-100");
        }
        validate_term(&term.preference, path.child("preference"), errors);
    }
}

fn validate_term(term: &NodeSelectorTerm, path: Path<'_>, errors: &mut FieldErrors) {
    for (field, requirements) in [
        ("matchExpressions", &term.match_expressions),
        ("matchFields", &term.match_fields),
    ] {
        let list = path.child(field);
        for (index, requirement) in requirements.iter().flatten().enumerate() {
            validate_requirement(requirement, list.index(index), errors);
        }
    }
}

fn validate_requirement(requirement: &NodeSelectorRequirement, path: Path<'_>, errors: &mut FieldErrors) {
    let count = requirement.values.as_ref().map_or(0, Vec::len);
    let values = path.child("values");
    match requirement.operator.as_str() {
        "In" | "NotIn" if count == 0 => {
            errors.required(values, "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if count > 0 => {
            errors.forbidden(
                values,
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            );
        }
        "Gt" | "Lt" if count != 1 => {
            errors.required(
                values,
                "must be specified single value when `operator` is 'Lt' or 'Gt'",
            );
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.invalid(path.child("operator"), other, "not a valid selector operator"),
    }
    for problem in names::qualified(&requirement.key) {
        errors.invalid(path.child("key"), &requirement.key, problem);
    }
}
