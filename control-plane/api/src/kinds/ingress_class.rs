//! IngressClass

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{IngressClass, IngressClassParametersReference};
use serde_json::Value;

use crate::builder::{Builder, age_cell, name_cell};
use crate::field::{FieldErrors, Path};
use crate::kind::{Column, Kind};
use crate::names;

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text(
        "Controller",
        "Controller that is responsible for handling this class",
    ),
    Column::text(
        "Parameters",
        "A reference to a resource with additional parameters",
    ),
    Column::AGE,
];
const CONTROLLER_BYTES_MAX: usize = 250;

pub(crate) fn kind() -> Kind {
    Builder::<IngressClass>::cluster_scoped("ingressclass")
        .columns(COLUMNS, cells)
        .defaults(set_defaults)
        .generation(|class| &class.spec)
        .validate(validate)
        .validate_update(validate_update)
        .build()
}

fn set_defaults(class: &mut IngressClass) {
    let parameters = class.spec.as_mut().and_then(|spec| spec.parameters.as_mut());
    if let Some(parameters) = parameters {
        parameters.scope.get_or_insert_with(|| "Cluster".into());
    }
}

fn controller(class: &IngressClass) -> &str {
    let spec = class.spec.as_ref();
    spec.and_then(|spec| spec.controller.as_deref())
        .unwrap_or_default()
}

fn validate(class: &IngressClass, errors: &mut FieldErrors) {
    let spec = Path::root("spec");
    let path = spec.child("controller");
    let own = controller(class);
    if own.len() > CONTROLLER_BYTES_MAX {
        errors.too_long(path, CONTROLLER_BYTES_MAX);
    }
    match own.split_once('/') {
        _ if own.is_empty() => errors.required(path, ""),
        Some((domain, rest)) if !rest.is_empty() => {
            for problem in names::subdomain(domain) {
                errors.invalid(path, own, format!("prefix part {problem}"));
            }
        }
        _ => {
            let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            errors.invalid(path, own, detail);
        }
    }
    if let Some(parameters) = class.spec.as_ref().and_then(|spec| spec.parameters.as_ref()) {
        validate_parameters(parameters, spec.child("parameters"), errors);
    }
}

fn validate_parameters(
    parameters: &IngressClassParametersReference,
    path: Path<'_>,
    errors: &mut FieldErrors,
) {
    for (field, value) in [("kind", &parameters.kind), ("name", &parameters.name)] {
        if value.is_empty() {
            errors.required(path.child(field), "");
        }
    }
    let has_namespace = parameters
        .namespace
        .as_deref()
        .is_some_and(|name| !name.is_empty());
    match parameters.scope.as_deref() {
        Some("Cluster") if has_namespace => {
            let detail = "parameters.scope is set to 'Cluster'";
            errors.forbidden(path.child("namespace"), detail);
        }
        Some("Namespace") if !has_namespace => {
            let detail = "parameters.scope is set to 'Namespace'";
            errors.required(path.child("namespace"), detail);
        }
        Some("Cluster" | "Namespace") => {}
        other => errors.not_supported(
            path.child("scope"),
            other.unwrap_or_default(),
            &["Cluster", "Namespace"],
        ),
    }
}

fn validate_update(new: &IngressClass, old: &IngressClass, errors: &mut FieldErrors) {
    if controller(new) != controller(old) {
        let spec = Path::root("spec");
        errors.invalid(spec.child("controller"), controller(new), "field is immutable");
    }
}

fn cells(class: &IngressClass, now: Timestamp) -> Vec<Value> {
    let parameters = class.spec.as_ref().and_then(|spec| spec.parameters.as_ref());
    let parameters = parameters.map_or_else(|| "<none>".to_owned(), described);
    vec![
        name_cell(&class.metadata),
        controller(class).into(),
        parameters.into(),
        age_cell(&class.metadata, now),
    ]
}

fn described(parameters: &IngressClassParametersReference) -> String {
    let IngressClassParametersReference { kind, name, .. } = parameters;
    match parameters.api_group.as_deref().unwrap_or_default() {
        "" => format!("{kind}/{name}"),
        group => format!("{kind}.{group}/{name}"),
    }
}
