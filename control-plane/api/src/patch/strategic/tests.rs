//! Tests of strategic merge patches.

#![expect(clippy::needless_pass_by_value, reason = "tests hand over literals")]

use serde_json::{Value, json};

use super::*;

const POD: &str = "io.k8s.api.core.v1.Pod";
const DEPLOYMENT: &str = "io.k8s.api.apps.v1.Deployment";
const SERVICE: &str = "io.k8s.api.core.v1.Service";

#[track_caller]
fn check(schema: &str, current: Value, patch: Value, wanted: Value) {
    assert_eq!(merge(schema, &current, &patch), Ok(wanted));
}

/// Patches the `spec` of a pod.
#[track_caller]
fn pod(current: Value, patch: Value, wanted: Value) {
    check(
        POD,
        json!({"spec": current}),
        json!({"spec": patch}),
        json!({"spec": wanted}),
    );
}

#[track_caller]
fn refused(schema: &str, current: Value, patch: Value, why: &str) {
    assert_eq!(merge(schema, &current, &patch).unwrap_err().to_string(), why);
}

#[test]
fn plain_fields_are_merged_and_nulls_delete() {
    check(
        POD,
        json!({"metadata": {"labels": {"a": "1", "b": "2"}, "name": "x"}}),
        json!({"metadata": {"labels": {"a": null, "c": "3"}}}),
        json!({"metadata": {"labels": {"b": "2", "c": "3"}, "name": "x"}}),
    );
}

#[test]
fn nulls_for_what_is_not_there_leave_nothing() {
    check(
        POD,
        json!({}),
        json!({"metadata": {"labels": {"a": null, "b": "1"}}, "spec": null}),
        json!({"metadata": {"labels": {"b": "1"}}}),
    );
}

#[test]
fn containers_are_merged_by_name() {
    pod(
        json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]}),
        json!({"containers": [{"name": "b", "image": "3"}]}),
        json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "3"}]}),
    );
}

#[test]
fn new_elements_keep_the_order_of_the_patch() {
    pod(
        json!({"containers": [{"name": "a"}]}),
        json!({"containers": [{"name": "z"}, {"name": "y"}]}),
        json!({"containers": [{"name": "z"}, {"name": "y"}, {"name": "a"}]}),
    );
}

#[test]
fn lists_in_elements_have_keys_of_their_own() {
    pod(
        json!({"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}], "ports": [{"containerPort": 80}]}]}),
        json!({"containers": [{"name": "a", "env": [{"name": "X", "value": "2"}], "ports": [{"containerPort": 80, "name": "web"}]}]}),
        json!({"containers": [{"name": "a", "env": [{"name": "X", "value": "2"}], "ports": [{"containerPort": 80, "name": "web"}]}]}),
    );
    pod(
        json!({"containers": [{"name": "a", "volumeMounts": [{"mountPath": "/a", "name": "v"}], "volumeDevices": [{"devicePath": "/d", "name": "v"}]}]}),
        json!({"containers": [{"name": "a", "volumeMounts": [{"mountPath": "/a", "name": "w"}], "volumeDevices": [{"devicePath": "/d", "name": "w"}]}]}),
        json!({"containers": [{"name": "a", "volumeMounts": [{"mountPath": "/a", "name": "w"}], "volumeDevices": [{"devicePath": "/d", "name": "w"}]}]}),
    );
}

#[test]
fn service_ports_are_merged_by_port_and_taints_replaced() {
    check(
        SERVICE,
        json!({"spec": {"ports": [{"port": 80, "name": "a"}, {"port": 443}]}}),
        json!({"spec": {"ports": [{"port": 80, "name": "b"}]}}),
        json!({"spec": {"ports": [{"port": 80, "name": "b"}, {"port": 443}]}}),
    );
    check(
        "io.k8s.api.core.v1.Node",
        json!({"spec": {"taints": [{"key": "a"}]}}),
        json!({"spec": {"taints": [{"key": "b"}]}}),
        json!({"spec": {"taints": [{"key": "b"}]}}),
    );
}

#[test]
fn atomic_lists_are_replaced() {
    pod(
        json!({"tolerations": [{"key": "a"}], "containers": [{"name": "a", "args": ["1", "2"]}]}),
        json!({"tolerations": [{"key": "b"}], "containers": [{"name": "a", "args": ["3"]}]}),
        json!({"tolerations": [{"key": "b"}], "containers": [{"name": "a", "args": ["3"]}]}),
    );
}

#[test]
fn conditions_and_addresses_are_merged_by_type() {
    check(
        "io.k8s.api.core.v1.Node",
        json!({"status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Disk", "status": "False"}]}}),
        json!({"status": {"conditions": [{"type": "Ready", "status": "False"}], "addresses": [{"type": "Hostname", "address": "a"}]}}),
        json!({"status": {"conditions": [{"type": "Ready", "status": "False"}, {"type": "Disk", "status": "False"}],
                          "addresses": [{"type": "Hostname", "address": "a"}]}}),
    );
}

#[test]
fn patch_delete_removes_an_element_or_empties_a_map() {
    pod(
        json!({"containers": [{"name": "a"}, {"name": "b"}]}),
        json!({"containers": [{"name": "a", "$patch": "delete"}]}),
        json!({"containers": [{"name": "b"}]}),
    );
    pod(
        json!({"nodeSelector": {"a": "b"}}),
        json!({"nodeSelector": {"$patch": "delete"}}),
        json!({"nodeSelector": {}}),
    );
}

