//! Tests of the OpenAPI documents.

use serde_json::Value;

use super::*;
use crate::registry;

/// Paths of references in `value` that do not lead to a schema.
fn dangling(value: &Value, document: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(target) = fields.get("$ref").and_then(Value::as_str)
                && document.pointer(&target[1..]).is_none()
            {
                found.push(target.to_owned());
            }
            fields.values().for_each(|field| dangling(field, document, found));
        }
        Value::Array(elements) => elements
            .iter()
            .for_each(|element| dangling(element, document, found)),
        _ => {}
    }
}

#[test]
fn every_kind_has_a_schema_and_every_reference_a_target() {
    let document = v2();
    for kind in registry().all() {
        let name = schema_name(kind.group, kind.version, kind.kind);
        let schema = &document["definitions"][&name];
        let identity = &schema["x-kubernetes-group-version-kind"][0];
        assert_eq!(identity["kind"], kind.kind, "{name}");
        assert_eq!(identity["group"], kind.group, "{name}");
    }
    let mut found = Vec::new();
    dangling(&document, &document, &mut found);
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn each_group_has_a_complete_document_of_its_own() {
    for (group, version) in registry().groups() {
        let document = v3(group, version).unwrap();
        let mut found = Vec::new();
        dangling(&document, &document, &mut found);
        assert_eq!(found, Vec::<String>::new(), "{group}");
    }
    assert_eq!(v3("nowhere", "v1"), None);
}

#[test]
fn fields_tell_how_they_are_merged() {
    let containers = v2()["definitions"]["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"].clone();
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
}

#[test]
fn described_references_are_wrapped_in_v3() {
    let document = v3("apps", "v1").unwrap();
    let spec = &document["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"]["properties"]["spec"];
    assert_eq!(
        spec["allOf"][0]["$ref"],
        "#/components/schemas/io.k8s.api.apps.v1.DeploymentSpec"
    );
    assert!(spec["description"].is_string());
}
