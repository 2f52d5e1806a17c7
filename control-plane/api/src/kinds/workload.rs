//! What workloads that make pods from a template have in common.

use std::collections::BTreeMap;

use k8s_openapi::api::autoscaling::v1::{Scale, ScaleSpec, ScaleStatus};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use crate::field::{FieldErrors, Path, Quoted, Verbatim};
use crate::kind::Column;
use crate::pod_spec;
use crate::{int_or_string, metadata, names, selector};

pub(super) const CONTAINERS: Column = Column::wide("Containers", "Names of each container in the template.");
pub(super) const IMAGES: Column =
    Column::wide("Images", "Images referenced by each container in the template.");
pub(super) const SELECTOR: Column = Column::wide("Selector", "Label selector for pods.");
const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

/// The template's defaults.
pub(super) fn set_template_defaults(template: &mut PodTemplateSpec) {
    pod_spec::set_defaults(template.spec.get_or_insert_default());
}

/// The cells under [`CONTAINERS`] and [`IMAGES`].
pub(super) fn container_cells(template: Option<&PodTemplateSpec>) -> [Value; 2] {
    let spec = template.and_then(|template| template.spec.as_ref());
    let containers = spec.map_or(&[][..], |spec| &spec.containers);
    let names: Vec<&str> = containers
        .iter()
        .map(|container| container.name.as_str())
        .collect();
    let images: Vec<&str> = containers
        .iter()
        .map(|container| container.image.as_deref().unwrap_or_default())
        .collect();
    [names.join(",").into(), images.join(",").into()]
}

/// The selector as text, `<none>` when empty.
pub(super) fn selector_text(field: &LabelSelector) -> String {
    selector::LabelSelector::from_field(Some(field)).map_or_else(|_| "<error>".into(), |own| own.to_string())
}

/// A workload's scale.
pub(super) fn scale(meta: &ObjectMeta, wanted: Option<i32>, actual: i32, selector: String) -> Scale {
    Scale {
        metadata: ObjectMeta {
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            creation_timestamp: meta.creation_timestamp.clone(),
            ..ObjectMeta::default()
        },
        spec: Some(ScaleSpec {
            replicas: wanted.or(Some(1)),
        }),
        status: Some(ScaleStatus {
            replicas: actual,
            selector: Some(selector),
        }),
    }
}

/// A number that may not be below zero.
pub(super) fn not_negative(value: Option<i32>, path: Path<'_>, errors: &mut FieldErrors) {
    if let Some(value) = value.filter(|value| *value < 0) {
        errors.invalid(path, value, NOT_NEGATIVE);
    }
}

/// The number before the percent sign, where there is one.
pub(super) fn percent(value: &IntOrString) -> Option<u32> {
    match value {
        IntOrString::Int(_) => None,
        IntOrString::String(text) => int_or_string::percentage(text),
    }
}

/// Whether this is nothing of any number.
pub(super) fn is_zero(value: &IntOrString) -> bool {
    *value == IntOrString::Int(0) || percent(value) == Some(0)
}

/// The value as Kubernetes quotes it.
pub(super) fn shown(value: &IntOrString) -> Verbatim {
    match value {
        IntOrString::Int(number) => Verbatim(number.to_string()),
        IntOrString::String(text) => Verbatim(text.quoted()),
    }
}

/// A number of pods, or a percentage of them.
pub(super) fn validate_share(value: &IntOrString, path: Path<'_>, errors: &mut FieldErrors) {
    match value {
        IntOrString::Int(number) => not_negative(Some(*number), path, errors),
        IntOrString::String(text) if int_or_string::percentage(text).is_none() => {
            let detail = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
            errors.invalid(path, text, detail);
        }
        IntOrString::String(_) => {}
    }
}

/// Selector and template of a deployment or replica set; Kubernetes has the same words for both.
pub(super) fn validate_pods(field: &LabelSelector, template: &PodTemplateSpec, errors: &mut FieldErrors) {
    validate_selector_of(field, "deployment", errors);
    validate_template_of(field, template, "ReplicaSet", errors);
}

