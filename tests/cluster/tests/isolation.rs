//! Pods with users of their own, and kernel parameters that a node does not let pods set.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail as a test does")]

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flotilla_cluster_tests::processes::{self, Role};
use flotilla_cluster_tests::{Cluster, condition, eventually, kubectls, succeed, text};

const LIMIT: Duration = Duration::from_secs(60);
/// The pods' ids on the node are from here on.
const FIRST: u32 = 0x7000_0000;

const MAPPED: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {color: blue}
---
apiVersion: v1
kind: Pod
metadata: {name: mapped}
spec:
  hostUsers: false
  terminationGracePeriodSeconds: 1
  securityContext: {fsGroup: 2000}
  containers:
    - name: root
      image: flotilla.test/busybox:latest
      command: [sh, -c, 'echo started as $(id -u); touch /data/roots; sleep 100000']
      volumeMounts: [{name: data, mountPath: /data}, {name: settings, mountPath: /settings}]
    - name: user
      image: flotilla.test/busybox:latest
      securityContext: {runAsUser: 1000}
      command: [sh, -c, 'touch /data/users; exec sleep 100000']
      volumeMounts: [{name: data, mountPath: /data}]
      readinessProbe: {exec: {command: [test, -e, /data/users]}, periodSeconds: 1}
  volumes: [{name: data, emptyDir: {}}, {name: settings, configMap: {name: settings}}]
";

fn wait_ready(cluster: &Cluster, name: &str) {
    eventually(&format!("{name} is ready"), LIMIT, || {
        (condition(&cluster.get(&["pod", name]), "Ready") == Some("True")).then_some(())
    });
}

/// The file of this name below a folder.
fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    fs::read_dir(folder).ok()?.flatten().find_map(|entry| {
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        match entry.file_name() == name {
            true => Some(entry.path()),
            false if is_folder => find(&entry.path(), name),
            false => None,
        }
    })
}

#[test]
fn root_in_a_pod_with_its_own_users_is_nobody_on_the_node() {
    let Some(kubectl) = kubectls().into_iter().next_back() else {
        return;
    };
    let cluster = Cluster::up(1, 1);
    cluster.import_image("busybox");
    cluster.apply(&MAPPED.replace("spec:\n  hostUsers", "spec:\n  nodeName: agent-1\n  hostUsers"));
    wait_ready(&cluster, "mapped");
    let run = |container: &str, command: &str| {
        let words = ["exec", "mapped", "-c", container, "--", "sh", "-c", command];
        succeed(cluster.command(&kubectl, &words)).trim().to_owned()
    };
    assert_eq!(run("root", "id -u; cat /settings/color"), "0\nblue");
    assert_eq!(
        run("root", "cat /proc/self/uid_map")
            .split_whitespace()
            .collect::<Vec<_>>(),
        ["0", &FIRST.to_string(), "65536"]
    );
    assert_eq!(
        run("user", "stat -c %u:%g /data/roots /data/users"),
        "0:2000\n1000:2000"
    );
    assert!(
        cluster
            .flotilla(&["logs", "mapped", "-c", "root"])
            .contains("started as 0")
    );
    assert_eq!(
        run(
            "root",
            "nslookup kubernetes.default.svc.cluster.local >/dev/null && echo known"
        ),
        "known"
    );

    let processes = processes::of(&cluster);
    let of_pod = processes.iter().filter(|process| process.role == Role::Container);
    let mut users: Vec<u32> = of_pod
        .map(|process| fs::metadata(format!("/proc/{}", process.pid)).unwrap().uid())
        .collect();
    users.sort_unstable();
    users.dedup();
    assert_eq!(users, [FIRST, FIRST + 1000]);
    let on_disk = find(&cluster.data_dir("agent-1"), "roots").expect("the volume is on the node's disk");
    assert_eq!(
        fs::metadata(on_disk).unwrap().uid(),
        0,
        "a volume's owners outlive the pod's ids"
    );

    cluster.local(&["kill", "--process-only", "agent-1"]);
    cluster.local(&["start", "agent-1"]);
    eventually("the pod is managed again, with its users", LIMIT, || {
        let words = ["exec", "mapped", "-c", "root", "--", "cat", "/proc/self/uid_map"];
        let output = cluster.try_flotilla(&words);
        text(&output.stdout).contains(&FIRST.to_string()).then_some(())
    });
}

#[test]
fn what_a_node_does_not_allow_is_refused_by_name() {
    let cluster = Cluster::up(1, 0);
    let pod = |name: &str, spec: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{{spec}, containers: [{{name: demo, image: 'flotilla.dev/demo:v1'}}]}}}}"
        )
    };
    let sysctl = |name: &str| format!("securityContext: {{sysctls: [{{name: {name}, value: '1'}}]}}");
    cluster.apply(&pod("modest", &sysctl("net.ipv4.tcp_syncookies")));
    cluster.apply(&pod("greedy", &sysctl("kernel.msgmax")));
    wait_ready(&cluster, "modest");
    let status = eventually("the other has failed", LIMIT, || {
        let status = cluster.get(&["pod", "greedy"])["status"].clone();
        (status["phase"] == "Failed").then_some(status)
    });
    assert_eq!(status["reason"], "SysctlForbidden");
    let message = status["message"].as_str().unwrap();
    assert!(message.contains("\"kernel.msgmax\" not allowlisted"), "{message}");

    let refused = cluster.flotilla_with_input(
        &["apply", "-f", "-"],
        &pod("mixed", "hostUsers: false, hostPID: true"),
    );
    let said = text(&refused.stderr);
    assert!(
        said.contains("spec.hostPID: Forbidden: when `hostUsers` is false"),
        "{said}"
    );
}
