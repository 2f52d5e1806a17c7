//! Nodes that go silent, come back, or are removed.

use flotilla_resources::DeleteOptions;
use k8s_openapi::api::core::v1::Node;
use serde_json::json;

use crate::harness::{Cluster, Setting, eventually, is_ready, node_of};

fn taints(cluster: &Cluster, node: &str) -> Vec<String> {
    let node = cluster.nodes.get("", node).unwrap();
    let taints = node.spec.clone().unwrap_or_default().taints.unwrap_or_default();
    taints
        .into_iter()
        .map(|taint| format!("{}:{}", taint.key, taint.effect))
        .collect()
}

fn readiness(cluster: &Cluster, node: &str) -> String {
    let node = cluster.nodes.get("", node).unwrap();
    let conditions = node
        .status
        .clone()
        .unwrap_or_default()
        .conditions
        .unwrap_or_default();
    let ready = conditions
        .into_iter()
        .find(|condition| condition.type_ == "Ready")
        .unwrap();
    format!("{} {}", ready.status, ready.reason.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pods_of_a_silent_node_are_replaced_and_end_when_it_is_removed() {
    let setting = Setting {
        toleration_seconds: Some(1),
        ..Setting::default()
    };
    let cluster = Cluster::start_with(2, setting).await;
    cluster.deploy(json!({"replicas": 4})).await;
    cluster.rolled_out("demo:v1", 4).await;
    cluster.silence("node-1");
    eventually("the node is called unknown", || {
        readiness(&cluster, "node-1") == "Unknown NodeStatusUnknown"
    })
    .await;
    eventually("the node is tainted", || {
        taints(&cluster, "node-1")
            == [
                "node.kubernetes.io/unreachable:NoSchedule",
                "node.kubernetes.io/unreachable:NoExecute",
            ]
    })
    .await;
    eventually("its pods are not ready", || {
        let pods = cluster.pods.list(None);
        pods.iter()
            .filter(|pod| node_of(pod) == "node-1")
            .all(|pod| !is_ready(pod))
    })
    .await;
    eventually("four pods run on the other node", || {
        let live = cluster.live_pods();
        live.len() == 4 && live.iter().all(|pod| node_of(pod) == "node-2" && is_ready(pod))
    })
    .await;
    assert_eq!(
        cluster.pods.list(None).len(),
        6,
        "the silent node's pods stay terminating"
    );
    cluster
        .resources
        .delete_typed::<Node>("", "node-1", &DeleteOptions::default())
        .await
        .unwrap();
    eventually("its pods are gone", || cluster.pods.list(None).len() == 4).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_back_in_time_keeps_its_pods() {
    let cluster = Cluster::start(2).await;
    cluster.deploy(json!({"replicas": 4})).await;
    cluster.rolled_out("demo:v1", 4).await;
    let mut before: Vec<_> = cluster
        .live_pods()
        .iter()
        .map(|pod| pod.metadata.uid.clone())
        .collect();
    cluster.silence("node-1");
    eventually("its pods are not ready", || {
        cluster.live_pods().iter().filter(|pod| is_ready(pod)).count() == 2
    })
    .await;
    cluster.revive("node-1");
    cluster.rolled_out("demo:v1", 4).await;
    eventually("the node is ready and open", || {
        readiness(&cluster, "node-1") == "True KubeletReady" && taints(&cluster, "node-1").is_empty()
    })
    .await;
    let mut after: Vec<_> = cluster
        .live_pods()
        .iter()
        .map(|pod| pod.metadata.uid.clone())
        .collect();
    before.sort();
    after.sort();
    assert_eq!(before, after);
    cluster.stop().await;
}
