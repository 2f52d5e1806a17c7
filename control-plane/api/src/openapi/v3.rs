//! OpenAPI v3: a document for each group's version, and the index of them.

use serde_json::{Map, Value, json};

use super::schemas::{self, Dialect};
use super::{VERSION, group_path, paths};
use crate::registry;

/// The path of each document, like `api/v1` and `apis/apps/v1`.
pub fn index() -> Vec<String> {
    registry()
        .groups()
        .iter()
        .map(|(group, version)| group_path(group, version))
        .collect()
}

/// The document of one group's version, if there is such a group.
pub fn document(group: &str, version: &str) -> Option<Value> {
    let kinds = registry()
        .all()
        .filter(|kind| (kind.group, kind.version) == (group, version));
    let paths: Map<String, Value> = kinds.flat_map(|kind| paths::of(Dialect::V3, kind)).collect();
    if paths.is_empty() {
        return None;
    }
    let schemas = needed(&paths, &schemas::all(Dialect::V3));
    Some(json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": VERSION},
        "paths": paths,
        "components": {"schemas": schemas},
    }))
}

/// The schemas that the paths refer to, directly or through others.
fn needed(paths: &Map<String, Value>, schemas: &Map<String, Value>) -> Map<String, Value> {
    let mut found = Map::new();
    let mut todo: Vec<&str> = Vec::new();
    paths.values().for_each(|path| references(path, &mut todo));
    while let Some(name) = todo.pop() {
        if found.contains_key(name) {
            continue;
        }
        if let Some(schema) = schemas.get(name) {
            found.insert(name.to_owned(), schema.clone());
            references(schema, &mut todo);
        }
    }
    found
}

fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            let target = fields.get("$ref").and_then(Value::as_str);
            found.extend(target.and_then(|target| target.strip_prefix("#/components/schemas/")));
            fields.values().for_each(|field| references(field, found));
        }
        Value::Array(elements) => elements.iter().for_each(|element| references(element, found)),
        _ => {}
    }
}
