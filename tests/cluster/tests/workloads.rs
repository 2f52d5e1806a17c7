//! StatefulSets, what pods and nodes use, and a node's last word on which pods it takes.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail as a test does")]

use std::time::Duration;

use flotilla_cluster_tests::{Cluster, eventually, kubectls, name_of, succeed};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

const SET: &str = "
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 2
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: web, image: 'flotilla.dev/demo:v1'}]
";

#[test]
fn a_stateful_set_is_rolled_out_looked_at_and_rolled_back() {
    let cluster = Cluster::up(1, 1);
    cluster.apply(SET);
    let rollout = |words: &[&str]| cluster.flotilla(&[&["rollout"], words].concat());
    rollout(&["status", "statefulset/db", "--timeout", "60s"]);
    let names: Vec<String> = cluster
        .ready_pods("app=db", 2, LIMIT)
        .iter()
        .map(name_of)
        .collect();
    assert_eq!(names, ["db-0", "db-1"]);
    assert_eq!(cluster.fetch("db-1", 8080, "/hostname").trim(), "db-1");

    cluster.apply(&SET.replace("demo:v1", "demo:v2"));
    let said = rollout(&["status", "sts", "db", "--timeout", "60s"]);
    assert!(
        said.contains("statefulset rolling update complete 2 pods at revision db-"),
        "{said}"
    );
    assert_eq!(cluster.fetch("db-0", 8080, "/version").trim(), "v2");
    let history = rollout(&["history", "statefulset/db"]);
    assert!(
        history.contains("1         <none>") && history.contains("2         <none>"),
        "{history}"
    );
    let second = rollout(&["history", "statefulset/db", "--revision", "2"]);
    assert!(second.contains("flotilla.dev/demo:v2"), "{second}");

    rollout(&["undo", "statefulset/db"]);
    rollout(&["status", "statefulset/db", "--timeout", "60s"]);
    assert_eq!(cluster.fetch("db-0", 8080, "/version").trim(), "v1");
    let described = cluster.flotilla(&["describe", "sts", "db"]);
    for part in [
        "2 desired | 2 total",
        "RollingUpdate",
        "create Pod db-1 in StatefulSet db successful",
    ] {
        assert!(described.contains(part), "no {part:?} in\n{described}");
    }
    cluster.flotilla(&["scale", "sts/db", "--replicas", "1"]);
    eventually("db-1 is gone", LIMIT, || {
        (cluster.pods("app=db").len() == 1).then_some(())
    });
}

#[test]
fn what_pods_and_nodes_use_is_seen_by_our_and_by_kubernetes_own_client() {
    let cluster = Cluster::up(2, 1);
    cluster.apply(SET);
    cluster.ready_pods("app=db", 2, LIMIT);
    let top = eventually("both pods were measured", LIMIT, || {
        let output = cluster.try_flotilla(&["top", "pods", "-l", "app=db", "--containers"]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (said.contains("db-0") && said.contains("db-1")).then_some(said)
    });
    assert!(top.starts_with("POD "), "{top}");
    let nodes = eventually("all nodes were measured", LIMIT, || {
        let said = cluster.flotilla(&["top", "nodes", "--sort-by", "memory"]);
        (!said.contains("<unknown>")).then_some(said)
    });
    for node in ["server-1", "server-2", "agent-1"] {
        assert!(nodes.contains(node), "{nodes}");
    }
    for kubectl in kubectls() {
        let pods = succeed(cluster.command(&kubectl, &["top", "pods"]));
        assert!(pods.contains("db-0") && pods.contains("Mi"), "{pods}");
        let nodes = succeed(cluster.command(&kubectl, &["top", "nodes"]));
        assert!(nodes.contains("agent-1") && nodes.contains('%'), "{nodes}");
    }
    let placed = cluster.get(&["pod", "db-0"]);
    let node = placed["spec"]["nodeName"].as_str().unwrap();
    let path = format!("/api/v1/nodes/{node}/proxy/stats/summary");
    let summary: Value = serde_json::from_str(&cluster.flotilla(&["get", "--raw", &path])).unwrap();
    let pods = summary["pods"].as_array().unwrap();
    let found = pods.iter().find(|pod| pod["podRef"]["name"] == "db-0").unwrap();
    assert!(
        found["containers"][0]["memory"]["workingSetBytes"]
            .as_u64()
            .unwrap()
            > 0,
        "{found}"
    );
    assert!(
        found["cpu"]["usageCoreNanoSeconds"].as_u64().unwrap() > 0,
        "{found}"
    );
    assert!(found["network"]["txBytes"].is_u64(), "{found}");
    assert!(summary["node"]["memory"]["availableBytes"].as_u64().unwrap() > 0);
    assert!(summary["node"]["fs"]["capacityBytes"].as_u64().unwrap() > 0);
}

#[test]
fn a_node_refuses_a_pod_that_it_has_no_room_for_and_shows_what_it_has_promised() {
    let cluster = Cluster::up(1, 0);
    let pod = |name: &str, cpu: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  nodeName: server-1\n  priorityClassName: system-cluster-critical\n  containers:\n    - {{name: main, image: 'flotilla.dev/demo:v1', resources: {{requests: {{cpu: {cpu}}}}}}}\n"
        )
    };
    cluster.apply(&pod("modest", "100m"));
    cluster.apply(&pod("greedy", "1000"));
    let status = eventually("the greedy pod is refused", LIMIT, || {
        let status = cluster.get(&["pod", "greedy"])["status"].clone();
        (status["phase"] == "Failed").then_some(status)
    });
    assert_eq!(status["reason"], "OutOfcpu");
    let message = status["message"].as_str().unwrap();
    assert!(
        message.contains("Node didn't have enough resource: cpu, requested: 1000000"),
        "{message}"
    );
    eventually("the modest one runs", LIMIT, || {
        (cluster.get(&["pod", "modest"])["status"]["phase"] == "Running").then_some(())
    });
    assert_eq!(cluster.get(&["pod", "modest"])["spec"]["priority"], 2_000_000_000);
    let node = cluster.get(&["node", "server-1"]);
    assert_ne!(
        node["status"]["allocatable"]["memory"],
        node["status"]["capacity"]["memory"]
    );
    let described = cluster.flotilla(&["describe", "node", "server-1"]);
    assert!(
        described.contains("Allocated resources:") && described.contains("cpu                100m ("),
        "{described}"
    );
}
