//! Controllers and scheduler on a real store of one replica, with nodes that only pretend to run pods.

#![allow(
    clippy::unwrap_used,
    reason = "a test that meets what it did not expect has failed"
)]

mod garbage;
mod harness;
mod ingresses;
mod leadership;
mod namespaces;
mod nodes;
mod replicas;
mod rollouts;
mod scheduling;
mod stateful_sets;
