//! Ingresses in a real cluster: hosts, paths, certificates, and updates under load, through the nodes' own proxies.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail as a test does")]

use std::time::Duration;

use flotilla_cluster_tests::{Cluster, eventually, text};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
const LOAD_SECONDS: &str = "20";
const REQUESTS_PER_SECOND: &str = "50";

/// A Deployment of the demo server and its Service.
fn application(name: &str, version: &str, replicas: u32) -> String {
    format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      containers:
        - name: web
          image: flotilla.dev/demo:{version}
          ports: [{{name: http, containerPort: 8080}}]
          readinessProbe: {{httpGet: {{path: /healthz, port: http}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  selector: {{app: {name}}}
  ports: [{{name: http, port: 80, targetPort: http}}]
---
"
    )
}

const FRONT: &str = "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: front}
spec:
  tls: [{hosts: [one.test], secretName: one}]
  rules:
    - host: one.test
      http:
        paths:
          - {path: /, pathType: Prefix, backend: {service: {name: one, port: {number: 80}}}}
          - {path: /version, pathType: Exact, backend: {service: {name: two, port: {name: http}}}}
    - host: '*.two.test'
      http:
        paths:
          - {path: /hostname, pathType: Prefix, backend: {service: {name: two, port: {number: 80}}}}
";

/// A secret with a new certificate for `one.test`, and the certificate.
fn secret(name: &str) -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["one.test".to_owned()]).unwrap();
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": made.cert.pem(), "tls.key": made.signing_key.serialize_pem()},
    });
    (secret.to_string(), made.cert.pem())
}

/// What a command prints in a node's namespaces, if it succeeds.
fn on_node(cluster: &Cluster, node: &str, words: &[&str]) -> Option<String> {
    let output = cluster
        .local_command(&["exec", node, "--"])
        .args(words)
        .output()
        .unwrap();
    output.status.success().then(|| text(&output.stdout))
}

/// A request to the proxy at an address: the body, then a line with the status.
fn ask(cluster: &Cluster, address: &str, url: &str, flags: &[&str]) -> Option<String> {
    let host = url.split('/').nth(2).unwrap();
    let port = if url.starts_with("https") { 443 } else { 80 };
    let resolve = format!("{host}:{port}:{address}");
    let mut words = vec![
        "curl",
        "-s",
        "-m",
        "5",
        "-w",
        "%{http_code}",
        "--resolve",
        &resolve,
    ];
    words.extend(flags);
    words.push(url);
    on_node(cluster, "agent-1", &words)
}

/// The addresses of the ingress, once it has as many.
fn addresses(cluster: &Cluster, count: usize) -> Vec<String> {
    eventually("the ingress has its nodes' addresses", LIMIT, || {
        let ingress = cluster.get(&["ingress", "front"]);
        let points = ingress["status"]["loadBalancer"]["ingress"].as_array()?.clone();
        let address = |point: &Value| point["ip"].as_str().unwrap().to_owned();
        (points.len() == count).then(|| points.iter().map(address).collect())
    })
}

fn wait_for_class(cluster: &Cluster) {
    eventually("the default class is there", LIMIT, || {
        let found = cluster.try_flotilla(&["get", "ingressclass", "flotilla"]);
        found.status.success().then_some(())
    });
}

fn rules_hold(cluster: &Cluster, addresses: &[String]) {
    for address in addresses {
        let answers = |url: &str, begin: &str, status: &str| {
            eventually(&format!("{address} answers {url} with {begin}"), LIMIT, || {
                let answer = ask(cluster, address, url, &[])?;
                (answer.starts_with(begin) && answer.ends_with(status)).then_some(())
            });
        };
        answers("http://one.test/", "flotilla demo v1", "200");
        answers("http://one.test/version", "v2", "200");
        answers("http://one.test/version/", "not found", "404");
        answers("http://any.two.test/hostname", "two-", "200");
        answers(
            "http://any.two.test/",
            "404 Not Found: no Ingress has a rule",
            "404",
        );
        answers(
            "http://three.test/",
            "404 Not Found: no Ingress has a rule",
            "404",
        );
    }
}

