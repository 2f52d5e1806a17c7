//! Pod networking of one node: a bridge, a veth pair and an address per pod, routes to other nodes.
//!
//! Works in the network namespace of the process; never touches links, routes or rules that it did not make.

mod allocations;
mod cidr;
pub mod link;
mod masquerade;
pub mod netns;
mod network;

pub use network::{Network, NetworkError, NodeConfig, Options, Route};
