//! StatefulSets on nodes that only pretend: order, updates, partitions, and no ordinal twice.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use flotilla_resources::{CacheEvent, DeleteOptions, Part};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use serde_json::json;

use crate::harness::{Cluster, Setting, eventually, image_of, is_ready};

/// Pods of this image never become ready.
const BROKEN: &str = "demo:broken";

async fn create(cluster: &Cluster, spec: serde_json::Value) {
    let mut set = json!({
        "metadata": {"name": "db", "namespace": "default"},
        "spec": {
            "replicas": 3,
            "serviceName": "db",
            "selector": {"matchLabels": {"app": "db"}},
            "template": {
                "metadata": {"labels": {"app": "db"}},
                "spec": {"containers": [{"name": "web", "image": "demo:v1"}]},
            },
        },
    });
    for (field, value) in spec.as_object().unwrap() {
        set["spec"][field] = value.clone();
    }
    let set: StatefulSet = serde_json::from_value(set).unwrap();
    cluster.resources.create_typed(set).await.unwrap();
}

async fn change(cluster: &Cluster, mut change: impl FnMut(&mut StatefulSetSpec)) {
    let change = |set: &mut StatefulSet| {
        change(set.spec.as_mut().unwrap());
        true
    };
    cluster
        .resources
        .modify("default", "db", Part::Whole, change)
        .await
        .unwrap();
}

fn set_image(spec: &mut StatefulSetSpec, image: &str) {
    spec.template.spec.as_mut().unwrap().containers[0].image = Some(image.to_owned());
}

/// `db-0 demo:v1 ready`, one for each pod that is there.
fn pods(cluster: &Cluster) -> Vec<String> {
    let told = |pod: &Arc<Pod>| {
        let ready = if is_ready(pod) { "ready" } else { "unready" };
        format!("{} {} {ready}", pod.metadata.name.clone().unwrap(), image_of(pod))
    };
    cluster.pods.list(Some("default")).iter().map(told).collect()
}

async fn until(cluster: &Cluster, expected: &[&str]) {
    eventually(&format!("{expected:?}"), || pods(cluster) == expected).await;
}

fn status(cluster: &Cluster) -> k8s_openapi::api::apps::v1::StatefulSetStatus {
    let (sets, _) = cluster.resources.list_typed::<StatefulSet>(None);
    sets[0].status.clone().unwrap_or_default()
}

