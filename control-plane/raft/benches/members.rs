//! A learner that needs a large snapshot while writes go on, and how long nobody leads when a leader stops.
//!
//! Run with `cargo bench -p flotilla-raft --bench members -- MEGABYTES` (500 unless told).
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
use harness::{Cluster, committed, leader, put};
use tokio_util::task::TaskTracker;

const OBJECT_BYTES: usize = 256 << 10;
const HAND_OVERS: usize = 20;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    // Cargo passes `--bench` as well.
    let megabytes = std::env::args().find_map(|word| word.parse().ok()).unwrap_or(500);
    runtime.block_on(async {
        hand_over().await;
        learn(megabytes).await;
    });
}

/// Writes one after the other until it is told to stop; the longest time between two answers.
async fn write(replica: Replica, stop: Arc<AtomicBool>) -> (usize, Duration) {
    let (mut count, mut longest) = (0, Duration::ZERO);
    let mut last = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let outcome = replica
            .propose(put("writer", &count.to_string(), Require::Anything))
            .await;
        assert!(committed(&outcome.unwrap()));
        longest = longest.max(last.elapsed());
        last = Instant::now();
        count += 1;
    }
    (count, longest)
}

async fn hand_over() {
    let cluster = Cluster::new();
    let nodes = cluster.of(3).await;
    let tracker = TaskTracker::new();
    let mut pauses = Vec::new();
    for _ in 0..HAND_OVERS {
        let leading = leader(&nodes).await;
        let stop = Arc::new(AtomicBool::new(false));
        let other = nodes[(leading + 1) % nodes.len()].replica.clone();
        let writer = tracker.spawn(write(other, Arc::clone(&stop)));
        tokio::time::sleep(Duration::from_millis(200)).await;
        nodes[leading].replica.resign().await;
        leader(&nodes).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        stop.store(true, Ordering::Relaxed);
        pauses.push(writer.await.unwrap().1);
    }
    pauses.sort();
    println!(
        "longest time without a write around a hand-over, of {HAND_OVERS}: median {:?}, worst {:?}",
        pauses[HAND_OVERS / 2],
        pauses[HAND_OVERS - 1]
    );
    for node in nodes {
        node.stop().await;
    }
}

async fn learn(megabytes: usize) {
    let cluster = Cluster::new();
    let first = cluster.start(1).await;
    first.replica.bootstrap().await.unwrap();
    let value = "x".repeat(OBJECT_BYTES);
    for number in 0..(megabytes << 20) / OBJECT_BYTES {
        let outcome = first
            .replica
            .propose(put(&format!("pod-{number}"), &value, Require::Absent))
            .await;
        assert!(committed(&outcome.unwrap()));
    }
    println!("{megabytes} MB are stored; {} MiB resident", resident_mib());
    let (tracker, stop) = (TaskTracker::new(), Arc::new(AtomicBool::new(false)));
    let writer = tracker.spawn(write(first.replica.clone(), Arc::clone(&stop)));
    let begun = Instant::now();
    let second = cluster.start(2).await;
    second
        .replica
        .join(std::slice::from_ref(&first.address))
        .await
        .unwrap();
    let took = begun.elapsed();
    stop.store(true, Ordering::Relaxed);
    let (count, longest) = writer.await.unwrap();
    println!(
        "a voter after {took:?}, {count} writes meanwhile, the longest pause between two {longest:?}; both replicas together \
         {} MiB resident, at most {} MiB",
        resident_mib(),
        status_mib("VmHWM:")
    );
    let objects = second.replica.read().await.unwrap().len();
    assert_eq!(objects, (megabytes << 20) / OBJECT_BYTES + 1);
}

fn resident_mib() -> u64 {
    status_mib("VmRSS:")
}

fn status_mib(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}
