//! What a new leader does with what it finds.

use std::time::{Duration, Instant};

use jiff::{Timestamp, ToSpan as _};
use k8s_openapi::api::core::v1::{Event, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::json;

use crate::harness::{Cluster, SILENCE, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_goes_on_where_the_old_one_stopped() {
    let cluster = Cluster::start(2).await;
    cluster.deploy(json!({"replicas": 6})).await;
    eventually("the rollout has begun", || !cluster.live_pods().is_empty()).await;
    cluster.depose().await;
    cluster.set_image("demo:v2").await;
    cluster.elect();
    cluster.rolled_out("demo:v2", 6).await;
    for round in 1..=5 {
        cluster.set_image(&format!("demo:r{round}")).await;
        cluster.depose().await;
        cluster.elect();
    }
    cluster.rolled_out("demo:r5", 6).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_gives_every_node_its_grace() {
    let cluster = Cluster::start(1).await;
    let is_unknown = || {
        let conditions = cluster
            .nodes
            .get("", "node-1")
            .and_then(|node| node.status.clone()?.conditions);
        conditions
            .into_iter()
            .flatten()
            .any(|condition| condition.status == "Unknown")
    };
    cluster.depose().await;
    cluster.silence("node-1");
    let silent = Instant::now();
    let mut looks = tokio::time::interval(Duration::from_millis(10));
    while silent.elapsed() < SILENCE {
        looks.tick().await;
    }
    let elected = Instant::now();
    cluster.elect();
    eventually("the node is called silent", is_unknown).await;
    assert!(elected.elapsed() >= SILENCE);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_go_after_an_hour() {
    let cluster = Cluster::start(0).await;
    for (name, minutes) in [("old", 61), ("young", 59)] {
        let last = Timestamp::now() - minutes.minutes();
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("default".to_owned()),
            ..ObjectMeta::default()
        };
        let involved_object = ObjectReference {
            namespace: Some("default".to_owned()),
            ..ObjectReference::default()
        };
        let event = Event {
            metadata,
            involved_object,
            last_timestamp: Some(Time(last)),
            ..Event::default()
        };
        cluster.resources.create_typed(event).await.unwrap();
    }
    let left = || {
        let (events, _) = cluster.resources.list_typed::<Event>(Some("default"));
        events
            .iter()
            .filter_map(|event| event.metadata.name.clone())
            .collect::<Vec<String>>()
    };
    assert_eq!(left(), ["old", "young"]);
    cluster.depose().await;
    cluster.elect();
    eventually("only the young one is left", || left() == ["young"]).await;
    cluster.stop().await;
}
