//! What a replica takes of the disk while a million writes go over ten thousand objects of 1 KiB.
//!
//! Run with `cargo bench -p flotilla-raft --bench space`. A number of writes may follow `--`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark prints, and may fail as a test does"
)]

#[path = "../tests/cluster/harness.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod harness;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flotilla_store::Require;
use harness::{Cluster, committed, put};
use tokio_util::task::TaskTracker;

const WRITES: u64 = 1_000_000;
const OBJECTS: u64 = 10_000;
const CLIENTS: u64 = 256;
const LOOK_PERIOD: Duration = Duration::from_millis(100);
/// A line is printed so often.
const LINES: u64 = 20;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let writes = std::env::args().find_map(|argument| argument.parse().ok());
    runtime.block_on(measure(writes.unwrap_or(WRITES)));
}

async fn measure(writes: u64) {
    let cluster = Cluster::new();
    let node = cluster.of(1).await.remove(0);
    let (begun, started) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let tracker = TaskTracker::new();
    for _ in 0..CLIENTS {
        let (replica, begun) = (node.replica.clone(), Arc::clone(&begun));
        tracker.spawn(async move {
            let value = "x".repeat(1024);
            loop {
                let number = begun.fetch_add(1, Ordering::Relaxed);
                if number >= writes {
                    return;
                }
                let again = put(&format!("pod-{}", number % OBJECTS), &value, Require::Anything);
                assert!(committed(&replica.propose(again).await.unwrap()));
            }
        });
    }
    tracker.close();
    let (mut most, mut next_line) = (0, 0);
    while !tracker.is_empty() {
        tokio::time::sleep(LOOK_PERIOD).await;
        let (written, used) = (begun.load(Ordering::Relaxed), allocated_bytes(&cluster.folder(1)));
        most = most.max(used);
        if written >= next_line {
            next_line += writes / LINES;
            let status = node.replica.status();
            println!(
                "{written:8} writes, {:4} s: {:3} MiB stored, {:3} MiB on disk ({:3} MiB of log and snapshot), most {:3} MiB",
                started.elapsed().as_secs(),
                status.object_bytes >> 20,
                used >> 20,
                status.space.used_bytes >> 20,
                most >> 20,
            );
        }
    }
    let stored = node.replica.status().object_bytes;
    println!(
        "at most {:.1} times what is stored, {:.1} times at the end",
        most as f64 / stored as f64,
        allocated_bytes(&cluster.folder(1)) as f64 / stored as f64,
    );
    node.stop().await;
}

/// What a folder takes of the disk, snapshots that are on their way included.
fn allocated_bytes(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    // What is removed meanwhile takes nothing any more.
    let sizes = entries.flatten().filter_map(|entry| {
        let metadata = entry.metadata().ok()?;
        Some(if metadata.is_dir() {
            allocated_bytes(&entry.path())
        } else {
            metadata.blocks() * 512
        })
    });
    sizes.sum()
}
