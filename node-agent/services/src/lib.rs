//! Services on one node: connections to a service's address go to one of its endpoints.
//!
//! Knows services and endpoint slices in a compact form ([`model`]), decides what each service needs ([`wanted`]),
//! keeps the kernel's nftables maps equal to that ([`program`], [`kernel`]), clears what the kernel remembers of UDP
//! flows to endpoints that are gone ([`conntrack`]), answers health checks ([`health`]) and announces balanced addresses
//! ([`announce`]). Works in the network namespace of the process; touches one table, and flows of services.

mod announce;
mod conntrack;
mod health;
mod hints;
mod kernel;
mod model;
mod program;
mod proxy;
mod sources;
mod wanted;

use std::net::Ipv4Addr;

pub use announce::{AnnounceError, Announcer};
pub use flotilla_nftables::NetlinkError;
pub use model::{Model, PortName, Reached, ServiceName};
pub use proxy::{Options, Proxy, ProxyError, SharedModel};

/// The ranges that decide where a packet belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// Addresses of all pods.
    pub cluster: (Ipv4Addr, u8),
    /// Addresses of services.
    pub services: (Ipv4Addr, u8),
}

/// What a client connects to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Frontend {
    pub(crate) address: Ipv4Addr,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
}

/// Transport protocols of services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    pub(crate) fn of(name: Option<&str>) -> Option<Self> {
        match name {
            None | Some("" | "TCP") => Some(Protocol::Tcp),
            Some("UDP") => Some(Protocol::Udp),
            Some("SCTP") => Some(Protocol::Sctp),
            Some(_) => None,
        }
    }

    /// The number in IP headers.
    pub(crate) fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }
}

/// Where a connection ends up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Backend {
    pub(crate) address: Ipv4Addr,
    pub(crate) port: u16,
    /// A pod of this node.
    pub(crate) is_local: bool,
}
