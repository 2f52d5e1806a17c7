//! Deployments: rollouts, scaling, pause, rollback.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use flotilla_resources::{CacheEvent, DeleteOptions};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::harness::{Cluster, Setting, eventually, image_of, is_ready};

/// Watches every state that the pods go through.
struct Bounds {
    violations: Arc<Mutex<Vec<String>>>,
}

impl Bounds {
    fn watch(cluster: &Cluster, available_min: usize, total_max: usize) -> Bounds {
        let violations: Arc<Mutex<Vec<String>>> = Arc::default();
        let pods: Mutex<HashMap<String, Arc<Pod>>> = Mutex::default();
        let (note, seeded) = (violations.clone(), cluster.pods.list(None).len());
        cluster.pods.subscribe(move |event| {
            let mut pods = pods.lock().unwrap();
            let pod = event.object();
            let name = pod.metadata.name.clone().unwrap();
            match event {
                CacheEvent::Deleted(_) => pods.remove(&name),
                _ => pods.insert(name, pod.clone()),
            };
            if pods.len() < seeded && !matches!(event, CacheEvent::Deleted(_)) {
                return;
            }
            let live: Vec<_> = pods
                .values()
                .filter(|pod| pod.metadata.deletion_timestamp.is_none())
                .collect();
            let available = live.iter().filter(|pod| is_ready(pod)).count();
            if available < available_min || live.len() > total_max {
                note.lock()
                    .unwrap()
                    .push(format!("{available} available of {}", live.len()));
            }
        });
        Bounds { violations }
    }

    fn assert_kept(&self) {
        assert!(
            self.violations.lock().unwrap().is_empty(),
            "{:?}",
            self.violations.lock().unwrap()
        );
    }
}

