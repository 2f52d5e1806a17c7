//! `metrics.k8s.io` and the nodes' summaries, from reports that the test makes.

use http::Method;
use serde_json::{Value, json};

use crate::cluster::{Cluster, pod};

const NODES: &str = "/apis/metrics.k8s.io/v1beta1/nodes";
const PODS: &str = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods";

fn measured(nano_cores: u64) -> Value {
    json!({
        "cpu": {"time": "2026-01-01T00:00:10Z", "usageNanoCores": nano_cores, "usageCoreNanoSeconds": 1},
        "memory": {"time": "2026-01-01T00:00:10Z", "workingSetBytes": 4096},
    })
}

/// A node `n` with the pods `web` and `db`, of which it has reported, and a pod that is gone.
async fn cluster() -> Cluster {
    let cluster = Cluster::start().await;
    let node = json!({"metadata": {"name": "n", "labels": {"zone": "a"}}});
    cluster.create("/api/v1/nodes", node).await;
    let mut pods = vec![json!({"podRef": {"name": "gone", "namespace": "default", "uid": "gone"}})];
    for name in ["web", "db"] {
        let mut body = pod(name);
        body["metadata"]["labels"] = json!({"app": name});
        let made = cluster.create("/api/v1/namespaces/default/pods", body).await;
        let mut container = measured(2_000_000);
        container["name"] = "a".into();
        pods.push(json!({
            "podRef": {"name": name, "namespace": "default", "uid": made["metadata"]["uid"]},
            "containers": [container],
        }));
    }
    let mut node = measured(5_000_000);
    node["nodeName"] = "n".into();
    cluster.reports.keep("n", &json!({"node": node, "pods": pods}));
    cluster
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn use_is_listed_selected_and_read_by_name() {
    let cluster = cluster().await;
    let nodes = cluster.get(NODES).await.expect(200);
    assert_eq!(
        (&nodes["kind"], names(&nodes)),
        (&json!("NodeMetricsList"), vec!["n"])
    );
    assert_eq!(
        nodes["items"][0]["usage"],
        json!({"cpu": "5000000n", "memory": "4Ki"})
    );
    assert_eq!(nodes["items"][0]["metadata"]["labels"]["zone"], "a");
    assert_eq!(names(&cluster.get(PODS).await.expect(200)), ["db", "web"]);
    let all = "/apis/metrics.k8s.io/v1beta1/pods?labelSelector=app%3Dweb";
    let web = cluster.get(all).await.expect(200);
    assert_eq!(names(&web), ["web"]);
    assert_eq!(
        web["items"][0]["containers"],
        json!([{"name": "a", "usage": {"cpu": "2000000n", "memory": "4Ki"}}])
    );
    let one = cluster.get(&format!("{PODS}/db")).await.expect(200);
    assert_eq!(
        (&one["kind"], &one["window"]),
        (&json!("PodMetrics"), &json!("10s"))
    );
    let message = cluster.get(&format!("{PODS}/gone")).await.refused(404);
    assert_eq!(message, "pods.metrics.k8s.io \"gone\" not found");
}

#[tokio::test]
async fn use_can_only_be_read_and_comes_as_a_table() {
    let cluster = cluster().await;
    let body = json!({"metadata": {"name": "x"}}).to_string();
    let refused = cluster.send(Method::POST, NODES, &[], &body).await;
    assert_eq!(refused.code, 405);
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = cluster.send(Method::GET, NODES, &accept, "").await.expect(200);
    assert_eq!(table["rows"][0]["cells"], json!(["n", "5000000n", "4Ki", "10s"]));
    let resources = cluster.get("/apis/metrics.k8s.io/v1beta1").await.expect(200);
    let listed: Vec<&str> = resources["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|resource| resource["kind"].as_str().unwrap())
        .collect();
    assert_eq!(listed, ["NodeMetrics", "PodMetrics"]);
    let document = cluster
        .get("/openapi/v3/apis/metrics.k8s.io/v1beta1")
        .await
        .expect(200);
    assert!(
        document["components"]["schemas"]
            .get("io.k8s.api.metrics.v1beta1.PodMetrics")
            .is_some()
    );
}

#[tokio::test]
async fn a_nodes_summary_is_what_it_reported() {
    let cluster = cluster().await;
    for node in ["n", "n:10250"] {
        let summary = cluster
            .get(&format!("/api/v1/nodes/{node}/proxy/stats/summary"))
            .await
            .expect(200);
        assert_eq!(summary["node"]["nodeName"], "n");
        assert_eq!(summary["pods"].as_array().unwrap().len(), 3);
    }
    cluster.get("/api/v1/nodes/n/proxy/run").await.refused(404);
    cluster
        .get("/api/v1/nodes/other/proxy/stats/summary")
        .await
        .refused(404);
    cluster
        .create("/api/v1/nodes", json!({"metadata": {"name": "new"}}))
        .await;
    let message = cluster
        .get("/api/v1/nodes/new/proxy/stats/summary")
        .await
        .refused(503);
    assert!(message.contains("has reported no statistics"), "{message}");
}
