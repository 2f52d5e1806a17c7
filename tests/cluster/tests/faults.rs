//! Processes and nodes that are lost.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail as a test does")]

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use flotilla_cluster_tests::{Cluster, condition, eventually, name_of, process_start};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);

fn deployment(replicas: u32) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  replicas: {replicas}\n  selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: web}}}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      containers: [{{name: web, image: 'flotilla.dev/demo:v1'}}]\n"
    )
}

/// Tells the writer to stop, however the test ends.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Writes until told to stop; what was acknowledged, and the longest time between two acknowledgements.
fn write_all_along(cluster: &Cluster, stop: &AtomicBool, acknowledged: &Mutex<Vec<String>>) -> Duration {
    let (mut longest, mut last) = (Duration::ZERO, Instant::now());
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("write-{number}");
        let output = cluster.try_flotilla(&["create", "configmap", &name, "--from-literal=a=b"]);
        if output.status.success() {
            longest = longest.max(last.elapsed());
            last = Instant::now();
            acknowledged.lock().unwrap().push(name);
        }
    }
    longest
}

#[test]
fn no_acknowledged_write_is_lost_with_the_leader() {
    let cluster = Cluster::up(3, 0);
    let (stop, acknowledged) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let longest = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write_all_along(&cluster, &stop, &acknowledged));
        let stopping = Stop(&stop);
        let some = |count: usize| {
            eventually("writes go on", LIMIT, || {
                (acknowledged.lock().unwrap().len() >= count).then_some(())
            });
        };
        some(10);
        let leader = cluster.leader();
        cluster.kill_process(&leader);
        let then = acknowledged.lock().unwrap().len();
        some(then + 10);
        drop(stopping);
        writer.join().unwrap()
    });
    let stored = cluster.get(&["configmaps"]);
    let stored: Vec<String> = stored["items"].as_array().unwrap().iter().map(name_of).collect();
    let acknowledged = acknowledged.into_inner().unwrap();
    let lost: Vec<_> = acknowledged
        .iter()
        .filter(|name| !stored.contains(name))
        .collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
    assert!(
        longest < Duration::from_secs(2),
        "no write was acknowledged for {longest:?}"
    );
}

/// Pid and start time of the container of every pod of a node.
fn containers(cluster: &Cluster, node: &str) -> BTreeMap<String, (u32, String)> {
    let pods: Vec<String> = cluster
        .pods("app=web")
        .iter()
        .filter(|pod| pod["spec"]["nodeName"] == node)
        .map(name_of)
        .collect();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|process| {
            let pid: u32 = process.file_name().to_str()?.parse().ok()?;
            let words = std::fs::read(process.path().join("cmdline")).ok()?;
            let environment = std::fs::read(process.path().join("environ")).ok()?;
            let hostname = environment
                .split(|byte| *byte == 0)
                .find_map(|pair| pair.strip_prefix(b"HOSTNAME="))?;
            let pod = String::from_utf8_lossy(hostname).into_owned();
            let is_container = words.starts_with(b"/flotilla\0demo") && pods.contains(&pod);
            is_container.then(|| Some((pod, (pid, process_start(pid)?))))?
        })
        .collect()
}

#[test]
fn containers_outlive_their_agent() {
    let cluster = Cluster::up(1, 1);
    cluster.apply(&deployment(4));
    cluster.ready_pods("app=web", 4, LIMIT);
    let before = containers(&cluster, "agent-1");
    assert_eq!(before.len(), 2, "{before:?}");
    cluster.kill_process("agent-1");
    for (pod, (pid, start)) in &before {
        assert_eq!(
            process_start(*pid).as_ref(),
            Some(start),
            "the container of {pod} did not survive"
        );
    }
    cluster.local(&["start", "agent-1"]);
    eventually("the node is ready", LIMIT, || {
        ready(&cluster, "agent-1").then_some(())
    });
    assert_eq!(containers(&cluster, "agent-1"), before);
    // They are managed again: a container that ends is restarted, a pod that is deleted goes.
    let pods: Vec<&String> = before.keys().collect();
    cluster.fetch(pods[0], 8080, "/exit?code=1");
    eventually("the container is restarted", LIMIT, || {
        let pod = cluster.get(&["pod", pods[0]]);
        let status = &pod["status"]["containerStatuses"][0];
        (status["restartCount"] == 1 && status["ready"] == true).then_some(())
    });
    cluster.flotilla(&["delete", "pod", pods[1]]);
    let (pid, start) = &before[pods[1]];
    assert_ne!(
        process_start(*pid).as_ref(),
        Some(start),
        "the deleted pod's container still runs"
    );
}

