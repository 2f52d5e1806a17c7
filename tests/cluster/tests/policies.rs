//! Network policies in a real cluster: between pods of all nodes, through services, from the first packet on, and while
//! an agent is replaced.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail as a test does")]

use std::time::Duration;

use flotilla_cluster_tests::{Cluster, eventually, name_of, text};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

/// A server with many ports on one node; clients on both, one of them in another namespace.
const PODS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: ops, labels: {team: blue}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  nodeName: agent-1
  terminationGracePeriodSeconds: 0
  containers:
    - name: main
      image: flotilla.test/busybox:latest
      ports: [{name: http, containerPort: 8080}]
      command: [sh, -c, "echo hello > /tmp/index.html; for port in 8080 9000 9005 9010 9011; do httpd -p $port -h /tmp; done; sleep 100000"]
"#;

fn client(namespace: &str, name: &str, node: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}, labels: {{app: {name}}}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 0
  containers: [{{name: main, image: flotilla.test/busybox:latest, command: [sleep, \"100000\"]}}]
"
    )
}

fn policy(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    )
}

struct Bench {
    cluster: Cluster,
    /// Of the server, and of its service.
    web: String,
    service: String,
}

impl Bench {
    fn new() -> Self {
        let cluster = Cluster::up(1, 2);
        cluster.import_image("busybox");
        cluster.apply(PODS);
        eventually("the namespace is there", LIMIT, || {
            let found = cluster.try_flotilla(&["get", "serviceaccount", "default", "-n", "ops"]);
            found.status.success().then_some(())
        });
        cluster.apply(&client("default", "near", "agent-1"));
        cluster.apply(&client("ops", "far", "agent-2"));
        let address = |words: &[&str]| {
            eventually(&format!("{words:?} runs"), LIMIT, || {
                let pod = cluster.get(words);
                let is_running = pod["status"]["phase"] == "Running";
                is_running.then(|| pod["status"]["podIP"].as_str().map(str::to_owned))?
            })
        };
        address(&["pod", "far", "-n", "ops"]);
        address(&["pod", "near"]);
        let web = address(&["pod", "web"]);
        let service = cluster.get(&["service", "web"]);
        let service = service["spec"]["clusterIP"].as_str().unwrap().to_owned();
        Self {
            cluster,
            web,
            service,
        }
    }

    fn exec(&self, (namespace, pod): (&str, &str), words: &[&str]) -> bool {
        let mut all = vec!["exec", "-n", namespace, pod, "--"];
        all.extend(words);
        self.cluster.try_flotilla(&all).status.success()
    }

    /// Whether the client gets an answer.
    fn asks(&self, client: (&str, &str), address: &str, port: u16) -> bool {
        let script =
            format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 {address} {port} | grep -q hello");
        self.exec(client, &["sh", "-c", &script])
    }

    fn let_through(&self, client: (&str, &str), address: &str, port: u16) {
        let what = format!("{client:?} reaches {address}:{port}");
        eventually(&what, LIMIT, || self.asks(client, address, port).then_some(()));
    }

    /// Kept out, and for good: a second look must not find it open again.
    fn kept_out(&self, client: (&str, &str), address: &str, port: u16) {
        let what = format!("{client:?} does not reach {address}:{port}");
        eventually(&what, LIMIT, || (!self.asks(client, address, port)).then_some(()));
        assert!(!self.asks(client, address, port), "{what}");
    }

    fn delete(&self, policy: &str) {
        self.cluster.flotilla(&["delete", "networkpolicy", policy]);
    }
}

const NEAR: (&str, &str) = ("default", "near");
const FAR: (&str, &str) = ("ops", "far");

#[test]
fn what_comes_in_is_what_policies_of_the_pod_allow_also_while_its_agent_is_replaced() {
    let bench = Bench::new();
    for client in [NEAR, FAR] {
        bench.let_through(client, &bench.web, 8080);
        bench.let_through(client, &bench.service, 80);
    }
    let written = bench.cluster.apply(&policy("deny", "{podSelector: {}}"));
    assert!(!written.to_lowercase().contains("warning"), "{written}");
    for client in [NEAR, FAR] {
        bench.kept_out(client, &bench.web, 8080);
        bench.kept_out(client, &bench.service, 80);
    }
    bench.cluster.apply(&policy(
        "far",
        "{podSelector: {matchLabels: {app: web}}, ingress: [{from: [
           {namespaceSelector: {matchLabels: {team: blue}}, podSelector: {matchLabels: {app: far}}}]}]}",
    ));
    bench.let_through(FAR, &bench.web, 8080);
    bench.let_through(FAR, &bench.service, 80);
    bench.kept_out(NEAR, &bench.web, 8080);
    replace_agent(&bench);
    bench.delete("far");
    bench.kept_out(FAR, &bench.web, 8080);
    bench.delete("deny");
    bench.let_through(NEAR, &bench.web, 8080);
}

