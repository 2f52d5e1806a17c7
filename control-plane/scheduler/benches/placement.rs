//! How long a placement takes: `cargo bench -p flotilla-scheduler` (nodes and pods may follow as numbers).
#![allow(
    missing_docs,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints, and may fail as a test does"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_scheduler::cluster::Cluster;
use flotilla_scheduler::place::{Placement, place};
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

fn main() {
    let numbers: Vec<usize> = std::env::args()
        .filter_map(|argument| argument.parse().ok())
        .collect();
    let nodes = numbers.first().copied().unwrap_or(5_000);
    let pods = numbers.get(1).copied().unwrap_or(10_000);
    println!("{nodes} nodes, {pods} pods");
    let anti =
        json!([{"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}}]);
    let spread = json!([{"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}}]);
    measure("plain", nodes, pods, &json!({}));
    measure(
        "spread over zones",
        nodes,
        pods.min(nodes),
        &json!({"topologySpreadConstraints": spread}),
    );
    let anti =
        json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": anti}}});
    measure("one per node", nodes, pods.min(nodes), &anti);
    measure(
        "fits nowhere",
        nodes,
        pods.min(1_000),
        &json!({"nodeSelector": {"disk": "none"}}),
    );
}

fn measure(name: &str, nodes: usize, pods: usize, spec: &Value) {
    let mut cluster = Cluster::default();
    for number in 0..nodes {
        cluster.set_node(node(number));
    }
    let pods: Vec<Pod> = (0..pods).map(|number| pod(number, spec)).collect();
    let (mut start, mut times) = (0, Vec::with_capacity(pods.len()));
    let began = Instant::now();
    for pod in &pods {
        let before = Instant::now();
        if let Placement::Node(node) = place(&cluster, pod, &mut start) {
            cluster.add_pod(pod, &node);
        }
        times.push(before.elapsed());
    }
    report(name, began.elapsed(), times);
}

fn report(name: &str, whole: Duration, mut times: Vec<Duration>) {
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    let rate = times.len() as f64 / whole.as_secs_f64();
    println!(
        "{name:>20}: {rate:>9.0} pods/s, median {:?}, p99 {:?}, max {:?}",
        at(50),
        at(99),
        at(100)
    );
}

fn node(number: usize) -> Arc<Node> {
    let labels = json!({
        "kubernetes.io/hostname": format!("node-{number}"),
        "topology.kubernetes.io/zone": format!("zone-{}", number % 3),
    });
    let allocatable = json!({"cpu": "16", "memory": "64Gi", "pods": "110"});
    let node = json!({
        "metadata": {"name": format!("node-{number}"), "labels": labels}, "status": {"allocatable": allocatable},
    });
    Arc::new(serde_json::from_value(node).unwrap())
}

fn pod(number: usize, extra: &Value) -> Pod {
    let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "set", "controller": true});
    let requests = json!({"cpu": "100m", "memory": "128Mi"});
    let mut spec = json!({"containers": [{"name": "web", "resources": {"requests": requests}}]});
    for (field, value) in extra.as_object().unwrap() {
        spec[field] = value.clone();
    }
    let name = format!("web-{number}");
    let metadata = json!({
        "name": name, "uid": name, "namespace": "default", "labels": {"app": "web"}, "ownerReferences": [owner],
    });
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
}
