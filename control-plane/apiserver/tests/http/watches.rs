//! Watches.

use bytes::Bytes;
use flotilla_apiserver::Body;
use http::{Method, Response};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::cluster::{Cluster, limited};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// The events of a watch, one after the other.
struct Events {
    body: Body,
    buffer: Vec<u8>,
}

impl Events {
    async fn open(cluster: &Cluster, query: &str) -> Self {
        Self::of(
            cluster
                .open(Method::GET, &format!("{MAPS}?watch=1&{query}"), &[], "")
                .await,
        )
    }

    fn of(response: Response<Body>) -> Self {
        assert_eq!(response.status(), 200);
        Self {
            body: response.into_body(),
            buffer: Vec::new(),
        }
    }

    /// The next event; `None` when the watch is over.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let data: Bytes = limited(self.body.frame()).await?.unwrap().into_data().unwrap();
            self.buffer.extend_from_slice(&data);
        }
    }

    /// `ADDED a`
    async fn short(&mut self) -> String {
        let event = self.next().await.expect("the watch goes on");
        let name = event["object"]["metadata"]["name"].as_str().unwrap_or("-");
        format!("{} {name}", event["type"].as_str().unwrap())
    }
}

#[tokio::test]
async fn changes_arrive_in_order_after_what_is_there() {
    let cluster = Cluster::start().await;
    cluster.config_map("a", json!({})).await;
    let mut events = Events::open(&cluster, "").await;
    assert_eq!(events.short().await, "ADDED a");
    cluster.config_map("b", json!({})).await;
    cluster
        .merge(&format!("{MAPS}/a"), json!({"data": {"a": "z"}}))
        .await
        .expect(200);
    cluster
        .send(Method::DELETE, &format!("{MAPS}/b"), &[], "")
        .await
        .expect(200);
    assert_eq!(events.short().await, "ADDED b");
    let modified = events.next().await.unwrap();
    assert_eq!(
        (&modified["type"], &modified["object"]["data"]["a"]),
        (&json!("MODIFIED"), &json!("z"))
    );
    assert_eq!(events.short().await, "DELETED b");
}

#[tokio::test]
async fn a_watch_goes_on_from_a_list() {
    let cluster = Cluster::start().await;
    cluster.config_map("a", json!({})).await;
    let list = cluster.get(MAPS).await.expect(200);
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();
    cluster.config_map("b", json!({})).await;
    let mut events = Events::open(&cluster, &format!("resourceVersion={version}")).await;
    assert_eq!(events.short().await, "ADDED b");
}

#[tokio::test]
async fn selectors_turn_changes_into_arrivals_and_departures() {
    let cluster = Cluster::start().await;
    let version = cluster.config_map("a", json!({"x": "1"})).await["metadata"]["resourceVersion"].clone();
    let query = format!(
        "labelSelector=x%3D2&resourceVersion={}",
        version.as_str().unwrap()
    );
    let mut events = Events::open(&cluster, &query).await;
    let label = async |value: &str| {
        let patch = json!({"metadata": {"labels": {"x": value}}});
        cluster.merge(&format!("{MAPS}/a"), patch).await.expect(200)
    };
    label("2").await;
    let last = label("3").await;
    label("2").await;
    assert_eq!(events.short().await, "ADDED a");
    let left = events.next().await.unwrap();
    assert_eq!(left["type"], "DELETED");
    assert_eq!(left["object"]["metadata"]["labels"]["x"], "2");
    assert_eq!(
        left["object"]["metadata"]["resourceVersion"],
        last["metadata"]["resourceVersion"]
    );
    assert_eq!(events.short().await, "ADDED a");
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    let cluster = Cluster::start().await;
    cluster.config_map("a", json!({})).await;
    let query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut events = Events::open(&cluster, query).await;
    assert_eq!(events.short().await, "ADDED a");
    let bookmark = events.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(
        bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    cluster.config_map("b", json!({})).await;
    assert_eq!(events.short().await, "ADDED b");
    cluster
        .get(&format!("{MAPS}?watch=1&sendInitialEvents=true"))
        .await
        .refused(422);
}

#[tokio::test]
async fn a_watch_ends_at_its_time_with_a_last_bookmark() {
    let cluster = Cluster::start().await;
    let mut events = Events::open(&cluster, "timeoutSeconds=1&allowWatchBookmarks=true").await;
    assert_eq!(events.short().await, "BOOKMARK -");
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn a_draining_server_ends_its_watches() {
    let cluster = Cluster::start().await;
    let mut events = Events::open(&cluster, "").await;
    cluster.drain.cancel();
    assert_eq!(events.next().await, None);
    assert_eq!(cluster.get("/readyz").await.code, 500);
    assert_eq!(cluster.get("/livez").await.code, 200);
}

#[tokio::test]
async fn tables_are_watched_row_by_row() {
    let cluster = Cluster::start().await;
    cluster.config_map("a", json!({})).await;
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let response = cluster
        .open(Method::GET, &format!("{MAPS}?watch=1"), &accept, "")
        .await;
    let event = Events::of(response).next().await.unwrap();
    assert_eq!(event["type"], "ADDED");
    assert_eq!(event["object"]["kind"], "Table");
    assert_eq!(event["object"]["rows"][0]["cells"][0], "a");
}

#[tokio::test]
async fn a_moment_that_never_was_is_refused() {
    let cluster = Cluster::start().await;
    cluster
        .get(&format!("{MAPS}?watch=1&resourceVersion=99999"))
        .await
        .refused(504);
}
