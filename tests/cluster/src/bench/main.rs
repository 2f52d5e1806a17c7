//! Measures what the README promises, on a fresh cluster of three servers and two agents. Run by `deploy/bench`.
//!
//! `flotilla-bench node` measures what is promised of a single node instead; `deploy/bench-node` runs that.
//! `flotilla-bench store` measures the store beside etcd; `deploy/bench-store` runs that.
//! `flotilla-bench failover [TIMES]` measures how long nothing can be written when the leader is killed, and when it is
//! stopped in order.

mod failover;
mod node;
mod store;

use std::time::{Duration, Instant};

use flotilla_cluster_tests::processes::{processor_seconds, resident_mb};
use flotilla_cluster_tests::{Cluster, eventually, is_ready};

const LIMIT: Duration = Duration::from_secs(60);
/// Start-up work (leases, first reports) is over by then.
const SETTLE: Duration = Duration::from_secs(5);
/// How long idle use of the processor is measured.
const IDLE: Duration = Duration::from_secs(20);

fn deployment(name: &str, replicas: u32) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  replicas: {replicas}\n  selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      containers: [{{name: web, image: 'flotilla.dev/demo:v1'}}]\n"
    )
}

/// Time from `apply` until all pods of a new Deployment are ready.
fn deploy(cluster: &Cluster, name: &str, replicas: u32) -> Duration {
    let start = Instant::now();
    cluster.apply(&deployment(name, replicas));
    let selector = format!("app={name}");
    eventually("all pods are ready", LIMIT, || {
        let pods = cluster.pods(&selector);
        (pods.len() == replicas as usize && pods.iter().all(is_ready)).then_some(())
    });
    start.elapsed()
}

fn remove(cluster: &Cluster, name: &str) -> Duration {
    let start = Instant::now();
    cluster.flotilla(&["delete", "deployment", name]);
    let selector = format!("app={name}");
    eventually("all pods are gone", LIMIT, || {
        cluster.pods(&selector).is_empty().then_some(())
    });
    start.elapsed()
}

#[expect(clippy::print_stdout, reason = "a table is what this program is for")]
fn row(what: &str, value: &str, promised: &str) {
    println!("| {what} | {value} | {promised} |");
}

fn milliseconds(duration: Duration) -> String {
    format!("{} ms", duration.as_millis())
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["store"] => store::measure(""),
        ["store", only] => store::measure(only),
        ["store-client", plan, only] => store::client(plan, only),
        ["node"] => {
            head();
            node::measure();
        }
        ["failover", ref times @ ..] => {
            head();
            let times = times.first().and_then(|times| times.parse().ok());
            failover::measure(times.unwrap_or(50));
        }
        _ => {
            head();
            measure();
        }
    }
}

fn head() {
    row("figure", "measured", "promised");
    row("---", "---:", "---:");
}

/// Processor time so far, and memory, of a process that must be there.
fn seconds(pid: u32) -> f64 {
    processor_seconds(pid).expect("the process is there")
}

fn measure() {
    let start = Instant::now();
    let cluster = Cluster::up(3, 2);
    row(
        "`local up`, 3 servers and 2 agents, to all five nodes Ready",
        &milliseconds(start.elapsed()),
        "3,000 ms",
    );

    std::thread::park_timeout(SETTLE);
    let nodes: Vec<(String, u32)> = ["server-1", "server-2", "server-3", "agent-1", "agent-2"]
        .into_iter()
        .map(|node| (node.to_owned(), cluster.pid(node)))
        .collect();
    let before: Vec<f64> = nodes.iter().map(|(_, pid)| seconds(*pid)).collect();
    std::thread::park_timeout(IDLE);
    for ((node, pid), before) in nodes.iter().zip(before) {
        let share = 100.0 * (seconds(*pid) - before) / IDLE.as_secs_f64();
        let promised = if node.starts_with("server") {
            "60 MB, 2 %"
        } else {
            "30 MB, 1 %"
        };
        row(
            &format!("{node}, idle"),
            &format!("{:.1} MB, {share:.1} %", resident_mb(*pid).unwrap_or_default()),
            promised,
        );
    }

    let three = deploy(&cluster, "three", 3);
    row(
        "Deployment of 3 pods, from `apply` to all Ready",
        &milliseconds(three),
        "1,500 ms",
    );
    row(
        "deleting it, to the last pod gone",
        &milliseconds(remove(&cluster, "three")),
        "",
    );
    let thirty = deploy(&cluster, "thirty", 30);
    row(
        "Deployment of 30 pods over five nodes",
        &milliseconds(thirty),
        "10,000 ms",
    );
    row(
        "deleting it, to the last pod gone",
        &milliseconds(remove(&cluster, "thirty")),
        "",
    );
}
