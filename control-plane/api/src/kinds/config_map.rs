//! ConfigMap

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::Value;

use crate::builder::{Builder, age_cell, name_cell};
use crate::field::{FieldErrors, Path};
use crate::kind::{Column, Kind};
use crate::names;

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::integer("Data", "Number of the entries, of text and of bytes."),
    Column::AGE,
];
/// The most that a config map or secret may hold.
pub(super) const DATA_BYTES_MAX: usize = 1024 * 1024;
/// Why a config map or secret may not change.
pub(super) const IMMUTABLE: &str = "field is immutable when `immutable` is set";

pub(crate) fn kind() -> Kind {
    Builder::<ConfigMap>::namespaced("configmap")
        .short_names(&["cm"])
        .columns(COLUMNS, cells)
        .validate(validate)
        .validate_update(validate_update)
        .build()
}

fn validate(map: &ConfigMap, errors: &mut FieldErrors) {
    let mut bytes = 0;
    let path = Path::root("data");
    for (key, value) in map.data.iter().flatten() {
        bytes += value.len();
        for problem in names::config_key(key) {
            errors.invalid(path.key(key), key, problem);
        }
        if map
            .binary_data
            .as_ref()
            .is_some_and(|other| other.contains_key(key))
        {
            errors.invalid(path.key(key), key, "duplicate of key present in binaryData");
        }
    }
    let path = Path::root("binaryData");
    for (key, value) in map.binary_data.iter().flatten() {
        bytes += value.0.len();
        for problem in names::config_key(key) {
            errors.invalid(path.key(key), key, problem);
        }
    }
    if bytes > DATA_BYTES_MAX {
        errors.too_long(Path::root("[]"), DATA_BYTES_MAX);
    }
}

fn validate_update(new: &ConfigMap, old: &ConfigMap, errors: &mut FieldErrors) {
    if old.immutable != Some(true) {
        return;
    }
    for (field, changed) in [
        ("immutable", new.immutable != Some(true)),
        ("data", new.data != old.data),
        ("binaryData", new.binary_data != old.binary_data),
    ] {
        if changed {
            errors.forbidden(Path::root(field), IMMUTABLE);
        }
    }
}

fn cells(map: &ConfigMap, now: Timestamp) -> Vec<Value> {
    let count = map.data.iter().flatten().count() + map.binary_data.iter().flatten().count();
    vec![
        name_cell(&map.metadata),
        count.into(),
        age_cell(&map.metadata, now),
    ]
}
