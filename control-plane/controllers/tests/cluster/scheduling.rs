//! Scheduling against the real store.

use std::collections::HashMap;

use flotilla_resources::Part;
use k8s_openapi::api::core::v1::Node;
use serde_json::json;

use crate::harness::{Cluster, eventually, node_of};

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_pods_spread_evenly_over_fifty_nodes() {
    let cluster = Cluster::start(50).await;
    cluster.deploy(json!({"replicas": 500})).await;
    cluster.rolled_out("demo:v1", 500).await;
    let mut counts: HashMap<String, usize> = HashMap::new();
    for pod in cluster.live_pods() {
        *counts.entry(node_of(&pod).to_owned()).or_default() += 1;
    }
    assert_eq!(counts.len(), 50);
    assert!(counts.values().all(|count| *count == 10), "{counts:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_fits_nowhere_says_why_and_is_placed_once_it_fits() {
    let cluster = Cluster::start(2).await;
    let spec = json!({
        "replicas": 1,
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {
                "containers": [{"name": "web", "image": "demo:v1"}],
                "nodeSelector": {"disk": "fast"},
            },
        },
    });
    cluster.deploy(spec).await;
    let message = "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector.";
    eventually("the event says why", || {
        cluster.events("FailedScheduling") == [message]
    })
    .await;
    eventually("the condition says why", || {
        let pods = cluster.live_pods();
        let conditions = pods[0]
            .status
            .clone()
            .unwrap_or_default()
            .conditions
            .unwrap_or_default();
        let scheduled = conditions
            .into_iter()
            .find(|condition| condition.type_ == "PodScheduled");
        scheduled.is_some_and(|scheduled| {
            scheduled.status == "False" && scheduled.message.as_deref() == Some(message)
        })
    })
    .await;
    let label = |node: &mut Node| {
        node.metadata
            .labels
            .get_or_insert_default()
            .insert("disk".to_owned(), "fast".to_owned());
        true
    };
    cluster
        .resources
        .modify("", "node-2", Part::Whole, label)
        .await
        .unwrap();
    cluster.rolled_out("demo:v1", 1).await;
    assert_eq!(node_of(&cluster.live_pods()[0]), "node-2");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_pod_is_bound_to_a_node_that_is_gone() {
    let cluster = Cluster::start(0).await;
    cluster.deploy(json!({"replicas": 2})).await;
    eventually("the pods wait", || cluster.live_pods().len() == 2).await;
    let bindings = cluster
        .live_pods()
        .into_iter()
        .map(|pod| flotilla_resources::Binding {
            namespace: "default".to_owned(),
            name: pod.metadata.name.clone().unwrap(),
            uid: pod.metadata.uid.clone().unwrap(),
            node: "gone".to_owned(),
        });
    let answers = cluster.resources.bind(bindings.collect()).await;
    let refusals: Vec<String> = answers
        .into_iter()
        .map(|answer| answer.unwrap_err().to_string())
        .collect();
    assert_eq!(refusals, [r#"nodes "gone" not found"#; 2]);
    cluster.add_node("node-1").await;
    cluster.rolled_out("demo:v1", 2).await;
    cluster.stop().await;
}
