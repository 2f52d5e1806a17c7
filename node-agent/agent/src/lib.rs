//! A node: joins a cluster, runs the pods that the leading server assigns to it, and reports what became of them.
//!
//! Decisions about pods are [`flotilla_lifecycle`]'s; containers, images and network belong to the crates of these
//! names. The agent never stops a pod because a server is away, and may itself be killed at any moment.

mod agent;
mod checkpoint;
mod checks;
mod cluster;
mod directory;
mod disk_use;
mod disks;
mod follow;
mod gauges;
mod gone;
mod identity;
mod images;
mod ingress;
mod logs;
mod machine;
mod names;
mod network;
mod node;
mod outbox;
mod peers;
mod pods;
mod policies;
mod pressure;
mod services;
mod session;
mod statics;
mod stats;
mod streams;
mod tokens;
mod worker;

pub use agent::{Agent, NewAgentError, Options, RunAgentError};
pub use flotilla_ingress::Options as IngressOptions;
pub use flotilla_lifecycle::Permits;
pub use flotilla_lifecycle::pressure::{ParseThresholdError, Thresholds};
pub use flotilla_lifecycle::reserve::{ParseReservationError, Reservation, Reserve};
pub use flotilla_network::Overlay;
pub use identity::JoinError;
pub use network::NetworkOptions;
