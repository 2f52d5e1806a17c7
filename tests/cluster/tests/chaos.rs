//! Kills containers, shims and agents at random; everything comes back, and nothing is left behind.
//!
//! `FLOTILLA_CHAOS_KILLS=1000 cargo nextest run -p flotilla-cluster-tests --test chaos` kills a thousand times instead
//! of sixty; `FLOTILLA_CHAOS_SEED` repeats a sequence that failed.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail as a test does")]

use std::process::Command;
use std::time::{Duration, Instant};

use flotilla_cluster_tests::dice::{Dice, number};
use flotilla_cluster_tests::processes::{self, Process, Role};
use flotilla_cluster_tests::traces::Traces;
use flotilla_cluster_tests::{Cluster, eventually};

const PODS: usize = 30;
const NODES: [&str; 3] = ["server-1", "agent-1", "agent-2"];
/// Those whose process may be killed without taking the control plane along.
const AGENTS: [&str; 2] = ["agent-1", "agent-2"];
const PAUSE: Duration = Duration::from_millis(150);
const LIMIT: Duration = Duration::from_secs(60);
/// A container that was killed again and again waits this long at most.
const BACKOFF_MAX: Duration = Duration::from_secs(300);

fn kill(pid: u32) {
    let mut kill = Command::new("kill");
    kill.args(["-KILL", &pid.to_string()]);
    // What has ended by itself since it was found is as good as killed.
    let _ = kill.output();
}

fn deployment() -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  replicas: {PODS}\n  selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: web}}}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      containers: [{{name: web, image: 'flotilla.dev/demo:v1'}}]\n"
    )
}

/// Kills one process of some role; an agent is started again.
fn strike(cluster: &Cluster, dice: &mut Dice) {
    let role = match dice.below(20) {
        0 => Role::Node,
        1..=9 => Role::Shim,
        _ => Role::Container,
    };
    if role == Role::Node {
        let node = AGENTS[dice.below(AGENTS.len())];
        cluster.kill_process(node);
        cluster.local(&["start", node]);
        return;
    }
    let found: Vec<Process> = processes::of(cluster)
        .into_iter()
        .filter(|process| process.role == role)
        .collect();
    if let Some(process) = dice.pick(&found) {
        kill(process.pid);
    }
}

#[test]
fn everything_comes_back_and_nothing_is_left_behind() {
    let kills = number("FLOTILLA_CHAOS_KILLS").unwrap_or(60);
    let mut dice = Dice::seeded_by("FLOTILLA_CHAOS_SEED");
    let seed = dice.seed();
    let cluster = Cluster::up(1, 2);
    // One pod before the first look, so that what a node makes for its first pod is no difference.
    cluster.apply(&deployment().replace(&format!("replicas: {PODS}"), "replicas: 6"));
    cluster.ready_pods("app=web", 6, LIMIT);
    clear(&cluster);
    let before = settled(&cluster);

    cluster.apply(&deployment());
    cluster.ready_pods("app=web", PODS, LIMIT);
    for _ in 0..kills {
        strike(&cluster, &mut dice);
        std::thread::park_timeout(PAUSE);
    }
    let limit = LIMIT + BACKOFF_MAX;
    eventually(
        &format!("all pods are back (FLOTILLA_CHAOS_SEED={seed})"),
        limit,
        || {
            let pods = cluster.pods("app=web");
            (pods.len() == PODS && pods.iter().all(flotilla_cluster_tests::is_ready)).then_some(())
        },
    );
    for pod in cluster.pods("app=web").iter().take(5) {
        let name = flotilla_cluster_tests::name_of(pod);
        assert_eq!(cluster.fetch(&name, 8080, "/hostname").trim(), name);
    }

    clear(&cluster);
    let end = Instant::now() + LIMIT;
    loop {
        let left = Traces::of(&cluster, &NODES).beyond(&before);
        if left.is_empty() {
            break;
        }
        assert!(
            Instant::now() < end,
            "left behind after {kills} kills (FLOTILLA_CHAOS_SEED={seed}):\n{}",
            left.join("\n")
        );
        std::thread::park_timeout(PAUSE);
    }
}

/// Removes all pods, and waits until they are gone.
fn clear(cluster: &Cluster) {
    cluster.flotilla(&["delete", "deployment", "web"]);
    eventually("all pods are gone", LIMIT, || {
        cluster.pods("app=web").is_empty().then_some(())
    });
}

/// The traces once two looks agree: the last leftovers of the pods are just going.
fn settled(cluster: &Cluster) -> Traces {
    let mut last = Traces::of(cluster, &NODES);
    eventually("the nodes are quiet", LIMIT, || {
        std::thread::park_timeout(PAUSE * 4);
        let now = Traces::of(cluster, &NODES);
        let is_same = now == last
            && processes::of(cluster)
                .iter()
                .all(|process| process.role != Role::Shim);
        last = now.clone();
        is_same.then_some(now)
    })
}
