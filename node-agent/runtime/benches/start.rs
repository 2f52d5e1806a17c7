//! Latency of a pod's start: sandbox, then create and start of its container; 200 pods, one after the other.
//!
//! `cargo bench -p flotilla-runtime` (as root).
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, a benchmark prints"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use support::{Node, ended};

const ROUNDS: usize = 200;

fn main() {
    let tokio = tokio::runtime::Runtime::new().unwrap();
    tokio.block_on(measure());
}

async fn measure() {
    let node = Node::new();
    let [mut sandboxes, mut starts, mut exits, mut destroys] = [const { Vec::<Duration>::new() }; 4];
    for round in 0..ROUNDS {
        let mut last = Instant::now();
        let mut lap =
            |times: &mut Vec<Duration>| times.push(std::mem::replace(&mut last, Instant::now()).elapsed());
        let pod = node.pod(&format!("p{round}")).await;
        lap(&mut sandboxes);
        pod.start_container(node.container(&pod, "c", &["helper", "exit", "0"]))
            .await
            .unwrap();
        lap(&mut starts);
        ended(&pod, "c-0").await;
        lap(&mut exits);
        pod.destroy().await.unwrap();
        lap(&mut destroys);
    }
    for (name, mut times) in [
        ("sandbox", sandboxes),
        ("create+start", starts),
        ("exit", exits),
        ("destroy", destroys),
    ] {
        times.sort_unstable();
        println!(
            "{name:13} median {:>9.2?}  p99 {:>9.2?}",
            times[ROUNDS / 2],
            times[ROUNDS * 99 / 100]
        );
    }
    assert_eq!(node.leftovers(), Vec::<String>::new());
}
