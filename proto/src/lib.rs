//! The messages and services that servers, nodes and peers exchange over gRPC.
//!
//! Everything is generated from `flotilla/*.proto` and `grpc/*.proto`; nothing is written here by hand.
#![allow(
    missing_docs,
    clippy::all,
    unreachable_pub,
    reason = "generated code is as it is"
)]

/// Servers among themselves: consensus, forwarding, membership.
pub mod peer {
    tonic::include_proto!("flotilla.peer.v1");
}

/// Nodes and servers: joining, sessions.
pub mod node {
    tonic::include_proto!("flotilla.node.v1");
}

/// gRPC's health protocol, which probes speak.
pub mod health {
    tonic::include_proto!("grpc.health.v1");
}
