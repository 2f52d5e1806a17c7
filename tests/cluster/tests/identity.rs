//! What a pod is called, whom it asks for names, and which of the node's namespaces it shares.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail as a test does")]

use std::{fs, path::PathBuf, time::Duration};

use flotilla_cluster_tests::{Cluster, eventually, is_ready, kubectls, succeed};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);
const DOMAIN: &str = "sub.default.svc.cluster.local";

/// A cluster, and the oldest kubectl.
struct Bench {
    cluster: Cluster,
    kubectl: PathBuf,
}

impl Bench {
    fn up() -> Self {
        let cluster = Cluster::up(1, 0);
        cluster.import_image("busybox");
        let kubectl = kubectls().remove(0);
        Self { cluster, kubectl }
    }

    /// Runs pods with these specs by name, each with a container that sleeps.
    fn run(&self, pods: &[(&str, &str)]) {
        for (name, spec) in pods {
            let container = "{name: main, image: 'flotilla.test/busybox:latest', imagePullPolicy: IfNotPresent, command: [sleep, '7200']}";
            self.cluster.apply(&format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{app: identity}}}}, spec: {{terminationGracePeriodSeconds: 0, containers: [{container}], {spec}}}}}"
            ));
        }
        for (name, _) in pods {
            eventually(&format!("{name} is ready"), LIMIT, || {
                is_ready(&self.pod(name)).then_some(())
            });
        }
    }

    fn pod(&self, name: &str) -> Value {
        self.cluster.get(&["pod", name])
    }

    /// What a command in the pod says, by kubectl.
    fn exec(&self, pod: &str, command: &[&str]) -> String {
        let mut words = vec!["exec", pod, "-c", "main", "--"];
        words.extend(command);
        succeed(self.cluster.command(&self.kubectl, &words))
    }

    fn file(&self, pod: &str, path: &str) -> String {
        self.exec(pod, &["cat", path])
    }
}

#[test]
fn pods_have_the_names_that_they_ask_for() {
    let bench = Bench::up();
    bench.cluster.apply(
        "{apiVersion: v1, kind: Service, metadata: {name: sub}, spec: {clusterIP: None, selector: {app: identity}}}",
    );
    bench.run(&[
        ("plain", ""),
        (
            "short",
            "hostname: h, subdomain: sub, hostAliases: [{ip: 10.1.2.3, hostnames: [foo.test, bar.test]}]",
        ),
        ("long", "hostname: l, subdomain: sub, setHostnameAsFQDN: true"),
    ]);
    assert_eq!(bench.exec("plain", &["hostname"]), "plain\n");
    assert_eq!(bench.exec("short", &["hostname"]), "h\n");
    assert_eq!(bench.file("short", "/etc/hostname"), "h\n");
    assert_eq!(bench.exec("long", &["hostname"]), format!("l.{DOMAIN}\n"));
    let address = bench.pod("short")["status"]["podIP"].as_str().unwrap().to_owned();
    let hosts = bench.file("short", "/etc/hosts");
    assert!(hosts.contains(&format!("{address}\th.{DOMAIN}\th\n")), "{hosts}");
    assert!(hosts.contains("10.1.2.3\tfoo.test\tbar.test\n"), "{hosts}");
    eventually("the name is known to others", LIMIT, || {
        let words = [
            "exec",
            "plain",
            "--",
            "nslookup",
            "-type=a",
            &format!("h.{DOMAIN}"),
        ];
        let said = bench.cluster.command(&bench.kubectl, &words).output().unwrap();
        String::from_utf8_lossy(&said.stdout)
            .contains(&format!("Address: {address}"))
            .then_some(())
    });
}

/// The words of a resolver's file, one line each.
fn resolver(text: &str) -> Vec<String> {
    let lines = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
}

