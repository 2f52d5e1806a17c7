//! The three-way merge of `apply`: what to change so that a live object becomes what a manifest says.
//!
//! Pure. Fields that an earlier manifest had and this one lacks are removed; fields that others set
//! stay. Lists whose elements have an identity (containers, env, ports, …) are merged element by
//! element in the built-in kinds, as Kubernetes' strategic merge does. The outcome is a JSON merge
//! patch, which every server takes for every kind; a list in it is complete, so the patch names the
//! live object's resourceVersion, and the caller starts over when that has moved on.

mod keys;

use serde_json::{Map, Value, json};

use keys::ListKind;

/// The patch that turns `live` into what `modified` says; none when there is nothing to do.
///
/// `original` is the manifest that was applied last, null if there was none.
pub(crate) fn three_way(original: &Value, modified: &Value, live: &Value) -> Option<Value> {
    let context = Context {
        built_in: keys::is_built_in(modified["apiVersion"].as_str().unwrap_or_default()),
    };
    let service = modified["kind"] == "Service";
    let path = Path {
        names: Vec::new(),
        service,
    };
    let wanted = context.merge(&path, original, modified, live);
    let mut patch = difference(live, &wanted)?;
    if holds_list(&patch) {
        patch["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"].clone();
    }
    Some(patch)
}

struct Context {
    built_in: bool,
}

/// The names of the fields on the way to a value; list indices have no part in it.
#[derive(Clone)]
struct Path<'a> {
    names: Vec<&'a str>,
    service: bool,
}

impl<'a> Path<'a> {
    fn child(&self, name: &'a str) -> Path<'a> {
        let mut child = self.clone();
        child.names.push(name);
        child
    }
}

impl Context {
    fn merge(&self, path: &Path<'_>, original: &Value, modified: &Value, live: &Value) -> Value {
        match (modified, live) {
            (Value::Object(modified), Value::Object(live)) => self.merge_maps(path, original, modified, live),
            (Value::Array(modified), Value::Array(live)) if self.built_in => {
                match keys::list_kind(&path.names, path.service) {
                    ListKind::Atomic => Value::Array(modified.clone()),
                    ListKind::Set => merge_sets(original, modified, live),
                    ListKind::Keyed(key) => self.merge_lists(path, key, original, modified, live),
                }
            }
            _ => without_nulls(modified),
        }
    }

    fn merge_maps(
        &self,
        path: &Path<'_>,
        original: &Value,
        modified: &Map<String, Value>,
        live: &Map<String, Value>,
    ) -> Value {
        let mut wanted = live.clone();
        for key in original.as_object().into_iter().flat_map(Map::keys) {
            if !modified.contains_key(key) {
                wanted.remove(key);
            }
        }
        for (key, value) in modified {
            if value.is_null() {
                wanted.remove(key);
                continue;
            }
            let found = live.get(key).unwrap_or(&Value::Null);
            wanted.insert(
                key.clone(),
                self.merge(&path.child(key), &original[key.as_str()], value, found),
            );
        }
        // A union such as a Deployment's strategy loses the members of the variant it leaves.
        if self.built_in && keys::keeps_only_given_keys(&path.names) && wanted != *live {
            wanted.retain(|key, _| modified.contains_key(key));
        }
        Value::Object(wanted)
    }

    fn merge_lists(
        &self,
        path: &Path<'_>,
        key: &str,
        original: &Value,
        modified: &[Value],
        live: &[Value],
    ) -> Value {
        let original = original.as_array().map(Vec::as_slice).unwrap_or_default();
        if !has_unique_keys(modified, key) || !has_unique_keys(live, key) {
            return Value::Array(modified.to_vec());
        }
        let find = |list: &[Value], wanted: &Value| list.iter().find(|item| item[key] == *wanted).cloned();
        let mut new: Vec<Value> = Vec::new();
        for item in modified {
            let before = find(original, &item[key]).unwrap_or_default();
            let found = find(live, &item[key]).unwrap_or_default();
            new.push(self.merge(path, &before, item, &found));
        }
        // Elements of the manifest take, in its order, the places that they have in the live list;
        // the others' elements keep theirs, unless an earlier manifest had brought them.
        let mut in_order = new.into_iter();
        let mut wanted = Vec::new();
        for item in live {
            if find(modified, &item[key]).is_some() {
                wanted.extend(in_order.next());
            } else if find(original, &item[key]).is_none() {
                wanted.push(item.clone());
            }
        }
        wanted.extend(in_order);
        Value::Array(wanted)
    }
}

fn merge_sets(original: &Value, modified: &[Value], live: &[Value]) -> Value {
    let original = original.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut wanted: Vec<Value> = live
        .iter()
        .filter(|item| modified.contains(item) || !original.contains(item))
        .cloned()
        .collect();
    for item in modified {
        if !wanted.contains(item) {
            wanted.push(item.clone());
        }
    }
    Value::Array(wanted)
}

fn has_unique_keys(list: &[Value], key: &str) -> bool {
    list.iter().enumerate().all(|(index, item)| {
        !item[key].is_null() && !list[..index].iter().any(|earlier| earlier[key] == item[key])
    })
}

/// Null means absent in a manifest.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key.clone(), without_nulls(value)))
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        other => other.clone(),
    }
}