fn progressing(web: &Deployment) -> String {
    let conditions = web.status.as_ref().and_then(|status| status.conditions.as_ref());
    let found = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition.type_ == "Progressing");
    found
        .map(|found| format!("{} {}", found.status, found.reason.clone().unwrap_or_default()))
        .unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_stays_within_its_bounds_at_every_moment() {
    let cluster = Cluster::start(3).await;
    let strategy = json!({"rollingUpdate": {"maxSurge": 2, "maxUnavailable": 1}});
    cluster.deploy(json!({"replicas": 8, "strategy": strategy})).await;
    cluster.rolled_out("demo:v1", 8).await;
    let bounds = Bounds::watch(&cluster, 7, 10);
    cluster.set_image("demo:v2").await;
    cluster.rolled_out("demo:v2", 8).await;
    bounds.assert_kept();
    eventually("the rollout is called complete", || {
        progressing(&cluster.web()) == "True NewReplicaSetAvailable"
    })
    .await;
    let revision = cluster.web().metadata.annotations.clone().unwrap();
    assert_eq!(revision["deployment.kubernetes.io/revision"], "2");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_pods_are_announced_in_kubernetes_words() {
    let cluster = Cluster::start(2).await;
    cluster.deploy(json!({})).await;
    cluster.rolled_out("demo:v1", 3).await;
    eventually("events are stored", || cluster.events("Scheduled").len() == 3).await;
    let set = cluster.replica_sets.list(Some("default"))[0]
        .metadata
        .name
        .clone()
        .unwrap();
    assert_eq!(
        cluster.events("ScalingReplicaSet"),
        [format!("Scaled up replica set {set} from 0 to 3")]
    );
    let mut created: Vec<String> = cluster.events("SuccessfulCreate");
    created.sort();
    let mut expected: Vec<String> = cluster
        .live_pods()
        .iter()
        .map(|pod| format!("Created pod: {}", pod.metadata.name.clone().unwrap()))
        .collect();
    expected.sort();
    assert_eq!(created, expected);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scaling_up_and_down_keeps_the_revision() {
    let cluster = Cluster::start(3).await;
    cluster.deploy(json!({})).await;
    cluster.rolled_out("demo:v1", 3).await;
    for replicas in [10, 1, 0, 4] {
        cluster.change(|spec| spec.replicas = Some(replicas)).await;
        cluster.rolled_out("demo:v1", replicas).await;
    }
    assert_eq!(cluster.replica_sets.list(None).len(), 1);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_deployment_scales_but_does_not_roll_out() {
    let cluster = Cluster::start(2).await;
    cluster.deploy(json!({})).await;
    cluster.rolled_out("demo:v1", 3).await;
    cluster.change(|spec| spec.paused = Some(true)).await;
    eventually("the pause is noted", || {
        progressing(&cluster.web()) == "Unknown DeploymentPaused"
    })
    .await;
    cluster.set_image("demo:v2").await;
    cluster.change(|spec| spec.replicas = Some(5)).await;
    eventually("five pods are ready", || {
        cluster.live_pods().iter().filter(|pod| is_ready(pod)).count() == 5
    })
    .await;
    assert!(cluster.live_pods().iter().all(|pod| image_of(pod) == "demo:v1"));
    assert_eq!(cluster.replica_sets.list(None).len(), 1);
    cluster.change(|spec| spec.paused = None).await;
    cluster.rolled_out("demo:v2", 5).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recreate_never_runs_two_revisions_at_once() {
    let cluster = Cluster::start(2).await;
    cluster.deploy(json!({"strategy": {"type": "Recreate"}})).await;
    cluster.rolled_out("demo:v1", 3).await;
    let mixed = Arc::new(Mutex::new(Vec::new()));
    let (note, pods) = (mixed.clone(), Mutex::new(HashMap::new()));
    cluster.pods.subscribe(move |event| {
        let mut pods = pods.lock().unwrap();
        let pod = event.object();
        let name = pod.metadata.name.clone().unwrap();
        match event {
            CacheEvent::Deleted(_) => pods.remove(&name),
            _ => pods.insert(name, image_of(pod).to_owned()),
        };
        if pods.values().any(|image| image == "demo:v1") && pods.values().any(|image| image == "demo:v2") {
            note.lock().unwrap().push(format!("{pods:?}"));
        }
    });
    cluster.set_image("demo:v2").await;
    cluster.rolled_out("demo:v2", 3).await;
    assert!(mixed.lock().unwrap().is_empty(), "{:?}", mixed.lock().unwrap());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rolling_back_takes_the_old_set_and_gives_it_a_new_number() {
    let cluster = Cluster::start(2).await;
    cluster.deploy(json!({})).await;
    cluster.rolled_out("demo:v1", 3).await;
    let first = cluster.replica_sets.list(None)[0].metadata.name.clone().unwrap();
    cluster.set_image("demo:v2").await;
    cluster.rolled_out("demo:v2", 3).await;
    cluster.set_image("demo:v1").await;
    cluster.rolled_out("demo:v1", 3).await;
    eventually("the revision is 3", || {
        let annotations = cluster.web().metadata.annotations.clone().unwrap_or_default();
        annotations
            .get("deployment.kubernetes.io/revision")
            .map(String::as_str)
            == Some("3")
    })
    .await;
    assert_eq!(cluster.replica_sets.list(None).len(), 2);
    let set = cluster.replica_sets.get("default", &first).unwrap();
    let annotations = set.metadata.annotations.clone().unwrap();
    assert_eq!(annotations["deployment.kubernetes.io/revision"], "3");
    assert_eq!(annotations["deployment.kubernetes.io/revision-history"], "1");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_image_stops_the_rollout_and_is_late() {
    let setting = Setting {
        broken_image: "demo:broken",
        ..Setting::default()
    };
    let cluster = Cluster::start_with(2, setting).await;
    cluster
        .deploy(json!({"replicas": 4, "progressDeadlineSeconds": 2}))
        .await;
    cluster.rolled_out("demo:v1", 4).await;
    let bounds = Bounds::watch(&cluster, 3, 5);
    cluster.set_image("demo:broken").await;
    eventually("the rollout is late", || {
        progressing(&cluster.web()) == "False ProgressDeadlineExceeded"
    })
    .await;
    assert_eq!(
        cluster
            .live_pods()
            .iter()
            .filter(|pod| image_of(pod) == "demo:v1")
            .count(),
        3
    );
    cluster.set_image("demo:v1").await;
    cluster.rolled_out("demo:v1", 4).await;
    bounds.assert_kept();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_revisions_beyond_the_limit_are_deleted() {
    let cluster = Cluster::start(2).await;
    cluster
        .deploy(json!({"replicas": 1, "revisionHistoryLimit": 1}))
        .await;
    for version in ["demo:v1", "demo:v2", "demo:v3", "demo:v4"] {
        cluster.set_image(version).await;
        cluster.rolled_out(version, 1).await;
    }
    eventually("two sets are left", || cluster.replica_sets.list(None).len() == 2).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_the_deployment_deletes_everything_below_it() {
    let cluster = Cluster::start(2).await;
    cluster.deploy(json!({})).await;
    cluster.rolled_out("demo:v1", 3).await;
    cluster
        .resources
        .delete_typed::<Deployment>("default", "web", &DeleteOptions::default())
        .await
        .unwrap();
    eventually("nothing is left", || {
        cluster.pods.list(None).is_empty() && cluster.replica_sets.list(None).is_empty()
    })
    .await;
    cluster.stop().await;
}
