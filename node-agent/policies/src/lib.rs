//! Network policies on one node: what its pods may send and receive.
//!
//! Knows policies, namespaces and pods in a compact form ([`model`], [`policy`]), decides for each pod of this node
//! what is allowed ([`profile`]), lays that out as chains and sets and finds what is to change ([`program`]), and keeps
//! the kernel's table equal to it ([`kernel`], [`engine`]). Works in the network namespace of the process.
//!
//! *Guarantees*: [`SharedModel::admit`] returns once the pod's rules are in the kernel. A packet meets the old rules or
//! the new ones, never none, also while agents are replaced. What is not known is not allowed: a peer that was not told
//! yet is let in when it is. Replies to what was allowed are; a connection that is under way is not cut when the
//! policies change.

mod engine;
mod kernel;
mod model;
mod policy;
mod profile;
mod program;
mod ranges;

pub use engine::{AdmitError, Engine, EngineError, SharedModel};
pub use model::Model;

/// Transport protocols that policies know.
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
