//! What is wrong with environments.

use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource};

use crate::field::{FieldErrors, Path};
use crate::names;

const FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// `env` and `envFrom` of a container at `path`.
pub(crate) fn validate(container: &Container, path: Path<'_>, errors: &mut FieldErrors) {
    let list = path.child("env");
    for (index, variable) in container.env.iter().flatten().enumerate() {
        let path = list.index(index);
        if variable.name.is_empty() {
            errors.required(path.child("name"), "");
        } else {
            for problem in names::env_name(&variable.name) {
                errors.invalid(path.child("name"), &variable.name, problem);
            }
        }
        if let Some(source) = &variable.value_from {
            validate_source(variable, source, path.child("valueFrom"), errors);
        }
    }
    let list = path.child("envFrom");
    for (index, from) in container.env_from.iter().flatten().enumerate() {
        let path = list.index(index);
        let map = from
            .config_map_ref
            .as_ref()
            .map(|map| ("configMapRef", map.name.as_str()));
        let secret = from
            .secret_ref
            .as_ref()
            .map(|secret| ("secretRef", secret.name.as_str()));
        match (map, secret) {
            (None, None) => {
                errors.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`");
            }
            (Some(_), Some(_)) => {
                errors.invalid(path, "", "may not have more than one field specified at a time");
            }
            (Some((field, name)), None) | (None, Some((field, name))) => {
                required(name, path.child(field).child("name"), errors);
            }
        }
    }
}

fn required(value: &str, path: Path<'_>, errors: &mut FieldErrors) {
    if value.is_empty() {
        errors.required(path, "");
    }
}

fn validate_source(variable: &EnvVar, source: &EnvVarSource, path: Path<'_>, errors: &mut FieldErrors) {
    let present = [
        source.field_ref.is_some(),
        source.resource_field_ref.is_some(),
        source.config_map_key_ref.is_some(),
        source.secret_key_ref.is_some(),
        source.file_key_ref.is_some(),
    ];
    let count = present.iter().filter(|is_set| **is_set).count();
    if count == 0 {
        let detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        errors.invalid(path, "", detail);
    } else if count > 1 {
        errors.invalid(path, "", "may not have more than one field specified at a time");
    } else if variable.value.as_deref().is_some_and(|value| !value.is_empty()) {
        errors.invalid(path, "", "may not be specified when `value` is not empty");
    }
    if let Some(field) = &source.field_ref {
        let path = path.child("fieldRef");
        validate_field_path(&field.field_path, path.child("fieldPath"), errors);
    }
    if let Some(resource) = &source.resource_field_ref {
        let path = path.child("resourceFieldRef");
        required(&resource.resource, path.child("resource"), errors);
    }
    if let Some(key) = &source.config_map_key_ref {
        validate_key(&key.name, &key.key, path.child("configMapKeyRef"), errors);
    }
    if let Some(key) = &source.secret_key_ref {
        validate_key(&key.name, &key.key, path.child("secretKeyRef"), errors);
    }
}

fn validate_field_path(field: &str, path: Path<'_>, errors: &mut FieldErrors) {
    let plain = field.split_once("['").map_or(field, |(plain, _)| plain);
    let needs_key = matches!(plain, "metadata.labels" | "metadata.annotations");
    if field.is_empty() {
        errors.required(path, "");
    } else if !FIELDS.contains(&plain) || needs_key != (plain != field && field.ends_with("']")) {
        errors.not_supported(path, field, FIELDS);
    }
}

fn validate_key(name: &str, key: &str, path: Path<'_>, errors: &mut FieldErrors) {
    required(name, path.child("name"), errors);
    if key.is_empty() {
        errors.required(path.child("key"), "");
        return;
    }
    for problem in names::config_key(key) {
        errors.invalid(path.child("key"), key, problem);
    }
}
