//! Services in a real cluster: from pods, from nodes, from outside, and as endpoints come and go.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail as a test does")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use flotilla_cluster_tests::{Cluster, condition, eventually, name_of, text};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);

/// Copies of the demo server, one per node at most, and a service of this specification.
fn manifest(replicas: u32, service: &str) -> String {
    format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      topologySpreadConstraints:
        - {{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {{matchLabels: {{app: web}}}}}}
      containers:
        - name: web
          image: flotilla.dev/demo:v1
          ports: [{{name: http, containerPort: 8080}}]
          readinessProbe: {{httpGet: {{path: /healthz, port: http}}, periodSeconds: 1, failureThreshold: 1}}
          env: [{{name: POD_NAME, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}]
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec:
  selector: {{app: web}}
  ports: [{{name: http, port: 80, targetPort: http}}]
{service}"
    )
}

fn service(cluster: &Cluster) -> Value {
    cluster.get(&["service", "web"])
}

fn cluster_ip(cluster: &Cluster) -> String {
    service(cluster)["spec"]["clusterIP"].as_str().unwrap().to_owned()
}

/// What is answered to a request from a node; nothing when there is no answer.
fn ask(cluster: &Cluster, node: &str, url: &str) -> Option<String> {
    curl(cluster, node, &[url])
}

fn curl(cluster: &Cluster, node: &str, words: &[&str]) -> Option<String> {
    let folder = cluster.folder().to_str().unwrap();
    let mut all = vec![
        "local",
        "--name",
        cluster.name(),
        "--dir",
        folder,
        "exec",
        node,
        "--",
    ];
    all.extend(["curl", "-s", "-k", "-m", "2"]);
    all.extend(words);
    let output = cluster.try_flotilla(&all);
    output.status.success().then(|| text(&output.stdout))
}

/// Names of the pods that answer.
fn pods_behind(cluster: &Cluster, node: &str, url: &str, questions: usize) -> BTreeSet<String> {
    let name = |answer: String| answer.trim().rsplit(' ').next().unwrap_or_default().to_owned();
    (0..questions)
        .filter_map(|_| ask(cluster, node, url))
        .map(name)
        .collect()
}

fn all_behind(cluster: &Cluster, node: &str, url: &str, pods: &BTreeSet<String>) {
    let mut seen = BTreeSet::new();
    eventually(&format!("all pods answer {node} at {url}"), LIMIT, || {
        seen.extend(pods_behind(cluster, node, url, 5));
        (seen == *pods).then_some(())
    });
}

fn names(pods: &[Value]) -> BTreeSet<String> {
    pods.iter().map(name_of).collect()
}

#[test]
fn a_service_spreads_connections_from_nodes_pods_and_outside_over_pods_of_all_nodes() {
    let cluster = Cluster::up(1, 2);
    cluster.apply(&manifest(3, "  type: NodePort\n"));
    let pods = cluster.ready_pods("app=web", 3, LIMIT);
    let (all, ip) = (names(&pods), cluster_ip(&cluster));
    for node in ["server-1", "agent-1"] {
        all_behind(&cluster, node, &format!("http://{ip}/"), &all);
    }
    let node_port = service(&cluster)["spec"]["ports"][0]["nodePort"]
        .as_u64()
        .unwrap();
    let address = pods[0]["status"]["hostIP"].as_str().unwrap();
    all_behind(
        &cluster,
        "agent-2",
        &format!("http://{address}:{node_port}/"),
        &all,
    );
    // A pod asks the service, and so now and then itself.
    let asking = name_of(&pods[0]);
    let mut seen = BTreeSet::new();
    eventually("a pod reaches all pods, itself among them", LIMIT, || {
        let answer = cluster.fetch(&asking, 8080, &format!("/fetch?host={ip}&port=80&path=/"));
        seen.insert(answer.trim().rsplit(' ').next().unwrap_or_default().to_owned());
        (all.is_subset(&seen)).then_some(())
    });
    let environment = cluster.fetch(&asking, 8080, "/env");
    assert!(
        environment.contains("KUBERNETES_SERVICE_HOST=10.43.0.1"),
        "{environment}"
    );
    let version = eventually("the API answers at its service's address", LIMIT, || {
        ask(&cluster, "agent-1", "https://10.43.0.1/version")
    });
    assert!(version.contains("gitVersion"), "{version}");
}

