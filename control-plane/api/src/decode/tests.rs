//! Tests of decoding: what is refused, and by which path it is named.

use expect_test::{Expect, expect};
use k8s_openapi::api::core::v1::Event;

use super::{FieldValidation, body};
use crate::registry::registry;

fn check(validation: FieldValidation, json: &str, expected: &Expect) {
    let kind = registry().by_kind("apps", "v1", "Deployment").unwrap();
    expected.assert_eq(&match kind.decode(json.as_bytes(), validation) {
        Ok(decoded) => format!("warnings: {}", decoded.warnings.join(", ")),
        Err(error) => error.message,
    });
}

const UNKNOWN: &str = r#"{"metadata":{"name":"a","nmae":"b"},"spec":{"foo":1,"template":{"spec":{"containers":[{},{"imge":"x"}]}}}}"#;
const DUPLICATE: &str =
    r#"{"metadata":{"name":"a","name":"b","labels":{"a":"1","a":"2"}},"spec":{"replicas":1,"replicas":2}}"#;

#[test]
fn unknown_and_duplicate_fields_are_named_by_path() {
    check(
        FieldValidation::Strict,
        UNKNOWN,
        &expect![[
            r#"Deployment in version "v1" cannot be handled as a Deployment: strict decoding error: unknown field "metadata.nmae", unknown field "spec.foo", unknown field "spec.template.spec.containers[1].imge""#
        ]],
    );
    check(
        FieldValidation::Warn,
        UNKNOWN,
        &expect![[
            r#"warnings: unknown field "metadata.nmae", unknown field "spec.foo", unknown field "spec.template.spec.containers[1].imge""#
        ]],
    );
    check(FieldValidation::Ignore, UNKNOWN, &expect!["warnings: "]);
    check(
        FieldValidation::Strict,
        DUPLICATE,
        &expect![[
            r#"Deployment in version "v1" cannot be handled as a Deployment: strict decoding error: duplicate field "metadata.name", duplicate field "metadata.labels.a", duplicate field "spec.replicas""#
        ]],
    );
    check(
        FieldValidation::Warn,
        DUPLICATE,
        &expect![[
            r#"warnings: duplicate field "metadata.name", duplicate field "metadata.labels.a", duplicate field "spec.replicas""#
        ]],
    );
    check(FieldValidation::Ignore, DUPLICATE, &expect!["warnings: "]);
    check(
        FieldValidation::Strict,
        r#"{"metadata":{"name":"a"}}"#,
        &expect!["warnings: "],
    );
}

#[test]
fn wrong_types_are_named_by_path() {
    for (json, expected) in [
        (
            r#"{"spec":{"replicas":"three"}}"#,
            expect![[
                r#"Deployment in version "v1" cannot be handled as a Deployment: json: spec.replicas: invalid type: string "three", expected i32"#
            ]],
        ),
        (
            r#"{"spec":{"template":{"spec":{"containers":{}}}}}"#,
            expect![[
                r#"Deployment in version "v1" cannot be handled as a Deployment: json: spec.template.spec.containers: invalid type: map, expected a sequence"#
            ]],
        ),
        (
            r#"{"spec":{"template":{"spec":{"containers":[{"name":1}]}}}}"#,
            expect![[
                r#"Deployment in version "v1" cannot be handled as a Deployment: json: spec.template.spec.containers[0].name: invalid type: integer `1`, expected a string"#
            ]],
        ),
        (
            r#"{"metadata":{"labels":{"a":1}}}"#,
            expect![[
                r#"Deployment in version "v1" cannot be handled as a Deployment: json: metadata.labels.a: invalid type: integer `1`, expected a string"#
            ]],
        ),
        (
            "[]",
            expect![[
                r#"Deployment in version "v1" cannot be handled as a Deployment: json: .: invalid type: sequence, expected Deployment"#
            ]],
        ),
        (
            "",
            expect![
                "couldn't get version/kind; json parse error: EOF while parsing a value at line 1 column 0"
            ],
        ),
        (
            "{",
            expect![
                "couldn't get version/kind; json parse error: EOF while parsing an object at line 1 column 1"
            ],
        ),
        (
            "{} x",
            expect!["couldn't get version/kind; json parse error: trailing characters at line 1 column 4"],
        ),
        (
            r#"{"apiVersion":"v1"}"#,
            expect!["the API version in the data (v1) does not match the expected API version (apps/v1)"],
        ),
        (
            r#"{"apiVersion":"apps/v1","kind":"ReplicaSet"}"#,
            expect!["the kind in the data (ReplicaSet) does not match the expected kind (Deployment)"],
        ),
    ] {
        check(FieldValidation::Strict, json, &expected);
    }
}

#[test]
fn values_are_read_like_text() {
    let kind = registry().by_kind("", "v1", "Pod").unwrap();
    let read = |value| kind.decode_value(value, FieldValidation::Strict);
    assert!(read(serde_json::json!({"metadata": {"name": "a"}})).is_ok());
    expect![[r#"Pod in version "v1" cannot be handled as a Pod: strict decoding error: unknown field "spec.nodename""#]].assert_eq(&read(serde_json::json!({"spec": {"nodename": "a"}})).unwrap_err().message);
    expect![[r#"Pod in version "v1" cannot be handled as a Pod: json: spec.nodeName: invalid type: integer `1`, expected a string"#]].assert_eq(&read(serde_json::json!({"spec": {"nodeName": 1}})).unwrap_err().message);
}

#[test]
fn deep_nesting_is_refused() {
    let json = format!("{}1{}", r#"{"a":"#.repeat(200), "}".repeat(200));
    check(
        FieldValidation::Strict,
        &json,
        &expect![
            "couldn't get version/kind; json parse error: recursion limit exceeded at line 1 column 636"
        ],
    );
}

#[test]
fn times_are_written_as_kubernetes_does() {
    let event: Event = body(
        br#"{"firstTimestamp":"2026-11-21T09:00:00.999Z","eventTime":"2026-11-21T10:00:00.5+01:00","metadata":{},"involvedObject":{}}"#,
    )
    .unwrap();
    expect![[r#"{"apiVersion":"v1","kind":"Event","eventTime":"2026-11-21T09:00:00.500000Z","firstTimestamp":"2026-11-21T09:00:00Z","involvedObject":{},"metadata":{}}"#]].assert_eq(&serde_json::to_string(&event).unwrap());
}

#[test]
fn the_query_parameter_has_three_values() {
    assert_eq!(FieldValidation::parse("").unwrap(), FieldValidation::Warn);
    assert_eq!(FieldValidation::parse("Strict").unwrap(), FieldValidation::Strict);
    assert!(FieldValidation::parse("strict").is_none());
}