fn certificates_follow_their_secret(cluster: &Cluster, address: &str, first: &str) {
    let trusted = |name: &str, certificate: &str| {
        let path = cluster.folder().join(name);
        std::fs::write(&path, certificate).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let first = trusted("first.pem", first);
    let by = |authority: &str| ask(cluster, address, "https://one.test/", &["--cacert", authority]);
    eventually("TLS with the secret's certificate", LIMIT, || by(&first));
    let (again, second) = secret("one");
    cluster.apply(&again);
    let second = trusted("second.pem", &second);
    eventually("TLS with the new certificate", LIMIT, || by(&second));
    assert!(by(&first).is_none(), "the old certificate is shown no more");
}

#[test]
fn hosts_paths_and_certificates_lead_to_services_on_every_node() {
    let cluster = Cluster::up(1, 1);
    wait_for_class(&cluster);
    assert!(
        ask(&cluster, "127.0.0.1", "http://one.test/", &[]).is_none(),
        "nothing listens yet"
    );
    let (named, first) = secret("one");
    let (unnamed, _) = secret("unnamed");
    for secret in [&named, &unnamed] {
        cluster.apply(secret);
    }
    cluster.apply(&(application("one", "v1", 1) + &application("two", "v2", 1) + FRONT));
    for app in ["app=one", "app=two"] {
        cluster.ready_pods(app, 1, LIMIT);
    }
    let ingress = cluster.get(&["ingress", "front"]);
    assert_eq!(
        ingress["spec"]["ingressClassName"], "flotilla",
        "the default class"
    );
    let addresses = addresses(&cluster, 2);
    let table = cluster.flotilla(&["get", "ingress", "front"]);
    assert!(table.contains(&addresses.join(",")), "{table}");

    rules_hold(&cluster, &addresses);
    certificates_follow_their_secret(&cluster, &addresses[0], &first);

    // Nodes have that secret and no other.
    let kept = std::fs::read(cluster.data_dir("agent-1").join("follow/secrets")).unwrap();
    let kept = String::from_utf8_lossy(&kept).into_owned();
    assert!(kept.contains("\"one\"") && !kept.contains("unnamed"));

    // What is broken is told, and the ports are free again once the last ingress is gone.
    cluster.flotilla(&["delete", "service", "two"]);
    eventually("an event names the missing service", LIMIT, || {
        let events = cluster.get(&["events"]);
        let mut found = events["items"].as_array()?.iter();
        found
            .any(|event| event["reason"] == "ServiceNotFound" && event["involvedObject"]["name"] == "front")
            .then_some(())
    });
    let gone = ask(&cluster, &addresses[0], "http://one.test/version", &[]).unwrap();
    assert!(gone.contains("service default/two does not exist"), "{gone}");
    cluster.flotilla(&["delete", "ingress", "front"]);
    for address in &addresses {
        eventually("nothing listens any more", LIMIT, || {
            ask(&cluster, address, "http://one.test/", &[])
                .is_none()
                .then_some(())
        });
    }
}

#[test]
fn a_deployment_is_updated_twice_behind_an_ingress_without_a_failed_request() {
    let cluster = Cluster::up(1, 1);
    wait_for_class(&cluster);
    let front = "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: front}
spec:
  defaultBackend: {service: {name: web, port: {number: 80}}}
";
    cluster.apply(&(application("web", "v1", 2) + front));
    cluster.ready_pods("app=web", 2, LIMIT);
    let url = format!("http://{}/", addresses(&cluster, 2)[0]);
    eventually("the ingress answers", LIMIT, || {
        on_node(&cluster, "agent-1", &["curl", "-fsS", "-m", "5", &url])
    });
    let load = std::thread::scope(|scope| {
        let words = [
            env!("CARGO_BIN_EXE_flotilla-load"),
            &url,
            REQUESTS_PER_SECOND,
            LOAD_SECONDS,
        ];
        let cluster = &cluster;
        let load = scope.spawn(move || on_node(cluster, "agent-1", &words));
        for version in ["v2", "v1"] {
            let image = format!("web=flotilla.dev/demo:{version}");
            cluster.flotilla(&["set", "image", "deployment/web", &image]);
            cluster.flotilla(&["rollout", "status", "deployment/web", "--timeout=60s"]);
        }
        load.join().unwrap().unwrap()
    });
    let summary: Value = serde_json::from_str(&load).unwrap();
    assert_eq!(summary["failed"], 0, "{load}");
    assert_eq!(summary["requests"], 1000, "{load}");
}