#[test]
fn a_pod_that_is_not_ready_gets_no_more_connections_and_without_pods_they_are_refused_at_once() {
    let cluster = Cluster::up(1, 1);
    cluster.apply(&manifest(2, ""));
    let pods = cluster.ready_pods("app=web", 2, LIMIT);
    let url = format!("http://{}/", cluster_ip(&cluster));
    all_behind(&cluster, "agent-1", &url, &names(&pods));
    let sick = name_of(&pods[0]);
    let address = pods[0]["status"]["podIP"].as_str().unwrap();
    let set_bad = format!("http://{address}:8080/healthz?set=bad");
    assert!(curl(&cluster, "agent-1", &["-X", "POST", &set_bad]).is_some());
    eventually("the pod is not ready", LIMIT, || {
        (condition(&cluster.get(&["pod", &sick]), "Ready") == Some("False")).then_some(())
    });
    let begin = Instant::now();
    let last = eventually("the pod answers no more", LIMIT, || {
        let mut last = Duration::ZERO;
        for _ in 0..10 {
            if pods_behind(&cluster, "agent-1", &url, 1).contains(&sick) {
                last = begin.elapsed();
            }
        }
        last.is_zero().then(|| begin.elapsed())
    });
    println!("ten answers by others, and none by the pod, {last:?} after it was seen not to be ready");
    assert!(last < Duration::from_secs(5), "{last:?}");
    cluster.flotilla(&["scale", "deployment", "web", "--replicas=0"]);
    let quick = eventually("connections are refused", LIMIT, || {
        let begin = Instant::now();
        ask(&cluster, "agent-1", &url).is_none().then(|| begin.elapsed())
    });
    assert!(
        quick < Duration::from_secs(1),
        "refused at once, not after {quick:?}"
    );
}

#[test]
fn a_client_with_affinity_stays_with_its_pod() {
    let cluster = Cluster::up(1, 1);
    cluster.apply(&manifest(2, "  sessionAffinity: ClientIP\n"));
    cluster.ready_pods("app=web", 2, LIMIT);
    let url = format!("http://{}/", cluster_ip(&cluster));
    eventually("the service answers", LIMIT, || ask(&cluster, "agent-1", &url));
    let first = pods_behind(&cluster, "agent-1", &url, 12);
    assert_eq!(first.len(), 1, "{first:?}");
}

#[test]
fn a_balanced_address_of_the_pool_is_announced_on_the_nodes_network() {
    let cluster = Cluster::up_with(1, 2, &["--load-balancer-pool", "10.89.0.200-10.89.0.201"]);
    cluster.apply(&manifest(3, "  type: LoadBalancer\n"));
    let pods = cluster.ready_pods("app=web", 3, LIMIT);
    let address = eventually("the service has an address of the pool", LIMIT, || {
        Some(
            service(&cluster)["status"]["loadBalancer"]["ingress"][0]["ip"]
                .as_str()?
                .to_owned(),
        )
    });
    assert_eq!(address, "10.89.0.200");
    // The switch between the nodes is their neighbour and none of them.
    let outside = format!("--net=/run/flotilla/local/{}/switch/net", cluster.name());
    let mut seen = BTreeSet::new();
    eventually("all pods answer at the balanced address", LIMIT, || {
        let mut curl = std::process::Command::new("nsenter");
        curl.args([&outside, "curl", "-s", "-m", "2", &format!("http://{address}/")]);
        let answer = text(&curl.output().unwrap().stdout);
        seen.insert(answer.trim().rsplit(' ').next().unwrap_or_default().to_owned());
        names(&pods).is_subset(&seen).then_some(())
    });
}
