//! Secret

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;

use super::config_map::{DATA_BYTES_MAX, IMMUTABLE};
use crate::builder::{Builder, age_cell, name_cell};
use crate::field::{FieldErrors, Path, Verbatim};
use crate::kind::{Column, Kind};
use crate::names;

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Type", "Used to facilitate programmatic handling of secret data."),
    Column::integer("Data", "Number of the entries."),
    Column::AGE,
];
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";

pub(crate) fn kind() -> Kind {
    Builder::<Secret>::namespaced("secret")
        .columns(COLUMNS, cells)
        .fields(&[("type", |secret| secret.type_.clone().unwrap_or_default())])
        .defaults(set_defaults)
        .validate(validate)
        .validate_update(validate_update)
        .build()
}

/// `stringData` is for writing only: it lands in `data`.
fn set_defaults(secret: &mut Secret) {
    if secret.type_.as_deref().is_none_or(str::is_empty) {
        secret.type_ = Some("Opaque".into());
    }
    if let Some(text) = secret.string_data.take().filter(|text| !text.is_empty()) {
        let data = secret.data.get_or_insert_default();
        data.extend(
            text.into_iter()
                .map(|(key, value)| (key, ByteString(value.into_bytes()))),
        );
    }
}

/// The entries that a type demands.
fn required_keys(type_: &str) -> &'static [&'static str] {
    match type_ {
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        _ => &[],
    }
}

fn validate(secret: &Secret, errors: &mut FieldErrors) {
    let path = Path::root("data");
    let mut bytes = 0;
    for (key, value) in secret.data.iter().flatten() {
        bytes += value.0.len();
        for problem in names::config_key(key) {
            errors.invalid(path.key(key), key, problem);
        }
    }
    if bytes > DATA_BYTES_MAX {
        errors.too_long(path, DATA_BYTES_MAX);
    }
    let type_ = secret.type_.as_deref().unwrap_or_default();
    let has = |key: &str| secret.data.as_ref().is_some_and(|data| data.contains_key(key));
    for key in required_keys(type_) {
        if !has(key) {
            errors.required(path.key(key), "");
        }
    }
    match type_ {
        "kubernetes.io/service-account-token" => {
            let annotation = secret
                .metadata
                .annotations
                .iter()
                .flatten()
                .find(|(key, _)| *key == ACCOUNT_NAME);
            if annotation.is_none_or(|(_, name)| name.is_empty()) {
                let metadata = Path::root("metadata");
                let annotations = metadata.child("annotations");
                errors.required(annotations.key(ACCOUNT_NAME), "");
            }
        }
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            errors.required(path.key("username"), "");
            errors.required(path.key("password"), "");
        }
        "kubernetes.io/dockercfg" | "kubernetes.io/dockerconfigjson" => validate_json(secret, type_, errors),
        _ => {}
    }
}

fn validate_json(secret: &Secret, type_: &str, errors: &mut FieldErrors) {
    let path = Path::root("data");
    for key in required_keys(type_) {
        let value = secret.data.as_ref().and_then(|data| data.get(*key));
        if let Some(Err(problem)) = value.map(|value| serde_json::from_slice::<Value>(&value.0)) {
            let hidden = Verbatim("<secret contents redacted>".into());
            errors.invalid(path.key(key), hidden, problem.to_string());
        }
    }
}

fn validate_update(new: &Secret, old: &Secret, errors: &mut FieldErrors) {
    if new.type_ != old.type_ {
        let shown = new.type_.as_deref().unwrap_or_default();
        errors.invalid(Path::root("type"), shown, "field is immutable");
    }
    if old.immutable != Some(true) {
        return;
    }
    for (field, changed) in [
        ("immutable", new.immutable != Some(true)),
        ("data", new.data != old.data),
    ] {
        if changed {
            errors.forbidden(Path::root(field), IMMUTABLE);
        }
    }
}

fn cells(secret: &Secret, now: Timestamp) -> Vec<Value> {
    vec![
        name_cell(&secret.metadata),
        secret.type_.clone().unwrap_or_default().into(),
        secret.data.iter().flatten().count().into(),
        age_cell(&secret.metadata, now),
    ]
}
