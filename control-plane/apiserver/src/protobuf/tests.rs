//! Tests of the translation from protobuf.

use serde_json::json;

use super::*;

/// A field of bytes.
fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).unwrap();
    assert!(length < 128, "tests need no long fields");
    [&[number << 3 | 2, length], content].concat()
}

fn varint(number: u8, value: u8) -> Vec<u8> {
    match number {
        0..16 => vec![number << 3, value],
        _ => vec![number << 3 | 0x80, number >> 4, value],
    }
}

fn envelope(api_version: &str, kind: &str, object: &[u8]) -> Vec<u8> {
    let type_meta = [bytes(1, api_version.as_bytes()), bytes(2, kind.as_bytes())].concat();
    [MAGIC.to_vec(), bytes(1, &type_meta), bytes(2, object)].concat()
}

#[test]
fn a_namespace_as_kubectl_sends_it() {
    let metadata = [bytes(1, b"x"), bytes(2, b""), varint(7, 0), bytes(8, b"")].concat();
    let object = [bytes(1, &metadata), bytes(2, b""), bytes(3, &bytes(1, b""))].concat();
    assert_eq!(
        to_json(&envelope("v1", "Namespace", &object)).unwrap(),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}, "spec": {}, "status": {}})
    );
}

#[test]
fn maps_times_and_bytes_have_their_json_form() {
    let label = [bytes(1, b"k"), bytes(2, b"v")].concat();
    let metadata = [
        bytes(8, &[varint(1, 60), varint(2, 0)].concat()),
        bytes(11, &label),
    ]
    .concat();
    let data = [bytes(1, b"a"), bytes(2, b"\x00\xff")].concat();
    let object = [bytes(1, &metadata), bytes(2, &data)].concat();
    assert_eq!(
        to_json(&envelope("v1", "Secret", &object)).unwrap(),
        json!({"apiVersion": "v1", "kind": "Secret", "data": {"a": "AP8="},
               "metadata": {"creationTimestamp": "1970-01-01T00:01:00Z", "labels": {"k": "v"}}})
    );
}

#[test]
fn inlined_messages_are_flat_and_zeroes_go_unless_they_are_meant() {
    let volume = [bytes(1, b"v"), bytes(2, &bytes(2, b""))].concat();
    let port = [varint(1, 1), bytes(3, b"web")].concat();
    let probe = [bytes(1, &bytes(2, &bytes(2, &port))), varint(3, 0)].concat();
    let container = [bytes(1, b"c"), bytes(4, b""), bytes(10, &probe)].concat();
    let spec = [
        bytes(1, &volume),
        bytes(2, &container),
        varint(4, 0),
        varint(11, 0),
        varint(30, 0),
    ]
    .concat();
    let pod = to_json(&envelope("v1", "Pod", &bytes(2, &spec))).unwrap();
    assert_eq!(
        pod["spec"],
        json!({"volumes": [{"name": "v", "emptyDir": {}}], "terminationGracePeriodSeconds": 0, "enableServiceLinks": false,
               "containers": [{"name": "c", "args": [""], "livenessProbe": {"httpGet": {"port": "web"}}}]})
    );
}

#[test]
fn broken_bodies_are_refused() {
    assert_eq!(to_json(b"{}"), Err(TranslateError::NoMagic));
    assert_eq!(to_json(b"k8s\0\x0a\x7f"), Err(TranslateError::Malformed));
    assert_eq!(
        to_json(&envelope("v1", "Namespace", &bytes(1, &bytes(1, b"\xff")))),
        Err(TranslateError::NotUtf8)
    );
    assert_eq!(
        to_json(&envelope("v1", "Thing", b"")),
        Err(TranslateError::UnknownKind("v1 Thing".to_owned()))
    );
    for length in 0..40 {
        let whole = envelope("v1", "Pod", &bytes(2, &bytes(2, &bytes(1, b"c"))));
        let _ = to_json(&whole[..length.min(whole.len())]);
    }
}
