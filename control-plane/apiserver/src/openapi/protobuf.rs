//! OpenAPI v2 in the protobuf form that kubectl up to 1.2x insists on: gnostic's `openapi.v2.Document`.
//!
//! Pure. Only the fields that our documents use are declared; the numbers are gnostic's.

use prost::{Message, Oneof};
use serde_json::{Map, Value};

#[derive(Clone, PartialEq, Message)]
struct Document {
    #[prost(string, tag = "1")]
    swagger: String,
    #[prost(message, optional, tag = "2")]
    info: Option<Info>,
    #[prost(message, optional, tag = "8")]
    paths: Option<Paths>,
    #[prost(message, optional, tag = "9")]
    definitions: Option<Properties>,
}

#[derive(Clone, PartialEq, Message)]
struct Info {
    #[prost(string, tag = "1")]
    title: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct Paths {
    #[prost(message, repeated, tag = "2")]
    path: Vec<NamedPathItem>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedPathItem {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<PathItem>,
}

#[derive(Clone, PartialEq, Message)]
struct PathItem {
    #[prost(message, optional, tag = "2")]
    get: Option<Operation>,
    #[prost(message, optional, tag = "3")]
    put: Option<Operation>,
    #[prost(message, optional, tag = "4")]
    post: Option<Operation>,
    #[prost(message, optional, tag = "5")]
    delete: Option<Operation>,
    #[prost(message, optional, tag = "8")]
    patch: Option<Operation>,
}

#[derive(Clone, PartialEq, Message)]
struct Operation {
    #[prost(string, tag = "5")]
    operation_id: String,
    #[prost(message, repeated, tag = "8")]
    parameters: Vec<ParametersItem>,
    #[prost(message, repeated, tag = "13")]
    vendor_extension: Vec<NamedAny>,
}

#[derive(Clone, PartialEq, Message)]
struct ParametersItem {
    #[prost(message, optional, tag = "1")]
    parameter: Option<Parameter>,
}

#[derive(Clone, PartialEq, Message)]
struct Parameter {
    #[prost(message, optional, tag = "2")]
    non_body_parameter: Option<NonBodyParameter>,
}

#[derive(Clone, PartialEq, Message)]
struct NonBodyParameter {
    #[prost(message, optional, tag = "3")]
    query_parameter: Option<QueryParameter>,
}

#[derive(Clone, PartialEq, Message)]
struct QueryParameter {
    #[prost(string, tag = "2")]
    place: String,
    #[prost(string, tag = "4")]
    name: String,
    #[prost(string, tag = "6")]
    type_: String,
}

#[derive(Clone, PartialEq, Message)]
struct NamedAny {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyYaml>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyYaml {
    #[prost(string, tag = "2")]
    yaml: String,
}

#[derive(Clone, PartialEq, Message)]
struct Schema {
    #[prost(string, tag = "1")]
    reference: String,
    #[prost(string, tag = "2")]
    format: String,
    #[prost(string, tag = "4")]
    description: String,
    #[prost(string, repeated, tag = "19")]
    required: Vec<String>,
    #[prost(message, optional, boxed, tag = "21")]
    additional_properties: Option<Box<AdditionalProperties>>,
    #[prost(message, optional, tag = "22")]
    type_: Option<TypeItem>,
    #[prost(message, optional, tag = "23")]
    items: Option<ItemsItem>,
    #[prost(message, optional, tag = "25")]
    properties: Option<Properties>,
    #[prost(message, repeated, tag = "31")]
    vendor_extension: Vec<NamedAny>,
}

#[derive(Clone, PartialEq, Message)]
struct AdditionalProperties {
    #[prost(oneof = "AdditionalSchema", tags = "1, 2")]
    kind: Option<AdditionalSchema>,
}

#[derive(Clone, PartialEq, Oneof)]
enum AdditionalSchema {
    #[prost(message, boxed, tag = "1")]
    Schema(Box<Schema>),
    #[prost(bool, tag = "2")]
    Boolean(bool),
}

#[derive(Clone, PartialEq, Message)]
struct TypeItem {
    #[prost(string, repeated, tag = "1")]
    value: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct ItemsItem {
    #[prost(message, repeated, tag = "1")]
    schema: Vec<Schema>,
}

#[derive(Clone, PartialEq, Message)]
struct Properties {
    #[prost(message, repeated, tag = "1")]
    additional_properties: Vec<NamedSchema>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedSchema {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Schema>,
}

/// The protobuf form of an OpenAPI v2 document.
pub(super) fn encode(document: &Value) -> Vec<u8> {
    Document {
        swagger: text(document, "swagger"),
        info: Some(Info {
            title: text(&document["info"], "title"),
            version: text(&document["info"], "version"),
        }),
        paths: Some(Paths {
            path: fields(&document["paths"]).map(path_item).collect(),
        }),
        definitions: Some(properties(&document["definitions"])),
    }
    .encode_to_vec()
}

fn text(object: &Value, field: &str) -> String {
    object
        .get(field)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

fn fields(object: &Value) -> impl Iterator<Item = (&String, &Value)> {
    object.as_object().into_iter().flat_map(Map::iter)
}

fn path_item((name, item): (&String, &Value)) -> NamedPathItem {
    let method = |name: &str| item.get(name).map(operation);
    NamedPathItem {
        name: name.clone(),
        value: Some(PathItem {
            get: method("get"),
            put: method("put"),
            post: method("post"),
            delete: method("delete"),
            patch: method("patch"),
        }),
    }
}

fn operation(operation: &Value) -> Operation {
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    Operation {
        operation_id: text(operation, "operationId"),
        parameters: parameters.map(parameter).collect(),
        vendor_extension: extensions(operation),
    }
}

fn parameter(parameter: &Value) -> ParametersItem {
    let query_parameter = QueryParameter {
        place: text(parameter, "in"),
        name: text(parameter, "name"),
        type_: text(parameter, "type"),
    };
    let non_body_parameter = NonBodyParameter {
        query_parameter: Some(query_parameter),
    };
    ParametersItem {
        parameter: Some(Parameter {
            non_body_parameter: Some(non_body_parameter),
        }),
    }
}

fn properties(object: &Value) -> Properties {
    let named = fields(object).map(|(name, value)| NamedSchema {
        name: name.clone(),
        value: Some(schema(value)),
    });
    Properties {
        additional_properties: named.collect(),
    }
}

fn schema(value: &Value) -> Schema {
    let required = value["required"].as_array().into_iter().flatten();
    Schema {
        reference: text(value, "$ref"),
        format: text(value, "format"),
        description: text(value, "description"),
        required: required.filter_map(Value::as_str).map(str::to_owned).collect(),
        additional_properties: value
            .get("additionalProperties")
            .map(|found| Box::new(additional(found))),
        type_: value.get("type").map(|_| TypeItem {
            value: vec![text(value, "type")],
        }),
        items: value.get("items").map(|items| ItemsItem {
            schema: vec![schema(items)],
        }),
        properties: value.get("properties").map(properties),
        vendor_extension: extensions(value),
    }
}

fn additional(value: &Value) -> AdditionalProperties {
    let kind = match value {
        Value::Bool(allowed) => AdditionalSchema::Boolean(*allowed),
        other => AdditionalSchema::Schema(Box::new(schema(other))),
    };
    AdditionalProperties { kind: Some(kind) }
}

/// Extensions travel as YAML, of which JSON is a part.
fn extensions(object: &Value) -> Vec<NamedAny> {
    let found = fields(object).filter(|(name, _)| name.starts_with("x-"));
    found
        .map(|(name, value)| NamedAny {
            name: name.clone(),
            value: Some(AnyYaml {
                yaml: value.to_string(),
            }),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_survives_its_protobuf_form() {
        let bytes = encode(&flotilla_api::openapi::v2());
        let document = Document::decode(bytes.as_slice()).unwrap();
        let definitions = document.definitions.unwrap().additional_properties;
        let spec = definitions
            .iter()
            .find(|one| one.name == "io.k8s.api.core.v1.PodSpec")
            .unwrap();
        let fields = spec
            .value
            .clone()
            .unwrap()
            .properties
            .unwrap()
            .additional_properties;
        let containers = fields
            .iter()
            .find(|one| one.name == "containers")
            .unwrap()
            .value
            .clone()
            .unwrap();
        assert_eq!(
            containers.items.unwrap().schema[0].reference,
            "#/definitions/io.k8s.api.core.v1.Container"
        );
        let key = containers
            .vendor_extension
            .iter()
            .find(|one| one.name == "x-kubernetes-patch-merge-key");
        assert_eq!(key.unwrap().value.clone().unwrap().yaml, "\"name\"");
        assert!(
            document
                .paths
                .unwrap()
                .path
                .iter()
                .any(|path| path.value.clone().unwrap().patch.is_some())
        );
    }
}
