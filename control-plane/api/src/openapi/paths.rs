//! What can be asked of each path, as clients look it up: kubectl searches the operations for the parameters
//! `dryRun` and `fieldValidation` before it relies on them.

use serde_json::{Map, Value, json};

use super::schemas::{Dialect, identity};
use super::{group_path, schema_name};
use crate::Kind;

/// The paths of a kind with their operations.
pub(super) fn of(dialect: Dialect, kind: &Kind) -> Vec<(String, Value)> {
    let base = group_path(kind.group, kind.version);
    let collection = match kind.namespaced {
        true => format!("/{base}/namespaces/{{namespace}}/{}", kind.resource),
        false => format!("/{base}/{}", kind.resource),
    };
    let item = format!("{collection}/{{name}}");
    let mut paths = vec![
        (
            collection.clone(),
            path(
                dialect,
                kind,
                &collection,
                &[
                    ("get", "list"),
                    ("post", "create"),
                    ("delete", "deletecollection"),
                ],
            ),
        ),
        (
            item.clone(),
            path(
                dialect,
                kind,
                &item,
                &[
                    ("get", "get"),
                    ("put", "update"),
                    ("patch", "patch"),
                    ("delete", "delete"),
                ],
            ),
        ),
    ];
    for subresource in kind
        .subresources
        .iter()
        .filter(|one| one.verbs.contains(&"patch"))
    {
        let below = format!("{item}/{}", subresource.name);
        let operations = path(
            dialect,
            kind,
            &below,
            &[("get", "get"), ("put", "update"), ("patch", "patch")],
        );
        paths.push((below, operations));
    }
    paths
}

fn path(dialect: Dialect, kind: &Kind, path: &str, operations: &[(&str, &str)]) -> Value {
    let mut found: Map<String, Value> = operations
        .iter()
        .filter(|(_, verb)| kind.verbs.contains(verb))
        .map(|(method, verb)| ((*method).to_owned(), operation(dialect, kind, path, verb)))
        .collect();
    let parameters: Vec<Value> = ["namespace", "name"]
        .iter()
        .filter(|name| path.contains(&format!("{{{name}}}")))
        .map(|name| parameter(dialect, name, "path"))
        .collect();
    found.insert("parameters".to_owned(), parameters.into());
    Value::Object(found)
}

fn operation(dialect: Dialect, kind: &Kind, path: &str, verb: &str) -> Value {
    let names: &[&str] = match verb {
        "create" | "update" => &["dryRun", "fieldManager", "fieldValidation"],
        "patch" => &["dryRun", "fieldManager", "fieldValidation", "force"],
        "delete" => &["dryRun", "gracePeriodSeconds", "propagationPolicy"],
        "list" | "deletecollection" => &[
            "continue",
            "fieldSelector",
            "labelSelector",
            "limit",
            "resourceVersion",
            "watch",
        ],
        _ => &[],
    };
    let parameters: Vec<Value> = names
        .iter()
        .map(|name| parameter(dialect, name, "query"))
        .collect();
    let answer = match verb {
        "list" => schema_name(kind.group, kind.version, kind.list_kind),
        "delete" | "deletecollection" => "io.k8s.apimachinery.pkg.apis.meta.v1.Status".to_owned(),
        _ => schema_name(kind.group, kind.version, kind.kind),
    };
    let action = match verb {
        "create" => "post",
        "update" => "put",
        other => other,
    };
    json!({
        "operationId": operation_id(kind, path, verb),
        "parameters": parameters,
        "responses": {"200": response(dialect, &answer)},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": identity(kind.group, kind.version, kind.kind),
    })
}

fn operation_id(kind: &Kind, path: &str, verb: &str) -> String {
    let part = path
        .rsplit("{name}/")
        .next()
        .filter(|part| *part != path)
        .unwrap_or_default();
    let group = kind
        .group
        .split('.')
        .next()
        .filter(|group| !group.is_empty())
        .unwrap_or("core");
    format!("{verb}{group}{}{}{part}", kind.version, kind.kind)
}

fn parameter(dialect: Dialect, name: &str, place: &str) -> Value {
    let type_ = match name {
        "limit" | "gracePeriodSeconds" => "integer",
        "watch" | "force" => "boolean",
        _ => "string",
    };
    let mut parameter = json!({"name": name, "in": place});
    match dialect {
        Dialect::V2 => parameter["type"] = type_.into(),
        Dialect::V3 => parameter["schema"] = json!({"type": type_}),
    }
    if place == "path" {
        parameter["required"] = true.into();
    }
    parameter
}

fn response(dialect: Dialect, schema: &str) -> Value {
    match dialect {
        Dialect::V2 => {
            json!({"description": "OK", "schema": {"$ref": format!("#/definitions/{schema}")}})
        }
        Dialect::V3 => {
            let schema = json!({"schema": {"$ref": format!("#/components/schemas/{schema}")}});
            json!({"description": "OK", "content": {"application/json": schema}})
        }
    }
}