#[test]
fn resolvers_follow_the_dns_policy() {
    let bench = Bench::up();
    bench.run(&[
        (
            "none",
            "dnsPolicy: None, dnsConfig: {nameservers: [9.9.9.9], searches: [a.test, b.test], options: [{name: ndots, value: '2'}, {name: edns0}]}",
        ),
        ("default", "dnsPolicy: Default"),
        ("first", "dnsConfig: {searches: [more.test], options: [{name: ndots, value: '3'}]}"),
        ("host", "hostNetwork: true, dnsPolicy: ClusterFirst"),
        ("host-first", "hostNetwork: true, dnsPolicy: ClusterFirstWithHostNet"),
    ]);
    let file = |pod: &str| resolver(&bench.file(pod, "/etc/resolv.conf"));
    assert_eq!(
        file("none"),
        [
            "search a.test b.test",
            "nameserver 9.9.9.9",
            "options ndots:2 edns0"
        ]
    );
    let of_node = resolver(&fs::read_to_string("/etc/resolv.conf").unwrap());
    let servers = |lines: &[String]| -> Vec<String> {
        let servers = lines.iter().filter(|line| line.starts_with("nameserver"));
        servers.cloned().collect()
    };
    assert_eq!(servers(&file("default")), servers(&of_node));
    assert_eq!(servers(&file("host")), servers(&of_node));
    let first = file("first");
    assert_eq!(servers(&first), ["nameserver 10.43.0.10"]);
    let search = first.iter().find(|line| line.starts_with("search")).unwrap();
    assert!(
        search.starts_with("search default.svc.cluster.local svc.cluster.local cluster.local")
            && search.ends_with("more.test"),
        "{search}"
    );
    assert!(first.iter().any(|line| line == "options ndots:3"), "{first:?}");
    let host_first = file("host-first");
    assert_eq!(servers(&host_first), ["nameserver 10.43.0.10"]);
    assert!(
        host_first.iter().any(|line| line == "options ndots:5"),
        "{host_first:?}"
    );
}

#[test]
fn pods_share_the_namespaces_that_they_ask_for_and_no_others() {
    let bench = Bench::up();
    bench.run(&[
        ("own", ""),
        ("host-pid", "hostPID: true"),
        ("host-ipc", "hostIPC: true"),
        ("host-net", "hostNetwork: true"),
        (
            "shared",
            "shareProcessNamespace: true, initContainers: [{name: side, restartPolicy: Always, image: 'flotilla.test/busybox:latest', imagePullPolicy: IfNotPresent, command: [sleep, '7300']}]",
        ),
    ]);
    let node = bench.cluster.pid("server-1");
    let of_node = |kind: &str| {
        let link = fs::read_link(format!("/proc/{node}/ns/{kind}")).unwrap();
        format!("{}\n", link.display())
    };
    let of_pod = |pod: &str, kind: &str| bench.exec(pod, &["readlink", &format!("/proc/self/ns/{kind}")]);
    for (pod, kind) in [("host-pid", "pid"), ("host-ipc", "ipc"), ("host-net", "net")] {
        for other in ["pid", "ipc", "net"] {
            assert_eq!(
                of_pod(pod, other) == of_node(other),
                other == kind,
                "{pod}: {other}"
            );
        }
    }
    for kind in ["pid", "ipc", "net", "uts", "mnt"] {
        assert_ne!(of_pod("own", kind), of_node(kind), "{kind}");
    }
    // A pod in the node's network has its address and its name.
    let host_net = bench.pod("host-net");
    assert_eq!(host_net["status"]["podIP"], host_net["status"]["hostIP"]);
    assert_eq!(bench.exec("host-net", &["hostname"]), "server-1\n");
    assert_eq!(bench.exec("own", &["cat", "/proc/1/cmdline"]), "sleep\x007200\0");
    let neighbours = bench.exec("shared", &["ps"]);
    assert!(neighbours.contains("sleep 7300"), "{neighbours}");
    assert_ne!(
        bench.exec("shared", &["cat", "/proc/1/cmdline"]),
        "sleep\x007200\0"
    );
    let all = bench.exec("host-pid", &["ps"]);
    assert!(all.contains("sleep 7300") && all.contains("sleep 7200"), "{all}");
}