/// The selector of a workload, which may not be empty.
pub(super) fn validate_selector_of(field: &LabelSelector, what: &str, errors: &mut FieldErrors) {
    let spec = Path::root("spec");
    validate_selector(field, spec.child("selector"), errors);
    if *field == LabelSelector::default() {
        let detail = format!("empty selector is invalid for {what}");
        errors.invalid(spec.child("selector"), Verbatim("{}".into()), detail);
    }
}

/// A template whose pods the selector finds, and which are always restarted.
pub(super) fn validate_template_of(
    field: &LabelSelector,
    template: &PodTemplateSpec,
    what: &str,
    errors: &mut FieldErrors,
) {
    let labels = template.metadata.as_ref().and_then(|meta| meta.labels.as_ref());
    let matches =
        selector::LabelSelector::from_field(Some(field)).is_ok_and(|own| own.matches_optional(labels));
    let spec = Path::root("spec");
    let path = spec.child("template");
    if !matches {
        label_mismatch(labels, path, errors);
    }
    pod_spec::validate_template(template, path, errors);
    validate_endless(template, path.child("spec"), what, errors);
}

/// `selector` does not match template `labels`.
pub(super) fn label_mismatch(
    labels: Option<&BTreeMap<String, String>>,
    template: Path<'_>,
    errors: &mut FieldErrors,
) {
    let path = template.child("metadata");
    let detail = "`selector` does not match template `labels`";
    errors.invalid(path.child("labels"), Verbatim(go_map(labels)), detail);
}

/// Pods of these workloads are always restarted and have no deadline.
pub(super) fn validate_endless(
    template: &PodTemplateSpec,
    path: Path<'_>,
    what: &str,
    errors: &mut FieldErrors,
) {
    let Some(spec) = &template.spec else {
        return;
    };
    let policy = spec.restart_policy.as_deref().unwrap_or_default();
    if matches!(policy, "OnFailure" | "Never") {
        errors.not_supported(path.child("restartPolicy"), policy, &["Always"]);
    }
    if spec.active_deadline_seconds.is_some() {
        let detail = format!("activeDeadlineSeconds in {what} is not Supported");
        errors.forbidden(path.child("activeDeadlineSeconds"), detail);
    }
}

/// A map as Go prints it in messages.
fn go_map(labels: Option<&BTreeMap<String, String>>) -> String {
    let entries = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key:?}:{value:?}"));
    match labels {
        None => "map[string]string(nil)".to_owned(),
        Some(_) => format!("map[string]string{{{}}}", entries.collect::<Vec<_>>().join(", ")),
    }
}

pub(super) fn validate_selector(field: &LabelSelector, path: Path<'_>, errors: &mut FieldErrors) {
    metadata::validate_labels(field.match_labels.as_ref(), path.child("matchLabels"), errors);
    let list = path.child("matchExpressions");
    for (index, expression) in field.match_expressions.iter().flatten().enumerate() {
        let path = list.index(index);
        let count = expression.values.as_ref().map_or(0, Vec::len);
        match expression.operator.as_str() {
            "In" | "NotIn" if count == 0 => {
                let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.required(path.child("values"), detail);
            }
            "Exists" | "DoesNotExist" if count > 0 => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.forbidden(path.child("values"), detail);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.invalid(path.child("operator"), other, "not a valid selector operator"),
        }
        for problem in names::qualified(&expression.key) {
            errors.invalid(path.child("key"), &expression.key, problem);
        }
    }
}

/// The selector may not change.
pub(super) fn same_selector(new: &LabelSelector, old: &LabelSelector, errors: &mut FieldErrors) {
    if new != old {
        let spec = Path::root("spec");
        let shown = serde_json::to_string(new).unwrap_or_default();
        errors.invalid(spec.child("selector"), Verbatim(shown), "field is immutable");
    }
}