/// Which pods came and went, as the store tells it.
fn record(cluster: &Cluster) -> Arc<Mutex<Vec<String>>> {
    let log = Arc::<Mutex<Vec<String>>>::default();
    let kept = log.clone();
    cluster.pods.subscribe(move |event| {
        let name = event.object().metadata.name.clone().unwrap();
        match event {
            CacheEvent::Added(_) => kept.lock().unwrap().push(format!("+{name}")),
            CacheEvent::Deleted(_) => kept.lock().unwrap().push(format!("-{name}")),
            CacheEvent::Modified { .. } => {}
        }
    });
    log
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_come_in_order_and_go_in_reverse() {
    let cluster = Cluster::start(2).await;
    let log = record(&cluster);
    create(&cluster, json!({})).await;
    until(
        &cluster,
        &["db-0 demo:v1 ready", "db-1 demo:v1 ready", "db-2 demo:v1 ready"],
    )
    .await;
    change(&cluster, |spec| spec.replicas = Some(1)).await;
    until(&cluster, &["db-0 demo:v1 ready"]).await;
    assert_eq!(
        *log.lock().unwrap(),
        ["+db-0", "+db-1", "+db-2", "-db-2", "-db-1"]
    );
    let pod = cluster.pods.get("default", "db-0").unwrap();
    let spec = pod.spec.as_ref().unwrap();
    assert_eq!(
        (spec.hostname.as_deref(), spec.subdomain.as_deref()),
        (Some("db-0"), Some("db"))
    );
    assert_eq!(
        pod.metadata.labels.as_ref().unwrap()["apps.kubernetes.io/pod-index"],
        "0"
    );
    eventually("the status says so", || {
        let status = status(&cluster);
        (status.replicas, status.ready_replicas, status.available_replicas) == (1, Some(1), Some(1))
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_stops_at_the_partition_and_goes_on_when_that_moves() {
    let cluster = Cluster::start(2).await;
    create(
        &cluster,
        json!({"updateStrategy": {"rollingUpdate": {"partition": 1}}}),
    )
    .await;
    until(
        &cluster,
        &["db-0 demo:v1 ready", "db-1 demo:v1 ready", "db-2 demo:v1 ready"],
    )
    .await;
    let log = record(&cluster);
    change(&cluster, |spec| set_image(spec, "demo:v2")).await;
    until(
        &cluster,
        &["db-0 demo:v1 ready", "db-1 demo:v2 ready", "db-2 demo:v2 ready"],
    )
    .await;
    let gone: Vec<String> = log
        .lock()
        .unwrap()
        .iter()
        .filter(|line| line.starts_with('-'))
        .cloned()
        .collect();
    assert_eq!(gone, ["-db-2", "-db-1"]);
    // A pod below the partition comes back as it was.
    cluster
        .resources
        .delete_typed::<Pod>("default", "db-0", &DeleteOptions::default())
        .await
        .unwrap();
    let came = || log.lock().unwrap().iter().filter(|line| *line == "+db-0").count();
    eventually("db-0 is back", || came() == 2).await;
    until(
        &cluster,
        &["db-0 demo:v1 ready", "db-1 demo:v2 ready", "db-2 demo:v2 ready"],
    )
    .await;
    let partial = status(&cluster);
    assert_ne!(partial.current_revision, partial.update_revision);
    change(&cluster, |spec| {
        spec.update_strategy
            .as_mut()
            .unwrap()
            .rolling_update
            .as_mut()
            .unwrap()
            .partition = Some(0);
    })
    .await;
    until(
        &cluster,
        &["db-0 demo:v2 ready", "db-1 demo:v2 ready", "db-2 demo:v2 ready"],
    )
    .await;
    eventually("the update is complete", || {
        let status = status(&cluster);
        status.current_revision == status.update_revision && status.current_replicas == Some(3)
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_update_waits_until_its_pod_is_deleted_by_hand() {
    let setting = Setting {
        broken_image: BROKEN,
        ..Setting::default()
    };
    let cluster = Cluster::start_with(2, setting).await;
    create(&cluster, json!({})).await;
    until(
        &cluster,
        &["db-0 demo:v1 ready", "db-1 demo:v1 ready", "db-2 demo:v1 ready"],
    )
    .await;
    change(&cluster, |spec| set_image(spec, BROKEN)).await;
    let stuck = [
        "db-0 demo:v1 ready",
        "db-1 demo:v1 ready",
        "db-2 demo:broken unready",
    ];
    until(&cluster, &stuck).await;
    change(&cluster, |spec| set_image(spec, "demo:v1")).await;
    eventually("the template is observed", || {
        let (sets, _) = cluster.resources.list_typed::<StatefulSet>(None);
        let set = &sets[0];
        set.status.as_ref().and_then(|status| status.observed_generation) == set.metadata.generation
    })
    .await;
    assert_eq!(pods(&cluster), stuck);
    cluster
        .resources
        .delete_typed::<Pod>("default", "db-2", &DeleteOptions::default())
        .await
        .unwrap();
    until(
        &cluster,
        &["db-0 demo:v1 ready", "db-1 demo:v1 ready", "db-2 demo:v1 ready"],
    )
    .await;
    let (revisions, _) = cluster.resources.list_typed::<ControllerRevision>(None);
    let numbers: Vec<i64> = revisions.iter().map(|revision| revision.revision).collect();
    // The first template was wanted again: its revision has a new number.
    assert_eq!(numbers.iter().max(), Some(&3), "{numbers:?}");
    assert_eq!(numbers.len(), 2);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_pods_come_at_once_and_no_ordinal_comes_twice() {
    let cluster = Cluster::start(5).await;
    let log = record(&cluster);
    create(
        &cluster,
        json!({"podManagementPolicy": "Parallel", "replicas": 40}),
    )
    .await;
    let ready = |count: usize| {
        pods(&cluster)
            .iter()
            .filter(|pod| pod.ends_with(" ready"))
            .count()
            == count
    };
    eventually("forty pods are ready", || ready(40)).await;
    // Another leader goes on in the middle of a change.
    change(&cluster, |spec| spec.replicas = Some(60)).await;
    cluster.depose().await;
    cluster.elect();
    eventually("sixty pods are ready", || ready(60)).await;
    let mut counts = BTreeMap::<String, i32>::new();
    for line in log.lock().unwrap().iter() {
        *counts.entry(line.clone()).or_default() += 1;
    }
    assert_eq!(counts.len(), 60);
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_pod_is_made_anew() {
    let cluster = Cluster::start(1).await;
    create(&cluster, json!({"replicas": 1})).await;
    until(&cluster, &["db-0 demo:v1 ready"]).await;
    let before = cluster.pods.get("default", "db-0").unwrap().metadata.uid.clone();
    let fail = |pod: &mut Pod| {
        pod.status.get_or_insert_default().phase = Some("Failed".to_owned());
        true
    };
    cluster
        .resources
        .modify("default", "db-0", Part::Status, fail)
        .await
        .unwrap();
    eventually("another pod takes its place", || {
        let pod = cluster.pods.get("default", "db-0");
        pod.is_some_and(|pod| pod.metadata.uid != before && is_ready(&pod))
    })
    .await;
    let events = cluster.events("RecreatingFailedPod");
    assert_eq!(events, ["StatefulSet default/db is recreating failed Pod db-0"]);
    cluster.stop().await;
}

fn claims(cluster: &Cluster) -> Vec<(String, Option<String>)> {
    let (claims, _) = cluster
        .resources
        .list_typed::<PersistentVolumeClaim>(Some("default"));
    let told = |claim: &Arc<PersistentVolumeClaim>| {
        let owners = claim.metadata.owner_references.iter().flatten();
        let owner = owners.into_iter().next().map(|owner| owner.kind.clone());
        (claim.metadata.name.clone().unwrap(), owner)
    };
    claims.iter().map(told).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_pod_has_claims_that_outlive_scaling_and_go_with_the_set() {
    let cluster = Cluster::start(2).await;
    let spec = json!({
        "podManagementPolicy": "Parallel",
        "replicas": 2,
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Retain"},
        "volumeClaimTemplates": [{
            "metadata": {"name": "data"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        }],
    });
    create(&cluster, spec).await;
    let of_set = || Some("StatefulSet".to_owned());
    let both = [
        ("data-db-0".to_owned(), of_set()),
        ("data-db-1".to_owned(), of_set()),
    ];
    eventually("both claims are the set's", || claims(&cluster) == both).await;
    let pod = cluster.pods.get("default", "db-1").unwrap();
    let volumes = pod.spec.as_ref().unwrap().volumes.clone().unwrap();
    let claim = volumes[0].persistent_volume_claim.as_ref().unwrap();
    assert_eq!(
        (volumes[0].name.as_str(), claim.claim_name.as_str()),
        ("data", "data-db-1")
    );
    change(&cluster, |spec| spec.replicas = Some(1)).await;
    eventually("db-1 is gone", || cluster.pods.get("default", "db-1").is_none()).await;
    assert_eq!(claims(&cluster).len(), 2);
    cluster
        .resources
        .delete_typed::<StatefulSet>("default", "db", &DeleteOptions::default())
        .await
        .unwrap();
    eventually("the claims go with the set", || claims(&cluster).is_empty()).await;
    cluster.stop().await;
}