/// While there is no agent, and once there is another, all is as it was.
fn replace_agent(bench: &Bench) {
    bench.cluster.kill_process("agent-1");
    let from_node = |address: &str| {
        let url = format!("http://{address}:8080/");
        let folder = bench.cluster.folder().to_str().unwrap();
        let words = [
            "local",
            "--name",
            bench.cluster.name(),
            "--dir",
            folder,
            "exec",
            "agent-1",
            "--",
        ];
        let output = bench
            .cluster
            .try_flotilla(&[&words[..], &["curl", "-s", "-m", "5", &url]].concat());
        text(&output.stdout)
    };
    assert_eq!(from_node(&bench.web), "hello\n", "a node reaches its pods");
    assert!(bench.asks(FAR, &bench.web, 8080));
    bench.cluster.local(&["start", "agent-1"]);
    eventually("another agent has the pods", LIMIT, || {
        bench.exec(NEAR, &["true"]).then_some(())
    });
    assert!(bench.asks(FAR, &bench.web, 8080));
    assert!(!bench.asks(NEAR, &bench.web, 8080));
    bench.kept_out(NEAR, &bench.web, 8080);
}

#[test]
fn ports_ranges_names_and_blocks_with_exceptions_are_kept() {
    let bench = Bench::new();
    let ingress = |rule: &str| format!("{{podSelector: {{matchLabels: {{app: web}}}}, ingress: [{rule}]}}");
    bench
        .cluster
        .apply(&policy("p", &ingress("{ports: [{port: 9000, endPort: 9010}]}")));
    for port in [9000, 9005, 9010] {
        bench.let_through(FAR, &bench.web, port);
    }
    for port in [8080, 9011] {
        bench.kept_out(FAR, &bench.web, port);
    }
    bench.kept_out(FAR, &bench.service, 80);
    bench
        .cluster
        .apply(&policy("p", &ingress("{ports: [{port: http}]}")));
    bench.let_through(FAR, &bench.service, 80);
    bench.kept_out(FAR, &bench.web, 9000);
    let near = bench.cluster.get(&["pod", "near"]);
    let near = near["status"]["podIP"].as_str().unwrap();
    let block = format!("{{from: [{{ipBlock: {{cidr: 10.42.0.0/16, except: [{near}/32]}}}}]}}");
    bench.cluster.apply(&policy("p", &ingress(&block)));
    bench.let_through(FAR, &bench.web, 9011);
    bench.kept_out(NEAR, &bench.web, 9011);
}

#[test]
fn what_goes_out_is_denied_but_for_names_until_more_is_allowed() {
    let bench = Bench::new();
    let resolves = || bench.exec(NEAR, &["nslookup", "web.default.svc.cluster.local"]);
    eventually("names are answered", LIMIT, || resolves().then_some(()));
    let egress = |rules: &str| {
        format!("{{podSelector: {{matchLabels: {{app: near}}}}, policyTypes: [Egress], egress: [{rules}]}}")
    };
    bench.cluster.apply(&policy("out", &egress("")));
    bench.kept_out(NEAR, &bench.web, 8080);
    eventually("no names are answered", LIMIT, || (!resolves()).then_some(()));
    bench.cluster.apply(&policy(
        "names",
        &egress(
            "{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}, podSelector: {matchLabels: {k8s-app: kube-dns}}}],
              ports: [{port: 53, protocol: UDP}, {port: 53}]}",
        ),
    ));
    eventually("names are answered again", LIMIT, || resolves().then_some(()));
    bench.kept_out(NEAR, &bench.web, 8080);
    bench.cluster.apply(&policy(
        "web",
        &egress("{to: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: http}]}"),
    ));
    bench.let_through(NEAR, &bench.service, 80);
    bench.kept_out(NEAR, &bench.web, 9000);
}

/// Pods that try to get out the moment they start, and then again and again.
fn eager(name: &str, count: u32, kept: &str, address: &str) -> String {
    format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {count}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}, kept: \"{kept}\"}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
        - name: main
          image: flotilla.test/busybox:latest
          command: [sh, -c]
          args:
            - |
              for try in 1 2 3; do
                printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 1 {address} 8080 | grep -q hello && echo THROUGH || echo kept
              done
              echo finished; sleep 100000
"
    )
}

fn logs(bench: &Bench, app: &str, count: usize) -> Vec<String> {
    let pods: Vec<Value> = bench.cluster.ready_pods(&format!("app={app}"), count, LIMIT);
    let log = |pod: &Value| {
        let name = name_of(pod);
        eventually("the pod has tried", LIMIT, || {
            let log = text(&bench.cluster.try_flotilla(&["logs", &name]).stdout);
            log.contains("finished").then_some(log)
        })
    };
    pods.iter().map(log).collect()
}

#[test]
fn not_even_the_first_packet_of_a_pod_gets_through() {
    let bench = Bench::new();
    bench.let_through(NEAR, &bench.web, 8080);
    bench.cluster.apply(&policy(
        "kept",
        "{podSelector: {matchLabels: {kept: \"in\"}}, policyTypes: [Egress]}",
    ));
    // Others are not kept, so the pods would get through if nothing held them.
    bench.cluster.apply(&eager("free", 2, "out", &bench.web));
    for log in logs(&bench, "free", 2) {
        assert_eq!(log.matches("THROUGH").count(), 3, "{log}");
    }
    bench.cluster.apply(&eager("eager", 12, "in", &bench.web));
    for log in logs(&bench, "eager", 12) {
        assert_eq!(log.matches("kept").count(), 3, "{log}");
        assert_eq!(log.matches("THROUGH").count(), 0, "{log}");
    }
}
