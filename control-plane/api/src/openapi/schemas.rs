//! The types' schemas with Kubernetes' extensions, in the form of either version of OpenAPI.

use serde_json::{Map, Value, json};

use super::schema_name;
use crate::{Kind, patch, registry};

const SCHEMAS: &[u8] = include_bytes!("../../openapi/schemas.json");
/// Those of `metrics.k8s.io`, which is no part of the generated types.
const METRICS: &[u8] = include_bytes!("../../openapi/metrics.json");
/// Those of `flotilla.dev`.
const OWN: &[u8] = include_bytes!("../../openapi/flotilla.json");

/// Groups of bodies that are not kinds of the registry.
const OTHER_GROUPS: &[&str] = &[
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "policy",
];

/// Which dialect of OpenAPI a schema is written for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    V2,
    V3,
}

/// Every schema by its name, with lists of the registry's kinds.
pub(super) fn all(dialect: Dialect) -> Map<String, Value> {
    let read = |json: &[u8]| -> Map<String, Value> {
        serde_json::from_slice(json).expect("the schemas are part of the program, and read by a test")
    };
    let mut all: Map<String, Value> = read(SCHEMAS)
        .into_iter()
        .chain(read(METRICS))
        .chain(read(OWN))
        .map(|(name, schema)| {
            let finished = extended(dialect, &name, schema);
            (name, finished)
        })
        .collect();
    for kind in registry().all() {
        let name = schema_name(kind.group, kind.version, kind.list_kind);
        all.insert(name, translated(dialect, list(kind)));
    }
    all
}

/// Group, version and kind as the extensions have them.
pub(super) fn identity(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "kind": kind, "version": version})
}

fn extended(dialect: Dialect, name: &str, mut schema: Value) -> Value {
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        for (field, property) in properties {
            add_merging(name, field, property);
        }
    }
    if let Some(identity) = identity_of(name, &schema) {
        schema["x-kubernetes-group-version-kind"] = json!([identity]);
    }
    match (dialect, name.rsplit('.').next()) {
        (Dialect::V3, Some("IntOrString")) => {
            json!({"description": schema["description"], "format": "int-or-string",
                   "oneOf": [{"type": "integer"}, {"type": "string"}]})
        }
        (Dialect::V3, Some("Quantity")) => {
            json!({"description": schema["description"], "oneOf": [{"type": "string"}, {"type": "number"}]})
        }
        _ => translated(dialect, schema),
    }
}

fn add_merging(schema: &str, field: &str, property: &mut Value) {
    let merging = patch::merging(schema, field);
    if let Some(strategy) = merging.strategy() {
        property["x-kubernetes-patch-strategy"] = strategy.into();
    }
    if let Some(key) = merging.key {
        property["x-kubernetes-patch-merge-key"] = key.into();
    }
}

/// The kind that a schema of `io.k8s.api` is the body of.
fn identity_of(name: &str, schema: &Value) -> Option<Value> {
    let properties = schema.get("properties")?;
    properties.get("apiVersion").and(properties.get("kind"))?;
    let mut parts = name.strip_prefix("io.k8s.api.")?.splitn(3, '.');
    let (package, version, kind) = (parts.next()?, parts.next()?, parts.next()?);
    if package == "core" && !is_core_body(kind) {
        return None;
    }
    let groups = registry().groups();
    let known = groups
        .iter()
        .map(|(group, _)| *group)
        .chain(OTHER_GROUPS.iter().copied());
    let group = match package {
        "core" => "",
        package => known
            .filter(|group| !group.is_empty())
            .find(|group| group.split('.').next() == Some(package))?,
    };
    Some(identity(group, version, kind))
}

/// References like `ObjectReference` also name an apiVersion and a kind, but are no bodies.
fn is_core_body(kind: &str) -> bool {
    kind == "Binding" || registry().by_kind("", "v1", kind).is_some()
}

fn list(kind: &Kind) -> Value {
    json!({
        "description": format!("{} is a list of {}.", kind.list_kind, kind.resource),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": "APIVersion defines the versioned schema of this representation of an object."},
            "items": {"type": "array", "description": format!("List of {}.", kind.resource),
                      "items": {"$ref": schema_name(kind.group, kind.version, kind.kind)}},
            "kind": {"type": "string", "description": "Kind is a string value representing the REST resource this object represents."},
            "metadata": {"$ref": "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta", "description": "Standard list metadata."},
        },
        "x-kubernetes-group-version-kind": [identity(kind.group, kind.version, kind.list_kind)],
    })
}

/// The schema with its references in the dialect's form.
///
/// OpenAPI v3 ignores what stands beside a reference, so Kubernetes wraps those that have a description.
fn translated(dialect: Dialect, schema: Value) -> Value {
    match schema {
        Value::Object(mut fields) => {
            let target = match fields.get("$ref") {
                Some(Value::String(target)) => Some(target.clone()),
                _ => None,
            };
            let Some(target) = target else {
                return fields
                    .into_iter()
                    .map(|(name, value)| (name, translated(dialect, value)))
                    .collect();
            };
            match dialect {
                Dialect::V2 => {
                    fields.insert("$ref".to_owned(), format!("#/definitions/{target}").into());
                }
                Dialect::V3 => {
                    fields.remove("$ref");
                    let reference = json!({"$ref": format!("#/components/schemas/{target}")});
                    if fields.is_empty() {
                        return reference;
                    }
                    fields.insert("allOf".to_owned(), json!([reference]));
                }
            }
            Value::Object(fields)
        }
        Value::Array(elements) => elements
            .into_iter()
            .map(|element| translated(dialect, element))
            .collect(),
        other => other,
    }
}