/// The JSON merge patch from one value to another.
fn difference(from: &Value, to: &Value) -> Option<Value> {
    let (Value::Object(before), Value::Object(after)) = (from, to) else {
        return (from != to).then(|| to.clone());
    };
    let mut patch = Map::new();
    for (key, value) in before {
        if !after.contains_key(key) && !value.is_null() {
            patch.insert(key.clone(), Value::Null);
        }
    }
    for (key, value) in after {
        match before.get(key) {
            Some(found) if found.is_object() && value.is_object() => {
                patch.extend(difference(found, value).map(|inner| (key.clone(), inner)));
            }
            Some(found) if found == value => {}
            _ => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

fn holds_list(patch: &Value) -> bool {
    match patch {
        Value::Array(_) => true,
        Value::Object(map) => map.values().any(holds_list),
        _ => false,
    }
}

/// The annotation that remembers the manifest.
pub(crate) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The manifest with its own text as an annotation, in the form in which kubectl writes it.
pub(crate) fn remembering(manifest: &Value) -> Value {
    let mut plain = manifest.clone();
    if !plain["metadata"]["annotations"].is_object() {
        plain["metadata"]["annotations"] = json!({});
    }
    if let Some(annotations) = plain["metadata"]["annotations"].as_object_mut() {
        annotations.remove(LAST_APPLIED);
    }
    let text = format!("{plain}\n");
    plain["metadata"]["annotations"][LAST_APPLIED] = Value::String(text);
    plain
}

/// The manifest that a live object remembers.
pub(crate) fn remembered(live: &Value) -> Option<Value> {
    serde_json::from_str(live["metadata"]["annotations"][LAST_APPLIED].as_str()?).ok()
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(original: &str, modified: &str, live: &str, expected: Expect) {
        let read = |text: &str| -> Value {
            let mut value: Value = serde_yaml::from_str(text).unwrap();
            value["apiVersion"] = "apps/v1".into();
            value
        };
        let patch = three_way(&read(original), &read(modified), &read(live));
        expected.assert_eq(&patch.map_or_else(|| "nothing".to_owned(), |patch| patch.to_string()));
    }

    #[test]
    fn defaults_and_fields_of_others_stay() {
        check(
            "spec: {replicas: 3}",
            "spec: {replicas: 3}",
            "{metadata: {uid: x}, spec: {replicas: 3, paused: false}, status: {a: 1}}",
            expect!["nothing"],
        );
        check(
            "spec: {replicas: 3}",
            "spec: {replicas: 5}",
            "spec: {replicas: 4, x: 1}",
            expect![[r#"{"spec":{"replicas":5}}"#]],
        );
    }

    #[test]
    fn what_the_manifest_no_longer_has_is_removed() {
        check(
            "metadata: {labels: {a: x, b: y}}",
            "metadata: {labels: {a: x}}",
            "metadata: {labels: {a: x, b: y, c: z}}",
            expect![[r#"{"metadata":{"labels":{"b":null}}}"#]],
        );
        check(
            "spec: {a: 1}",
            "spec: {a: null}",
            "spec: {b: 2}",
            expect!["nothing"],
        );
    }

    #[test]
    fn lists_with_keys_are_merged_by_element() {
        check(
            "spec: {containers: [{name: a, image: x:1}, {name: gone}]}",
            "spec: {containers: [{name: a, image: x:2}, {name: new}]}",
            "{metadata: {resourceVersion: '7'}, spec: {containers: [{name: sidecar}, {name: a, image: x:1, tty: false}, {name: gone}]}}",
            expect![[
                r#"{"metadata":{"resourceVersion":"7"},"spec":{"containers":[{"name":"sidecar"},{"image":"x:2","name":"a","tty":false},{"name":"new"}]}}"#
            ]],
        );
        check(
            "spec: {containers: [{name: a, env: [{name: X, value: '1'}]}]}",
            "spec: {containers: [{name: a, env: [{name: X, value: '1'}]}]}",
            "spec: {containers: [{name: a, env: [{name: X, value: '1'}, {name: INJECTED}]}]}",
            expect!["nothing"],
        );
    }

    #[test]
    fn lists_without_keys_are_replaced() {
        check(
            "spec: {args: [a]}",
            "spec: {args: [b]}",
            "spec: {args: [a, c]}",
            expect![[r#"{"metadata":{"resourceVersion":null},"spec":{"args":["b"]}}"#]],
        );
    }

    #[test]
    fn a_strategy_that_changes_leaves_its_old_members() {
        check(
            "spec: {strategy: {type: RollingUpdate}}",
            "spec: {strategy: {type: Recreate}}",
            "spec: {strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 1}}}",
            expect![[r#"{"spec":{"strategy":{"rollingUpdate":null,"type":"Recreate"}}}"#]],
        );
        check(
            "spec: {strategy: {type: RollingUpdate}}",
            "spec: {strategy: {type: RollingUpdate}}",
            "spec: {strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 1}}}",
            expect!["nothing"],
        );
    }

    #[test]
    fn a_manifest_is_remembered_as_kubectl_writes_it() {
        let manifest = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}});
        let remembering = remembering(&manifest);
        expect![[r#"
            {"apiVersion":"v1","kind":"ConfigMap","metadata":{"annotations":{},"name":"a"}}
        "#]]
        .assert_eq(
            remembering["metadata"]["annotations"][LAST_APPLIED]
                .as_str()
                .unwrap(),
        );
    }
}
