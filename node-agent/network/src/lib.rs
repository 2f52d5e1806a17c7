//! Pod networking of one node: a bridge, a veth pair and an address per pod, routes to other nodes.
//!
//! Works in the network namespace of the process; never touches links, routes or rules that it did not make.

mod allocations;
mod cidr;
mod errors;
pub mod link;
mod masquerade;
pub mod netns;
mod network;
mod route;
mod services;
mod sources;
mod traffic;
mod tunnel;
mod way;

pub use errors::NetworkError;
pub use network::{Network, NodeConfig, Options, Route};
pub use traffic::Traffic;
pub use way::Overlay;