#[test]
fn patch_replace_takes_the_place_of_a_list_or_a_map() {
    pod(
        json!({"containers": [{"name": "a", "image": "1"}, {"name": "b"}]}),
        json!({"containers": [{"name": "a"}, {"$patch": "replace"}]}),
        json!({"containers": [{"name": "a"}]}),
    );
    pod(
        json!({"nodeSelector": {"a": "b"}}),
        json!({"nodeSelector": {"$patch": "replace", "c": "d"}}),
        json!({"nodeSelector": {"c": "d"}}),
    );
}

#[test]
fn set_element_order_moves_elements_without_changing_them() {
    pod(
        json!({"containers": [{"name": "a", "image": "1"}, {"name": "b"}, {"name": "c"}]}),
        json!({"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}, {"name": "b"}]}),
        json!({"containers": [{"name": "c"}, {"name": "a", "image": "1"}, {"name": "b"}]}),
    );
}

#[test]
fn set_element_order_keeps_elements_of_others_in_their_places() {
    pod(
        json!({"containers": [{"name": "a"}, {"name": "sidecar"}, {"name": "b"}]}),
        json!({"$setElementOrder/containers": [{"name": "a"}, {"name": "b"}, {"name": "n"}],
               "containers": [{"name": "n", "image": "1"}]}),
        json!({"containers": [{"name": "a"}, {"name": "sidecar"}, {"name": "b"}, {"name": "n", "image": "1"}]}),
    );
}

#[test]
fn a_patch_of_kubectl_set_image_changes_one_container() {
    check(
        DEPLOYMENT,
        json!({"spec": {"template": {"spec": {"containers": [{"name": "web", "image": "v1", "ports": [{"containerPort": 80}]}]}}}}),
        json!({"spec": {"template": {"spec": {"$setElementOrder/containers": [{"name": "web"}],
                                              "containers": [{"name": "web", "image": "v2"}]}}}}),
        json!({"spec": {"template": {"spec": {"containers": [{"name": "web", "image": "v2", "ports": [{"containerPort": 80}]}]}}}}),
    );
}

#[test]
fn finalizers_are_a_set() {
    check(
        POD,
        json!({"metadata": {"finalizers": ["a", "b"]}}),
        json!({"metadata": {"finalizers": ["b", "c"]}}),
        json!({"metadata": {"finalizers": ["a", "b", "c"]}}),
    );
    check(
        POD,
        json!({"metadata": {"finalizers": ["a", "b"]}}),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["b"]}}),
        json!({"metadata": {"finalizers": ["b"]}}),
    );
}

#[test]
fn owner_references_are_merged_by_uid() {
    check(
        POD,
        json!({"metadata": {"ownerReferences": [{"uid": "1", "name": "a"}, {"uid": "2", "name": "b"}]}}),
        json!({"metadata": {"ownerReferences": [{"uid": "1", "$patch": "delete"}, {"uid": "3", "name": "c"}]}}),
        json!({"metadata": {"ownerReferences": [{"uid": "3", "name": "c"}, {"uid": "2", "name": "b"}]}}),
    );
}

#[test]
fn retain_keys_clears_what_it_does_not_name() {
    check(
        DEPLOYMENT,
        json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
        json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
        json!({"spec": {"strategy": {"type": "Recreate"}}}),
    );
    pod(
        json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
        json!({"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]}),
        json!({"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}),
    );
}

#[test]
fn directives_never_reach_the_object() {
    pod(
        json!({}),
        json!({"$setElementOrder/containers": [{"name": "a"}],
               "containers": [{"name": "a", "env": null, "$retainKeys": ["name"]}, {"name": "b", "$patch": "delete"}]}),
        json!({"containers": [{"name": "a"}]}),
    );
}

#[test]
fn broken_patches_are_refused() {
    refused(
        POD,
        json!({}),
        json!([]),
        "error decoding patch: a strategic merge patch is a JSON object",
    );
    refused(
        POD,
        json!({"spec": {}}),
        json!({"spec": {"$patch": "eat"}}),
        "invalid patch type: \"eat\"",
    );
    refused(
        POD,
        json!({"spec": {"containers": [{"name": "a"}]}}),
        json!({"spec": {"containers": [{"image": "x"}]}}),
        "map does not contain declared merge key: name",
    );
    refused(
        POD,
        json!({"spec": {"containers": [{"name": "a"}]}}),
        json!({"spec": {"containers": [{"$patch": "delete"}]}}),
        "delete patch type with no merge key defined for the list containers",
    );
    refused(
        DEPLOYMENT,
        json!({"spec": {"strategy": {}}}),
        json!({"spec": {"strategy": {"$retainKeys": ["type"], "rollingUpdate": {}}}}),
        "invalid patch format of retainKeys: it does not name the field rollingUpdate",
    );
    refused(
        POD,
        json!({"spec": {}}),
        json!({"spec": {"$setElementOrder/containers": "a"}}),
        "invalid patch format of $setElementOrder/containers, expected a list",
    );
    refused(
        POD,
        json!({"spec": {}}),
        json!({"spec": {"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "b"}]}}),
        "the order of containers given by $setElementOrder does not name the element {\"name\":\"b\"}",
    );
}
