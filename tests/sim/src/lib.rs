//! A whole cluster of store replicas, and its clients, in one process on virtual time; one seed decides everything.
//!
//! The replicas are the real ones: everything of `flotilla-raft` but sled, gRPC and threads. Each process has a tokio
//! runtime of its own with a clock of its own, which the world steps forward a tick at a time; so a crash is a runtime
//! that is dropped, and clocks can jump and drift. (turmoil does the same for TCP. Ours works at the level of calls
//! between servers, which can then be lost, repeated and reordered one by one, and it needs no gRPC in the middle:
//! thousands of runs take minutes.) What chance does is written down by the seed: [`run_seed`] twice is the same run.
//!
//! Every run starts a cluster, lets things go wrong under load, heals everything, and demands that every server serves
//! again. What must always hold is in `invariants`, one file each.

mod chance;
mod clients;
mod disk;
mod faults;
mod host;
mod invariants;
mod network;
mod objects;
mod panics;
mod plan;
mod report;
mod threads;
mod trace;
mod world;

pub use report::{Failure, Report};

/// How far all clocks go at once, and the shortest time of a message on its way.
const TICK_MS: u64 = 2;

/// Runs a seed; prints everything that happens if wanted.
pub fn run_seed(seed: u64, is_printed: bool) -> Result<Report, Failure> {
    world::run(plan::Plan::new(seed), &[], is_printed)
}
