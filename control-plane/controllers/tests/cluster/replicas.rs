//! ReplicaSets and ReplicationControllers: ownership and replacement.

use flotilla_resources::{DeleteOptions, Part};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use serde_json::json;

use crate::harness::{Cluster, eventually, is_ready};

fn app_label(pod: &mut Pod, value: Option<&str>) {
    let labels = pod.metadata.labels.get_or_insert_default();
    match value {
        Some(value) => labels.insert("app".to_owned(), value.to_owned()),
        None => labels.remove("app"),
    };
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_pod_is_replaced() {
    let cluster = Cluster::start(2).await;
    cluster.deploy(json!({})).await;
    cluster.rolled_out("demo:v1", 3).await;
    let name = cluster.live_pods()[0].metadata.name.clone().unwrap();
    cluster
        .resources
        .delete_typed::<Pod>("default", &name, &DeleteOptions::default())
        .await
        .unwrap();
    eventually("another pod takes its place", || {
        cluster.pods.get("default", &name).is_none() && cluster.is_rolled_out("demo:v1", 3)
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_without_the_label_is_let_go_and_one_that_gets_it_back_is_taken_in() {
    let cluster = Cluster::start(2).await;
    cluster.deploy(json!({})).await;
    cluster.rolled_out("demo:v1", 3).await;
    let name = cluster.live_pods()[0].metadata.name.clone().unwrap();
    let label = |value: Option<&'static str>| {
        cluster
            .resources
            .modify::<Pod>("default", &name, Part::Whole, move |pod| {
                app_label(pod, value);
                true
            })
    };
    label(None).await.unwrap();
    eventually("there are four pods, one of them free", || {
        let free = cluster
            .pods
            .get("default", &name)
            .is_some_and(|pod| pod.metadata.owner_references.is_none());
        free && cluster.live_pods().iter().filter(|pod| is_ready(pod)).count() == 4
    })
    .await;
    label(Some("web")).await.unwrap();
    eventually("there are three pods again", || {
        let owned = cluster
            .live_pods()
            .iter()
            .all(|pod| pod.metadata.owner_references.is_some());
        owned && cluster.is_rolled_out("demo:v1", 3)
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replication_controller_keeps_its_pods() {
    let cluster = Cluster::start(2).await;
    let controller: ReplicationController = serde_json::from_value(json!({
        "metadata": {"name": "old", "namespace": "default"},
        "spec": {
            "replicas": 2,
            "selector": {"app": "old"},
            "template": {
                "metadata": {"labels": {"app": "old"}},
                "spec": {"containers": [{"name": "web", "image": "demo:v1"}]},
            },
        },
    }))
    .unwrap();
    cluster.resources.create_typed(controller).await.unwrap();
    let ready = || cluster.live_pods().iter().filter(|pod| is_ready(pod)).count();
    eventually("two pods are ready", || ready() == 2).await;
    let scale = |controller: &mut ReplicationController| {
        controller.spec.as_mut().unwrap().replicas = Some(5);
        true
    };
    cluster
        .resources
        .modify("default", "old", Part::Whole, scale)
        .await
        .unwrap();
    eventually("five pods are ready", || ready() == 5).await;
    eventually("the status says so", || {
        let (controllers, _) = cluster.resources.list_typed::<ReplicationController>(None);
        controllers[0]
            .status
            .as_ref()
            .is_some_and(|status| status.available_replicas == Some(5))
    })
    .await;
    cluster.stop().await;
}
