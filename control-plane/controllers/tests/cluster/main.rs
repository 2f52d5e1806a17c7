//! Controllers and scheduler on a real store of one replica, with nodes that only pretend to run pods.

mod garbage;
mod harness;
mod namespaces;
mod nodes;
mod replicas;
mod rollouts;
mod scheduling;
