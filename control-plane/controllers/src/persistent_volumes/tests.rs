//! Plans for claims and volumes, as data.

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::plan::{View, plan_claim, plan_volume};
use super::*;

fn class(name: &str, rest: &Value) -> StorageClass {
    let mut all = json!({"metadata": {"name": name}, "provisioner": "local.flotilla.dev",
        "volumeBindingMode": "WaitForFirstConsumer", "allowVolumeExpansion": true});
    merge(&mut all, rest);
    serde_json::from_value(all).unwrap()
}

fn claim(rest: &Value) -> PersistentVolumeClaim {
    let mut all = json!({"metadata": {"name": "data", "namespace": "default", "uid": "u1"},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "local",
            "resources": {"requests": {"storage": "1Gi"}}}});
    merge(&mut all, rest);
    serde_json::from_value(all).unwrap()
}

fn volume(name: &str, rest: &Value) -> PersistentVolume {
    let mut all = json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": "1Gi"}, "storageClassName": "local", "persistentVolumeReclaimPolicy": "Delete",
        "csi": {"driver": "local.flotilla.dev", "volumeHandle": name}}, "status": {"phase": "Available"}});
    merge(&mut all, rest);
    serde_json::from_value(all).unwrap()
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

fn check(claim_rest: &Value, volumes: &[PersistentVolume], classes: &[StorageClass], expected: &Expect) {
    let step = plan_claim(&View {
        claim: &claim(claim_rest),
        volumes: &volumes.iter().collect::<Vec<_>>(),
        classes: &classes.iter().collect::<Vec<_>>(),
    });
    expected.assert_eq(&format!("{step:?}"));
}

fn selected() -> Value {
    json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "agent-1"}}})
}

#[test]
fn a_claim_of_the_local_class_waits_for_its_pod_and_is_made_where_that_goes() {
    let local = [class("local", &json!({}))];
    check(
        &json!({}),
        &[],
        &local,
        &expect![[
            r#"Wait(false, "WaitForFirstConsumer", "waiting for first consumer to be created before binding")"#
        ]],
    );
    check(
        &selected(),
        &[],
        &local,
        &expect![[r#"Provision { class: "local", node: "agent-1" }"#]],
    );
    let mut shared = selected();
    merge(&mut shared, &json!({"spec": {"accessModes": ["ReadWriteMany"]}}));
    check(
        &shared,
        &[],
        &local,
        &expect![[
            r#"Wait(true, "ProvisioningFailed", "a disk of one node cannot be shared by several: set accessModes to ReadWriteOnce")"#
        ]],
    );
}

#[test]
fn a_claim_without_a_class_gets_the_default_one() {
    let default = class(
        "local",
        &json!({"metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}}),
    );
    let no_class = json!({"spec": {"storageClassName": null}});
    check(&no_class, &[], &[default], &expect![[r#"SetClass("local")"#]]);
    check(
        &json!({"spec": {"storageClassName": ""}}),
        &[],
        &[],
        &expect![[
            r#"Wait(false, "FailedBinding", "no persistent volumes available for this claim and no storage class is set")"#
        ]],
    );
    check(
        &json!({"spec": {"storageClassName": "fast"}}),
        &[],
        &[],
        &expect![[r#"Wait(true, "ProvisioningFailed", "storageclass.storage.k8s.io \"fast\" not found")"#]],
    );
}

#[test]
fn static_volumes_are_bound_at_once_unless_the_node_matters() {
    let immediate = class("local", &json!({"volumeBindingMode": "Immediate"}));
    let late = class("local", &json!({}));
    let free = volume("a", &json!({}));
    let reserved = volume(
        "a",
        &json!({"spec": {"claimRef": {"namespace": "default", "name": "data"}}}),
    );
    check(
        &json!({}),
        std::slice::from_ref(&free),
        &[immediate],
        &expect![[r#"Bind("a")"#]],
    );
    check(
        &json!({}),
        &[free],
        std::slice::from_ref(&late),
        &expect![[
            r#"Wait(false, "WaitForFirstConsumer", "waiting for first consumer to be created before binding")"#
        ]],
    );
    check(&json!({}), &[reserved], &[late], &expect![[r#"Bind("a")"#]]);
}

fn bound(request: &str) -> Value {
    json!({"spec": {"volumeName": "a", "resources": {"requests": {"storage": request}}}, "status": {"phase": "Bound"}})
}

fn taken(uid: &str) -> Value {
    json!({"spec": {"claimRef": {"namespace": "default", "name": "data", "uid": uid}}, "status": {"phase": "Bound"}})
}

#[test]
fn a_bound_claim_grows_and_may_lose_its_volume() {
    let local = [class("local", &json!({}))];
    let own = [volume("a", &taken("u1"))];
    check(&bound("1Gi"), &own, &local, &expect!["Nothing"]);
    check(
        &bound("2Gi"),
        &own,
        &local,
        &expect![[r#"Grow { volume: "a", bytes: 2147483648 }"#]],
    );
    check(&bound("1Gi"), &[], &local, &expect!["Lose"]);
    check(
        &bound("1Gi"),
        &[volume("a", &taken("other"))],
        &local,
        &expect!["Lose"],
    );
    let fixed = [class("local", &json!({"allowVolumeExpansion": false}))];
    check(
        &bound("2Gi"),
        &own,
        &fixed,
        &expect![[
            r#"Wait(true, "VolumeResizeFailed", "the storage class does not allow volumes to grow (allowVolumeExpansion)")"#
        ]],
    );
}

fn check_volume(volume_rest: &Value, claim_rest: Option<&Value>, expected: &Expect) {
    let claim = claim_rest.map(claim);
    let step = plan_volume(&volume("a", volume_rest), claim.as_ref());
    expected.assert_eq(&format!("{step:?}"));
}

#[test]
fn a_volume_follows_its_claim_and_is_reclaimed_after_it() {
    check_volume(
        &json!({"status": {"phase": "Pending"}}),
        None,
        &expect![[r#"Phase("Available", None)"#]],
    );
    check_volume(&taken("u1"), Some(&bound("1Gi")), &expect!["Nothing"]);
    check_volume(&taken("u1"), None, &expect![[r#"Phase("Released", None)"#]]);
    let released = |rest: &Value| {
        let mut all = taken("u1");
        merge(&mut all, &json!({"status": {"phase": "Released"}}));
        merge(&mut all, rest);
        all
    };
    check_volume(&released(&json!({})), None, &expect!["Delete"]);
    let policy = |policy: &str| json!({"spec": {"persistentVolumeReclaimPolicy": policy}});
    check_volume(&released(&policy("Retain")), None, &expect!["Nothing"]);
    check_volume(
        &released(&policy("Recycle")),
        None,
        &expect![[
            r#"Phase("Failed", Some("recycling is deprecated and not supported: use Retain or Delete"))"#
        ]],
    );
    // Another claim of the same name is another claim.
    check_volume(
        &taken("old"),
        Some(&json!({})),
        &expect![[r#"Phase("Released", None)"#]],
    );
    let elsewhere = json!({"spec": {"volumeName": "b"}});
    check_volume(&taken("u1"), Some(&elsewhere), &expect!["Unreserve"]);
}
