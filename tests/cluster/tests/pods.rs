//! Pods with several containers, and pods that cannot run.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail as a test does")]

use std::time::Duration;

use flotilla_cluster_tests::{Cluster, eventually};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);

fn pod(cluster: &Cluster, name: &str) -> Value {
    cluster.get(&["pod", name])
}

/// Waits for a container's state to have this reason, waiting or terminated; its message.
fn reason(cluster: &Cluster, name: &str, container: &str, reason: &str) -> String {
    eventually(&format!("{container} of {name} says {reason}"), LIMIT, || {
        let pod = pod(cluster, name);
        let statuses = pod["status"]["containerStatuses"].as_array()?;
        let status = statuses.iter().find(|status| status["name"] == container)?;
        ["waiting", "terminated"].into_iter().find_map(|state| {
            let state = &status["state"][state];
            (state["reason"] == reason).then(|| state["message"].as_str().unwrap_or_default().to_owned())
        })
    })
}

const TWO_CONTAINERS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: pair}
spec:
  containers:
    - {name: one, image: 'flotilla.dev/demo:v1'}
    - name: two
      image: flotilla.dev/demo:v2
      env: [{name: PORT, value: '8081'}]
    - name: late
      image: flotilla.dev/demo:v1
      args: [--port, '8080']
";

#[test]
fn containers_of_a_pod_share_localhost_name_and_address() {
    let cluster = Cluster::up(1, 0);
    cluster.apply(TWO_CONTAINERS);
    // The third container wants the port that the first has: it fails and backs off, the first goes on.
    reason(&cluster, "pair", "late", "CrashLoopBackOff");
    let status = pod(&cluster, "pair");
    let of = |name: &str| {
        let statuses = status["status"]["containerStatuses"].as_array().unwrap();
        statuses
            .iter()
            .find(|status| status["name"] == name)
            .unwrap()
            .clone()
    };
    assert_eq!(of("one")["restartCount"], 0);
    assert_eq!(of("one")["ready"], true);
    assert!(of("late")["restartCount"].as_u64().unwrap() >= 1);
    let log = cluster.flotilla(&["logs", "pair", "-c", "late", "--previous"]);
    assert!(log.contains("cannot listen on 0.0.0.0:8080"), "{log}");

    assert_eq!(cluster.fetch("pair", 8080, "/hostname").trim(), "pair");
    assert_eq!(cluster.fetch("pair", 8081, "/hostname").trim(), "pair");
    // The first asks the second over localhost.
    let over_localhost = cluster.fetch("pair", 8080, "/fetch?port=8081&path=/version");
    assert_eq!(over_localhost.trim(), "v2");
    let addresses = |port| cluster.fetch("pair", port, "/addresses");
    let address = status["status"]["podIP"].as_str().unwrap();
    assert_eq!(addresses(8080), addresses(8081));
    assert!(addresses(8080).contains(address), "{}", addresses(8080));
}

fn single(name: &str, rest: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  containers:\n    - name: main\n      {rest}\n"
    )
}

#[test]
fn what_cannot_run_says_why() {
    let cluster = Cluster::up(1, 0);
    cluster.apply(&single("no-image", "image: 127.0.0.1:1/none:1"));
    let message = reason(&cluster, "no-image", "main", "ErrImagePull");
    assert!(message.contains("127.0.0.1:1"), "{message}");
    reason(&cluster, "no-image", "main", "ImagePullBackOff");
    let described = cluster.flotilla(&["describe", "pod", "no-image"]);
    assert!(described.contains("Failed to pull image"), "{described}");

    cluster.apply(&single(
        "no-command",
        "image: flotilla.dev/demo:v1\n      command: [/nothing-here]",
    ));
    let message = reason(&cluster, "no-command", "main", "StartError");
    assert!(message.contains("/nothing-here"), "{message}");

    cluster.apply(&single(
        "no-config",
        "image: flotilla.dev/demo:v1\n      envFrom: [{configMapRef: {name: missing}}]",
    ));
    let message = reason(&cluster, "no-config", "main", "CreateContainerConfigError");
    assert!(message.contains("missing"), "{message}");
    // Once it is there, the pod starts.
    cluster.flotilla(&["create", "configmap", "missing", "--from-literal=GREETING=hello"]);
    eventually("the pod runs", LIMIT, || {
        (pod(&cluster, "no-config")["status"]["phase"] == "Running").then_some(())
    });
    assert!(
        cluster
            .fetch("no-config", 8080, "/env")
            .contains("GREETING=hello")
    );

    cluster.fetch("no-config", 8080, "/exit?code=3");
    eventually("the pod has failed", LIMIT, || {
        (pod(&cluster, "no-config")["status"]["phase"] == "Failed").then_some(())
    });
    let state = pod(&cluster, "no-config")["status"]["containerStatuses"][0]["state"]["terminated"].clone();
    assert_eq!(
        (&state["exitCode"], &state["reason"]),
        (&Value::from(3), &Value::from("Error"))
    );
}

#[test]
fn pods_reach_pods_on_other_nodes() {
    let cluster = Cluster::up(1, 1);
    let on = |name: &str, node: &str| {
        cluster.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  nodeSelector: {{kubernetes.io/hostname: {node}}}\n  containers: [{{name: main, image: 'flotilla.dev/demo:v1'}}]\n"
        ));
        eventually("the pod has an address and runs", LIMIT, || {
            let status = pod(&cluster, name)["status"].clone();
            (status["phase"] == "Running").then(|| status["podIP"].as_str().map(str::to_owned))?
        })
    };
    let (here, there) = (on("here", "server-1"), on("there", "agent-1"));
    for (from, to, name) in [("here", &there, "there"), ("there", &here, "here")] {
        assert_eq!(
            cluster
                .fetch(from, 8080, &format!("/fetch?host={to}&port=8080&path=/hostname"))
                .trim(),
            name
        );
    }
}
