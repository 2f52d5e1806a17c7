//! Names: what pods are told by the DNS of their node, with and without a control plane.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail as a test does")]

use std::{fs, path::PathBuf, time::Duration};

use flotilla_cluster_tests::{Cluster, eventually};

const LIMIT: Duration = Duration::from_secs(60);

/// Services of each type with endpoints written by hand, and a pod that asks for their names over and over.
const NAMED: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.43.0.77, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, ports: [{name: sql, port: 5432}]}
---
apiVersion: v1
kind: Service
metadata: {name: away}
spec: {type: ExternalName, externalName: web.default.svc.cluster.local}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-by-hand, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
ports: [{name: sql, port: 5432}]
endpoints:
  - {addresses: [10.42.9.1], hostname: db-0}
  - {addresses: [10.42.9.2]}
---
apiVersion: v1
kind: Pod
metadata: {name: asks}
spec:
  nodeName: agent-1
  containers:
    - name: main
      image: flotilla.test/busybox:latest
      command: [sh, -c]
      args:
        - |
          cat /etc/resolv.conf
          set -f
          ask() { echo "$1 $2:" $(nslookup -type=$1 $2 2>&1 | tail -n +4); }
          round=0
          while true; do
            zone=default.svc.cluster.local
            ask a web.$zone; ask aaaa web.$zone; ask a WEB.Default.SVC.cluster.local
            ask srv _http._tcp.web.$zone; ask ptr 77.0.43.10.in-addr.arpa
            ask a db.$zone; ask a db-0.db.$zone; ask a 10-42-9-2.db.$zone
            ask srv _sql._tcp.db.$zone; ask ptr 1.9.42.10.in-addr.arpa
            ask a away.$zone; ask a 10-42-9-2.default.pod.cluster.local; ask a nobody.$zone
            round=$((round + 1)); echo "round $round"
            sleep 0.2
          done
"#;

const ANSWERS: [&str; 14] = [
    "search default.svc.cluster.local svc.cluster.local cluster.local",
    "a web.default.svc.cluster.local: Name: web.default.svc.cluster.local Address: 10.43.0.77",
    "aaaa web.default.svc.cluster.local:\n",
    "a WEB.Default.SVC.cluster.local: Name: WEB.Default.SVC.cluster.local Address: 10.43.0.77",
    "_http._tcp.web.default.svc.cluster.local service = 0 100 80 web.default.svc.cluster.local",
    "77.0.43.10.in-addr.arpa name = web.default.svc.cluster.local",
    "Name: db.default.svc.cluster.local Address: 10.42.9.1",
    "Name: db.default.svc.cluster.local Address: 10.42.9.2",
    "a db-0.db.default.svc.cluster.local: Name: db-0.db.default.svc.cluster.local Address: 10.42.9.1",
    "_sql._tcp.db.default.svc.cluster.local service = 0 100 5432 10-42-9-2.db.default.svc.cluster.local",
    "1.9.42.10.in-addr.arpa name = db-0.db.default.svc.cluster.local",
    "away.default.svc.cluster.local canonical name = web.default.svc.cluster.local Name: web.default.svc.cluster.local Address: 10.43.0.77",
    "a 10-42-9-2.default.pod.cluster.local: Name: 10-42-9-2.default.pod.cluster.local Address: 10.42.9.2",
    "a nobody.default.svc.cluster.local: ** server can't find nobody.default.svc.cluster.local: NXDOMAIN",
];

/// The log of the only pod of a node, read where it is written: it must work while no server answers.
struct Log(PathBuf);

impl Log {
    fn of_only_pod(cluster: &Cluster, node: &str) -> Self {
        let pods = cluster.data_dir(node).join("pods");
        eventually("the pod has a log", LIMIT, || {
            let pod = fs::read_dir(&pods).ok()?.next()?.ok()?.path();
            let file = pod.join("main").join("0.log");
            file.exists().then_some(Self(file))
        })
    }

    /// The whole lines, without what each begins with.
    fn read(&self) -> String {
        let text = fs::read_to_string(&self.0).unwrap();
        let lines = text.lines().filter_map(|line| line.splitn(4, ' ').nth(3));
        lines.map(|line| format!("{line}\n")).collect()
    }

    fn rounds(&self) -> usize {
        self.read().matches("\nround ").count()
    }

    /// Waits for a round that begins from now on; what was answered in it.
    fn next_round(&self) -> String {
        let known = self.rounds();
        eventually("another round was asked", LIMIT, || {
            (self.rounds() > known + 1).then_some(())
        });
        let text = self.read();
        let begin = text.find(&format!("\nround {}\n", known + 1)).unwrap();
        text[begin..].to_owned()
    }
}

fn assert_all_answered(round: &str, answers: &[&str]) {
    for answer in answers {
        assert!(round.contains(answer), "{answer:?} is missing in\n{round}");
    }
}

#[test]
fn names_of_every_kind_are_answered_even_without_a_control_plane() {
    let cluster = Cluster::up(1, 1);
    cluster.import_image("busybox");
    cluster.apply(NAMED);
    let log = Log::of_only_pod(&cluster, "agent-1");
    let first = log.next_round();
    assert_all_answered(&log.read(), &ANSWERS);
    assert_all_answered(&first, &ANSWERS[1..]);
    cluster.local(&["kill", "server-1"]);
    assert_all_answered(&log.next_round(), &ANSWERS[1..]);
    // An agent that finds no server knows what the one before it knew.
    cluster.kill_process("agent-1");
    cluster.local(&["start", "agent-1"]);
    assert_all_answered(&log.next_round(), &ANSWERS[1..]);
}
