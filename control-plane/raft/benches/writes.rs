//! Writes per second of three replicas with real syncs, and what they cost when idle.
//!
//! Run with `cargo bench -p flotilla-raft`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark prints, and may fail as a test does"
)]

#[path = "../tests/cluster/harness.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod harness;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use flotilla_raft::Replica;
use flotilla_store::Require;
use harness::{Cluster, Node, committed, leader, put};
use tokio_util::task::TaskTracker;

const ROUND: Duration = Duration::from_secs(4);
const IDLE: Duration = Duration::from_secs(10);

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(measure());
}

async fn measure() {
    let cluster = Cluster::new();
    let nodes = cluster.of(3).await;
    let leading = leader(&nodes).await;
    println!("three replicas in one process, 1 KiB objects, {} cores", cores());
    let busy = cpu_seconds();
    tokio::time::sleep(IDLE).await;
    let idle = (cpu_seconds() - busy) / IDLE.as_secs_f64() * 100.0;
    println!(
        "idle: {idle:.2} % of a core for all three, {} MiB resident",
        resident_mib()
    );
    for (place, replica) in [
        ("leader", &nodes[leading]),
        ("follower", &nodes[(leading + 1) % 3]),
    ] {
        for clients in [1, 16, 64, 256] {
            write_round(place, replica, clients).await;
        }
        for clients in [1, 64] {
            read_round(place, replica, clients).await;
        }
    }
    println!("{} MiB resident afterwards", resident_mib());
    for id in 1..=3 {
        println!(
            "log of server-{id}: {} MiB",
            folder_bytes(&cluster.folder(id).join("log")) >> 20
        );
    }
    for node in nodes {
        node.stop().await;
    }
}

async fn write_round(place: &str, node: &Node, clients: usize) {
    let value = "x".repeat(1000);
    let work = move |replica: Replica, client: usize, number: usize| {
        let transaction = put(
            &format!("pod-{client}-{}", number % 10),
            &value,
            Require::Anything,
        );
        async move { assert!(committed(&replica.propose(transaction).await.unwrap())) }
    };
    round(&format!("writes at the {place}"), node, clients, work).await;
}

async fn read_round(place: &str, node: &Node, clients: usize) {
    let work = |replica: Replica, _client: usize, _number: usize| async move {
        replica.read().await.unwrap();
    };
    round(&format!("reads at the {place}"), node, clients, work).await;
}

async fn round<W, F>(what: &str, node: &Node, clients: usize, work: W)
where
    W: Fn(Replica, usize, usize) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send,
{
    let tracker = TaskTracker::new();
    let stop = Arc::new(AtomicBool::new(false));
    let started = Instant::now();
    let busy = cpu_seconds();
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let (replica, stop, work) = (node.replica.clone(), Arc::clone(&stop), work.clone());
            tracker.spawn(async move {
                let mut times = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    work(replica.clone(), client, times.len()).await;
                    times.push(begun.elapsed());
                }
                times
            })
        })
        .collect();
    tokio::time::sleep(ROUND).await;
    stop.store(true, Ordering::Relaxed);
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.unwrap());
    }
    times.sort_unstable();
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{what}, {clients:3} clients: {:7.0}/s, p50 {:?}, p99 {:?}, {:.2} cores busy",
        times.len() as f64 / seconds,
        times[times.len() / 2],
        times[times.len() * 99 / 100],
        (cpu_seconds() - busy) / seconds,
    );
}

/// User and system time of this process.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

fn folder_bytes(folder: &std::path::Path) -> u64 {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() {
                folder_bytes(&entry.path())
            } else {
                metadata.len()
            }
        })
        .sum()
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
