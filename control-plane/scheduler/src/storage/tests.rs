//! Which nodes a pod with claims may go to, and what is said of the others.

use expect_test::{Expect, expect};
use serde_json::json;

use super::*;
use crate::cluster::Cluster;
use crate::place::{Placement, place};

fn storage() -> Storage {
    let mut storage = Storage::default();
    let class = |name: &str, provisioner: &str, mode: &str| {
        let class =
            json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode});
        (name.to_owned(), Arc::new(serde_json::from_value(class).unwrap()))
    };
    storage.classes.extend([
        class("local", "local.flotilla.dev", "WaitForFirstConsumer"),
        class("static", "kubernetes.io/no-provisioner", "WaitForFirstConsumer"),
        class("now", "example.org/nfs", "Immediate"),
    ]);
    let volume = |name: &str, class: &str, host: &str| {
        let on = json!([{"matchExpressions": [{"key": "host", "operator": "In", "values": [host]}]}]);
        let volume = json!({"metadata": {"name": name}, "spec": {"storageClassName": class,
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "nodeAffinity": {"required": {"nodeSelectorTerms": on}}}});
        (name.to_owned(), Arc::new(serde_json::from_value(volume).unwrap()))
    };
    storage
        .volumes
        .extend([volume("disk-a", "static", "a"), volume("bound-b", "local", "b")]);
    let mut claim = |name: &str, class: &str, volume: &str, phase: &str| {
        let claim = json!({"metadata": {"name": name, "namespace": "default"},
            "spec": {"storageClassName": class, "volumeName": volume, "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}}}, "status": {"phase": phase}});
        let key = ("default".to_owned(), name.to_owned());
        storage
            .claims
            .insert(key, Arc::new(serde_json::from_value(claim).unwrap()));
    };
    claim("new", "local", "", "Pending");
    claim("fixed", "static", "", "Pending");
    claim("fixed-too", "static", "", "Pending");
    claim("late", "now", "", "Pending");
    claim("bound", "local", "bound-b", "Bound");
    claim("lost", "local", "gone", "Bound");
    storage
}

fn check(claims: &[&str], host: &str, expected: &Expect) {
    let storage = storage();
    let volumes: Vec<_> = claims
        .iter()
        .map(|claim| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}}))
        .collect();
    let pod = json!({"metadata": {"name": "p", "namespace": "default"}, "spec": {"containers": [], "volumes": volumes}});
    let pod: Pod = serde_json::from_value(pod).unwrap();
    let node: Node =
        serde_json::from_value(json!({"metadata": {"name": host, "labels": {"host": host}}})).unwrap();
    let needs = Needs::new(&storage, &pod);
    let entry = NodeEntry {
        node: Some(Arc::new(node.clone())),
        ..NodeEntry::default()
    };
    let told = match (needs.obstacle(), needs.check(&storage, &entry)) {
        (Some(obstacle), _) => obstacle.to_owned(),
        (None, Err(reason)) => reason.to_string(),
        (None, Ok(())) => {
            let settlements = needs.settle(&storage, &node).unwrap();
            let show = |settlement: &Settlement| match settlement {
                Settlement::Reserve { claim, volume, .. } => format!("{claim} gets {volume}"),
                Settlement::Select { claim, .. } => format!("{claim} is made here"),
            };
            settlements.iter().map(show).collect::<Vec<_>>().join(", ")
        }
    };
    expected.assert_eq(&told);
}

#[test]
fn a_bound_claim_ties_the_pod_to_where_its_volume_is() {
    check(&["bound"], "b", &expect![""]);
    check(
        &["bound"],
        "a",
        &expect!["node(s) didn't match PersistentVolume's node affinity"],
    );
}

#[test]
fn a_claim_that_waits_gets_a_volume_of_the_node_or_one_that_is_made_there() {
    check(&["new"], "a", &expect!["new is made here"]);
    check(&["fixed"], "a", &expect!["fixed gets disk-a"]);
    let none = "node(s) didn't find available persistent volumes to bind";
    assert_eq!(Reason::NoVolume.to_string(), none);
    check(
        &["fixed"],
        "b",
        &expect!["node(s) didn't find available persistent volumes to bind"],
    );
    // One volume is not enough for two claims.
    check(
        &["fixed", "fixed-too"],
        "a",
        &expect!["node(s) didn't find available persistent volumes to bind"],
    );
}

#[test]
fn what_no_node_could_change_is_told_once() {
    check(
        &["none"],
        "a",
        &expect![[r#"persistentvolumeclaim "none" not found"#]],
    );
    check(
        &["late"],
        "a",
        &expect!["pod has unbound immediate PersistentVolumeClaims"],
    );
    check(
        &["lost"],
        "a",
        &expect!["node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"],
    );
}

#[test]
fn a_claim_for_one_pod_keeps_others_out_until_that_one_is_gone() {
    let mut cluster = Cluster::default();
    let node = json!({"metadata": {"name": "a"}, "status": {"allocatable": {"cpu": "1", "pods": "10"}}});
    cluster.set_node(Arc::new(serde_json::from_value(node).unwrap()));
    for (name, mode) in [("alone", "ReadWriteOncePod"), ("shared", "ReadWriteOnce")] {
        let claim = json!({"metadata": {"name": name, "namespace": "default"},
            "spec": {"volumeName": name, "accessModes": [mode]}, "status": {"phase": "Bound"}});
        let volume = json!({"metadata": {"name": name}, "spec": {}});
        let key = ("default".to_owned(), name.to_owned());
        let storage = &mut cluster.storage;
        storage
            .claims
            .insert(key, Arc::new(serde_json::from_value(claim).unwrap()));
        storage
            .volumes
            .insert(name.to_owned(), Arc::new(serde_json::from_value(volume).unwrap()));
    }
    let pod = |uid: &str, claim: &str| -> Pod {
        let volumes = json!([{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]);
        let pod = json!({"metadata": {"name": uid, "uid": uid, "namespace": "default"},
            "spec": {"containers": [], "volumes": volumes}});
        serde_json::from_value(pod).unwrap()
    };
    let told = |cluster: &Cluster, claim: &str| match place(cluster, &pod("new", claim), &mut 0) {
        Placement::Node(node) => node,
        Placement::Nowhere(refusals) => refusals.message(),
    };
    assert_eq!(told(&cluster, "alone"), "a");
    cluster.add_pod(&pod("first", "alone"), "a");
    cluster.add_pod(&pod("first", "alone"), "a");
    cluster.add_pod(&pod("other", "shared"), "a");
    assert_eq!(
        told(&cluster, "alone"),
        "0/1 nodes are available: 1 node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod \
         access mode."
    );
    assert_eq!(told(&cluster, "shared"), "a");
    cluster.remove_pod("first");
    assert_eq!(told(&cluster, "alone"), "a");
}
