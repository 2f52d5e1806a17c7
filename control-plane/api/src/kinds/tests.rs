//! The kinds by example: a manifest in, what becomes of it out.

mod cells;
mod defaults;
mod networking;
mod strategies;
mod validation;

use jiff::Timestamp;
use serde_json::Value;

use crate::decode::FieldValidation;
use crate::kind::Kind;
use crate::object::Object;
use crate::registry::registry;
use crate::status::Status;

/// The time at which all tables are printed.
fn now() -> Timestamp {
    "2026-11-21T09:00:00Z".parse().unwrap()
}

/// Reads a manifest as it is.
fn read(manifest: &str) -> (&'static Kind, Box<dyn Object>) {
    let value: Value = serde_yaml::from_str(manifest).unwrap();
    let api_version = value["apiVersion"].as_str().unwrap();
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let kind = registry()
        .by_kind(group, version, value["kind"].as_str().unwrap())
        .unwrap();
    let decoded = kind.decode_value(value, FieldValidation::Strict).unwrap();
    (kind, decoded.object)
}

/// Reads a manifest as a request to create it.
fn create(manifest: &str) -> Result<(&'static Kind, Box<dyn Object>), Status> {
    let (kind, mut object) = read(manifest);
    if kind.namespaced {
        object
            .meta_mut()
            .namespace
            .get_or_insert_with(|| "default".into());
    }
    kind.set_defaults(&mut *object);
    kind.prepare_create(&mut *object);
    kind.validate_create(&*object)?;
    Ok((kind, object))
}

fn yaml(object: &dyn Object) -> String {
    let value: Value = serde_json::from_slice(&object.encode()).unwrap();
    serde_yaml::to_string(&value).unwrap()
}