fn ready(cluster: &Cluster, node: &str) -> bool {
    condition(&cluster.get(&["node", node]), "Ready") == Some("True")
}

/// Pulls the plug of a node and measures how long its pods take to run elsewhere.
fn lose_a_node(cluster: &Cluster) -> Duration {
    cluster.apply(&deployment(4));
    let pods = cluster.ready_pods("app=web", 4, LIMIT);
    assert!(
        pods.iter().any(|pod| pod["spec"]["nodeName"] == "agent-1"),
        "no pod is on agent-1"
    );
    let start = Instant::now();
    cluster.local(&["kill", "agent-1"]);
    eventually("all pods run elsewhere", Duration::from_secs(60), || {
        let elsewhere = |pod: &&Value| {
            pod["spec"]["nodeName"] != "agent-1"
                && pod["metadata"]["deletionTimestamp"].is_null()
                && condition(pod, "Ready") == Some("True")
        };
        (cluster.pods("app=web").iter().filter(elsewhere).count() == 4).then_some(())
    });
    start.elapsed()
}

#[test]
fn pods_of_a_lost_node_run_elsewhere_within_45_s() {
    let took = lose_a_node(&Cluster::up(1, 2));
    assert!(took < Duration::from_secs(45), "it took {took:?}");
}

#[test]
fn pods_of_a_lost_node_run_elsewhere_within_10_s_when_told_to_hurry() {
    let took = lose_a_node(&Cluster::up_with(1, 2, &["--toleration-seconds", "1"]));
    assert!(took < Duration::from_secs(10), "it took {took:?}");
}

#[test]
fn a_paused_and_a_cut_off_node_come_back() {
    let cluster = Cluster::up(1, 1);
    for (lose, regain) in [
        (vec!["pause", "agent-1"], vec!["resume", "agent-1"]),
        (vec!["partition", "server-1|agent-1"], vec!["heal"]),
    ] {
        cluster.local(&lose);
        eventually("the node is called not ready", LIMIT, || {
            (!ready(&cluster, "agent-1")).then_some(())
        });
        cluster.local(&regain);
        eventually("the node is ready again", LIMIT, || {
            ready(&cluster, "agent-1").then_some(())
        });
    }
}

#[test]
fn a_killed_server_comes_back_with_everything() {
    let cluster = Cluster::up(3, 0);
    cluster.flotilla(&["create", "configmap", "before", "--from-literal=a=b"]);
    for server in ["server-1", "server-2", "server-3"] {
        cluster.local(&["kill", server]);
    }
    for server in ["server-1", "server-2", "server-3"] {
        cluster.local(&["start", server]);
    }
    eventually("the cluster answers and has kept the object", LIMIT, || {
        cluster
            .try_flotilla(&["get", "configmap", "before"])
            .status
            .success()
            .then_some(())
    });
    eventually("all nodes are ready", LIMIT, || {
        let all = ["server-1", "server-2", "server-3"];
        all.iter()
            .all(|node| {
                cluster.try_flotilla(&["get", "node", node]).status.success() && ready(&cluster, node)
            })
            .then_some(())
    });
}

#[test]
fn an_agent_goes_on_when_the_server_that_it_joined_is_lost() {
    let cluster = Cluster::up(3, 1);
    // The agent joined when the first server was alone; it must have heard of the others since.
    cluster.local(&["kill", "server-1"]);
    eventually(
        "the first server is called not ready, the agent is ready",
        LIMIT,
        || {
            let answers = cluster.try_flotilla(&["get", "nodes"]).status.success();
            (answers && !ready(&cluster, "server-1") && ready(&cluster, "agent-1")).then_some(())
        },
    );
    cluster.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: later, labels: {app: later}}\nspec:\n  nodeSelector: {kubernetes.io/hostname: agent-1}\n  containers: [{name: main, image: 'flotilla.dev/demo:v1'}]\n",
    );
    cluster.ready_pods("app=later", 1, LIMIT);
}

#[test]
fn a_first_start_that_was_cut_short_is_finished_by_the_next() {
    let cluster = Cluster::up(1, 0);
    let token = cluster.folder().join(cluster.name()).join("server-1/join-token");
    cluster.local(&["kill", "server-1"]);
    // As if the power had gone after the store was made and before anybody could join.
    std::fs::remove_file(&token).unwrap();
    cluster.local(&["start", "server-1"]);
    eventually("there is a join token", LIMIT, || token.exists().then_some(()));
}
